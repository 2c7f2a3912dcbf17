"""A gallery that was embedded before is read from disk, and only that one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from geoclip.evaluation.gallery import Gallery, embedded_gallery, encode_gallery, without_denormals
from geoclip.geo.geodesy import uniform_on_sphere
from geoclip.model.location_encoder import LocationEncoder

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def keeps_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoclip.evaluation.gallery.LEAST_PLACES", 10)


def encoder(seed: int = 0) -> LocationEncoder:
    torch.manual_seed(seed)
    return LocationEncoder((1.0, 16.0), frequencies=8, hidden_dim=16, embedding_dim=8).eval()


def places(count: int = 30, seed: int = 0) -> Gallery:
    gps_deg_G2 = uniform_on_sphere(count, torch.Generator().manual_seed(seed)).double()
    return Gallery(name="g", gps_deg_G2=gps_deg_G2)


def test_the_second_time_it_comes_from_disk(tmp_path: Path) -> None:
    first = embedded_gallery(encoder(), places(), CPU, tmp_path)
    assert torch.equal(first, encode_gallery(encoder(), places(), CPU))
    (file,) = tmp_path.iterdir()
    save_file({"gallery_GD": first + 1}, file)  # what is given out then is the file's
    named = Gallery(name="another name", gps_deg_G2=places().gps_deg_G2)
    assert torch.equal(embedded_gallery(encoder(), named, CPU, tmp_path), first + 1)


def test_another_weight_or_place_is_another_gallery(tmp_path: Path) -> None:
    embedded_gallery(encoder(), places(), CPU, tmp_path)
    other = encoder()
    with torch.no_grad():
        other.branches[1].head.bias[3] += 1e-6  # type: ignore[index,union-attr,operator]
    moved = places()
    moved.gps_deg_G2[29, 1] += 1e-9
    for location_encoder, gallery in ((other, places()), (encoder(), moved)):
        found = embedded_gallery(location_encoder, gallery, CPU, tmp_path)
        assert torch.equal(found, encode_gallery(location_encoder, gallery, CPU))
    assert len(list(tmp_path.iterdir())) == 3


def test_the_same_weights_behind_another_projection_are_another_gallery(tmp_path: Path) -> None:
    other = encoder()
    other.projection = "mercator"
    assert other.state_dict().keys() == encoder().state_dict().keys()
    for location_encoder in (encoder(), other, encoder().train()):
        found = embedded_gallery(location_encoder, places(), CPU, tmp_path)
        assert torch.equal(found, encode_gallery(location_encoder, places(), CPU))
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["cut", "empty", "no tensor"])
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    first = embedded_gallery(encoder(), places(), CPU, tmp_path)
    (file,) = tmp_path.iterdir()
    match damage:
        case "cut":
            file.write_bytes(file.read_bytes()[:-5])
        case "empty":
            file.write_bytes(b"")
        case _:
            save_file({"x": torch.zeros(1)}, file)
    assert torch.equal(embedded_gallery(encoder(), places(), CPU, tmp_path), first)
    assert str(file) in caplog.text and "encoded anew" in caplog.text
    assert torch.equal(load_file(file)["gallery_GD"], first)


def test_what_cannot_be_kept_is_given_all_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("no folder")
    found = embedded_gallery(encoder(), places(), CPU, tmp_path / "file" / "galleries")
    assert torch.equal(found, encode_gallery(encoder(), places(), CPU))
    assert "not kept" in caplog.text


def test_the_longest_unused_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Path] = []
    for seed in range(3):
        embedded_gallery(encoder(seed), places(), CPU, tmp_path)
        (new,) = set(tmp_path.iterdir()) - set(kept)
        os.utime(new, (seed, seed))
        kept.append(new)
    embedded_gallery(encoder(0), places(), CPU, tmp_path)  # used again: now the newest
    monkeypatch.setattr("geoclip.evaluation.gallery.LARGEST_BYTES", int(2.5 * kept[0].stat().st_size))
    embedded_gallery(encoder(9), places(), CPU, tmp_path)
    assert kept[0].exists() and not kept[1].exists() and not kept[2].exists()
    assert len(list(tmp_path.iterdir())) == 2


def test_small_galleries_and_none_at_all_leave_no_file(tmp_path: Path) -> None:
    embedded_gallery(encoder(), places(9), CPU, tmp_path)
    embedded_gallery(encoder(), places(), CPU, None)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def denormals_count() -> Iterator[None]:
    torch.set_flush_denormal(False)
    yield
    torch.set_flush_denormal(True)  # tests/conftest.py


@pytest.mark.usefixtures("denormals_count")
def test_denormal_weights_are_zero_in_the_working_copy_alone() -> None:
    tiny, healthy = encoder(), encoder()
    with torch.no_grad():
        for one in (tiny.branches[0].mlp[2].weight, healthy.branches[0].mlp[2].weight):  # type: ignore[index,union-attr]
            one[:4] = 0
        tiny.branches[0].mlp[2].weight[:4] = 1e-40  # type: ignore[index,union-attr]
    copy = without_denormals(tiny)
    assert all(bool(((one == 0) | (one.abs() > 1e-38)).all()) for one in copy.parameters())
    assert float(tiny.branches[0].mlp[2].weight[0, 0]) > 0  # type: ignore[index,union-attr]
    assert without_denormals(healthy) is healthy
    torch.testing.assert_close(encode_gallery(tiny, places(), CPU), encode_gallery(healthy, places(), CPU))
