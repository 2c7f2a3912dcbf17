"""The revision of a run is that of code and configs."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import geoclip.runs.run_dir


def git_revision(checkout: Path) -> str:
    """As the package of that checkout finds it."""
    spec = importlib.util.spec_from_file_location("another_run_dir", checkout / "geoclip" / "runs" / "run_dir.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.git_revision())


def test_it_is_dirty_by_code_and_configs_and_by_nothing_that_a_study_writes(tmp_path: Path) -> None:
    for name in ("geoclip/runs", "geoclip/model", "conf", "experiments"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(str(geoclip.runs.run_dir.__file__), tmp_path / "geoclip" / "runs")
    (tmp_path / "geoclip" / "model" / "queue.py").write_text("\n")
    (tmp_path / "conf" / "train.yaml").write_text("a: 1\n")
    (tmp_path / "experiments" / "README.md").write_text("not run\n")
    assert git_revision(tmp_path) == "unknown"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout
    assert git_revision(tmp_path) == head[:12]
    (tmp_path / "experiments" / "README.md").write_text("run\n")
    (tmp_path / "runs").mkdir()
    assert git_revision(tmp_path) == head[:12]
    for path in ("conf/train.yaml", "geoclip/model/queue.py"):
        (tmp_path / path).open("a").write("\n")
        assert git_revision(tmp_path) == f"{head[:12]}-dirty"
        subprocess.run([*git, "checkout", "-q", path], check=True)
