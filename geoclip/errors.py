"""Errors that the user can mend: printed as one sentence, without a traceback, and the process ends with status 1."""

from __future__ import annotations


class GeoclipError(RuntimeError):
    """Something outside of the code is wrong; the message names the file, the row or the key, and the mend."""


class DataError(GeoclipError):
    """Shards, photographs or coordinates that cannot be used."""


class AssetError(GeoclipError):
    """A released file that is neither cached nor reachable, or damaged."""


class CheckpointError(GeoclipError):
    """A checkpoint that is damaged, missing or of another architecture."""
