"""Publish a run to the Hub: weights, configuration, gallery and model card."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from torch import Tensor

from geoclip.config import EncoderConfig, EncoderKind, Fit, GalleryConfig, Interpolation, LoggerConfig, TrainConfig
from geoclip.errors import DataError, GeoclipError
from geoclip.factory.data import build_gallery
from geoclip.factory.loading import load
from geoclip.factory.model import assemble_model, config_of
from geoclip.plotting.report import read_results
from geoclip.plotting.tables import accuracy_table, tta_note
from geoclip.pretrained.exporting import GALLERY, authors_misfits, write_authors_layout, write_tensors
from geoclip.pretrained.releases import FORMAT_VERSION, OURS
from geoclip.runs.run_dir import checkpoint_file, git_revision, to_dict, write_json
from geoclip.system.console import markdown_text, percent_text
from geoclip.system.files import sha256_of, write_text_atomic
from geoclip.training.checkpoint import Tree, read_checkpoint
from geoclip.training.state import BACKBONE

log = logging.getLogger("geoclip")

SCRATCH = (EncoderKind.resnet, EncoderKind.vit)  # trained from scratch: their weights are only in runs
TAGS = ["geoclip", "geo-localization", "image-geolocation", "pytorch"]
DATA_TERMS = {  # by data.name; see docs/data.md
    "bluemarble": "views of NASA Earth Observatory's Blue Marble Next Generation, at locations of the released gallery",
    "mp16": "photographs of Flickr, from YFCC100M, each under the Creative Commons licence that its author chose",
}


@dataclass(kw_only=True, slots=True, frozen=True)
class CardFacts:
    """The facts on a model card, in addition to the evaluations."""

    name: str
    repo: str  # owner/name; empty: not chosen
    licence: str  # of the weights; empty: not given
    config: Mapping[str, Any]  # of the training, plain values
    provenance: Mapping[str, Any]  # of the training; empty: not recorded
    authors_layout: bool
    authors_sizes: bool  # its layers have the sizes that the authors' code expects
    gallery_size: int
    step: int  # optimizer steps
    checkpoint_sha256: str
    git_revision: str  # of this package, when the card was written


def model_card(facts: CardFacts, results: Sequence[Mapping[str, Any]]) -> str:
    """README.md for the Hub, from the model's facts and the contents of its eval/*.json."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: value if isinstance(value, Markup) else markdown_text(value),
    )
    text = environment.get_template("model_card.md.j2").render(
        facts=facts,
        source=facts.repo or "FOLDER",
        checkpoint=f"hf-hub:{facts.repo}" if facts.repo else "FOLDER",
        table=Markup(accuracy_table(results).markdown() if results else ""),
        notes=[_note(result) for result in results],
        made=_made(facts),
        data_terms=DATA_TERMS.get(facts.config["data"]["name"], ""),
    )
    return f"---\n{_head(facts, results).to_yaml()}\n---\n\n{text}"


def _head(facts: CardFacts, results: Sequence[Mapping[str, Any]]) -> ModelCardData:
    """The metadata that the Hub reads: licence, base model and results."""
    repo = facts.config["encoder"]["repo"]
    found = [one for result in results for one in _measures(result)]
    return ModelCardData(
        license=facts.licence or None,
        library_name="geoclip-ablations",
        tags=TAGS,
        base_model=repo or None,
        model_name=facts.name if found else None,
        eval_results=found or None,
    )


def _measures(result: Mapping[str, Any]) -> list[EvalResult]:
    """Accuracy within each distance, median error and GeoScore, with their intervals."""
    values = [
        (
            f"accuracy_{km}_km",
            f"% within {km} km",
            float(percent_text(cell["value"], 4)),
            percent_text(cell["low"]),
            percent_text(cell["high"]),
        )
        for km, cell in sorted(result["accuracy_percent"].items(), key=lambda item: float(item[0]))
    ]
    for key, name in (("median_km", "median error, km"), ("geoscore", "GeoScore")):
        bounds = (f"{bound:.4g}" for bound in result[f"{key}_interval"])
        values.append((key, name, round(result[key], 4), *bounds))
    return [
        EvalResult(
            task_type="image-geolocation",
            task_name="image geo-localisation",
            dataset_type=str(result["benchmark"]),
            dataset_name=f"{result['benchmark']}, {result['n']:,} images{tta_note(result.get('tta', 'single'))}",
            metric_type=key,
            metric_name=f"{name} (95 % interval {low} to {high})",
            metric_value=value,
        )
        for key, name, value, low, high in values
    ]


def _note(result: Mapping[str, Any]) -> Markup:
    """The facts that a reader needs before comparing a row."""
    n, size, published = result["n"], result["gallery_size"], result.get("published_n")
    parts = [
        f"**{markdown_text(result['benchmark'])}**: gallery {markdown_text(result['gallery'])} of {size:,} locations; "
        f"{result['verbatim_in_gallery']:,} of {n:,} test coordinates are in it exactly"
    ]
    if published not in (None, n):
        parts.append(f"{published:,} images in publications: not comparable")
    if result.get("tta", "single") != "single":
        parts.append(f"views averaged: {markdown_text(result['tta'])}")
    if result.get("protocol", "sphere") == "released":
        parts.append("errors on the ellipsoid, at most the threshold, as in GeoCLIP's released code")
    if skipped := sum(result.get("skipped", {}).values()):
        parts.append(f"{skipped:,} images could not be read")
    if result.get("missing"):
        parts.append(f"{result['missing']:,} images were missing")
    return Markup("; ".join(parts))


def _made(facts: CardFacts) -> list[tuple[str, str]]:
    """How the model was trained, as pairs of label and text."""
    config, provenance = facts.config, facts.provenance
    data, encoder, location, loss, queue, optim = (
        config[group] for group in ("data", "encoder", "location", "loss", "queue", "optim")
    )
    tuned = "frozen" if encoder["tune"] == "frozen" else f"trained: {encoder['tune']}"
    backbone = ", ".join(part for part in (encoder["name"], encoder["repo"], tuned) if part)
    rows = [
        ("data", f"{data['name']}, {100 * data['fraction']:g} % of it"),
        ("image encoder", backbone),
        ("location encoder", f"{location['name']}: {_location(location)}"),
        ("loss", f"{loss['name']}; queue of {queue['size']:,} coordinates"),
        ("noise", f"{queue['batch_noise_m']:g} m on the batch, {queue['queue_noise_m']:g} m on the queue"),
        (
            "optimiser",
            f"{optim['kind']}, lr {optim['lr']:g}, {optim['schedule']}; {facts.step:,} steps of "
            f"{optim['batch_size']:,}",
        ),
        ("seed", str(config["seed"])),
        ("gallery", f"{config['gallery']['name']}, {facts.gallery_size:,} locations"),
    ]
    if provenance:
        machine, versions = provenance["machine"], provenance["versions"]
        gpu = "no GPU" if machine["gpu"] == "none" else f"{machine['gpu']} × {machine['world_size']}"
        rows += [
            ("machine", f"{machine['processor']}, {machine['cores']} cores, {gpu}"),
            ("software", ", ".join([f"Python {provenance['python']}", *(f"{k} {v}" for k, v in versions.items())])),
            ("git revision of the training", provenance["git_revision"]),
        ]
    rows += [("git revision of this card", facts.git_revision), ("SHA-256 of the checkpoint", facts.checkpoint_sha256)]
    return rows


def _location(location: Mapping[str, Any]) -> str:
    """The location encoder in words."""
    if location["kind"] != "fourier":
        return f"{location['kind']}, {location['embedding_dim']} dimensions"
    if location["sigmas"] is None:
        scales = f"{location['scales']} scales, σ from {location['sigma_min']:g} to {location['sigma_max']:g}"
    else:
        scales = "σ = " + ", ".join(f"{sigma:g}" for sigma in location["sigmas"])
    return f"{location['projection']}, {scales}, {location['frequencies']} frequencies each"


@dataclass(kw_only=True, slots=True)
class WrittenModel:
    """The files of a written model, and facts for its card."""

    folder: Path
    files: list[Path]
    config: TrainConfig  # without paths and accounts of this machine
    misfits: list[str]  # why the authors' layout cannot store it; empty: it is in that layout
    gallery_size: int
    step: int
    sha256: str  # of the checkpoint


def results_of(run: Path, checkpoint: Path, *, force: bool) -> list[dict[str, Any]]:
    """The run's evaluations of this checkpoint.

    Raises:
        DataError: there is none, and `force` is false.
    """
    sha256 = sha256_of(checkpoint)
    results = []
    for result in read_results(run):
        if result.get("checkpoint_sha256") == sha256:
            results.append(result)
        else:
            log.warning("left out eval/%s.json: it is of another checkpoint", result["evaluation"])
    if not results and not force:
        raise DataError(
            f"{run} has no evaluation of {checkpoint.name}, which the card reports: python -m "
            f"geoclip.evaluate checkpoint={checkpoint} benchmark=…; or force=true"
        )
    return results


def write_model(folder: Path, checkpoint: Path, *, backbone: str = "") -> WrittenModel:
    """Write weights, gallery and configuration, and read them back.

    Args:
        folder: created if missing.
        checkpoint: of a run.
        backbone: the Hub id of a pretrained backbone that was read from a local folder.

    Raises:
        GeoclipError: the backbone is a local folder and `backbone` is empty, or the gallery cannot be read.
    """
    saved = read_checkpoint(checkpoint)
    config = config_of(saved, checkpoint)
    shared = _for_others(config, backbone)
    gallery = build_gallery(config.gallery)
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(gallery.gps_deg_G2.numpy(), columns=["LAT", "LON"])
    write_text_atomic(folder / GALLERY, table.to_csv(index=False))
    misfits = _encoder_misfits(config.encoder)
    if not misfits:
        model = assemble_model(config, saved["model"], checkpoint, None)
        misfits = authors_misfits(model)
    if not misfits:
        repo, revision = shared.encoder.repo, _cached_revision(shared.encoder.repo)
        files = write_authors_layout(folder, model, backbone=repo, revision=revision)
    else:
        files = _write_own_layout(folder, shared, _tensors(config, saved))
    _read_back(folder, saved, config)
    return WrittenModel(
        folder=folder,
        files=files,
        config=shared,
        misfits=misfits,
        gallery_size=len(table),
        step=saved["counters"]["step"],
        sha256=sha256_of(checkpoint),
    )


def write_card(
    written: WrittenModel, run: Path, results: list[dict[str, Any]], *, repo: str, licence: str
) -> list[Path]:
    """Write README.md, configuration and evaluations beside the model; returns all files of the folder."""
    path = run / "provenance.json"
    provenance = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    config = to_dict(written.config)
    facts = CardFacts(
        name=run.resolve().name,
        repo=repo,
        licence=licence,
        config=config,
        provenance=provenance,
        authors_layout=not written.misfits,
        authors_sizes=not written.misfits and _authors_sizes(written.config),
        gallery_size=written.gallery_size,
        step=written.step,
        checkpoint_sha256=written.sha256,
        git_revision=git_revision(),
    )
    write_text_atomic(written.folder / "README.md", model_card(facts, results))
    write_text_atomic(written.folder / "training_config.yaml", yaml.safe_dump(config, sort_keys=False))
    evaluations = [written.folder / "eval" / f"{result['evaluation']}.json" for result in results]
    for evaluation, result in zip(evaluations, results, strict=True):
        write_json(evaluation, result)
    return [*written.files, written.folder / "README.md", written.folder / "training_config.yaml", *evaluations]


def _for_others(config: TrainConfig, backbone: str) -> TrainConfig:
    """The configuration without paths and accounts of this machine; a GeoclipError if its backbone is a folder."""
    encoder = replace(config.encoder, features="", repo="" if config.encoder.kind in SCRATCH else config.encoder.repo)
    if encoder.repo and os.path.exists(encoder.repo) and not backbone:
        raise GeoclipError(
            f"encoder.repo={encoder.repo} is a folder of this machine; name the Hub id of its contents: backbone="
            "owner/name"
        )
    train, val = ("" if os.path.isabs(split) else split for split in (config.data.train, config.data.val))
    return replace(
        config,
        runs_dir="runs",
        resume="auto",
        data=replace(config.data, root="", train=train, val=val),
        encoder=replace(encoder, repo=backbone or encoder.repo) if encoder.repo else encoder,
        location=replace(config.location, init="official" if config.location.init == "official" else ""),
        gallery=GalleryConfig(name=config.gallery.name, path=GALLERY),
        logger=LoggerConfig(),
    )


def _encoder_misfits(encoder: EncoderConfig) -> list[str]:
    """Why the authors' layout, which names only a CLIP and its revision, cannot store this image encoder."""
    clip = EncoderConfig(name="clip")
    if encoder.kind is not EncoderKind.clip:
        return [f"its image encoder is of the kind {encoder.kind.value}"]
    if not encoder.frozen:
        return ["its backbone was trained"]
    seen = (encoder.fit, encoder.interpolation, encoder.resize_px or encoder.image_px)
    usual = (Fit.crop, Interpolation.bicubic, encoder.image_px)
    prediction = (encoder.prediction_mean or encoder.mean, encoder.prediction_std or encoder.std)
    return (
        [] if seen == usual and prediction == (clip.mean, clip.std) else ["its pictures are not prepared as CLIP's are"]
    )


def _authors_sizes(config: TrainConfig) -> bool:
    """Whether its layers have the sizes that the authors' code expects."""
    location, encoder = config.location, config.encoder
    sizes = (location.frequencies, location.hidden_dim, location.depth, location.embedding_dim)
    return sizes == (256, 1024, 3, 512) and (encoder.feature_dim, encoder.hidden_dim) == (768, 768)


def _cached_revision(repo: str) -> str | None:
    """The revision of a Hub repository in this machine's cache, or None."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, "config.json")
    return Path(found).parent.name if isinstance(found, str) else None


def _tensors(config: TrainConfig, saved: Tree) -> dict[str, Tensor]:
    """The tensors to publish, with those of a frozen backbone that another run trained."""
    tensors: dict[str, Tensor] = saved["model"]
    if config.encoder.kind in SCRATCH and config.encoder.frozen:  # the backbone of another run
        source = read_checkpoint(checkpoint_file(config.encoder.repo))["model"]
        tensors = tensors | {name: one for name, one in source.items() if name.startswith(BACKBONE)}
    return tensors


def _write_own_layout(folder: Path, config: TrainConfig, tensors: dict[str, Tensor]) -> list[Path]:
    facts = {"model_type": OURS, "format_version": FORMAT_VERSION, "gallery_file": GALLERY, "config": to_dict(config)}
    write_json(folder / "config.json", facts)
    write_tensors(folder / "model.safetensors", tensors)
    return [folder / name for name in ("config.json", GALLERY, "model.safetensors")]


def _read_back(folder: Path, saved: Tree, config: TrainConfig) -> None:
    """Check that the written files give the same tensors, except for a tuned pretrained backbone."""
    if not (config.encoder.frozen or config.encoder.kind in SCRATCH):
        return
    found = load(folder, backbone=None).state_dict()
    for name, tensor in saved["model"].items():
        if not name.startswith(BACKBONE) and not tensor.equal(found[name]):
            raise GeoclipError(f"{folder}: {name} differs after reading it back; the disk may be faulty: publish again")
