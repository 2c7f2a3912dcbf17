"""What Hydra composed, as checked dataclasses."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from geoclip.conf_dir import conf_dir
from geoclip.names import name_problem

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
    try:
        config = OmegaConf.to_object(cfg)
    except OmegaConfBaseException as error:
        raise ConfigError([str(error).splitlines()[0]]) from None
    assert isinstance(config, kind)
    found = [*shared_problems(config), *problems(config)]
    if found:
        raise ConfigError(found)
    return config


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
