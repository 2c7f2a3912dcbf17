"""Predictions on an HTML page that needs no network: an interactive map, and the best locations as a table."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from geoclip.inference.prediction_map import (
    Prediction,
    decade_ticks,
    draw_heat,
    heat_range,
    latitudes_of,
    location_text,
)
from geoclip.plotting.pages import data_uri, photo_uri, render
from geoclip.plotting.world import (
    HEAT_COLORS,
    INK,
    MUTED,
    NIGHT,
    WHOLE,
    Floats,
    Picture,
    add_axes,
    dimmed,
    height_in,
    new_figure,
)
from geoclip.system.console import probability_text
from geoclip.system.files import write_bytes_atomic

WORLD_PX, HEAT_PX, PHOTO_PX = 1800, 2000, 560
HEAT_IN = 9.0  # width of the picture of the dots
HOT_LOCATIONS = 1000  # react to the pointer; the picture below shows the complete gallery
COLORSCALE = [
    [at, "rgb({:.0f},{:.0f},{:.0f})".format(*(255 * part for part in HEAT_COLORS(at)[:3]))]
    for at in np.linspace(0, 1, 9).tolist()
]


def write_predictions_html(
    path: Path, gallery_deg_G2: Floats, predictions: Sequence[Prediction], background: Picture
) -> None:
    """One page for all predictions, with a list to choose from: about 5 MB, and 0.2 MB more per photograph.

    Args:
        path: the HTML file to write.
        gallery_deg_G2: (G, 2) latitude, longitude in degrees.
        predictions: one or more.
        background: (height, width, 3) equirectangular picture of the Earth.
    """
    from plotly.offline import get_plotlyjs

    figures = [_figure(gallery_deg_G2, prediction) for prediction in predictions]
    world = Image.fromarray(dimmed(background)).resize((WORLD_PX, WORLD_PX // 2), Image.Resampling.LANCZOS)
    page = render(
        "predictions.html.j2",
        views=[_view(prediction) for prediction in predictions],
        figures_json=_inert(json.dumps(figures)),
        world=photo_uri(world, WORLD_PX),
        plotly_js=get_plotlyjs(),
        gallery_size=len(gallery_deg_G2),
        hot_places=min(HOT_LOCATIONS, len(gallery_deg_G2)),
    )
    write_bytes_atomic(path, page.encode("utf-8"))


def _inert(json_text: str) -> str:
    """JSON that cannot end the script element around it."""
    return json_text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _view(prediction: Prediction) -> dict[str, Any]:
    """The template's values for the part beside the map."""
    best = zip(prediction.top_deg_k2.tolist(), prediction.top_probability_k, strict=True)
    guesses = [
        {"rank": rank, "probability": probability_text(share), **_linked(lat, lon)}
        for rank, ((lat, lon), share) in enumerate(best, start=1)
    ]
    return {
        "title": prediction.title,
        "photo": prediction.photo and photo_uri(prediction.photo, PHOTO_PX),
        "guesses": guesses,
        "truth": prediction.truth_deg and _linked(*prediction.truth_deg),
    }


def _linked(lat: float, lon: float) -> dict[str, str]:
    return {"place": location_text(lat, lon), "link": f"https://www.google.com/maps?q={lat:.6f},{lon:.6f}"}


def _figure(gallery_deg_G2: Floats, prediction: Prediction) -> dict[str, Any]:
    """Traces and layout for plotly.js; the page adds the map of the world under them."""
    import plotly.graph_objects as go

    probability_G = np.asarray(prediction.probability_G, dtype=np.float64)
    low, high = heat_range(probability_G)
    ticks = decade_ticks(low, high)
    bar = {
        "title": {"text": "probability", "side": "top", "font": {"color": MUTED, "size": 12}},
        "orientation": "h", "x": 0, "xanchor": "left", "y": 0, "yanchor": "top", "len": 0.6, "thickness": 10,
        "tickvals": ticks, "ticktext": [f"10<sup>{tick:.0f}</sup>" for tick in ticks], "tickfont": {"color": INK},
        "outlinewidth": 0, "tickangle": 0,
    }  # fmt: skip
    hot = np.argsort(probability_G)[-HOT_LOCATIONS:]  # the likeliest last, on top
    log_probability = np.log10(np.maximum(probability_G[hot], 1e-300))
    share = ((log_probability - low) / (high - low)).clip(0, 1)
    marker = {
        "size": 4 + 5 * share**3, "color": log_probability, "cmin": low, "cmax": high, "colorscale": COLORSCALE,
        "colorbar": bar, "line": {"width": 0}, "opacity": 1,
    }  # fmt: skip
    figure = go.Figure()
    _add_locations(figure, gallery_deg_G2[hot], [probability_text(value) for value in probability_G[hot]], marker)
    if prediction.truth_deg is not None:
        _add_locations(
            figure, np.array([prediction.truth_deg]), ["the truth"],
            {"symbol": "star", "size": 26, "color": "#5ff2c2", "line": {"color": NIGHT, "width": 1}},
        )  # fmt: skip
    mark = {"size": 17, "color": "#ffffff", "line": {"color": NIGHT, "width": 1}}
    for rank in range(len(prediction.top_deg_k2), 0, -1):  # the best last, on top
        note = f"rank {rank}, {probability_text(prediction.top_probability_k[rank - 1])}"
        _add_locations(figure, prediction.top_deg_k2[rank - 1 : rank], [note], mark, [str(rank)])
    span = latitudes_of(gallery_deg_G2, prediction)
    described: dict[str, Any] = json.loads(figure.update_layout(_layout(span)).to_json())
    return {
        "data": described["data"],
        "layout": described["layout"],
        "heat": _heat_uri(gallery_deg_G2, probability_G, low, high),
        "ratio": height_in(1, span),
    }


def _add_locations(
    figure: Any, gps_deg_N2: Floats, notes: list[str], marker: dict[str, Any], ranks: list[str] | None = None
) -> None:
    """Marks that show coordinates and note under the pointer; `ranks` are written in them."""
    figure.add_scatter(
        x=gps_deg_N2[:, 1].round(5),
        y=gps_deg_N2[:, 0].round(5),
        mode="markers" if ranks is None else "markers+text",
        text=ranks,
        textfont={"color": NIGHT, "size": 11, "weight": "bold"},
        customdata=notes,
        hovertemplate="%{y:.4f}, %{x:.4f}<br>%{customdata}<extra></extra>",
        marker=marker,
        cliponaxis=True,
    )


def _layout(span: tuple[float, float]) -> dict[str, Any]:
    axis = {
        "gridcolor": "rgba(255,255,255,0.07)", "zeroline": False, "dtick": 30, "showgrid": True,
        "showticklabels": False,
    }  # fmt: skip
    return {
        "template": "none",
        "paper_bgcolor": NIGHT,
        "plot_bgcolor": NIGHT,
        "font": {"color": INK, "size": 13},
        "margin": {"l": 0, "r": 0, "t": 0, "b": 58},
        "showlegend": False,
        "dragmode": "pan",
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": NIGHT, "bordercolor": MUTED, "font": {"color": INK, "size": 13}},
        "xaxis": dict(range=[-180, 180], minallowed=-180, maxallowed=180, **axis),
        "yaxis": dict(range=list(span), minallowed=-90, maxallowed=90, scaleanchor="x", **axis),
    }


def _heat_uri(gallery_deg_G2: Floats, probability_G: Floats, low: float, high: float) -> str:
    """The dots of the complete gallery from pole to pole, on a transparent background."""
    figure = new_figure(HEAT_IN, HEAT_IN / 2, "none")
    figure.set_dpi(HEAT_PX / HEAT_IN)
    axes = add_axes(figure, 0, 0, HEAT_IN, HEAT_IN / 2)
    axes.set_axis_off()
    axes.set_xlim(-180, 180)
    axes.set_ylim(*WHOLE)
    draw_heat(axes, gallery_deg_G2, probability_G, low, high)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", transparent=True)
    few_colors = Image.open(buffer).quantize(128, method=Image.Quantize.FASTOCTREE)
    small = io.BytesIO()
    few_colors.save(small, "PNG", optimize=True)
    return data_uri(small.getvalue(), "png")
