"""Views show the surroundings of their centres, north up, at one scale."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from geoclip.data.blue_marble import cut_views, pad_sideways

HEIGHT, WIDTH = 90, 180  # two degrees a pixel
KM_PER_DEG = 111.195


def noise_image() -> Tensor:
    """Smooth enough that float32 rounding stays below a grey level, rough enough that a shift shows."""
    coarse = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 30, 60))).float()
    fine = torch.nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bilinear", align_corners=False)
    return fine[0].to(torch.uint8)


def coordinate_image() -> Tensor:
    """Red is 90° - latitude, green longitude + 180° (halved); a pixel shows its own centre, exact at 1° a pixel."""
    lat = 90 - (torch.arange(180) + 0.5)
    lon = -180 + (torch.arange(360) + 0.5)
    red = (90 - lat)[:, None].expand(180, 360)
    green = ((lon + 180) / 2)[None, :].expand(180, 360)
    return torch.stack((red, green, torch.zeros(180, 360)))  # float: halves of a grey level matter here


def cut(image_3HW: Tensor, lat: float, lon: float, *, span_km: float, size_px: int) -> Tensor:
    views = cut_views(pad_sideways(image_3HW), torch.tensor([[lat, lon]]), span_km=span_km, size_px=size_px)
    return views[0].int()


def pixel_by_pixel(image_3HW: Tensor, lat: float, lon: float, *, span_km: float, size_px: int) -> Tensor:
    """The definition: each pixel's latitude and longitude, then the four source pixels around it."""
    image = image_3HW.double().numpy()
    _, height, width = image.shape
    span_lat = span_km / KM_PER_DEG
    span_lon = min(span_lat / max(math.cos(math.radians(lat)), 1e-9), 360.0)
    view = np.zeros((3, size_px, size_px))
    for i in range(size_px):
        for j in range(size_px):
            at_lat = lat + (0.5 - (i + 0.5) / size_px) * span_lat
            at_lon = lon + ((j + 0.5) / size_px - 0.5) * span_lon
            row = min(max((90 - at_lat) / 180 * height - 0.5, 0), height - 1)
            column = (at_lon + 180) / 360 * width - 0.5
            top, left = math.floor(row), math.floor(column)
            down, right = row - top, column - left
            for y, share_y in ((top, 1 - down), (min(top + 1, height - 1), down)):
                for x, share_x in ((left, 1 - right), (left + 1, right)):
                    view[:, i, j] += share_y * share_x * image[:, y, x % width]
    return torch.from_numpy(view.round()).int()


@pytest.mark.parametrize(
    ("lat", "lon"), [(0, 0), (47.3, 8.5), (-33.9, 151.2), (12, 179.99), (-17, -179.7), (88, 10), (-90, 0), (90, 77)]
)
def test_every_pixel_is_the_bilinear_mean_of_its_four_neighbours(lat: float, lon: float) -> None:
    image = noise_image()
    ours = cut(image, lat, lon, span_km=2500, size_px=12)
    assert (ours - pixel_by_pixel(image, lat, lon, span_km=2500, size_px=12)).abs().max() <= 1


def test_a_view_over_the_antimeridian_is_the_view_of_a_rotated_earth() -> None:
    image = noise_image()
    rotated = image.roll(WIDTH // 2, dims=2)
    across = cut(image, -17.0, 179.5, span_km=3000, size_px=16)
    assert (across - cut(rotated, -17.0, -0.5, span_km=3000, size_px=16)).abs().max() <= 1


@pytest.mark.parametrize("lat, lon", [(0.0, 0.0), (45.0, 100.0), (-60.0, -120.0)])
def test_pixels_show_their_own_coordinates(lat: float, lon: float) -> None:
    span_km, size_px = 2000.0, 20
    view = cut(coordinate_image(), lat, lon, span_km=span_km, size_px=size_px)
    step_deg = span_km / KM_PER_DEG / size_px
    first = (size_px - 1) / 2
    for row, column in ((0, 0), (0, size_px - 1), (size_px - 1, 0), (10, 10)):
        at_lat = lat + (first - row) * step_deg
        at_lon = lon + (column - first) * step_deg / math.cos(math.radians(lat))
        assert view[0, row, column].item() == pytest.approx(90 - at_lat, abs=0.51)
        assert view[1, row, column].item() == pytest.approx((at_lon + 180) / 2, abs=0.51)


def test_rows_beyond_the_pole_repeat_the_edge() -> None:
    image = noise_image()
    view = cut(image, 89.0, 0.0, span_km=1500, size_px=16)
    beyond = view[:, :6]  # more than 90° north by latitude
    assert (beyond == beyond[:, :1]).all()


def test_near_a_pole_a_view_goes_once_around_and_no_further() -> None:
    green = cut(coordinate_image(), 89.9, 0.0, span_km=800, size_px=36)[1]
    assert green[0].unique().numel() == 36
    assert (green[0].diff() > 0).all(), "longitudes from -175° to 175°, each once"


def test_a_circle_at_sixty_north_stays_round() -> None:
    lat = torch.linspace(89.75, -89.75, 360).deg2rad()[:, None]
    lon = torch.linspace(-179.75, 179.75, 720).deg2rad()[None, :]
    center = math.radians(60)
    distance_km = 6371.0088 * (math.sin(center) * lat.sin() + math.cos(center) * lat.cos() * lon.cos()).acos()
    disc = (255 * (distance_km < 500)).to(torch.uint8)[None].expand(3, -1, -1)
    view = cut(disc, 60.0, 0.0, span_km=1600, size_px=64)[0] > 127
    height, width = view.any(dim=1).sum().item(), view.any(dim=0).sum().item()
    assert height == pytest.approx(64 * 1000 / 1600, abs=3)
    assert width == pytest.approx(height, abs=4)


def test_a_view_does_not_depend_on_the_other_views() -> None:
    padded = pad_sideways(noise_image())
    gps_deg_N2 = torch.tensor([[10.0, 20.0], [-60.0, 179.0], [80.0, -100.0]])
    together = cut_views(padded, gps_deg_N2, span_km=900, size_px=8)
    alone = [cut_views(padded, gps_deg_N2[[row]], span_km=900, size_px=8)[0] for row in range(3)]
    assert (together.int() - torch.stack(alone).int()).abs().max() <= 1
    assert together.dtype == torch.uint8


def test_no_location_gives_no_view() -> None:
    none = cut_views(pad_sideways(noise_image()), torch.empty(0, 2), span_km=900, size_px=8)
    assert none.shape == (0, 3, 8, 8)
