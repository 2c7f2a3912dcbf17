"""Maps of a study: where a variant wins, and what each scale tells apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from geoclip.drawing.study_maps import cells, draw_wins, read_wins
from geoclip.drawing.study_scales import draw_scales
from geoclip.errors import DataError
from geoclip.evaluation.scale_similarity import ScaleSimilarity, scale_similarities
from geoclip.geo.geodesy import haversine_km
from geoclip.model.location_encoder import PROJECTIONS, LocationEncoder

BLACK = np.zeros((90, 180, 3), dtype=np.uint8)
PARIS = (48.8566, 2.3522)


def write_csv(path: Path, errors_km: dict[str, float], lat: float = 10.0) -> Path:
    rows = [
        {"key": key, "lat": lat, "lon": float(n), "distance_km": km}
        for n, (key, km) in enumerate(errors_km.items())
    ]
    pd.DataFrame(rows).sample(frac=1, random_state=len(path.name)).to_csv(path, index=False)
    return path


def encoder(*, concat: bool = False) -> LocationEncoder:
    torch.manual_seed(0)
    return LocationEncoder(
        (1.0, 16.0), frequencies=16, hidden_dim=32, depth=1, embedding_dim=16, concat=concat
    ).eval()


def test_a_win_is_how_many_times_nearer_over_all_seeds(tmp_path: Path) -> None:
    base = [write_csv(tmp_path / f"b{seed}.csv", {"x": 100, "y": 0.5, "z": 30}) for seed in range(2)]
    other = [write_csv(tmp_path / "v0.csv", {"x": 50, "y": 0.1, "z": 30}),
             write_csv(tmp_path / "longer name.csv", {"x": 12.5, "y": 0.9, "z": 480})]  # fmt: skip
    wins = read_wins(base, other)
    assert wins.log2_N == pytest.approx([2, 0, -2]), (
        "twice and eight times nearer; under 1 km all are the same"
    )
    assert wins.truth_deg_N2[:, 1].tolist() == [0, 1, 2]


def test_cells_hold_the_mean_of_their_images(tmp_path: Path) -> None:
    base = write_csv(tmp_path / "b.csv", dict.fromkeys("abcdefg", 64.0))
    other = write_csv(tmp_path / "v.csv", dict(zip("abcdefg", (32, 32, 64, 64, 16, 64, 256), strict=True)))
    middle_C2, log2_C, count_C = cells(read_wins([base], [other]))
    assert count_C.tolist() == [5, 2], "longitudes 0 to 4, then 5 and 6"
    assert middle_C2.tolist() == [[10, 2], [10, 5.5]]
    assert log2_C == pytest.approx([0.8, -1.0])


def test_other_images_are_no_comparison(tmp_path: Path) -> None:
    base, other = write_csv(tmp_path / "b.csv", {"x": 1}), write_csv(tmp_path / "v.csv", {"y": 1})
    with pytest.raises(DataError, match=r"b\.csv and .*v\.csv are of different images"):
        read_wins([base], [other])
    with pytest.raises(DataError, match=r"missing\.csv"):
        read_wins([base], [tmp_path / "missing.csv"])
    with pytest.raises(DataError, match="at least"):
        read_wins([base], [])


def test_blue_is_where_the_variant_is_nearer_also_of_one_image(tmp_path: Path) -> None:
    far, near = write_csv(tmp_path / "far.csv", {"x": 900}), write_csv(tmp_path / "near.csv", {"x": 9})
    seen = []
    for number, pair in enumerate(((far, near), (near, far))):
        draw_wins([pair[0]], [pair[1]], BLACK, tmp_path / f"{number}.png", "made")
        with Image.open(tmp_path / f"{number}.png") as image:
            rgb = np.asarray(image.convert("RGB"), dtype=np.int16)[150:700]  # the map, without its legend
        seen.append(((rgb[..., 2] - rgb[..., 0] > 120).sum(), (rgb[..., 0] - rgb[..., 2] > 120).sum()))
    assert seen[0][0] > 30 > 0 == seen[0][1]
    assert seen[1][1] > 30 > 0 == seen[1][0]


def projected(model: LocationEncoder, gps_deg_N2: torch.Tensor) -> torch.Tensor:
    return PROJECTIONS[model.projection][0](gps_deg_N2)


@pytest.mark.parametrize("concat", [False, True])
@torch.no_grad()
def test_similarity_is_the_cosine_of_each_branch_and_of_the_whole(concat: bool) -> None:
    model = encoder(concat=concat)
    found = scale_similarities(model, PARIS, None, px=8)
    north_west, point = torch.tensor([[67.5, -157.5]]), torch.tensor([PARIS])
    outputs = [
        [branch(model_input) for branch in model.branches]
        for model_input in (projected(model, north_west), projected(model, point))
    ]
    expected = [float(torch.cosine_similarity(a, b)) for a, b in zip(*outputs, strict=True)]
    assert found.branches_MHW[:, 0, 0] == pytest.approx(expected, abs=1e-5)
    whole = torch.cosine_similarity(model(north_west), model(point))
    assert found.all_HW[0, 0] == pytest.approx(float(whole), abs=1e-5)
    assert found.all_HW.shape == (4, 8)
    assert found.norms_M == pytest.approx([float(b.norm()) for b in outputs[1]], rel=1e-5)
    assert not model.branches[0]._forward_hooks, "the encoder is as it was"


def test_the_point_is_in_the_middle_and_fine_scales_forget_it_sooner() -> None:
    found = scale_similarities(encoder(), PARIS, 400.0, px=21)
    assert found.branches_MHW[:, 10, 10] == pytest.approx([1, 1], abs=1e-6)
    assert found.all_HW[10, 10] == pytest.approx(1, abs=1e-6)
    coarse, fine = found.branches_MHW
    assert fine[10, 0] < coarse[10, 0] > 0.99
    assert found.land_HW[10, 10], "Paris is on land"
    assert not found.land_HW.all(), "200 km from it is the Channel"


def test_north_is_up_and_distances_from_the_point_are_true() -> None:
    asked = []

    class Noting(LocationEncoder):
        def forward(self, gps_deg_N2: torch.Tensor) -> torch.Tensor:
            asked.append(gps_deg_N2)
            return super().forward(gps_deg_N2)

    scale_similarities(
        Noting((1.0,), frequencies=4, hidden_dim=8, depth=1, embedding_dim=8), PARIS, 210.0, px=21
    )
    grid_HW2 = asked[1].reshape(21, 21, 2)
    assert grid_HW2[0, 10, 0] > PARIS[0] + 0.8
    assert grid_HW2[10, 20, 1] > PARIS[1] + 1.3
    corner_km = haversine_km(grid_HW2[0, 0][None], torch.tensor([PARIS]))
    assert corner_km.item() == pytest.approx(100 * 2**0.5, rel=1e-3)


@pytest.mark.parametrize("extent_km", [0.0, -1.0, 30_000.0])
def test_an_extent_is_on_this_side_of_the_earth(extent_km: float) -> None:
    with pytest.raises(ValueError, match="extent_km"):
        scale_similarities(encoder(), PARIS, extent_km)


def test_scales_are_drawn_a_row_each_and_one_for_all(tmp_path: Path) -> None:
    zooms = [scale_similarities(encoder(), PARIS, extent_km, px=16) for extent_km in (None, 200.0)]
    draw_scales(zooms, "Paris", tmp_path / "scales.png")
    with Image.open(tmp_path / "scales.png") as image:
        rgb = np.asarray(image.convert("RGB"), dtype=np.int16)
    column = (rgb[:, 400].max(axis=1) < 235).astype(int)  # through the maps of the Earth, on white paper
    starts = np.flatnonzero(np.diff(column) == 1)
    tall = [start for start in starts if column[start + 1 : start + 150].all()]
    assert len(tall) == 3, "two scales and both together"


def test_maps_of_two_encoders_are_no_figure(tmp_path: Path) -> None:
    square = np.zeros((2, 2), dtype=np.float32)
    one, two = (
        ScaleSimilarity(sigmas=sigmas, center_deg=PARIS, extent_km=1.0, branches_MHW=square[None], all_HW=square,
                        norms_M=square[0], land_HW=square > 0)
        for sigmas in ((1.0,), (2.0,))
    )  # fmt: skip
    for zooms in ([], [one, two]):
        with pytest.raises(DataError, match="one encoder"):
            draw_scales(zooms, "Paris", tmp_path / "none.png")
