"""The card of a published model: Markdown below a head of YAML, every number from the run's own JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from geoclip.console import markdown_text
from geoclip.drawing.tables import accuracy_table, tta_note
from geoclip.percent import percent_text

TAGS = ["geoclip", "geo-localization", "image-geolocation", "pytorch"]
DATA_TERMS = {  # by data.name; see docs/data.md
    "bluemarble": "views of NASA Earth Observatory's Blue Marble Next Generation, at places of the released gallery",
    "mp16": "photographs of Flickr, from YFCC100M, each under the Creative Commons licence that its author chose",
}


@dataclass(kw_only=True, slots=True, frozen=True)
class CardFacts:
    """What a card says beside the evaluations."""

    name: str
    repo: str  # owner/name; empty: not decided
    licence: str  # of the weights; empty: not stated
    config: Mapping[str, Any]  # of the training, plain
    provenance: Mapping[str, Any]  # of the training; empty: not recorded
    authors_layout: bool
    authors_sizes: bool  # the authors' code can build it
    gallery_size: int
    step: int  # optimizer steps
    checkpoint_sha256: str
    git_revision: str  # of this package, when the card was written


def model_card(facts: CardFacts, results: Sequence[Mapping[str, Any]]) -> str:
    """README.md for the Hub.

    Args:
        facts: the model.
        results: contents of its eval/*.json; none is said plainly.

    Raises:
        DataError: an evaluation that lacks a number.
    """
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
    """What the Hub reads: licence, base model, and each number as a result of its own."""
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
    """Accuracy within each distance, median error and GeoScore, each with its interval."""
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
    """What a reader of one row must know before comparing it."""
    n, size, published = result["n"], result["gallery_size"], result.get("published_n")
    parts = [
        f"**{markdown_text(result['benchmark'])}**: gallery {markdown_text(result['gallery'])} of {size:,} places; "
        f"{result['verbatim_in_gallery']:,} of {n:,} test coordinates stand in it verbatim"
    ]
    if published not in (None, n):
        parts.append(f"as published it has {published:,} images: not comparable")
    if result.get("tta", "single") != "single":
        parts.append(f"views averaged: {markdown_text(result['tta'])}")
    if result.get("protocol", "sphere") == "released":
        parts.append("distances at most so large, on the ellipsoid, as GeoCLIP's released code counts")
    if skipped := sum(result.get("skipped", {}).values()):
        parts.append(f"{skipped:,} images could not be read")
    if result.get("missing"):
        parts.append(f"{result['missing']:,} images were missing")
    return Markup("; ".join(parts))


def _made(facts: CardFacts) -> list[tuple[str, str]]:
    """How the model was made, as pairs of words; what is not known is left out."""
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
        ("gallery", f"{config['gallery']['name']}, {facts.gallery_size:,} places"),
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
    """Its kind, and what the kind is built of."""
    if location["kind"] != "fourier":
        return f"{location['kind']}, {location['embedding_dim']} dimensions"
    if location["sigmas"] is None:
        scales = f"{location['scales']} scales, σ from {location['sigma_min']:g} to {location['sigma_max']:g}"
    else:
        scales = "σ = " + ", ".join(f"{sigma:g}" for sigma in location["sigmas"])
    return f"{location['projection']}, {scales}, {location['frequencies']} frequencies each"
