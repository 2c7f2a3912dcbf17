"""What stands at the folder that a build is to make: nothing, this very data set, or another one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from geoclip.errors import DataError


def stands(root: Path, wanted: dict[str, Any], *, overwrite: bool) -> bool:
    """Whether the data set of these settings is at `root`.

    Args:
        root: with a metadata.json, the last file of a data set to be written, or without anything.
        wanted: the settings.
        overwrite: whether another data set of ours may be replaced.

    Raises:
        DataError: something else is there, or other settings, by name.
    """
    built = settings_at(root)
    if built is None:
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise DataError(f"{root} exists and was not built by geoclip.shards; choose another root")
        return False
    if built == wanted:
        return True
    if not overwrite:
        raise DataError(
            f"the shards at {root} were built with other settings ({differences(built, wanted)}); {cure(root)}"
        )
    return False


def settings_at(root: Path) -> dict[str, Any] | None:
    """The settings of the data set at `root`; None where there is none that is whole."""
    try:
        return dict(json.loads((root / "metadata.json").read_text(encoding="utf-8"))["settings"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def differences(built: dict[str, Any], wanted: dict[str, Any]) -> str:
    """The settings that differ, each with both values."""
    keys = [key for key in {**wanted, **built} if built.get(key) != wanted.get(key)]
    return "; ".join(f"{key} is {built.get(key)}, not {wanted.get(key)}" for key in keys)


def cure(root: Path) -> str:
    """What to do about other settings."""
    return f"the same command with overwrite=true replaces what is at {root}, another root keeps it"


def clear(root: Path) -> None:
    """Empty a folder, which may be a link or a file system of its own and stays."""
    for path in root.iterdir() if root.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
