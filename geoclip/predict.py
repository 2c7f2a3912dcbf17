"""Predict: `python -m geoclip.predict image=FILE_OR_FOLDER`. `--help` shows everything."""

from __future__ import annotations

import logging
from dataclasses import asdict
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from geoclip.checks import predict_problems
from geoclip.config import PredictConfig, typed
from geoclip.entry import run_entry_point
from geoclip.errors import AssetError

if TYPE_CHECKING:
    from geoclip.data.benchmarks import Photo
    from geoclip.drawing.prediction import Prediction
    from geoclip.evaluation.gallery import Gallery
    from geoclip.evaluation.prediction import Guess
    from geoclip.trained import Trained

log = logging.getLogger("geoclip")

EARTH_PX = 2160  # width of the map's background
LINK_COLUMNS = 110
PHOTO_PX = 560  # of the photograph beside the map


def main(cfg: DictConfig) -> None:
    """Check the configuration, then predict."""
    config = typed(cfg, PredictConfig, predict_problems)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    predict(config)


def predict(config: PredictConfig) -> Path:
    """Predict where pictures were taken; print a table and write a JSON for each, and maps.

    Returns:
        The folder written to.

    Raises:
        GeoclipError: the model, the gallery or every picture cannot be read.
    """
    from rich.console import Console

    from geoclip.data.benchmarks import list_photos, photo_batches
    from geoclip.drawing.guesses import guesses_table
    from geoclip.evaluation.benchmark import embed_images
    from geoclip.evaluation.gallery import encode_gallery
    from geoclip.evaluation.prediction import best_guesses
    from geoclip.run_dir import write_json
    from geoclip.trained import open_trained

    photos = {photo.key: photo for photo in list_photos(Path(config.image))}
    trained = open_trained(config, predicting=True)
    batches = photo_batches(list(photos.values()), trained.preprocessing, config.batch_size)
    total = len(photos) if len(photos) > config.batch_size else None
    queries, skipped = embed_images(trained.model, batches, trained.world.device, total=total)
    for line in skipped.lines():
        log.warning("skipped %s", line)
    gallery_GD = encode_gallery(trained.model.location_encoder, trained.gallery, trained.world.device)
    scale = trained.model.logit_scale.exp().item()
    folder = Path(config.output) if config.output else trained.folder / "predictions"
    names = _file_names(list(photos))
    console = Console()
    console.width = max(console.width, LINK_COLUMNS)  # a terminal may break the line, nobody the link
    shown: dict[str, Prediction] = {}
    for key, image_D in zip(queries.keys, queries.image_ND, strict=True):
        photo = photos[key]
        guesses, probability_G = best_guesses(
            image_D, trained.gallery, gallery_GD, scale=scale, k=config.top_k, truth_deg=photo.gps_deg
        )
        console.print(guesses_table(str(photo.path), guesses))
        write_json(folder / f"{names[key]}.json", _row(photo, guesses, trained))
        if len(shown) < config.maps:
            shown[names[key]] = _to_draw(photo, guesses, probability_G.numpy())
    _draw(folder, trained.gallery, shown)
    log.info("%d picture%s: %s", len(queries.keys), "" if len(queries.keys) == 1 else "s", folder)
    if 0 < config.maps < len(queries.keys):
        log.info("maps of the first %d; maps=%d draws all", config.maps, len(queries.keys))
    return folder


def _file_names(keys: list[str]) -> dict[str, str]:
    """What each picture's files are called: its name without the suffix, and a number where two would be the same."""
    taken: dict[str, str] = {}  # key by name
    for key in keys:
        stem = key.replace("/", "_").rsplit(".", 1)[0]
        numbered = (f"{stem}-{number}" for number in count(2))
        taken[next(name for name in chain((stem,), numbered) if name not in taken)] = key
    return {key: name for name, key in taken.items()}


def _row(photo: Photo, guesses: list[Guess], trained: Trained) -> dict[str, Any]:
    """What the JSON says of one picture."""
    return {
        "image": str(photo.path),
        "model": trained.name,
        "checkpoint_sha256": trained.sha256,
        "gallery": trained.gallery.name,
        "gallery_size": len(trained.gallery.gps_deg_G2),
        "gallery_sha256": trained.gallery.sha256,
        "truth": photo.gps_deg and dict(zip(("lat", "lon"), photo.gps_deg, strict=True)),
        "predictions": [asdict(guess) | {"map": guess.map} for guess in guesses],
    }


def _to_draw(photo: Photo, guesses: list[Guess], probability_G: Any) -> Prediction:
    import numpy as np

    from geoclip.data.pictures import decode
    from geoclip.drawing.prediction import Prediction

    return Prediction(
        title=photo.key,
        probability_G=probability_G,
        top_deg_k2=np.array([(guess.lat, guess.lon) for guess in guesses]),
        top_probability_k=np.array([guess.probability for guess in guesses]),
        truth_deg=photo.gps_deg,
        photo=decode(photo.path.read_bytes(), PHOTO_PX),
    )


def _draw(folder: Path, gallery: Gallery, shown: dict[str, Prediction]) -> None:
    """A picture of each prediction, and one page with a map to zoom for all of them."""
    from geoclip.data.blue_marble import read_earth
    from geoclip.drawing.prediction_map import draw_prediction_png
    from geoclip.drawing.prediction_page import write_predictions_html

    if not shown:
        return
    try:
        background = read_earth(EARTH_PX)
    except AssetError as error:  # the predictions stand; only the picture below them is missing
        log.warning("no maps: %s", error)
        return
    places_G2 = gallery.gps_deg_G2.numpy()
    for name, prediction in shown.items():
        draw_prediction_png(
            folder / f"{name}.png",
            places_G2,
            prediction.probability_G,
            prediction.top_deg_k2,
            prediction.top_probability_k,
            title=prediction.title,
            truth_deg=prediction.truth_deg,
            photo=prediction.photo,
            background=background,
        )
    page = folder / (f"{next(iter(shown))}.html" if len(shown) == 1 else "index.html")
    write_predictions_html(page, places_G2, shown.values(), background)
    log.info("map to zoom: %s", page)


if __name__ == "__main__":
    run_entry_point("predict", PredictConfig, main)
