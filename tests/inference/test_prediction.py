"""The best locations: by similarity, smoothed, refined, of a region."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from geoclip.errors import DataError
from geoclip.evaluation.gallery import Gallery, restricted
from geoclip.geo.geodesy import haversine_km, pairwise_km, uniform_on_sphere, unit_vectors
from geoclip.inference.prediction import GuessSettings, QueryResult, guess_locations, refine_locations, smooth_heat

LOCATIONS = uniform_on_sphere(300, torch.Generator().manual_seed(1)).double()
LOCATIONS[7] = LOCATIONS[3]  # a location twice
GALLERY = Gallery(name="random", gps_deg_G2=LOCATIONS)
GALLERY_GD = F.normalize(torch.randn(300, 8, generator=torch.Generator().manual_seed(2)), dim=1)
QUERIES = F.normalize(torch.randn(20, 8, generator=torch.Generator().manual_seed(3)), dim=1)


def predictions(image_ND: Tensor = QUERIES, **changes: float | None) -> list[QueryResult]:
    settings = GuessSettings(**({"scale": 20.0, "k": 4} | changes))  # type: ignore[arg-type]
    truth: list[tuple[float, float] | None] = [(10.0, 20.0)] * len(image_ND)
    return list(guess_locations(image_ND, truth, GALLERY, GALLERY_GD, unit_sphere, settings))


def unit_sphere(gps_deg_N2: Tensor) -> Tensor:
    """An encoder whose similarity is the cosine of the arc between locations."""
    return unit_vectors(gps_deg_N2).float()


def test_predictions_are_the_most_similar_locations_and_the_heat_is_the_softmax() -> None:
    for image_D, result in zip(QUERIES, predictions(), strict=True):
        cosine, row = (GALLERY_GD @ image_D).topk(4)
        heat = (20.0 * (GALLERY_GD @ image_D)).double().softmax(dim=0)
        guesses = result.guesses
        assert [guess.rank for guess in guesses] == [1, 2, 3, 4]
        assert [(guess.lat, guess.lon) for guess in guesses] == [tuple(p) for p in LOCATIONS[row].tolist()]
        assert [guess.cosine for guess in guesses] == pytest.approx(cosine.tolist(), abs=1e-6)
        assert [guess.probability for guess in guesses] == pytest.approx(heat[row].tolist(), rel=1e-4)
        np.testing.assert_allclose(result.heat_G, heat, rtol=1e-4, atol=1e-7)
        off = haversine_km(LOCATIONS[row], torch.tensor([[10.0, 20.0]]).double())
        assert [guess.distance_km for guess in guesses] == pytest.approx(off.tolist())


def test_a_sharp_model_still_ranks_by_similarity() -> None:
    for image_D, result in zip(QUERIES, predictions(scale=5000.0), strict=True):
        row = (GALLERY_GD @ image_D).topk(4).indices
        assert [guess.lat for guess in result.guesses] == LOCATIONS[row, 0].tolist()
        assert result.heat_G.sum() == pytest.approx(1, abs=1e-5)


def test_a_gallery_of_two_gives_two_predictions() -> None:
    two = Gallery(name="two", gps_deg_G2=torch.tensor([[48.8584, 2.2945], [-33.85, -151.2]], dtype=torch.float64))
    embedded = unit_sphere(two.gps_deg_G2)
    (result,) = guess_locations(embedded[1:], [None], two, embedded, unit_sphere, GuessSettings(scale=20.0, k=5))
    assert len(result.guesses) == 2 and result.guesses[0].distance_km is None
    assert result.guesses[0].map == "https://www.google.com/maps?q=-33.850000,-151.200000"


@pytest.mark.parametrize("smooth_km", [200.0, 3000.0])
def test_smoothing_is_a_gaussian_sum_over_great_circles(smooth_km: float) -> None:
    heat = np.stack([result.heat_G for result in predictions()])
    km = pairwise_km(LOCATIONS, LOCATIONS).numpy()
    weights = np.where(km <= 3 * smooth_km, np.exp(-0.5 * (km / smooth_km) ** 2), 0)
    expected = heat @ weights
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(smooth_heat(heat, LOCATIONS.numpy(), smooth_km), expected, atol=1e-9)
    smoothed = predictions(smooth_km=smooth_km)
    assert [one.guesses[0].lat for one in smoothed] == LOCATIONS[expected.argmax(axis=1), 0].tolist()


def test_many_likely_neighbours_win_over_a_likelier_lone_location() -> None:
    locations = np.array([[0.0, 0.0], [50.0, 50.0], [50.1, 50.0], [50.0, 50.1]])
    heat = np.array([[0.4, 0.2, 0.2, 0.2]], dtype=np.float32)
    assert smooth_heat(heat, locations, 25.0).argmax() == 1


@pytest.mark.parametrize("target", [(48.8584, 2.2945), (-89.9995, 10.0), (0.0, 179.9999)])
def test_refinement_finds_a_location_outside_the_gallery(target: tuple[float, float]) -> None:
    target_12 = torch.tensor([target]).double()

    def encode(gps_deg_N2: Tensor) -> Tensor:
        """Similar to (1, 0) near the target; 300 km are a radian, because float32 must resolve metres."""
        angle = (haversine_km(gps_deg_N2, target_12) / 300).clamp(max=math.pi)
        return torch.stack((angle.cos(), angle.sin()), dim=1)

    start = target_12 + torch.tensor([[0.4, -0.5]]).double()
    found, cosine = refine_locations(
        torch.tensor([[1.0, 0.0]]), start[None], encode, reach_km_NK=torch.full((1, 1), 100.0), step_m=10.0
    )
    assert haversine_km(found[0], target_12).item() < 0.15 < haversine_km(start, target_12).item()
    assert cosine.item() > 1 - 1e-6


def test_a_refined_location_is_at_least_as_similar() -> None:
    embedded = unit_sphere(LOCATIONS)
    queries = unit_sphere(uniform_on_sphere(5, torch.Generator().manual_seed(9)))
    plain, refined = (
        guess_locations(queries, [None] * 5, GALLERY, embedded, unit_sphere, GuessSettings(scale=20.0, k=3, refine_m=m))
        for m in (None, 1000.0)
    )
    for one, other in zip(plain, refined, strict=True):
        assert other.guesses[0].cosine >= one.guesses[0].cosine
        starts = {(guess.gallery_lat, guess.gallery_lon) for guess in other.guesses}
        assert starts == {(guess.lat, guess.lon) for guess in one.guesses}
        cosines = [guess.cosine for guess in other.guesses]
        assert cosines == sorted(cosines, reverse=True)
        assert one.guesses[0].gallery_lat is None


def test_a_gallery_is_restricted_to_a_box_and_countries() -> None:
    gallery = Gallery(
        name="towns", gps_deg_G2=torch.tensor([[48.86, 2.35], [52.52, 13.4], [40.4, -3.7], [-17.7, 178.0]]).double()
    )
    assert restricted(gallery, None) is gallery
    europe = restricted(gallery, (35.0, -10.0, 60.0, 20.0))
    assert len(europe.gps_deg_G2) == 3 and europe.name == "towns, box 35 -10 60 20"
    assert len(restricted(gallery, (-30.0, 170.0, 0.0, -170.0)).gps_deg_G2) == 1
    both = restricted(gallery, None, ["fr", "ESP"])
    assert both.gps_deg_G2.tolist() == gallery.gps_deg_G2[[0, 2]].tolist() and both.name == "towns, ES FR"
    with pytest.raises(DataError, match="box 0 0 1 1"):
        restricted(gallery, (0.0, 0.0, 1.0, 1.0))
    with pytest.raises(DataError, match="country=XX"):
        restricted(gallery, None, ["XX"])
