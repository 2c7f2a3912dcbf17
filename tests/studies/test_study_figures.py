"""The figures of a study show its results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image

from geoclip.errors import DataError
from geoclip.plotting.curves import INK
from geoclip.studies.axes import (
    BETTER,
    OKABE_ITO,
    WORSE,
    axis_limits,
    benchmarks_of,
    gain_color,
    is_baseline,
    outliers,
    swept_values,
    variant_styles,
)
from geoclip.studies.figures import draw_continents, draw_error_curves, draw_swept, scaled
from tests.studies.made_study import made_study

QUEUES = {"0": 0, "256": 256, "1024": 1024, "4096": 4096}
NAMES = {name: name for name in ("small", "single", "concat")}


def pixels(path: Path) -> NDArray[np.int16]:
    with Image.open(path) as image:
        assert image.width == 1600
        return np.asarray(image.convert("RGB"), dtype=np.int16)


def count(path: Path, color: str) -> int:
    """Pixels of nearly this colour."""
    rgb = np.round(255 * np.array(to_rgb(color)))
    return int((np.abs(pixels(path) - rgb).max(axis=2) <= 14).sum())


def test_only_one_key_of_numbers_has_swept_values() -> None:
    assert swept_values(made_study("queue.size", QUEUES, "1024")) == {"0": 0, "256": 256, "1024": 1024, "4096": 4096}
    assert swept_values(made_study("loss.max", {"16": 16.0, "20": 20.0, "none": None}, "16")) == {
        "16": 16, "20": 20, "none": float("inf"),
    }  # fmt: skip
    assert swept_values(made_study("location", NAMES, "small")) is None
    assert swept_values(made_study("location.sigmas", {"1": [1.0], "16": [16.0]}, "1")) is None
    assert swept_values(made_study("flip", {"yes": True, "no": False}, "no")) is None
    two_keys = made_study("queue.size", QUEUES, "1024") | {"by": ["queue.size", "optim.lr"]}
    assert swept_values(two_keys) is None


def test_numbers_over_a_large_range_are_on_a_logarithmic_axis_and_zero_is_one_step_below() -> None:
    assert scaled([0, 256, 1024, 4096, 16384]) == ([6, 8, 10, 12, 14], 2)
    assert scaled([1, 2, 3, 9])[0] == [1, 2, 3, 9], "a factor of nine is not a large range"
    assert scaled([14.5, 16, 20, 100])[0] == [0, 1, 2, 3], "linearly the first two would touch"
    assert scaled([-1, 100])[0] == [-1, 100]


def test_only_a_significant_gain_has_a_colour_and_a_smaller_median_is_better() -> None:
    variants = made_study("queue.size", QUEUES, "256")["benchmarks"]["test"]["variants"]
    colors = {variant["label"]: gain_color(variant, "200") for variant in variants}
    assert (colors["0"], colors["1024"], colors["4096"]) == (WORSE, BETTER, BETTER)
    assert gain_color(next(v for v in variants if v["label"] == "4096"), "median_km") == WORSE
    variants[1]["gain"]["200"]["excludes_zero"] = False
    assert gain_color(variants[1], "200") not in (WORSE, BETTER, colors["256"])


def test_an_outlier_does_not_squeeze_the_others() -> None:
    near = {"a": 60.0, "b": 61.0, "c": 62.0, "d": 63.0}
    assert outliers(near, "a", 5.0) == set()
    assert outliers(near | {"far": 1.0}, "a", 5.0) == {"far"}
    assert outliers(near | {"far": 1.0}, "far", 5.0) == set(), "the baseline is always shown"
    low, high = axis_limits([60.0, 60.1], 5.0)
    assert high - low > 5, "a tenth of a point does not fill the axis"


def test_twelve_variants_have_different_styles() -> None:
    names = {f"variant {number}": f"{number}" for number in range(12)}
    styles = variant_styles(made_study("location", names, "variant 0"))
    assert len({(style["color"], str(style["linestyle"])) for style in styles.values()}) == 12
    assert styles["variant 1"]["color"] == OKABE_ITO[0]
    ordered = variant_styles(made_study("queue.size", QUEUES, "1024"))
    light = [sum(to_rgb(ordered[label]["color"])) for label in ("0", "256", "4096")]
    assert light == sorted(light, reverse=True), "the larger the darker"
    assert list(ordered) == ["0", "256", "1024", "4096"], "the legend is in the order of the values"


@pytest.mark.parametrize(("key", "swept", "baseline"), [("queue.size", QUEUES, "256"), ("location", NAMES, "single")])
def test_gains_and_losses_are_coloured(key: str, swept: dict[str, Any], baseline: str, tmp_path: Path) -> None:
    study = made_study(key, swept, baseline)
    draw_swept(study, tmp_path / "sure.png")
    for variant in study["benchmarks"]["test"]["variants"]:
        for gain in (variant["gain"] or {}).values():
            gain["excludes_zero"] = False
    draw_swept(study, tmp_path / "unsure.png")
    for color in (BETTER, WORSE):
        assert count(tmp_path / "sure.png", color) > 3 * count(tmp_path / "unsure.png", color) > 0, "the legend has it"
    assert (tmp_path / "sure.png").stat().st_size < 150_000


def test_a_near_ceiling_is_drawn(tmp_path: Path) -> None:
    study = made_study("location", NAMES, "small")
    draw_swept(study, tmp_path / "far.png")
    for variant in study["benchmarks"]["test"]["variants"]:
        variant["ceiling_percent"]["200"] = variant["metrics"]["200"]["mean"] + 3
    draw_swept(study, tmp_path / "near.png")
    assert (pixels(tmp_path / "far.png") != pixels(tmp_path / "near.png")).any()


def test_variants_of_one_seed_are_drawn(tmp_path: Path) -> None:
    study = made_study("queue.size", QUEUES, "1024")
    for variant in study["benchmarks"]["test"]["variants"]:
        variant["seeds"] = [0]
        for cell in variant["metrics"].values():
            cell.update(sd=None, per_seed=[cell["mean"]])
    for draw in (draw_swept, draw_error_curves):
        draw(study, tmp_path / "drawn.png")
        assert count(tmp_path / "drawn.png", INK) > 500


def test_without_a_baseline_all_variants_are_drawn_alike(tmp_path: Path) -> None:
    study = made_study("location", NAMES, "small")
    for variant in study["benchmarks"]["test"]["variants"]:
        variant["gain"] = None
    ((_, benchmark),) = benchmarks_of(study)
    assert not any(is_baseline(variant) for variant in benchmark["variants"])
    assert len({style["color"] for style in variant_styles(study).values()}) == 3
    for draw in (draw_swept, draw_error_curves, draw_continents):
        draw(study, tmp_path / f"{draw.__name__}.png")
    assert len(list(tmp_path.iterdir())) == 3


def test_error_curves_have_a_line_per_variant(tmp_path: Path) -> None:
    study = made_study("location", NAMES, "small", ("test", "test_unseen_cells"))
    draw_error_curves(study, tmp_path / "curves.png")
    for color in OKABE_ITO[:2]:
        assert count(tmp_path / "curves.png", color) > 500
    assert count(tmp_path / "curves.png", OKABE_ITO[2]) < 50, "there are two variants beside the baseline"
    assert (tmp_path / "curves.png").stat().st_size < 150_000


def test_continents_are_coloured_by_the_gain_over_the_baseline(tmp_path: Path) -> None:
    study = made_study("location", NAMES, "single")
    draw_continents(study, tmp_path / "continents.png")
    picture = pixels(tmp_path / "continents.png")
    blue, orange = (picture[..., 2] - picture[..., 0] > 40), (picture[..., 0] - picture[..., 2] > 40)
    assert blue.sum() > 5000 and orange.sum() > 5000
    for variant in study["benchmarks"]["test"]["variants"]:
        for row in variant["by_continent"].values():
            row["n"] = 5
    draw_continents(study, tmp_path / "few.png")
    few = pixels(tmp_path / "few.png")
    assert not (np.abs(few[..., 2] - few[..., 0]) > 40).sum() > 5000, "five images are too few"


def test_a_study_without_results_is_refused(tmp_path: Path) -> None:
    for draw in (draw_swept, draw_error_curves, draw_continents):
        with pytest.raises(DataError, match="made"):
            draw({"study": "made", "by": ["location"], "benchmarks": {}}, tmp_path / "none.png")
    study = made_study("location", NAMES, "small")
    for variant in study["benchmarks"]["test"]["variants"]:
        variant["by_continent"] = {}
    with pytest.raises(DataError, match="made"):
        draw_continents(study, tmp_path / "none.png")
