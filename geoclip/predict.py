"""Predict: `python -m geoclip.predict image=FILE_OR_FOLDER`. `--help` shows everything."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from geoclip.checks import predict_problems
from geoclip.config import PredictConfig, typed
from geoclip.entry import run_entry_point

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from geoclip.data.benchmarks import Photo
    from geoclip.trained import Trained

log = logging.getLogger("geoclip")

EARTH_PX = 2160  # width of the map's background


def main(cfg: DictConfig) -> None:
    """Check the configuration, then predict."""
    config = typed(cfg, PredictConfig, predict_problems)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    predict(config)


def predict(config: PredictConfig) -> Path:
    """Predict where pictures were taken; print a table and write JSON and maps for each.

    Returns:
        The folder written to.

    Raises:
        GeoclipError: the model, the gallery or every picture cannot be read.
    """
    import torch

    from geoclip.data.benchmarks import list_photos, photo_batches
    from geoclip.data.blue_marble import read_earth
    from geoclip.evaluation.benchmark import embed_images
    from geoclip.evaluation.gallery import encode_gallery
    from geoclip.evaluation.retrieval import gallery_probability
    from geoclip.trained import open_trained

    photos = {photo.key: photo for photo in list_photos(Path(config.image))}
    trained = open_trained(config)
    batches = photo_batches(list(photos.values()), trained.image_px, config.batch_size)
    total = len(photos) if len(photos) > config.batch_size else None
    queries, skipped = embed_images(trained.model, batches, trained.world.device, total=total)
    for line in skipped.lines():
        log.warning("skipped %s", line)
    gallery_GD = encode_gallery(trained.model.location_encoder, trained.gallery, trained.world.device)
    scale = trained.model.logit_scale.exp().item()
    folder = Path(config.output) if config.output else trained.folder / "predictions"
    background, drawn = read_earth(EARTH_PX), 0
    with torch.inference_mode():
        for key, image_D in zip(queries.keys, queries.image_ND, strict=True):
            probability_G = gallery_probability(image_D, gallery_GD, scale).cpu()
            row = _prediction(photos[key], trained, image_D, gallery_GD, probability_G, config.top_k)
            _print_table(row)
            stem = key.replace("/", "_").rsplit(".", 1)[0]
            _write(folder / f"{stem}.json", row)
            if drawn < config.maps:
                _draw(folder / stem, photos[key], trained, probability_G, row, background)
                drawn += 1
    log.info("%d pictures, %d with maps: %s", len(queries.keys), drawn, folder)
    if drawn < len(queries.keys):
        log.info("maps=%d draws more of them", len(queries.keys))
    return folder


def _prediction(
    photo: Photo, trained: Trained, image_D: Tensor, gallery_GD: Tensor, probability_G: Tensor, top_k: int
) -> dict[str, Any]:
    """What the JSON says of one picture."""
    from geoclip.evaluation.retrieval import nearest_in_gallery

    score_1k, index_1k = nearest_in_gallery(image_D[None], gallery_GD, min(top_k, len(gallery_GD)))
    places = trained.gallery.gps_deg_G2[index_1k[0].cpu()].tolist()
    truth = _known_place(photo.path)
    return {
        "image": str(photo.path),
        "model": trained.name,
        "checkpoint_sha256": trained.sha256,
        "gallery": trained.gallery.name,
        "gallery_size": len(trained.gallery.gps_deg_G2),
        "truth": truth and {"lat": truth[0], "lon": truth[1]},
        "predictions": [
            {
                "rank": rank,
                "lat": lat,
                "lon": lon,
                "probability": float(probability_G[row]),
                "cosine": cosine,
                "distance_km": truth and _distance_km(truth, (lat, lon)),
                "map": f"https://www.google.com/maps?q={lat:.6f},{lon:.6f}",
            }
            for rank, ((lat, lon), row, cosine) in enumerate(
                zip(places, index_1k[0].tolist(), score_1k[0].tolist(), strict=True), start=1
            )
        ],
    }


def _known_place(path: Path) -> tuple[float, float] | None:
    """Latitude and longitude of a json beside the picture, as the views of the shards have one."""
    try:
        place = json.loads(path.with_suffix(".json").read_text())
        return float(place["lat"]), float(place["lon"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _distance_km(a: tuple[float, float], b: tuple[float, float]) -> float:
    import torch

    from geoclip.geo.geodesy import haversine_km

    return haversine_km(torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64)).item()


def _print_table(row: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=row["image"], title_justify="left")
    for column in ("rank", "latitude", "longitude", "score", "cosine"):
        table.add_column(column, justify="right")
    if row["truth"]:
        table.add_column("off by, km", justify="right")
    table.add_column("map", overflow="fold")
    for place in row["predictions"]:
        cells = [f"{place['rank']}", f"{place['lat']:.4f}", f"{place['lon']:.4f}"]
        cells += [f"{place['probability']:.2%}", f"{place['cosine']:.3f}"]
        cells += [f"{place['distance_km']:,.1f}"] if row["truth"] else []
        table.add_row(*cells, place["map"])
    Console().print(table)


def _write(path: Path, row: dict[str, Any]) -> None:
    from geoclip.run_dir import write_json

    write_json(path, row)


def _draw(
    stem: Path,
    photo: Photo,
    trained: Trained,
    probability_G: Tensor,
    row: dict[str, Any],
    background: NDArray[np.uint8],
) -> None:
    """stem.png and stem.html: the heat of the whole gallery and the top k."""
    import numpy as np
    from PIL import Image

    from geoclip.drawing.prediction_map import draw_prediction_png, write_prediction_html

    places = row["predictions"]
    with Image.open(photo.path) as image:
        picture = image.convert("RGB")
    drawn: dict[str, Any] = dict(
        gallery_deg_G2=trained.gallery.gps_deg_G2.numpy(),
        probability_G=probability_G.numpy(),
        top_deg_k2=np.array([(place["lat"], place["lon"]) for place in places]),
        top_probability_k=np.array([place["probability"] for place in places]),
        title=photo.key,
        truth_deg=row["truth"] and (row["truth"]["lat"], row["truth"]["lon"]),
        photo=picture,
        background=background,
    )
    draw_prediction_png(stem.with_name(stem.name + ".png"), **drawn)
    write_prediction_html(stem.with_name(stem.name + ".html"), **drawn)


if __name__ == "__main__":
    run_entry_point("predict", PredictConfig, main)
