"""`python -m geoclip.gallery`: galleries from shards and CSVs, their .json, and invalid settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geoclip.config import GalleryBuildConfig, PlacesSource, gallery_build_problems, key_problems
from geoclip.errors import DataError
from geoclip.evaluation.gallery import read_gallery
from geoclip.gallery import build_gallery_file

Files = dict[str, bytes]


def build(**settings: Any) -> tuple[dict[str, Any], Files]:
    """The .json, and the bytes of all three files."""
    config = GalleryBuildConfig(**settings)
    assert gallery_build_problems(config) == []
    path = build_gallery_file(config)
    files = {suffix: path.with_suffix(suffix).read_bytes() for suffix in (".csv", ".json", ".png")}
    return json.loads(files[".json"]), files


@pytest.fixture
def places_csv(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    places = np.stack((rng.uniform(-60, 70, 400), rng.uniform(-180, 180, 400)), axis=1)
    lines = [f"{row}.jpg,{lat},{lon}" for row, (lat, lon) in enumerate(places.tolist())]
    (tmp_path / "places.csv").write_text("\n".join(["IMG_ID,Latitude,Longitude", *lines]) + "\n")
    return tmp_path / "places.csv"


def test_the_same_command_writes_the_same_bytes(places_csv: Path, tmp_path: Path) -> None:
    settings = {"source": PlacesSource.csv, "path": str(places_csv), "output": str(tmp_path / "g.csv"), "size": 150}
    made, files = build(**settings)
    assert build(**settings)[1] == files
    assert files[".csv"].startswith(b"LAT,LON\n") and files[".csv"].count(b"\n") == 151
    assert files[".png"].startswith(b"\x89PNG")
    assert made["csv_sha256"] == hashlib.sha256(files[".csv"]).hexdigest()
    assert made["gallery_sha256"] == read_gallery(tmp_path / "g.csv", "g").sha256
    assert made["source"]["sha256"] == hashlib.sha256(places_csv.read_bytes()).hexdigest()
    assert made["settings"]["size"] == 150 and made["counts"] == {"read": 400, "distinct": 400, "drawn": 150}
    assert {"command", "git_revision", "versions", "fingerprint"} <= made.keys()


def test_another_gallery_needs_overwrite(places_csv: Path, tmp_path: Path) -> None:
    settings = {"source": PlacesSource.csv, "path": str(places_csv), "output": str(tmp_path / "g.csv")}
    _, files = build(**settings, size=20)
    with pytest.raises(DataError, match=r"g\.csv .*\(size: 20 -> 30\).*overwrite=true"):
        build(**settings, size=30)
    assert (tmp_path / "g.csv").read_bytes() == files[".csv"]
    assert build(**settings, size=30, overwrite=True)[1][".csv"].startswith(files[".csv"])
    (tmp_path / "g.csv").write_text("LAT,LON\n1,2\n")
    with pytest.raises(DataError, match=r"g\.csv has other contents"):
        build(**settings, size=30)
    (tmp_path / "g.json").unlink()
    with pytest.raises(DataError, match=r"g\.csv was not built by geoclip\.gallery"):
        build(**settings, size=30)
    assert (tmp_path / "g.csv").read_text() == "LAT,LON\n1,2\n"


def test_without_a_name_two_settings_never_share_a_file(
    places_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1, 0):
        build(source=PlacesSource.csv, path=str(places_csv), size=10, seed=seed)
    assert len(list(Path("galleries").glob("csv-*.csv"))) == 2


def test_shards_give_their_coordinates_whatever_their_names_and_without_pictures(
    tiny_shards: Callable[..., Any], tmp_path: Path
) -> None:
    shards = tiny_shards([10, 7, 9])
    settings = {"source": PlacesSource.shards, "path": str(shards.root / "train")}
    made, files = build(**settings, output=str(tmp_path / "one.csv"))
    places = np.loadtxt(tmp_path / "one.csv", delimiter=",", skiprows=1)
    assert {tuple(place) for place in places.tolist()} == set(shards.gps_deg.values())
    assert made["source"]["shards"] == 3 and made["source"]["samples"] == 26
    first, *_, last = shards.paths()
    for shard, name in ((first, "zz.tar"), (last, "000000.tar")):
        data = shard.read_bytes()
        shard.unlink()
        pictures_gone = data.replace(b"\x89PNG", b"GNP\x89")
        (shards.root / "train" / name).write_bytes(pictures_gone)
    assert build(**settings, output=str(tmp_path / "other.csv"))[1][".csv"] == files[".csv"]


def test_a_test_set_may_be_a_csv_or_the_shards_that_were_built_of_it(
    places_csv: Path, tiny_shards: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = tiny_shards([8], split="test")
    lines = [f"{number},{lat!r},{lon!r}" for number, (lat, lon) in enumerate(test.gps_deg.values())]
    places_csv.write_text(places_csv.read_text() + "\n".join(lines[:5]) + "\n")
    (tmp_path / "queries.csv").write_text("\n".join(["id,lat,lon", *lines]) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("YFCC4K_DIR", raising=False)
    (tmp_path / "data").mkdir()
    (tmp_path / "shards" / "test" / "index.json").write_text(json.dumps({"shards": [{"name": "000000.tar"}]}))
    (tmp_path / "data" / "yfcc4k").symlink_to(tmp_path / "shards")
    source = {"source": PlacesSource.csv, "path": str(places_csv)}
    leaking, _ = build(**source, against=["queries.csv", "yfcc4k"], output="leaking.csv")
    for found in leaking["test_sets"].values():
        assert (found["n"], found["verbatim_in_gallery"]) == (8, 5)
    for name in ("queries.csv", "yfcc4k"):
        honest, _ = build(**source, exclude=name, output=f"without_{name.removesuffix('.csv')}.csv")
        assert honest["counts"]["not excluded"] == leaking["counts"]["distinct"] - 5
        assert honest["test_sets"][name]["verbatim_in_gallery"] == 0


PROBLEMS: list[tuple[dict[str, Any], str]] = [
    ({"path": "x.csv"}, "path=x.csv:"),
    ({"source": PlacesSource.csv, "path": "nowhere.csv"}, "path=nowhere.csv:"),
    ({"source": PlacesSource.shards}, "path='':"),
    ({"box": [1.0, 2.0]}, "box=[1.0, 2.0]:"),
    ({"box": [10.0, 0.0, -10.0, 5.0]}, "box="),
    ({"box": [0.0, 0.0, 1.0, 190.0]}, "box="),
    ({"radius_km": -1.0}, "radius_km=-1.0:"),
    ({"exclude_radius_km": 5.0}, "exclude_radius_km=5.0:"),
    ({"size": 0}, "size=0:"),
    ({"output": "gallery.txt"}, "output=gallery.txt:"),
    ({"country": "France"}, "country=France:"),
    ({"country": ["FR", "F1"]}, "country=F1:"),
    ({"exclude": ["yfcc5k"]}, "exclude=yfcc5k:"),
    ({"against": "gws15k"}, "against=gws15k:"),
]


@pytest.mark.parametrize(("settings", "sentence"), PROBLEMS, ids=lambda value: str(value)[:40])
def test_an_invalid_setting_is_named(
    settings: dict[str, Any], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GWS15K_DIR", raising=False)
    config = GalleryBuildConfig(**settings)
    problems = [*key_problems(config), *gallery_build_problems(config)]
    assert len(problems) == 1 and sentence in problems[0]
