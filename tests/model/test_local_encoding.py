"""Embeddings without products with zeros are those of the plain forward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoclip import load_location_encoder
from geoclip.evaluation.gallery import Gallery, encode_gallery
from geoclip.geo.geodesy import uniform_on_sphere
from geoclip.model import location_encoder
from geoclip.model.location_encoder import LocationEncoder, local_embeddings


def encoder(**kind: Any) -> LocationEncoder:
    torch.manual_seed(0)
    settings = {"frequencies": 8, "hidden_dim": 64, "depth": 3, "embedding_dim": 12} | kind
    return LocationEncoder(settings.pop("sigmas", (0.5, 16.0)), **settings).eval()


def locations(count: int) -> Tensor:
    return uniform_on_sphere(count, torch.Generator().manual_seed(0)).float()


@torch.inference_mode()
def plain(one: LocationEncoder, gps_deg_N2: Tensor) -> Tensor:
    return F.normalize(one(gps_deg_N2), dim=1)


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"sigmas": (1.0,)},
        {"concat": True},
        {"share_mlp": True},
        {"learn_frequencies": True},
        {"projection": "sphere"},
        {"projection": "mercator"},
        {"depth": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("count", [0, 1, 50, 1001])
def test_the_embeddings_are_those_of_the_plain_forward(kind: dict[str, Any], count: int) -> None:
    one, gps_deg_N2 = encoder(**kind), locations(count)
    found = local_embeddings(one, gps_deg_N2, chunk=64)
    assert found.shape == (count, 12) and found.dtype == torch.float32
    torch.testing.assert_close(found, plain(one, gps_deg_N2), atol=1e-6, rtol=0)


def test_the_released_encoder_agrees() -> None:
    one, gps_deg_N2 = load_location_encoder(), locations(60)
    assert isinstance(one, LocationEncoder)
    gps_deg_N2 = torch.cat((gps_deg_N2, gps_deg_N2[:20] + 1e-4, gps_deg_N2[:20]))  # neighbours and duplicates
    gallery = Gallery(name="g", gps_deg_G2=gps_deg_N2.double())
    found = encode_gallery(one, gallery, torch.device("cpu"), chunk=25)
    torch.testing.assert_close(found, plain(one, gps_deg_N2), atol=1e-5, rtol=0)
    torch.testing.assert_close(found[-20:], found[:20], atol=1e-6, rtol=0)


def test_units_that_never_fire_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    one, gps_deg_N2 = encoder(), locations(200)
    layers = [layer for branch in one.branches for layer in branch.mlp if isinstance(layer, nn.Linear)]  # type: ignore[union-attr]
    with torch.no_grad():
        for layer in layers:
            layer.bias[:40] = -1e4
    expected = plain(one, gps_deg_N2)
    with torch.no_grad():
        for branch in one.branches:  # a product with these columns would show
            for layer in (*branch.mlp[2:], branch.head):  # type: ignore[index]
                if isinstance(layer, nn.Linear):
                    layer.weight[:, :40] = torch.nan
    torch.testing.assert_close(local_embeddings(one, gps_deg_N2), expected, atol=1e-6, rtol=0)
    monkeypatch.setattr(location_encoder, "WORTH", 0)
    assert local_embeddings(one, gps_deg_N2).isnan().all()


def test_units_may_all_be_silent() -> None:
    one = encoder()
    with torch.no_grad():
        one.branches[0].mlp[0].bias[:] = -1e4  # type: ignore[index,union-attr]
    torch.testing.assert_close(local_embeddings(one, locations(9)), plain(one, locations(9)), atol=1e-6, rtol=0)


class Watched(LocationEncoder):
    """Records the range of latitudes of each call."""

    spreads_deg: list[float]

    def projected(self, gps_deg_N2: Tensor) -> Tensor:
        self.spreads_deg.append(float(gps_deg_N2[:, 0].amax() - gps_deg_N2[:, 0].amin()))
        return super().projected(gps_deg_N2)


def test_a_chunk_is_local() -> None:
    one = Watched(frequencies=4, hidden_dim=8, embedding_dim=4)
    one.spreads_deg = []
    local_embeddings(one, locations(4000), chunk=100)
    assert len(one.spreads_deg) == 41 and max(one.spreads_deg) < 60  # rings at the poles have few locations


def test_nan_stays_nan() -> None:
    one = encoder()
    with torch.no_grad():
        one.branches[0].mlp[0].weight[3] = torch.nan  # type: ignore[index,union-attr]
    assert local_embeddings(one, locations(9)).isnan().all()


def test_threads_change_nothing_and_are_left_as_they_were() -> None:
    one, gps_deg_N2, before = encoder(), locations(900), torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found = local_embeddings(one, gps_deg_N2, chunk=50)
            torch.testing.assert_close(found, plain(one, gps_deg_N2), atol=1e-6, rtol=0)
            assert torch.get_num_threads() == threads
            with torch.autocast("cpu", dtype=torch.bfloat16):
                found = local_embeddings(one, gps_deg_N2, chunk=50)
                expected = plain(one, gps_deg_N2).float()
            difference = (found - plain(one, gps_deg_N2)).abs().amax(dim=1)
            assert float(difference.median()) > 1e-4  # half the digits, in every thread
            torch.testing.assert_close(found, expected, atol=0.03, rtol=0)
    finally:
        torch.set_num_threads(before)


def test_an_error_in_a_thread_is_raised() -> None:
    one = encoder()
    one.branches[1].head = nn.Linear(7, 12)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        local_embeddings(one, locations(900), chunk=50)
