"""An index finds what exact search finds, or nearly so, and says what it cannot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from geoclip.errors import DataError
from geoclip.evaluation.gallery_index import GalleryIndex
from geoclip.evaluation.retrieval import nearest_in_gallery

pytest.importorskip("faiss", reason="FAISS is not installed: pip install 'geoclip-ablations[index]'")


def unit(count: int, seed: int, dim: int = 16) -> Tensor:
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.fixture(scope="module")
def gallery_GD() -> Tensor:
    """Places in clusters, as those of a real gallery are."""
    centres = unit(50, 0).repeat_interleave(100, dim=0)
    return F.normalize(centres + 0.3 * unit(5000, 1), dim=1)


@pytest.fixture(scope="module")
def index(gallery_GD: Tensor) -> GalleryIndex:
    return GalleryIndex.build(
        gallery_GD.split(1200), 5000, sample_SD=gallery_GD[::3], cells=40, cells_visited=10
    )


def queries(gallery_GD: Tensor) -> Tensor:
    return F.normalize(gallery_GD[::25] + 0.2 * unit(200, 2), dim=1)


def test_with_every_cell_it_is_exact(gallery_GD: Tensor, index: GalleryIndex) -> None:
    score, row = nearest_in_gallery(queries(gallery_GD), gallery_GD, 5)
    whole = GalleryIndex(index._index, cells_visited=index.cells)
    found_score, found_row = whole.search(queries(gallery_GD), 5)
    torch.testing.assert_close(found_score, score, atol=1e-3, rtol=0)
    assert (
        float((found_row[:, 0] == row[:, 0]).float().mean()) > 0.99
    )  # half precision swaps the nearly equal


def test_a_few_cells_find_nearly_all_and_one_finds_fewer(gallery_GD: Tensor, index: GalleryIndex) -> None:
    best = nearest_in_gallery(queries(gallery_GD), gallery_GD, 1)[1][:, 0]
    few = index.agreement(queries(gallery_GD), best)
    one = GalleryIndex(index._index, cells_visited=1).agreement(queries(gallery_GD), best)
    assert few >= 0.99 and one < few


def test_it_is_written_and_read(gallery_GD: Tensor, index: GalleryIndex, tmp_path: Path) -> None:
    index.save(tmp_path / "g.index")
    again = GalleryIndex.load(tmp_path / "g.index", cells_visited=10)
    assert len(again) == 5000 and again.cells == 40
    for mine, other in zip(again.search(gallery_GD[:9], 3), index.search(gallery_GD[:9], 3), strict=True):
        assert torch.equal(mine, other)
    # 2 bytes a number and 8 a row, beside the centres
    assert (tmp_path / "g.index").stat().st_size < 5000 * (2 * 16 + 8) + 40 * 16 * 4 + 5000
    (tmp_path / "g.index").write_bytes(b"no index")
    with pytest.raises(DataError, match=r"g\.index is no index"):
        GalleryIndex.load(tmp_path / "g.index")


def test_cells_with_too_few_places_say_so(gallery_GD: Tensor, index: GalleryIndex) -> None:
    score, row = GalleryIndex(index._index, cells_visited=1).search(gallery_GD[:4], 3000)
    assert bool((row[:, -1] == -1).all()) and bool((score[:, -1] == -torch.inf).all())
    assert bool((row[:, 0] >= 0).all())


def test_what_is_asked_and_built_must_fit(gallery_GD: Tensor, index: GalleryIndex) -> None:
    for k in (0, 5001):
        with pytest.raises(ValueError, match="1 … 5000"):
            index.search(gallery_GD[:1], k)
    with pytest.raises(DataError, match="was to hold 7 places, but 5 came"):
        GalleryIndex.build([gallery_GD[:5]], 7)
    alone = GalleryIndex.build([gallery_GD[:1]], 1)
    assert alone.search(gallery_GD[:2], 1)[1].tolist() == [[0], [0]]


def test_without_faiss_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['faiss'] = None\n"
        "import torch\nfrom geoclip.evaluation.gallery_index import GalleryIndex\n"
        "GalleryIndex.build([torch.ones(1, 4)], 1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "geoclip-ablations[index]" in done.stderr
