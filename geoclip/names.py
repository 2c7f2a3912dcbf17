"""Names that become part of a path: of runs, data sets, benchmarks, galleries, splits, evaluations."""

from __future__ import annotations

import unicodedata

from geoclip.errors import DataError

REFUSED = set('/\\*?[]<>:"|')  # separators, patterns, and what other systems' file names cannot hold
LONGEST_BYTES = 150  # suffixes and hashes still come after it


def name_problem(name: str) -> str:
    """Why `name` cannot be the name of a file or folder; empty when it can."""
    if not name:
        return "is empty"
    if bad := sorted(REFUSED.intersection(name)):
        return f"holds {' '.join(bad)}"
    if any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in name):
        return "holds a control character"
    if name.startswith((".", "-", "~")) or name != name.strip():
        return "begins with '.', '-' or '~', or with a space, or ends with one"
    if len(name.encode("utf-8")) > LONGEST_BYTES:
        return f"has more than {LONGEST_BYTES} bytes"
    return ""


def file_name(name: object, source: object) -> str:
    """`name`, which somebody else's file holds, if it is the name of a file and of nothing outside its folder.

    Args:
        name: what is to become part of a path.
        source: the file and key that it was read from, for the message.

    Raises:
        DataError: it is none.
    """
    if problem := name_problem(str(name)):
        raise DataError(f"{source}: the name {str(name)!r} {problem}; it cannot be part of a file's name")
    return str(name)
