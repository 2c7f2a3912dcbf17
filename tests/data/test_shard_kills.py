"""A build that is killed, at any moment and as often as one likes, ends as if nothing had happened."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from geoclip import shards
from geoclip.config import ShardsConfig, ShardSource, shards_root


def _build(table: str, root: str) -> None:
    """The command's own way, in a process of its own."""
    config = ShardsConfig(
        source=ShardSource.csv, input=table, root=root, workers=2, samples_per_shard=12, val_samples=24
    )
    shards.build(config, Path(shards_root(config)))


def _start(table: Path, root: Path) -> ForkServerProcess:
    context = multiprocessing.get_context("forkserver")  # the imports are paid once
    process = context.Process(target=_build, args=(str(table), str(root)))
    process.start()
    return process


def _files(root: Path) -> dict[str, bytes]:
    """By name, what they hold; of those that tell when something was written, that they are there."""
    return {
        str(path.relative_to(root)): b""
        if path.name == "metadata.json" or path.suffix == ".npz"
        else path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_in_the_same_bytes(
    tmp_path: Path, photo_table: Callable[..., Path]
) -> None:
    table = photo_table(120, size_px=(96, 72))
    (table.parent / "07.jpg").write_bytes(b"no picture")
    process = _start(table, tmp_path / "whole" / "shards")
    process.join()
    begin = time.monotonic()
    process = _start(table, tmp_path / "again" / "shards")
    process.join()
    seconds = time.monotonic() - begin
    assert process.exitcode == 0
    whole = _files(tmp_path / "whole" / "shards")
    assert len(whole) > 12
    assert _files(tmp_path / "again" / "shards") == whole

    rng, kills = random.Random(3), 0
    for attempt in range(2):
        root = tmp_path / f"killed{attempt}" / "shards"
        while True:
            process = _start(table, root)
            process.join(rng.uniform(0, seconds))
            if process.exitcode is not None:
                assert process.exitcode == 0
                break
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
        assert _files(root) == whole, f"attempt {attempt}, after {kills} kills"
        assert not list(root.parent.glob(".shards.work")), "nothing is left behind"
    assert kills >= 3, f"{kills} kills, of builds that take {seconds:.1f} s"
