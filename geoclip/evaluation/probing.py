"""Linear probes of location embeddings: land, continent, country, elevation."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

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
START = 3  # index in both grids at which the search begins
MOST_ITERATIONS, TOLERANCE = 100, 1e-3  # of the solver of logistic regression
SHARES = ("accuracy", "macro_f1")  # in [0, 1]
UNITS = {"elevation": "m"}  # of tasks with numbers as labels

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Features = Callable[[Floats], NDArray[np.floating]]


@dataclass(kw_only=True, slots=True, frozen=True)
class CellSplit:
    """Rows such that no 5° cell has rows in two parts."""

    train: Rows
    validation: Rows
    test: Rows


@dataclass(kw_only=True, slots=True, frozen=True)
class ProbeScores:
    """Scores of one kind of features on one task."""

    dims: int
    penalty: float  # C of logistic regression, alpha of ridge regression
    scores: dict[str, Interval]


@dataclass(kw_only=True, slots=True, frozen=True)
class LabelledLocations:
    """Locations and, by task, their labels: an empty name or NaN if the maps have none."""

    gps_deg_N2: Floats
    labels: dict[str, NDArray[Any]]


def split_cells(gps_deg_N2: Floats, seed: int) -> CellSplit:
    """Random complete 5° cells: 20 % of them to test, 20 % to validate, the rest to train.

    Raises:
        DataError: fewer than ten cells.
    """
    cell_N = cells_of(gps_deg_N2)
    cells = np.random.default_rng(seed).permutation(np.unique(cell_N))
    if len(cells) < 10:
        raise DataError(f"the locations are in {len(cells)} cells of 5°; a split needs ten cells or more")
    tests, validations = round(TEST_SHARE * len(cells)), round(VALIDATION_SHARE * len(cells))
    parts = (cells[tests + validations :], cells[tests : tests + validations], cells[:tests])
    train, validation, test = (np.flatnonzero(np.isin(cell_N, part)) for part in parts)
    return CellSplit(train=train, validation=validation, test=test)


def only_known(label_N: NDArray[Any], split: CellSplit) -> CellSplit:
    """The split without rows that lack a label, and without held-out rows whose class does not occur in training.

    No head could predict such a class: most are countries within one or two cells.
    """
    known_N = ~np.isnan(label_N) if _is_number(label_N) else label_N != ""
    train = split.train[known_N[split.train]]
    if not _is_number(label_N):
        known_N = np.isin(label_N, label_N[train])
    return CellSplit(
        train=train, validation=split.validation[known_N[split.validation]], test=split.test[known_N[split.test]]
    )


def probe(
    label_N: NDArray[Any], features_NF: NDArray[np.floating], cell_N: Rows, split: CellSplit, seed: int = 0
) -> ProbeScores:
    """Choose a linear head's penalty on the validation cells, fit it again with them, and score it on the test cells.

    Args:
        label_N: names of classes for logistic regression, or numbers for ridge regression, by scikit-learn.
        features_NF: of the same locations; standardised by the rows that the head is fitted to.
        cell_N: the cell of each location.
        split: as from `only_known`.
        seed: of the bootstrap.

    Returns:
        accuracy and macro_f1 in [0, 1], or r2 and rmse in the label's unit, with 95 % intervals over test cells.

    Raises:
        DataError: a part of the split is empty.
        GeoclipError: scikit-learn is not installed.
    """
    if not (len(split.train) and len(split.validation) and len(split.test)):
        raise DataError("too few locations with a label: a part of the split is empty; raise places")
    is_number, truth = _is_number(label_N), label_N[split.validation]
    x_NF = standardised(features_NF, split.train)

    def validate(penalty: float) -> float:
        guess = _fit(penalty, x_NF[split.train], label_N[split.train]).predict(x_NF[split.validation])
        return float(-((guess - truth) ** 2).mean() if is_number else (guess == truth).mean())

    best = climb(validate, PENALTIES if is_number else INVERSE_PENALTIES, START)
    both = np.concatenate((split.train, split.validation))
    x_NF = standardised(features_NF, both)
    guess = _fit(best, x_NF[both], label_N[both]).predict(x_NF[split.test])
    score = score_numbers if is_number else score_classes
    scores = score(label_N[split.test], guess, cell_N[split.test], seed)
    return ProbeScores(dims=features_NF.shape[1], penalty=best, scores=scores)


def climb(score: Callable[[float], float], grid: Sequence[float], start: int) -> float:
    """The grid value with the best score, found by hill climbing from the index `start`: first up, then down the grid.

    Each direction ends at the first value that is no better than the one before.
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
    """Every column with mean 0 and standard deviation 1 over these rows; a constant column becomes 0."""
    seen = features_NF[rows]
    mean_F, deviation_F = seen.mean(axis=0, dtype=np.float64), seen.std(axis=0, dtype=np.float64)
    constant_F = deviation_F <= 1e-6 * max(1.0, float(np.abs(mean_F).max(initial=0.0)))
    scale_F = np.where(constant_F, 0.0, 1 / np.where(constant_F, 1.0, deviation_F))
    scaled_NF: NDArray[np.float32] = features_NF.astype(np.float32)
    scaled_NF -= mean_F.astype(np.float32)
    scaled_NF *= scale_F.astype(np.float32)
    return scaled_NF


def score_classes(truth_N: NDArray[Any], guess_N: NDArray[Any], cell_N: Rows, seed: int) -> dict[str, Interval]:
    """Accuracy, and the mean F1 = 2 TP / (2 TP + FP + FN) over the classes that occur, with intervals over cells."""
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
    """R² and the root of the mean squared error, with intervals over cells."""
    _, cell = np.unique(cell_N, return_inverse=True)
    centred_N = truth_N - truth_N.mean()  # for the precision of the variance below
    parts = (np.ones_like(centred_N), centred_N, centred_N**2, (truth_N - guess_N) ** 2)
    sums_C4 = np.stack([np.bincount(cell, weights=part) for part in parts], axis=1)

    def measure(weight_RC: Floats) -> dict[str, Floats]:
        count_R, sum_R, square_R, error_R = (weight_RC @ sums_C4).T
        return {"r2": 1 - error_R / (square_R - sum_R**2 / count_R), "rmse": np.sqrt(error_R / count_R)}

    return _over_cells(measure, len(sums_C4), seed)


def _over_cells(measure: Callable[[Floats], dict[str, Floats]], cells: int, seed: int) -> dict[str, Interval]:
    """Each measure on all cells, and its 2.5th and 97.5th percentile over random weights of the cells.

    Cells are resampled because neighbouring locations are not independent. The weights are exponential: counts would
    leave out the classes of cells that are not drawn, a third of the countries within one cell, and the mean over the
    others is a different quantity. Such a country adds little to the interval of macro_f1, which is narrow.

    Source: Field, Welsh, "Bootstrapping clustered data", J. Royal Statistical Society B 69(3), 2007; Rubin, "The
    Bayesian Bootstrap", Annals of Statistics 9(1), 1981.
    """
    values = measure(np.ones((1, cells)))
    draw_RM = bootstrap(
        lambda weight_RC: np.column_stack(list(measure(weight_RC).values())), cells, seed, exponential=True
    )
    intervals = {}
    for (name, value), resampled_R in zip(values.items(), draw_RM.T, strict=True):
        intervals[name] = interval_of(float(value[0]), resampled_R)
        if name in SHARES and value[0] in (0, 1):
            wilson = all_or_none(bool(value[0]), cells)
            intervals[name] = Interval(value=float(value[0]), low=wilson.low / 100, high=wilson.high / 100)
    return intervals


def _fit(penalty: float, x: NDArray[np.float32], y: NDArray[Any]) -> Any:
    """A head fitted to (N, F) features and labels, without scikit-learn's convergence warning."""
    try:
        from sklearn.linear_model import LogisticRegression, Ridge
    except ModuleNotFoundError:
        raise GeoclipError(
            "the probe needs scikit-learn, which is not installed: pip install -c constraints.txt -e '.[probe]'"
        ) from None
    if _is_number(y):
        return Ridge(alpha=penalty).fit(x, y)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="lbfgs failed to converge")
        return LogisticRegression(C=penalty, max_iter=MOST_ITERATIONS, tol=TOLERANCE).fit(x, y)


def _is_number(label_N: NDArray[Any]) -> bool:
    return bool(np.issubdtype(label_N.dtype, np.floating))


def probe_locations(count: int, seed: int) -> list[LabelledLocations]:
    """Random locations on the sphere with land_sea, and as many on land with continent, country and elevation.

    Raises:
        GeoclipError: a map is neither cached nor reachable, or a package that reads it is not installed.
    """
    generator = torch.Generator().manual_seed(seed)
    anywhere_N2 = uniform_on_sphere(count, generator).double().numpy()
    land_N2 = uniform_on_land(count, seed)
    land_sea_N = np.where(is_land(anywhere_N2), "land", "sea or lake")
    land_labels = {
        "continent": continents_of(land_N2),
        "country": countries_of(land_N2),
        "elevation": elevation_m(land_N2),
    }
    return [
        LabelledLocations(gps_deg_N2=anywhere_N2, labels={"land_sea": land_sea_N}),
        LabelledLocations(gps_deg_N2=land_N2, labels=land_labels),
    ]


def baseline_features(seed: int, device: torch.device | str = "cpu") -> dict[str, Features]:
    """Functions of coordinates without knowledge of the Earth, and GeoCLIP's encoder before any training.

    `nothing` is a constant: its head predicts the most frequent class, or the mean. `seed` is that of the encoder.
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
    """The unit embeddings of an encoder."""
    return lambda gps_deg_N2: embed_locations(encoder, gps_deg_N2)


def _harmonics(gps_deg_N2: Floats, degree: int) -> NDArray[np.float32]:
    chunks = torch.from_numpy(gps_deg_N2).split(4096)
    return torch.cat([real_spherical_harmonics(chunk, degree).float() for chunk in chunks]).numpy()


def measure_probe(
    groups: Sequence[LabelledLocations], features: Mapping[str, Features], seed: int
) -> dict[str, dict[str, Any]]:
    """Score all features on all tasks.

    Returns JSON by task: n and cells of each part, classes, how many test locations are left out, and scores by name of
    the features. `seed` is that of the splits and the bootstrap. Errors are those of `probe`.
    """
    measured: dict[str, dict[str, Any]] = {}
    heads = len(features) * sum(len(group.labels) for group in groups)
    with tqdm(total=heads, desc="probe", unit="head") as bar:
        for group in groups:
            complete, cell_N = split_cells(group.gps_deg_N2, seed), cells_of(group.gps_deg_N2)
            splits = {task: only_known(label_N, complete) for task, label_N in group.labels.items()}
            for task, split in splits.items():
                left_out = len(complete.test) - len(split.test)
                measured[task] = _sizes(task, group.labels[task], cell_N, split) | {
                    "left_out_of_test": left_out, "features": {},
                }  # fmt: skip
            for name, function in features.items():
                features_NF = function(group.gps_deg_N2)
                for task, split in splits.items():
                    bar.set_postfix_str(f"{task}, {name}")
                    found = probe(group.labels[task], features_NF, cell_N, split, seed)
                    measured[task]["features"][name] = asdict(found)
                    bar.update()
    return measured


def _sizes(task: str, label_N: NDArray[Any], cell_N: Rows, split: CellSplit) -> dict[str, Any]:
    parts = asdict(split)
    fitted = np.concatenate((split.train, split.validation))
    return {
        "n": {part: len(rows) for part, rows in parts.items()},
        "cells": {part: len(np.unique(cell_N[rows])) for part, rows in parts.items()},
        "unit": UNITS.get(task),
        "classes": None if task in UNITS else len(np.unique(label_N[fitted])),
    }
