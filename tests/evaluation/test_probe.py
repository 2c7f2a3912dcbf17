"""Probes: known relations are found, noise is at chance, and no cell is in two parts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from numpy.typing import NDArray

from geoclip.config import ProbeConfig, commands, probe_problems, typed
from geoclip.config.composed import conf_dir
from geoclip.data.blue_marble import cells_of
from geoclip.errors import DataError
from geoclip.evaluation import probing
from geoclip.evaluation.probing import (
    CellSplit,
    LabelledLocations,
    baseline_features,
    climb,
    measure_probe,
    only_known,
    probe,
    probe_locations,
    score_classes,
    score_numbers,
    split_cells,
    standardised,
)
from geoclip.geo.geodesy import uniform_on_sphere
from geoclip.plotting.probes import probe_table
from geoclip.probe import probe as probe_command

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def locations() -> NDArray[np.float64]:
    return uniform_on_sphere(3000, torch.Generator().manual_seed(0)).double().numpy()


def parts(split: CellSplit) -> list[NDArray[np.int64]]:
    return [split.train, split.validation, split.test]


def test_held_out_cells_share_no_cell_with_those_trained_on(locations: NDArray[np.float64]) -> None:
    split, cell_N = split_cells(locations, 0), cells_of(locations)
    cells = [set(cell_N[rows]) for rows in parts(split)]
    assert not cells[0] & cells[1] and not cells[0] & cells[2] and not cells[1] & cells[2]
    assert sorted(np.concatenate(parts(split))) == list(range(3000))
    assert [len(part) / len(set().union(*cells)) for part in cells] == pytest.approx([0.6, 0.2, 0.2], abs=0.01)
    assert all((one == other).all() for one, other in zip(parts(split), parts(split_cells(locations, 0)), strict=True))
    assert set(split_cells(locations, 1).test) != set(split.test)
    with pytest.raises(DataError, match=r"in 1 cells of 5°"):
        split_cells(np.ones((50, 2)), 0)


def test_features_with_the_label_are_perfect_and_noise_is_at_chance(locations: NDArray[np.float64]) -> None:
    rng, cell_N = np.random.default_rng(0), cells_of(locations)
    number_N = rng.integers(0, 4, len(locations))
    label_N, noise_NF = np.array(["a", "b", "c", "d"])[number_N], rng.normal(size=(len(locations), 20))
    split = only_known(label_N, split_cells(locations, 0))
    informed = probe(label_N, np.hstack((noise_NF, np.eye(4)[number_N])), cell_N, split)
    assert informed.dims == 24 and informed.scores["accuracy"].value == informed.scores["macro_f1"].value == 1
    assert 0.9 < informed.scores["accuracy"].low < 1
    chance = probe(label_N, noise_NF, cell_N, split).scores["accuracy"]
    assert chance.low < 0.25 < chance.high and chance.high - chance.low < 0.2


def test_linear_numbers_are_explained_and_noise_is_not(locations: NDArray[np.float64]) -> None:
    rng, cell_N = np.random.default_rng(0), cells_of(locations)
    x_NF = rng.normal(size=(len(locations), 5))
    metres_N = x_NF @ np.array([300.0, -20, 0, 5, 100]) + 700
    split = split_cells(locations, 0)
    informed = probe(metres_N, x_NF, cell_N, split).scores
    assert informed["r2"].value > 0.9999 and informed["rmse"].value < 1
    ignorant = probe(metres_N, np.zeros((len(locations), 1)), cell_N, split).scores
    assert ignorant["r2"].value == pytest.approx(0, abs=0.01)
    assert ignorant["rmse"].value == pytest.approx(metres_N.std(), rel=0.1)
    noise = probe(metres_N, rng.normal(size=(len(locations), 20)), cell_N, split).scores["r2"]
    assert noise.value < 0.02


def test_features_that_name_the_cell_are_at_chance(locations: NDArray[np.float64]) -> None:
    cell_N = cells_of(locations)
    _, number_N = np.unique(cell_N, return_inverse=True)
    label_of_cell = np.random.default_rng(0).choice(["a", "b"], number_N.max() + 1)
    by_heart_NF = np.eye(number_N.max() + 1)[number_N]
    found = probe(label_of_cell[number_N], by_heart_NF, cell_N, split_cells(locations, 0)).scores["accuracy"]
    assert found.low < 0.5 < found.high + 0.05


def test_unknown_labels_and_untrained_classes_are_left_out() -> None:
    split = CellSplit(train=np.arange(4), validation=np.arange(4, 6), test=np.arange(6, 10))
    known = only_known(np.array(["a", "b", "", "a", "b", "c", "c", "a", "", "d"]), split)
    assert [rows.tolist() for rows in parts(known)] == [[0, 1, 3], [4], [7]]
    known = only_known(np.array([1.0, np.nan, 3, 4, np.nan, 6, 7, 8, 9, np.nan]), split)
    assert [rows.tolist() for rows in parts(known)] == [[0, 2, 3], [5], [6, 7, 8]]


def test_scores_agree_with_scikit_learn() -> None:
    from sklearn.metrics import accuracy_score, f1_score, r2_score

    rng = np.random.default_rng(0)
    truth, guess, cell_N = (rng.choice(list("abc"), 500), rng.choice(list("abcd"), 500), rng.integers(0, 40, 500))
    found = score_classes(truth, guess, cell_N, 0)
    assert found["accuracy"].value == pytest.approx(accuracy_score(truth, guess))
    assert found["macro_f1"].value == pytest.approx(f1_score(truth, guess, average="macro", labels=list("abc")))
    metres, guessed = rng.normal(900, 300, 500), rng.normal(900, 300, 500)
    numbers = score_numbers(metres, guessed, cell_N, 0)
    assert numbers["r2"].value == pytest.approx(r2_score(metres, guessed))
    assert numbers["rmse"].value == pytest.approx(np.sqrt(((metres - guessed) ** 2).mean()))
    for score in (*found.values(), *numbers.values()):
        assert score.low < score.value < score.high


def test_intervals_are_over_cells() -> None:
    """A hundred locations with equal errors, in one cell, have the information of one."""
    rng = np.random.default_rng(0)
    right_of_cell = rng.random(30) < 0.7
    cell_N = np.repeat(np.arange(30), 100)
    truth = np.array(["a"] * 3000)
    guess = np.where(right_of_cell[cell_N], "a", "b")
    together = score_classes(truth, guess, cell_N, 0)["accuracy"]
    alone = score_classes(truth, guess, np.arange(3000), 0)["accuracy"]
    assert together.high - together.low == pytest.approx(4 * np.sqrt(0.7 * 0.3 / 30), rel=0.25)
    assert together.high - together.low > 7 * (alone.high - alone.low)


def test_classes_of_a_single_cell_stay_in_every_resample() -> None:
    truth = np.repeat([f"country {number}" for number in range(20)], 5)
    guess = np.where(np.arange(100) % 5 == 0, "country 0", truth)
    found = score_classes(truth, guess, np.repeat(np.arange(20), 5), 0)["macro_f1"]
    assert found.low <= found.value <= found.high


def test_features_are_standardised_by_the_training_rows() -> None:
    features = np.array([[1.0, 5], [3, 5], [1000, 7]])
    found = standardised(features, np.array([0, 1]))
    np.testing.assert_allclose(found, [[-1, 0], [1, 0], [998, 0]])


@pytest.mark.parametrize("best", range(6))
def test_climbing_finds_the_best_value_of_the_grid(best: int) -> None:
    tried: list[float] = []

    def score(value: float) -> float:
        tried.append(value)
        return -abs(value - best)

    assert climb(score, [0.0, 1, 2, 3, 4, 5], 3) == best
    assert len(tried) == len(set(tried))


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    """As probe.json, of an Earth with land in the north that rises to the north."""
    north = uniform_on_sphere(1500, torch.Generator().manual_seed(1)).double().numpy()
    land_sea = np.where(north[:, 0] > 0, "land", "sea or lake")
    tried = [LabelledLocations(gps_deg_N2=north, labels={"land_sea": land_sea, "elevation": 10 * north[:, 0]})]
    features: dict[str, Callable[[NDArray[np.float64]], NDArray[np.floating]]] = {
        "nothing": lambda gps_deg_N2: np.zeros((len(gps_deg_N2), 1)),
        "latitude, longitude": lambda gps_deg_N2: gps_deg_N2,
    }
    tasks = measure_probe(tried, features, seed=3)
    return {"model": "test", "seed": 3, "places": 1500, "tasks": tasks}


def test_the_table_has_scores_and_sizes(result: dict[str, Any]) -> None:
    text = probe_table(json.loads(json.dumps(result))).markdown()
    land_sea = result["tasks"]["land_sea"]
    value = land_sea["features"]["latitude, longitude"]["scores"]["accuracy"]["value"]
    assert f"| latitude, longitude | 2 | **{100 * value:.1f}** (" in text and value > 0.9
    assert "**1.00** (1.00–1.00)" in text and "| nothing | 1 |" in text
    fitted, test = land_sea["n"]["train"] + land_sea["n"]["validation"], land_sea["n"]["test"]
    assert fitted + test == 1500
    assert all(f"{count:,}" in text for count in (fitted, test, 1500, land_sea["cells"]["test"]))
    with pytest.raises(DataError):
        probe_table({"tasks": {}})


def test_every_feature_set_has_a_row_per_location(locations: NDArray[np.float64]) -> None:
    shapes = sorted(function(locations[:4]).shape for function in baseline_features(0).values())
    assert shapes == [(4, 1), (4, 2), (4, 3), (4, 100), (4, 512), (4, 1600)]


def test_the_command_probes_a_run_beside_the_released_encoder(tiny_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With small features and labels by formula: fits on 512 numbers and the maps would be most of the time."""
    generator = torch.Generator().manual_seed(0)
    gps_deg_N2 = uniform_on_sphere(200, generator).double().numpy()
    labels = {"land_sea": np.where(gps_deg_N2[:, 0] > 0, "land", "sea or lake"), "elevation": gps_deg_N2[:, 0]}
    group = LabelledLocations(gps_deg_N2=gps_deg_N2, labels=labels)
    few = dict(list(baseline_features(0).items())[:3])
    monkeypatch.setattr(probing, "baseline_features", lambda seed, device: few)
    monkeypatch.setattr(probing, "probe_locations", lambda count, seed: [group])
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        overrides = [f"checkpoint={tiny_run.folder}", "places=500", "device=cpu"]
        config = typed(compose("probe", overrides), ProbeConfig, lambda _: [])
    path = probe_command(config)
    assert path == tiny_run.folder / "probe" / "probe.json"
    probed = json.loads(path.read_text())
    assert list(probed["tasks"]) == ["land_sea", "elevation"]
    for task, measure in (("land_sea", "accuracy"), ("elevation", "r2")):
        features = probed["tasks"][task]["features"]
        assert list(features)[-2:] == ["GeoCLIP, released", "tiny-1"] and features["tiny-1"]["dims"] == 8
        released, nothing = (features[name]["scores"][measure]["value"] for name in ("GeoCLIP, released", "nothing"))
        assert released > nothing
    assert path.with_suffix(".png").is_file() and "| tiny-1 | 8 |" in path.with_suffix(".md").read_text()


@pytest.mark.slow
def test_every_location_has_the_labels_of_the_maps() -> None:
    pytest.importorskip("h5py")
    pytest.importorskip("pvlib")
    sphere, land = probe_locations(500, 0)
    assert list(sphere.labels) == ["land_sea"] and list(land.labels) == ["continent", "country", "elevation"]
    assert set(sphere.labels["land_sea"]) == {"land", "sea or lake"}
    assert (land.labels["country"] != "").mean() > 0.9 and np.isfinite(land.labels["elevation"]).mean() > 0.9


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "PROBE_PACKAGES", {"no_such_package": "some-package"})
    (problem,) = probe_problems(ProbeConfig())
    assert "some-package" in problem
