"""Predict: `python -m geoclip.predict image=FILE_OR_FOLDER`, or `text='a desert'`. `--help` shows everything."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from geoclip.checks import predict_problems
from geoclip.checks.gallery import one_or_many
from geoclip.config import PredictConfig
from geoclip.console import printable, setup_logging, show
from geoclip.entry import run_entry_point, typed_beside_run
from geoclip.errors import GeoclipError

if TYPE_CHECKING:
    from torch import Tensor

    from geoclip.evaluation.answer_rows import Query
    from geoclip.evaluation.calibration import Calibration
    from geoclip.evaluation.gallery import Gallery
    from geoclip.trained import LoadedModel

log = logging.getLogger("geoclip")

LINK_COLUMNS = 110  # a terminal may break the line, nobody the link


def main(cfg: DictConfig) -> None:
    """Check the configuration, then predict."""
    setup_logging()
    config = typed_beside_run(cfg, PredictConfig, predict_problems)
    predict(config)


def predict(config: PredictConfig) -> Path:
    """Predict where pictures were taken and what texts speak of; print tables, write a JSON for each, and maps.

    Returns:
        The folder written to.

    Raises:
        GeoclipError: the model, the gallery or every picture cannot be read; texts without a text tower.
    """
    import pandas as pd
    from tqdm import tqdm

    from geoclip.drawing.answers import Drawn, draw_answers
    from geoclip.drawing.guesses import guesses_table
    from geoclip.drawing.tables import tta_note
    from geoclip.evaluation.answer_rows import answer_row, file_names, summary_row
    from geoclip.evaluation.prediction import Asking, answers
    from geoclip.files import write_text_atomic
    from geoclip.geo.geodesy import unit_vectors
    from geoclip.run_dir import saving, write_json
    from geoclip.trained import load_model

    loaded = load_model(config, needs_backbone=bool(config.image), predicting=True)
    gallery = _restricted(loaded.gallery, config)
    queries, image_ND = _queries(config, loaded)
    gallery_GD = loaded.embedded(gallery)
    calibration = _calibration(config, loaded, gallery)
    asking = Asking(
        scale=calibration.scale if calibration else loaded.model.logit_scale.exp().item(),
        k=config.top_k,
        smooth_km=config.smooth_km,
        refine_m=config.refine_m,
    )
    answered = answers(
        image_ND,
        [query.truth_deg for query in queries],
        gallery,
        gallery_GD,
        loaded.model.location_encoder,
        asking,
    )
    points_G3 = unit_vectors(gallery.gps_deg_G2)
    folder = Path(config.output) if config.output else loaded.folder / "predictions"
    names = file_names([query.title for query in queries])
    seen_as = {query.title: query.title + tta_note(config.tta.value) * bool(query.photo) for query in queries}
    shown: dict[str, Drawn] = {}
    best: list[dict[str, Any]] = []
    not_saved: OSError | None = None
    few = len(queries) <= config.batch_size
    for query, answer in tqdm(
        zip(queries, answered, strict=True), total=len(queries), desc="predicting", unit="query", disable=few
    ):
        expected_km = None if calibration is None else calibration.expected_of(answer.heat_G, points_G3)
        known = config.abstain_km is None or expected_km is None or expected_km <= config.abstain_km
        if few:
            title = _title(seen_as[query.title], expected_km, known)
            show(guesses_table(title, answer.guesses, exif_deg=query.exif_deg), min_width=LINK_COLUMNS)
        views = {"tta": config.tta.value} if query.photo else {}
        told = answer_row(query, answer, gallery, model=loaded.name, checkpoint_sha256=loaded.sha256, **views)
        confidence = {"calibrated": bool(calibration), "expected_error_km": expected_km, "known": known}
        if not_saved is None:
            try:
                write_json(folder / f"{names[query.title]}.json", told | confidence)
            except OSError as error:  # what is still to come is printed all the same
                not_saved = error
        if len(shown) < config.maps:
            shown[names[query.title]] = Drawn(
                title=seen_as[query.title],
                photo=query.photo,
                truth_deg=query.truth_deg,
                answer=answer,
                max_pixels=config.max_pixels,
            )
        best.append(summary_row(query, answer) | views | {"expected_error_km": expected_km, "known": known})
    with saving(folder):
        if not_saved:
            raise not_saved
        if len(queries) > 1:
            write_text_atomic(folder / "predictions.csv", pd.DataFrame(best).to_csv(index=False))
        draw_answers(folder, gallery, shown)
    plural = "" if len(queries) == 1 else "s"
    log.info("%d prediction%s: %s", len(queries), plural, folder)
    if 0 < config.maps < len(queries):
        log.info("maps of the first %d; maps=%d draws all", config.maps, len(queries))
    return folder


def _calibration(config: PredictConfig, loaded: LoadedModel, gallery: Gallery) -> Calibration | None:
    """What makes this model's probabilities mean what they say, if it was calibrated with this gallery.

    Raises:
        GeoclipError: without it, nothing can be left unanswered.
    """
    from geoclip.evaluation.calibration import read_calibration

    found = None
    if config.smooth_km > 0:
        log.info("smoothed heat is not calibrated")
    else:
        found = read_calibration(
            loaded.folder,
            checkpoint_sha256=loaded.sha256,
            gallery_sha256=gallery.sha256,
            tta=config.tta.value,
        )
    if found is None and config.abstain_km is not None:
        raise GeoclipError(
            f"abstain_km={config.abstain_km:g} needs a calibration of this checkpoint with this gallery: "
            f"python -m geoclip.calibrate checkpoint={config.checkpoint}"
        )
    return found


def _title(title: str, expected_km: float | None, known: bool) -> str:
    if not known:
        return f"{title}  do not know: {expected_km:,.0f} km off are to be expected"
    return title if expected_km is None else f"{title}  {expected_km:,.0f} km off are to be expected"


def _queries(config: PredictConfig, loaded: LoadedModel) -> tuple[list[Query], Tensor]:
    """What is asked about, and its (N, D) unit vectors; broken pictures are named and left out."""
    import torch

    from geoclip.evaluation.answer_rows import Query

    queries: list[Query] = []
    vectors: list[Tensor] = []
    texts = list(dict.fromkeys(map(printable, one_or_many(config.text))))
    if texts:
        queries += [Query(title=text) for text in texts]
        vectors.append(_embed_texts(texts, loaded))
    if config.image:
        from geoclip.data.account import Account
        from geoclip.data.benchmarks import list_photos, photo_batches
        from geoclip.data.exif import exif_place
        from geoclip.evaluation.images import embed_images

        listed, unreadable = list_photos(Path(config.image))
        photos = {photo.key: photo for photo in listed}
        batches = photo_batches(list(photos.values()), loaded.preprocessing, config.batch_size)
        total = len(photos) if len(photos) > config.batch_size else None
        found, skipped = embed_images(loaded.model, batches, loaded.world.device, total=total)
        account = Account(what=f"image={config.image}", used=len(found.keys), skipped=skipped, unit="files")
        account.skipped.add(unreadable)
        account.log()
        for key in found.keys:
            photo = photos[key]
            exif_deg = exif_place(photo.path)
            queries.append(Query(title=key, photo=photo.path, truth_deg=photo.gps_deg, exif_deg=exif_deg))
        vectors.append(found.image_ND)
    return queries, torch.cat(vectors)


def _embed_texts(texts: list[str], loaded: LoadedModel) -> Tensor:
    """(N, D) unit vectors: CLIP's text tower, then the image MLP.

    Raises:
        GeoclipError: the model's encoder has no text tower whose space its image MLP knows.
    """
    import torch

    from geoclip.model.text_encoder import TextEncoder

    if loaded.encoder["kind"] != "clip":
        raise GeoclipError(
            f"text={texts[0]!r}: {loaded.name} has an encoder of the kind {loaded.encoder['kind']}, without a text "
            "tower; ask a model on CLIP's features, such as checkpoint=official or one trained with "
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
        log.info("gallery %s: %d of %d places", kept.name, len(kept.gps_deg_G2), len(gallery.gps_deg_G2))
    if len(kept.gps_deg_G2) == 1:
        log.warning(
            "box and country leave the gallery one location: it is predicted whatever a picture shows"
        )
    return kept


if __name__ == "__main__":
    run_entry_point("predict", PredictConfig, main)
