"""The loss against a loop over images."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from geoclip.model.contrastive import image_to_gps_loss, same_place


def test_loss_is_the_mean_negative_log_share_of_the_own_place() -> None:
    torch.manual_seed(0)
    image, location = F.normalize(torch.randn(4, 8), dim=1), F.normalize(torch.randn(11, 8), dim=1)
    loss, recall = image_to_gps_loss(image, location, torch.tensor(14.0), first=3)
    by_hand, hits = 0.0, 0
    for row in range(4):
        scores = [math.exp(14.0 * float(image[row] @ location[column])) for column in range(11)]
        by_hand -= math.log(scores[3 + row] / sum(scores)) / 4
        hits += scores[3 + row] == max(scores)
    assert loss.item() == pytest.approx(by_hand, rel=1e-5)
    assert recall.item() == hits / 4


def test_a_place_photographed_twice_is_no_negative_of_itself() -> None:
    gps = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    candidates = torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0], [5.0, 6.0]])
    location = F.normalize(torch.tensor([[1.0, 0], [0, 1], [1, 0], [-1, 0]]), dim=1)
    image = F.normalize(torch.tensor([[1.0, 0], [0, 1]]), dim=1)
    masked, _ = image_to_gps_loss(image, location, torch.tensor(10.0), 0, same_place(gps, candidates))
    without = torch.stack(
        (
            F.cross_entropy(10 * image[:1] @ location[[0, 1, 3]].T, torch.tensor([0])),
            F.cross_entropy(10 * image[1:] @ location.T, torch.tensor([1])),
        )
    ).mean()
    assert masked.item() == pytest.approx(without.item(), abs=1e-6)
    plain, _ = image_to_gps_loss(image, location, torch.tensor(10.0), 0)
    assert plain > masked + 0.3  # unmasked, the image is pushed from its own place


def test_an_image_that_could_not_be_read_is_left_out_of_the_loss_but_its_place_is_not() -> None:
    generator = torch.Generator().manual_seed(5)
    image, location = (F.normalize(torch.randn(rows, 8, generator=generator), dim=1) for rows in (4, 6))
    weight = torch.tensor([0.5, 0.0, 0.5, 0.0])
    loss, recall = image_to_gps_loss(image, location, torch.tensor(10.0), 0, None, weight)
    logits = 10 * image @ location.T
    expected = torch.stack([F.cross_entropy(logits[[row]], torch.tensor([row])) for row in (0, 2)]).mean()
    torch.testing.assert_close(loss, expected)
    assert recall == (logits[[0, 2]].argmax(dim=1) == torch.tensor([0, 2])).float().mean()
