"""What the commands import, for the fork server of tests/commands.py: each command that it forks has it already."""

# ruff: noqa: F401
from __future__ import annotations

import torch
import transformers.models.resnet.modeling_resnet

import geoclip.cli.app
import geoclip.config
import geoclip.data.blue_marble
import geoclip.factory.loading
import geoclip.plotting.report
import geoclip.prepare.shard_building
import geoclip.training.hooks

torch.set_num_threads(1)
