"""An inspection names every fault of shards, and finds none in good ones."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset as wds
from PIL import Image
from rich.console import Console

from geoclip.data.pictures import MAX_PIXELS
from geoclip.data.shard_index import open_index
from geoclip.errors import DataError
from geoclip.prepare.inspection import ShardsSummary, inspect_shards, inspection_table
from geoclip.prepare.shard_writing import record_shard, write_index
from geoclip.shards import inspect

COUNTS = [6, 5, 7]


class Shards:
    """Two splits of tiny shards with index.json."""

    def __init__(self, tiny_shards: Callable[..., Any]) -> None:
        self.train, self.val = tiny_shards(COUNTS), tiny_shards([4], split="val", seed=1)
        self.root: Path = self.train.root
        self.index()

    def index(self) -> None:
        for split, counts in (("train", COUNTS), ("val", [4])):
            paths = sorted((self.root / split).glob("*.tar"))
            records = [record_shard(path, count) for path, count in zip(paths, counts, strict=True)]
            write_index(self.root / split, split, records)

    def tar(self, number: int) -> Path:
        return self.root / "train" / f"{number:06d}.tar"

    def inspect(self, workers: int = 1) -> ShardsSummary:
        return inspect_shards(self.root, workers)


@pytest.fixture
def shards(tiny_shards: Callable[..., Any]) -> Shards:
    return Shards(tiny_shards)


def add_tar(path: Path, *samples: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    with wds.TarWriter(str(path)) as tar:
        for sample in samples:
            tar.write(sample)


def sample(key: str, lat: float = 1.0, lon: float = 2.0, size_px: tuple[int, int] = (30, 20)) -> dict[str, Any]:
    picture = io.BytesIO()
    Image.new("RGB", size_px).save(picture, "JPEG")
    return {"__key__": key, "jpg": picture.getvalue(), "json": json.dumps({"lat": lat, "lon": lon}).encode()}


def test_good_shards_are_summarised_and_drawn(shards: Shards) -> None:
    summary = shards.inspect()
    assert summary.complaint == ""
    train = summary.splits["train"]
    assert list(summary.splits) == ["train", "val"]
    assert (train.shards, train.samples, train.samples_per_shard) == (3, 18, (5, 7))
    assert train.bytes == sum(path.stat().st_size for path in shards.train.paths())
    assert train.longer_side_px == train.shorter_side_px == (16, 16, 16)
    assert train.formats == {"PNG": 18} and 50 < train.mean_picture_bytes < 200
    assert train.index_json == [] and train.places_twice == train.keys_twice == 0
    assert summary.shared == {"train & val": {"keys": 0, "samples": 0, "places": 0}}
    assert {tuple(place) for place in summary.drawn["train"].tolist()} == set(shards.train.gps_deg.values())
    said = json.loads((shards.root / "inspection.json").read_text())
    assert said["sound"] is True and said["splits"]["train"]["samples"] == 18


def test_processes_find_the_same(shards: Shards) -> None:
    assert shards.inspect(workers=2).as_json() == shards.inspect().as_json()


def flip_a_picture(shards: Shards) -> None:
    data = bytearray(shards.tar(1).read_bytes())
    place = data.index(b"IDAT", data.index(b"IDAT") + 1)  # of the second picture
    data[place + 4 : place + 24] = b"\xff" * 20
    shards.tar(1).write_bytes(data)


def cut(shards: Shards) -> None:
    data = shards.tar(1).read_bytes()
    shards.tar(1).write_bytes(data[: len(data) // 2 - 600])  # inside of a member


def make_empty(shards: Shards) -> None:
    shards.tar(1).write_bytes(b"")


def remove(shards: Shards) -> None:
    shards.tar(1).unlink()


def add_one(shards: Shards) -> None:
    add_tar(shards.tar(9), sample("a"))


def add_halves(shards: Shards) -> None:
    complete, other = sample("complete"), sample("no place")
    half = {"__key__": "no picture", "json": complete["json"]}
    web_page = {**sample("page"), "jpg": b"<html>404</html>"}
    del other["json"]
    add_tar(shards.tar(2), complete, other, half, web_page, {**sample("empty"), "jpg": b""})


def repeat_keys(shards: Shards) -> None:
    place = shards.train.gps_deg["train-00-0002"]
    add_tar(shards.tar(3), sample("train-00-0002", *place), sample("train-00-0003", 3, 4), sample("new", 5, 6))


def corrupt_the_index(shards: Shards) -> None:
    (shards.root / "train" / "index.json").write_text("{")


FAULTS: dict[Callable[[Shards], None], list[str]] = {
    flip_a_picture: ["000001.tar:train-01-0001: unreadable picture", "000001.tar: sha256 "],
    cut: ["shard ends early", "000001.tar: samples ", "000001.tar: bytes "],
    make_empty: ["000001.tar: no tar", "000001.tar: samples 0"],
    remove: ["000001.tar is missing"],
    add_one: ["000009.tar is not in index.json"],
    add_halves: [
        "000002.tar:no place: no json", "000002.tar:no picture: no picture", "000002.tar:page: unreadable picture",
        "000002.tar:empty: empty picture", "000002.tar: samples 3",
    ],
    repeat_keys: ["000003.tar:train-00-0002: key and coordinates of an earlier sample",
        "000003.tar is not in index.json"],
    corrupt_the_index: ["index.json is corrupt"],
}  # fmt: skip


@pytest.mark.parametrize("corrupt", FAULTS, ids=lambda corrupt: corrupt.__name__)
def test_faults_are_named(shards: Shards, corrupt: Callable[[Shards], None]) -> None:
    corrupt(shards)
    summary = shards.inspect()
    train = summary.splits["train"]
    found = "\n".join([*train.examples, *(train.index_json or [])])
    assert all(sentence in found for sentence in FAULTS[corrupt]), found
    assert f"{shards.root} has faults: {train.wrong} faults in train; " in summary.complaint
    assert str(shards.root / "inspection.json") in summary.complaint and "\n" not in summary.complaint
    assert summary.splits["val"].wrong == 0
    assert json.loads((shards.root / "inspection.json").read_text())["complaint"] == summary.complaint


def test_a_stored_index_is_not_used(shards: Shards) -> None:
    tar = shards.tar(0)
    open_index(tar)
    before = tar.stat()
    data = tar.read_bytes()
    tar.write_bytes(data.replace(b'"lat"', b'"lut"', 1))
    os.utime(tar, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert open_index(tar).faults == []
    assert shards.inspect().splits["train"].faults == {"json without numbers lat and lon (it has key, lon, lut)": 1}


def test_a_sample_in_two_splits_is_a_fault_and_shared_coordinates_are_not(shards: Shards) -> None:
    lat, lon = shards.train.gps_deg["train-00-0000"]
    add_tar(shards.root / "val" / "000000.tar", sample("train-00-0000", lat, lon), sample("b", lat, lon))
    shards.index()
    summary = shards.inspect()
    assert summary.shared == {"train & val": {"keys": 1, "samples": 1, "places": 1}}
    assert "1 samples both in train & val" in summary.complaint
    assert summary.splits["val"].places_twice == 1 and summary.splits["val"].wrong == 1  # 2 samples of 4


def test_a_folder_without_splits_or_index_is_inspected_too(tmp_path: Path) -> None:
    add_tar(tmp_path / "photos" / "0.tar", *(sample(str(number), size_px=(30 + number, 20)) for number in range(3)))
    inspect(tmp_path / "photos", workers=1, max_pixels=MAX_PIXELS)
    assert (tmp_path / "photos" / "inspection.png").read_bytes().startswith(b"\x89PNG")
    summary = inspect_shards(tmp_path / "photos", workers=1)
    split = summary.splits["photos"]
    assert summary.complaint == "" and split.index_json is None
    assert (split.samples, split.places_twice) == (3, 2)
    assert (split.longer_side_px, split.shorter_side_px) == ((30, 31, 32), (20, 20, 20))


def test_shards_of_features_are_inspected_too(tmp_path: Path) -> None:
    def features(key: str, value: float, end: int | None = None) -> dict[str, Any]:
        file = io.BytesIO()
        np.save(file, np.full((2, 8), value, dtype=np.float16))
        return {"__key__": key, "npy": file.getvalue()[:end], "json": b'{"lat": 1, "lon": 2}'}

    add_tar(tmp_path / "0.tar", features("good", 1), features("infinite", np.inf), features("cut", 1, -9))
    split = inspect_shards(tmp_path, workers=1).splits[tmp_path.name]
    assert split.formats == {"features": 1} and split.longer_side_px == (0, 0, 0)
    assert [line.split(": ")[0] for line in split.examples] == ["0.tar:infinite", "0.tar:cut"]


def test_in_a_read_only_folder_the_result_goes_to_the_current_one(
    shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shards.root / "inspection.json").mkdir()  # root may write everywhere, but not over a folder
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert shards.inspect().written == str(tmp_path / "here" / "inspection.json")
    assert json.loads((tmp_path / "here" / "inspection.json").read_text())["sound"] is True


def test_a_folder_without_shards_is_named(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match=str(tmp_path)):
        inspect_shards(tmp_path)


def test_the_table_fits_a_console_and_names_faults(shards: Shards) -> None:
    flip_a_picture(shards)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(inspection_table(shards.inspect()))
    said = " ".join(console.export_text().split())
    for part in ("train", "val", "18", "5–7", "17 used + 1 skipped", "1 × unreadable", "000001.tar:train-01-0001"):
        assert part in said, said
