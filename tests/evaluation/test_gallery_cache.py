"""An embedded gallery is cached by its weights and coordinates."""

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
def caches_small_galleries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoclip.evaluation.gallery.LEAST_CACHED", 10)


def encoder(seed: int = 0) -> LocationEncoder:
    torch.manual_seed(seed)
    return LocationEncoder((1.0, 16.0), frequencies=8, hidden_dim=16, embedding_dim=8).eval()


def locations(count: int = 30, seed: int = 0) -> Gallery:
    gps_deg_G2 = uniform_on_sphere(count, torch.Generator().manual_seed(seed)).double()
    return Gallery(name="g", gps_deg_G2=gps_deg_G2)


def test_the_second_call_reads_the_file(tmp_path: Path) -> None:
    first = embedded_gallery(encoder(), locations(), CPU, tmp_path)
    assert torch.equal(first, encode_gallery(encoder(), locations(), CPU))
    (file,) = tmp_path.iterdir()
    save_file({"gallery_GD": first + 1}, file)  # to recognise the file
    named = Gallery(name="another name", gps_deg_G2=locations().gps_deg_G2)
    assert torch.equal(embedded_gallery(encoder(), named, CPU, tmp_path), first + 1)


def test_another_weight_or_location_is_another_file(tmp_path: Path) -> None:
    embedded_gallery(encoder(), locations(), CPU, tmp_path)
    other = encoder()
    with torch.no_grad():
        other.branches[1].head.bias[3] += 1e-6  # type: ignore[index,union-attr,operator]
    moved = locations()
    moved.gps_deg_G2[29, 1] += 1e-9
    for location_encoder, gallery in ((other, locations()), (encoder(), moved)):
        found = embedded_gallery(location_encoder, gallery, CPU, tmp_path)
        assert torch.equal(found, encode_gallery(location_encoder, gallery, CPU))
    assert len(list(tmp_path.iterdir())) == 3


def test_another_projection_is_another_file(tmp_path: Path) -> None:
    other = encoder()
    other.projection = "mercator"
    assert other.state_dict().keys() == encoder().state_dict().keys()
    for location_encoder in (encoder(), other, encoder().train()):
        found = embedded_gallery(location_encoder, locations(), CPU, tmp_path)
        assert torch.equal(found, encode_gallery(location_encoder, locations(), CPU))
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("corruption", ["cut", "empty", "no tensor"])
def test_a_corrupt_file_is_replaced(tmp_path: Path, corruption: str, caplog: pytest.LogCaptureFixture) -> None:
    first = embedded_gallery(encoder(), locations(), CPU, tmp_path)
    (file,) = tmp_path.iterdir()
    match corruption:
        case "cut":
            file.write_bytes(file.read_bytes()[:-5])
        case "empty":
            file.write_bytes(b"")
        case _:
            save_file({"x": torch.zeros(1)}, file)
    assert torch.equal(embedded_gallery(encoder(), locations(), CPU, tmp_path), first)
    assert str(file) in caplog.text
    assert torch.equal(load_file(file)["gallery_GD"], first)


def test_without_a_writable_folder_the_gallery_is_encoded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("no folder")
    found = embedded_gallery(encoder(), locations(), CPU, tmp_path / "file" / "galleries")
    assert torch.equal(found, encode_gallery(encoder(), locations(), CPU))
    assert caplog.records


def test_the_least_recently_used_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Path] = []
    for seed in range(3):
        embedded_gallery(encoder(seed), locations(), CPU, tmp_path)
        (new,) = set(tmp_path.iterdir()) - set(kept)
        os.utime(new, (seed, seed))
        kept.append(new)
    embedded_gallery(encoder(0), locations(), CPU, tmp_path)  # used again: now the newest
    monkeypatch.setattr("geoclip.evaluation.gallery.LARGEST_BYTES", int(2.5 * kept[0].stat().st_size))
    embedded_gallery(encoder(9), locations(), CPU, tmp_path)
    assert kept[0].exists() and not kept[1].exists() and not kept[2].exists()
    assert len(list(tmp_path.iterdir())) == 2


def test_small_galleries_are_not_cached(tmp_path: Path) -> None:
    embedded_gallery(encoder(), locations(9), CPU, tmp_path)
    embedded_gallery(encoder(), locations(), CPU, None)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def denormals_count() -> Iterator[None]:
    torch.set_flush_denormal(False)
    yield
    torch.set_flush_denormal(True)  # tests/conftest.py


@pytest.mark.usefixtures("denormals_count")
def test_denormal_weights_are_zero_in_a_copy_only() -> None:
    tiny, healthy = encoder(), encoder()
    with torch.no_grad():
        for one in (tiny.branches[0].mlp[2].weight, healthy.branches[0].mlp[2].weight):  # type: ignore[index,union-attr]
            one[:4] = 0
        tiny.branches[0].mlp[2].weight[:4] = 1e-40  # type: ignore[index,union-attr]
    copy = without_denormals(tiny)
    assert all(bool(((one == 0) | (one.abs() > 1e-38)).all()) for one in copy.parameters())
    assert float(tiny.branches[0].mlp[2].weight[0, 0]) > 0  # type: ignore[index,union-attr]
    assert without_denormals(healthy) is healthy
    torch.testing.assert_close(encode_gallery(tiny, locations(), CPU), encode_gallery(healthy, locations(), CPU))
