"""The wheel is complete: installed in an empty environment, without the checkout, it finds its configs and runs."""

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


def test_wheel_contains_the_package_and_every_config(wheel: Path, repository: Path) -> None:
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
    (site,) = environment.glob("lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(site)  # as pip installs a wheel without scripts
    # A .pth file adds this environment's dependencies, but not its own .pth files, which would add the checkout.
    (site / "dependencies.pth").write_text("\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}))
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*arguments: str) -> str:
        python = environment / "bin" / "python"
        done = subprocess.run([python, *arguments], cwd=tmp_path, env=outside, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    found = run("-c", "from geoclip.config import composed; print(composed.__file__, composed.conf_dir())").split()
    assert found == [str(site / "geoclip/config/composed.py"), str(site / "geoclip/conf")]
    run("-m", "geoclip.train", "check_only=true")
