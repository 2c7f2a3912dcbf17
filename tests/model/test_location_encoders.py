"""What distinguishes the location encoders: seams, poles, harmonics, shared parts, and a warm start."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import sph_harm_y
from torch import Tensor, nn

from geoclip import load_location_encoder
from geoclip.config import Combine, LocationConfig, LocationKind, Projection, Sphere2VecKind
from geoclip.errors import GeoclipError
from geoclip.factory.model import build_location_encoder, sigmas_of
from geoclip.geo.encodings import equirectangular, mercator, real_spherical_harmonics, sphere
from geoclip.geo.geodesy import uniform_on_sphere
from geoclip.model.location_baselines import sphere2vec_features
from geoclip.model.location_encoder import PROJECTIONS, FourierBranch, LocationEncoder
from geoclip.pretrained.releases import take_up_scales

SMALL: dict[str, Any] = {"frequencies": 8, "hidden_dim": 16, "depth": 2, "embedding_dim": 12}
VARIANTS: list[tuple[LocationKind, str, dict[str, Any]]] = [
    *((LocationKind.fourier, one.value, {"projection": one}) for one in Projection),
    (LocationKind.fourier, "concat", {"combine": Combine.concat}),
    (LocationKind.fourier, "shared", {"share_mlp": True}),
    (LocationKind.fourier, "learnt", {"learn_frequencies": True}),
    (LocationKind.fourier, "spaced", {"sigmas": None, "scales": 2}),
    (LocationKind.spherical_harmonics, "", {}),
    *((LocationKind.sphere2vec, one.value, {"sphere2vec": one}) for one in Sphere2VecKind),
    *((LocationKind.direct, one.value, {"projection": one}) for one in Projection),
]
KINDS = [
    LocationConfig(name=f"{kind.value}-{extra}", kind=kind, degree=6, **SMALL, **values)
    for kind, extra, values in VARIANTS
]
EVERYWHERE = uniform_on_sphere(64, torch.Generator().manual_seed(0))


def built(location: LocationConfig) -> nn.Module:
    torch.manual_seed(0)
    return build_location_encoder(location)


@pytest.mark.parametrize("location", KINDS, ids=lambda one: one.name)
def test_every_encoder_takes_degrees_and_has_gradients(location: LocationConfig) -> None:
    encoder = built(location)
    corners = torch.tensor([[90.0, 0], [-90, 0], [0, 180], [0, -180], [0, 0]])
    out = encoder(torch.cat((EVERYWHERE, corners)))
    assert out.shape == (69, 12) and out.isfinite().all()
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())
    assert (out[0] - out[1]).abs().max() > 1e-4
    torch.testing.assert_close(encoder.double().float()(EVERYWHERE), out[:64], atol=1e-3, rtol=1e-3)
    with pytest.raises(ValueError, match=r"\(N, 2\)"):
        encoder(torch.zeros(3))


def jump(encoder: nn.Module, here: list[float], there: list[float]) -> float:
    with torch.no_grad():
        one, other = encoder(torch.tensor([here, there]))
    return float((one - other).norm() / (one.norm() + other.norm()))


def test_on_the_sphere_there_is_no_seam_and_no_pole() -> None:
    seam = ([10.0, 179.9999], [10.0, -179.9999])
    pole = ([89.9999, 0.0], [89.9999, 120.0])
    flat = built(LocationConfig(name="flat", sigmas=[4.0], **SMALL))
    ball = built(LocationConfig(name="ball", sigmas=[4.0], projection=Projection.sphere, **SMALL))
    harmonic = built(LocationConfig(name="sh", kind=LocationKind.spherical_harmonics, **SMALL))
    assert jump(flat, *seam) > 0.01 and jump(flat, *pole) > 0.01
    for smooth in (ball, harmonic):
        assert jump(smooth, *seam) < 1e-3 and jump(smooth, *pole) < 1e-3


def test_a_sigma_means_the_same_detail_on_every_projection() -> None:
    km = 111.195  # a degree of the equator, at (0, 0)
    for name, (project, axes) in PROJECTIONS.items():
        step = project(torch.tensor([[0.0, 1.0]])) - project(torch.tensor([[0.0, 0.0]]))
        assert step.shape == (1, axes)
        assert step.norm().item() == pytest.approx(km / 20015.1, rel=0.13), name


def test_projections_at_locations_with_known_coordinates() -> None:
    locations = torch.tensor([[45.0, 90.0], [-85.051129, -180.0], [90.0, 0.0]])
    assert equirectangular(locations).tolist()[0] == [0.5, 0.25]
    x, y = mercator(locations).unbind(1)
    assert x.tolist() == [0.5, -1, 0]
    assert y.tolist() == pytest.approx([math.asinh(1) / math.pi, -1, 1], abs=1e-5)
    assert (math.pi * sphere(locations))[0].tolist() == pytest.approx([0, 0.5**0.5, 0.5**0.5], abs=1e-6)


def test_harmonics_are_those_of_scipy() -> None:
    gps_deg, degree = EVERYWHERE.double(), 12
    ours = real_spherical_harmonics(gps_deg, degree).numpy()
    polar, azimuth = np.deg2rad(90 - gps_deg[:, 0].numpy()), np.deg2rad(gps_deg[:, 1].numpy())
    for degree_l in range(degree):
        for m in range(degree_l + 1):
            theirs = (-1) ** m * sph_harm_y(degree_l, m, polar, azimuth) * (2**0.5 if m else 1)
            middle = degree_l**2 + degree_l
            np.testing.assert_allclose(ours[:, middle + m], theirs.real, atol=1e-12)
            if m:
                np.testing.assert_allclose(ours[:, middle - m], theirs.imag, atol=1e-12)


def test_sphere2vec_at_the_coarsest_scale_is_the_sphere_itself() -> None:
    features: Tensor = sphere2vec_features(EVERYWHERE, torch.ones(1), "sphere_c")
    expected = math.pi * sphere(EVERYWHERE)[:, [2, 0, 1]]
    torch.testing.assert_close(features, expected, atol=1e-6, rtol=1e-5)


def test_scales_are_evenly_spaced_in_the_logarithm() -> None:
    spaced = LocationConfig(name="", sigmas=None, sigma_min=1, sigma_max=256, scales=5)
    assert sigmas_of(spaced) == pytest.approx([1, 4, 16, 64, 256])


def test_scales_side_by_side_have_a_part_each_and_shared_ones_the_same_weights() -> None:
    side = built(LocationConfig(name="", combine=Combine.concat, **SMALL))
    assert isinstance(side, LocationEncoder)
    x = PROJECTIONS["equal_earth"][0](EVERYWHERE)
    assert isinstance(side.branches[1], FourierBranch)
    torch.testing.assert_close(side(EVERYWHERE)[:, 4:8], side.branches[1](x))
    shared = built(LocationConfig(name="", share_mlp=True, **SMALL))
    separate = built(LocationConfig(name="", **SMALL))
    count = [sum(p.numel() for p in one.parameters()) for one in (shared, separate)]
    assert 3 * count[0] == count[1]


def test_a_new_scale_starts_at_zero_beside_the_copied_ones() -> None:
    torch.manual_seed(1)
    trained = LocationEncoder([1.0, 16.0], **SMALL)
    finer = LocationEncoder([1.0, 16.0, 4096.0], **SMALL)
    assert take_up_scales(finer, trained, freeze=True) == [1.0, 16.0]
    torch.testing.assert_close(finer(EVERYWHERE), trained(EVERYWHERE))
    learnt = {name.split(".")[1] for name, p in finer.named_parameters() if p.requires_grad}
    assert learnt == {"2"}
    finer(EVERYWHERE).square().sum().backward()
    new = finer.branches[2]
    assert isinstance(new, FourierBranch) and new.head.weight.grad is not None
    assert new.head.weight.grad.abs().max() > 0
    with pytest.raises(ValueError, match=r"none of the sigmas \[2.0\]"):
        take_up_scales(LocationEncoder([2.0], **SMALL), trained)
    with pytest.raises(ValueError, match=r"the scale 1: .*size mismatch"):
        take_up_scales(LocationEncoder([1.0], **(SMALL | {"hidden_dim": 8})), trained)


def test_the_released_scales_are_copied_by_their_sigma() -> None:
    official = load_location_encoder("official")
    finer = built(LocationConfig(name="", sigmas=[1, 16, 256, 4096], init="official"))
    torch.testing.assert_close(finer(EVERYWHERE), official(EVERYWHERE))
    with pytest.raises(GeoclipError, match=r"location\.init=official: none of the sigmas"):
        built(LocationConfig(name="", sigmas=[4096], init="official"))
