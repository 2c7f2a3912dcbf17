"""The report of a run: one HTML page that needs no network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from geoclip.errors import DataError
from geoclip.plotting.curves import draw_errors, draw_training
from geoclip.plotting.details import details_table, draw_details
from geoclip.plotting.maps import draw_predictions
from geoclip.plotting.pages import data_uri, photo_uri, render
from geoclip.plotting.tables import accuracy_table
from geoclip.plotting.world import Picture
from geoclip.runs.metrics import Row, read_rows
from geoclip.runs.run_dir import located, read_json, read_yaml
from geoclip.system.files import write_bytes_atomic

FIRST = ("test", "test_unseen_cells")  # shown before the others, which are sorted by name
COLUMNS = ("lat", "lon", "predicted_lat", "predicted_lon", "distance_km")
MAP_PX = 1600  # maps are JPEGs of this width in the page; the PNGs stay in figures/
MAX_PREDICTIONS = 6
CHARTS = {
    "training": "curves of the training",
    "errors": "distribution of the errors",
    "details": "accuracy by continent and by distance to the training locations, and reliability",
}


def read_results(run: Path) -> list[dict[str, Any]]:
    """The contents of `eval/*.json`: the embedded default's test splits first, then by name.

    Raises:
        DataError: a file that is not an evaluation.
    """
    results = []
    for path in sorted((run / "eval").glob("*.json")):
        if path.name.startswith("compare-"):  # of geoclip.compare
            continue
        result = read_json(path)
        if not isinstance(result.get("benchmark"), str):
            raise DataError(f"{path} is not an evaluation: it lacks the key benchmark; move it, or evaluate again")
        results.append(result | {"evaluation": path.stem})
    order = {name: number for number, name in enumerate(FIRST)}
    return sorted(results, key=lambda result: (order.get(result["benchmark"], len(FIRST)), result["evaluation"]))


def draw_report_figures(
    run: Path, rows: list[Row], results: list[dict[str, Any]], background: Picture
) -> dict[str, Path]:
    """Draw into `figures/` what the files of the run allow: `rows` of metrics.jsonl, `results` of `read_results`.

    Returns:
        Paths of the figures drawn: `training`, `errors`, `details`, and `predictions_<benchmark>` for every CSV.

    Raises:
        DataError: a CSV that lacks a column or has invalid coordinates.
    """
    tables = {result["evaluation"]: table for result in results if (table := _read_table(run, result["evaluation"]))}
    figures, drawn = run / "figures", dict[str, Path]()
    if any(row.get("kind") == "train" for row in rows):
        drawn["training"] = figures / "training.png"
        draw_training(rows, drawn["training"])
    if tables:
        drawn["errors"] = figures / "errors.png"
        ceilings = {name: table["ceiling_km"] for name, table in tables.items() if "ceiling_km" in table}
        draw_errors({name: table["distance_km"] for name, table in tables.items()}, ceilings, drawn["errors"])
    if results and results[0].get("by_continent"):
        drawn["details"] = figures / "details.png"
        draw_details(results[0], drawn["details"])
    for name, table in tables.items():
        drawn[f"predictions_{name}"] = path = figures / f"predictions_{name}.png"
        truth, guess = (np.column_stack((table[f"{of}lat"], table[f"{of}lon"])) for of in ("", "predicted_"))
        draw_predictions(truth, guess, table["distance_km"], background, path, title=name)
    return drawn


def _read_table(run: Path, evaluation: str) -> Mapping[str, NDArray[np.float64]]:
    """The columns of numbers of `eval/<evaluation>.csv`; empty if there is no such file."""
    path = run / "eval" / f"{evaluation}.csv"
    if not path.is_file():
        return {}
    table = pd.read_csv(path)
    if missing := [name for name in COLUMNS if name not in table]:
        raise DataError(f"{path} lacks the columns {', '.join(missing)}; evaluate again")
    return {name: table[name].to_numpy(dtype=np.float64) for name in (*COLUMNS, "ceiling_km") if name in table}


@dataclass(kw_only=True, slots=True, frozen=True)
class Figure:
    """A picture in the page; `link` is a page beside it with more."""

    address: str
    text: str
    is_chart: bool = False
    link: str = ""


def write_report(run: Path, *, background: Picture) -> Path:
    """Draw the run's figures and write `report.html`; for what is missing the page shows the command that makes it.

    Returns the path of the page. The map of every split, `distribution.png`, is read from the data's root.

    Raises:
        DataError: there is nothing to report on, or a file cannot be read.
    """
    path, made_with = run / "config.yaml", run / "provenance.json"
    config = read_yaml(path) if path.is_file() else {}
    provenance = read_json(made_with) if made_with.is_file() else {}
    rows, results = read_rows(run / "metrics.jsonl"), read_results(run)
    if not (config or rows or results):
        raise DataError(f"{run} is not a run; name another, or train one with python -m geoclip.train")
    drawn = draw_report_figures(run, rows, results, background)
    charts = {
        name: Figure(address=data_uri(path.read_bytes(), "png"), text=CHARTS[name], is_chart=True)
        for name, path in drawn.items()
        if name in CHARTS
    }
    maps = [_map(path, f"predictions on {name.split('_', 1)[1]}") for name, path in drawn.items() if name not in charts]
    distribution = Path(located(config, run)["data"]["root"]) / "distribution.png" if config else Path()
    page = render(
        "report.html.j2",
        name=run.resolve().name,
        run=run.as_posix(),
        table=accuracy_table(results) if results else None,
        details=[found for result in results if (found := details_table(result))],
        notes=_notes(results),
        charts=charts,
        maps=maps,
        predictions=_predictions(run),
        distribution=_map(distribution, "locations of every split") if distribution.is_file() else None,
        facts=_config_facts(config) | _training_facts(rows) | _provenance_facts(provenance),
        commands=_commands(run, provenance, results, config.get("gallery", {}).get("name")),
        config_text=path.read_text(encoding="utf-8") if config else "",
        provenance_text=json.dumps(provenance, indent=2, ensure_ascii=False) if provenance else "",
    )
    write_bytes_atomic(run / "report.html", page.encode("utf-8"))
    return run / "report.html"


def _map(path: Path, text: str, link: str = "") -> Figure:
    with Image.open(path) as image:
        return Figure(address=photo_uri(image, MAP_PX, quality=84, fine_color=True), text=text, link=link)


def _predictions(run: Path) -> list[Figure]:
    """A few pictures of single predictions; each links to the interactive map beside it."""
    figures = []
    for path in sorted((run / "predictions").glob("*.png"))[:MAX_PREDICTIONS]:
        pages = (path.with_suffix(".html"), path.with_name("index.html"))  # its own, or one for the folder
        link = next((f"predictions/{page.name}" for page in pages if page.is_file()), "")
        figures.append(_map(path, f"prediction of {path.stem}", link))
    return figures


def _config_facts(config: Mapping[str, Any]) -> dict[str, str]:
    if not config:
        return {}
    data, location, queue, optim = (config[group] for group in ("data", "location", "queue", "optim"))
    sigmas = ", ".join(f"{sigma:g}" for sigma in location["sigmas"])
    return {
        "data": f"{data['name']}, {100 * data['fraction']:g} % of it",
        "image encoder": f"{config['encoder']['name']}, {config['encoder']['image_px']} px",
        "location encoder": f"σ = {sigmas}; {location['frequencies']} frequencies each",
        "queue": f"{queue['size']:,} coordinates",
        "noise": f"{queue['batch_noise_m']:g} m on the batch, {queue['queue_noise_m']:g} m on the queue",
        "batch": f"{optim['batch_size']:,}",
        "optimiser": f"{optim['kind']}, lr {optim['lr']:g}, {optim['schedule']}",
        "seed": str(config["seed"]),
    }


def _training_facts(rows: list[Row]) -> dict[str, str]:
    train = [row for row in rows if row.get("kind") == "train"]
    if not train:
        return {}
    minutes, s = divmod(round(training_seconds(train)), 60)
    hours, min_ = divmod(minutes, 60)
    duration = f"{hours} h {min_} min" if hours else f"{min_} min {s} s" if min_ else f"{s} s"
    samples = f"{train[-1]['samples']:,} in {train[-1]['step']:,} steps"
    return {"samples seen": samples, "training time": duration}


def training_seconds(train: list[Row]) -> float:
    """Seconds of training without validation: the samples of every row, divided by its throughput."""
    seconds, before = 0.0, 0
    for row in train:
        seconds += (row["samples"] - before) / row["samples_per_s"]
        before = row["samples"]
    return seconds


def _provenance_facts(provenance: Mapping[str, Any]) -> dict[str, str]:
    facts = {}
    if machine := provenance.get("machine", {}):
        gpu = "no GPU" if machine["gpu"] == "none" else machine["gpu"]
        ranks = "1 process" if machine["world_size"] == 1 else f"{machine['world_size']} processes"
        facts["machine"] = f"{machine['processor']}, {machine['cores']} cores, {gpu}, {ranks}"
    if provenance:
        torch, transformers = (provenance["versions"][name] for name in ("torch", "transformers"))
        facts["software"] = f"Python {provenance['python']}, torch {torch}, transformers {transformers}"
        facts["git revision"] = provenance["git_revision"]
    return facts


def _notes(results: list[dict[str, Any]]) -> list[str]:
    """What to know before comparing the table with others."""
    notes = []
    for result in results:
        name, verbatim = result["evaluation"], result.get("verbatim_in_gallery", 0)
        if verbatim:
            notes.append(f"{verbatim:,} of {result['n']:,} coordinates of {name} are also in the gallery, unchanged.")
        if result.get("tta", "single") != "single":
            notes.append(f"{name} averages the views of {result['tta']} of each image.")
        if result.get("published_n") not in (None, result["n"]):
            notes.append(f"{name} has {result['n']:,} images here and {result['published_n']:,} as published.")
    return notes


def _commands(
    run: Path, provenance: Mapping[str, Any], results: list[dict[str, Any]], own_gallery: str | None
) -> list[tuple[str, str]]:
    """Purpose and command of everything that the page shows."""
    checkpoint = f"checkpoint={run.as_posix()}"
    commands = [("train", provenance["command"])] if provenance else []
    for result in results:
        command = f"python -m geoclip.evaluate {checkpoint} benchmark={result['benchmark']}"
        if result.get("gallery") not in (None, own_gallery):
            command += f" gallery={result['gallery']}"
        if result.get("protocol") == "released":
            command += " protocol=released"
        if result.get("tta", "single") != "single":
            command += f" tta={result['tta']}"
        commands.append((f"evaluate on {result['benchmark']}", command))
    commands += [
        ("predict", f"python -m geoclip.predict {checkpoint} image=FILE_OR_FOLDER"),
        ("write this page", f"python -m geoclip.report run={run.as_posix()}"),
    ]
    return commands
