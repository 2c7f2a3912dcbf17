"""Comment, unit and allowed values of a key, and the messages about wrong values and types."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields, is_dataclass
from enum import Enum
from typing import Any, get_args, get_origin, get_type_hints

from hydra.conf import HydraConf
from omegaconf import MISSING

from geoclip.system.files import name_problem

LARGEST_SEED = 2**32 - 1  # of NumPy's generators
LARGEST_INT = 2**63 - 1
DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")
WRONG_TYPE = r"could not be converted|not a valid bool|[Ii]nvalid value|[Ii]ncompatible value|is not Optional"
TYPES = {int: "whole number", float: "number", bool: "true or false", str: "text"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """A key's comment, unit and rule. Of a list, the rule is for each of its values."""

    comment: str = ""
    unit: str = ""
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    check: Callable[[str], str] | None = None  # of a text: the problem, or an empty string

    @property
    def range(self) -> str:
        """The allowed range in words; empty where every value is allowed."""
        low = self.above if self.at_least is None else self.at_least
        high = self.below if self.at_most is None else self.at_most
        if low is None:
            return ""
        if high is None:
            return f"above {low:g}" if self.at_least is None else f"{low:g} or more"
        begin, end = "(" if self.at_least is None else "[", ")" if self.at_most is None else "]"
        return f"in {begin}{low:.10g}, {high:.10g}{end}"

    def problem(self, value: Any) -> str:
        """Why the value is not allowed; empty if it is."""
        match value:
            case bool() | None:
                return ""
            case float() if not math.isfinite(value):
                return "must be a finite number"
            case int() if abs(value) > LARGEST_INT:
                return f"must be {LARGEST_INT} or less"
            case str() if "\0" in value:
                return "must not contain a NUL character"
            case str():
                return self.check(value) if self.check and value else ""
            case int() | float():
                inside = (
                    (self.at_least is None or value >= self.at_least)
                    and (self.above is None or value > self.above)
                    and (self.at_most is None or value <= self.at_most)
                    and (self.below is None or value < self.below)
                )
                return "" if inside else f"must be {self.range} {self.unit}".rstrip()
            case _:
                return ""


def key(default: Any = MISSING, comment: str = "", **rule: Any) -> Any:
    """A field of a configuration's dataclass, with its description in `--help` and its allowed values.

    Args:
        default: a list is copied; without a default the key must be given.
        comment: one line, without type and range.
        rule: the other fields of `Key`. `null` is allowed by the type.
    """
    metadata = {"key": Key(comment=comment, **rule)}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def name_key(comment: str, default: Any = MISSING) -> Any:
    """A key that names a file or folder."""
    return key(default, comment, check=_name_problem)


def seed_key(of: str = "") -> Any:
    """A key for a random seed."""
    return key(0, f"random seed {of}".rstrip(), at_least=0, at_most=LARGEST_SEED)


def device_key() -> Any:
    """A key for a device of PyTorch."""
    return key("auto", "auto, cpu, cuda, cuda:N or mps", check=_device_problem)


def _name_problem(name: str) -> str:
    problem = name_problem(name)
    return problem and f"{problem}; a file or folder has this name: letters, digits, '.', '_', '-' and '+'"


def _device_problem(device: str) -> str:
    return "" if DEVICE.fullmatch(device) else "must be auto, cpu, cuda, cuda:N or mps"


def key_problems(config: Any, prefix: str = "") -> list[str]:
    """Messages about the values of a nested configuration that their keys do not allow."""
    problems = []
    for item in fields(config):
        value, path = getattr(config, item.name), f"{prefix}{item.name}"
        if is_dataclass(value):
            problems += key_problems(value, f"{path}.")
            continue
        found = (key_of(item).problem(one) for one in (value if isinstance(value, list) else [value]))
        if problem := next(filter(None, found), ""):
            or_null = ", or null" if "None" in str(item.type) else ""
            problems.append(f"{path}={shown(value)}: {problem}{or_null}")
    return problems


def key_of(item: Field[Any]) -> Key:
    """The declaration of a field."""
    declared = item.metadata.get("key", Key())
    assert isinstance(declared, Key)
    return declared


def shown(value: Any) -> str:
    """A value as it is written on the command line."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case Enum():
            return str(value.value)
        case list() | tuple():
            return f"[{','.join(map(shown, value))}]"
        case str() if not value or not value.isprintable() or " " in value:
            return repr(value)
        case _:
            return str(value)


def type_in_words(hint: Any) -> str:
    """The type of a key, such as `whole number or null`; of an enum its values."""
    if type(None) in get_args(hint):
        return f"{type_in_words(next(kind for kind in get_args(hint) if kind is not type(None)))} or null"
    if get_origin(hint) is list:
        kind = get_args(hint)[0]
        return f"list of {TYPES[kind]}s" if kind in TYPES else f"list of {type_in_words(kind)}"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return ", ".join(str(one.value) for one in hint)
    return TYPES.get(hint, "text or list of texts")


def type_problem(text: str, schema: type[Any]) -> str:
    """The message for Hydra's error about a value of the wrong type; empty for other errors."""
    path = re.search(r"full_key: ([\w.]+)", text)
    hint = type_of_key(path.group(1), schema) if path else None
    if path is None or hint is None or not re.search(WRONG_TYPE, text):
        return ""
    name = re.escape(path.group(1))
    given = re.search(rf"override \+*{name}=(.*)", text) or re.search(r"[Vv]alue '(.*?)'", text)
    value = given.group(1).strip() if given else "null"
    takes = type_in_words(hint)
    article = "one of " if "," in takes else "" if takes.startswith("true") else "a "
    return f"{path.group(1)}={value}: must be {article}{takes}"


def type_of_key(full_key: str, schema: type[Any]) -> Any:
    """The annotation of a key in nested dataclasses, or None if there is no such key."""
    node: Any = HydraConf if full_key.startswith("hydra.") else schema
    hint: Any = None
    for part in full_key.removeprefix("hydra.").split("."):
        if node is None:
            return None
        hint = get_type_hints(node).get(part)
        node = section_of(hint)
    return hint


def section_of(hint: Any) -> Any:
    """The dataclass of an annotation, which may be optional; None for other types."""
    return next((kind for kind in (hint, *get_args(hint)) if is_dataclass(kind)), None)
