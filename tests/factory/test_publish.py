"""`python -m geoclip.publish`: the published files, read back in every supported way."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard

from geoclip import load, load_location_encoder
from geoclip.config import (
    BenchmarkConfig,
    BenchmarkKind,
    EncoderConfig,
    EncoderKind,
    EvaluateConfig,
    GalleryConfig,
    LocationConfig,
    LocationKind,
    PublishConfig,
    TrainConfig,
    Tune,
    publish_problems,
)
from geoclip.errors import DataError, GeoclipError
from geoclip.evaluate import evaluate
from geoclip.factory.model import build_model, config_of
from geoclip.plotting.tables import accuracy_table
from geoclip.publish import publish
from geoclip.runs.run_dir import to_dict
from geoclip.training.checkpoint import pack, read_checkpoint, write_checkpoint
from geoclip.training.state import weights_tree
from tests.local_hub import serving
from tests.model.released import load_released, tiny_released_geoclip, write_tiny_clip

LOCATIONS = torch.tensor([[48.86, 2.35], [-33.9, 151.2]])


@pytest.fixture
def run_evaluate(photo_folder: Path, own_gallery: GalleryConfig, tiny_run: Any) -> Callable[..., dict[str, Any]]:
    """Evaluates a checkpoint on the photographs; returns the JSON."""
    photos = BenchmarkConfig(name="photos", kind=BenchmarkKind.photos, root=str(photo_folder))

    def run(checkpoint: Path, **changes: Any) -> dict[str, Any]:
        runs_dir, benchmark = str(tiny_run.folder.parent), photos
        config = EvaluateConfig(
            checkpoint=str(checkpoint), runs_dir=runs_dir, gallery=own_gallery, benchmark=benchmark, device="cpu"
        )
        found: dict[str, Any] = json.loads(evaluate(replace(config, **changes)).read_text())
        return found

    return run


def rewritten(run: Any, **changes: Any) -> TrainConfig:
    """Replace the tiny run's checkpoint by one of another configuration."""
    config = replace(config_of(read_checkpoint(run.best), run.best), **changes)
    tree = weights_tree(build_model(config), 7, config=to_dict(config))
    write_checkpoint(run.best, pack(tree))
    return config


def test_the_card_has_the_runs_numbers(tiny_run: Any, run_evaluate: Callable[..., Any]) -> None:
    result = run_evaluate(tiny_run.folder)
    folder = publish(PublishConfig(checkpoint=str(tiny_run.folder), repo="me/geo", licence="mit"))
    card = ModelCard.load(folder / "README.md")
    assert card.data.license == "mit"
    found = {one.metric_type: one for one in card.data.eval_results}
    assert {one.dataset_type for one in found.values()} == {"photos"}
    for km, cell in result["accuracy_percent"].items():
        assert found[f"accuracy_{km}_km"].metric_value == pytest.approx(cell["value"], abs=1e-4)
    assert found["median_km"].metric_value == pytest.approx(result["median_km"], abs=1e-4)
    low, high = result["geoscore_interval"]
    assert f"{low:.4g} to {high:.4g}" in found["geoscore"].metric_name
    assert accuracy_table([result]).markdown() in card.text
    assert "gallery tiny of 60 locations; 0 of 5 test coordinates" in card.text
    assert "must not be used" in card.text
    assert result["checkpoint_sha256"] in card.text
    assert 'load("me/geo")' in card.text
    assert json.loads((folder / "eval" / "photos.json").read_text()) == result


def test_what_is_published_is_the_model_and_its_gallery(
    tiny_run: Any, run_evaluate: Callable[..., Any], tmp_path: Path
) -> None:
    mine = run_evaluate(tiny_run.folder)
    folder = publish(PublishConfig(checkpoint=str(tiny_run.folder), output=str(tmp_path / "given")))
    tiny_run.gallery_csv.unlink()
    theirs = run_evaluate(folder)
    assert theirs["accuracy_percent"] == mine["accuracy_percent"]
    assert theirs["median_km"] == mine["median_km"]
    assert theirs["gallery_sha256"] == mine["gallery_sha256"]
    assert (theirs["model"], mine["model"]) == ("given", "tiny-1")
    first, pixels = load(folder), torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    for source in (tiny_run.folder, tiny_run.best):
        model = load(source)
        assert torch.equal(model.encode_location(LOCATIONS), first.encode_location(LOCATIONS))
        assert torch.equal(model.encode_image(pixels), first.encode_image(pixels))
    assert torch.equal(load_location_encoder(folder)(LOCATIONS), first.location_encoder(LOCATIONS))


def test_nothing_of_this_machine_is_published(tiny_run: Any, run_evaluate: Callable[..., Any], tmp_path: Path) -> None:
    data = config_of(read_checkpoint(tiny_run.best), tiny_run.best).data
    rewritten(tiny_run, data=replace(data, root=str(tmp_path / "secret"), train=str(tmp_path / "x.tar")))
    run_evaluate(tiny_run.folder)
    folder = publish(PublishConfig(checkpoint=str(tiny_run.folder)))
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {
        *("README.md", "config.json", "gallery.csv", "model.safetensors", "photos.json", "training_config.yaml")
    }
    assert not [path for path in files if str(tmp_path).encode() in path.read_bytes()]


def test_without_an_evaluation_nothing_is_published_unless_forced(tiny_run: Any) -> None:
    with pytest.raises(DataError, match=r"has no evaluation of best.safetensors.*python -m geoclip.evaluate"):
        publish(PublishConfig(checkpoint=str(tiny_run.folder)))
    assert not (tiny_run.folder / "release").exists()
    folder = publish(PublishConfig(checkpoint=str(tiny_run.folder), force=True))
    card = ModelCard.load(folder / "README.md")
    assert "**Not known.**" in card.text
    assert card.data.eval_results is None


def test_numbers_of_another_checkpoint_are_left_out(
    tiny_run: Any, run_evaluate: Callable[..., Any], said: Callable[[], str]
) -> None:
    run_evaluate(tiny_run.folder)
    rewritten(tiny_run, seed=5)
    with pytest.raises(DataError, match="has no evaluation of"):
        publish(PublishConfig(checkpoint=str(tiny_run.folder)))
    assert "left out eval/photos.json: it is of another checkpoint" in said()


@pytest.fixture
def clip_run(tiny_run: Any, tmp_path: Path) -> Any:
    """The paper's kind and sizes, on a tiny CLIP in a folder."""
    clip = EncoderConfig(
        name="clip_vit_l14",
        kind=EncoderKind.clip,
        repo=str(write_tiny_clip(tmp_path / "clip")),
        licence="MIT",
        image_px=28,
        tune=Tune.frozen,
        feature_dim=768,
        hidden_dim=768,
    )
    location = LocationConfig(name="geoclip", sigmas=[1.0, 64.0])
    rewritten(tiny_run, encoder=clip, location=location)
    return tiny_run


def test_the_papers_kind_is_published_for_the_authors_code(
    clip_run: Any, tmp_path: Path, run_evaluate: Callable[..., Any]
) -> None:
    asked = PublishConfig(checkpoint=str(clip_run.folder), repo="me/geo", backbone="a/clip", force=True)
    folder = publish(asked)
    hub = load_released("_hub")
    path, config, weights = hub.read_release(str(folder), "geoclip-geolocation")
    theirs = tiny_released_geoclip(tmp_path / "clip")
    assert config["sigma"] == [1, 64]
    assert config["backbone"] == {"repo_id": "a/clip", "revision": None}
    theirs.location_encoder = load_released("location_encoder").LocationEncoder(
        sigma=config["sigma"], from_pretrained=False
    )
    hub.load_geoclip_weights(theirs, weights)
    ours = load(clip_run.folder)
    assert torch.allclose(theirs.location_encoder(LOCATIONS), ours.location_encoder(LOCATIONS), atol=1e-6)
    assert len(hub.read_gallery(path, config)) == 60
    card = (folder / "README.md").read_text()
    assert "their package, `geoclip` on the package index from version 1.3.0,\nreads them as well" in card
    assert "Image encoder a/clip: MIT" in card
    with_pictures = load(folder, backbone=str(tmp_path / "clip"))
    pixels = torch.zeros(1, 3, 28, 28, dtype=torch.uint8)
    assert torch.equal(with_pictures.encode_image(pixels), ours.encode_image(pixels))
    mine, others = run_evaluate(clip_run.folder), run_evaluate(folder, backbone=str(tmp_path / "clip"))
    assert others["accuracy_percent"] == mine["accuracy_percent"] and others["median_km"] == mine["median_km"]
    assert others["gallery_sha256"] == mine["gallery_sha256"]


def test_a_backbone_from_a_folder_must_be_named(clip_run: Any) -> None:
    with pytest.raises(GeoclipError, match=r"encoder\.repo=.* is a folder of this machine; .*backbone=owner/name"):
        publish(PublishConfig(checkpoint=str(clip_run.folder), force=True))


@pytest.mark.parametrize(
    "change, misfit",
    [
        ({"mean": [0.5, 0.5, 0.5]}, "not prepared as CLIP's"),
        ({"tune": Tune.last_blocks, "last_blocks": 1}, "its backbone was trained"),
    ],
)
def test_a_clip_that_the_authors_layout_cannot_describe_gets_our_own(
    clip_run: Any, change: dict[str, Any], misfit: str, said: Callable[[], str]
) -> None:
    before = config_of(read_checkpoint(clip_run.best), clip_run.best).encoder
    rewritten(clip_run, encoder=replace(before, **change))
    folder = publish(PublishConfig(checkpoint=str(clip_run.folder), backbone="a/clip", force=True))
    assert misfit in said()
    assert json.loads((folder / "config.json").read_text())["model_type"] == "geoclip-ablations"
    theirs, ours = load(folder, backbone=before.repo), load(clip_run.folder)
    pixels = torch.arange(2352, dtype=torch.uint8).reshape(1, 3, 28, 28)
    assert torch.equal(theirs.encode_image(pixels), ours.encode_image(pixels))


def test_a_location_encoder_of_another_kind_is_published_too(tiny_run: Any) -> None:
    location = LocationConfig(
        name="sh", kind=LocationKind.spherical_harmonics, degree=4, hidden_dim=8, depth=2, embedding_dim=8
    )
    rewritten(tiny_run, location=location)
    folder = publish(PublishConfig(checkpoint=str(tiny_run.folder), force=True))
    theirs, ours = load(folder), load(tiny_run.folder)
    assert torch.equal(theirs.encode_location(LOCATIONS), ours.encode_location(LOCATIONS))
    assert "spherical_harmonics, 8 dimensions" in (folder / "README.md").read_text()


def test_push_sends_the_folder_and_a_dry_run_sends_nothing(
    tiny_run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = PublishConfig(checkpoint=str(tiny_run.folder), repo="me/geo", licence="mit", force=True)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    with serving(monkeypatch) as hub:
        publish(asked)
        assert not hub.made
        folder = publish(replace(asked, push=True))
        names = {"README.md", "config.json", "gallery.csv", "model.safetensors", "training_config.yaml"}
        assert set(hub.files["me/geo"]) == names
        there = load("me/geo", cache_dir=tmp_path / "cache")
    assert torch.equal(there.encode_location(LOCATIONS), load(folder).encode_location(LOCATIONS))


@pytest.mark.parametrize(
    "config, begin",
    [
        ({"checkpoint": "official"}, "checkpoint=official:"),
        ({"checkpoint": "runs/none"}, "checkpoint=runs/none:"),
        ({"repo": "geo"}, "repo=geo:"),
        ({"push": True, "licence": "mit"}, "push=true:"),
        ({"push": True, "repo": "me/geo"}, "push=true:"),
        ({"backbone": "/models/clip"}, "backbone=/models/clip:"),
        ({"output": __file__}, f"output={__file__}:"),
    ],
)
def test_what_cannot_be_published_is_named(config: dict[str, Any], begin: str) -> None:
    assert any(problem.startswith(begin) for problem in publish_problems(PublishConfig(**config)))
