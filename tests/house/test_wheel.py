"""The wheel is whole: installed elsewhere, without the checkout, it finds its configs and runs."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=repository, check=True, capture_output=True)
    (built,) = folder.glob("geoclip_ablations-*.whl")
    return built


def test_wheel_carries_the_package_and_every_config(wheel: Path, repository: Path) -> None:
    shipped = set(zipfile.ZipFile(wheel).namelist())
    configs = {f"geoclip/{path.relative_to(repository).as_posix()}" for path in repository.glob("conf/**/*.yaml")}
    package = {
        path.relative_to(repository).as_posix()
        for path in repository.glob("geoclip/**/*.*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert configs | package <= shipped
    assert not any(name.startswith(("tests/", "experiments/", "conf/", "tools/")) for name in shipped)


def test_wheel_in_an_empty_environment_composes_its_config(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "env"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    install = ["-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, *install], check=True, capture_output=True)

    # The dependencies are borrowed from this environment: its own .pth files, and so the checkout, stay behind.
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text("\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}))
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*arguments: str) -> str:
        done = subprocess.run([python, *arguments], cwd=tmp_path, env=outside, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert Path(run("-c", "import geoclip; print(geoclip.__file__)").strip()).is_relative_to(site)
    found = run("-c", "from geoclip.config.composed import conf_dir; print(conf_dir())").strip()
    assert Path(found) == site / "geoclip/conf"
    run("-m", "geoclip.train", "check_only=true")
