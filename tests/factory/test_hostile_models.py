"""Untrusted models: configurations are data, names are text, and nothing in them is executed."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from geoclip import load
from geoclip.config import BenchmarkConfig, BenchmarkKind, EvaluateConfig, GalleryConfig, PublishConfig
from geoclip.errors import CheckpointError, DataError, GeoclipError
from geoclip.evaluate import evaluate
from geoclip.factory.publishing import CardFacts, model_card
from geoclip.pretrained.releases import read_release
from geoclip.publish import publish
from geoclip.runs.run_dir import read_json, read_yaml
from geoclip.studies.results import study_results
from geoclip.training.checkpoint import pack, read_checkpoint, write_checkpoint

SECRET = "wJalrXUtnFEMI-not-to-be-seen"


@pytest.fixture
def published(tiny_run: Any, tmp_path: Path) -> Path:
    return publish(PublishConfig(checkpoint=str(tiny_run.folder), output=str(tmp_path / "given"), force=True))


def set_key(node: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        node = node[part]
    node[last] = value


HOSTILE = [
    ("encoder.repo", "${oc.env:GEOCLIP_TEST_SECRET}"),
    ("encoder.repo", "https://example.com/${oc.env:GEOCLIP_TEST_SECRET}"),
    ("name", "${oc.decode:${oc.env:GEOCLIP_TEST_SECRET}}"),
    ("study.by", ["${oc.env:GEOCLIP_TEST_SECRET}"]),
    ("location.sigmas", ["${oc.env:GEOCLIP_TEST_SECRET}"]),
    ("encoder.repo", "???"),
    ("encoder", "${location}"),
    ("encoder._target_", "os.system"),
    ("more", {"key": 1}),
    ("location.hidden_dim", "wide"),
    ("name", "../../evil"),
    ("data.name", "a\u001b[31mb"),
    ("location.sigma_min", float("nan")),
    ("compute.device", "banana"),
]


@pytest.mark.parametrize(("key", "value"), HOSTILE)
def test_a_configuration_saved_with_weights_is_plain_data(
    published: Path, tiny_run: Any, monkeypatch: pytest.MonkeyPatch, key: str, value: Any
) -> None:
    monkeypatch.setenv("GEOCLIP_TEST_SECRET", SECRET)
    held = json.loads((published / "config.json").read_text())
    set_key(held["config"], key, value)
    (published / "config.json").write_text(json.dumps(held))
    tree = read_checkpoint(tiny_run.best)
    tree["config"] = held["config"]
    write_checkpoint(tiny_run.best, pack(tree))
    for source, file in ((published, "config.json"), (tiny_run.folder, "best.safetensors")):
        with pytest.raises(CheckpointError) as refused:
            load(source, backbone=None)
        assert file in str(refused.value) and key.split(".")[-1] in str(refused.value)
        assert SECRET not in str(refused.value)


def test_an_invalid_config_json_is_named(published: Path) -> None:
    held = json.loads((published / "config.json").read_text())
    wrong: list[Any] = [None, [], "text", {"encoder": None}]
    shapes = [json.dumps(held | {"config": config}) for config in wrong]
    for text in [*shapes, "[" * 100_000, "[]", '{"model_type": ', "\udcff"]:
        (published / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(CheckpointError, match=str(published)):
            load(published, backbone=None)


def test_a_release_must_contain_its_gallery(published: Path) -> None:
    held = json.loads((published / "config.json").read_text())
    held.pop("gallery_file")
    held["config"]["gallery"]["path"] = "/etc/hostname"
    (published / "config.json").write_text(json.dumps(held))
    with pytest.raises(CheckpointError, match="gallery_file"):
        load(published, backbone=None)


@pytest.mark.parametrize(
    "text",
    ["a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "a: !!python/object/apply:os.system [id]\n", "- a\n", "a: ["],
)
def test_a_runs_yaml_is_plain_data(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(DataError, match=r"config\.yaml"):
        read_yaml(tmp_path / "config.yaml")
    (tmp_path / "x.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"x\.json"):
        read_json(tmp_path / "x.json")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("executed"),)


@pytest.mark.parametrize("frequencies", [torch.zeros(4, 2), torch.full((4, 2), torch.nan), torch.ones(1, 1)])
def test_a_lightning_checkpoint_is_tensors_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frequencies: torch.Tensor
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("evil.ckpt").write_bytes(pickle.dumps({"state_dict": Evil()}))
    with pytest.raises(CheckpointError, match=r"evil\.ckpt"):
        read_release([Path("evil.ckpt")])
    assert not Path("executed").exists()
    torch.save({"state_dict": {"location_encoder.LocationEncoderLayer0.fourier_encoding.b": frequencies}}, "flat.ckpt")
    with pytest.raises(CheckpointError, match=r"flat\.ckpt: .*frequencies"):
        read_release([Path("flat.ckpt")])


NAME = "<img src=x onerror=alert(1)>|[a](javascript:alert(1))"


def test_a_card_shows_names_as_text(tiny_run: Any) -> None:
    config = read_checkpoint(tiny_run.best)["config"]
    for group in ("data", "encoder", "location", "loss", "gallery"):
        config[group]["name"] = NAME
    result: dict[str, Any] = {
        **dict.fromkeys(("benchmark", "gallery", "tta"), NAME),
        "n": 5,
        "gallery_size": 60,
        "verbatim_in_gallery": 0,
        "accuracy_percent": {"1": {"value": 1.0, "low": 0.0, "high": 2.0}},
        "median_km": 1.0,
        "median_km_interval": [0.0, 2.0],
        "geoscore": 1.0,
        "geoscore_interval": [0.0, 2.0],
    }
    facts = CardFacts(
        name=NAME, repo="", licence=NAME, config=config, provenance={}, authors_layout=False, authors_sizes=False,
        gallery_size=60, step=1, checkpoint_sha256="abc", git_revision="def",
    )  # fmt: skip
    _, head, text = model_card(facts, [result]).split("---\n", 2)
    assert NAME in head.replace("\n", " ") or "onerror" in head  # YAML, which quotes it
    assert "<img" not in text and "](javascript" not in text.replace("\\]", "")
    assert text.count("&lt;img src=x onerror=alert(1)&gt;") >= 8


def test_a_result_is_printed_before_it_is_saved(
    tiny_run: Any, photo_folder: Path, own_gallery: GalleryConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    (tiny_run.folder / "eval").write_text("a file where the folder should be")
    config = EvaluateConfig(
        checkpoint=str(tiny_run.folder),
        gallery=own_gallery,
        benchmark=BenchmarkConfig(name="photos", kind=BenchmarkKind.photos, root=str(photo_folder)),
        device="cpu",
    )
    with pytest.raises(GeoclipError, match=r"eval/photos\.json"):
        evaluate(config)
    assert "photos" in capsys.readouterr().out


def test_a_study_writes_no_file_that_a_run_names(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("study: {by: [seed], benchmarks: [../../evil]}\n")
    with pytest.raises(DataError, match=r"\.\./\.\./evil"):
        study_results([tmp_path], by=["seed"])
