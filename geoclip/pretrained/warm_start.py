"""Starting a location encoder from the scales of a trained one."""

from __future__ import annotations

import torch

from geoclip.model.location_encoder import FourierBranch, LocationEncoder


def take_up_scales(encoder: LocationEncoder, trained: LocationEncoder, *, freeze: bool = False) -> list[float]:
    """Copy the weights of every trained branch whose sigma the encoder has; start the heads of new scales at zero.

    At first, the embedding is that of the copied scales; with `freeze` they are not trained.

    Returns:
        The sigmas of the copied scales.

    Raises:
        ValueError: no sigma in common, other dimensions, or scales that are concatenated.
    """
    if encoder.projection != trained.projection or encoder.concat or trained.concat:
        raise ValueError("a warm start needs the same projection, and scales that are summed")
    by_sigma = dict(zip(trained.sigmas, trained.branches, strict=True))
    taken = []
    for sigma, branch in zip(encoder.sigmas, encoder.branches, strict=True):
        assert isinstance(branch, FourierBranch)
        known = by_sigma.get(sigma)
        if known is None:
            torch.nn.init.zeros_(branch.head.weight)
            torch.nn.init.zeros_(branch.head.bias)
            continue
        try:
            branch.load_state_dict(known.state_dict())
        except RuntimeError as error:
            raise ValueError(f"the scale {sigma:g}: {str(error).splitlines()[-1].strip()}") from None
        branch.requires_grad_(not freeze)
        taken.append(sigma)
    if not taken:
        raise ValueError(f"none of the sigmas {list(encoder.sigmas)} is among those trained, {list(trained.sigmas)}")
    return taken
