"""What every test stands on: few threads, no hub, no dashboard, and the one cache of fetched assets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"  # a test that needs the hub is no test
os.environ["WANDB_MODE"] = "offline"  # nor does a test run belong on anybody's dashboard
os.environ["WANDB_SILENT"] = "true"
torch.set_num_threads(min(2, os.cpu_count() or 1))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout that the tests lie in."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def cache() -> Path:
    """The user's own cache of assets, so that a second test run fetches nothing."""
    from geoclip.data.assets import cache_dir

    return cache_dir()
