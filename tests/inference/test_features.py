"""Stored features of a frozen encoder: training on them is training on the pictures."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, SiglipVisionConfig, SiglipVisionModel

from geoclip.config import (
    EvaluateConfig,
    FeaturesConfig,
    TrainConfig,
    Tune,
    features_problems,
    key_problems,
    train_problems,
    typed,
)
from geoclip.config.composed import conf_dir
from geoclip.data.features import FeatureDecoder, as_npy, read_record
from geoclip.data.shard_index import open_index
from geoclip.errors import DataError
from geoclip.evaluate import evaluate
from geoclip.factory.model import model_from_checkpoint
from geoclip.features import extract
from geoclip.runs.metrics import read_rows
from geoclip.train import train_run

TOWER: dict[str, Any] = {"num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 16}
SMALL = ("encoder.image_px=32", "encoder.feature_dim=12", "encoder.hidden_dim=12")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random CLIP in a local folder."""
    torch.manual_seed(0)
    config = CLIPVisionConfig(**TOWER, hidden_size=16, intermediate_size=32, projection_dim=12)
    folder = tmp_path_factory.mktemp("clip")
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    return folder


@pytest.fixture
def photographs(tiny_shards: Callable[..., Any], tmp_path: Path) -> list[str]:
    """Overrides for small shards of noise, cropped and flipped in training."""
    shards = tiny_shards([14, 10], size_px=48, noise=True)
    tiny_shards([9], split="val", size_px=48, noise=True)
    locations = "\n".join(f"{lat},{lon}" for lat, lon in shards.gps_deg.values())
    (tmp_path / "gallery.csv").write_text(f"LAT,LON\n{locations}\n")
    return ["data=mp16", f"data.root={shards.root}"]


def features_config(photographs: list[str], clip: Path, root: Path, *more: str) -> FeaturesConfig:
    overrides = [*photographs, "encoder=clip_vit_l14", f"encoder.repo={clip}", *SMALL, f"root={root}", "views=2"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("features", [*overrides, "compute.workers=0", "batch_size=4", *more])
        return typed(cfg, FeaturesConfig, features_problems)


def train_config(photographs: list[str], clip: Path, tmp_path: Path, *more: str) -> TrainConfig:
    overrides = [
        *("+experiment=full_mp16", *photographs, f"encoder.repo={clip}", *SMALL),
        *("location.hidden_dim=16", "location.frequencies=8", "location.embedding_dim=8"),
        *("data.streams=4", "optim.batch_size=8", "optim.epochs=3", "queue.size=8", "compute.workers=0"),
        *("logger=jsonl", "gallery=csv", f"gallery.path={tmp_path / 'gallery.csv'}", "compute.log_every_steps=1"),
        f"runs_dir={tmp_path / 'runs'}",
    ]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train", [*overrides, *more])
        return typed(cfg, TrainConfig, lambda found: train_problems(found, 1))


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in read_rows(run / "metrics.jsonl") if row["kind"] == "train"]


def test_training_on_features_is_training_on_pictures(photographs: list[str], clip: Path, tmp_path: Path) -> None:
    folder = extract(features_config(photographs, clip, tmp_path / "features"))
    on_pictures = train_run(train_config(photographs, clip, tmp_path, "optim.lr=0.001"))
    cached = train_config(photographs, clip, tmp_path, "optim.lr=0.001", "encoder=cached", f"encoder.features={folder}")
    on_features = train_run(cached)
    assert on_pictures != on_features
    expected, found = losses(on_pictures), losses(on_features)
    # Two views, three epochs: the third has the views of the first.
    np.testing.assert_allclose(found[:6], expected[:6], atol=2e-3)
    assert len(found) == 9 and abs(found[8] - found[0]) > 0.01

    # Without the pictures too; the run knows the encoder of pictures.
    shutil.rmtree(Path(cached.data.root) / "train")
    model, config = model_from_checkpoint(on_features / "checkpoints" / "step-00000009.safetensors")
    assert config.encoder.repo == str(clip) and model.image_encoder.backbone is not None
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("evaluate", [f"checkpoint={on_features}", f"image_features={folder / 'val'}"])
        from_features = evaluate(typed(cfg, EvaluateConfig, lambda _: []))
    assert from_features.is_file()


def test_features_of_siglip_are_trained_on_as_siglip(photographs: list[str], clip: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    SiglipVisionModel(SiglipVisionConfig(**TOWER, hidden_size=12, intermediate_size=24)).save_pretrained(
        tmp_path / "siglip"
    )
    siglip = ["encoder=siglip2_b16", f"encoder.repo={tmp_path / 'siglip'}"]
    folder = extract(features_config(photographs, clip, tmp_path / "features", *siglip))
    record = read_record(folder)
    assert record["encoder"]["kind"] == "siglip" and record["transform"]["fit"] == "squash"
    cached = [*siglip, f"encoder.features={folder}", "optim.max_steps=2", "optim.epochs=1"]
    found = losses(train_run(train_config(photographs, clip, tmp_path, *cached)))
    assert len(found) == 2 and np.isfinite(found).all()
    with pytest.raises(DataError, match=r"encoder\.kind .*siglip.*clip"):
        train_run(train_config(photographs, clip, tmp_path, "encoder=cached", f"encoder.features={folder}"))


def test_features_of_other_settings_are_refused_by_key(photographs: list[str], clip: Path, tmp_path: Path) -> None:
    folder = extract(features_config(photographs, clip, tmp_path / "features"))
    config = train_config(photographs, clip, tmp_path, "encoder=cached", f"encoder.features={folder}")
    other = replace(
        config,
        encoder=replace(config.encoder, repo="another/clip", image_px=64),
        data=replace(config.data, name="another", flip=False),
    )
    with pytest.raises(DataError) as refused:
        train_run(other)
    for key in ("encoder.repo", "transform.image_px", "transform.flip", "data.name"):
        assert key in str(refused.value)
    shard = next(Path(config.data.root, "train").glob("*.tar"))
    shutil.copy(shard, shard.with_name("000009.tar"))
    with pytest.raises(DataError, match=r"data\.train"):
        train_run(config)
    (folder / "val" / "index.json").unlink()
    with pytest.raises(DataError, match=r"val.*geoclip\.features"):
        train_run(config)


def test_extraction_resumes_after_a_kill(photographs: list[str], clip: Path, tmp_path: Path) -> None:
    config = features_config(photographs, clip, tmp_path / "features", "splits=[train]")
    folder = extract(config)
    shards = sorted((folder / "train").glob("*.tar"))
    complete = [path.read_bytes() for path in shards]
    (folder / "train" / "index.json").unlink()
    shards[1].unlink()
    kept = shards[0].stat().st_mtime_ns
    assert extract(config) == folder
    assert [path.read_bytes() for path in shards] == complete and shards[0].stat().st_mtime_ns == kept
    assert read_record(folder)["views"] == 2
    assert len(open_index(shards[0])) == 14


def test_dots_in_keys_are_replaced(photographs: list[str], clip: Path, tmp_path: Path) -> None:
    config = features_config(photographs, clip, tmp_path / "features", "splits=[train]")
    for path in Path(config.data.root, "train").glob("*.tar"):
        with tarfile.open(path) as tar:
            members = [(info, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]
        with tarfile.open(path, "w") as tar:
            for info, data in members:
                info.name = info.name.replace("train-0", "train.0")
                tar.addfile(info, io.BytesIO(data))
    keys = [key for path in sorted((extract(config) / "train").glob("*.tar")) for key in open_index(path).keys]
    assert keys and all(key.startswith("train_0") for key in keys)


def test_every_epoch_has_its_view_and_evaluation_the_plain_one() -> None:
    from geoclip.data.batch import Sample

    features = np.arange(12, dtype=np.float16).reshape(3, 4)
    train, plain = (FeatureDecoder(feature_dim=4, views=2, training=True), FeatureDecoder(feature_dim=4, views=2))

    def row(decoder: FeatureDecoder, epoch: int) -> list[float]:
        sample = Sample(shard="a", key="k", data=as_npy(features), gps_deg=(0, 0), epoch=epoch)
        return [float(value) for value in decoder(sample)[0]]

    assert [row(train, epoch)[0] for epoch in range(4)] == [4, 8, 4, 8]
    assert row(plain, 3) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="shape"):
        FeatureDecoder(feature_dim=5, views=2)(Sample(shard="a", key="k", data=as_npy(features), gps_deg=(0, 0)))


def test_wrong_keys_are_named_together(photographs: list[str], clip: Path, tmp_path: Path) -> None:
    config = features_config(photographs, clip, tmp_path)
    wrong = replace(config, views=-1, splits=[], encoder=replace(config.encoder, tune=Tune.full, features="x"))
    text = "\n".join([*key_problems(wrong), *features_problems(wrong)])
    for part in ("views=-1:", "splits=[]:", "encoder=", "encoder.features=x:"):
        assert part in text
