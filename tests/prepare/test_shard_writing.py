"""Shards have equal counts, an index, and the same bytes when written again."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from geoclip.data.shards import read_shards
from geoclip.prepare.shard_writing import shard_sizes, write_shards


def samples(count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        key = f"train-{number:06d}"
        place = {"key": key, "lat": number / 10, "lon": 1 - number / 10}
        yield {"__key__": key, "jpg": bytes([number]) * 100, "json": json.dumps(place).encode()}


@pytest.mark.parametrize("count, most", [(1, 10), (10, 10), (11, 10), (95, 10), (64_123, 1000)])
def test_shards_are_equal_to_within_one_sample(count: int, most: int) -> None:
    sizes = shard_sizes(count, most)
    assert sum(sizes) == count
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= most
    assert len(sizes) == -(-count // most)


def test_the_index_describes_the_files(tmp_path: Path) -> None:
    write_shards(tmp_path / "train", "train", samples(25), shard_sizes(25, 10))
    index = json.loads((tmp_path / "train" / "index.json").read_text())
    assert (index["format"], index["split"], index["samples"]) == (1, "train", 25)
    assert [row["samples"] for row in index["shards"]] == [9, 8, 8]
    for row in index["shards"]:
        data = (tmp_path / "train" / row["name"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (row["bytes"], row["sha256"])
    assert [shard.samples for shard in read_shards(str(tmp_path), "train")] == [9, 8, 8]


def test_a_sample_is_a_picture_and_its_json(tmp_path: Path) -> None:
    write_shards(tmp_path, "train", samples(3), [2, 1])
    with tarfile.open(tmp_path / "000001.tar") as tar:
        assert tar.getnames() == ["train-000002.jpg", "train-000002.json"]
        member = tar.extractfile("train-000002.json")
        assert member is not None
        assert json.loads(member.read()) == {"key": "train-000002", "lat": 0.2, "lon": 0.8}


def test_written_again_the_bytes_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shards(tmp_path / "one", "train", samples(5), [5])
    monkeypatch.setattr("time.time", lambda: 4e9)  # another day
    write_shards(tmp_path / "two", "train", samples(5), [5])
    assert (tmp_path / "one" / "000000.tar").read_bytes() == (tmp_path / "two" / "000000.tar").read_bytes()
