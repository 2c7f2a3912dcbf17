"""Similarity around Paris at each scale of a study's baseline encoder: `scales.png` of studies 03 and 04.

    python experiments/03_scales/scale_maps.py experiments/03_scales
    python experiments/03_scales/scale_maps.py experiments/04_hierarchies

Columns zoom in from the whole Earth to a town; rows are the scales, then their sum. It reads the study's results.json
and the checkpoint of the first run of its baseline, so run `make study` first.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from geoclip import load_location_encoder
from geoclip.data.countries import regions_of
from geoclip.geo.geodesy import EARTH_RADIUS_KM, destination
from geoclip.model.location_encoder import LocationEncoder
from geoclip.plotting.curves import INK, MUTED, PAPER
from geoclip.plotting.world import WIDTH_IN, add_axes, new_figure, save_figure, write

POINT, CENTER_DEG = "Paris", (48.8566, 2.3522)
ZOOMS_KM = (None, 2000.0, 200.0, 20.0)
AT_ONCE = 4096  # locations
COLORS = "magma"
LEFT_IN, RIGHT_IN, TOP_IN, GAP_IN = 1.25, 1.0, 1.25, 0.16


def main(folder: Path) -> None:
    """Draw `scales.png` into the study's folder."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    evaluation = next(iter(results["benchmarks"].values()))["variants"][0]["evaluations"][0]
    encoder = load_location_encoder(Path(evaluation).parent.parent)
    assert isinstance(encoder, LocationEncoder), "only Fourier features have scales"
    zooms = [scale_similarities(encoder, CENTER_DEG, km) for km in ZOOMS_KM]
    draw_scales(zooms, POINT, folder / "scales.png")


@dataclass(kw_only=True, slots=True, frozen=True)
class ScaleSimilarity:
    """Cosine similarity to the point in the middle; row 0 is in the north."""

    sigmas: tuple[float, ...]
    center_deg: tuple[float, float]  # latitude, longitude
    extent_km: float | None  # width and height; None: the whole Earth, equirectangular
    branches_MHW: NDArray[np.float32]
    all_HW: NDArray[np.float32]  # of the encoder's output: its branches summed or concatenated
    norms_M: NDArray[np.float32]  # of the branches' outputs at the point, their weights in a sum
    land_HW: NDArray[np.bool_]  # Natural Earth's countries, for orientation


def scale_similarities(
    location_encoder: LocationEncoder, center_deg: tuple[float, float], extent_km: float | None, px: int = 96
) -> ScaleSimilarity:
    """Cosine similarity of outputs at a point and at locations around it, for each branch and for the encoder.

    Args:
        location_encoder: of Fourier features; it is not changed.
        center_deg: latitude, longitude of the point.
        extent_km: width and height of a square azimuthal equidistant map around it; None: the whole Earth, `px` wide
            and half as high.
        px: width in pixels; locations are at their centres.

    Source of the map: Snyder, "Map Projections: A Working Manual", 1987, chapter 25, azimuthal equidistant.
    """
    center_12 = torch.tensor([center_deg], dtype=torch.float64)
    gps_deg_HW2 = _world(px) if extent_km is None else _around(center_12, extent_km, px)
    height, width = gps_deg_HW2.shape[:2]
    country_N, _ = regions_of(gps_deg_HW2.reshape(-1, 2).numpy())
    with torch.inference_mode():
        point_P = _outputs(location_encoder, center_12)
        rows = []
        for gps_deg_N2 in gps_deg_HW2.reshape(-1, 2).split(AT_ONCE):
            pairs = zip(_outputs(location_encoder, gps_deg_N2), point_P, strict=True)
            rows.append(torch.stack([torch.cosine_similarity(*pair) for pair in pairs]))
    cosine_PHW = torch.cat(rows, dim=1).reshape(-1, height, width).float().cpu().numpy()
    return ScaleSimilarity(
        sigmas=location_encoder.sigmas,
        center_deg=center_deg,
        extent_km=extent_km,
        branches_MHW=cosine_PHW[:-1],
        all_HW=cosine_PHW[-1],
        land_HW=(country_N != "").reshape(height, width),
        norms_M=np.array([float(branch_1D.norm()) for branch_1D in point_P[:-1]], dtype=np.float32),
    )


def _outputs(encoder: LocationEncoder, gps_deg_N2: Tensor) -> list[Tensor]:
    """(N, D) outputs of every branch, then of the encoder, in one pass; concatenated branches have a smaller D."""
    found = list[Tensor]()
    hooks = [
        branch.register_forward_hook(lambda _branch, _inputs, output: found.append(output))
        for branch in encoder.branches
    ]
    try:
        output_ND = encoder(gps_deg_N2.float().to(next(encoder.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return [*found, output_ND]


def _world(px: int) -> Tensor:
    """(px / 2, px, 2) centres of the pixels of an equirectangular map of the Earth."""
    step = 360 / px
    lat_H = 90 - step * (torch.arange(px // 2, dtype=torch.float64) + 0.5)
    lon_W = -180 + step * (torch.arange(px, dtype=torch.float64) + 0.5)
    return torch.stack(torch.meshgrid(lat_H, lon_W, indexing="ij"), dim=-1)


def _around(center_12: Tensor, extent_km: float, px: int) -> Tensor:
    """(px, px, 2) centres of the pixels of an azimuthal equidistant map."""
    offset_km = ((torch.arange(px, dtype=torch.float64) + 0.5) / px - 0.5) * extent_km
    north_HW, east_HW = torch.meshgrid(-offset_km, offset_km, indexing="ij")
    arc_N = torch.hypot(north_HW, east_HW).reshape(-1) / EARTH_RADIUS_KM
    azimuth_N = torch.atan2(east_HW, north_HW).reshape(-1)
    return destination(center_12.expand(len(arc_N), 2), arc_N, azimuth_N).reshape(px, px, 2)


def draw_scales(zooms: Sequence[ScaleSimilarity], name: str, path: Path) -> None:
    """Cosine similarity to the point in the middle: columns zoom in, rows are the scales and all of them together.

    The colours of a row span its own range, the same in all its maps.

    Args:
        zooms: of one encoder around one point, from wide to narrow.
        name: of the point.
        path: the PNG to write.
    """
    ratios = [zoom.all_HW.shape[1] / zoom.all_HW.shape[0] for zoom in zooms]
    height = min(2.6, (WIDTH_IN - LEFT_IN - RIGHT_IN - GAP_IN * (len(zooms) - 1)) / sum(ratios))
    labels = [f"σ = {sigma:g}" for sigma in zooms[0].sigmas]
    labels += ["all scales"] if len(labels) > 1 else []
    figure = new_figure(WIDTH_IN, TOP_IN + len(labels) * (height + GAP_IN) + 0.15, PAPER)
    write(figure, 0.3, 0.4, f"Similarity at each scale around {name}", color=INK, fontsize=14, fontweight="bold")
    text = "cosine similarity to the embedding of the point at the cross; each row has its own colour range"
    write(figure, 0.3, 0.7, text, color=MUTED, fontsize=10.5)
    for row, label in enumerate(labels):
        maps = [_layers(zoom)[row] for zoom in zooms]
        norm = Normalize(min(float(one.min()) for one in maps), max(float(one.max()) for one in maps))
        left, top = LEFT_IN, TOP_IN + row * (height + GAP_IN)
        write(figure, 0.3, top + height / 2, label, color=INK, fontsize=12, fontweight="bold")
        if row < len(zooms[0].sigmas):
            length = f"length {zooms[0].norms_M[row]:.2g}"
            write(figure, 0.3, top + height / 2 + 0.22, length, color=MUTED, fontsize=9.5)
        for zoom, one, ratio in zip(zooms, maps, ratios, strict=True):
            axes = add_axes(figure, left, top, height * ratio, height)
            _map(axes, zoom, one, norm)
            if row == 0:
                extent = "the whole Earth" if zoom.extent_km is None else f"{zoom.extent_km:,g} km across"
                axes.set_title(extent, color=MUTED, fontsize=10.5, loc="left", pad=6)
            left += height * ratio + GAP_IN
        _bar(figure, left + 0.02, top, height, norm)
    save_figure(figure, path, colors=192)  # fewer shades make noise smaller


def _layers(zoom: ScaleSimilarity) -> list[NDArray[np.float32]]:
    """The maps of the scales, then that of all."""
    return [*zoom.branches_MHW, zoom.all_HW]


def _map(axes: Axes, zoom: ScaleSimilarity, cosine_HW: NDArray[np.float32], norm: Normalize) -> None:
    axes.imshow(cosine_HW, cmap=COLORS, norm=norm, aspect="auto", interpolation="nearest")
    height, width = cosine_HW.shape
    if zoom.land_HW.any() and not zoom.land_HW.all():
        axes.contour(zoom.land_HW.astype(float), levels=[0.5], colors="white", linewidths=0.5, alpha=0.55)
    x, y = 0.5, 0.5
    if zoom.extent_km is None:
        x, y = 0.5 + zoom.center_deg[1] / 360, 0.5 - zoom.center_deg[0] / 180
    for color, width_pt in (("black", 2.6), ("white", 1.2)):  # visible on any colour
        axes.plot(x * width - 0.5, y * height - 0.5, "+", color=color, markersize=9, markeredgewidth=width_pt)
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _bar(figure: Figure, left: float, top: float, height: float, norm: Normalize) -> None:
    bar = figure.colorbar(ScalarMappable(norm, COLORS), cax=add_axes(figure, left, top, 0.13, height))
    low, high = float(norm.vmin or 0), float(norm.vmax or 0)
    bar.set_ticks([low + share * (high - low) for share in (0.06, 0.35, 0.65, 0.94)])
    bar.ax.yaxis.set_major_formatter(lambda value, _position: f"{value:.2f}")
    bar.ax.tick_params(colors=MUTED, labelsize=9, length=0, pad=4)
    bar.outline.set_visible(False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
