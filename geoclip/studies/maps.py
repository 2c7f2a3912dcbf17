"""Map of where a variant is better and where it is worse than the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from geoclip.errors import DataError
from geoclip.plotting.world import (
    INK,
    LINE,
    MUTED,
    WIDTH_IN,
    Floats,
    Picture,
    add_axes,
    checked_degrees,
    draw_world,
    height_in,
    new_figure,
    save_figure,
    south_north,
    write,
)
from geoclip.system.console import percent_text

CELL_DEG = 5.0
NEAREST_KM = 1.0  # smaller errors count as equal
MAX_RATIO = 4.0  # of the errors, at the ends of the colours
MARGIN_IN, TOP_IN = 0.3, 1.05
# Orange: the baseline is nearer; blue: the variant. Distinct for colour-blind readers, bright on the dark map.
SIDES = LinearSegmentedColormap.from_list("sides", ["#ff8a3d", "#ffc9a1", "#e9edf2", "#a9d2ff", "#3f9bff"])


@dataclass(kw_only=True, slots=True, frozen=True)
class Wins:
    """By image, how many times nearer the variant is than the baseline."""

    truth_deg_N2: NDArray[np.float64]
    log2_N: NDArray[np.float64]  # mean over seeds of log2(error of the baseline / error of the variant)


def read_wins(baseline_csvs: Sequence[Path], variant_csvs: Sequence[Path]) -> Wins:
    """Pair the images of two variants by their keys, from one eval/<benchmark>.csv per seed; average over seeds.

    Raises:
        DataError: no file, one that cannot be read, or different images.
    """
    base, other = _mean_log2_km(baseline_csvs), _mean_log2_km(variant_csvs)
    if not base.index.equals(other.index):
        raise DataError(
            f"{baseline_csvs[0]} and {variant_csvs[0]} are of different images; evaluate both on one benchmark"
        )
    truth = checked_degrees(base[["lat", "lon"]].to_numpy(), "true locations")
    return Wins(truth_deg_N2=truth, log2_N=(base["log2_km"] - other["log2_km"]).to_numpy(dtype=np.float64))


def draw_wins(
    baseline_csvs: Sequence[Path], variant_csvs: Sequence[Path], background: Picture, path: Path, title: str
) -> None:
    """A dot per cell of 5°, at the mean location of its images; its colour is their mean ratio, its size their number.

    CSVs and errors as `read_wins`; the background is (height, width, 3), equirectangular.
    """
    wins = read_wins(baseline_csvs, variant_csvs)
    span = south_north(wins.truth_deg_N2)
    width = WIDTH_IN - 2 * MARGIN_IN
    height = height_in(width, span)
    figure = new_figure(WIDTH_IN, TOP_IN + height + 0.75)
    write(figure, MARGIN_IN, 0.36, title, fontsize=14, fontweight="bold")
    write(figure, MARGIN_IN, 0.68, _summary(wins, len(baseline_csvs)), fontsize=11.5, color=MUTED)
    axes = add_axes(figure, MARGIN_IN, TOP_IN - 0.15, width, height)
    draw_world(axes, background, span)
    norm = Normalize(-np.log2(MAX_RATIO), np.log2(MAX_RATIO))
    middle_C2, log2_C, count_C = cells(wins)
    largest = int(count_C[0])
    axes.scatter(
        middle_C2[:, 1], middle_C2[:, 0], s=_area(count_C, largest), c=log2_C, cmap=SIDES, norm=norm,
        linewidths=0.5, edgecolors="#0d1520", zorder=4,
    )  # fmt: skip
    _draw_legend(figure, TOP_IN + height + 0.05, norm, largest)
    save_figure(figure, path, colors=96)


def _mean_log2_km(csvs: Sequence[Path]) -> pd.DataFrame:
    """By key: lat, lon, and log2_km, the mean over files of the logarithm of the error."""
    if not csvs:
        raise DataError("a map of wins needs at least one CSV of the baseline and one of the variant")
    tables = [_read(path) for path in csvs]
    for path, table in zip(csvs, tables, strict=True):
        if not table.index.equals(tables[0].index):
            raise DataError(f"{csvs[0]} and {path} are of different images; evaluate both on one benchmark")
    errors_SN = np.stack([table["distance_km"].to_numpy(dtype=np.float64) for table in tables])
    return tables[0][["lat", "lon"]].assign(log2_km=np.log2(errors_SN.clip(min=NEAREST_KM)).mean(axis=0))


def _read(path: Path) -> pd.DataFrame:
    columns = ["key", "lat", "lon", "distance_km"]
    try:
        table = pd.read_csv(path, usecols=columns, dtype={"key": str}).set_index("key").sort_index()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {error}; evaluate again") from None
    if not table.index.is_unique or not np.isfinite(table.to_numpy(dtype=np.float64)).all():
        raise DataError(f"{path} has an image twice, or a value that is not a finite number; evaluate again")
    return table


def cells(wins: Wins, size_deg: float = CELL_DEG) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """By cell, the largest first: mean location (C, 2) in degrees, mean log2 (C,), number of images (C,)."""
    lat_N, lon_N = wins.truth_deg_N2.T
    table = pd.DataFrame({"lat": lat_N, "lon": lon_N, "log2": wins.log2_N})
    groups = table.groupby([np.floor(lat_N / size_deg), np.floor(lon_N / size_deg)])
    count_C = np.asarray(groups.size(), dtype=np.int64)
    mean_C3 = np.asarray(groups.mean(), dtype=np.float64)
    order = np.argsort(-count_C, kind="stable")
    return mean_C3[order, :2], mean_C3[order, 2], count_C[order]


def _area(count_C: NDArray[np.int64], largest: int) -> Floats:
    """Area in points² by number of images; a single image is visible too."""
    area_C: Floats = 9 + 240 * (count_C / max(largest, 10)) ** 0.8
    return area_C


def _summary(wins: Wins, seeds: int) -> str:
    nearer, farther = (percent_text(100 * float((sign * wins.log2_N > 1e-9).mean()), 0) for sign in (1, -1))
    times = 2 ** float(wins.log2_N.mean())
    by = f"{times:.2f} times nearer" if times >= 1 else f"{1 / times:.2f} times farther"
    return (
        f"{len(wins.log2_N):,} images, {seeds} seed{'s' * (seeds != 1)}: the variant is nearer on {nearer} %, "
        f"farther on {farther} %, in the geometric mean {by}"
    )


def _draw_legend(figure: Figure, top: float, norm: Normalize, largest: int) -> None:
    write(figure, MARGIN_IN, top + 0.22, "baseline nearer", fontsize=11, color="#ff8a3d")
    axes = add_axes(figure, MARGIN_IN + 1.45, top + 0.08, 4.4, 0.16)
    bar = figure.colorbar(ScalarMappable(norm, SIDES), cax=axes, orientation="horizontal")
    bar.set_ticks([-2, -1, 0, 1, 2], labels=["4 ×", "2 ×", "the same", "2 ×", "4 ×"])
    bar.ax.tick_params(colors=INK, labelsize=10, length=3, pad=2)
    bar.outline.set_edgecolor(LINE)
    write(figure, MARGIN_IN + 6.0, top + 0.22, "variant nearer", fontsize=11, color="#3f9bff")
    sizes = sorted({1, max(1, round(largest / 4)), largest})
    dots = add_axes(figure, WIDTH_IN - MARGIN_IN - 4.2, top - 0.05, 4.2, 0.45)
    dots.set_axis_off()
    dots.set_xlim(0, 4.2)
    dots.set_ylim(0, 0.45)
    x = 4.2 - 1.05 * len(sizes)
    dots.text(x - 0.1, 0.2, "images in a cell of 5°:", color=MUTED, fontsize=10.5, ha="right", va="center")
    for size in sizes:
        dots.scatter([x + 0.2], [0.22], s=_area(np.array([size]), largest), color="#e9edf2", linewidths=0)
        dots.text(x + 0.42, 0.2, f"{size:,}", color=INK, fontsize=10.5, va="center")
        x += 1.05
