"""Evaluation of 4,536 images' features over a gallery of 100,000: retrieval, distances, all five thresholds."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.harness import Row, compare, products
from bench.released import clip_features, released_gallery, released_geoclip
from geoclip.data.assets import asset_path
from geoclip.evaluation.gallery import encode_gallery
from geoclip.evaluation.metrics import distance_km, within
from geoclip.evaluation.retrieval import nearest_in_gallery
from geoclip.geo.geodesy import uniform_on_sphere

BATCH = 64
THRESHOLDS_KM = (2500, 750, 200, 25, 1)
Floats = NDArray[np.float64]


def released_eval() -> ModuleType:
    """train/eval.py of the authors' package."""
    spec = importlib.util.spec_from_file_location("released_eval", asset_path("released_code") / "train" / "eval.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measure(quick: bool) -> list[Row]:
    """Distances alone; the whole evaluation with the gallery embedded anew, and embedded before."""
    images = 256 if quick else 4536
    gallery = released_gallery(2_048 if quick else 100_000)
    locations_G2 = gallery.gps_deg_G2.numpy()
    targets_N2 = uniform_on_sphere(images, torch.Generator().manual_seed(1)).numpy()
    return [distances(targets_N2, locations_G2, turns=3 if quick else 5), *evaluations(targets_N2, quick=quick)]


def distances(targets_N2: Floats, locations_G2: Floats, turns: int) -> Row:
    """From the rows of the predictions to the shares within five distances, by geodesics on the ellipsoid."""
    evaluation, count = released_eval(), len(targets_N2)
    rows_N = np.random.default_rng(0).integers(len(locations_G2), size=count)
    predicted_N2 = locations_G2[rows_N]

    def ours() -> tuple[list[float], Floats]:
        error_km_N = distance_km(predicted_N2, targets_N2, "released")
        return [float(within(error_km_N, km, "released").mean()) for km in THRESHOLDS_KM], error_km_N

    def released() -> tuple[list[float], Floats]:
        found = [evaluation.distance_accuracy(targets_N2, rows_N, km, locations_G2) for km in THRESHOLDS_KM]
        return [share for share, _ in found], np.array([found[0][1]])  # its mean distance is all that it keeps

    def agree(mine: tuple[list[float], Floats], theirs: tuple[list[float], Floats]) -> str:
        one_by_one = [
            evaluation.geodesic(place, target).km
            for place, target in zip(predicted_N2[:200], targets_N2[:200], strict=True)
        ]
        worst_m = 1000 * float(np.abs(mine[1][:200] - one_by_one).max())
        assert mine[0] == theirs[0] and worst_m < 1, f"shares {mine[0]} and {theirs[0]}, {worst_m} m"
        assert abs(mine[1].mean() - theirs[1][0]) < 1e-3
        return f"the same shares, geodesics to {worst_m:.0e} m"

    return compare(
        f"distances of {count:,} predictions, five thresholds",
        ours=ours,
        released=released,
        agree=agree,
        turns=turns,
        target=500,
    )


def evaluations(targets_N2: Floats, quick: bool) -> list[Row]:
    """The released `eval_images` on one batch of 64, of which the whole is so many, and ours on all."""
    gallery = released_gallery(2_048 if quick else 100_000)
    locations_G2, images = gallery.gps_deg_G2.numpy(), len(targets_N2)
    ours, theirs = released_geoclip()
    evaluation, features_NF = released_eval(), clip_features(images)
    gallery_before = theirs.gps_gallery
    theirs.gps_gallery = gallery.gps_deg_G2.float()
    batch = [(features_NF[:BATCH], torch.from_numpy(targets_N2[:BATCH]))]

    def released() -> Floats:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            shares = evaluation.eval_images(batch, theirs)
        return np.array([shares[f"acc_{km}_km"] for km in THRESHOLDS_KM])

    @torch.inference_mode()
    def shares_of(gallery_GD: torch.Tensor) -> Floats:
        rows_N = nearest_in_gallery(ours.encode_features(features_NF), gallery_GD, 1)[1][:, 0].numpy()
        error_km_N = distance_km(locations_G2[rows_N], targets_N2, "released")
        for km in THRESHOLDS_KM:
            within(error_km_N, km, "released").mean()
        return np.array([within(error_km_N[:BATCH], km, "released").mean() for km in THRESHOLDS_KM])

    def embedded() -> torch.Tensor:
        return encode_gallery(ours.location_encoder, gallery, torch.device("cpu"))

    def agree(mine: Floats, released_shares: Floats) -> str:
        assert np.allclose(mine, released_shares), f"{mine} and {released_shares}"
        return f"the same shares of the first {BATCH}"

    before_GD = embedded()
    weights = sum(one.numel() for name, one in ours.location_encoder.named_parameters() if "weight" in name)
    retrieval = 2 * images * len(locations_G2) * before_GD.shape[1]
    said = f"{images:,} images over {len(locations_G2):,} places"
    shared: dict[str, Any] = {"turns": 3, "released_part": BATCH / images}
    note = f"released: one batch of {BATCH}, times {images / BATCH:.1f}"
    rows = [
        compare(
            f"evaluation of {said}, gallery embedded anew",
            ours=lambda: shares_of(embedded()),
            released=released,
            agree=agree,
            target=50,
            limit=products(2 * weights * len(locations_G2) + retrieval),
            note=note,
            **shared,
        ),
        compare(
            f"evaluation of {said}, gallery embedded before",
            ours=lambda: shares_of(before_GD),
            released=released,
            agree=agree,
            target=150,
            limit=products(retrieval),
            note=note,
            **shared,
        ),
    ]
    theirs.gps_gallery = gallery_before
    return rows
