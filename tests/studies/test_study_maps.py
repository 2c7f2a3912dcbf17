"""Maps of where a variant is nearer than the baseline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from geoclip.errors import DataError
from geoclip.studies.maps import cells, draw_wins, read_wins

BLACK = np.zeros((90, 180, 3), dtype=np.uint8)


def write_csv(path: Path, errors_km: dict[str, float], lat: float = 10.0) -> Path:
    rows = [
        {"key": key, "lat": lat, "lon": float(n), "distance_km": km} for n, (key, km) in enumerate(errors_km.items())
    ]
    pd.DataFrame(rows).sample(frac=1, random_state=len(path.name)).to_csv(path, index=False)
    return path


def test_the_ratio_is_the_geometric_mean_over_seeds(tmp_path: Path) -> None:
    base = [write_csv(tmp_path / f"b{seed}.csv", {"x": 100, "y": 0.5, "z": 30}) for seed in range(2)]
    other = [write_csv(tmp_path / "v0.csv", {"x": 50, "y": 0.1, "z": 30}),
             write_csv(tmp_path / "longer name.csv", {"x": 12.5, "y": 0.9, "z": 480})]  # fmt: skip
    wins = read_wins(base, other)
    assert wins.log2_N == pytest.approx([2, 0, -2]), "twice and eight times nearer; errors under 1 km are equal"
    assert wins.truth_deg_N2[:, 1].tolist() == [0, 1, 2]


def test_cells_have_the_mean_of_their_images(tmp_path: Path) -> None:
    base = write_csv(tmp_path / "b.csv", dict.fromkeys("abcdefg", 64.0))
    other = write_csv(tmp_path / "v.csv", dict(zip("abcdefg", (32, 32, 64, 64, 16, 64, 256), strict=True)))
    middle_C2, log2_C, count_C = cells(read_wins([base], [other]))
    assert count_C.tolist() == [5, 2], "longitudes 0 to 4, then 5 and 6"
    assert middle_C2.tolist() == [[10, 2], [10, 5.5]]
    assert log2_C == pytest.approx([0.8, -1.0])


def test_different_images_are_refused(tmp_path: Path) -> None:
    base, other = write_csv(tmp_path / "b.csv", {"x": 1}), write_csv(tmp_path / "v.csv", {"y": 1})
    with pytest.raises(DataError, match=r"b\.csv and .*v\.csv"):
        read_wins([base], [other])
    with pytest.raises(DataError, match=r"missing\.csv"):
        read_wins([base], [tmp_path / "missing.csv"])
    with pytest.raises(DataError, match="CSV"):
        read_wins([base], [])


def test_one_image_where_the_variant_is_nearer_is_blue(tmp_path: Path) -> None:
    far, near = write_csv(tmp_path / "far.csv", {"x": 900}), write_csv(tmp_path / "near.csv", {"x": 9})
    seen = []
    for number, pair in enumerate(((far, near), (near, far))):
        draw_wins([pair[0]], [pair[1]], BLACK, tmp_path / f"{number}.png", "made")
        with Image.open(tmp_path / f"{number}.png") as image:
            rgb = np.asarray(image.convert("RGB"), dtype=np.int16)[150:700]  # the map, without its legend
        seen.append(((rgb[..., 2] - rgb[..., 0] > 120).sum(), (rgb[..., 0] - rgb[..., 2] > 120).sum()))
    assert seen[0][0] > 30 > 0 == seen[0][1]
    assert seen[1][1] > 30 > 0 == seen[1][0]
