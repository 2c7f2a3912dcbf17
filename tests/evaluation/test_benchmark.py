"""A benchmark's result from embeddings: an oracle reaches the ceiling, and the files contain the result."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from geoclip.data.batch import Batch, PictureDecoder, Skip
from geoclip.data.shards import read_shards
from geoclip.data.transforms import Preprocessing
from geoclip.errors import DataError
from geoclip.evaluation.benchmark import evaluate_benchmark, result_row, write_result
from geoclip.evaluation.details import detail
from geoclip.evaluation.gallery import Gallery, encode_gallery
from geoclip.evaluation.metrics import THRESHOLDS_KM, distance_km
from geoclip.evaluation.retrieval import Queries, embed_features, embed_images
from geoclip.geo.geodesy import haversine_km, uniform_on_sphere
from geoclip.model.backbones import ResNetBackbone
from geoclip.model.geoclip import GeoCLIP
from geoclip.model.image_encoder import ImageEncoder
from geoclip.model.location_encoder import LocationEncoder
from geoclip.training.hooks import Validation

CPU = torch.device("cpu")


def locations(count: int, seed: int) -> Tensor:
    return uniform_on_sphere(count, torch.Generator().manual_seed(seed)).double()


@pytest.fixture
def model() -> GeoCLIP:
    torch.manual_seed(0)
    backbone = ResNetBackbone(stem_dim=8, widths=[8, 16], depths=[1, 1])
    image = ImageEncoder(backbone, feature_dim=16, hidden_dim=16, embedding_dim=8, frozen=False)
    return GeoCLIP(image, LocationEncoder([1.0, 16.0], frequencies=32, hidden_dim=32, depth=1, embedding_dim=8))


@pytest.fixture
def gallery() -> Gallery:
    return Gallery(name="sphere", gps_deg_G2=locations(500, 0))


def queries_at(rows: Tensor, truth_deg_N2: Tensor, gallery_GD: Tensor) -> Queries:
    keys = [f"image-{number}" for number in range(len(rows))]
    return Queries(image_ND=gallery_GD[rows], gps_deg_N2=truth_deg_N2, keys=keys)


def nearest_rows(truth_deg_N2: Tensor, gallery: Gallery) -> Tensor:
    distance = [haversine_km(gallery.gps_deg_G2, place[None]) for place in truth_deg_N2]
    return torch.stack(distance).argmin(dim=1)


def test_an_oracle_reaches_the_ceiling_and_no_more(model: GeoCLIP, gallery: Gallery) -> None:
    truth = locations(200, 1)
    gallery_GD = encode_gallery(model.location_encoder, gallery, CPU)
    rows = nearest_rows(truth, gallery)
    result, predictions = evaluate_benchmark("oracle", queries_at(rows, truth, gallery_GD), gallery, gallery_GD)
    assert {km: interval.value for km, interval in result.accuracy.percent.items()} == result.ceiling_percent
    assert 0 < result.ceiling_percent[750] < 100
    torch.testing.assert_close(predictions.guess_deg_N2, gallery.gps_deg_G2[rows])
    torch.testing.assert_close(predictions.score_N, torch.ones(200))


def test_the_files_contain_the_result(model: GeoCLIP, gallery: Gallery, tmp_path: Path) -> None:
    truth = locations(50, 1)
    gallery_GD = encode_gallery(model.location_encoder, gallery, CPU)
    result, predictions = evaluate_benchmark("b", queries_at(torch.arange(50), truth, gallery_GD), gallery, gallery_GD)
    returned = result_row("b", result, checkpoint_sha256="abc", git_revision="def")
    write_result(tmp_path / "eval" / "b", returned, predictions)
    row = json.loads((tmp_path / "eval" / "b.json").read_text())
    assert row == returned
    assert set(row["accuracy_percent"]) == set(row["ceiling_percent"]) == {str(km) for km in THRESHOLDS_KM}
    assert all(set(entry) == {"value", "low", "high"} for entry in row["accuracy_percent"].values())
    assert all(entry["low"] <= entry["value"] <= entry["high"] for entry in row["accuracy_percent"].values())
    assert (row["n"], row["gallery_size"], row["verbatim_in_gallery"]) == (50, 500, 0)
    assert (row["benchmark"], row["gallery"], row["gallery_sha256"]) == ("b", "sphere", gallery.sha256)
    assert (row["checkpoint_sha256"], row["git_revision"]) == ("abc", "def")

    table = pd.read_csv(tmp_path / "eval" / "b.csv")
    columns = ["key", "lat", "lon", "predicted_lat", "predicted_lon", "distance_km", "ceiling_km", "score"]
    assert list(table.columns) == columns and len(table) == 50
    assert table["key"].tolist() == [f"image-{number}" for number in range(50)]
    guess, place = table[["predicted_lat", "predicted_lon"]].to_numpy(), table[["lat", "lon"]].to_numpy()
    again_km = haversine_km(torch.from_numpy(guess.copy()), torch.from_numpy(place.copy())).numpy()
    assert table["distance_km"].to_numpy() == pytest.approx(again_km, abs=1e-3)
    nearest_km = [haversine_km(gallery.gps_deg_G2, spot[None]).min().item() for spot in truth]
    assert table["ceiling_km"].to_numpy() == pytest.approx(np.array(nearest_km), abs=1e-3)
    assert row["median_km"] == pytest.approx(np.median(again_km))
    assert row["mean_km"] == pytest.approx(again_km.mean())
    assert row["geoscore"] == pytest.approx((5000 * np.exp(-again_km / 1492.7)).mean())
    assert sorted(path.name for path in (tmp_path / "eval").iterdir()) == ["b.csv", "b.json"]


def test_a_ranking_changes_no_prediction(model: GeoCLIP, gallery: Gallery) -> None:
    gallery_GD = encode_gallery(model.location_encoder, gallery, CPU)
    images = F.normalize(torch.randn((40, 8), generator=torch.Generator().manual_seed(1)), dim=1)
    queries = Queries(image_ND=images, gps_deg_N2=locations(40, 1), keys=[str(number) for number in range(40)])
    bare, quick = evaluate_benchmark("val", queries, gallery, gallery_GD)
    ranked, whole = evaluate_benchmark("val", queries, gallery, gallery_GD, scale=20.0)
    assert quick.ranking is None and whole.ranking is not None
    assert torch.equal(quick.guess_deg_N2, whole.guess_deg_N2)
    assert bare == ranked
    with pytest.raises(ValueError, match="predictions without a ranking"):
        detail(quick, gallery)


def test_validation_uses_the_given_protocol(model: GeoCLIP, gallery: Gallery, tiny_shards: Callable[..., Any]) -> None:
    shards = read_shards(str(tiny_shards([8], split="val", size_px=32).root), "val")
    decoder = PictureDecoder(preprocessing=Preprocessing(image_px=32))
    results = {}
    for protocol in ("sphere", "released"):
        validation = Validation(shards, gallery, decoder, 8, CPU, protocol)
        result, predictions = validation.run(model)
        truth, guess = predictions.gps_deg_N2.double().numpy(), predictions.guess_deg_N2.numpy()
        assert predictions.distance_km_N.numpy() == pytest.approx(distance_km(guess, truth, protocol))
        assert result.protocol == protocol and predictions.ranking is None
        results[protocol] = result.accuracy.mean_km
    assert 0 < abs(results["sphere"] / results["released"] - 1) < 0.006


def test_a_diverged_model_is_refused(model: GeoCLIP, gallery: Gallery) -> None:
    gallery_GD = encode_gallery(model.location_encoder, gallery, CPU)
    queries = queries_at(torch.arange(3), locations(3, 1), gallery_GD.clone())
    queries.image_ND[1, 2] = float("nan")
    with pytest.raises(DataError, match=r"not finite.*optim\.lr"):
        evaluate_benchmark("nan", queries, gallery, gallery_GD)


def test_images_are_embedded_in_order_and_skipped_ones_are_counted(model: GeoCLIP) -> None:
    pixels = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    gps_deg = locations(5, 0)
    broken = Skip(shard="0.tar", key="x", reason="unreadable picture (OSError)")

    def batches() -> Iterator[Batch]:
        yield Batch(images=pixels[:3], gps_deg_B2=gps_deg[:3], keys=["a", "b", "c"])
        yield Batch(images=pixels[:0], gps_deg_B2=gps_deg[:0], keys=[], skipped=[broken])
        yield Batch(images=pixels[3:], gps_deg_B2=gps_deg[3:], keys=["d", "e"], skipped=[broken])

    queries, skipped = embed_images(model.train(), batches(), CPU)
    assert queries.keys == ["a", "b", "c", "d", "e"] and torch.equal(queries.gps_deg_N2, gps_deg)
    assert not model.training
    with torch.inference_mode():
        torch.testing.assert_close(queries.image_ND, model.encode_image(pixels))
    assert skipped.counts == {"unreadable picture (OSError)": 2}


def test_an_error_names_unreadable_images(model: GeoCLIP) -> None:
    broken = Skip(shard="photos", key="a.jpg", reason="unreadable picture (OSError)")
    nothing = Batch(images=torch.empty((0, 3, 32, 32)), gps_deg_B2=torch.empty((0, 2)), keys=[], skipped=[broken])
    with pytest.raises(DataError, match=r"1 × unreadable picture \(OSError\): photos:a\.jpg"):
        embed_images(model, [nothing], CPU)


def test_features_pass_only_through_the_head(model: GeoCLIP) -> None:
    features, gps_deg = torch.randn(10, 16), locations(10, 0)
    queries = embed_features(model, features, gps_deg, list("abcdefghij"), CPU)
    with torch.inference_mode():
        expected = F.normalize(model.image_encoder.head(features), dim=1)
    torch.testing.assert_close(queries.image_ND, expected)
    assert torch.equal(queries.gps_deg_N2, gps_deg)
