"""What Hydra composed, as checked dataclasses."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from geoclip.conf_dir import conf_dir
from geoclip.files import name_problem

ConfigT = TypeVar("ConfigT")

LARGEST_SEED = 2**32 - 1  # of NumPy's generators
LARGEST_INT = 2**63 - 1
DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")


class ConfigError(SystemExit):
    """A configuration that cannot run. Printed without a traceback; the process ends with status 1."""

    def __init__(self, problems: list[str], title: str = "this configuration cannot run") -> None:
        self.problems = problems
        super().__init__("\n".join([f"geoclip: {title}", *(f"  - {problem}" for problem in problems)]))


def typed(cfg: DictConfig, kind: type[ConfigT], problems: Callable[[ConfigT], list[str]]) -> ConfigT:
    """What Hydra composed, as a checked dataclass of type `kind`.

    Raises:
        ConfigError: values are missing, or `problems` finds some; every problem is listed at once.
    """
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise ConfigError([f"{key} must be given: add {key}=… to the command" for key in missing])
    held = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(held, dict)
    if unknown := unknown_keys(held, kind):
        raise ConfigError(unknown)
    try:
        config = OmegaConf.to_object(cfg)
    except OmegaConfBaseException as error:
        raise ConfigError([str(error).splitlines()[0]]) from None
    assert isinstance(config, kind)
    found = [*shared_problems(config), *problems(config)]
    if found:
        raise ConfigError(found)
    return config


def from_plain(held: Any, kind: type[ConfigT]) -> ConfigT:
    """A configuration that came with weights, as a dataclass of type `kind`.

    It may come from anybody, so it is data and nothing else: its values are never resolved, which could send what is
    in an environment variable to a server as part of an address.

    Raises:
        ValueError: it is of another shape, or has keys, types or values that the schema does not allow; all are named.
    """
    if not isinstance(held, Mapping):
        raise ValueError(f"the configuration is a {type(held).__name__}, not a mapping of keys")
    problems = [*unknown_keys(held, kind), *_not_plain(held)]
    if not problems:
        try:
            config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), held))
        except OmegaConfBaseException as error:
            path = f"{error.full_key}: " if error.full_key else ""
            problems = [path + str(error).splitlines()[0]]
        else:
            assert isinstance(config, kind)
            problems = shared_problems(config)
            if not problems:
                return config
    raise ValueError("; ".join(problems))


def _not_plain(node: Any, path: str = "") -> Iterator[str]:
    """Strings that OmegaConf would take for more than they are."""
    match node:
        case Mapping():
            for key, value in node.items():
                yield from _not_plain(value, f"{path}.{key}".removeprefix("."))
        case list() | tuple():
            for value in node:
                yield from _not_plain(value, path)
        case str() if "${" in node or node == "???":
            yield f"{path}={node!r} is an interpolation, and a configuration that comes with weights has only values"
        case _:
            pass


def unknown_keys(held: Mapping[Any, Any], kind: type[Any], prefix: str = "") -> list[str]:
    """Keys of a nested mapping that the dataclass `kind` does not have, with those that it has."""
    problems, hints = [], get_type_hints(kind)
    for key, value in held.items():
        if key not in hints:
            problems.append(no_such_key(f"{prefix}{key}", list(hints)))
            continue
        nested = next((one for one in (hints[key], *get_args(hints[key])) if is_dataclass(one)), None)
        if isinstance(nested, type) and isinstance(value, Mapping):
            problems += unknown_keys(value, nested, f"{prefix}{key}.")
    return problems


def no_such_key(full_key: str, allowed: list[str]) -> str:
    """The sentence about a key that does not exist."""
    near = difflib.get_close_matches(full_key.split(".")[-1], allowed, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{full_key} is no key of this configuration; {hint}allowed here: {', '.join(allowed)}"


def shared_problems(config: Any, prefix: str = "") -> list[str]:
    """What is wrong with keys whose rule follows from their name or type, wherever they are: all of a configuration."""
    return [
        f"{key}={value!r} {problem}" if isinstance(value, str) else f"{key}={value} {problem}"
        for key, name, value in _leaves(config, prefix)
        if (problem := _value_problem(name, value))
    ]


def _leaves(config: Any, prefix: str) -> Iterator[tuple[str, str, Any]]:
    """Full key, name of the field, and value; each value of a list by itself."""
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            yield from _leaves(value, f"{prefix}{item.name}.")
        else:
            for one in value if isinstance(value, list) else [value]:
                yield f"{prefix}{item.name}", item.name, one


def _value_problem(name: str, value: Any) -> str:
    if isinstance(value, float) and math.isnan(value):
        return "is no number"
    if isinstance(value, int) and not -LARGEST_INT <= value <= LARGEST_INT:
        return f"is beyond {LARGEST_INT}, the largest whole number"
    if isinstance(value, str) and "\0" in value:
        return "holds a NUL character, which no text or path has"
    if name == "seed" and not 0 <= value <= LARGEST_SEED:
        return f"must be 0 to {LARGEST_SEED}"
    if name == "device" and not DEVICE.fullmatch(value):
        return "is no device: auto, cpu, cuda, cuda:1 or mps"
    if name in ("name", "splits") and value and (problem := name_problem(value)):
        return f"{problem}; it names a folder or a file: letters, digits, '.', '_', '-' and '+'"
    return ""


def option(group: str, name: str, kind: type[ConfigT]) -> ConfigT | None:
    """conf/<group>/<name>.yaml as a dataclass, for a command that names several of a group; None: there is none."""
    if name not in options(group):
        return None
    path = Path(conf_dir(), group, f"{name}.yaml")
    chosen = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), OmegaConf.load(path)))
    assert isinstance(chosen, kind)
    return chosen


def options(group: str) -> list[str]:
    """What a group has to choose from."""
    return sorted(path.stem for path in Path(conf_dir(), group).glob("*.yaml"))
