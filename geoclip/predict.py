"""Predict: `python -m geoclip.predict image=FILE_OR_FOLDER`, or `text='a desert'`; `--help` explains every key."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from geoclip.cli.app import run_entry_point, typed_beside_run
from geoclip.config import PredictConfig, one_or_many, predict_problems
from geoclip.errors import GeoclipError
from geoclip.system.console import printable, setup_logging, show

if TYPE_CHECKING:
    from torch import Tensor

    from geoclip.evaluation.calibration import Calibration
    from geoclip.evaluation.gallery import Gallery
    from geoclip.factory.loading import LoadedModel
    from geoclip.inference.prediction import Query, QueryResult

log = logging.getLogger("geoclip")

LINK_COLUMNS = 110  # so that no link is broken into two lines


def main(cfg: DictConfig) -> None:
    """Check the configuration, then predict."""
    setup_logging()
    predict(typed_beside_run(cfg, PredictConfig, predict_problems))


def predict(config: PredictConfig) -> Path:
    """Predict locations of images or texts; print tables, write a JSON for each, and maps; returns the folder.

    Raises:
        GeoclipError: the model, the gallery or every image cannot be read; texts without a text tower.
    """
    from tqdm import tqdm

    from geoclip.evaluation.retrieval import require_finite
    from geoclip.factory.loading import load_model
    from geoclip.geo.geodesy import unit_vectors
    from geoclip.inference.prediction import GuessSettings, file_names, guess_locations

    loaded = load_model(config, needs_backbone=bool(config.image), predicting=True)
    gallery = _restricted(loaded.gallery, config)
    queries, image_ND = _queries(config, loaded)
    calibration = _calibration(config, loaded, gallery)
    gallery_GD = loaded.embedded(gallery)
    require_finite(image_ND, gallery_GD)
    scale = calibration.scale if calibration else loaded.scale
    settings = GuessSettings(scale=scale, k=config.top_k, smooth_km=config.smooth_km, refine_m=config.refine_m)
    truth_deg = [query.truth_deg for query in queries]
    results = guess_locations(image_ND, truth_deg, gallery, gallery_GD, loaded.model.location_encoder, settings)
    output = _Output(
        config=config,
        loaded=loaded,
        gallery=gallery,
        points_G3=unit_vectors(gallery.gps_deg_G2),
        calibration=calibration,
        folder=Path(config.output) if config.output else loaded.folder / "predictions",
    )
    names = file_names([query.title for query in queries])
    few = len(queries) <= config.batch_size
    progress = tqdm(results, total=len(queries), desc="predicting", unit="query", disable=few)
    for query, result in zip(queries, progress, strict=True):
        output.add(query, result, names[query.title], shown=few)
    output.finish()
    return output.folder


@dataclass(kw_only=True, slots=True)
class _Output:
    """Writes predictions to the console and to files."""

    config: PredictConfig
    loaded: LoadedModel
    gallery: Gallery
    points_G3: Tensor  # of the gallery, on the unit sphere
    calibration: Calibration | None
    folder: Path
    rows: list[dict[str, Any]] = field(default_factory=list)  # of predictions.csv
    maps: dict[str, tuple[str, Query, QueryResult]] = field(default_factory=dict)  # by name, with the title
    error: OSError | None = None  # the first one of writing: later predictions are only printed

    def add(self, query: Query, result: QueryResult, name: str, *, shown: bool) -> None:
        """Print a prediction if `shown`, write NAME.json, and collect rows and maps."""
        from geoclip.inference.pictures import guesses_table
        from geoclip.inference.prediction import prediction_row, summary_row
        from geoclip.plotting.tables import tta_note
        from geoclip.runs.run_dir import write_json

        config, expected_km = self.config, None
        if self.calibration:
            expected_km = self.calibration.expected_of(result.heat_G, self.points_G3)
        known = config.abstain_km is None or expected_km is None or expected_km <= config.abstain_km
        title = query.title + tta_note(config.tta.value) * bool(query.photo)
        if shown:
            error = "" if expected_km is None else f"  expected error {expected_km:,.0f} km"
            head = title + ("" if known else "  do not know:") + error
            show(guesses_table(head, result.guesses, query.exif_deg), min_width=LINK_COLUMNS)
        views = {"tta": config.tta.value} if query.photo else {}
        facts = {"model": self.loaded.name, "checkpoint_sha256": self.loaded.sha256} | views
        confidence = {"expected_error_km": expected_km, "known": known}
        row = prediction_row(query, result, self.gallery, **facts) | {"calibrated": bool(self.calibration)}
        try:
            if not self.error:
                write_json(self.folder / f"{name}.json", row | confidence)
        except OSError as failed:
            self.error = failed
        self.rows.append(summary_row(query, result) | views | confidence)
        if len(self.maps) < config.maps:
            self.maps[name] = (title, query, result)

    def finish(self) -> None:
        """Write predictions.csv of several queries, and draw the maps.

        Raises:
            GeoclipError: a file could not be written.
        """
        import pandas as pd

        from geoclip.inference.pictures import draw_prediction_maps, prediction_to_draw
        from geoclip.runs.run_dir import saving
        from geoclip.system.files import write_text_atomic

        count, maps = len(self.rows), self.config.maps
        with saving(self.folder):
            if self.error:
                raise self.error
            if count > 1:
                text = pd.DataFrame(self.rows).to_csv(index=False)
                write_text_atomic(self.folder / "predictions.csv", text)
            drawn = {name: prediction_to_draw(*one, self.config.max_pixels) for name, one in self.maps.items()}
            draw_prediction_maps(self.folder, self.gallery, drawn)
        log.info("%d prediction%s: %s", count, "" if count == 1 else "s", self.folder)
        if 0 < maps < count:
            log.info("maps of the first %d; maps=%d draws all", maps, count)


def _calibration(config: PredictConfig, loaded: LoadedModel, gallery: Gallery) -> Calibration | None:
    """The calibration of this model with this gallery, if any; GeoclipError if abstain_km needs one."""
    from geoclip.evaluation.calibration import read_calibration

    found = None
    if config.smooth_km > 0:
        log.info("smoothed heat is not calibrated")
    else:
        found = read_calibration(
            loaded.folder, checkpoint_sha256=loaded.sha256, gallery_sha256=gallery.sha256, tta=config.tta.value
        )
    if found is None and config.abstain_km is not None:
        raise GeoclipError(
            f"abstain_km={config.abstain_km:g} needs a calibration of this checkpoint with this gallery: "
            f"python -m geoclip.calibrate checkpoint={config.checkpoint}"
        )
    return found


def _queries(config: PredictConfig, loaded: LoadedModel) -> tuple[list[Query], Tensor]:
    """The queries and their (N, D) unit vectors; broken images are logged and skipped."""
    import torch

    from geoclip.inference.prediction import Query

    texts = list(dict.fromkeys(map(printable, one_or_many(config.text))))
    queries = [Query(title=text) for text in texts]
    vectors = [_embed_texts(texts, loaded)] if texts else []
    if config.image:
        from geoclip.data.batch import Account
        from geoclip.data.benchmarks import list_photos, photo_batches
        from geoclip.data.coordinates import exif_coordinates
        from geoclip.evaluation.retrieval import embed_images

        listed, unreadable = list_photos(Path(config.image))
        photos = {photo.key: photo for photo in listed}
        batches = photo_batches(list(photos.values()), loaded.preprocessing, config.batch_size)
        total = len(photos) if len(photos) > config.batch_size else None
        found, skipped = embed_images(loaded.model, batches, loaded.world.device, total=total)
        account = Account(what=f"image={config.image}", used=len(found.keys), skipped=skipped, unit="files")
        account.skipped.add(unreadable)
        account.log()
        for photo in (photos[key] for key in found.keys):
            exif_deg = exif_coordinates(photo.path)
            queries.append(Query(title=photo.key, photo=photo.path, truth_deg=photo.gps_deg, exif_deg=exif_deg))
        vectors.append(found.image_ND)
    return queries, torch.cat(vectors)


def _embed_texts(texts: list[str], loaded: LoadedModel) -> Tensor:
    """(N, D) unit vectors: CLIP's text tower, then the image MLP; GeoclipError if the encoder has no text tower."""
    import torch

    from geoclip.model.text_encoder import TextEncoder

    if loaded.encoder["kind"] != "clip":
        raise GeoclipError(
            f"text={texts[0]!r}: {loaded.name} has an encoder of the kind {loaded.encoder['kind']}, without a text "
            "tower; query a model on CLIP's features, such as checkpoint=official or one trained with "
            "encoder=clip_vit_l14"
        )
    encoder = TextEncoder.from_pretrained(loaded.encoder["repo"]).to(loaded.world.device)
    with torch.inference_mode():
        return loaded.model.encode_features(encoder.encode(texts).float())


def _restricted(gallery: Gallery, config: PredictConfig) -> Gallery:
    from geoclip.evaluation.gallery import restricted

    box = tuple(config.box)
    kept = restricted(gallery, box if len(box) == 4 else None, one_or_many(config.country))
    if kept is not gallery:
        log.info("gallery %s: %d of %d locations", kept.name, len(kept.gps_deg_G2), len(gallery.gps_deg_G2))
    if len(kept.gps_deg_G2) == 1:
        log.warning("box and country leave one location in the gallery: it is predicted for every query")
    return kept


if __name__ == "__main__":
    run_entry_point("predict", PredictConfig, main)
