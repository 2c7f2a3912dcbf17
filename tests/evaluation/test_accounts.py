"""Evaluation, prediction and training count what they find, use and skip."""

from __future__ import annotations

import logging
import os
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from geoclip.config import BenchmarkConfig, BenchmarkKind, DataConfig, DataKind, EvaluateConfig, PredictConfig
from geoclip.data.batch import Account
from geoclip.distributed import World
from geoclip.errors import DataError
from geoclip.factory.data import open_splits
from geoclip.factory.loading import embed_benchmark, load_model
from geoclip.predict import predict

CPU = "cpu"


def account(tiny_source: dict[str, Any], **benchmark: Any) -> Account:
    config = EvaluateConfig(**tiny_source, benchmark=BenchmarkConfig(name="here", **benchmark))
    return embed_benchmark(config, load_model(config))[1]


def add(path: Path, name: str, data: bytes) -> None:
    with tarfile.open(path, "a") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, BytesIO(data))


def test_an_evaluation_counts_table_rows_and_shard_samples(
    tiny_source: dict[str, Any], photo_folder: Path, tiny_shards: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    table = next(photo_folder.glob("*.csv"))
    rows = len(table.read_text().splitlines()) - 1
    found = account(tiny_source, kind=BenchmarkKind.photos, root=str(photo_folder))
    assert found.found == rows and 0 < found.used < rows
    shards = tiny_shards([5, 4], split="test", size_px=40)
    add(shards.paths("test")[0], "v.1.nef", b"raw")
    add(shards.paths("test")[0], "v.1.json", b'{"lat": 1, "lon": 2}')
    (shards.root / "test" / "9.tar.gz").write_bytes(b"x")
    found = account(tiny_source, kind=BenchmarkKind.shards, root=str(shards.root), split="test")
    assert (found.found, found.used) == (10, 9)
    assert all(part in caplog.text for part in ("000000.tar:v.1", ".nef", "9.tar.gz"))


def test_features_at_zero_zero_are_skipped_too(tiny_source: dict[str, Any], tiny_run: Any, tmp_path: Path) -> None:
    dim = load_model(EvaluateConfig(**tiny_source)).model.image_encoder.feature_dim
    np.savez(tmp_path / "f.npz", features=np.ones((3, dim)), lat=[0, 0, 1], lon=[0, 5, 1])
    config = EvaluateConfig(**tiny_source, benchmark=BenchmarkConfig(name="x"), image_features=str(tmp_path / "f.npz"))
    queries, found = embed_benchmark(config, load_model(config))
    assert (found.found, found.used, queries.keys) == (3, 2, ["1", "2"])


def test_a_prediction_counts_the_files_of_its_folder(
    tiny_source: dict[str, Any], photo_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    folder = photo_folder / "images"
    pictures = len(list(folder.iterdir()))
    (folder / "raw.dng").write_bytes(b"II*\0")
    os.mkfifo(folder / "pipe.png")
    predict(PredictConfig(**tiny_source, image=str(folder), maps=0, output=str(tmp_path / "out")))
    assert f"image={folder}: {pictures + 2} files found" in caplog.text
    assert "raw.dng" in caplog.text and "pipe.png" in caplog.text


def test_training_refuses_half_a_data_set_and_counts_skipped_shards(tiny_shards: Callable[..., Any]) -> None:
    shards = tiny_shards([6, 6])
    (shards.root / "train" / "deeper").mkdir()
    shards.paths()[1].rename(shards.root / "train" / "deeper" / "1.tar")
    data = DataConfig(name="mine", kind=DataKind.shards, root=str(shards.root))
    world = World(rank=0, size=1, device=torch.device(CPU))
    with pytest.raises(DataError, match=r"1 of 2 shards .*data\.max_bad_fraction=0\.05.*deeper/1\.tar"):
        open_splits(data, ["train"], world)
    data.max_bad_fraction = 0.5
    assert [shard.samples for shard in open_splits(data, ["train"], world)["train"]] == [6]
    data.train, data.max_bad_fraction = "train/**/*.tar", 0.0
    assert [shard.samples for shard in open_splits(data, ["train"], world)["train"]] == [6, 6]
