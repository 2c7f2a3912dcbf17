"""Coordinates in whatever holds them -> embeddings as an array: the location encoder on its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from geoclip.data.coordinates import LATITUDE_LETTERS, LONGITUDE_LETTERS, parse_degrees
from geoclip.data.tables import find_columns
from geoclip.errors import DataError

CHUNK = 2048  # rows: what a processor's cache holds of the hidden layers


def embed_locations(
    encoder: nn.Module, coordinates: Any, *, normalise: bool = True, batch_size: int = CHUNK, device: str = "auto"
) -> NDArray[np.float32]:
    """Embed coordinates.

    Args:
        encoder: (N, 2) degrees -> (N, D), any location encoder; it is left in the mode that it is in.
        coordinates: as `degrees_of` takes them.
        normalise: to unit vectors, whose products are cosines; GeoCLIP compares these.
        batch_size: rows at a time.
        device: where the encoder is moved to; `auto` leaves it where it is.

    Returns:
        (N, D) float32.

    Raises:
        DataError: a row that is no place on Earth, by its number.
    """
    gps_deg_N2 = torch.from_numpy(degrees_of(coordinates)).float()
    if device != "auto":
        encoder = encoder.to(device)
    tensors = [*encoder.parameters(), *encoder.buffers()]
    place = tensors[0].device if tensors else torch.device("cpu")
    with torch.inference_mode():
        rows = [_embed(encoder, chunk.to(place), normalise).cpu() for chunk in gps_deg_N2.split(batch_size)]
    return torch.cat(rows).numpy()


def _embed(encoder: nn.Module, gps_deg_N2: Tensor, normalise: bool) -> Tensor:
    embedding_ND = encoder(gps_deg_N2).float()
    return F.normalize(embedding_ND, dim=1) if normalise else embedding_ND


def degrees_of(coordinates: Any) -> NDArray[np.float64]:
    """(N, 2) latitude, longitude in degrees, checked.

    Args:
        coordinates: (N, 2) latitude, longitude as a tensor, an array or a list of pairs; or a data frame with columns
            for them, named as `find_columns` knows. One pair, (2,), is one row.

    Raises:
        DataError: another shape, no such columns, or rows that are no place on Earth: the first is named.
    """
    if isinstance(coordinates, pd.DataFrame):
        frame = coordinates.rename(columns=str)
        columns = find_columns(list(frame.columns), "coordinates")
        given: Any = np.stack(
            [_numbers(frame[columns.lat], LATITUDE_LETTERS), _numbers(frame[columns.lon], LONGITUDE_LETTERS)], axis=1
        )
    elif isinstance(coordinates, Tensor):
        given = coordinates.detach().cpu().double().numpy()
    else:
        given = coordinates
    try:
        gps_deg = np.array(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"coordinates: no pairs of latitude, longitude in degrees ({error})") from None
    if gps_deg.shape == (2,):
        gps_deg = gps_deg[None]
    if gps_deg.ndim != 2 or gps_deg.shape[1] != 2:
        raise DataError(f"coordinates: (N, 2) latitude, longitude in degrees are needed, not the shape {gps_deg.shape}")
    good_N = (np.abs(gps_deg[:, 0]) <= 90) & (np.abs(gps_deg[:, 1]) <= 180)  # False for NaN
    if not good_N.all():
        row = int(np.argmin(good_N))
        lat, lon = gps_deg[row]
        raise DataError(
            f"coordinates, row {row}: latitude {lat}, longitude {lon} is no place on Earth "
            f"({int((~good_N).sum())} such rows); correct or remove them"
        )
    return gps_deg


def _numbers(column: pd.Series[Any], letters: str) -> NDArray[np.float64]:
    """A column of numbers, or of texts as `parse_degrees` reads them."""
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(np.float64, na_value=np.nan)
    degrees = np.empty(len(column))
    for row, value in enumerate(column):
        try:
            degrees[row] = parse_degrees(str(value), letters)
        except ValueError as error:
            raise DataError(f"coordinates, row {row}: {column.name}={value!r}: {error}") from None
    return degrees
