"""What Hydra composed, as checked dataclasses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from geoclip.conf_dir import conf_dir

ConfigT = TypeVar("ConfigT")


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
    found = problems(config)
    if found:
        raise ConfigError(found)
    return config


def option(group: str, name: str, kind: type[ConfigT]) -> ConfigT | None:
    """conf/<group>/<name>.yaml as a dataclass, for a command that names several of a group; None: there is none."""
    path = Path(conf_dir(), group, f"{name}.yaml")
    if not path.is_file():
        return None
    chosen = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), OmegaConf.load(path)))
    assert isinstance(chosen, kind)
    return chosen


def options(group: str) -> list[str]:
    """What a group has to choose from."""
    return sorted(path.stem for path in Path(conf_dir(), group).glob("*.yaml"))
