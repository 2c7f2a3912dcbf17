"""What `checkpoint=` may mean: the one function that decides it, for every command and for `from_pretrained`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from geoclip.data.assets import asset_path
from geoclip.errors import AssetError, CheckpointError
from geoclip.model.hub import HUB, RELEASE, fetch
from geoclip.pretrained.releases import OFFICIAL_WEIGHTS, OURS, read_release_config
from geoclip.runs.run_dir import checkpoint_file, run_of
from geoclip.system.files import sha256_of


class CheckpointKind(Enum):
    """How a model is stored."""

    official = "official"  # the authors' weights, inside their pinned wheel
    authors = "authors"  # a folder in the authors' Hub layout
    lightning = "lightning"  # a .ckpt of the Lightning re-implementation
    published = "published"  # a folder in the layout of geoclip.publish
    run = "run"  # a checkpoint of a training run


@dataclass(kw_only=True, slots=True, frozen=True)
class Checkpoint:
    """A model on this machine."""

    kind: CheckpointKind
    files: tuple[Path, ...]  # that hold its weights
    name: str  # what results call it
    results: Path  # the folder that results are written to: of a run, its own

    @property
    def folder(self) -> Path:
        """The folder of its weights."""
        return self.files[0].parent

    def sha256(self) -> str:
        """Hash of its files, in order."""
        return sha256_of(*self.files)


def resolve_checkpoint(
    checkpoint: str | Path, runs_dir: str = "runs", *, best: bool = True, hub_ids: bool = False, **download: Any
) -> Checkpoint:
    """The model that a name stands for; a Hub repository and the official weights are fetched.

    Args:
        checkpoint: `official`, `latest`, a run's folder, a checkpoint file, a folder of a release, a Lightning .ckpt,
            or a Hub id after `hf-hub:`.
        runs_dir: where `latest` is looked for, and where results of a release are written.
        best: of a run's folder take the best weights if there are any; otherwise the newest state to resume from.
        hub_ids: whether owner/name alone is a Hub id where no such path exists.
        download: revision, token, cache_dir, local_files_only of `huggingface_hub.snapshot_download`.

    Raises:
        AssetError: it is none of these, or not reachable.
        CheckpointError: a run's folder has no checkpoint, or config.json cannot be read.
    """
    given = str(checkpoint)
    name = Path(given.removeprefix(HUB)).resolve().name.removesuffix(".ckpt")
    if given == "official":
        kind, files = CheckpointKind.official, tuple(map(asset_path, OFFICIAL_WEIGHTS))
    else:
        is_path = not given.startswith(HUB) and (given == "latest" or not hub_ids)
        path = Path(given).expanduser() if is_path else local_copy(checkpoint, **download)
        if path.suffix == ".ckpt":
            kind, files = CheckpointKind.lightning, (path,)
        elif (path / "config.json").is_file():
            is_ours = read_release_config(path).get("model_type") == OURS
            kind = CheckpointKind.published if is_ours else CheckpointKind.authors
            files = (path / "model.safetensors",)
        else:
            file = checkpoint_file(str(path), runs_dir, best=best)
            run = run_of(file)
            return Checkpoint(kind=CheckpointKind.run, files=(file,), name=run.resolve().name, results=run)
    return Checkpoint(kind=kind, files=files, name=name, results=Path(runs_dir) / name)


def resolve_run(checkpoint: str, runs_dir: str = "runs", *, best: bool = True) -> Checkpoint:
    """`resolve_checkpoint` of what only a training run can be.

    Raises:
        CheckpointError: it is a release.
    """
    found = resolve_checkpoint(checkpoint, runs_dir, best=best)
    if found.kind is not CheckpointKind.run:
        raise CheckpointError(f"{checkpoint} is a release; name a run's folder, a checkpoint of a run, or latest")
    return found


def local_copy(source: str | Path, **download: Any) -> Path:
    """The file or folder of a path or of a Hub id; a Hub repository is fetched.

    Raises:
        AssetError: it is neither, or not reachable.
    """
    name, path = str(source), Path(source).expanduser()
    if not name.startswith(HUB):
        if path.exists():
            return path
        if isinstance(source, Path) or path.is_absolute() or name.startswith(".") or path.suffix == ".ckpt":
            raise AssetError(f"{source} does not exist; give a folder with config.json and model.safetensors")
        if name.count("/") != 1:
            raise AssetError(f"{name!r} is no file or folder here, not 'official', and no Hub id, which is owner/name")
    return fetch(name.removeprefix(HUB), RELEASE, **download)
