"""Tries commands as far as one can without doing what they do: what is composed and checked, in one process.

Reads a list of groups of `Command`s as JSON from stdin; a group has a working folder of its own. Writes, per command,
what was wrong with it, or an empty text.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from geoclip import config
from geoclip.cli import app, preflight
from geoclip.config import ConfigError, typed
from geoclip.config.composed import conf_dir
from tests.house.document_commands import simple_commands

DATA = "MP16_SHARDS=SHARDS YFCC4K_DIR=FOLDER IM2GPS3K_DIR=FOLDER"  # of a reader who has the data
CONSTRAINTS = "constraints-img2dataset.txt"
CLONE = Path(__file__).resolve().parents[2]
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
MADE_BEFORE = "features/bluemarble features/backbone"  # by `make study-features`


def try_group(commands: list[dict[str, Any]], *, in_order: bool) -> list[str]:
    """What is wrong with each command of a document, which a reader types one after the other.

    Args:
        commands: as dicts.
        in_order: what a command reads must have been written by one before it, or be the reader's own.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for name in FOLDERS.split() + ([] if in_order else MADE_BEFORE.split()):
            Path(name).mkdir(parents=True, exist_ok=True)
        for name in FILES.split():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text("LAT,LON\n0,0\n" if name.endswith(".csv") else "")
        for name in ("experiments", "conf", "Makefile", "data.mk", "pyproject.toml", "constraints.txt", CONSTRAINTS):
            Path(name).symlink_to(CLONE / name)
        exported = {} if in_order else dict(word.split("=") for word in DATA.split())
        found = []
        for command in commands:
            if not (command["module"] or command["arguments"]):  # export
                exported |= command["environment"]
                found.append("")
                continue
            environment = {name: _relative(value) for name, value in {**exported, **command["environment"]}.items()}
            with _environment(environment | {"WORLD_SIZE": environment.get("WORLD_SIZE", str(command["ranks"]))}):
                found.append(_try(command["module"], [_relative(word) for word in command["arguments"]]))
        return found


def _relative(text: str) -> str:
    return text.replace("/path/to/", "path/to/")


@contextlib.contextmanager
def _environment(changes: dict[str, str]) -> Any:
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _try(module: str, words: list[str]) -> str:
    if not module:
        return _try_make(words)
    if not re.fullmatch(r"geoclip\.\w+", module):  # not one of Hydra's
        return "" if importlib.util.find_spec(module) else f"no module {module}"
    named = {word.partition("=")[2] for word in words}
    there = frozenset(name for name in (*named, *MADE_BEFORE.split()) if Path(name).exists())
    problem = _problem(module.removeprefix("geoclip."), tuple(words), there, os.environ["WORLD_SIZE"])
    if not problem:
        _write_outputs(words)
    return problem


@functools.cache
def _problem(name: str, words: tuple[str, ...], _there: frozenset[str], _ranks: str) -> str:
    """Why a command would not begin; the same again for the same words beside the same files."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            _compose_and_check(name, list(words))
    except ConfigError as error:
        return str(error)
    except SystemExit as error:
        return "" if not error.code else f"{error.code}\n{said.getvalue()[-500:]}"
    return ""


def _compose_and_check(name: str, words: list[str]) -> None:
    """All that the command does before it begins its work.

    Raises:
        ConfigError: it would not begin.
        SystemExit: a sweep, which has printed its points.
    """
    schema = OmegaConf.get_type(ConfigStore.instance().load(f"{name}_schema.yaml").node)
    assert schema is not None
    positional = getattr(importlib.import_module(f"geoclip.{name}"), "with_positional_runs", lambda given: given)
    words = positional([word for word in words if word != "--help"])
    if "-m" in words:
        sys.argv = [f"geoclip.{name}", *words, *(["check_only=true"] if name == "train" else [])]
        app.run_entry_point(name, schema, lambda _: None)
        return
    problems: Callable[..., list[str]] = getattr(
        config, f"{name}_problems", getattr(config, f"{name}_build_problems", lambda _: [])
    )
    ranks = (int(os.environ["WORLD_SIZE"]),) if name == "train" else ()
    rewritten = getattr(app, "literal_overrides", lambda given, _: given)(words, schema)
    try:
        with initialize_config_dir(conf_dir(), version_base="1.3"):  # half the time of hydra.main, which composes twice
            cfg = compose(name, rewritten)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError([app.composition_sentence(error, schema)]) from None
    if words:  # without them it is --help
        typed(cfg, schema, lambda config: problems(config, *ranks))


def _write_outputs(words: list[str]) -> None:
    """Leave what the command would: a study's run, and what `root` and `output` name."""
    for word in words:
        key, _, value = word.partition("=")
        if key == "+experiment":
            value = f"runs/{value}-1/config.yaml"
        elif not (value and (key == "root" or (key == "output" and value.endswith(".csv")))):
            continue
        path = Path(value)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch() if path.suffix else path.mkdir(exist_ok=True)


def _try_make(words: list[str]) -> str:
    """What `make -n` would run, each of our commands in it tried in turn."""
    given = [] if any(word.startswith("PYTHON=") for word in words) else ["PYTHON=python3"]  # as quick as sure
    done = subprocess.run([*words, *given, "-n"], capture_output=True, text=True, timeout=60)
    if done.returncode:
        return done.stderr.strip()
    newest = re.sub(r"\$\(ls [^)]*\)", "runs/NAME", done.stdout.replace("\\\n", " "))  # of the runs made before
    for line in newest.splitlines():
        if made := re.match(r"mkdir -p (\S+)", line):
            Path(made.group(1)).mkdir(parents=True, exist_ok=True)
        if made := re.search(r"\bln -sfn .* (\S+)$", line):
            Path(made.group(1)).mkdir(parents=True, exist_ok=True)
        command = next(simple_commands(line)) if line.startswith(".venv/bin/python -m geoclip.") else []
        if command and (problem := _try(command[2], [word for word in command[3:] if word != ">/dev/null"])):
            return f"{line.strip()}\n{problem}"
    return ""


if __name__ == "__main__":
    # The documents' data are empty files here: values are checked, what is in the data is not.
    preflight.Preflight.look_at = lambda self, config, *, here: preflight.Findings()  # type: ignore[method-assign]
    groups = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        found = {name: try_group(group["commands"], in_order=group["in_order"]) for name, group in groups.items()}
    json.dump(found, sys.stdout)
