"""The probe finds what is there, nothing where nothing is, and never asks about a cell that it has seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
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
    LabelledPlaces,
    baseline_features,
    climb,
    measure_probe,
    only_known,
    probe,
    score_classes,
    score_numbers,
    split_cells,
    standardised,
)
from geoclip.geo.geodesy import uniform_on_sphere
from geoclip.plotting.probes import draw_probe, probe_table
from geoclip.probe import probe as probe_command

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def places() -> NDArray[np.float64]:
    return uniform_on_sphere(3000, torch.Generator().manual_seed(0)).double().numpy()


def parts(split: CellSplit) -> list[NDArray[np.int64]]:
    return [split.train, split.validation, split.test]


def test_held_out_cells_share_no_cell_with_those_trained_on(places: NDArray[np.float64]) -> None:
    split, cell_N = split_cells(places, 0), cells_of(places)
    cells = [set(cell_N[rows]) for rows in parts(split)]
    assert not cells[0] & cells[1] and not cells[0] & cells[2] and not cells[1] & cells[2]
    assert sorted(np.concatenate(parts(split))) == list(range(3000)), "every place is in one part"
    assert [len(part) / len(set().union(*cells)) for part in cells] == pytest.approx([0.6, 0.2, 0.2], abs=0.01)
    assert all((one == other).all() for one, other in zip(parts(split), parts(split_cells(places, 0)), strict=True))
    assert set(split_cells(places, 1).test) != set(split.test)
    with pytest.raises(DataError, match=r"lie in 1 cells of 5°"):
        split_cells(np.ones((50, 2)), 0)


def test_features_that_hold_the_label_are_perfect_and_noise_is_at_chance(places: NDArray[np.float64]) -> None:
    rng, cell_N = np.random.default_rng(0), cells_of(places)
    number_N = rng.integers(0, 4, len(places))
    label_N, noise_NF = np.array(["a", "b", "c", "d"])[number_N], rng.normal(size=(len(places), 20))
    split = only_known(label_N, split_cells(places, 0))
    told = probe(label_N, np.hstack((noise_NF, np.eye(4)[number_N])), cell_N, split)
    assert told.dims == 24 and told.scores["accuracy"].value == told.scores["macro_f1"].value == 1
    assert 0.9 < told.scores["accuracy"].low < 1, "of so many cells, not of all on Earth"
    chance = probe(label_N, noise_NF, cell_N, split).scores["accuracy"]
    assert chance.low < 0.25 < chance.high and chance.high - chance.low < 0.2


def test_numbers_that_are_linear_in_the_features_are_explained_whole(places: NDArray[np.float64]) -> None:
    rng, cell_N = np.random.default_rng(0), cells_of(places)
    x_NF = rng.normal(size=(len(places), 5))
    metres_N = x_NF @ np.array([300.0, -20, 0, 5, 100]) + 700
    split = split_cells(places, 0)
    told = probe(metres_N, x_NF, cell_N, split).scores
    assert told["r2"].value > 0.9999 and told["rmse"].value < 1
    ignorant = probe(metres_N, np.zeros((len(places), 1)), cell_N, split).scores
    assert ignorant["r2"].value == pytest.approx(0, abs=0.01)
    assert ignorant["rmse"].value == pytest.approx(metres_N.std(), rel=0.1)
    noise = probe(metres_N, rng.normal(size=(len(places), 20)), cell_N, split).scores["r2"]
    assert noise.value < 0.02


def test_what_a_head_knows_of_a_cell_is_not_counted(places: NDArray[np.float64]) -> None:
    """Features that name a cell let a head learn every label by heart, and none that it was not taught."""
    cell_N = cells_of(places)
    _, number_N = np.unique(cell_N, return_inverse=True)
    label_of_cell = np.random.default_rng(0).choice(["a", "b"], number_N.max() + 1)
    by_heart_NF = np.eye(number_N.max() + 1)[number_N]
    found = probe(label_of_cell[number_N], by_heart_NF, cell_N, split_cells(places, 0)).scores["accuracy"]
    assert found.low < 0.5 < found.high + 0.05


def test_no_question_is_asked_about_an_unknown_label_or_a_class_never_taught() -> None:
    split = CellSplit(train=np.arange(4), validation=np.arange(4, 6), test=np.arange(6, 10))
    known = only_known(np.array(["a", "b", "", "a", "b", "c", "c", "a", "", "d"]), split)
    assert [rows.tolist() for rows in parts(known)] == [[0, 1, 3], [4], [7]]
    known = only_known(np.array([1.0, np.nan, 3, 4, np.nan, 6, 7, 8, 9, np.nan]), split)
    assert [rows.tolist() for rows in parts(known)] == [[0, 2, 3], [5], [6, 7, 8]]


def test_scores_are_those_of_the_library() -> None:
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


def test_intervals_are_as_wide_as_cells_are_few() -> None:
    """A hundred places that err together, in one cell, tell no more than one."""
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


def test_only_what_is_trained_on_sets_the_scale() -> None:
    features = np.array([[1.0, 5], [3, 5], [1000, 7]])
    found = standardised(features, np.array([0, 1]))
    np.testing.assert_allclose(found, [[-1, 0], [1, 0], [998, 0]])


@pytest.mark.parametrize("best", range(6))
def test_the_walk_along_the_grid_finds_its_summit(best: int) -> None:
    asked: list[float] = []

    def score(value: float) -> float:
        asked.append(value)
        return -abs(value - best)

    assert climb(score, [0.0, 1, 2, 3, 4, 5], 3) == best
    assert len(asked) == len(set(asked))


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    """What probe.json would hold of an Earth that is land in the north and rises to the north."""
    north = uniform_on_sphere(1500, torch.Generator().manual_seed(1)).double().numpy()
    land_sea = np.where(north[:, 0] > 0, "land", "sea or lake")
    asked = [LabelledPlaces(gps_deg_N2=north, labels={"land_sea": land_sea, "elevation": 10 * north[:, 0]})]
    features: dict[str, Callable[[NDArray[np.float64]], NDArray[np.floating]]] = {
        "nothing": lambda gps_deg_N2: np.zeros((len(gps_deg_N2), 1)),
        "latitude, longitude": lambda gps_deg_N2: gps_deg_N2,
    }
    tasks = measure_probe(asked, features, seed=3)
    return {"model": "test", "seed": 3, "places": 1500, "tasks": tasks}


def test_the_table_says_how_it_was_measured(result: dict[str, Any]) -> None:
    text = probe_table(json.loads(json.dumps(result))).markdown()
    land_sea = result["tasks"]["land_sea"]
    value = land_sea["features"]["latitude, longitude"]["scores"]["accuracy"]["value"]
    assert f"| latitude, longitude | 2 | **{100 * value:.1f}** (" in text and value > 0.9
    assert "**1.00** (1.00–1.00)" in text and "| nothing | 1 |" in text
    fitted, test = land_sea["n"]["train"] + land_sea["n"]["validation"], land_sea["n"]["test"]
    cells = land_sea["cells"]["train"] + land_sea["cells"]["validation"]
    assert "Seed 3; 1,500 locations on the sphere" in text
    assert (
        f"land or sea: {fitted:,} locations of {cells:,} cells to fit, {test:,} of {land_sea['cells']['test']:,}" in text
    )
    assert fitted + test == 1500 and "95 % intervals of 2,000 bootstrap weightings" in text
    with pytest.raises(DataError, match="no task"):
        probe_table({"tasks": {}})


def test_the_figure_is_drawn_whatever_the_scores(result: dict[str, Any], tmp_path: Path) -> None:
    draw_probe(result, tmp_path / "probe.png")
    assert (tmp_path / "probe.png").read_bytes().startswith(b"\x89PNG")


def test_every_feature_set_has_a_row_per_place(places: NDArray[np.float64]) -> None:
    dims = {name: features(places[:4]).shape for name, features in baseline_features(0).items()}
    assert all(rows == 4 for rows, _ in dims.values())
    assert sorted(columns for _, columns in dims.values()) == sorted((1, 2, 3, 100, 1600, 512))


@pytest.mark.slow
def test_the_command_probes_a_run_beside_the_released_encoder(tiny_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the small feature sets alone: heads on 1,600 numbers would be most of the work."""
    pytest.importorskip("h5py")
    pytest.importorskip("pvlib")
    few = dict(list(baseline_features(0).items())[:3])
    monkeypatch.setattr(probing, "baseline_features", lambda seed, device: few)
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        overrides = [f"checkpoint={tiny_run.folder}", "places=500", "device=cpu"]
        config = typed(compose("probe", overrides), ProbeConfig, probe_problems)
    path = probe_command(config)
    assert path == tiny_run.folder / "probe" / "probe.json"
    probed = json.loads(path.read_text())
    assert list(probed["tasks"]) == ["land_sea", "continent", "country", "elevation"]
    for task in probed["tasks"].values():
        assert list(task["features"])[-2:] == ["GeoCLIP, released", "tiny-1"]
        assert task["features"]["tiny-1"]["dims"] == 8
        measure = "r2" if task["unit"] else "accuracy"
        released, nothing = (task["features"][name]["scores"][measure] for name in ("GeoCLIP, released", "nothing"))
        assert released["value"] > nothing["value"]
    assert path.with_suffix(".png").is_file() and "| tiny-1 | 8 |" in path.with_suffix(".md").read_text()


def test_what_cannot_be_probed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "PROBE_PACKAGES", {"no_such_package": "some-package"})
    (problem,) = probe_problems(ProbeConfig())
    assert "some-package" in problem
