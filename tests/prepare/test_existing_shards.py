"""Existing shards are kept, differing settings named, bad sources refused, benchmarks counted."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from geoclip.config import (
    BenchmarkConfig,
    BenchmarkKind,
    ColumnsConfig,
    ShardsConfig,
    ShardSource,
    key_problems,
    shards_problems,
)
from geoclip.data.shards import read_shards
from geoclip.errors import DataError

Build = Callable[..., bool]
RejectedIn = Callable[[Path], list[tuple[str, str, str]]]


def bytes_below(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_the_same_command_again_does_nothing(tmp_path: Path, build: Build, photo_table: Callable[..., Path]) -> None:
    table, root = str(photo_table(8)), tmp_path / "shards"
    assert build(root, input=table)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert not build(root, input=table)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"photos", "shards"}


def test_other_settings_need_overwrite(tmp_path: Path, build: Build, photo_table: Callable[..., Path]) -> None:
    table, root = photo_table(8), tmp_path / "shards"
    build(root, input=str(table))
    before = bytes_below(root)
    with pytest.raises(DataError, match=r"samples_per_shard: 10000 -> 3\).*overwrite=true"):
        build(root, input=str(table), samples_per_shard=3)
    table.write_text(table.read_text() + "x.jpg,1,2,\n")
    with pytest.raises(DataError, match=r"input_sha256: \w+ -> \w+"):
        build(root, input=str(table))
    assert bytes_below(root) == before
    assert build(root, input=str(table), samples_per_shard=3, overwrite=True, max_rejected_fraction=0.2)
    assert [shard.samples for shard in read_shards(str(root), "train")] == [3, 3, 2]


def test_a_folder_with_other_files_is_never_touched(
    tmp_path: Path, build: Build, photo_table: Callable[..., Path]
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    with pytest.raises(DataError, match="choose another root"):
        build(tmp_path / "thesis", input=str(photo_table(3)), overwrite=True)
    assert bytes_below(tmp_path / "thesis") == {"chapter1.txt": b"years of work"}


def test_too_many_rejected_rows_end_the_build_before_it_writes_and_it_resumes_after_a_fix(
    tmp_path: Path, build: Build, photo_table: Callable[..., Path], rejected_in: RejectedIn
) -> None:
    table, root = photo_table(20), tmp_path / "shards"
    text = table.read_text().replace("07.jpg,1.7,", "07.jpg,nan,")
    table.write_text(text)
    (table.parent / "03.jpg").rename(tmp_path / "03.jpg")
    facts = r"2 of 20 rows \(10\.0 %.*=0\.05.*07\.jpg \(line 9\).*03\.jpg \(line 5\).*rejected\.csv.*=0\.1,"
    with pytest.raises(DataError, match=facts):
        build(root, input=str(table))
    assert [path.name for path in root.iterdir()] == ["rejected.csv"]
    assert [key for _, key, _ in rejected_in(root)] == ["03.jpg", "07.jpg"]
    (tmp_path / "03.jpg").rename(table.parent / "03.jpg")
    assert build(root, input=str(table))
    assert rejected_in(root) == [("9", "07.jpg", "coordinates are not finite")]
    assert [shard.samples for shard in read_shards(str(root), "train")] == [19]


def test_a_refused_build_needs_no_overwrite_and_keeps_an_existing_data_set(
    tmp_path: Path, build: Build, photo_table: Callable[..., Path]
) -> None:
    table, root = photo_table(20), tmp_path / "shards"
    header, *rows = table.read_text().splitlines()
    good = table.read_text()
    broken = "\n".join([header, *rows[:10], *(f"no{row}" for row in rows[10:])]) + "\n"
    table.write_text(broken)
    with pytest.raises(DataError, match="10 of 20 rows"):
        build(root, input=str(table))
    table.write_text(good)
    assert build(root, input=str(table))
    before = bytes_below(root)
    table.write_text(broken)
    with pytest.raises(DataError, match=r"10 of 20 rows.*\.shards\.work/rejected\.csv"):
        build(root, input=str(table), overwrite=True)
    assert bytes_below(root) == before


def test_swapped_columns_are_guessed(tmp_path: Path, build: Build, photo_table: Callable[..., Path]) -> None:
    table = photo_table(4)
    table.write_text("IMG_ID,LAT,LON\n00.jpg,151.2,-33.9\n01.jpg,139.7,35.7\n02.jpg,2.4,48.9\n03.jpg,-122,37\n")
    with pytest.raises(DataError, match=r"columns\.lat and columns\.lon"):
        build(tmp_path / "shards", input=str(table))
    assert build(tmp_path / "shards", input=str(table), columns=ColumnsConfig(lat="LON", lon="LAT"))


def test_a_table_that_cannot_be_read_leaves_no_files(tmp_path: Path, build: Build) -> None:
    for text, sentence in (
        ("LAT,LON\n1,2\n", r"columns\.key=NAME"),
        ("id,a,b\nx,1,2\n", "columns id, a, b;.* LAT and LON"),
        ('id,LAT,LON\na,1,2\n"b,1,2\nc,1,2\n', "line 3: "),
        ("id,LAT,LON\n", "the source has no rows"),
    ):
        (tmp_path / "t.csv").write_text(text)
        with pytest.raises(DataError, match=sentence):
            build(tmp_path / "shards", input=str(tmp_path / "t.csv"))
        assert not (tmp_path / "shards").exists()


def test_a_picture_that_disappears_after_its_check_is_named_and_restored_the_build_resumes(
    tmp_path: Path, build: Build, photo_table: Callable[..., Path]
) -> None:
    table, root = photo_table(6), tmp_path / "shards"
    (table.parent / "01.jpg").rename(tmp_path / "01.jpg")
    with pytest.raises(DataError, match="1 of 6 rows"):
        build(root, input=str(table), samples_per_shard=2)
    (tmp_path / "01.jpg").rename(table.parent / "01.jpg")
    (table.parent / "04.jpg").rename(tmp_path / "04.jpg")
    with pytest.raises(DataError, match=r"the picture of 04\.jpg"):
        build(root, input=str(table), samples_per_shard=2)
    with pytest.raises(DataError, match=r"\(seed: 0 -> 1\)"):
        build(root, input=str(table), samples_per_shard=2, seed=1)
    (tmp_path / "04.jpg").rename(table.parent / "04.jpg")
    assert build(root, input=str(table), samples_per_shard=2)
    assert [shard.samples for shard in read_shards(str(root), "train")] == [2, 2, 2]


def test_a_benchmark_is_built_and_compared_with_its_published_size(
    tmp_path: Path,
    build: Build,
    photo_table: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = photo_table(20, "tiny")
    shutil.move(table.parent / "05.jpg", tmp_path / "lost.jpg")
    (table.parent / "deep" / "down").mkdir(parents=True)
    shutil.move(table.parent / "06.jpg", table.parent / "deep" / "down" / "06.jpg")
    monkeypatch.chdir(tmp_path)
    tiny = BenchmarkConfig(
        name="tiny20", kind=BenchmarkKind.photos, root="tiny", source="From nowhere.", published_n=20
    )
    with caplog.at_level(logging.WARNING):
        assert build(Path("data/bluemarble"), source=ShardSource.bluemarble, benchmark=tiny)
    assert re.search("tiny20.* 19 .* 20 ", caplog.text)
    described = json.loads(Path("data/tiny20/metadata.json").read_text())
    assert described["published"] == {"samples": 20, "built": 19, "missing": 1, "source": "From nowhere."}
    assert described["counts"] == {"test": 19}


PROBLEMS: list[tuple[dict[str, object], str]] = [
    ({"source": ShardSource.csv}, "input='':"),
    ({"source": ShardSource.csv, "input": "nowhere.csv"}, "input=nowhere.csv:"),
    ({"source": ShardSource.csv, "input": __file__}, "root=data/bluemarble:"),
    ({"source": ShardSource.csv, "input": __file__, "root": str(Path(__file__).parent)}, f"input={__file__}:"),
    ({"source": ShardSource.csv, "images": "nowhere"}, "images=nowhere:"),
    ({"source": ShardSource.wds}, "input='':"),
    ({"source": ShardSource.wds, "images": "x"}, "images=x:"),
    ({"source": ShardSource.wds, "columns": ColumnsConfig(lat="y")}, "columns.lat"),
    ({"source": ShardSource.wds, "samples_per_shard": 0}, "samples_per_shard=0:"),
    ({"source": ShardSource.wds, "max_side_px": 2}, "max_side_px=2:"),
    ({"source": ShardSource.wds, "jpeg_quality": 101}, "jpeg_quality=101:"),
    ({"source": ShardSource.wds, "max_rejected_fraction": 5.0}, "max_rejected_fraction=5.0:"),
    ({"source": ShardSource.wds, "split": "val", "val_samples": 3}, "val_samples"),
    ({"benchmark": BenchmarkConfig(name="y", kind=BenchmarkKind.shards)}, "benchmark=y:"),
    ({"benchmark": BenchmarkConfig(name="y", kind=BenchmarkKind.photos, variable="Y_DIR")}, "benchmark=y:"),
    ({"benchmark": BenchmarkConfig(name="y", kind=BenchmarkKind.photos, root="."), "input": "x"}, "benchmark=y:"),
    ({"inspect": "nowhere"}, "inspect=nowhere:"),
]


@pytest.mark.parametrize(("settings", "sentence"), PROBLEMS, ids=lambda value: str(value)[:40])
def test_an_invalid_setting_is_named(settings: dict[str, object], sentence: str) -> None:
    config = ShardsConfig(**settings)  # type: ignore[arg-type]
    assert any(sentence in problem for problem in [*key_problems(config), *shards_problems(config)])
