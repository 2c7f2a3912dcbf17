"""Settings of all tests: few threads, no network, shared fixtures."""

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

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"
torch.set_flush_denormal(True)  # as in the commands: denormal weights are seventy times slower
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else min(2, os.cpu_count() or 1))

pytest_plugins = ("tests.fixtures.data", "tests.fixtures.runs", "tests.fixtures.backbones", "tests.fixtures.training")

LONGEST_FIRST = (
    "tests/story/test_faults.py",
    "tests/house/test_documents.py",
    "tests/story/test_sweeps.py",
    "tests/bench/test_gpu.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest files first, so that the cores finish at about the same time."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST_FIRST))


@pytest.fixture(scope="module", autouse=True)
def no_child_process_remains() -> Iterator[None]:
    """Every module of tests ends the processes that it starts."""
    yield
    left = psutil.wait_procs(left_processes(), timeout=10)[1]
    assert not left, left


def pytest_sessionfinish() -> None:
    """Stop the fork server of the tests."""
    stop_server()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def cache() -> Path:
    """The user's cache of assets, so that a second test run fetches nothing."""
    from geoclip.data.assets import cache_dir

    return cache_dir()


@pytest.fixture
def tiny_shards(tmp_path: Path) -> Callable[..., TinyShards]:
    """`write_shards` into the test's folder."""
    return partial(write_shards, tmp_path)
