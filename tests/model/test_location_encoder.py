"""The location encoder against the released implementation and weights, run under another name."""

from __future__ import annotations

import pytest
import torch

from geoclip import load, load_location_encoder
from geoclip.data.assets import asset_path
from geoclip.errors import AssetError
from geoclip.geo.encodings import equal_earth
from geoclip.geo.geodesy import uniform_on_sphere
from geoclip.model.location_encoder import FourierBranch, LocationEncoder
from tests.model.released import load_released

CORNERS = [[90.0, 0.0], [-90.0, 0.0], [90.0, 180.0], [0.0, 180.0], [0.0, -180.0], [0.0, 0.0], [-33.9, 179.99999]]


@pytest.fixture(scope="module")
def released() -> torch.nn.Module:
    encoder: torch.nn.Module = load_released("location_encoder").LocationEncoder(from_pretrained=False)
    weights = torch.load(asset_path("location_encoder.pth"), weights_only=True)
    encoder.load_state_dict(weights)
    return encoder.eval()


@pytest.fixture(scope="module")
def ours() -> LocationEncoder:
    encoder = load_location_encoder("official")
    assert isinstance(encoder, LocationEncoder)
    return encoder


@torch.inference_mode()
def test_agrees_at_poles_antimeridian_and_origin(ours: LocationEncoder, released: torch.nn.Module) -> None:
    torch.testing.assert_close(ours(torch.tensor(CORNERS)), released(torch.tensor(CORNERS)), atol=1e-5, rtol=0)


def test_has_as_many_parameters_as_the_released_one(ours: LocationEncoder) -> None:
    assert sum(tensor.numel() for tensor in ours.state_dict().values()) == 9_449_472


def test_official_model_without_its_backbone() -> None:
    model = load("official", backbone=None)
    assert model.logit_scale.item() == pytest.approx(3.6810, abs=1e-4)
    assert sum(parameter.numel() for parameter in model.image_encoder.head.parameters()) == 984_320
    assert model.encode_features(torch.randn(3, 768)).norm(dim=1).tolist() == pytest.approx([1, 1, 1])
    with pytest.raises(RuntimeError, match="no backbone"):
        model.encode_image(torch.zeros(1, 3, 224, 224, dtype=torch.uint8))
    with pytest.raises(AssetError, match="'offical'"):
        load("offical")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_hidden_layers_in_one_kernel_give_what_the_layers_give(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    encoder = LocationEncoder([1.0, 16.0], frequencies=32, hidden_dim=48, depth=2, embedding_dim=24)
    x_NA = encoder.projected(uniform_on_sphere(300, torch.Generator().manual_seed(1)))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        for branch in encoder.branches:
            assert isinstance(branch, FourierBranch)
            found, expected = branch.without_gradient(x_NA), branch(x_NA)
            assert found.dtype == dtype and not found.requires_grad
            error = (found.float() - expected.float()).norm() / expected.float().norm()
            assert error < (1e-6 if dtype == torch.float32 else 2e-2)


def test_phases_are_float32_under_autocast() -> None:
    torch.manual_seed(0)
    encoder = LocationEncoder([256.0], frequencies=64, hidden_dim=32, depth=1, embedding_dim=16)
    gps_deg = torch.rand(64, 2) * 100
    exact = encoder(gps_deg)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coarse = encoder(gps_deg).float()
    # bfloat16 phases of hundreds of radians would make the features, and so the outputs, unrelated
    assert torch.nn.functional.cosine_similarity(exact, coarse).min() > 0.999


def test_scales_are_summed() -> None:
    torch.manual_seed(0)
    encoder = LocationEncoder([1.0, 8.0], frequencies=8, hidden_dim=16, depth=2, embedding_dim=4)
    gps_deg = torch.tensor([[10.0, 20.0]])
    both = encoder(gps_deg)
    parts = [branch(equal_earth(gps_deg)) for branch in encoder.branches]
    torch.testing.assert_close(both, parts[0] + parts[1])
    assert parts[1].abs().max() > 1e-3


def test_coordinates_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(N, 2\)"):
        LocationEncoder([1.0], frequencies=4, hidden_dim=4)(torch.zeros(3))
