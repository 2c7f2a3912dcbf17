"""Every layout that GeoCLIP's weights come in, read; the authors' own, written and read by the authors' code."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from geoclip import load, load_location_encoder
from geoclip.errors import AssetError, CheckpointError
from geoclip.model.geoclip import GeoCLIP
from geoclip.model.image_encoder import ImageEncoder
from geoclip.model.location_encoder import LocationEncoder
from geoclip.pretrained.exporting import write_authors_layout
from tests.model.released import load_released, tiny_released_geoclip, write_tiny_clip

LOCATIONS = torch.tensor([[48.86, 2.35], [-33.9, 151.2], [0.0, 180.0]])
SIGMAS = [2.0, 64.0]


def small_model(seed: int = 0) -> GeoCLIP:
    """Of the authors' kind, but narrow."""
    torch.manual_seed(seed)
    encoder = LocationEncoder(SIGMAS, frequencies=4, hidden_dim=8, depth=2, embedding_dim=6)
    return GeoCLIP(ImageEncoder(None, feature_dim=10, hidden_dim=7, embedding_dim=6), encoder).eval()


def write_release(folder: Path, model: GeoCLIP, revision: str | None = None) -> Path:
    folder.mkdir()
    (folder / "gallery.csv").write_text("LAT,LON\n48.86,2.35\n-33.9,151.2\n")
    write_authors_layout(folder, model, backbone="a/clip", revision=revision)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_release(tmp_path / "release", small_model())


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_what_is_written_is_read(folder: Path) -> None:
    assert same(load(folder, backbone=None), small_model())
    encoder = load_location_encoder(str(folder))
    assert same(encoder, small_model().location_encoder)
    assert encoder.sigmas == tuple(SIGMAS)


def test_the_authors_code_reads_what_is_written_here(tmp_path: Path) -> None:
    model = load("official", backbone=None)
    write_release(tmp_path / "release", model, "abc")
    hub = load_released("_hub")
    path, config, weights = hub.read_release(str(tmp_path / "release"), "geoclip-geolocation")
    theirs = tiny_released_geoclip(write_tiny_clip(tmp_path / "clip"))
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.zero_()
    hub.load_geoclip_weights(theirs, weights)
    assert torch.equal(theirs.logit_scale, model.logit_scale)
    assert torch.allclose(theirs.location_encoder(LOCATIONS), model.location_encoder(LOCATIONS), atol=1e-6)
    features = torch.randn(2, 768)
    assert torch.allclose(theirs.image_encoder.mlp(features), model.image_encoder.head(features), atol=1e-6)
    assert hub.read_gallery(path, config).tolist() == torch.tensor([[48.86, 2.35], [-33.9, 151.2]]).tolist()
    assert config["sigma"] == [1, 16, 256]
    assert config["backbone"] == {"repo_id": "a/clip", "revision": "abc"}


def test_what_the_authors_publish_is_read_here(tmp_path: Path) -> None:
    """Their weights under the names that their `load_geoclip_weights` insists on, at other scales than the default."""
    torch.manual_seed(3)
    theirs = load_released("location_encoder").LocationEncoder(sigma=[4, 32], from_pretrained=False)
    mlp = torch.nn.Sequential(torch.nn.Linear(768, 768), torch.nn.ReLU(), torch.nn.Linear(768, 512))
    tensors = {f"location_encoder.{name}": one for name, one in theirs.state_dict().items()}
    tensors |= {f"image_encoder.mlp.{name}": one for name, one in mlp.state_dict().items()}
    safetensors.torch.save_file(tensors | {"logit_scale": torch.tensor(3.0)}, tmp_path / "model.safetensors")
    config = {"model_type": "geoclip-geolocation", "format_version": 1, "sigma": [4, 32]}
    clip = write_tiny_clip(tmp_path / "clip")
    config |= {"gallery_file": "g.csv", "backbone": {"repo_id": str(clip), "revision": "any"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "g.csv").write_text("LAT,LON\n1,2\n")
    ours = load(tmp_path)
    assert torch.allclose(ours.location_encoder(LOCATIONS), theirs(LOCATIONS), atol=1e-6)
    features = torch.randn(2, 768)
    assert torch.allclose(ours.image_encoder.head(features), mlp(features), atol=1e-6)
    assert ours.logit_scale.item() == 3
    assert ours.image_encoder.backbone is not None


def test_the_location_encoder_that_the_authors_publish_alone(tmp_path: Path) -> None:
    torch.manual_seed(4)
    theirs = load_released("location_encoder").LocationEncoder(sigma=[8], from_pretrained=False)
    safetensors.torch.save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    config = {"model_type": "geoclip-location-encoder", "format_version": 1, "sigma": [8]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert torch.allclose(load_location_encoder(tmp_path)(LOCATIONS), theirs(LOCATIONS), atol=1e-6)
    with pytest.raises(CheckpointError, match="load_location_encoder"):
        load(tmp_path)


def lightning_names(model: GeoCLIP, prefix: str, *, as_sequence: bool) -> dict[str, torch.Tensor]:
    """A state dict as the re-implementation's checkpoints have it, CLIP's tensors and a queue among them."""
    names = {"logit_scale": model.logit_scale.detach()}
    for number, branch in enumerate(model.location_encoder.branches):  # type: ignore[arg-type]
        layer = f"location_encoder.LocationEncoderLayer{number}"
        names[f"{layer}.fourier_encoding.batch"] = branch.freq_KA
        linears = [one for one in branch.mlp if isinstance(one, torch.nn.Linear)]
        for row, linear in enumerate(linears, start=1):
            names |= {f"{layer}.linear{row}.{part}": tensor for part, tensor in linear.state_dict().items()}
        names |= {f"{layer}.head.0.{part}": tensor for part, tensor in branch.head.state_dict().items()}
    called = ("linear_layers.0", "linear_layers.2") if as_sequence else ("linear1", "linear2")
    for row, name in zip((0, 2), called, strict=True):
        for part, tensor in model.image_encoder.head[row].state_dict().items():
            names[f"image_encoder.{name}.{part}"] = tensor
    names["image_encoder.clip_model.visual_projection.weight"] = torch.zeros(2, 2)
    names["gps_queue"] = torch.zeros(2, 4)
    return {prefix + name: tensor for name, tensor in names.items()}


@pytest.mark.parametrize("prefix", ["", "model.", "net."])
@pytest.mark.parametrize("as_sequence", [False, True])
def test_a_lightning_checkpoint(tmp_path: Path, prefix: str, as_sequence: bool) -> None:
    torch.manual_seed(0)
    model = GeoCLIP(
        small_model().image_encoder,
        LocationEncoder([1.0, 16.0, 256.0], frequencies=256, hidden_dim=8, depth=3, embedding_dim=6),
    ).eval()
    state = lightning_names(model, prefix, as_sequence=as_sequence)
    torch.save({"state_dict": state, "epoch": 3, "pytorch-lightning_version": "2.1"}, tmp_path / "last.ckpt")
    ours = load(tmp_path / "last.ckpt", backbone=None)
    assert same(ours, model)
    assert ours.location_encoder.sigmas == (1, 16, 256)
    assert same(load_location_encoder(tmp_path / "last.ckpt"), model.location_encoder)


def test_unknown_tensors_are_named(tmp_path: Path) -> None:
    state = lightning_names(small_model(), "", as_sequence=False)
    torch.save({"state_dict": state | {"decoder.weight": torch.zeros(1)}}, tmp_path / "odd.ckpt")
    with pytest.raises(CheckpointError, match=r"odd\.ckpt: 'decoder\.weight'"):
        load(tmp_path / "odd.ckpt")


class Trap:
    """What a hostile pickle does: it calls something."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_pickle_is_never_executed(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    torch.save({"state_dict": {"logit_scale": torch.zeros(())}, "hyper": Trap(sprung)}, tmp_path / "bad.ckpt")
    with pytest.raises(CheckpointError, match=r"bad\.ckpt"):
        load(tmp_path / "bad.ckpt")
    (tmp_path / "worse.ckpt").write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(CheckpointError, match=r"worse\.ckpt"):
        load(tmp_path / "worse.ckpt")
    assert not sprung.exists()


def change(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"model_type": "bert"}, "model_type='bert'"),
        ({"format_version": 2}, "format_version=2"),
        ({"sigma": None}, "sigma=None"),
        ({"sigma": [1, 16, 256]}, r"2 scales.*sigma.*\[1\.0, 16\.0, 256\.0\]"),
        ({"gallery_file": "../locations.csv"}, r"gallery_file='\.\./locations\.csv'"),
        ({"gallery_file": "gone.csv"}, "gallery_file='gone.csv'"),
        ({"backbone": "a/clip"}, "backbone='a/clip'"),
    ],
)
def test_a_config_that_does_not_fit_names_key_and_value(folder: Path, values: dict[str, Any], named: str) -> None:
    change(folder, **values)
    with pytest.raises(CheckpointError, match=named):
        load(folder, backbone=None)


def retensor(folder: Path, **changed: torch.Tensor | None) -> None:
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path) | changed
    safetensors.torch.save_file({name: one for name, one in tensors.items() if one is not None}, path)


def test_tensors_that_do_not_fit_are_named_as_in_their_file(folder: Path) -> None:
    name = "location_encoder.LocEnc1.capsule.1.weight"
    retensor(folder, **{name: torch.zeros(3, 3)})
    with pytest.raises(CheckpointError, match=rf"{name} .*\(3, 3\).*\(8, 8\)"):
        load(folder, backbone=None)
    retensor(folder, **{name: None})
    with pytest.raises(CheckpointError, match=f"missing {name};"):
        load(folder, backbone=None)
    retensor(folder, **{"location_encoder.LocEnc1.scale": torch.zeros(3)})
    with pytest.raises(CheckpointError, match=r"'location_encoder\.LocEnc1\.scale'"):
        load(folder, backbone=None)
    (folder / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        load(folder, backbone=None)


def test_a_backbone_of_another_width_is_refused(folder: Path, tmp_path: Path) -> None:
    clip = write_tiny_clip(tmp_path / "clip")
    with pytest.raises(CheckpointError, match=r" 10 features, .*clip .* 768"):
        load(folder, backbone=str(clip))


@pytest.mark.parametrize("source", ["./gone", "/gone/away", Path("gone"), "gone.ckpt"])
def test_a_missing_path_is_not_looked_up_on_the_hub(source: Any) -> None:
    with pytest.raises(AssetError, match="does not exist"):
        load(source)
