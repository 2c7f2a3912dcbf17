"""What the probe asks for, and the features that a trained embedding is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from geoclip.data.building.places import cells_of
from geoclip.data.galleries.countries import continents_of, countries_of
from geoclip.data.rasters import elevation_m, is_land, uniform_on_land
from geoclip.evaluation.probing import CellSplit, only_known, probe, split_cells
from geoclip.geo.geodesy import uniform_on_sphere, unit_vectors
from geoclip.geo.harmonics import real_spherical_harmonics
from geoclip.model.embedding import embed_places
from geoclip.model.location_encoder import LocationEncoder

Floats = NDArray[np.float64]
Features = Callable[[Floats], NDArray[np.floating]]

UNITS = {"elevation": "m"}  # of those tasks whose labels are numbers


@dataclass(kw_only=True, slots=True, frozen=True)
class LabelledPlaces:
    """Places and, by task, what is to be read of each: an empty name or NaN where the maps do not know it."""

    gps_deg_N2: Floats
    labels: dict[str, NDArray[Any]]


def probe_places(places: int, seed: int) -> list[LabelledPlaces]:
    """land_sea of places uniform on the sphere; of others uniform on land continent, country and elevation.

    Args:
        places: drawn for each of the two.
        seed: of the drawing.

    Raises:
        GeoclipError: a map is neither cached nor reachable, or a package that reads it is not installed.
    """
    generator = torch.Generator().manual_seed(seed)
    anywhere_N2 = uniform_on_sphere(places, generator).double().numpy()
    land_N2 = uniform_on_land(places, seed)
    land_sea_N = np.where(is_land(anywhere_N2), "land", "sea or lake")
    return [
        LabelledPlaces(gps_deg_N2=anywhere_N2, labels={"land_sea": land_sea_N}),
        LabelledPlaces(
            gps_deg_N2=land_N2,
            labels={
                "continent": continents_of(land_N2),
                "country": countries_of(land_N2),
                "elevation": elevation_m(land_N2),
            },
        ),
    ]


def baseline_features(seed: int, device: torch.device | str = "cpu") -> dict[str, Features]:
    """Functions of coordinates that know nothing of the Earth, and GeoCLIP's encoder before any training.

    `nothing` is a constant: its head names the most frequent class, or the mean.

    Args:
        seed: of the untrained encoder's weights and frequencies.
        device: where it is asked.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        untrained = LocationEncoder()
    return {
        "nothing": lambda gps_deg_N2: np.zeros((len(gps_deg_N2), 1)),
        "latitude, longitude": lambda gps_deg_N2: gps_deg_N2,
        "unit sphere": lambda gps_deg_N2: unit_vectors(torch.from_numpy(gps_deg_N2)).numpy(),
        "harmonics, L = 10": lambda gps_deg_N2: _harmonics(gps_deg_N2, 10),
        "harmonics, L = 40": lambda gps_deg_N2: _harmonics(gps_deg_N2, 40),
        "GeoCLIP, untrained": embedding_features(untrained.to(device)),
    }


def embedding_features(encoder: nn.Module) -> Features:
    """An encoder's unit embeddings."""
    return lambda gps_deg_N2: embed_places(encoder, gps_deg_N2)


def measure_probe(
    asked: Sequence[LabelledPlaces], features: Mapping[str, Features], seed: int
) -> dict[str, dict[str, Any]]:
    """Every kind of features on every task, as it goes into JSON.

    Args:
        asked: each is split into whole cells of its own.
        features: functions of coordinates, by name.
        seed: of the splits and the bootstrap.

    Returns:
        By task: n and cells of each part, classes, how many test places were left out, and by features their scores.

    Raises:
        GeoclipError: as `probe`.
    """
    measured: dict[str, dict[str, Any]] = {}
    heads = len(features) * sum(len(places.labels) for places in asked)
    with tqdm(total=heads, desc="probe", unit="head") as bar:
        for places in asked:
            whole, cell_N = split_cells(places.gps_deg_N2, seed), cells_of(places.gps_deg_N2)
            splits = {task: only_known(label_N, whole) for task, label_N in places.labels.items()}
            for task, split in splits.items():
                measured[task] = _sizes(task, places.labels[task], cell_N, whole, split)
            for name, function in features.items():
                features_NF = function(places.gps_deg_N2)
                for task, split in splits.items():
                    bar.set_postfix_str(f"{task}, {name}")
                    probed = probe(places.labels[task], features_NF, cell_N, split, seed)
                    measured[task]["features"][name] = asdict(probed)
                    bar.update()
    return measured


def _sizes(
    task: str, label_N: NDArray[Any], cell_N: NDArray[np.int64], whole: CellSplit, split: CellSplit
) -> dict[str, Any]:
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    trained_on = np.concatenate((split.train, split.validation))
    return {
        "n": {part: len(rows) for part, rows in parts.items()},
        "cells": {part: len(np.unique(cell_N[rows])) for part, rows in parts.items()},
        "left_out_of_test": len(whole.test) - len(split.test),
        "unit": UNITS.get(task),
        "classes": None if task in UNITS else len(np.unique(label_N[trained_on])),
        "features": {},
    }


def _harmonics(gps_deg_N2: Floats, degree: int) -> NDArray[np.float32]:
    chunks = torch.from_numpy(gps_deg_N2).split(4096)
    return torch.cat([real_spherical_harmonics(chunk, degree).float() for chunk in chunks]).numpy()
