"""From a run to the folder that is published: weights, gallery, configuration, evaluations and card."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from torch import Tensor

from geoclip.build.data import build_gallery
from geoclip.build.model import assemble_model, config_of
from geoclip.build.published import load
from geoclip.config import EncoderConfig, EncoderKind, Fit, GalleryConfig, Interpolation, LoggerConfig, TrainConfig
from geoclip.drawing.model_card import CardFacts, model_card
from geoclip.drawing.report_figures import read_results
from geoclip.errors import DataError, GeoclipError
from geoclip.files import sha256_of, write_text_atomic
from geoclip.model.release_writing import GALLERY, authors_misfits, write_authors_layout, write_tensors
from geoclip.model.releases import FORMAT_VERSION, OURS
from geoclip.run_dir import checkpoint_file, git_revision, to_dict, write_json
from geoclip.training.checkpoint import Tree, read_checkpoint
from geoclip.training.state import BACKBONE

log = logging.getLogger("geoclip")

SCRATCH = (EncoderKind.resnet, EncoderKind.vit)  # their weights are nowhere but in runs


@dataclass(kw_only=True, slots=True)
class WrittenModel:
    """The files that were written of a model, and the facts on its card."""

    folder: Path
    files: list[Path]
    config: TrainConfig  # without what is of this machine alone
    misfits: list[str]  # why the authors' layout cannot store it; none: it is in that layout
    gallery_size: int
    step: int
    sha256: str  # of the checkpoint


def results_of(run: Path, checkpoint: Path, *, force: bool) -> list[dict[str, Any]]:
    """The run's evaluations of this very checkpoint.

    Args:
        run: its folder.
        checkpoint: what is published.
        force: none is enough.

    Raises:
        DataError: there is none; the message names the command that makes one.
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
    """Weights, gallery and configuration; read back before this returns.

    Args:
        folder: made where there is none.
        checkpoint: of a run.
        backbone: the Hub id of a pretrained backbone that was read from a folder.

    Raises:
        GeoclipError: nobody else could load the model: its backbone or its gallery is on this machine alone.
    """
    saved = read_checkpoint(checkpoint)
    config = config_of(saved, checkpoint)
    shared = _for_others(config, backbone)
    gallery = build_gallery(config.gallery)
    folder.mkdir(parents=True, exist_ok=True)
    places = pd.DataFrame(gallery.gps_deg_G2.numpy(), columns=["LAT", "LON"])
    write_text_atomic(folder / GALLERY, places.to_csv(index=False))
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
        gallery_size=len(places),
        step=saved["counters"]["step"],
        sha256=sha256_of(checkpoint),
    )


def write_card(
    written: WrittenModel, run: Path, results: list[dict[str, Any]], *, repo: str, licence: str
) -> list[Path]:
    """README.md, the configuration and the evaluations beside the model. Returns every file of the folder's."""
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
    """The configuration without what is of this machine alone: folders, and whose dashboard it was.

    Raises:
        GeoclipError: its backbone came from a folder.
    """
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
    """Why the authors' layout, which only names a CLIP and its revision, cannot store this image encoder."""
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
    """Whether its layers are as large as the authors' code expects them."""
    location, encoder = config.location, config.encoder
    sizes = (location.frequencies, location.hidden_dim, location.depth, location.embedding_dim)
    return sizes == (256, 1024, 3, 512) and (encoder.feature_dim, encoder.hidden_dim) == (768, 768)


def _cached_revision(repo: str) -> str | None:
    """The revision of a Hub repository that this machine has, and so trained with; None where it has none."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, "config.json")
    return Path(found).parent.name if isinstance(found, str) else None


def _tensors(config: TrainConfig, saved: Tree) -> dict[str, Tensor]:
    """All that a model of this configuration is not given by anybody else."""
    tensors: dict[str, Tensor] = saved["model"]
    if config.encoder.kind in SCRATCH and config.encoder.frozen:  # the backbone of another run
        source = read_checkpoint(checkpoint_file(config.encoder.repo))["model"]
        tensors = tensors | {name: one for name, one in source.items() if name.startswith(BACKBONE)}
    return tensors


def _write_own_layout(folder: Path, config: TrainConfig, tensors: dict[str, Tensor]) -> list[Path]:
    held = {"model_type": OURS, "format_version": FORMAT_VERSION, "gallery_file": GALLERY, "config": to_dict(config)}
    write_json(folder / "config.json", held)
    write_tensors(folder / "model.safetensors", tensors)
    return [folder / name for name in ("config.json", GALLERY, "model.safetensors")]


def _read_back(folder: Path, saved: Tree, config: TrainConfig) -> None:
    """Proof that what was written is the model; not of a trained backbone, which may not be at hand to build."""
    if not (config.encoder.frozen or config.encoder.kind in SCRATCH):
        return
    found = load(folder, backbone=None).state_dict()
    for name, tensor in saved["model"].items():
        if not name.startswith(BACKBONE) and not tensor.equal(found[name]):
            raise GeoclipError(f"{folder} does not give back {name}; the disk may be faulty: write it again")
