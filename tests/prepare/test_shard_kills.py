"""A build that was killed several times gives the same bytes as one that was not."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import begin, finish, wait_until


def _command(table: Path, root: Path, workers: int) -> tuple[str, ...]:
    settings = (f"input={table}", f"root={root}", "samples_per_shard=6", "val_samples=24")
    return ("shards", "source=csv", *settings, f"workers={workers}")


def _files(root: Path) -> dict[str, bytes]:
    """Contents by name; of files with timestamps only their existence."""
    return {
        str(path.relative_to(root)): b"" if path.name == "metadata.json" or path.suffix == ".npz" else path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


def _progress(root: Path) -> int:
    """1 once a build has a manifest; one more for each of 20 shards."""
    return (root.parent / ".shards.work" / "manifest.sqlite").exists() + len(list(root.rglob("*.tar")))


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_in_the_same_bytes(tmp_path: Path, photo_table: Callable[..., Path]) -> None:
    table = photo_table(120, size_px=(96, 72))
    (table.parent / "07.jpg").write_bytes(b"no picture")
    finish(tmp_path, *_command(table, tmp_path / "alone" / "shards", workers=1))
    expected = _files(tmp_path / "alone" / "shards")
    assert len(expected) > 20
    rng = random.Random(3)
    for workers, kills in ((1, 5), (2, 2)):
        root = tmp_path / f"killed{workers}" / "shards"
        for after in [1, *sorted(rng.sample(range(2, 12), kills - 1))]:
            process = begin(tmp_path, *_command(table, root, workers))
            wait_until(lambda root=root, after=after: _progress(root) >= after, alive=process.is_alive)  # type: ignore[misc]
            process.join(rng.uniform(0, 0.02))
            process.kill()
            process.join()
            assert process.exitcode == -signal.SIGKILL
        finish(tmp_path, *_command(table, root, workers))
        assert _files(root) == expected, f"{workers} workers, after {kills} kills"
        assert not list(root.parent.glob(".shards.work"))
