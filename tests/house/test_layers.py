"""The arrows between rooms point one way, the config stays at the edge, and entry points start fast."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "geoclip"
FLOORS = (
    {"geo", "config", "conf_dir", "console", "files", "distributed", "errors", "percent", "processes"},
    {"model", "data", "run_dir", "recorder", "run_log", "wandb_process"},
    {"training", "evaluation", "drawing"},
    {"build", "pretrained", "trained", "queries", "run_shards", "entry", "overrides", "preflight", "resume", "sweep"}
    | {"search", "search_record", "sweep_axes"},
)
HEAVY = ("torch", "transformers", "matplotlib", "plotly", "scipy", "pandas", "wandb", "webdataset", "PIL")
ENTRY_POINTS = sorted(path.stem for path in PACKAGE.glob("*.py") if '__name__ == "__main__"' in path.read_text())
MODULES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def floor(name: str) -> int:
    """Its number in FLOORS; the entry points stand above them all."""
    return next((number for number, rooms in enumerate(FLOORS) if name in rooms), len(FLOORS))


def imported_rooms(path: Path) -> Iterator[str]:
    """The rooms of geoclip that a module imports, at its top or in a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name.split(".")[1] for name in names if name.startswith("geoclip."))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_imports_upward(path: Path) -> None:
    here = room(path)
    if here == "__init__":
        return  # the front door names what the rooms hold
    upward = {there for there in imported_rooms(path) if there != here and floor(there) > floor(here)}
    assert not upward, f"{path.name} in {here} imports {sorted(upward)}, which stand above it"


def test_no_two_rooms_import_each_other() -> None:
    arrows = {(room(path), there) for path in MODULES if room(path) != "__init__" for there in imported_rooms(path)}
    assert not {(here, there) for here, there in arrows if here < there and (there, here) in arrows}


def test_the_config_stays_at_the_edge() -> None:
    readers = {room(path) for path in MODULES if "config" in imported_rooms(path)} - {"config"}
    assert readers <= {
        "entry",
        "build",
        "pretrained",
        "trained",
        "queries",
        "run_shards",
        "overrides",
        "preflight",
        "resume",
        "search",
        "sweep",
        *ENTRY_POINTS,
    }


def test_every_module_stands_on_a_floor() -> None:
    assert {room(path) for path in MODULES} <= set().union(*FLOORS, ENTRY_POINTS, {"__init__"})


def test_entry_points_import_nothing_heavy() -> None:
    """A wrong key or --help must answer at once: heavy imports wait until the config has been checked."""
    code = f"import sys, {', '.join(f'geoclip.{name}' for name in ENTRY_POINTS)}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    assert ENTRY_POINTS
    assert not set(HEAVY) & set(loaded.stdout.split())
