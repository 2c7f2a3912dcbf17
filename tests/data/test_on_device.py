"""Features in the device's memory give exactly the stream's batches."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from geoclip.data.batch import Batch
from geoclip.data.features import FeatureDecoder, as_npy
from geoclip.data.on_device import load_features, resident_batches
from geoclip.data.shards import read_shards, take_fraction
from geoclip.data.stream import StreamPlan, on_device, train_batches
from geoclip.prepare.shard_writing import write_tar

DIM, VIEWS, CPU = 5, 3, torch.device("cpu")


@pytest.fixture
def plan(tmp_path: Path) -> StreamPlan:
    """Three shards of 40, of which 70 % are trained on; the features of one sample are cut short."""
    rng = np.random.default_rng(0)
    (tmp_path / "train").mkdir()
    for number in range(3):
        samples = []
        for row in range(40):
            key, (lat, lon) = f"{number}-{row}", rng.uniform(-80, 80, 2).tolist()
            npy = as_npy(rng.normal(size=(1 + VIEWS, DIM)).astype(np.float16))
            location = json.dumps({"lat": lat, "lon": lon}).encode()
            samples.append({"__key__": key, "npy": npy[:-3] if key == "1-7" else npy, "json": location})
        write_tar(tmp_path / "train" / f"{number:06d}.tar", samples)
    return StreamPlan(
        subset=take_fraction(read_shards(str(tmp_path), "train"), 0.7, seed=1),
        streams=4,
        batch_size=16,
        shuffle_buffer=11,
        seed=3,
        decoder=FeatureDecoder(feature_dim=DIM, views=VIEWS, training=True),
    )


def assert_same(found: Batch, expected: Batch) -> None:
    assert list(found.keys) == expected.keys
    assert torch.equal(found.images, expected.images)
    assert torch.equal(found.gps_deg_B2, expected.gps_deg_B2)
    assert found.present_B is not None and expected.present_B is not None
    assert torch.equal(found.present_B, expected.present_B)
    assert found.skipped == expected.skipped


@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (1, 2)])
@pytest.mark.parametrize(("first_step", "last_step"), [(0, 40), (13, 20)])
def test_batches_equal_those_of_the_stream_from_any_step_on(
    plan: StreamPlan, at_once: int, rank: int, world_size: int, first_step: int, last_step: int
) -> None:
    assert isinstance(plan.decoder, FeatureDecoder)
    decoder = replace(plan.decoder, at_once=at_once)
    plan = replace(plan, decoder=decoder)
    features = load_features(plan.subset, decoder, CPU)
    how = {"rank": rank, "world_size": world_size, "first_step": first_step, "last_step": last_step}
    found = list(resident_batches(plan, features, workers=0, **how))
    expected = list(train_batches(plan, workers=0, **how))
    assert len(found) == len(expected) == last_step - first_step
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)
    if (first_step, world_size) == (0, 1):
        assert sum(len(batch.skipped) for batch in found) >= 5, "the short sample comes once an epoch"


def test_workers_change_nothing(plan: StreamPlan) -> None:
    assert isinstance(plan.decoder, FeatureDecoder)
    features = load_features(plan.subset, plan.decoder, CPU)
    how = {"rank": 0, "world_size": 1, "first_step": 2, "last_step": 40}
    alone, two = (list(resident_batches(plan, features, workers=workers, **how)) for workers in (0, 2))
    for one, other in zip(two, alone, strict=True):
        assert list(one.keys) == list(other.keys) and torch.equal(one.images, other.images)


def test_without_augmented_views_the_evaluation_view_is_trained_on(plan: StreamPlan, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    rng = np.random.default_rng(1)
    location = json.dumps({"lat": 1.0, "lon": 2.0}).encode()
    samples = [
        {"__key__": f"{row}", "npy": as_npy(rng.normal(size=(1, DIM)).astype(np.float16)), "json": location}
        for row in range(32)
    ]
    write_tar(tmp_path / "plain" / "000000.tar", samples)
    decoder = FeatureDecoder(feature_dim=DIM, views=0, training=True)
    plain = replace(plan, subset=take_fraction(read_shards(str(tmp_path), "plain"), 1.0, 0), decoder=decoder)
    how = {"rank": 0, "world_size": 1, "workers": 0, "first_step": 0, "last_step": 5}
    found = list(resident_batches(plain, load_features(plain.subset, decoder, CPU), **how))
    for one, other in zip(found, train_batches(plain, **how), strict=True):
        assert_same(one, other)


def test_all_batches_are_moved_in_order() -> None:
    batches = [
        Batch(images=torch.full((2, 3), number), gps_deg_B2=torch.zeros(2, 2), keys=[str(number)] * 2)
        for number in range(5)
    ]
    assert [batch.keys[0] for batch in on_device(batches, CPU)] == ["0", "1", "2", "3", "4"]
