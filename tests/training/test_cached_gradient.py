"""A batch in parts has the loss and the gradient of the full batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from geoclip.model.geoclip import Embedded
from geoclip.training.losses import cross_entropy
from geoclip.training.step import backward_in_parts, train_step
from tests.fixtures.training import Batches, Recipes, States


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("parts", [2, 4])
def test_parts_have_the_gradient_of_the_full_batch(
    new_state: States, new_batch: Batches, recipe: Recipes, parts: int, frozen: bool
) -> None:
    full, cut = (new_state(0, frozen=frozen) for _ in range(2))
    for number in range(3):
        found = train_step(cut, new_batch(number), recipe(parts=parts))
        expected = train_step(full, new_batch(number), recipe())
        torch.testing.assert_close(found.sums, expected.sums, atol=1e-6, rtol=0)
        for (name, one), other in zip(cut.model.named_parameters(), full.model.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, atol=1e-6, rtol=1e-5, msg=name)


def test_both_passes_drop_the_same_units(new_state: States, new_batch: Batches, recipe: Recipes) -> None:
    batch, gradients = new_batch(0), []
    for in_parts in (False, True):
        model = new_state(0, dropout=0.5).model
        torch.manual_seed(1)
        if in_parts:
            backward_in_parts(model, batch.images, batch.gps_deg_B2, loss, recipe(parts=4))
        else:
            image_BD = torch.cat([model.encode_image(part) for part in batch.images.chunk(4)])
            loss(Embedded(image_BD, model.encode_location(batch.gps_deg_B2), *model.logit_terms()))[0].backward()
        gradients.append([p.grad for p in model.parameters()] + [torch.rand(3)])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def loss(embedded: Embedded) -> tuple[Tensor, Tensor]:
    logits_BM = embedded.scale * embedded.image_BD @ embedded.location_MD.T
    rows = len(logits_BM)
    return cross_entropy(logits_BM, torch.arange(rows), torch.full((rows,), 1 / rows))
