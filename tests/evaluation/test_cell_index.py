"""Cells of neighbouring places: the index finds what exact search finds, and says what it cannot."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from geoclip.errors import AssetError, DataError
from geoclip.evaluation import cell_index
from geoclip.evaluation.cell_index import CellIndex, build_index, read_index
from geoclip.evaluation.retrieval import nearest_in_gallery
from geoclip.geo.geodesy import jitter, uniform_on_sphere

pytest.importorskip("faiss", reason="FAISS is not installed: pip install 'geoclip-ablations[index]'")

PLACES, CELLS = 6000, 256


def unit(count: int, seed: int) -> Tensor:
    return F.normalize(torch.randn((count, 32), generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.fixture(scope="module")
def places_G2() -> Tensor:
    """Sixty towns of a hundred places within some kilometres, in no order."""
    towns = uniform_on_sphere(60, torch.Generator().manual_seed(0)).repeat_interleave(100, dim=0)
    places = jitter(
        towns.double(), 3000, torch.randn((len(towns), 2), generator=torch.Generator().manual_seed(1))
    )
    return places[torch.randperm(PLACES, generator=torch.Generator().manual_seed(2))]


@pytest.fixture(scope="module")
def gallery_GD() -> Tensor:
    """As the released encoder has them: alike within a town (0.9), and less between towns, as far as they are apart."""
    order = torch.randperm(PLACES, generator=torch.Generator().manual_seed(2))
    towns_GD = unit(60, 0).repeat_interleave(100, dim=0)
    return F.normalize(towns_GD + 0.35 * unit(PLACES, 1), dim=1)[order]


@pytest.fixture(scope="module")
def index(places_G2: Tensor, gallery_GD: Tensor) -> CellIndex:
    return build_index(places_G2, lambda rows_M: gallery_GD[torch.from_numpy(rows_M)], cell_size=25)


@pytest.fixture(scope="module")
def queries_ND(gallery_GD: Tensor) -> Tensor:
    return F.normalize(gallery_GD[:500] + 0.7 * unit(500, 3), dim=1)


def test_every_cell_looked_at_is_exact_search(
    index: CellIndex, gallery_GD: Tensor, queries_ND: Tensor
) -> None:
    halved = gallery_GD.half().float()
    score, row = nearest_in_gallery(queries_ND, halved, 5)
    found_score, found_row = index.search(queries_ND, 5, cells=PLACES)
    torch.testing.assert_close(found_score, score, atol=1e-6, rtol=0)
    assert (
        float((found_row == row).float().mean()) > 0.999
    )  # sums in another order swap what is equal to 1e-7


def test_a_quarter_of_the_cells_finds_99_percent_of_the_best(
    index: CellIndex, gallery_GD: Tensor, queries_ND: Tensor
) -> None:
    best_N = nearest_in_gallery(queries_ND, gallery_GD.half().float(), 1)[1][:, 0]
    few = index.search(queries_ND, 5, cells=CELLS // 4)[1][:, 0]
    one = index.search(queries_ND, 5, cells=1)[1][:, 0]
    assert float((few == best_N).float().mean()) >= 0.99 > float((one == best_N).float().mean())


def test_a_cell_of_unlike_members_promises_more_than_its_mean() -> None:
    """Its mean points nowhere, yet one of its members is the answer; the other cell's members all point half there."""
    places_G2 = torch.cat(
        (torch.tensor([[50.0, 8.0]]).repeat(2, 1), torch.tensor([[-30.0, 140.0]]).repeat(2, 1))
    )
    mixed = F.normalize(torch.tensor([[1.0, 0, 0, 0], [-0.8, 0.6, 0, 0]]), dim=1)
    alike = F.normalize(torch.tensor([[0.2, 0, 1.0, 0], [0.2, 0, 1.0, 0]]), dim=1)
    gallery = torch.cat((mixed, alike))
    one_each = build_index(
        places_G2 + torch.tensor([0, 1e-3, 0, 1e-3])[:, None],
        lambda rows_M: gallery[torch.from_numpy(rows_M)],
        cell_size=2,
    )
    assert one_each.search(torch.tensor([[1.0, 0, 0, 0]]), 1, cells=1)[1].tolist() == [[0]]


def test_more_guesses_than_the_first_cells_hold_come_from_further_cells(
    index: CellIndex, gallery_GD: Tensor, queries_ND: Tensor
) -> None:
    score, row = index.search(queries_ND[:3], PLACES, cells=1)
    assert bool((row.sort(dim=1).values == torch.arange(PLACES)).all())
    assert bool((score[:, 1:] <= score[:, :-1]).all())


def test_of_equal_places_the_first_row_comes_first(places_G2: Tensor) -> None:
    one_hot = torch.eye(4).repeat(10, 1)
    index = build_index(places_G2[:40], lambda rows_M: one_hot[torch.from_numpy(rows_M)], cell_size=7)
    assert index.search(torch.eye(4)[:1], 10, cells=40)[1].tolist() == [list(range(0, 40, 4))]


def test_it_is_embedded_part_by_part_and_neighbours_come_together(
    places_G2: Tensor, gallery_GD: Tensor, index: CellIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cell_index, "PLACES_AT_ONCE", 500)
    asked: list[NDArray[np.int64]] = []

    def embed(rows_M: NDArray[np.int64]) -> Tensor:
        asked.append(rows_M)
        return gallery_GD[torch.from_numpy(rows_M)]

    again = build_index(places_G2, embed, cell_size=25)
    assert max(map(len, asked)) <= 500 and sorted(np.concatenate(asked).tolist()) == list(range(PLACES))
    widths = [float(places_G2[torch.from_numpy(rows)].std(dim=0).max()) for rows in asked]
    assert np.median(widths) < float(places_G2.std(dim=0).max()) / 2
    for mine, other in zip(again.search(gallery_GD[:9], 3), index.search(gallery_GD[:9], 3), strict=True):
        assert torch.equal(mine, other)


def test_it_is_written_and_read(index: CellIndex, queries_ND: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "kept" / "gallery.index"
    index.save(path)
    assert [file.name for file in path.parent.iterdir()] == ["gallery.index"]
    assert (
        path.stat().st_size < PLACES * (2 * 32 + 8) + CELLS * 32 * 4 + 10_000
    )  # half precision, rows, centres
    again = read_index(path)
    assert len(again) == PLACES
    for mine, other in zip(again.search(queries_ND, 3), index.search(queries_ND, 3), strict=True):
        assert torch.equal(mine, other)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"gallery\.index cannot be read"):
        read_index(path)


def test_a_single_place_is_found_and_what_does_not_fit_is_refused(index: CellIndex) -> None:
    alone = build_index(torch.tensor([[1.0, 2.0]]), lambda rows_M: torch.eye(1, 32))
    assert alone.search(torch.eye(2, 32), 1)[1].tolist() == [[0], [0]]
    assert index.search(torch.empty(0, 32), 3)[1].shape == (0, 3)
    for k in (0, PLACES + 1):
        with pytest.raises(ValueError, match=f"k={k} must lie in 1 … {PLACES}"):
            index.search(torch.eye(1, 32), k)
    with pytest.raises(ValueError, match="cells=0"):
        index.search(torch.eye(1, 32), 1, cells=0)
    with pytest.raises(ValueError, match="queries have 8 numbers, the index 32"):
        index.search(torch.eye(1, 8), 1)
    with pytest.raises(DataError, match="without places"):
        build_index(torch.empty(0, 2), lambda rows_M: torch.empty(0, 32))
    with pytest.raises(DataError, match="not finite"):
        build_index(torch.tensor([[1.0, 2.0]]), lambda rows_M: torch.full((1, 32), torch.nan))


def test_without_faiss_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(AssetError, match=r"geoclip-ablations\[index\]"):
        build_index(torch.zeros(1, 2), lambda rows_M: torch.ones(1, 4))
