"""report.html of a study and index.html of all: made from what is committed, without the runs, each one file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from geoclip.drawing.pages import render
from geoclip.drawing.study_pictures import Picture, picture_of, pictures_in
from geoclip.drawing.study_readme import (
    Readme,
    first_words,
    inline_html,
    read_sections,
    section_html,
    without_generated,
)
from geoclip.drawing.study_table import study_table_html
from geoclip.errors import DataError
from geoclip.files import write_bytes_atomic

PICTURE_PX, THUMBNAIL_PX = 1600, 640
LARGE_BYTES = 200_000  # a larger PNG is a map: it becomes a JPEG in the page
LIGHT = 200  # of 255: a picture with such a corner is a chart on white, turned dark with the page
FIRST = (
    "swept",
    "curves",
    "continents",
    "wins",
    "scales",
)  # the figures' order; the first is the study's face
BEFORE, AFTER = ("Question", "Expectation"), ("Verdict", "Threats", "Command", "Cost")


@dataclass(kw_only=True, slots=True, frozen=True)
class Entry:
    """A study in the index; texts are HTML."""

    title: str
    question: str
    verdict: str
    is_run: bool
    link: str  # empty: it has no page
    picture: Picture | None


def write_study_page(folder: Path) -> Path:
    """Write a study's `report.html` from its README.md, results.json and pictures alone.

    Args:
        folder: experiments/NN_name.

    Returns:
        The page's path.

    Raises:
        DataError: no README, or results that are no JSON.
    """
    readme, results = _read(folder)
    shown: set[Path] = set()

    def picture(target: str) -> Picture | None:
        path = _beside(folder, target)
        if path is None or path.suffix not in (".png", ".jpg", ".jpeg"):
            return None
        shown.add(path)
        return picture_of(path)

    def html(heading: str, text: str) -> str:
        from_numbers = _tables(results) if results and heading.startswith("Table") else ""
        text = without_generated(text, "tables") if from_numbers else text
        return (
            section_html(text, link=lambda target: _page_of(folder, target), picture=picture) + from_numbers
        )

    sections = {heading: html(heading, text) for heading, text in readme.sections.items()}
    page = render(
        "study.html.j2",
        title=readme.title or folder.name,
        name=folder.name.split("_", 1)[-1],
        sections=_in_order(sections),
        pictures=[picture_of(path) for path in pictures_in(folder) if path.resolve() not in shown],
        summary=_summary(results),
        facts=_facts(results.get("setting", {})),
        runs=results.get("runs", []),
        is_run=bool(results),
        is_waiting=not _is_run(folder, results),
        index="../index.html",
    )
    write_bytes_atomic(folder / "report.html", page.encode("utf-8"))
    return folder / "report.html"


def write_index(experiments: Path) -> Path:
    """Write `index.html`: every study's question, what came out in one line, its picture and a link to its page.

    Raises:
        DataError: there is no study, or one that cannot be read.
    """
    folders = sorted(path.parent for path in experiments.glob("*/README.md"))
    if not folders:
        raise DataError(f"{experiments} holds no study: a folder NN_name with a README.md")
    page = render("studies.html.j2", entries=[_entry(folder) for folder in folders])
    write_bytes_atomic(experiments / "index.html", page.encode("utf-8"))
    return experiments / "index.html"


def study_list(experiments: Path) -> str:
    """Every study that came to something, a row each: title with a link, question, verdict in a sentence."""
    rows = ["| study | question | what came out |", "|---|---|---|"]
    for path in sorted(experiments.glob("*/README.md")):
        readme, results = _read(path.parent)
        if _is_run(path.parent, results):
            title, question = readme.title or path.parent.name, " ".join(readme.section("Question").split())
            verdict = first_words(readme.section("Verdict"))
            rows.append(f"| [{title}]({quote(path.parent.name)}/README.md) | {question} | {verdict} |")
    return "\n".join(rows)


def _entry(folder: Path) -> Entry:
    readme, results = _read(folder)
    faces, is_run = pictures_in(folder), _is_run(folder, results)
    return Entry(
        title=readme.title or folder.name,
        question=inline_html(" ".join(readme.section("Question").split())),
        verdict=inline_html(first_words(readme.section("Verdict"))) if is_run else "",
        is_run=is_run,
        link=f"{quote(folder.name)}/report.html" if _has_page(folder) else "",
        picture=picture_of(faces[0], THUMBNAIL_PX) if faces else None,
    )


def _read(folder: Path) -> tuple[Readme, dict[str, Any]]:
    path = folder / "README.md"
    if not path.is_file():
        raise DataError(f"{path} is missing; experiments/README.md says what stands in it")
    results = folder / "results.json"
    try:
        found = json.loads(results.read_text(encoding="utf-8")) if results.is_file() else {}
    except ValueError as error:
        raise DataError(
            f"{results} is no JSON ({error}); write it again with python -m geoclip.study"
        ) from None
    if not isinstance(found, dict):
        raise DataError(f"{results} holds no study's results; write it again with python -m geoclip.study")
    return read_sections(path.read_text(encoding="utf-8")), found


def _is_run(folder: Path, results: Mapping[str, Any]) -> bool:
    """Whether something came out; a study of one run has pictures and no results.json."""
    return bool(results) or bool(pictures_in(folder))


def _has_page(folder: Path) -> bool:
    """A page stands there, or is written with the others as there are results."""
    return any((folder / name).is_file() for name in ("results.json", "report.html"))


def _tables(results: Mapping[str, Any]) -> str:
    """The tables of every benchmark, from the numbers themselves, as HTML."""
    try:
        parts = [
            f"<h3>{escape(name)}</h3>\n{study_table_html(results, name)}" for name in results["benchmarks"]
        ]
    except (KeyError, TypeError, IndexError) as error:
        raise DataError(
            f"the results of study {results.get('study', '?')!r} lack {error}; write them again with "
            "python -m geoclip.study"
        ) from None
    notes = [f'<p class="note">{escape(str(note))}</p>' for note in results.get("notes", [])]
    return "\n".join([*parts, *notes])


def _in_order(sections: Mapping[str, str]) -> list[tuple[str, str, bool]]:
    """Heading, HTML, and whether the figures follow: the question first, the table, its figures, what came out."""
    rest = [heading for heading in sections if not heading.startswith((*BEFORE, *AFTER, "Table"))]
    order = [h for name in (*BEFORE, "Table", *AFTER) for h in sections if h.startswith(name)]
    last_above = max(
        (n for n, heading in enumerate(order) if heading.startswith((*BEFORE, "Table"))), default=-1
    )
    return [
        (heading, sections[heading], number == last_above) for number, heading in enumerate([*order, *rest])
    ]


def _beside(folder: Path, target: str) -> Path | None:
    """The file of a relative address, if it lies in the study's folder."""
    path = (folder / unquote(target.partition("#")[0])).resolve()
    return path if path.is_relative_to(folder.resolve()) and path.is_file() else None


def _page_of(folder: Path, target: str) -> str:
    """The page of another study that is linked to by its folder or README; empty for anything else."""
    path = (folder / unquote(target.partition("#")[0])).resolve()
    other = path.parent if path.name == "README.md" else path
    is_study = other.parent == folder.resolve().parent and _has_page(other)
    return f"../{quote(other.name)}/report.html" if is_study else ""


def _summary(results: Mapping[str, Any]) -> str:
    """What was run, in one line; empty where nothing was."""
    benchmarks = list(results.get("benchmarks", {}).values())
    if not benchmarks:
        return ""
    variants = benchmarks[0]["variants"]
    seeds, samples = max(len(one["seeds"]) for one in variants), results.get("setting", {}).get("samples")
    parts = [f"{len(variants)} variants", f"{seeds} seed{'s' * (seeds != 1)}"]
    parts += [f"{samples:,} samples each"] if isinstance(samples, int) else []
    parts.append(", ".join(f"{name}: {one['n']:,} images" for name, one in results["benchmarks"].items()))
    return " · ".join(parts)


def _facts(setting: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The environment, as pairs of words."""
    facts = []
    for key, value in setting.items():
        if isinstance(value, Mapping):
            text = ", ".join(f"{name} {_word(one)}" for name, one in value.items() if one not in (None, ""))
        else:
            text = _word(value)
        facts.append((key.replace("_", " "), text))
    return [(label, text) for label, text in facts if text]


def _word(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name} {_word(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_word, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value or "")
