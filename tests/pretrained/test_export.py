"""An exported location encoder has the same embeddings, also at the edges of projections."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file
from torch import nn

from geoclip import load_location_encoder
from geoclip.config import ExportConfig, ExportFormat, export_problems, typed
from geoclip.config.composed import conf_dir
from geoclip.data.assets import asset_path
from geoclip.errors import GeoclipError
from geoclip.export import export
from geoclip.model.embedding import embed_locations
from geoclip.model.location_baselines import DirectEncoder, Sphere2VecEncoder, SphericalHarmonicsEncoder
from geoclip.model.location_encoder import LocationEncoder
from geoclip.pretrained import exporting

SMALL: dict[str, Any] = {"hidden_dim": 16, "embedding_dim": 8}


def kinds() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "geoclip": LocationEncoder((1.0, 16.0), frequencies=8, **SMALL),
        "sphere": LocationEncoder((1.0, 16.0), frequencies=8, projection="sphere", concat=True, **SMALL),
        "direct": DirectEncoder(**SMALL),
        "harmonics": SphericalHarmonicsEncoder(degree=4, **SMALL),
        "sphere2vec": Sphere2VecEncoder(scales=4, **SMALL),
    }


@pytest.mark.parametrize("kind", kinds())
def test_every_kind_of_encoder_becomes_a_program_and_a_script(kind: str, tmp_path: Path) -> None:
    encoder, locations = kinds()[kind].eval(), exporting.comparison_deg(300)
    exporting.export_torch(encoder, tmp_path / "encoder.pt2")
    exporting.export_torchscript(encoder, tmp_path / "encoder.pt")
    for opened in (
        exporting.open_torch_export(tmp_path / "encoder.pt2"),
        exporting.open_torchscript(tmp_path / "encoder.pt"),
    ):
        assert exporting.largest_difference(encoder, opened, locations) < 1e-6
        for count in (1, 2, 3000):  # it was traced with 7
            assert opened(np.zeros((count, 2), dtype=np.float32)).shape == (count, 8)


@pytest.mark.parametrize("kind", ["geoclip", "harmonics"])
def test_onnx_gives_the_same_in_another_program(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    onnxruntime: Any = pytest.importorskip("onnxruntime")
    encoder = kinds()[kind].eval()
    exporting.export_onnx(encoder, tmp_path / "encoder.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.onnx"]
    session = onnxruntime.InferenceSession(str(tmp_path / "encoder.onnx"))
    (given,), (made,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape[1], made.name, made.shape[1]) == ("gps_deg", 2, "embedding", 8)
    assert isinstance(given.shape[0], str)
    opened = exporting.open_onnx(tmp_path / "encoder.onnx")
    assert exporting.largest_difference(encoder, opened, exporting.comparison_deg(300)) < 1e-5


@pytest.mark.slow
def test_the_released_encoder_in_onnx_differs_by_its_phases_rounding(tmp_path: Path) -> None:
    """At sigma 2^8 a rounding difference of the projection reaches the phase 2 pi * 256 * 3 times as large."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    encoder = load_location_encoder("official")
    exporting.export_onnx(encoder, tmp_path / "official.onnx")
    opened = exporting.open_onnx(tmp_path / "official.onnx")
    assert exporting.largest_difference(encoder, opened, exporting.comparison_deg(300)) < 5e-4


def test_safetensors_have_the_names_of_the_authors_file(tmp_path: Path) -> None:
    encoder = load_location_encoder("official")
    exporting.export_safetensors(encoder, tmp_path)
    released = torch.load(asset_path("location_encoder.pth"), weights_only=True)
    written = load_file(tmp_path / "model.safetensors")
    assert written.keys() == released.keys()
    assert all(torch.equal(written[name], released[name]) for name in released)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config == {"model_type": "geoclip-location-encoder", "format_version": 1, "sigma": [1, 16, 256]}


def test_safetensors_are_read_back_whatever_the_dimensions(tmp_path: Path) -> None:
    encoder = LocationEncoder((0.5, 16.0), frequencies=8, depth=2, **SMALL).eval()
    exporting.export_safetensors(encoder, tmp_path)
    again = load_location_encoder(str(tmp_path))
    assert again.sigmas == (0.5, 16.0)
    locations = exporting.comparison_deg(50)
    assert (embed_locations(encoder, locations) == embed_locations(again, locations)).all()


NOT_THE_AUTHORS = [
    LocationEncoder((1.0,), frequencies=4, projection="mercator", **SMALL),
    LocationEncoder((1.0, 2.0), frequencies=4, concat=True, **SMALL),
    LocationEncoder((1.0, 2.0), frequencies=4, share_mlp=True, **SMALL),
    DirectEncoder(**SMALL),
]


@pytest.mark.parametrize("encoder", NOT_THE_AUTHORS, ids=["mercator", "concat", "shared", "direct"])
def test_kinds_that_the_authors_layout_cannot_store_are_refused(encoder: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(GeoclipError, match=f"{type(encoder).__name__}; format=onnx"):
        exporting.export_safetensors(encoder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["torch_export", "torchscript", "safetensors"])
def test_the_command_writes_reads_back_and_compares(form: str, tiny_run: Any, tmp_path: Path) -> None:
    output = tmp_path / "exported.pt2"
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        overrides = [f"checkpoint={tiny_run.folder}", f"format={form}", f"output={output}"]
        overrides.append(f"compare_on={tiny_run.gallery_csv}")
        config = typed(compose("export", overrides), ExportConfig, export_problems)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written, difference = export(config)
    assert written == output and difference < 1e-6
    assert "overwrite=true" in export_problems(config)[0]


PROBLEMS: list[tuple[dict[str, Any], str]] = [
    ({"output": "a.pt", "format": ExportFormat.torch_export}, "output=a.pt:"),
    ({"output": ".", "format": ExportFormat.torchscript}, "output=.:"),
    ({"output": "exists", "format": ExportFormat.safetensors}, "output=exists:"),
    ({"output": "exists", "format": ExportFormat.torchscript}, "output=exists:"),
    ({"output": "b.pt", "compare_on": "no.csv", "format": ExportFormat.torchscript}, "compare_on=no.csv:"),
    ({"output": "b.pt", "checkpoint": "no", "format": ExportFormat.torchscript}, "checkpoint=no:"),
]


@pytest.mark.parametrize(("settings", "named"), PROBLEMS, ids=lambda value: str(value)[:40])
def test_what_cannot_be_exported_is_named(
    settings: dict[str, Any], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("exists").touch()
    problems = export_problems(ExportConfig(**settings))
    assert len(problems) == 1 and problems[0].startswith(named)
