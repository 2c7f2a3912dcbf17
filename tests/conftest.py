"""What every test stands on: few threads, no hub, no dashboard, and the one cache of fetched assets."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch

from tests.commands import left_processes, stop_server
from tests.tiny_shards import TinyShards, write_shards

os.environ["HF_HUB_OFFLINE"] = "1"  # a test that needs the hub is no test
os.environ["WANDB_MODE"] = "offline"  # nor does a test run belong on anybody's dashboard
os.environ["WANDB_SILENT"] = "true"
# Beside other workers of pytest-xdist each has one core.
torch.set_flush_denormal(True)  # as our programs do: the released weights hold numbers that take seventy times as long
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else min(2, os.cpu_count() or 1))

pytest_plugins = ("tests.fixtures.data", "tests.fixtures.runs", "tests.fixtures.backbones", "tests.fixtures.training")

LONGEST_FIRST = (
    "tests/story/test_faults.py",
    "tests/house/test_documents.py",
    "tests/story/test_sweeps.py",
    "tests/bench/test_gpu.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest files first, one on each core, so that neither is left over at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST_FIRST))


@pytest.fixture(scope="module", autouse=True)
def no_process_is_left() -> Iterator[None]:
    """What a module of tests starts, it ends: the next one finds no child that is not its own."""
    yield
    left = psutil.wait_procs(left_processes(), timeout=10)[1]
    assert not left, left


def pytest_sessionfinish() -> None:
    """End the fork server of the tests."""
    stop_server()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout that the tests lie in."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def cache() -> Path:
    """The user's own cache of assets, so that a second test run fetches nothing."""
    from geoclip.data.assets import cache_dir

    return cache_dir()


@pytest.fixture
def tiny_shards(tmp_path: Path) -> Callable[..., TinyShards]:
    """`write_shards` into the test's own folder."""
    return partial(write_shards, tmp_path)
