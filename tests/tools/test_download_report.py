from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from geoclip.data.shard_index import index_shard
from geoclip.data.shards import find_shards
from geoclip.prepare.shard_building import BuildSettings, build_shards
from geoclip.prepare.sources import TarSource
from tools.download_report import forget_temporary, main, read_report
from tools.url_list import write_url_list

EMPTY = "OpenCV(4.14.0) /io/loadsave.cpp:1310: error: (-215:Assertion failed) !buf.empty() in function 'imdecode_'\n"


def write_tar(folder: Path, number: int, picture: bytes, failures: dict[str, int]) -> Path:
    """A tar with one picture and its statistics, exactly as img2dataset 1.47 writes them."""
    folder.mkdir(exist_ok=True)
    key = f"{number:05d}000"
    fields = {
        "img_id": f"45/77/{number}.jpg", "lat": 46.5, "lon": 23.25, "key": key, "status": "success",
        "url": f"http://farm4.staticflickr.com/3373/{number}_ab.jpg", "error_message": None, "width": 8, "height": 6,
        "original_width": 8, "original_height": 6, "sha256": "ab" * 32,
    }  # fmt: skip
    with tarfile.open(folder / f"{number:05d}.tar", "w") as tar:
        for suffix, data in (("jpg", picture), ("json", json.dumps(fields, indent=4).encode())):
            member = tarfile.TarInfo(f"{key}.{suffix}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    no_picture = sum(count for reason, count in failures.items() if "HTTP" not in reason)
    failed = sum(failures.values())
    stats = {
        "count": 1 + failed, "successes": 1, "failed_to_download": failed - no_picture, "failed_to_resize": no_picture,
        "duration": 0.5, "start_time": 0.0, "end_time": 0.5, "status_dict": {"success": 1, **failures},
    }  # fmt: skip
    (folder / f"{number:05d}_stats.json").write_text(json.dumps(stats, indent=4))
    return folder / f"{number:05d}.tar"


@pytest.fixture
def download(tmp_path: Path) -> Path:
    """A list of nine links in three tars, and the tars."""
    lines = [f"{number}.jpg,http://x/{number}.jpg,1,2" for number in range(9)]
    (tmp_path / "list.csv").write_text("\n".join(["id,url,lat,lon", *lines]))
    write_url_list(tmp_path / "list.csv", tmp_path / "list", tar_rows=3)
    write_tar(tmp_path / "tars", 0, b"picture", {"HTTP Error 410: Gone": 2})
    write_tar(tmp_path / "tars", 1, b"picture", {"HTTP Error 429: Too Many Requests": 1, "Image decoding error": 1})
    write_tar(tmp_path / "tars", 2, b"picture", {"HTTP Error 410: Gone": 1, EMPTY: 1})
    return tmp_path


def test_failures_are_counted_by_reason(download: Path) -> None:
    report = read_report(download / "list", download / "tars")
    assert (report.links, report.downloaded, report.dead, report.no_picture, report.passing) == (9, 3, 4, 2, 1)
    assert report.reasons == {
        "HTTP Error 410: Gone": 3,
        "HTTP Error 429: Too Many Requests": 1,
        "Image decoding error": 1,
        "empty answer": 1,
    }
    assert (report.tars, report.tars_missing) == (3, 0)
    assert "4 (44.4 %) dead links" in str(report)


def test_a_download_with_missing_tars_ends_with_an_error(download: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--list", str(download / "list"), "--tars", str(download / "tars")]
    main(given)
    assert "RETRY=1" in capsys.readouterr().out
    assert json.loads((download / "links.json").read_text())["dead"] == 4
    (download / "tars" / "00001_stats.json").unlink()  # img2dataset was killed, or skipped the tar
    with pytest.raises(SystemExit, match="1 tars are missing"):
        main(given)


def test_a_retry_forgets_only_tars_with_temporary_failures(download: Path) -> None:
    assert forget_temporary(download / "tars") == 1
    assert sorted(path.name for path in (download / "tars").glob("*_stats.json")) == [
        "00000_stats.json",
        "00002_stats.json",
    ]
    assert forget_temporary(download / "tars") == 0


@pytest.mark.parametrize("text", ["", "{}", "[1]"])
def test_corrupt_statistics_are_named(download: Path, text: str) -> None:
    (download / "tars" / "00002_stats.json").write_text(text)
    with pytest.raises(SystemExit, match=r"00002_stats\.json"):
        main(["--list", str(download / "list"), "--tars", str(download / "tars")])


def test_img2datasets_tars_are_shards(tmp_path: Path) -> None:
    index = index_shard(write_tar(tmp_path / "tars", 4, b"the picture's bytes", {}))
    assert index.keys == ["00004000"] and index.gps_deg_N2.tolist() == [[46.5, 23.25]] and not index.faults
    tar = (tmp_path / "tars" / "00004.tar").read_bytes()
    assert tar[index.offset_N[0] :][: index.size_N[0]] == b"the picture's bytes"


def test_a_download_becomes_shards_with_the_keys_of_the_list(tmp_path: Path) -> None:
    """The `key` of img2dataset's jsons is a running number, which starts again with every download."""
    pictures = [io.BytesIO() for _ in range(3)]
    for number, file in enumerate(pictures):
        Image.new("RGB", (8, 6), (80 * number, 0, 0)).save(file, "JPEG")
        write_tar(tmp_path / "tars", number, file.getvalue(), {})
    source = TarSource(paths=find_shards(str(tmp_path), "tars").paths, key_field="img_id")
    assert build_shards(tmp_path / "shards", source, BuildSettings())
    with tarfile.open(tmp_path / "shards" / "train" / "000000.tar") as tar:
        found = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    for number, file in enumerate(pictures):
        assert found[f"45_77_{number}.jpg"] == file.getvalue()
        fields = json.loads(found[f"45_77_{number}.json"])
        assert (fields["key"], fields["lat"], fields["lon"]) == (f"45/77/{number}.jpg", 46.5, 23.25)
    assert len(found) == 6
