"""Losses against loops over images."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from geoclip.training.losses import cross_entropy, same_location, sigmoid_loss

EVENLY_2 = torch.full((2,), 0.5)


def logits(rows: int, columns: int, scale: float = 14.0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    image, location = (F.normalize(torch.randn(n, 8, generator=generator), dim=1) for n in (rows, columns))
    return scale * image @ location.T


def test_loss_is_the_mean_negative_log_share_of_the_own_location() -> None:
    logits_NM = logits(4, 11)
    loss, recall = cross_entropy(logits_NM, torch.arange(3, 7), torch.full((4,), 0.25))
    by_hand, hits = 0.0, 0
    for row in range(4):
        scores = [math.exp(float(logits_NM[row, column])) for column in range(11)]
        by_hand -= math.log(scores[3 + row] / sum(scores)) / 4
        hits += scores[3 + row] == max(scores)
    assert loss.item() == pytest.approx(by_hand, rel=1e-5)
    assert recall.item() == hits / 4


def test_a_location_photographed_twice_is_no_negative_of_itself() -> None:
    gps = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    candidates = torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0], [5.0, 6.0]])
    location = F.normalize(torch.tensor([[1.0, 0], [0, 1], [1, 0], [-1, 0]]), dim=1)
    image = F.normalize(torch.tensor([[1.0, 0], [0, 1]]), dim=1)
    logits_NM, target = 10 * image @ location.T, torch.arange(2)
    masked, _ = cross_entropy(logits_NM, target, EVENLY_2, same_location(gps, candidates))
    without = torch.stack(
        (
            F.cross_entropy(logits_NM[:1, [0, 1, 3]], torch.tensor([0])),
            F.cross_entropy(logits_NM[1:], torch.tensor([1])),
        )
    ).mean()
    assert masked.item() == pytest.approx(without.item(), abs=1e-6)
    plain, _ = cross_entropy(logits_NM, target, EVENLY_2)
    assert plain > masked + 0.3  # unmasked, the image is pushed away from its own location


def test_an_image_that_could_not_be_read_is_left_out_of_the_loss_but_its_location_is_not() -> None:
    logits_NM = logits(4, 6, scale=10)
    loss, recall = cross_entropy(logits_NM, torch.arange(4), torch.tensor([0.5, 0.0, 0.5, 0.0]))
    expected = torch.stack([F.cross_entropy(logits_NM[[row]], torch.tensor([row])) for row in (0, 2)]).mean()
    torch.testing.assert_close(loss, expected)
    assert recall == (logits_NM[[0, 2]].argmax(dim=1) == torch.tensor([0, 2])).float().mean()


def test_soft_targets_are_a_distribution_over_what_is_not_left_out() -> None:
    logits_NM, target = logits(2, 4), torch.tensor([0, 1])
    soft = torch.tensor([[1.0, 0.5, 0.0, 0.5], [0.25, 1.0, 0.75, 0.0]])
    ignored = torch.tensor([[False, False, False, True], [False, True, False, False]])  # (1, 1) is its own
    loss, _ = cross_entropy(logits_NM, target, EVENLY_2, ignored, soft)
    first = logits_NM[0, :3].log_softmax(dim=0)
    second = logits_NM[1].log_softmax(dim=0)
    by_hand = -(first[0] + 0.5 * first[1]) / 1.5 - (0.25 * second[0] + second[1] + 0.75 * second[2]) / 2
    assert loss.item() == pytest.approx(by_hand.item() / 2, rel=1e-5)
    hard, _ = cross_entropy(logits_NM, target, EVENLY_2, ignored, torch.zeros(2, 4))
    torch.testing.assert_close(hard, cross_entropy(logits_NM, target, EVENLY_2, ignored)[0])


def test_what_is_left_out_has_no_gradient_in_any_loss() -> None:
    ignored = torch.tensor([[False, False, True], [False, False, True]])
    soft = torch.tensor([[1.0, 0.1, 0.9], [0.1, 1.0, 0.9]])
    for loss_of in (cross_entropy, sigmoid_loss):
        for softly in (None, soft):
            logits_NM = logits(2, 3).requires_grad_()
            loss_of(logits_NM, torch.arange(2), EVENLY_2, ignored, softly)[0].backward()
            assert logits_NM.grad is not None and logits_NM.grad.isfinite().all()
            assert (logits_NM.grad[:, 2] == 0).all() and (logits_NM.grad[:, :2] != 0).all()


def test_sigmoid_loss_asks_every_pair_for_itself() -> None:
    logits_NM = logits(2, 5, scale=3) - 1
    loss, _ = sigmoid_loss(logits_NM, torch.arange(2), EVENLY_2)
    by_hand = 0.0
    for row in range(2):
        for column in range(5):
            sign = 1 if column == row else -1
            by_hand += math.log1p(math.exp(-sign * float(logits_NM[row, column]))) / 2
    assert loss.item() == pytest.approx(by_hand, rel=1e-5)
