"""Embeddings of the coordinates of a table, written as CSV, Parquet or NumPy."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from geoclip.data.tables import open_table, read_chunks
from geoclip.errors import DataError
from geoclip.model.embedding import embed_locations
from geoclip.system.files import atomic_path


class Embedded(NamedTuple):
    """Some rows of the table, with cells as text, and their embeddings."""

    rows: pd.DataFrame
    gps_deg_N2: NDArray[np.float64]
    embedding_ND: NDArray[np.float32]


def embed_table(
    encoder: nn.Module, source: Path, output: Path, *, normalise: bool = True, batch_size: int = 2048
) -> tuple[int, int]:
    """Embed every row of a table, in order. Nothing is written unless all rows are locations on Earth.

    Args:
        encoder: (N, 2) degrees -> (N, D), on its device.
        source: a table, see `geoclip.data.tables`.
        output: .npy is (N, D) float32; .npz has `embedding`, `lat` and `lon`; .csv the columns of the source and
            e0, e1, …; .parquet the columns of the source and lists `embedding`.
        normalise: to unit vectors.
        batch_size: rows at a time.

    Returns:
        N and D.

    Raises:
        DataError: no coordinate columns, no rows, a row that is no location on Earth, with its line, or a column with
            a name of the output's.
    """
    table = open_table(source, "input")
    columns = table.columns()
    count = sum(len(chunk.gps_deg_N2) for chunk in read_chunks(table, columns, []))
    dim = embed_locations(encoder, [[0.0, 0.0]]).shape[1]

    def parts() -> Iterator[Embedded]:
        with tqdm(total=count, desc="embedding", unit="location", unit_scale=True) as bar:
            for chunk in read_chunks(table, columns, table.header):
                embedding = embed_locations(encoder, chunk.gps_deg_N2, normalise=normalise, batch_size=batch_size)
                yield Embedded(chunk.cells, chunk.gps_deg_N2, embedding)
                bar.update(len(embedding))

    with atomic_path(output) as partial:
        WRITERS[output.suffix.lower()](partial, parts(), (count, dim))
    return count, dim


def _write_npy(path: Path, parts: Iterable[Embedded], shape: tuple[int, int]) -> None:
    with path.open("wb") as file:
        _stream_npy(file, parts, shape)


def _write_npz(path: Path, parts: Iterable[Embedded], shape: tuple[int, int]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("embedding.npy", "w", force_zip64=True) as file:
            gps_deg_N2 = _stream_npy(file, parts, shape)
        for name, values_N in zip(("lat", "lon"), gps_deg_N2.T, strict=True):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(values_N))


def _stream_npy(file: IO[bytes], parts: Iterable[Embedded], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Write the embeddings as one array, part by part; returns the coordinates."""
    gps_deg = []
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    for part in parts:
        file.write(np.ascontiguousarray(part.embedding_ND, dtype="<f4").tobytes())
        gps_deg.append(part.gps_deg_N2)
    return np.concatenate(gps_deg)


def _write_csv(path: Path, parts: Iterable[Embedded], shape: tuple[int, int]) -> None:
    names = [f"e{number}" for number in range(shape[1])]
    with path.open("w", encoding="utf-8", newline="") as file:
        for number, part in enumerate(parts):
            _refuse_clash(part.rows, names)
            embedding = pd.DataFrame(part.embedding_ND, columns=names, index=part.rows.index)
            beside = pd.concat([part.rows, embedding], axis=1)
            beside.to_csv(file, index=False, header=number == 0, lineterminator="\n")


def _write_parquet(path: Path, parts: Iterable[Embedded], shape: tuple[int, int]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer: Any = None
    with ExitStack() as stack:
        for part in parts:
            _refuse_clash(part.rows, ["embedding"])
            flat = pa.array(part.embedding_ND.reshape(-1))
            columns = {name: pa.array(part.rows[name], pa.string()) for name in part.rows}
            table = pa.table(columns | {"embedding": pa.FixedSizeListArray.from_arrays(flat, shape[1])})
            writer = writer or stack.enter_context(pq.ParquetWriter(path, table.schema))
            writer.write_table(table)


def _refuse_clash(rows: pd.DataFrame, names: list[str]) -> None:
    clash = [name for name in rows if name in set(names)]
    if clash:
        raise DataError(f"the input's column {clash[0]} is also a column of embeddings; rename it, or write a .npz")


WRITERS: dict[str, Callable[[Path, Iterable[Embedded], tuple[int, int]], None]] = {
    ".npy": _write_npy,
    ".npz": _write_npz,
    ".csv": _write_csv,
    ".parquet": _write_parquet,
}
