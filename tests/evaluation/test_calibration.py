"""A fitted temperature calibrates probabilities and the expected error; predict uses both."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from geoclip.calibrate import calibrate
from geoclip.config import BenchmarkConfig, BenchmarkKind, CalibrateConfig, PredictConfig, calibrate_problems
from geoclip.errors import GeoclipError
from geoclip.evaluation.calibration import (
    Calibration,
    expected_curve,
    expected_distance_km,
    fit_scale,
    raw_expected_km,
    read_calibration,
    summary,
    write_calibration,
)
from geoclip.geo.geodesy import haversine_km, uniform_on_sphere, unit_vectors
from geoclip.predict import predict


def test_the_scale_of_the_sampling_is_found() -> None:
    generator = torch.Generator().manual_seed(0)
    image = F.normalize(torch.randn(4000, 8, generator=generator), dim=1)
    gallery = F.normalize(torch.randn(200, 8, generator=generator), dim=1)
    drawn = torch.multinomial((12.0 * image @ gallery.T).softmax(dim=1), 1, generator=generator)[:, 0]
    assert fit_scale(image, gallery, drawn.numpy()) == pytest.approx(12.0, rel=0.03)


def test_the_true_scale_is_calibrated_and_a_sharper_one_is_not() -> None:
    generator = torch.Generator().manual_seed(1)
    locations = uniform_on_sphere(300, generator).double()
    image = F.normalize(torch.randn(3000, 6, generator=generator), dim=1)
    gallery = F.normalize(torch.randn(300, 6, generator=generator), dim=1)
    truth = torch.multinomial((9.0 * image @ gallery.T).softmax(dim=1), 1, generator=generator)[:, 0].numpy()
    raw_km, best = raw_expected_km(image, gallery, locations.numpy(), 9.0)
    error_km = haversine_km(locations[best], locations[truth]).numpy()
    sharp, right = (summary(image, gallery, locations.numpy(), truth, error_km, scale) for scale in (40.0, 9.0))
    assert right["ece"]["25"] < 0.04 < 0.2 < sharp["ece"]["25"]
    assert right["nll"] < sharp["nll"]
    assert raw_km.mean() == pytest.approx(error_km.mean(), rel=0.03)


def test_the_expected_distance_is_the_mean_over_all_places() -> None:
    locations = uniform_on_sphere(20, torch.Generator().manual_seed(0)).double()
    share = torch.rand(3, 20, generator=torch.Generator().manual_seed(1)).softmax(dim=1)
    best = share.argmax(dim=1)
    found = expected_distance_km(share, best, unit_vectors(locations))
    for row in range(3):
        km = haversine_km(locations, locations[best[row]][None])
        assert found[row].item() == pytest.approx((share[row].double() @ km).item(), rel=1e-6)


def test_the_curve_rises_through_the_errors_and_is_constant_beyond_its_ends() -> None:
    rng = np.random.default_rng(0)
    raw = np.sort(rng.uniform(1, 1000, 5000))
    error = 2 * raw * rng.exponential(1.0, 5000)
    curve = Calibration(
        scale=1.0, facts={}, **dict(zip(("raw_km", "error_km"), expected_curve(raw, error), strict=True))
    )
    raw_km = np.array([100.0, 400.0, 800.0])
    np.testing.assert_allclose(curve.expected_error_km(raw_km), 2 * raw_km, rtol=0.25)
    assert (np.diff(curve.error_km) >= 0).all() and len(curve.raw_km) < 500
    ends = curve.expected_error_km(np.array([0.0, 1e6]))
    assert ends.tolist() == [curve.error_km[0], curve.error_km[-1]]


@pytest.fixture
def calibrated(tiny_run: Any, tiny_source: dict[str, Any], photo_folder: Path) -> CalibrateConfig:
    benchmark = BenchmarkConfig(name="val", kind=BenchmarkKind.photos, root=str(photo_folder))
    config = CalibrateConfig(**tiny_source, benchmark=benchmark)
    assert calibrate_problems(config) == []
    path = calibrate(config)
    assert path == tiny_run.folder / "calibration.json"
    assert (tiny_run.folder / "figures" / "calibration.png").is_file()
    return config


def test_prediction_is_calibrated_and_abstains(
    calibrated: CalibrateConfig, tiny_source: dict[str, Any], photo_folder: Path, tmp_path: Path
) -> None:
    def rows(**changes: Any) -> list[dict[str, Any]]:
        out = str(tmp_path / "out")
        folder = predict(PredictConfig(**tiny_source, image=str(photo_folder), output=out, maps=0, **changes))
        return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]

    plain = rows()
    assert all(row["calibrated"] and row["known"] and row["expected_error_km"] > 0 for row in plain)
    limit = sorted(row["expected_error_km"] for row in plain)[0]
    limited = rows(abstain_km=limit)
    assert [row["known"] for row in limited] == [row["expected_error_km"] <= limit for row in plain]
    assert [row["predictions"] for row in limited] == [row["predictions"] for row in plain]
    nothing = rows(abstain_km=0.001)
    assert not any(row["known"] for row in nothing)
    with pytest.raises(GeoclipError, match=r"abstain_km=5 needs a calibration .*geoclip\.calibrate checkpoint="):
        rows(abstain_km=5.0, box=[-90, -180, 0, 180])  # another gallery
    assert not rows(smooth_km=100.0)[0]["calibrated"]


def test_a_calibration_of_another_gallery_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = Calibration(scale=2.0, raw_km=(1.0, 2.0), error_km=(3.0, 4.0), facts={"gallery_sha256": "a"})
    write_calibration(tmp_path, one)
    assert read_calibration(tmp_path, gallery_sha256="a") == one
    assert read_calibration(tmp_path, gallery_sha256="b") is None
    assert "gallery_sha256" in caplog.text
    (tmp_path / "calibration.json").write_text("{")
    assert read_calibration(tmp_path, gallery_sha256="a") is None


def test_calibration_refuses_test_sets(calibrated: CalibrateConfig, tmp_path: Path) -> None:
    for benchmark in (
        BenchmarkConfig(name="test_unseen_cells", kind=BenchmarkKind.shards, root=str(tmp_path)),
        BenchmarkConfig(name="yfcc4k", kind=BenchmarkKind.photos, root=str(tmp_path), published_n=4536),
    ):
        (problem,) = calibrate_problems(replace(calibrated, benchmark=benchmark))
        assert problem.startswith(f"benchmark={benchmark.name}:")
