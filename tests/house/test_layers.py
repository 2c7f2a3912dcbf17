"""Imports follow the table of layers in CONTRIBUTING.md, few packages read the configuration, commands start fast."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "geoclip"
LAYERS = {
    name: int(layer)
    for layer, names in re.findall(r"^\| (\d+) \| (.+?) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    for name in re.findall(r"`(\w+)`", names)
}
HEAVY = ("torch", "transformers", "matplotlib", "plotly", "scipy", "pandas", "wandb", "webdataset", "PIL")
COMMANDS = sorted(path.stem for path in PACKAGE.glob("*.py") if '__name__ == "__main__"' in path.read_text())
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def package(module: str) -> str:
    """The package or module at the root that a module belongs to: `geoclip.data.stream` -> `data`."""
    return module.split(".")[1] if "." in module else "__init__"


def imported(path: Path, *, at_top: bool = False) -> Iterator[str]:
    """The modules of geoclip that a file imports: anywhere in it, or only at its top level."""
    tree = ast.parse(path.read_text())
    for node in tree.body if at_top else ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.split(".")[0] == "geoclip":
                yield name if name in MODULES else name.rpartition(".")[0]


@pytest.mark.parametrize("module", MODULES)
def test_nothing_imports_from_a_higher_layer(module: str) -> None:
    here = package(module)
    if here == "__init__":
        return  # its public names come from every layer
    for there in imported(MODULES[module]):
        assert package(there) != "__init__", f"{module} imports geoclip itself"
        assert LAYERS[package(there)] <= LAYERS[here], f"{module} imports {there}"


def test_no_packages_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        graph.setdefault(package(module), set()).update(map(package, imported(path)))
    assert list(TopologicalSorter({here: there - {here} for here, there in graph.items()}).static_order())


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {name: set(imported(path, at_top=True)) - {name} for name, path in MODULES.items()}
    assert list(TopologicalSorter(graph).static_order())  # a CycleError names the circle


def test_only_commands_cli_and_factory_import_the_configuration() -> None:
    readers = {package(module) for module in MODULES if "config" in map(package, imported(MODULES[module]))}
    assert readers - {"config"} <= {"cli", "factory", *COMMANDS}


def test_every_package_is_in_the_table_and_the_root_contains_only_commands() -> None:
    assert {package(module) for module in MODULES} == {*LAYERS, "__init__"}
    assert {path.stem for path in PACKAGE.glob("*.py")} == {"__init__", "errors", "distributed", *COMMANDS}


def test_commands_import_nothing_heavy() -> None:
    """--help and a wrong key take no time: heavy imports come after the check of the configuration."""
    code = f"import sys, {', '.join(f'geoclip.{name}' for name in COMMANDS)}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert COMMANDS
    assert not set(HEAVY) & set(loaded.stdout.split())
