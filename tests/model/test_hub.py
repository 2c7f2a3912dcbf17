"""Downloads from the Hub and uploads to it, over HTTP to a local Hub."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import torch

from geoclip import load, load_location_encoder
from geoclip.errors import AssetError, GeoclipError
from geoclip.model.backbones import ClipBackbone
from geoclip.model.hub import fetch, no_connection, send
from tests.local_hub import COMMIT, LocalHub, serving
from tests.model.released import write_tiny_clip
from tests.pretrained.test_releases import same, small_model, write_release


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    with serving(monkeypatch) as running:
        yield running


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return write_release(tmp_path / "release", small_model(), COMMIT)


@pytest.mark.parametrize("source", ["a/geo", "hf-hub:a/geo"])
def test_a_release_is_fetched_by_its_id(hub: LocalHub, release: Path, tmp_path: Path, source: str) -> None:
    hub.files["a/geo"] = files_of(release) | {"pickle.bin": b"never fetched"}
    kept = tmp_path / "cache"
    model = load(source, backbone=None, cache_dir=kept, revision="v1", token="secret")
    assert same(model, small_model())
    revisions = list(hub.revisions)
    assert revisions[0] == "v1"
    assert not list(kept.rglob("pickle.bin"))
    again = load_location_encoder(source, cache_dir=kept, revision="v1", local_files_only=True)
    assert torch.equal(again(torch.ones(1, 2)), model.location_encoder(torch.ones(1, 2)))
    assert hub.revisions == revisions


def test_the_backbone_is_that_of_the_release_at_its_revision(hub: LocalHub, tmp_path: Path) -> None:
    model = small_model()
    model.image_encoder.head[0] = torch.nn.Linear(768, 7)
    write_release(tmp_path / "r", model, COMMIT)
    hub.files["a/clip"] = files_of(write_tiny_clip(tmp_path / "clip"))
    found = load(tmp_path / "r", cache_dir=tmp_path / "cache")
    assert found.image_encoder.backbone is not None
    assert set(hub.revisions) == {COMMIT}


def test_a_missing_repository_is_one_line(hub: LocalHub, tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"'a/gone' .*v1 .* `hf download a/gone") as caught:
        load("a/gone", cache_dir=tmp_path, revision="v1")
    assert "\n" not in str(caught.value)


def test_without_a_connection_the_error_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match="a/geo") as caught:
        load("a/geo", cache_dir=tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "README.md").write_text("x")
    with pytest.raises(GeoclipError, match=r"'a/geo' .* HF_HUB_OFFLINE"):
        send(tmp_path, [tmp_path / "README.md"], "a/geo", private=True, message="m")


def test_only_the_named_files_are_sent_to_a_private_repository(
    hub: LocalHub, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    (release / "diary.txt").write_text("not for others")
    (release / "eval").mkdir()
    (release / "eval" / "test.json").write_text("{}")
    files = [release / "config.json", release / "eval" / "test.json"]
    assert send(release, files, "a/geo", private=True, message="m") == f"{hub.url}/a/geo"
    assert set(hub.files["a/geo"]) == {"config.json", "eval/test.json"}
    assert hub.files["a/geo"]["config.json"] == (release / "config.json").read_bytes()
    (made,) = hub.made
    assert made.get("visibility") == "private" or made.get("private") is True  # by the client's version
    assert hub.tokens == {"Bearer hf_test"}


def test_without_a_network_nothing_is_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The Hub's library would sleep between its attempts, half a minute in all."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"  # bound, and nobody listens
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", nobody)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))

        def slept(seconds: float) -> None:
            raise AssertionError(f"sleeps {seconds} s before another attempt")

        monkeypatch.setattr(time, "sleep", slept)
        assert "127.0.0.1" in no_connection()
        with pytest.raises(AssetError, match=r"a/clip.*127\.0\.0\.1"):
            ClipBackbone.from_pretrained("a/clip")
        with pytest.raises(AssetError, match=r"a/clip.*127\.0\.0\.1"):
            fetch("a/clip", ["config.json"], cache_dir=tmp_path)
