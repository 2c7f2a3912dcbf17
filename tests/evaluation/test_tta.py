"""Several views of a picture, through evaluation and prediction, against crops by Pillow."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from geoclip.config import BenchmarkConfig, BenchmarkKind, EvaluateConfig, PredictConfig, Tta, evaluate_problems
from geoclip.data.transforms import Preprocessing, evaluation_pixels
from geoclip.evaluate import evaluate
from geoclip.factory.loading import load_model
from geoclip.factory.model import model_from_checkpoint
from geoclip.model.geoclip import GeoCLIP
from geoclip.plotting.details import details_table
from geoclip.plotting.tables import accuracy_table
from geoclip.predict import predict
from geoclip.runs.run_dir import to_dict
from geoclip.training.checkpoint import pack, write_checkpoint
from geoclip.training.state import weights_tree

VIEWS = {Tta.single: 1, Tta.five_crop: 5, Tta.ten_crop: 10}


def by_hand(image: Image.Image, tta: Tta, size: int, wider: int) -> NDArray[np.uint8]:
    """(V, 3, size, size): shorter side to `wider`, corners, middle, mirror images."""
    width, height = image.size
    if width < height:
        image = image.resize((wider, height * wider // width), Image.Resampling.BICUBIC)
    else:
        image = image.resize((width * wider // height, wider), Image.Resampling.BICUBIC)
    right, low = image.width - size, image.height - size
    corners = [(0, 0), (right, 0), (0, low), (right, low), (right // 2, low // 2)]
    crops = [image.crop((x, y, x + size, y + size)) for x, y in corners]
    if tta is Tta.ten_crop:
        crops += [ImageOps.mirror(crop) for crop in crops]
    return np.stack([np.asarray(crop).transpose(2, 0, 1) for crop in crops])


@pytest.mark.parametrize("tta", [Tta.five_crop, Tta.ten_crop])
@pytest.mark.parametrize("size", [(500, 333), (301, 777), (256, 256), (64, 48)])
def test_views_are_corners_middle_and_mirror_images(tta: Tta, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    for px, wider in ((224, 256), (336, 384)):
        views = evaluation_pixels(image, Preprocessing(image_px=px, tta=tta.value))
        assert np.array_equal(views, by_hand(image, tta, px, wider))


@pytest.fixture
def model(tiny_run: Any) -> GeoCLIP:
    found, _ = model_from_checkpoint(tiny_run.best)
    return found


def mean_similarity(model: GeoCLIP, path: Path, tta: Tta, locations_deg_G2: Tensor) -> Tensor:
    """(G,) cosines with every place, each view by itself, then their mean."""
    views = torch.from_numpy(by_hand(Image.open(path).convert("RGB"), tta, 16, 18))
    with torch.inference_mode():
        location_GD = model.encode_location(locations_deg_G2)
        cosines = [model.encode_image(view[None])[0] @ location_GD.T for view in views]
    return torch.stack(cosines).mean(dim=0)


@pytest.mark.parametrize("tta", VIEWS)
def test_evaluation_of_a_folder_and_of_shards(
    tta: Tta,
    tiny_source: dict[str, Any],
    photo_folder: Path,
    model: GeoCLIP,
    tiny_run: Any,
    tiny_shards: Callable[..., Any],
) -> None:
    photos = BenchmarkConfig(name="photos", kind=BenchmarkKind.photos, root=str(photo_folder))
    path = evaluate(EvaluateConfig(**tiny_source, benchmark=photos, tta=tta))
    row, table = json.loads(path.read_text()), pd.read_csv(path.with_suffix(".csv"))
    assert row["tta"] == tta.value and row["n"] == 5 and sum(row["skipped"].values()) == 1
    unnamed = row | {"evaluation": "photos"}  # as an evaluation under another file name
    details = details_table(unnamed)
    assert details is not None
    for text in (accuracy_table([unnamed]).markdown(), details.benchmark):
        assert (f"tta={tta.value}" in text) == (tta is not Tta.single)
    if tta is not Tta.single:
        locations = torch.from_numpy(tiny_run.gallery_deg_G2)
        for key, lat, lon, score in table[["key", "predicted_lat", "predicted_lon", "score"]].itertuples(index=False):
            similarity_G = mean_similarity(model, photo_folder / "images" / key, tta, locations)
            assert tiny_run.gallery_deg_G2[similarity_G.argmax()].tolist() == [lat, lon]
            assert score == pytest.approx(similarity_G.max().item(), abs=2e-5)
    shards = tiny_shards([5, 4], split="test", size_px=40, noise=True)
    benchmark = BenchmarkConfig(name="test", kind=BenchmarkKind.shards, root=str(shards.root), split="test")
    path = evaluate(EvaluateConfig(**tiny_source, benchmark=benchmark, tta=tta, batch_size=4))
    assert json.loads(path.read_text())["n"] == 9


def test_prediction_averages_its_views(
    tiny_source: dict[str, Any], photo_folder: Path, model: GeoCLIP, tiny_run: Any, tmp_path: Path
) -> None:
    image = photo_folder / "images" / "3.jpg"
    config = PredictConfig(
        **tiny_source, image=str(image), tta=Tta.ten_crop, top_k=1, maps=1, output=str(tmp_path / "out")
    )
    folder = predict(config)
    row = json.loads((folder / "3.json").read_text())
    assert row["tta"] == "ten_crop" and "tta=ten_crop" in (folder / "3.html").read_text()
    best = row["predictions"][0]
    locations = torch.from_numpy(tiny_run.gallery_deg_G2)
    similarity_G = mean_similarity(model, image, Tta.ten_crop, locations)
    assert [best["lat"], best["lon"]] == tiny_run.gallery_deg_G2[similarity_G.argmax()].tolist()


def test_features_have_a_single_view(tiny_source: dict[str, Any], photo_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "features.npz").touch()
    photos = BenchmarkConfig(name="photos", kind=BenchmarkKind.photos, root=str(photo_folder))
    config = EvaluateConfig(**tiny_source, benchmark=photos, image_features=str(tmp_path / "features.npz"))
    assert evaluate_problems(config) == []
    (problem,) = evaluate_problems(replace(config, tta=Tta.ten_crop))
    assert problem.startswith("tta=ten_crop:")


def test_prediction_can_normalise_as_the_released_code(
    tiny_source: dict[str, Any], tiny_run: Any, photo_folder: Path, tmp_path: Path
) -> None:
    """The released code trains and evaluates with ImageNet's normalisation, and predicts with CLIP's."""
    photos = BenchmarkConfig(name="photos", kind=BenchmarkKind.photos, root=str(photo_folder))
    image = str(photo_folder / "images" / "3.jpg")

    def results(name: str) -> tuple[list[float], float]:
        evaluated = evaluate(EvaluateConfig(**tiny_source, benchmark=photos)).with_suffix(".csv")
        predicted = predict(PredictConfig(**tiny_source, image=image, maps=0, output=str(tmp_path / name)))
        best = json.loads((predicted / "3.json").read_text())["predictions"][0]
        return pd.read_csv(evaluated)["score"].tolist(), best["probability"]

    before = results("before")
    model, config = model_from_checkpoint(tiny_run.best)
    encoder = replace(config.encoder, prediction_mean=[0.9, 0.1, 0.3], prediction_std=[0.1, 0.5, 0.9])
    as_released = to_dict(replace(config, encoder=encoder))
    write_checkpoint(tiny_run.best, pack(weights_tree(model, 1, config=as_released)))
    after = results("after")
    assert after[0] == before[0] and after[1] != pytest.approx(before[1], rel=1e-4)

    found = load_model(PredictConfig(**tiny_source, image=image), predicting=True).model.image_encoder
    assert found.mean_13HW.flatten().tolist() == pytest.approx([0.9, 0.1, 0.3])
    assert found.std_13HW.flatten().tolist() == pytest.approx([0.1, 0.5, 0.9])
