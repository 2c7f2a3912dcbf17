"""What the commands import, for the fork server of tests/commands.py: each command that it forks has it already."""

# ruff: noqa: F401
from __future__ import annotations

import torch
import transformers.models.resnet.modeling_resnet

import geoclip.config
import geoclip.data.blue_marble
import geoclip.data.building.shard_building
import geoclip.drawing.report_page
import geoclip.entry
import geoclip.trained
import geoclip.training.hooks

torch.set_num_threads(1)
