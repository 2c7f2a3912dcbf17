"""Every command in our documents is accepted by the program that it calls."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.house.document_commands import Command, conf_commands, document_commands

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
DOCUMENTS = [
    path.relative_to(ROOT).as_posix()
    for pattern in ("README.md", "CONTRIBUTING.md", "docs/*.md", "experiments/README.md", "experiments/00_*/README.md")
    for path in sorted(ROOT.glob(pattern))
]
EXAMPLE = re.compile(
    r"`((?:conf|experiments)/[\w/]+\.(?:yaml|md))`(?:(?!```).)*?\n\n```(?:yaml|markdown)\n(.*?)```", re.DOTALL
)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone, with the files that docs/add_*.md tell the reader to write."""
    clone = tmp_path_factory.mktemp("clone")
    for name in ("geoclip", "hydra_plugins", "conf", "bench", "tools"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", "data.mk", "pyproject.toml", "constraints.txt", "constraints-img2dataset.txt"):
        shutil.copy(ROOT / name, clone / name)
    (clone / "tests" / "house").mkdir(parents=True)
    for name in ("try_commands.py", "document_commands.py"):
        shutil.copy(HERE / name, clone / "tests" / "house")
    shutil.copytree(ROOT / "experiments", clone / "experiments", ignore=shutil.ignore_patterns("*.png", "*.json"))
    for path in ROOT.glob("docs/add_*.md"):
        for name, text in EXAMPLE.findall(path.read_text()):
            (clone / name).parent.mkdir(exist_ok=True)
            (clone / name).write_text(text)
    return clone


def try_all(clone: Path, commands: dict[str, list[Command]]) -> dict[str, list[str]]:
    """By document, what was wrong with each of its commands, in a process of its own."""
    groups = {
        name: {"in_order": name != "conf", "commands": list(map(asdict, given))} for name, given in commands.items()
    }
    done = subprocess.run(
        [sys.executable, "tests/house/try_commands.py"],
        cwd=clone, input=json.dumps(groups), capture_output=True, text=True, timeout=400,
        env={**os.environ, "PYTHONPATH": str(clone)},
    )  # fmt: skip
    assert not done.returncode, done.stderr[-3000:]
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def problems(clone: Path) -> dict[str, list[str]]:
    """By document, what is wrong with its commands in that clone; conf/ is tried beside the others."""
    commands = {name: document_commands(ROOT / name, name) for name in DOCUMENTS}
    commands["conf"] = [
        command
        for path in sorted(ROOT.glob("conf/**/*.yaml"))
        for command in conf_commands(path, path.relative_to(ROOT).as_posix())
    ]
    with ThreadPoolExecutor(2) as pool:
        halves = pool.map(lambda names: try_all(clone, {name: commands[name] for name in names}), (DOCUMENTS, ["conf"]))
        found = {name: said for half in halves for name, said in half.items()}
    return {
        name: [f"{c.where}: {c.text}\n  {said}" for c, said in zip(commands[name], found[name], strict=True) if said]
        for name in commands
    }


@pytest.mark.parametrize("document", [*DOCUMENTS, "conf"])
def test_every_command_of_a_document_is_accepted(document: str, problems: dict[str, list[str]]) -> None:
    assert not problems[document], "\n".join(problems[document])
