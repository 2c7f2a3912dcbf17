"""Text and paths on the command line, quoted if Hydra's grammar would refuse or change them.

That grammar accepts `image=IMG_1 (1).jpg` and `checkpoint=epoch=9.ckpt` only in quotes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, get_args, get_origin

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, QuotedString
from hydra.errors import HydraException

from geoclip.config import options, type_of_key

MAY_BE_MULTIRUN = re.compile(r"\+*(experiment|hydra\.mode|hydra/sweeper|hydra\.sweeper\.[\w.]+)=")
QUOTED = re.compile(r"""\s*(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")\s*(?=,|$)""", re.DOTALL)


def literal_overrides(arguments: Sequence[str], schema: type[Any]) -> list[str]:
    """The arguments of a command, with text, paths and lists of them quoted where Hydra needs it.

    `schema` is the command's configuration. Commas separate points in a multirun, otherwise they are part of a text.
    """
    multirun = any(one in ("-m", "--multirun") or MAY_BE_MULTIRUN.match(one) for one in arguments)
    return [one if one.startswith("-") else _literal(one, schema, multirun=multirun) for one in arguments]


def quoted(value: str) -> str:
    """`value` in quotes, so that Hydra and OmegaConf return it unchanged."""
    value = re.sub(r"(\\*)'", r"\1\1\\'", value)
    value = re.sub(r"(\\+)$", r"\1\1", value)
    return "'" + value.replace("${", r"\${") + "'"


def _literal(argument: str, schema: type[Any], *, multirun: bool) -> str:
    key, equals, value = argument.partition("=")
    name = key.lstrip("+~")
    hint = type_of_key(name, schema) if equals else None
    if equals and name and options(name):  # options are names; Hydra fails on 1 or null
        parts = _split(value) if multirun else [value]
        return f"{key}={','.join(quoted(part) if part == 'null' else _text(part) for part in parts)}"
    may_be_text = hint is Any or (str in (hint, *get_args(hint)) and get_origin(hint) is not list)
    may_be_list = hint is Any or (get_origin(hint) is list and get_args(hint) == (str,))
    if not (may_be_text or may_be_list):
        return argument
    parsed = _parsed(argument)
    if multirun and parsed is not None and parsed.is_sweep_override() and not _is_comma_separated(parsed):
        return argument  # range(…), glob(…), choice(…)
    parts = _split(value) if multirun else [value]
    if may_be_text and not may_be_list:
        return f"{key}={','.join(_text(part) or quoted(part) for part in parts)}"
    return f"{key}={','.join(_text_or_list(part, may_be_text=may_be_text) for part in parts)}"


def _text(value: str) -> str:
    """A text unchanged if the grammar parses it as that text, otherwise quoted."""
    parsed = _parsed(f"key={value}")
    if parsed is not None and not parsed.is_sweep_override():
        found = parsed._value
        if found is None or isinstance(found, QuotedString) or found == value:  # and no space was stripped
            return value
    return quoted(value)


def _text_or_list(value: str, *, may_be_text: bool) -> str:
    listed = value.strip()
    if listed.startswith("[") and listed.endswith("]"):
        parts = [part.strip() for part in _split(listed[1:-1])]
        return f"[{','.join(quoted(part) if part.lower() == 'null' else _text(part) for part in parts)}]"
    return _text(value) if may_be_text else value


def _parsed(argument: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException:
        return None


def _is_comma_separated(parsed: Override) -> bool:
    value = parsed._value
    return isinstance(value, ChoiceSweep) and value.simple_form


def _split(value: str) -> list[str]:
    """Split at commas outside of quotes and brackets; at all commas if brackets do not close."""
    parts, begin, depth, position = [], 0, 0, 0
    while position < len(value):
        if position == begin and (quotation := QUOTED.match(value, position)):
            position = quotation.end()
            continue
        depth += (value[position] in "([{") - (value[position] in ")]}")
        if value[position] == "," and depth <= 0:
            parts.append(value[begin:position])
            begin, depth = position + 1, 0
        position += 1
    parts.append(value[begin:])
    return parts if depth <= 0 else value.split(",")
