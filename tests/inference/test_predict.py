"""`python -m geoclip.predict`: a table, a JSON and maps for each picture; pictures are not overwritten."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from geoclip.config import PredictConfig, key_problems, predict_problems
from geoclip.predict import predict

Predict = Callable[..., Path]


@pytest.fixture
def config_of(tiny_source: dict[str, Any]) -> Callable[..., PredictConfig]:
    return lambda **changes: PredictConfig(**(tiny_source | changes))


@pytest.fixture
def run_predict(config_of: Callable[..., PredictConfig]) -> Predict:
    def run(**changes: Any) -> Path:
        config = config_of(**changes)
        assert predict_problems(config) == []
        return predict(config)

    return run


@pytest.fixture
def view(tmp_path: Path) -> Path:
    """A picture beside its json, as in the shards."""
    folder = tmp_path / "views"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    Image.fromarray(noise).save(folder / "test-000000.jpg")
    (folder / "test-000000.json").write_text(json.dumps({"key": "test-000000", "lat": 48.8584, "lon": 2.2945}))
    return folder / "test-000000.jpg"


def test_a_picture_gets_a_table_a_json_and_two_maps(
    run_predict: Predict, tiny_run: Any, view: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_predict(image=str(view), top_k=3)
    assert folder == tiny_run.folder / "predictions"
    assert sorted(path.name for path in folder.iterdir()) == [f"test-000000.{s}" for s in ("html", "json", "png")]
    row = json.loads((folder / "test-000000.json").read_text())
    guesses = row["predictions"]
    assert [guess["rank"] for guess in guesses] == [1, 2, 3]
    assert (row["gallery"], row["gallery_size"]) == ("tiny", 60)
    assert row["truth"] == {"lat": 48.8584, "lon": 2.2945}
    assert all([guess["lat"], guess["lon"]] in tiny_run.gallery_deg_G2.tolist() for guess in guesses)
    assert 1 > guesses[0]["probability"] >= guesses[1]["probability"] >= guesses[2]["probability"] > 0
    assert all(guess["distance_km"] > 0 for guess in guesses)
    printed = capsys.readouterr().out
    for guess in guesses:
        assert guess["map"] == f"https://www.google.com/maps?q={guess['lat']:.6f},{guess['lon']:.6f}"
        assert guess["map"] in printed  # in one line
        assert f"{guess['lat']:.4f}" in printed and f"{100 * guess['probability']:.2f} %" in printed
    with Image.open(folder / "test-000000.png") as image:
        assert image.width > 1000
    assert (folder / "test-000000.html").stat().st_size > 1_000_000  # with plotly.js


def test_a_folder_is_predicted_and_broken_pictures_are_named(
    run_predict: Predict, photo_folder: Path, tmp_path: Path, said: Callable[[], str]
) -> None:
    out = run_predict(image=str(photo_folder), output=str(tmp_path / "out"), maps=2, batch_size=2)
    names = [f"images_{number}" for number in range(5)]
    assert sorted(path.name for path in out.glob("*.json")) == [f"{name}.json" for name in names]
    assert sorted(path.name for path in out.glob("*.png")) == ["images_0.png", "images_1.png"]
    assert [path.name for path in out.glob("*.html")] == ["index.html"]
    assert json.loads((out / "images_0.json").read_text())["truth"] is None
    assert "broken.jpg" in said() and "maps=5" in said()


def test_equal_names_have_their_own_files(run_predict: Predict, tmp_path: Path) -> None:
    folder = tmp_path / "holiday"
    (folder / "a").mkdir(parents=True)
    for name in ("x.jpg", "x.png", "a/x.jpg", "a_x.jpg"):
        Image.new("RGB", (20, 20)).save(folder / name)
    out = run_predict(image=str(folder), maps=0)
    written = {json.loads(path.read_text())["image"]: path.name for path in out.glob("*.json")}
    assert set(written) == {str(folder / name) for name in ("x.jpg", "x.png", "a/x.jpg", "a_x.jpg")}
    assert set(written.values()) == {"x.json", "x-2.json", "a_x.json", "a_x-2.json"}


def test_exif_coordinates_are_shown_and_never_used(
    run_predict: Predict, view: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, exif = [], Image.Exif()
    exif[ExifTags.IFD.GPSInfo] = {1: "N", 2: (10.0, 0.0, 0.0), 3: "W", 4: (20.0, 30.0, 0.0)}
    pixels = Image.open(view)
    for name, data in (("with.png", exif), ("without.png", Image.Exif())):
        pixels.save(tmp_path / name, exif=data)
        out = run_predict(image=str(tmp_path / name), output=str(tmp_path / "out"), maps=0)
        rows.append(json.loads((out / name).with_suffix(".json").read_text()))
    assert rows[0]["exif"] == {"lat": 10.0, "lon": -20.5} and rows[1]["exif"] is None
    assert rows[0]["predictions"] == rows[1]["predictions"]
    assert "10.0000, -20.5000" in capsys.readouterr().out


def test_box_smoothing_and_refinement_change_the_prediction(run_predict: Predict, view: Path) -> None:
    def guesses(**changes: Any) -> list[dict[str, Any]]:
        row = json.loads((run_predict(image=str(view), maps=0, **changes) / "test-000000.json").read_text())
        return list(row["predictions"])

    assert all(guess["lat"] < 0 for guess in guesses(box=[-90, -180, 0, 180]))
    smoothed = guesses(smooth_km=5000.0, top_k=60)
    assert smoothed[0]["probability"] < guesses(top_k=60)[0]["probability"]
    refined = guesses(refine_m=1000.0)
    assert refined[0]["gallery_lat"] != refined[0]["lat"]
    assert max(one["cosine"] for one in guesses()) <= refined[0]["cosine"]


def test_top_k_is_limited_by_the_gallery(run_predict: Predict, view: Path) -> None:
    row = json.loads((run_predict(image=str(view), top_k=1000, maps=0) / "test-000000.json").read_text())
    assert len(row["predictions"]) == 60
    assert sum(guess["probability"] for guess in row["predictions"]) == pytest.approx(1, abs=1e-5)


def test_without_the_picture_of_the_earth_there_are_predictions_without_maps(
    run_predict: Predict, view: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GEOCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    folder = run_predict(image=str(view))
    assert [path.name for path in folder.iterdir()] == ["test-000000.json"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"image": "no/such/folder"}, "image=no/such/folder:"),
        ({"top_k": 0}, "top_k=0:"),
        ({"maps": -1}, "maps=-1:"),
        ({"batch_size": 0}, "batch_size=0:"),
        ({"checkpoint": "runs/gone"}, "checkpoint=runs/gone:"),
        ({"image": ""}, "image"),
        ({"image": "", "text": [" "]}, "text"),
        ({"box": [1.0, 2.0]}, "box=[1.0, 2.0]:"),
        ({"country": "FRANCE"}, "country=FRANCE:"),
        ({"smooth_km": -1.0}, "smooth_km=-1.0:"),
        ({"refine_m": 0.0}, "refine_m=0.0:"),
        ({"abstain_km": -5.0}, "abstain_km=-5.0:"),
    ],
)
def test_a_wrong_key_is_named(
    config_of: Callable[..., PredictConfig], view: Path, changes: dict[str, Any], problem: str
) -> None:
    config = config_of(**({"image": str(view)} | changes))
    problems = [*key_problems(config), *predict_problems(config)]
    assert len(problems) == 1 and problem in problems[0]


def test_the_output_cannot_be_among_the_pictures(config_of: Callable[..., PredictConfig], view: Path) -> None:
    """Predictions would overwrite the json, and a second run would predict the maps."""
    for image, output in ((view, view.parent), (view.parent, view.parent), (view.parent, view.parent / "out")):
        (problem,) = predict_problems(config_of(image=str(image), output=str(output)))
        assert problem.startswith(f"output={output}:")
    assert predict_problems(config_of(image=str(view.parent), output=str(view.parent.with_name("out")))) == []
