"""Every input is used, or counted with a reason: found = used + skipped. No input blocks a reader."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from geoclip.config.data import MAX_PIXELS as CONFIGURED_MAX_PIXELS
from geoclip.data.batch import Skip, SkipReport, account_of
from geoclip.data.benchmarks import list_photos, photo_batches, read_photos
from geoclip.data.coordinates import exif_coordinates
from geoclip.data.picture_sources import MISSING, open_pictures
from geoclip.data.pictures import JPEG_EXCESS, MAX_PIXELS, decode, full_size, open_picture
from geoclip.data.shard_index import EMPTY_SHARD, index_shard, open_index
from geoclip.data.shards import find_shards, read_shards, refuse_bad_shards, refuse_skipped_shards
from geoclip.data.tables import Columns
from geoclip.data.transforms import Preprocessing, evaluation_pixels_of
from geoclip.errors import DataError
from geoclip.prepare.galleries import shard_locations
from geoclip.prepare.inspection import inspect_shards
from geoclip.prepare.shard_building import BuildSettings, build_shards
from geoclip.prepare.shard_writing import distinct_key, record_shard, write_index
from geoclip.prepare.shard_writing import write_tar as write_shard
from geoclip.prepare.sources import TableSource, TarSource
from geoclip.system.files import open_regular
from tests.tiny_shards import write_tar

Members = list[tuple[str, bytes]]


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """A reader that blocks or loops forever fails its test."""

    def give_up(*_: object) -> None:
        raise TimeoutError("still reading after two minutes")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, 120, 5)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def picture(kind: str = "JPEG", size: tuple[int, int] = (24, 16), color: str = "", **options: Any) -> bytes:
    """Of noise, or of one colour."""
    file = io.BytesIO()
    image = Image.new("RGB", size, color) if color else Image.effect_noise(size, 60).convert("RGB")
    image.save(file, kind, **options)
    return file.getvalue()


def location_json(lat: float, lon: float) -> bytes:
    return json.dumps({"lat": lat, "lon": lon}).encode()


def sample(key: str, lat: float = 3, lon: float = 4, data: bytes | None = None, suffix: str = "jpg") -> Members:
    return [(f"{key}.{suffix}", picture() if data is None else data), (f"{key}.json", location_json(lat, lon))]


def reasons(skipped: list[Skip]) -> dict[str, str]:
    return {skip.key or skip.shard: skip.reason for skip in skipped}


@pytest.mark.parametrize("key", ["22.05", "a.b.c", "v1.0/7.5", "2019.07.01 12.30", ".5x/1.2"])
def test_a_key_with_dots_is_read_completely(tmp_path: Path, key: str) -> None:
    index = index_shard(write_tar(tmp_path / "0.tar", *sample(key), *sample("plain")))
    assert sorted(index.keys) == sorted([key, "plain"]) and index.faults == []


def test_further_members_of_a_sample_are_not_samples(tmp_path: Path) -> None:
    further = [("7.5.mask.png", b"x"), ("7.5.meta.json", b"{}"), ("7.5.txt", b"words"), ("7.5.seg.xyz", b"x")]
    index = index_shard(write_tar(tmp_path / "0.tar", *sample("7.5"), *further))
    assert index.keys == ["7.5"] and index.faults == []


def test_halves_of_samples_with_dots_are_counted(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "0.tar", ("1.5.jpg", b"x"), ("2.5.json", location_json(1, 2)), *sample("3.5"))
    assert reasons(index_shard(tar).faults) == {"1.5": "no json", "2.5": "no picture"}


def test_no_key_with_dots_is_written(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "in" / "0.tar", *sample("22.05", 1, 2), *sample("22.06", 2, 3))
    build_shards(tmp_path / "out", TarSource(paths=[str(tar)]), BuildSettings())
    assert sorted(open_index(tmp_path / "out" / "train" / "000000.tar").keys) == ["22_05", "22_06"]
    written: set[str] = set()
    assert [distinct_key("a_b", written) for _ in range(3)] == ["a_b", "a_b_2", "a_b_3"]


def test_the_same_keys_in_several_tars_are_all_kept_and_copies_are_not(tmp_path: Path) -> None:
    """Two outputs of img2dataset: each counts from 0. A tar that was copied has the same samples."""
    one, two = (
        write_tar(tmp_path / name / "00000.tar", *(m for n in range(4) for m in sample(f"{n}", lat + n)))
        for name, lat in (("a", 10), ("b", 20))
    )
    copy = tmp_path / "a" / "copy.tar"
    copy.write_bytes(one.read_bytes())
    source = TarSource(paths=[str(one), str(copy), str(two)])
    build_shards(tmp_path / "out", source, BuildSettings(), max_rejected_fraction=0.5)
    index = open_index(tmp_path / "out" / "train" / "000000.tar")
    assert sorted(index.keys) == [f"{folder}_00000_{number}" for folder in "ab" for number in range(4)]
    assert sorted(index.gps_deg_N2[:, 0].tolist()) == [10, 11, 12, 13, 20, 21, 22, 23]
    assert json.loads((tmp_path / "out" / "metadata.json").read_text())["reasons"] == {"duplicate key": 4}


def test_files_similar_to_shards_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    tar = write_tar(folder / "0.tar", *sample("a"))
    write_tar(folder / "1.TAR", *sample("b"))
    write_tar(folder / "deep" / "er" / "2.tar", *sample("c"))
    (folder / "3.tar.gz").write_bytes(gzip.compress(tar.read_bytes()))
    (folder / "4.tgz").write_bytes(b"x")
    (folder / "5.tar.part").write_bytes(b"x")
    (folder / "6.tar").mkdir()
    (folder / "7.tar").symlink_to(tmp_path / "nowhere")
    os.mkfifo(folder / "8.tar")
    for name in (".9.tar", "0.tar.sha256", "stats.json", "words.txt"):
        (folder / name).write_bytes(b"")
    files = find_shards(str(tmp_path), "train")
    assert [Path(path).name for path in files.paths] == ["0.tar", "1.TAR"]
    assert sorted(reasons(files.skipped)) == [
        *("3.tar.gz", "4.tgz", "5.tar.part", "6.tar", "7.tar", "8.tar"), "deep/er/2.tar",
    ]  # fmt: skip
    assert (files.account.found, files.account.used) == (9, 2)
    assert len(files.account.lines()) == 1 + len(set(reasons(files.skipped).values()))
    with pytest.raises(DataError, match=r"7 .*9 .*data\.limit=0\.5.*3\.tar\.gz.*train/\*\.tar") as refused:
        refuse_skipped_shards(files, 0.5, "data.limit")
    assert "train/**/*.tar" in str(refused.value)
    refuse_skipped_shards(files, 0.8, "data.limit")
    assert len(find_shards(str(tmp_path), "train/**/[0-9].tar").paths) == 2, "0.tar and deep/er/2.tar"


def test_every_shard_that_braces_name_must_be_there(tmp_path: Path) -> None:
    for number in (0, 2):
        write_tar(tmp_path / f"0000{number}.tar", *sample("a"))
    assert len(read_shards(str(tmp_path), "{00000,00002}.tar")) == 2
    with pytest.raises(DataError, match=r"2 .*4 .*00001\.tar, 00003\.tar"):
        read_shards(str(tmp_path), "{00000..00003}.tar")
    with pytest.raises(DataError, match=r"\{00000"):
        read_shards(str(tmp_path), "{00000..00003.tar")


def test_a_root_with_special_characters_is_a_folder_like_others(tmp_path: Path) -> None:
    write_tar(tmp_path / "a[1]{b}*" / "part-1" / "0.tar", *sample("a"))
    for pattern in ("part-1", "part-{1..1}", "part-*", "part-1/*.tar", "**/*.tar"):
        assert len(read_shards(str(tmp_path / "a[1]{b}*"), pattern)) == 1


def test_if_all_shards_are_skipped_the_error_has_the_reason(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "0.tar.zst").write_bytes(b"x")
    with pytest.raises(DataError, match=r"0\.tar\.zst"):
        find_shards(str(tmp_path), "train")
    write_tar(tmp_path / "parent" / "train" / "0.tar", *sample("a"))
    with pytest.raises(DataError, match=r"parent/\*\*/\*\.tar"):
        find_shards(str(tmp_path), "parent")


def test_an_inspection_counts_what_is_not_read(tmp_path: Path) -> None:
    write_tar(tmp_path / "train" / "0.tar", *sample("a"), *sample("b", 0, 0))
    write_tar(tmp_path / "train" / "1.tar", *sample("a", 9, 9))
    write_tar(tmp_path / "train" / "more" / "2.tar", *sample("c"))
    os.mkfifo(tmp_path / "train" / "3.tar")
    summary = inspect_shards(tmp_path, workers=1)
    train = summary.splits["train"]
    assert [(account.found, account.used) for account in summary.accounts] == [(4, 2), (3, 2)]
    assert sum(train.skipped.values()) == 2 and train.wrong == 3 and train.keys_shared == 1
    assert "3 faults in train" in summary.complaint


def test_rows_of_a_build_have_the_tars_that_were_not_read(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "0.tar", *sample("a"))
    (tmp_path / "in" / "1.tar.gz").write_bytes(b"x")
    files = find_shards("", str(tmp_path / "in"))
    source = TarSource(paths=files.paths, skipped=files.skipped)
    build_shards(tmp_path / "out", source, BuildSettings(), max_rejected_fraction=0.5)
    assert "1.tar.gz" in (tmp_path / "out" / "rejected.csv").read_text()


def header(name: str, size: int) -> bytes:
    """A tar header with whatever size, in base 256 where it is negative."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    block[124:136] = (256**12 + size).to_bytes(13, "big")[1:] if size < 0 else b"%011o\0" % size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax_header(**records: str) -> bytes:
    info = tarfile.TarInfo("pax.jpg")
    info.pax_headers = records
    return info.tobuf(tarfile.PAX_FORMAT)


HOSTILE = {
    "negative": header("x.jpg", -512),
    "very negative": header("x.jpg", -(1 << 60)),
    "one below": header("x.jpg", -1),
    "pax negative": pax_header(size="-5120"),
    "long name of negative length": header("x.jpg", -1024)[:156] + b"L" + header("x.jpg", -1024)[157:],
}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_hostile_header_ends_and_the_samples_around_it_are_read(tmp_path: Path, hostile: str) -> None:
    tar = write_tar(tmp_path / "0.tar", *sample("a"))
    members = tar.read_bytes().rstrip(b"\0")
    members += bytes(-len(members) % 512)
    tar.write_bytes(members + HOSTILE[hostile] + write_tar(tmp_path / "1.tar", *sample("b")).read_bytes())
    index = index_shard(tar)
    assert index.keys == ["a", "b"] and 1 <= len(index.faults) <= 2
    assert any("negative" in fault.reason or "header" in fault.reason for fault in index.faults)


def test_a_null_character_in_a_name_is_a_fault(tmp_path: Path) -> None:
    tar = tmp_path / "0.tar"
    text = location_json(1.5, 2.5)
    pair = pax_header(path="a\0b.jpg") + pax_header(path="a\0b.json", size=str(len(text))) + text.ljust(512, b"\0")
    tar.write_bytes(pair + write_tar(tmp_path / "1.tar", *sample("b")).read_bytes())
    assert index_shard(tar).keys == ["b"] and open_index(tar).keys == open_index(tar).keys


def test_an_index_that_is_corrupt_or_of_another_tar_is_made_again(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "0.tar", *sample("a"), *sample("b"))
    keys = open_index(tar).keys
    cached = tmp_path / ".geoclip-index" / "0.tar.npz"
    good = cached.read_bytes()
    for corrupt in (good[: len(good) // 2], good[:-30], b"", b"PK\3\4", good[:200] + b"\xff" * 300 + good[500:]):
        cached.write_bytes(corrupt)
        assert open_index(tar).keys == keys
    with np.load(cached) as arrays:
        moved = dict(arrays) | {"offset": arrays["offset"] - 10**6}
    np.savez(cached, **moved)
    assert (open_index(tar).offset_N > 0).all(), "an offset before the file is rejected"
    cached.unlink()
    os.mkfifo(cached)
    assert open_index(tar).keys == keys


def test_only_plain_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path, tmp_path / "gone"):
        with pytest.raises(OSError, match=str(path)):
            open_regular(path)


def test_pipes_among_pictures_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(picture())
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    photos, skipped = list_photos(tmp_path)
    (batch,) = photo_batches(photos, Preprocessing(image_px=16), 8)
    assert batch.keys == ["a.jpg"] and skipped == []
    assert {skip.key for skip in batch.skipped} == {"gone.jpg", "pipe.jpg"}
    (tmp_path / "t.csv").write_text("name,lat,lon\na.jpg,1,2\npipe.jpg,3,4\ngone.jpg,5,6\n")
    assert built(tmp_path, tmp_path) == ({"a"}, {"missing picture": 2})


def built(folder: Path, images: Path) -> tuple[set[str], dict[str, int]]:
    """Keys and rejected rows of the shards of t.csv in a folder."""
    source = TableSource(table=folder / "t.csv", pictures=open_pictures(images), named=Columns())
    build_shards(folder / "out", source, BuildSettings(), max_rejected_fraction=0.9)
    described = json.loads((folder / "out" / "metadata.json").read_text())
    return set(open_index(folder / "out" / "train" / "000000.tar").keys), described["reasons"]


KINDS = {
    "jfif": "JPEG", "JPE": "JPEG", "jp2": "JPEG2000", "ppm": "PPM", "dib": "BMP", "avif": "AVIF", "heic": "HEIF",
    "HIF": "HEIF",
}  # fmt: skip


def picture_of(kind: str) -> bytes:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow cannot write AVIF")
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    return picture("BMP" if kind == "DIB" else kind)


@pytest.mark.parametrize("suffix", KINDS)
def test_every_picture_that_can_be_decoded_is_read_from_folders_tars_and_tables(tmp_path: Path, suffix: str) -> None:
    data = picture_of(KINDS[suffix])
    images = tmp_path / "images"
    images.mkdir()
    (images / f"1.{suffix}").write_bytes(data)
    photos, skipped = list_photos(images)
    (batch,) = photo_batches(photos, Preprocessing(image_px=8), 8)
    assert batch.keys == [f"1.{suffix}"] and skipped == batch.skipped == []
    index = index_shard(write_tar(tmp_path / "0.tar", *sample("1", data=data, suffix=suffix)))
    assert index.keys == ["1"] and index.faults == []
    (tmp_path / "t.csv").write_text(f"name,lat,lon\n1.{suffix},1,2\n")
    assert built(tmp_path, images) == ({"1"}, {})


@pytest.mark.parametrize("suffix", ["dng", "NEF", "cr2", "jxl", "mov", "xyz"])
def test_every_picture_that_cannot_be_decoded_is_named_and_counted(tmp_path: Path, suffix: str) -> None:
    raw = picture("TIFF")  # as raw files are inside
    images = tmp_path / "images"
    images.mkdir()
    (images / f"1.{suffix}").write_bytes(raw)
    (images / "2.jpg").write_bytes(picture())
    (images / "2.txt").write_text("beside a picture")
    photos, skipped = list_photos(images)
    assert [photo.key for photo in photos] == ["2.jpg"] and list(reasons(skipped)) == [f"1.{suffix}"]
    assert suffix.lower() in skipped[0].reason
    tar = write_tar(
        tmp_path / "0.tar", *sample("1", data=raw, suffix=suffix), *sample("2"), ("3.json", location_json(1, 2))
    )
    faults = reasons(index_shard(tar).faults)
    assert sorted(faults) == ["1", "3"] and f".{suffix.lower()}" in faults["1"]
    (images / "2.jpg").unlink()
    with pytest.raises(DataError, match=suffix.lower()):
        list_photos(images)


def test_a_raw_file_named_in_a_table_is_reported(tmp_path: Path) -> None:
    (tmp_path / "1.NEF").write_bytes(picture("TIFF"))
    (tmp_path / "2.jpg").write_bytes(picture())
    (tmp_path / "t.csv").write_text("name,lat,lon\n1.NEF,1,2\n2.jpg,1,2\n")
    keys, rejected = built(tmp_path, tmp_path)
    assert keys == {"2"} and [".nef" in reason for reason in rejected] == [True]
    photos, skipped = read_photos(tmp_path, "t.csv")
    assert [photo.key for photo in photos] == ["2.jpg"] and ".nef" in skipped[0].reason
    with pytest.raises(DataError, match=r"1\.NEF: \.nef"):
        list_photos(tmp_path / "1.NEF")


def test_without_the_plugin_the_reason_of_heic_names_it(tmp_path: Path) -> None:
    (tmp_path / "1.heic").write_bytes(picture_of("HEIF"))
    code = """
import sys
sys.modules["pillow_heif"] = None  # as where it is not installed
from pathlib import Path
from geoclip.data.pictures import open_picture
try:
    open_picture(Path(sys.argv[1]).read_bytes())
except ValueError as error:
    print(error)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "1.heic")]
    assert "pillow-heif" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_zero_zero_is_never_the_location_of_a_photograph(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "train" / "0.tar", *sample("a", 0, 0), *sample("b", 0, 5), *sample("c", 5, 0))
    assert index_shard(tar).keys == ["b", "c"] and list(reasons(index_shard(tar).faults)) == ["a"]
    assert len(shard_locations(str(tmp_path), "train").gps_deg_N2) == 2
    for name in "abc":
        (tmp_path / f"{name}.jpg").write_bytes(picture())
    (tmp_path / "t.csv").write_text("name,lat,lon\na.jpg,0,-0.0\nb.jpg,0,5\nc.jpg,5,0\nd.jpg,1,1\n")
    photos, skipped = read_photos(tmp_path, "t.csv")
    assert [photo.key for photo in photos] == ["b.jpg", "c.jpg"]
    assert Counter(reason == MISSING for reason in reasons(skipped).values()) == {True: 1, False: 1}
    (tmp_path / "a.json").write_bytes(location_json(0, 0))
    assert list_photos(tmp_path / "a.jpg")[0][0].gps_deg is None
    exif = Image.Exif()
    exif.get_ifd(0x8825).update({1: "N", 2: (0.0, 0.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)})
    (tmp_path / "e.jpg").write_bytes(picture(exif=exif))
    assert exif_coordinates(tmp_path / "e.jpg") is None


def test_a_large_jpeg_is_scaled_down_and_other_formats_are_rejected() -> None:
    assert MAX_PIXELS == CONFIGURED_MAX_PIXELS
    limit, size = 2_000_000, (4096, 1280)  # 5.2 megapixels
    jpeg, png = picture("JPEG", size, "red"), picture("PNG", size, "red")
    image = open_picture(jpeg, limit)
    assert image.size == (2048, 640) and full_size(image) == size
    assert open_picture(picture("JPEG", (8192, 4096), "red"), 10_000_000).size == (2048, 1024)
    assert evaluation_pixels_of(jpeg, Preprocessing(image_px=64, max_pixels=limit)).shape == (3, 64, 64)
    assert decode(jpeg, max_pixels=size[0] * size[1]).size == size
    for data, most in ((png, limit), (jpeg, size[0] * size[1] // JPEG_EXCESS - 1)):
        with pytest.raises(ValueError, match=f"max_pixels={most}"):
            open_picture(data, most)
    assert decode(png, max_pixels=size[0] * size[1]).size == size


def test_shards_scale_a_large_jpeg_down_from_its_full_size(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(picture("JPEG", (1600, 1200), "red"))
    (tmp_path / "t.csv").write_text("name,lat,lon\na.jpg,1,2\n")
    source = TableSource(table=tmp_path / "t.csv", pictures=open_pictures(tmp_path), named=Columns())
    build_shards(tmp_path / "out", source, BuildSettings(max_side_px=1000), max_pixels=1_000_000)
    index = open_index(tmp_path / "out" / "train" / "000000.tar")
    data = Path(index.path).read_bytes()[index.offset_N[0] : index.offset_N[0] + index.size_N[0]]
    assert max(open_picture(data).size) <= 1000


def test_found_is_the_sum_of_used_and_skipped() -> None:
    assert account_of("train", 5, []).lines() == []
    skips = [Skip(shard="0.tar", key=str(number), reason=f"reason {number % 2}") for number in range(5)]
    account = account_of("train", 7, skips)
    assert (account.found, account.used) == (12, 7)
    first, *others = account.lines()
    assert all(number in first for number in ("train", "12", "7", "5")) and len(others) == 2


def test_an_empty_shard_is_reported_and_counts_no_sample(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", *sample("a"), *sample("b"))
    write_tar(tmp_path / "1.tar")
    account = refuse_bad_shards(read_shards(str(tmp_path), "*.tar"), 0.0, "data.train")
    assert (account.found, account.used, account.skipped.counts) == (2, 2, {EMPTY_SHARD: 0})
    assert "1.tar" in account.lines()[1] and len(account.lines()) == 2
    total = SkipReport()
    total.merge(account.skipped)
    assert total.lines() == account.skipped.lines()
    build_shards(tmp_path / "out", TarSource(paths=sorted(map(str, tmp_path.glob("*.tar")))), BuildSettings())
    made = json.loads((tmp_path / "out" / "metadata.json").read_text())
    assert (made["rows"], made["accepted"], made["reasons"]) == (2, 2, {EMPTY_SHARD: 0})


def test_old_partial_indices_of_killed_processes_are_deleted(tmp_path: Path) -> None:
    tar, folder = write_tar(tmp_path / "0.tar", *sample("a")), tmp_path / ".geoclip-index"
    folder.mkdir()
    old, new = folder / ".0.tar.npz.7.partial", folder / ".1.tar.npz.8.partial"
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    open_index(tar)
    assert {path.name for path in folder.iterdir()} == {"0.tar.npz", new.name}


def test_shards_without_samples_are_an_error(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", ("words.txt", b"x"))
    with pytest.raises(DataError, match=r"data\.train"):
        refuse_bad_shards(read_shards(str(tmp_path), "*.tar"), 1.0, "data.train")


def test_wherever_a_tar_is_cut_it_is_reported(tmp_path: Path) -> None:
    """Also within the zeros that fill a member's last block, where every sample is still complete."""
    path = write_tar(tmp_path / "cut.tar", *(m for key in "012" for m in sample(key, data=b"x" * 700)))
    content = path.read_bytes()
    assert index_shard(path).faults == []
    for size in range(1, 3 * 4 * 512 + 512, 97):
        path.write_bytes(content[:size])
        assert index_shard(path).faults, size


def test_a_shard_shorter_than_in_its_index_is_rejected(tmp_path: Path) -> None:
    samples = [{"__key__": f"{number}", "jpg": b"x" * 600, "json": b'{"lat": 1, "lon": 2}'} for number in range(4)]
    (tmp_path / "train").mkdir()
    path = tmp_path / "train" / "000000.tar"
    write_index(tmp_path / "train", "train", [record_shard(path, write_shard(path, samples))])
    assert read_shards(str(tmp_path), "train")[0].samples == 4
    path.write_bytes(path.read_bytes()[: 4 * 512 * 3])
    with pytest.raises(DataError, match=r"000000\.tar .*index\.json"):
        read_shards(str(tmp_path), "train")
