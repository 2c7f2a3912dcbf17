"""Corrupt data are skipped, counted and named; everything else is delivered, once."""

from __future__ import annotations

import json
import random
import re
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geoclip.data.batch import Batch, PictureDecoder, SkipReport
from geoclip.data.shard_index import index_shard, open_index
from geoclip.data.shards import all_samples, fingerprint, read_shards, refuse_bad_shards
from geoclip.data.stream import StreamPlan, evaluation_batches
from geoclip.data.transforms import Preprocessing
from geoclip.errors import DataError
from tests.tiny_shards import write_tar

Members = list[tuple[str, bytes]]
Shards = Callable[..., Any]


def members_of(path: Path) -> Members:
    with tarfile.open(path) as tar:
        return [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]


def write(path: Path, members: Members) -> None:
    write_tar(path, *members)


def present(batch: Batch) -> list[bool]:
    assert batch.present_B is not None
    return batch.present_B.tolist()


def location_json(lat: Any, lon: Any) -> bytes:
    return json.dumps({"lat": lat, "lon": lon}).encode()


# By the reason of the fault: what replaces the second sample's picture or json.
IN_THE_INDEX: dict[str, tuple[str, bytes | None]] = {
    "coordinates are (0, 0)": ("json", location_json(0, -0.0)),
    "coordinates are not finite": ("json", location_json(float("nan"), 0)),
    "coordinates out of range": ("json", location_json(12, 400)),
    "longitude of 0 to 360 degrees, not -180 to 180": ("json", location_json(12, 200)),
    "latitude and longitude look swapped": ("json", location_json(120, 45)),
    "json without numbers lat and lon (it has lat)": ("json", b'{"lat": 3}'),
    "no json": ("json", None),
    "no picture": ("png", None),
}
IN_THE_STREAM = {"html": b"<html>404</html>", "zero bytes": b"", "a text": b"GIF of nothing" * 40}


@pytest.mark.parametrize("reason", IN_THE_INDEX)
def test_the_index_reports_a_sample_without_picture_or_coordinates(tiny_shards: Shards, reason: str) -> None:
    shards = tiny_shards([20, 20])
    suffix, instead = IN_THE_INDEX[reason]
    path = shards.paths()[0]
    victim = "train-00-0001"
    members = [(name, instead if name == f"{victim}.{suffix}" else data) for name, data in members_of(path)]
    write(path, [(name, data) for name, data in members if data is not None])
    index = index_shard(path)
    assert [(fault.key, fault.reason) for fault in index.faults] == [(victim, reason)]
    assert len(index) == 19 and victim not in index.keys
    account = refuse_bad_shards(read_shards(str(shards.root), "train"), 0.05, "train")
    assert (account.found, account.used) == (40, 39)
    assert account.skipped.lines() == [f"1 × {reason}: 000000.tar:{victim}"]
    with pytest.raises(DataError, match=rf"1 of 40 .*data\.max_bad_fraction=0\.01.*{re.escape(reason)}"):
        refuse_bad_shards(read_shards(str(shards.root), "train"), 0.01, "train")


@pytest.mark.parametrize("kind", IN_THE_STREAM)
def test_a_corrupt_picture_keeps_its_row_and_is_not_present(
    tiny_shards: Shards, plan_of: Callable[..., StreamPlan], batches_of: Callable[..., list[Batch]], kind: str
) -> None:
    shards = tiny_shards([20, 20])
    path, victim = shards.paths()[0], "train-00-0001"
    write(path, [(n, IN_THE_STREAM[kind] if n == f"{victim}.png" else data) for n, data in members_of(path)])
    for workers in (0, 2):
        batches = batches_of(plan_of(shards.root), workers=workers, last=5)
        rows = [row for batch in batches for row in zip(batch.keys, present(batch), batch.gps_deg_B2, strict=True)]
        assert len(rows) == 40 and {key for key, there, _ in rows if not there} == {victim}
        (gps_deg,) = (location for key, _, location in rows if key == victim)
        assert gps_deg.tolist() == pytest.approx(shards.gps_deg[victim], abs=1e-4)  # remains a negative
        report = SkipReport()
        for batch in batches:
            report.add(batch.skipped)
        assert report.counts.total() == 1 and "000000.tar:train-00-0001" in report.lines()[0]
    shard_list = read_shards(str(shards.root), "train")
    in_order = list(
        evaluation_batches(all_samples(shard_list), PictureDecoder(preprocessing=Preprocessing(image_px=16)), 8)
    )
    keys = [key for batch in in_order for key in batch.keys]
    assert len(keys) == 39 and victim not in keys and keys == sorted(keys)


def corrupt(path: Path, rng: random.Random) -> set[str]:
    """Corrupt a shard at random; the keys of its samples that are still complete."""
    members = members_of(path)
    keys = {name.split(".")[0] for name, _ in members}
    with tarfile.open(path) as tar:
        infos = tar.getmembers()
    victim, data = rng.choice(infos), bytearray(path.read_bytes())
    match rng.choice(["cut", "flip", "reorder", "foreign", "zeros", "text", "header"]):
        case "cut":
            end = rng.randrange(len(data))
            path.write_bytes(data[:end])
            alive = Counter(info.name.split(".")[0] for info in infos if info.offset_data + info.size <= end)
            return {key for key, count in alive.items() if count == 2}
        case "flip":
            data[victim.offset_data : victim.offset_data + victim.size] = rng.randbytes(victim.size)
            path.write_bytes(data)
            return keys - {victim.name.split(".")[0]}
        case "header":
            data[victim.offset_data - 512 + rng.randrange(100, 140)] ^= 0xFF
            path.write_bytes(data)
            return keys - {victim.name.split(".")[0]}
        case "reorder":
            rng.shuffle(members)
            write(path, members)
            return keys
        case "foreign":
            members += [("../outside.png", b"x"), ("/etc/outside.json", b"{}"), ("README.md", b"read me")]
            members += [("._train-00-0000.png", b"x"), ("train-00-0000.txt", b"a caption"), ("nodots", b"")]
            rng.shuffle(members)
            write(path, members)
            return keys
        case "zeros":
            path.write_bytes(bytes(path.stat().st_size))
        case _:
            path.write_text("this is no tar" * rng.randrange(100))
    return set()


@pytest.mark.parametrize("seed", range(12))
def test_every_complete_sample_is_delivered_exactly_once(
    tiny_shards: Shards, plan_of: Callable[..., StreamPlan], batches_of: Callable[..., list[Batch]], seed: int
) -> None:
    rng = random.Random(seed)
    shards = tiny_shards([12, 9, 15, 11], size_px=8)
    if rng.random() < 0.5:
        read_shards(str(shards.root), "train")  # an index was cached before
    good = {key for path in shards.paths()[1:] for key in corrupt(path, rng)} | set(open_index(shards.paths()[0]).keys)
    plan = plan_of(shards.root, streams=1, batch_size=1, seed=seed, image_px=8)
    batches = batches_of(plan, workers=seed % 2, last=plan.samples)
    delivered = Counter(
        key for batch in batches for key, there in zip(batch.keys, present(batch), strict=True) if there
    )
    assert delivered == Counter(dict.fromkeys(good, 1))


def test_an_index_is_cached_and_follows_its_tar(tiny_shards: Shards) -> None:
    shards = tiny_shards([5, 6])
    first, second = shards.paths()
    before = open_index(second)
    assert before.keys == [f"train-01-{sample:04d}" for sample in range(6)]
    assert (second.parent / ".geoclip-index" / "000001.tar.npz").is_file()
    write(second, members_of(second)[:-2])
    after = open_index(second)
    assert after.keys == before.keys[:-1] and open_index(second).keys == after.keys
    assert tuple(open_index(first).gps_deg_N2[0]) == shards.gps_deg["train-00-0000"]


def test_a_read_only_data_set_is_indexed_in_the_cache(
    tiny_shards: Shards, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GEOCLIP_CACHE", str(tmp_path / "cache"))
    path = tiny_shards([5]).paths()[0]
    (path.parent / ".geoclip-index").write_text("prevents a folder, as a read-only disk does")
    keys = open_index(path).keys
    (cached,) = (tmp_path / "cache").rglob("*.npz")
    assert len(keys) == 5 and open_index(path).keys == keys and cached.is_file()


def test_index_and_headers_name_the_same_shards(tiny_shards: Shards) -> None:
    shards = tiny_shards([5, 6])
    found = read_shards(str(shards.root), "train")
    assert [shard.samples for shard in found] == [5, 6]
    assert read_shards(str(shards.root), "train/{000000..000001}.tar") == found
    assert len(fingerprint(found)) == 8 and fingerprint(found) != fingerprint(found[:1])
    rows = [{"name": path.name, "samples": count} for path, count in zip(shards.paths(), [5, 6], strict=True)]
    (shards.root / "train" / "index.json").write_text(json.dumps({"shards": rows}))
    assert read_shards(str(shards.root), "train") == found
    shards.paths()[1].unlink()
    with pytest.raises(DataError, match=r"000001\.tar"):
        read_shards(str(shards.root), "train")
    (shards.root / "train" / "index.json").write_text("{")
    with pytest.raises(DataError, match=r"index\.json"):
        read_shards(str(shards.root), "train")


def test_without_shards_the_error_names_the_keys(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.root .*data\.train"):
        read_shards(str(tmp_path), "train")
