"""A large batch in parts, with the very loss and gradient of the whole.

A contrastive loss ties pictures to each other: the mean of the parts' losses is another loss. Here the embeddings of
all parts are computed first, without a graph; the loss of the whole gives each of them its gradient; then every part is
embedded again, with a graph, and that gradient goes through it.

Source: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", RepL4NLP 2021.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from geoclip.model.geoclip import Embedded, GeoCLIP

Objective = Callable[[Embedded], tuple[Tensor, Tensor]]  # the loss, and what else is told


def features_in_parts(model: GeoCLIP, images: Tensor, parts: int) -> Tensor:
    """(B, F) features of a frozen backbone, which has no gradient to cache: it sees a part at a time, once."""
    with torch.no_grad():
        return torch.cat([model.image_encoder.features(part).float() for part in images.chunk(parts)])


def backward_in_parts(
    model: GeoCLIP,
    images: Tensor,
    candidates_M2: Tensor,
    objective: Objective,
    parts: int,
    autocast: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss of the whole batch, its gradient added to the model's parameters; no rank's mean is taken.

    Args:
        model: not wrapped; the caller averages gradients over ranks.
        images: (B, …) of this rank.
        candidates_M2: coordinates.
        objective: the loss of the whole batch, and what else is to be returned.
        parts: how many the pictures are taken in.
        autocast: the context that the model runs in.

    Returns:
        The loss and the objective's second value, detached, the (B, D) image embeddings and those of the candidates.
    """
    chunks, drawn, embedded = images.chunk(parts), [], []
    with torch.no_grad(), autocast():
        for chunk in chunks:
            drawn.append(_Generators(images.device))
            embedded.append(model.encode_image(chunk))
    image_BD = torch.cat(embedded).requires_grad_()
    with autocast():
        location_MD, terms = model.encode_location(candidates_M2), model.logit_terms()
    loss, told = objective(Embedded(image_BD, location_MD, *terms))
    loss.backward()
    assert image_BD.grad is not None
    for chunk, generators, gradient in zip(chunks, drawn, image_BD.grad.chunk(parts), strict=True):
        with generators.again(), autocast():
            part = model.encode_image(chunk)
        part.backward(gradient)
    return loss.detach(), told, image_BD.detach(), location_MD.detach()


@dataclass(slots=True)
class _Generators:
    """Where torch's generators stand, so that dropout drops the same units in both passes."""

    device: torch.device
    cpu: Tensor
    cuda: Tensor | None

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.cpu = torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    @contextlib.contextmanager
    def again(self) -> Iterator[None]:
        """Draw what was drawn, then go on where everything stood."""
        devices = [self.device] if self.cuda is not None else []
        with torch.random.fork_rng(devices=devices):
            torch.set_rng_state(self.cpu)
            if self.cuda is not None:
                torch.cuda.set_rng_state(self.cuda, self.device)
            yield
