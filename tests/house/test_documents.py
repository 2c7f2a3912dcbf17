"""Every command in our documents is accepted by the program that it calls: composed and checked, not run."""

from __future__ import annotations

import copy
import functools
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from geoclip import config
from geoclip.cli import app
from geoclip.cli.overrides import literal_overrides
from geoclip.cli.sweep import axes_of, ends
from geoclip.config import ConfigError, composed, typed
from tests.house.document_commands import Command, conf_commands, document_commands, simple_commands

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    path.relative_to(ROOT).as_posix()
    for pattern in ("README.md", "CONTRIBUTING.md", "docs/*.md", "experiments/README.md", "experiments/00_*/README.md")
    for path in sorted(ROOT.glob(pattern))
]
EXAMPLE = re.compile(  # a file that docs/add_*.md add
    r"`((?:conf|experiments)/[\w/]+\.(?:yaml|md))`(?:(?!```).)*?\n\n```(?:yaml|markdown)\n(.*?)```", re.DOTALL
)
LINKED = (
    "experiments",
    "conf",
    "Makefile",
    "data.mk",
    "pyproject.toml",
    "constraints.txt",
    "constraints-img2dataset.txt",
)

# What exists in the working folder of a document; for conf/, whose commands have no order, also FEATURES and DATA.
FOLDERS = """runs/NAME runs/A runs/B runs/official runs/scales-1 runs/A-1 FOLDER FOLDER/train FOLDER/test SHARDS mp16
    path/to/shards mp16-pro/metadata data/mp16-download data/mp16/train data/mp16/val data/yfcc4k-download
    data/im2gps3k-download features/NAME data/bluemarble/train FILE_OR_FOLDER"""
FILES = """FILE.npz FILE.csv MP16.csv mine.csv mine.zip T.csv P.zip list.csv coordinates.csv photo.jpg
    mp16_places365.csv mp16-pro.tar mp-16-000000.tar mp16-pro/mp-16-000000.tar FOLDER_OR.zip_OR.tar
    FOLDER/metadata.csv galleries/NAME.csv mp16-pro/metadata/MP16_Pro_filtered.csv
    data/mp16-download/mp16_places365.csv runs/scales-1/config.yaml runs/A/eval/test.json
    runs/A/eval/test.csv runs/B/eval/test.json runs/B/eval/test.csv runs/B/eval/yfcc4k.json
    runs/B/eval/yfcc4k.csv runs/official/eval/yfcc4k.json runs/official/eval/yfcc4k.csv
    data/yfcc4k/test/index.json data/bluemarble/gallery.csv"""
FEATURES = ("features/bluemarble", "features/backbone")  # `make study-features` writes them
DATA = {"MP16_SHARDS": "SHARDS", "YFCC4K_DIR": "FOLDER", "IM2GPS3K_DIR": "FOLDER"}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The files of the checkout that commands read, and the files that docs/add_*.md add."""
    clone = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "conf", clone / "conf")
    shutil.copytree(ROOT / "experiments", clone / "experiments", ignore=shutil.ignore_patterns("*.png", "*.json"))
    for name in LINKED[2:]:
        (clone / name).symlink_to(ROOT / name)
    for page in ROOT.glob("docs/add_*.md"):
        for name, text in EXAMPLE.findall(page.read_text()):
            (clone / name).parent.mkdir(exist_ok=True)
            (clone / name).write_text(text)
    app._rename_schemas_of_launchers()
    with pytest.MonkeyPatch.context() as patch, initialize_config_dir(str(clone / "conf"), version_base="1.3"):
        patch.setattr(composed, "conf_dir", lambda: str(clone / "conf"))
        yield clone


@pytest.fixture
def folder(clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a user. Data are empty files: values are checked, contents are not."""
    for name in FOLDERS.split():
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    for name in FILES.split():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("LAT,LON\n0,0\n" if name.endswith(".csv") else "")
    for name in LINKED:
        (tmp_path / name).symlink_to(clone / name)
    for name in DATA:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_of_a_document_is_accepted(document: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order: a command reads files of the user, or files that an earlier command writes."""
    problems = []
    for command in document_commands(ROOT / document, document):
        if command.is_export:
            for name, value in command.environment.items():
                monkeypatch.setenv(name, _relative(value))
        elif problem := problem_of(command):
            problems.append(f"{command.text}\n  {problem}")
    assert not problems, "\n".join(problems)


def test_every_command_in_conf_is_accepted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FEATURES:
        (folder / name).mkdir(parents=True)
    for name, value in DATA.items():
        monkeypatch.setenv(name, value)
    commands = [command for path in sorted(ROOT.glob("conf/**/*.yaml")) for command in conf_commands(path, path.name)]
    by_group: dict[str, set[str]] = {}  # the options that are chosen alone, as in `geoclip.train loss=symmetric`
    for command in commands:
        group, _, option = "".join(command.arguments).partition("=")
        if command.module == "geoclip.train" and len(command.arguments) == 1 and composed.options(group):
            by_group.setdefault(group, set()).add(f"{group}={option}")
    one_of_each = (tuple(filter(None, chosen)) for chosen in zip_longest(*map(sorted, by_group.values())))
    accepted = {f"+experiment={name}" for name in composed.options("experiment")}  # by tests/config/test_configs.py
    accepted |= {word for words in one_of_each if not _module_problem("geoclip.train", words, 1) for word in words}
    rest = [command for command in commands if accepted.isdisjoint(command.arguments) or len(command.arguments) > 1]
    problems = [(command.where, command.text, problem) for command in rest if (problem := problem_of(command))]
    assert accepted and rest and not problems, problems


def problem_of(command: Command) -> str:
    """Why a command would not start; empty if it would. Writes what later commands read."""
    words = tuple(map(_relative, command.arguments))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in command.environment.items():
            patch.setenv(name, _relative(value))
        if command.module:
            return _module_problem(command.module, words, int(os.environ.get("WORLD_SIZE", command.ranks)))
        return _make_problem(words)


def _relative(text: str) -> str:
    return text.replace("/path/to/", "path/to/")


def _make_problem(words: tuple[str, ...]) -> str:
    """Why a geoclip command that `make -n` prints would not start."""
    done = _make(words, os.environ.get("YFCC4K_DIR", ""))
    if done.returncode:
        return done.stderr.strip()
    for line in re.sub(r"\$\(ls [^)]*\)", "runs/NAME", done.stdout.replace("\\\n", " ")).splitlines():
        for made in re.finditer(r"\bmkdir -p (\S+)|\bln -sfn .* (\S+)$", line):
            Path(made[1] or made[2]).mkdir(parents=True, exist_ok=True)
        command = next(simple_commands(line)) if line.startswith(".venv/bin/python -m geoclip.") else []
        words = tuple(word for word in command[3:] if word != ">/dev/null")
        if command and (problem := _module_problem(command[2], words, 1)):
            return f"{line.strip()}\n{problem}"
    return ""


@functools.cache
def _make(words: tuple[str, ...], _variable: str) -> subprocess.CompletedProcess[str]:
    given = () if any(word.startswith("PYTHON=") for word in words) else ("PYTHON=python3",)  # saves the search for it
    return subprocess.run([*words, *given, "-n"], capture_output=True, text=True, timeout=60)


def _module_problem(module: str, words: tuple[str, ...], ranks: int) -> str:
    name = module.removeprefix("geoclip.")
    if module == name:
        return "" if importlib.util.find_spec(module) else f"no module {module}"
    named = {word.partition("=")[2] for word in words}
    existing = frozenset(path for path in (*named, *FEATURES) if path and Path(path).exists())
    variables = tuple(os.environ.get(variable, "") for variable in DATA)
    launcher = tuple(word for word in words if re.match(r"hydra[/.]launcher", word))
    rest = tuple(word for word in words if word not in launcher)
    problem = _config_problem(name, rest, ranks, existing, variables)
    if launcher and not problem:  # where a sweep runs changes nothing else
        problem = _config_problem(name, launcher, 1, frozenset(), ())
    for word in words if not problem else ():
        _write_output(*word.partition("=")[::2])
    return problem


@functools.cache
def _config_problem(
    name: str, words: tuple[str, ...], ranks: int, _existing: frozenset[str], _variables: tuple[str, ...]
) -> str:
    """Why a command would not start; the same words, ranks, existing paths and variables give the same result."""
    schema = OmegaConf.get_type(ConfigStore.instance().load(f"{name}_schema.yaml").node)
    assert schema is not None
    rules_name = "gallery_build_problems" if name == "gallery" else f"{name}_problems"
    rules: Callable[..., list[str]] = getattr(config, rules_name, lambda _: [])
    more = (ranks,) if name == "train" else ()
    try:
        for point in _points(literal_overrides(words, schema)):
            cfg = _compose(name, point)
            if "--help" not in words:
                typed(cfg, schema, lambda typed_config: rules(typed_config, *more))
    except (HydraException, OmegaConfBaseException) as error:
        return app.composition_sentence(error, schema)
    except ConfigError as error:
        return str(error)
    return ""


def _compose(name: str, words: list[str]) -> DictConfig:
    """The same as Hydra's `compose`; commands that choose the same groups share its slow part."""
    groups = tuple(word for word in words if word[0] in "+~" or word.startswith("hydra") or _is_group(word))
    cfg = copy.deepcopy(_compose_groups(name, groups))
    keys = OverridesParser.create().parse_overrides([word for word in words if word not in groups])
    ConfigLoaderImpl._apply_overrides_to_config(keys, cfg)
    return cfg


@functools.cache
def _compose_groups(name: str, groups: tuple[str, ...]) -> DictConfig:
    return compose(name, list(groups))


@functools.cache
def _is_group(word: str) -> bool:
    return bool(composed.options(word.partition("=")[0]))


def _points(words: list[str]) -> Iterator[list[str]]:
    """The overrides of as few points of a sweep as have every value of every axis; one point without a sweep."""
    words = [word for word in words if word not in ("-m", "--help")]
    axes, _ = axes_of(None, words)
    fixed = [word for word in words if word.partition("=")[0] not in {axis.key for axis in axes}]
    values = [ends(axis) for axis in axes]
    for number in range(max(map(len, values), default=1)):
        yield [*fixed, *(axis[number % len(axis)] for axis in values)]


def _write_output(key: str, value: str) -> None:
    """Write the path that a command would: a study's run, or what `root` or `output` names."""
    path = Path(f"runs/{value}-1/config.yaml" if key == "+experiment" else value)
    if key in ("+experiment", "root") or (key == "output" and path.suffix == ".csv"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch() if path.suffix else path.mkdir(exist_ok=True)
