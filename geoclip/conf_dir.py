"""Where conf/ is: beside the package in a checkout and an editable install, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path


def conf_dir() -> str:
    """Absolute path of the configuration folder, for `hydra.main(config_path=conf_dir())`."""
    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return str(folder)
    raise FileNotFoundError(f"no conf/train.yaml in {package} or beside it; reinstall geoclip-ablations")
