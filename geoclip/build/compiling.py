"""torch.compile, where there is a compiler."""

from __future__ import annotations

import logging
from textwrap import shorten

import torch
from torch import Tensor, nn

from geoclip.model.geoclip import GeoCLIP

log = logging.getLogger("geoclip")


def compile_layers(model: GeoCLIP, device: torch.device) -> bool:
    """Compile a model's layers in place, so that names in checkpoints stay; False, and a warning, where that fails.

    Of the location encoder only what comes after the features of coordinates: at sigma 2^8 their phases are thousands
    of radians, and in the order of operations that the compiler chooses gradients move by 0.5 % of their norm.

    Args:
        model: changed in place.
        device: that it runs on.
    """
    problem = compiler_problem(device)
    if problem is not None:
        log.warning("compute.compile=true: nothing is compiled, training is as without it (%s)", problem)
        return False
    backbone = model.image_encoder.backbone
    blocks = [] if backbone is None else _repeated_blocks(backbone)
    for module in [*blocks, model.image_encoder.head] if blocks else [model.image_encoder]:
        module.compile(dynamic=False)
    for module in model.location_encoder.modules():
        if isinstance(module, nn.Sequential):
            module.compile(dynamic=False)
    return True


def _repeated_blocks(backbone: nn.Module) -> list[nn.Module]:
    """The blocks of a transformer: equal ones share what is compiled for the first, in seconds and not minutes.

    Source: https://docs.pytorch.org/tutorials/recipes/regional_compilation.html
    """
    for module in backbone.modules():
        if isinstance(module, nn.ModuleList) and len(module) > 1:
            shapes = {tuple(tuple(one.shape) for one in block.parameters()) for block in module}
            if len(shapes) == 1 and len({type(block) for block in module}) == 1:
                return list(module)
    return []


def compiler_problem(device: torch.device) -> str | None:
    """Why nothing can be compiled for this device; None where it can."""
    try:
        torch.compile(_probe)(torch.ones(8, device=device))
    except Exception as error:  # whatever a compiler, its absence or its driver trips over
        return shorten(f"{type(error).__name__}: {error}", 160, placeholder=" …")
    return None


def _probe(x: Tensor) -> Tensor:
    return x.relu() + 1
