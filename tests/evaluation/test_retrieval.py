"""Retrieval in chunks agrees with the complete score matrix."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from geoclip.evaluation.retrieval import FEW, PART, cosines, nearest_in_gallery, shortlist


def unit_vectors(count: int, seed: int, dimensions: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, dimensions, generator=generator), dim=1)


@pytest.mark.parametrize("k", [1, 5, 103])
@pytest.mark.parametrize(("images_per_chunk", "locations_per_chunk"), [(512, 65_536), (7, 10), (4, 3)])
def test_chunks_change_nothing(k: int, images_per_chunk: int, locations_per_chunk: int) -> None:
    images, gallery = unit_vectors(19, 0), unit_vectors(103, 1)
    score, row = nearest_in_gallery(
        images, gallery, k, images_per_chunk=images_per_chunk, locations_per_chunk=locations_per_chunk
    )
    expected = (images @ gallery.T).sort(dim=1, descending=True, stable=True)
    assert torch.equal(row, expected.indices[:, :k])
    torch.testing.assert_close(score, expected.values[:, :k])


@pytest.mark.parametrize("locations_per_chunk", [65_536, 50, 7])
@pytest.mark.parametrize("k", [1, 2, 5, 40])
def test_of_equal_locations_the_lowest_row_comes_first(k: int, locations_per_chunk: int) -> None:
    """The released gallery contains 5,877 locations more than once."""
    one_hot = torch.eye(8)
    gallery = one_hot[torch.randint(0, 8, (160,), generator=torch.Generator().manual_seed(0))]
    _, row = nearest_in_gallery(one_hot, gallery, k, locations_per_chunk=locations_per_chunk)
    score = one_hot @ gallery.T
    assert torch.equal(row, score.sort(dim=1, descending=True, stable=True).indices[:, :k])


def test_the_complete_matrix_never_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0
    multiply = Tensor.__matmul__

    def watched(a: Tensor, b: Tensor) -> Tensor:
        nonlocal largest
        product: Tensor = multiply(a, b)
        largest = max(largest, product.numel())
        return product

    monkeypatch.setattr(Tensor, "__matmul__", watched)
    nearest_in_gallery(unit_vectors(100, 0), unit_vectors(900, 1), 3, images_per_chunk=10, locations_per_chunk=50)
    assert largest == 10 * 50


@pytest.mark.parametrize("images", [0, 1, 3, FEW, FEW + 1])
@pytest.mark.parametrize("locations", [10, 2 * PART, 3 * PART + 7])
def test_few_images_agree_with_many(images: int, locations: int) -> None:
    queries, gallery = unit_vectors(images, 0), unit_vectors(locations, 1)
    expected = (queries[:, None] * gallery).sum(dim=2)
    torch.testing.assert_close(cosines(queries, gallery), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("locations", [40, 64, 6_400, 20_011])
@pytest.mark.parametrize("k", [1, 5, 40])
def test_a_search_in_half_precision_finds_the_same(locations: int, k: int) -> None:
    images, gallery = unit_vectors(9, 0), unit_vectors(locations, 1)
    candidates = shortlist(images, gallery.half(), k)
    expected = (images @ gallery.T).topk(k, dim=1)
    assert (candidates[:, :, None] == expected.indices[:, None, :]).any(dim=1).all()
    half = gallery.half().float()
    score, row = nearest_in_gallery(images, gallery.half(), k)
    assert torch.equal(row, (images @ half.T).topk(k, dim=1).indices)
    torch.testing.assert_close(score, (images @ half.T).topk(k, dim=1).values)


@pytest.mark.parametrize("k", [0, -1, 11])
def test_k_outside_the_gallery_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=rf"k={k} .*10"):
        nearest_in_gallery(unit_vectors(2, 0), unit_vectors(10, 1), k)


def test_no_images_have_no_neighbours() -> None:
    score, row = nearest_in_gallery(unit_vectors(0, 0), unit_vectors(10, 1), 3)
    assert score.shape == row.shape == (0, 3)
