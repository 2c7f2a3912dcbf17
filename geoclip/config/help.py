"""The text of `--help`: a command's groups with their options, and each key."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from geoclip.config.composed import options
from geoclip.config.keys import key_of, section_of, shown, type_in_words

WIDTH = 100
INDENT = 34  # of the comments


def config_help(composed: Mapping[str, Any], schema: type[Any], groups: Mapping[str, str | None]) -> str:
    """The groups of a command, and every key with its default, comment, type, range and unit.

    Args:
        composed: the command's configuration, as plain values.
        schema: its dataclass.
        groups: the option that is chosen of each group.
    """
    chosen = [_row(f"{group}={shown(name)}", ", ".join(options(group.lstrip("+")))) for group, name in groups.items()]
    listed = ["Groups (choose with group=option)", *chosen, ""] if chosen else []
    return "\n".join([*listed, "Keys (change with key=value)", *_keys(composed, schema)])


def _keys(composed: Mapping[str, Any], schema: type[Any], prefix: str = "") -> Iterator[str]:
    """The single keys of a section, then its sections."""
    hints = get_type_hints(schema)
    single = [item for item in fields(schema) if item.name in composed and not section_of(hints[item.name])]
    for item in single:
        value, rule = composed[item.name], key_of(item)
        kind, null, _ = type_in_words(hints[item.name]).partition(" or null")
        takes = ", ".join(filter(None, (kind, rule.range, rule.unit, null and "or null")))
        given = "… (must be given)" if value == "???" else shown(value)
        comment = f"{rule.comment} ({takes})" if rule.comment else takes
        yield _row(f"{prefix}{item.name}={given}", comment)
    for item in fields(schema):
        section, value = section_of(hints[item.name]), composed.get(item.name)
        if section and isinstance(value, Mapping):
            about = f"{prefix}{item.name}: {(section.__doc__ or '').splitlines()[0]}"
            yield from ("", textwrap.fill(about, WIDTH))
            yield from _keys(value, section, f"{prefix}{item.name}.")


def _row(left: str, right: str) -> str:
    """Two columns, wrapped; a long left column is on its own line."""
    begin, margin = f"  {left} ".ljust(INDENT), " " * INDENT
    lines = textwrap.wrap(right, WIDTH - INDENT, break_on_hyphens=False) or [""]
    first = [begin + lines[0]] if len(begin) == INDENT else [begin, margin + lines[0]]
    return "\n".join(line.rstrip() for line in (*first, *(margin + line for line in lines[1:])))
