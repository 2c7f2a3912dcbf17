"""The configuration of a command: the folder conf/, its groups, the typed and checked result, and `--help`."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from geoclip.config.keys import key_of, key_problems, section_of, shown, type_in_words, type_problem


def conf_dir() -> str:
    """Absolute path of the configuration folder, for `hydra.main(config_path=conf_dir())`."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return str(folder)
    raise FileNotFoundError(f"no conf/train.yaml in {package} or beside it; reinstall geoclip-ablations")


ConfigT = TypeVar("ConfigT")


class ConfigError(SystemExit):
    """A configuration that cannot run. Printed without a traceback; the process ends with status 1."""

    def __init__(self, problems: list[str], title: str = "invalid configuration") -> None:
        self.problems = problems
        super().__init__("\n".join([f"geoclip: {title}", *(f"  - {problem}" for problem in problems)]))


def typed(cfg: DictConfig, kind: type[ConfigT], problems: Callable[[ConfigT], list[str]]) -> ConfigT:
    """The composed configuration as a checked dataclass of type `kind`.

    Raises:
        ConfigError: values are missing or invalid; lists every problem.
    """
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise ConfigError([f"{key}: must be given; add {key}=… to the command" for key in missing])
    values = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(values, dict)
    if unknown := unknown_keys(values, kind):
        raise ConfigError(unknown)
    try:
        config = OmegaConf.to_object(cfg)
    except OmegaConfBaseException as error:
        raise ConfigError([type_problem(str(error), kind) or str(error).splitlines()[0]]) from None
    assert isinstance(config, kind)
    found = [*key_problems(config), *problems(config)]
    if found:
        raise ConfigError(found)
    return config


def from_dict(values: Any, kind: type[ConfigT]) -> ConfigT:
    """A configuration that was saved with weights, as a dataclass of type `kind`.

    The source is not trusted: interpolations are refused, because they could put environment variables into a URL.

    Raises:
        ValueError: no mapping, or with keys, types or values that the schema does not allow; lists all.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"the configuration is a {type(values).__name__}, not a mapping of keys")
    problems = [*unknown_keys(values, kind), *_not_plain_data(values)]
    if not problems:
        try:
            config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), values))
        except OmegaConfBaseException as error:
            path = f"{error.full_key}: " if error.full_key else ""
            problems = [type_problem(str(error), kind) or path + str(error).splitlines()[0]]
        else:
            assert isinstance(config, kind)
            problems = key_problems(config)
            if not problems:
                return config
    raise ValueError("; ".join(problems))


def _not_plain_data(node: Any, path: str = "") -> Iterator[str]:
    """Strings that OmegaConf would interpret."""
    match node:
        case Mapping():
            for key, value in node.items():
                yield from _not_plain_data(value, f"{path}.{key}".removeprefix("."))
        case list() | tuple():
            for value in node:
                yield from _not_plain_data(value, path)
        case str() if "${" in node or node == "???":
            yield f"{path}={node!r}: is an interpolation; a configuration saved with weights must contain only values"
        case _:
            pass


def unknown_keys(values: Mapping[Any, Any], kind: type[Any], prefix: str = "") -> list[str]:
    """Messages about the keys of a nested mapping that the dataclass `kind` does not have."""
    problems, hints = [], get_type_hints(kind)
    for key, value in values.items():
        if key not in hints:
            problems.append(no_such_key(f"{prefix}{key}", list(hints)))
            continue
        if (section := section_of(hints[key])) and isinstance(value, Mapping):
            problems += unknown_keys(value, section, f"{prefix}{key}.")
    return problems


def no_such_key(full_key: str, allowed: list[str]) -> str:
    """The message about a key that does not exist."""
    near = difflib.get_close_matches(full_key.split(".")[-1], allowed, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{full_key}: no such key; {hint}allowed here: {', '.join(allowed)}"


def option(group: str, name: str, kind: type[ConfigT]) -> ConfigT | None:
    """conf/<group>/<name>.yaml as a dataclass, or None if there is no such file."""
    if name not in options(group):
        return None
    path = Path(conf_dir(), group, f"{name}.yaml")
    chosen = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), OmegaConf.load(path)))
    assert isinstance(chosen, kind)
    return chosen


def options(group: str) -> list[str]:
    """The options of a group."""
    return sorted(path.stem for path in Path(conf_dir(), group).glob("*.yaml"))


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
