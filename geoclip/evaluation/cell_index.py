"""Approximate search in galleries of millions: coarse to fine over cells of neighbouring places.

A location encoder gives places within a few kilometres nearly the same embedding. So the gallery is cut into cells of
neighbouring places by a k-d tree; a query is compared with every cell's mean, then, exactly, with the members of the
cells that promise most. faiss holds the members in half precision and scores them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from geoclip.errors import AssetError, DataError
from geoclip.geo.geodesy import unit_vectors
from geoclip.run_dir import whole_file

CELL = 128  # most places of a cell
CELLS_SEARCHED = 512  # of a query
SPREAD = (
    0.15  # how much a cell whose members differ may promise beyond its mean; chosen on 1M places, see below
)
PAD = 16  # numbers more in the coarse index: the promise, and zeros up to what a processor takes at a time
PLACES_AT_ONCE = 65_536  # embedded at a time


@dataclass(kw_only=True, slots=True, eq=False)
class CellIndex:
    """What is searched. Made by `build_index` or `read_index`.

    Attributes:
        lists: faiss' inverted file, one list a cell, of the gallery's rows and float16 embeddings: 2 · D + 8 bytes a
            place, half of float32 and a little.
        coarse: faiss' flat index, float16, of each cell's mean and of what it promises beyond it: `SPREAD` times the
            members' distance from the mean, sqrt(1 − |mean|²). A mean alone hides the one good place of a mixed cell.
            Of a million places around the released ones, in 8,194 cells, 703 must be looked at for the best of 99 % of
            queries when cells are ranked by their mean, 448 by its direction, 184 with this.

    One query is searched on one core, more on all of them: threads that wait for each other cost more than they save.
    """

    lists: Any
    coarse: Any

    def __len__(self) -> int:
        """Places."""
        return int(self.lists.ntotal)

    @property
    def cells(self) -> int:
        """How many there are."""
        return int(self.lists.nlist)

    @torch.inference_mode()
    def search(self, query_ND: Tensor, k: int, *, cells: int = CELLS_SEARCHED) -> tuple[Tensor, Tensor]:
        """The k most similar places of the cells that promise most, as `nearest_in_gallery` gives them of all.

        Args:
            query_ND: (N, D) unit vectors.
            k: at most the number of places.
            cells: how many are looked at, at least; more where their places are fewer than k. With all of them, the
                search is exact up to half precision: similarities are float32 products with float16 embeddings, off by
                some 1e-5, and equal similarities at the end of the list are cut by chance.

        Returns:
            (N, k) cosine similarities, highest first, and (N, k) rows of the gallery, on the query's device; of equals
            the lower row first.

        Raises:
            ValueError: k or cells is smaller than 1, k is larger than the gallery, or D is another.
        """
        if not 1 <= k <= len(self):
            raise ValueError(f"k={k} must lie in 1 … {len(self)}, the size of the gallery")
        if cells < 1:
            raise ValueError(f"cells={cells} must be at least 1")
        if query_ND.shape[1] != self.lists.d:
            raise ValueError(f"queries have {query_ND.shape[1]} numbers, the index {self.lists.d}")
        if not len(query_ND):
            return query_ND.new_empty((0, k)), torch.empty((0, k), dtype=torch.long, device=query_ND.device)
        query = np.ascontiguousarray(query_ND.float().cpu().numpy())
        asked = np.pad(query, ((0, 0), (0, PAD)))
        asked[:, query.shape[1]] = 1  # what the promise is multiplied by
        cells = min(cells, self.coarse.ntotal)
        while True:
            promise, cell = self.coarse.search(asked, cells)
            self.lists.nprobe = cells
            score, row = self.lists.search_preassigned(query, k, cell, promise)
            if cells == self.coarse.ntotal or (row >= 0).all():
                break
            cells = min(2 * cells, self.coarse.ntotal)  # these hold fewer than k places
        order = np.lexsort((row, -score), axis=1)
        scores = torch.from_numpy(np.take_along_axis(score, order, axis=1))
        rows = torch.from_numpy(np.take_along_axis(row, order, axis=1))
        return scores.to(query_ND.device), rows.to(query_ND.device)

    def save(self, path: Path) -> None:
        """Write the index as one file of faiss' own format, whole or absent. It is about as large as in memory."""
        with whole_file(path) as partial:
            _faiss().write_index(self.lists, str(partial))


def build_index(
    gps_deg_G2: Tensor, embed: Callable[[NDArray[np.int64]], Tensor], *, cell_size: int = CELL
) -> CellIndex:
    """Cut the gallery into cells and embed it, cell after cell: neighbours come together, and never all at once.

    Args:
        gps_deg_G2: (G, 2) latitude, longitude in degrees.
        embed: (M,) rows of the gallery -> (M, D) their unit vectors; called with up to `PLACES_AT_ONCE`.
        cell_size: most places of a cell, and at least half of it; places at the very same coordinates stay together.

    Raises:
        AssetError: faiss is not installed.
        DataError: there is no place, or embeddings that are not finite.
    """
    faiss = _faiss()
    if not len(gps_deg_G2):
        raise DataError("a gallery without places has no index")
    row_G, ends_C = _cells(gps_deg_G2, cell_size)
    lists: Any = None
    centres = []
    first_cell = 0
    while first_cell < len(ends_C):
        start = ends_C[first_cell - 1] if first_cell else 0
        last_cell = max(first_cell + 1, int(np.searchsorted(ends_C, start + PLACES_AT_ONCE, side="right")))
        stops = ends_C[first_cell:last_cell] - start
        rows_M = row_G[start : start + stops[-1]]
        embedding_MD = embed(rows_M).float().cpu()
        if not embedding_MD.isfinite().all():
            raise DataError("this model's embeddings are not finite numbers: they cannot be searched")
        lists = lists or _empty_lists(embedding_MD.shape[1], len(ends_C))
        starts = np.concatenate(([0], stops[:-1]))
        half = embedding_MD.half().numpy()
        for cell, begin, end in zip(range(first_cell, last_cell), starts, stops, strict=True):
            lists.invlists.add_entries(  # once a cell: its memory is no larger than what it holds
                cell,
                int(end - begin),
                faiss.swig_ptr(rows_M[begin:end]),
                faiss.swig_ptr(half[begin:end].view(np.uint8)),
            )
        sums = np.add.reduceat(embedding_MD.numpy(), starts, axis=0)
        centres.append(sums / (stops - starts).astype(np.float32)[:, None])
        first_cell = last_cell
    lists.quantizer.add(np.concatenate(centres))
    lists.ntotal = len(row_G)
    return _opened(lists)


def read_index(path: Path) -> CellIndex:
    """An index that was saved. Its members stay on disk, mapped: the system's file cache holds what is looked at.

    Raises:
        AssetError: faiss is not installed.
        DataError: the file cannot be read, or is none of these.
    """
    faiss = _faiss()
    try:
        lists = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
        mapped = faiss.downcast_InvertedLists(lists.invlists)
    except (RuntimeError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{path} cannot be read as an index: {reason}; remove it, and it is built anew"
        ) from error
    mapped.prefetch_nthread = (
        0  # 32 threads that touch pages cost more than they save when the file is in memory
    )
    return _opened(lists)


def _opened(lists: Any) -> CellIndex:
    faiss = _faiss()
    flat = faiss.downcast_index(lists.quantizer)
    centre_CD = flat.reconstruct_n(0, flat.ntotal)
    promise_C1 = SPREAD * np.sqrt(np.clip(1 - np.square(centre_CD).sum(axis=1, keepdims=True), 0, None))
    padding = np.zeros((len(centre_CD), PAD - 1), dtype=np.float32)
    coarse = faiss.IndexScalarQuantizer(
        lists.d + PAD, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )
    coarse.is_trained = True
    coarse.add(np.concatenate((centre_CD, promise_C1, padding), axis=1))
    return CellIndex(lists=lists, coarse=coarse)


def _empty_lists(dim: int, cells: int) -> Any:
    faiss = _faiss()
    quantizer = faiss.IndexFlatIP(dim)
    lists = faiss.IndexIVFScalarQuantizer(
        quantizer, dim, cells, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False
    )
    lists.is_trained = True  # half precision has nothing to learn, and the cells are given
    return lists


def _cells(gps_deg_G2: Tensor, cell_size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(G,) rows ordered by cell, and (C,) where each cell ends among them."""
    tree = cKDTree(unit_vectors(gps_deg_G2).numpy(), leafsize=cell_size, balanced_tree=True)
    ends, open_nodes = [], [tree.tree]
    while open_nodes:
        node = open_nodes.pop()
        if node.split_dim == -1:
            ends.append(node.end_idx)
        else:
            open_nodes += [node.lesser, node.greater]
    return np.ascontiguousarray(tree.indices, dtype=np.int64), np.sort(np.array(ends, dtype=np.int64))


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise AssetError(
            "an index of a gallery needs FAISS: pip install 'geoclip-ablations[index]', or faiss-cpu"
        ) from None
    return faiss
