"""Coordinates of any type -> embeddings as an array, by a location encoder."""

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

CHUNK = 2048  # rows whose hidden layers fit a CPU's cache


def embed_locations(
    encoder: nn.Module, coordinates: Any, *, normalise: bool = True, batch_size: int = CHUNK, device: str = "auto"
) -> NDArray[np.float32]:
    """(N, D) float32 embeddings of coordinates of any type that `degrees_of` accepts, by any location encoder.

    `normalise`: to unit vectors, which GeoCLIP compares. The encoder is moved to `device`; `auto`: it is not moved.

    Raises:
        DataError: a row is not a location on Earth; the message has its number.
    """
    gps_deg_N2 = torch.from_numpy(degrees_of(coordinates)).float()
    if device != "auto":
        encoder = encoder.to(device)
    tensors = [*encoder.parameters(), *encoder.buffers()]
    encoder_device = tensors[0].device if tensors else torch.device("cpu")
    with torch.inference_mode():
        rows = [encoder(chunk.to(encoder_device)).float() for chunk in gps_deg_N2.split(batch_size)]
        embedding_ND = torch.cat([F.normalize(row, dim=1).cpu() if normalise else row.cpu() for row in rows])
    return embedding_ND.numpy()


def degrees_of(coordinates: Any) -> NDArray[np.float64]:
    """(N, 2) latitude, longitude in degrees, checked, of a tensor, an array, a list of pairs, one pair or a data frame.

    Raises:
        DataError: another shape, no such columns, or rows that are not locations on Earth; the first is named.
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
            f"coordinates, row {row}: latitude {lat}, longitude {lon} is not a location on Earth "
            f"({int((~good_N).sum())} such rows); correct or remove them"
        )
    return gps_deg


def _numbers(column: pd.Series[Any], letters: str) -> NDArray[np.float64]:
    """A column of numbers, or of texts that `parse_degrees` reads."""
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(np.float64, na_value=np.nan)
    degrees = np.empty(len(column))
    for row, value in enumerate(column):
        try:
            degrees[row] = parse_degrees(str(value), letters)
        except ValueError as error:
            raise DataError(f"coordinates, row {row}: {column.name}={value!r}: {error}") from None
    return degrees
