"""Linear probes of location embeddings: land, continent, country, elevation."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from geoclip.data.blue_marble import cells_of, elevation_m, is_land, uniform_on_land
from geoclip.data.countries import continents_of, countries_of
from geoclip.errors import DataError, GeoclipError
from geoclip.evaluation.significance import Interval, all_or_none, bootstrap, interval_of
from geoclip.geo.encodings import real_spherical_harmonics
from geoclip.geo.geodesy import uniform_on_sphere, unit_vectors
from geoclip.model.embedding import embed_locations
from geoclip.model.location_encoder import LocationEncoder

TEST_SHARE, VALIDATION_SHARE = 0.2, 0.2  # of the cells
INVERSE_PENALTIES = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)  # C of logistic regression, strong to weak
PENALTIES = (1e5, 1e4, 1e3, 1e2, 10.0, 1.0)  # alpha of ridge regression, strong to weak
SHARES = ("accuracy", "macro_f1")  # in [0, 1]
START = 3  # in both, where the search begins
MOST_ITERATIONS, TOLERANCE = 100, 1e-3  # of logistic regression

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


class _Head(Protocol):
    def fit(self, x: Any, y: Any) -> Any: ...
    def predict(self, x: Any) -> NDArray[Any]: ...


@dataclass(kw_only=True, slots=True, frozen=True)
class CellSplit:
    """Row numbers, such that no 5° cell has rows in two parts."""

    train: Rows
    validation: Rows
    test: Rows


@dataclass(kw_only=True, slots=True, frozen=True)
class Probed:
    """How well one kind of features did on one task."""

    dims: int
    penalty: float  # as the library counts: C of logistic regression, alpha of ridge regression
    scores: dict[str, Interval]


def split_cells(gps_deg_N2: Floats, seed: int) -> CellSplit:
    """Whole 5° cells, drawn at random: 20 % of them to test, 20 % to validate, the rest to train.

    Raises:
        DataError: fewer than ten cells.
    """
    cell_N = cells_of(gps_deg_N2)
    cells = np.random.default_rng(seed).permutation(np.unique(cell_N))
    if len(cells) < 10:
        raise DataError(f"the places lie in {len(cells)} cells of 5°; a split of whole cells needs ten or more")
    tests, validations = round(TEST_SHARE * len(cells)), round(VALIDATION_SHARE * len(cells))
    part_of_cell = np.zeros(int(cells.max()) + 1, dtype=np.int64)
    part_of_cell[cells[:tests]] = 2
    part_of_cell[cells[tests : tests + validations]] = 1
    train, validation, test = (np.flatnonzero(part_of_cell[cell_N] == part) for part in range(3))
    return CellSplit(train=train, validation=validation, test=test)


def only_known(label_N: NDArray[Any], split: CellSplit) -> CellSplit:
    """The split without rows whose label is empty or NaN, nor rows to ask about a class that was never trained on.

    No head could name such a class: most are countries that lie within a cell or two.
    """
    if _is_number(label_N):
        known_N = ~np.isnan(label_N)
        return CellSplit(
            train=split.train[known_N[split.train]],
            validation=split.validation[known_N[split.validation]],
            test=split.test[known_N[split.test]],
        )
    train = split.train[label_N[split.train] != ""]
    validation = split.validation[np.isin(label_N[split.validation], label_N[train])]
    return CellSplit(train=train, validation=validation, test=split.test[np.isin(label_N[split.test], label_N[train])])


def probe(
    label_N: NDArray[Any], features_NF: NDArray[np.floating], cell_N: Rows, split: CellSplit, seed: int = 0
) -> Probed:
    """Fit the head whose penalty validates best again, to all but the test cells, and score it on these.

    Args:
        label_N: names of classes, read by logistic regression, or numbers, read by ridge regression, of scikit-learn.
        features_NF: of the same places; standardised here by those that are trained on.
        cell_N: the cell of each place.
        split: as `only_known` gives it.
        seed: of the bootstrap.

    Returns:
        accuracy and macro_f1 in [0, 1], or r2 and rmse in the label's unit, with 95 % intervals over test cells.

    Raises:
        DataError: a part of the split is empty.
        GeoclipError: scikit-learn is not installed.
    """
    if not (len(split.train) and len(split.validation) and len(split.test)):
        raise DataError("too few places with a label: a part of the split is empty; draw more places")
    is_number = _is_number(label_N)
    x_NF = standardised(features_NF, split.train)
    x_train, x_validation = x_NF[split.train], x_NF[split.validation]
    truth = label_N[split.validation]

    def validate(penalty: float) -> float:
        head = _head(penalty, is_number)
        _fit(head, x_train, label_N[split.train])
        guess = head.predict(x_validation)
        return float(-((guess - truth) ** 2).mean() if is_number else (guess == truth).mean())

    best = climb(validate, PENALTIES if is_number else INVERSE_PENALTIES, START)
    both = np.concatenate((split.train, split.validation))
    x_NF = standardised(features_NF, both)
    head = _head(best, is_number)
    _fit(head, x_NF[both], label_N[both])
    guess, truth = head.predict(x_NF[split.test]), label_N[split.test]
    score = score_numbers if is_number else score_classes
    return Probed(dims=features_NF.shape[1], penalty=best, scores=score(truth, guess, cell_N[split.test], seed))


def climb(score: Callable[[float], float], grid: Sequence[float], start: int) -> float:
    """The value of the grid with the best score, as far as one comes from `start` by walking up or down the grid.

    Either walk ends at the first value that is no better than the one before.
    """
    known = {start: score(grid[start])}
    for step in (1, -1):
        at = start
        while 0 <= at + step < len(grid):
            at += step
            known[at] = score(grid[at])
            if known[at] <= known[at - step]:
                break
    return grid[max(known, key=lambda number: known[number])]


def standardised(features_NF: NDArray[np.floating], rows: Rows) -> NDArray[np.float32]:
    """Every column with mean 0 and standard deviation 1 over these rows; what does not vary becomes 0."""
    seen = features_NF[rows]
    mean_F, deviation_F = seen.mean(axis=0, dtype=np.float64), seen.std(axis=0, dtype=np.float64)
    constant_F = deviation_F <= 1e-6 * max(1.0, float(np.abs(mean_F).max(initial=0.0)))
    scale_F = np.where(constant_F, 0.0, 1 / np.where(constant_F, 1.0, deviation_F))
    scaled_NF: NDArray[np.float32] = features_NF.astype(np.float32)
    scaled_NF -= mean_F.astype(np.float32)
    scaled_NF *= scale_F.astype(np.float32)
    return scaled_NF


def score_classes(truth_N: NDArray[Any], guess_N: NDArray[Any], cell_N: Rows, seed: int) -> dict[str, Interval]:
    """Accuracy, and the mean over the classes that occur of F1 = 2 TP / (2 TP + FP + FN).

    The intervals are of whole cells, see `_over_cells`.
    """
    classes, number_2N = np.unique(np.concatenate((truth_N, guess_N)), return_inverse=True)
    truth, guess = number_2N[: len(truth_N)], number_2N[len(truth_N) :]
    _, cell = np.unique(cell_N, return_inverse=True)
    shape = (int(cell.max()) + 1, len(classes))
    true_CK, guessed_CK, hit_CK = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    np.add.at(true_CK, (cell, truth), 1)
    np.add.at(guessed_CK, (cell, guess), 1)
    np.add.at(hit_CK, (cell, truth), truth == guess)

    def measure(weight_RC: Floats) -> dict[str, Floats]:
        true_RK, guessed_RK, hit_RK = (weight_RC @ counts for counts in (true_CK, guessed_CK, hit_CK))
        f1_RK = 2 * hit_RK / (true_RK + guessed_RK)  # every class occurs, or was guessed
        occurs_RK = true_RK > 0
        return {
            "accuracy": hit_RK.sum(axis=1) / true_RK.sum(axis=1),
            "macro_f1": (f1_RK * occurs_RK).sum(axis=1) / occurs_RK.sum(axis=1),
        }

    return _over_cells(measure, shape[0], seed)


def score_numbers(truth_N: Floats, guess_N: Floats, cell_N: Rows, seed: int) -> dict[str, Interval]:
    """The share of variance explained, R², and the root of the mean squared error; intervals as of classes."""
    _, cell = np.unique(cell_N, return_inverse=True)
    centred_N = truth_N - truth_N.mean()  # so that the variance below keeps its digits
    parts = (np.ones_like(centred_N), centred_N, centred_N**2, (truth_N - guess_N) ** 2)
    sums_C4 = np.stack([np.bincount(cell, weights=part) for part in parts], axis=1)

    def measure(weight_RC: Floats) -> dict[str, Floats]:
        count_R, sum_R, square_R, error_R = (weight_RC @ sums_C4).T
        return {"r2": 1 - error_R / (square_R - sum_R**2 / count_R), "rmse": np.sqrt(error_R / count_R)}

    return _over_cells(measure, len(sums_C4), seed)


def _over_cells(measure: Callable[[Floats], dict[str, Floats]], cells: int, seed: int) -> dict[str, Interval]:
    """Each measure on all cells once, and its 2.5th and 97.5th percentile over weightings of the cells.

    Whole cells, because neighbours are no independent witnesses. Exponential weights instead of counts, because a cell
    that is not drawn takes its classes with it: of countries that lie in one cell, a third would be gone, and the mean
    over those that are left is another quantity. Such a country adds little to the interval of macro_f1: it is narrow.

    Source: Field, Welsh, "Bootstrapping clustered data", J. Royal Statistical Society B 69(3), 2007; Rubin, "The
    Bayesian Bootstrap", Annals of Statistics 9(1), 1981.
    """
    whole = measure(np.ones((1, cells)))
    draw_RM = bootstrap(
        lambda weight_RC: np.column_stack(list(measure(weight_RC).values())), cells, seed, exponential=True
    )
    intervals = {}
    for (name, value), resampled_R in zip(whole.items(), draw_RM.T, strict=True):
        intervals[name] = interval_of(float(value[0]), resampled_R)
        if name in SHARES and value[0] in (0, 1):
            wilson = all_or_none(bool(value[0]), cells)
            intervals[name] = Interval(value=float(value[0]), low=wilson.low / 100, high=wilson.high / 100)
    return intervals


def _head(penalty: float, is_number: bool) -> _Head:
    try:
        from sklearn.linear_model import LogisticRegression, Ridge
    except ModuleNotFoundError:
        raise GeoclipError(
            "the probe's linear heads are scikit-learn's, which is not installed: "
            "pip install -c constraints.txt -e '.[probe]'"
        ) from None
    head: _Head = (
        Ridge(alpha=penalty) if is_number else LogisticRegression(C=penalty, max_iter=MOST_ITERATIONS, tol=TOLERANCE)
    )
    return head


def _fit(head: _Head, x: NDArray[np.float32], y: NDArray[Any]) -> None:
    """Without the library's warning that a head would go on improving: validation judges those as they are."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="lbfgs failed to converge")
        head.fit(x, y)


def _is_number(label_N: NDArray[Any]) -> bool:
    return bool(np.issubdtype(label_N.dtype, np.floating))


Features = Callable[[Floats], NDArray[np.floating]]

UNITS = {"elevation": "m"}  # of those tasks whose labels are numbers


@dataclass(kw_only=True, slots=True, frozen=True)
class LabelledPlaces:
    """Places and, by task, what is to be read of each: an empty name or NaN where the maps do not know it."""

    gps_deg_N2: Floats
    labels: dict[str, NDArray[Any]]


def probe_locations(places: int, seed: int) -> list[LabelledPlaces]:
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
    return lambda gps_deg_N2: embed_locations(encoder, gps_deg_N2)


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
