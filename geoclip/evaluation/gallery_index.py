"""Galleries of millions: an index that looks at a few cells of the embedding space in place of every place.

FAISS keeps the embeddings in half precision, each in the list of its nearest centre, and a query is compared with the
members of the nearest lists alone. Exact search stays `geoclip.evaluation.retrieval.nearest_in_gallery`.

    index = GalleryIndex.build(parts, places=10_000_000)     # parts: (n, D) unit vectors, from first place to last
    score_Nk, row_Nk = index.search(image_ND, 5)
    index.save(Path("gallery.index")); GalleryIndex.load(Path("gallery.index"))
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geoclip.errors import AssetError, DataError
from geoclip.run_dir import whole_file

PLACES_PER_CENTRE = 64  # that the centres are fitted to: more only costs time


class GalleryIndex:
    """Approximate search by cosine similarity among unit vectors.

    Attributes:
        cells_visited: how many lists each query is compared with; all of them make the search exact up to the rounding
            of half precision.
    """

    def __init__(self, index: Any, cells_visited: int) -> None:
        self._index = index
        self.cells_visited = cells_visited

    @classmethod
    def build(
        cls,
        parts: Iterable[Tensor],
        places: int,
        *,
        sample_SD: Tensor | None = None,
        cells: int | None = None,
        cells_visited: int = 16,
    ) -> GalleryIndex:
        """From embeddings that come part by part; 2 D + 8 bytes a place are held, and one part.

        Args:
            parts: (n, D) unit vectors on any device, from the gallery's first place to its last.
            places: how many there will be.
            sample_SD: what the cells' centres are fitted to, drawn from all over the gallery; None: the first part.
            cells: how many; None: four times the square root of `places`, as FAISS recommends.
            cells_visited: by each query, at first.

        Raises:
            AssetError: FAISS is not installed.
            DataError: there were more or fewer places than said, or none.
        """
        faiss = _faiss()
        if places < 1:
            raise DataError("an index needs at least one place")
        cells = cells or max(1, min(round(4 * math.sqrt(places)), places // 39))
        index, count = None, 0
        for part in parts:
            if index is None:
                sample = _floats(part if sample_SD is None else sample_SD)
                cells = min(cells, len(sample))
                quantizer = faiss.IndexFlatIP(sample.shape[1])
                index = faiss.IndexIVFScalarQuantizer(
                    quantizer, sample.shape[1], cells, faiss.ScalarQuantizer.QT_fp16,
                    faiss.METRIC_INNER_PRODUCT, False,  # of the embedding, not of what is left beside the centre
                )  # fmt: skip
                index.cp.spherical = True
                index.cp.max_points_per_centroid = PLACES_PER_CENTRE
                index.cp.min_points_per_centroid = 1  # a small gallery is no fault
                index.cp.seed = 0
                index.train(sample)
            index.add(_floats(part))
            count += len(part)
        if index is None or count != places:
            raise DataError(f"the index was to hold {places:,} places, but {count:,} came")
        return cls(index, min(cells_visited, cells))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def cells(self) -> int:
        """How many lists there are."""
        return int(self._index.nlist)

    def search(self, image_ND: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k places of highest cosine similarity among those looked at.

        Args:
            image_ND: (N, D) unit vectors.
            k: at most the size of the gallery.

        Returns:
            (N, k) cosine similarities, highest first, of embeddings rounded to half precision (to 1e-3), and (N, k)
            rows of the gallery, on the device of `image_ND`; -1 and -inf where the cells looked at hold fewer than k.

        Raises:
            ValueError: k is larger than the gallery, or smaller than 1.
        """
        if not 1 <= k <= len(self):
            raise ValueError(f"k={k} must lie in 1 … {len(self)}, the size of the gallery")
        self._index.nprobe = self.cells_visited
        score, row = self._index.search(_floats(image_ND), k)
        score = np.where(row < 0, -np.inf, score)
        return torch.from_numpy(score).to(image_ND.device), torch.from_numpy(row).to(image_ND.device)

    def agreement(self, image_ND: Tensor, exact_row_N: Tensor) -> float:
        """The share of queries whose best place is that of the exact search."""
        return float((self.search(image_ND, 1)[1][:, 0] == exact_row_N).float().mean())

    def save(self, path: Path) -> None:
        """Write the file, whole or absent."""
        with whole_file(path) as partial:
            _faiss().write_index(self._index, str(partial))

    @classmethod
    def load(cls, path: Path, cells_visited: int = 16) -> GalleryIndex:
        """From a file, read from disk as far as it is searched.

        Raises:
            AssetError: FAISS is not installed.
            DataError: the file is no such index.
        """
        faiss = _faiss()
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise DataError(f"{path} is no index of a gallery: {str(error).splitlines()[0]}") from None
        return cls(index, min(cells_visited, int(index.nlist)))


def _floats(rows_ND: Tensor) -> Any:
    return np.ascontiguousarray(rows_ND.detach().float().cpu().numpy())


def _faiss() -> ModuleType:
    try:
        import faiss
    except ImportError:
        raise AssetError(
            "an index of a gallery needs FAISS: pip install 'geoclip-ablations[index]', or faiss-cpu"
        ) from None
    module: ModuleType = faiss
    return module
