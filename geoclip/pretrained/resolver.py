"""The meaning of `checkpoint=`, for every command and for `geoclip.load`."""

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
    files: tuple[Path, ...]  # of its weights
    name: str  # in results
    results: Path  # folder for results: for a run, its own

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
    """Find the model that `checkpoint` names; download Hub repositories and the official weights.

    Args:
        checkpoint: `official`, `latest`, a run's folder, a checkpoint file, a folder of a release, a Lightning .ckpt,
            or a Hub id after `hf-hub:`.
        runs_dir: for `latest`, and for the results of a release.
        best: of a run, take the best weights if there are any; False: the newest state to resume from.
        hub_ids: whether owner/name alone is a Hub id if no such path exists.
        download: as of `fetch`.

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
    """`resolve_checkpoint` for a checkpoint of a training run.

    Raises:
        CheckpointError: it is a release.
    """
    found = resolve_checkpoint(checkpoint, runs_dir, best=best)
    if found.kind is not CheckpointKind.run:
        raise CheckpointError(f"{checkpoint} is a release; name a run's folder, a checkpoint of a run, or latest")
    return found


def local_copy(source: str | Path, **download: Any) -> Path:
    """The path itself, or the folder of a Hub repository, which is downloaded.

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
            raise AssetError(f"{name!r} is not a file or folder here, 'official', or a Hub id (owner/name)")
    return fetch(name.removeprefix(HUB), RELEASE, **download)
