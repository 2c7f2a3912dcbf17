"""Reports of a build: rejected.csv, a summary, metadata.json, README.md; too many rejected rows end the build."""

from __future__ import annotations

import csv
import logging
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from geoclip.data.batch import Account, SkipReport
from geoclip.errors import DataError
from geoclip.prepare.manifest import Manifest
from geoclip.prepare.shard_writing import ShardRecord
from geoclip.runs.run_dir import write_json
from geoclip.system.console import markdown_text, percent_text
from geoclip.system.files import atomic_path, write_text_atomic

log = logging.getLogger("geoclip")

SHOWN = 3  # reasons in the message that ends a build
SWAPPED = "latitude and longitude look swapped"


@dataclass(kw_only=True, slots=True, frozen=True)
class Published:
    """A benchmark's published size."""

    name: str
    samples: int | None
    source: str = ""


def write_rejected(manifest: Manifest, path: Path) -> None:
    """Write line (of tars, the tar's name), key, lat, lon and reason of every rejected row."""
    with atomic_path(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("line", "key", "lat", "lon", "reason"))
        writer.writerows(manifest.rejected())


def refuse_if_too_many(manifest: Manifest, rejected: Path, max_rejected_fraction: float) -> None:
    """Log how many rows were rejected, and end the build if there are too many.

    Args:
        manifest: of a build whose pictures are all checked.
        rejected: the CSV that is written if the build ends here.
        max_rejected_fraction: in [0, 1].

    Raises:
        DataError: a larger share was rejected, or all rows; with reasons, examples and the fix.
    """
    rows, reasons = manifest.count(), manifest.reasons()
    bad = sum(count for _, count, _, _ in reasons)
    share = bad / max(1, rows)
    skipped = SkipReport(shown_per_reason=1)
    for reason, count, line, key in reasons:
        skipped.counts[reason] = count
        skipped.examples[reason] = [f"{_where(line)}{':' * bool(key)}{key}"]
    what = manifest.path.parent.name.removeprefix(".").removesuffix(".work")
    Account(what=what, used=rows - bad, skipped=skipped, unit="rows").log()
    if bad < rows and share <= max_rejected_fraction:
        return
    if not rows:
        raise DataError("the source has no rows")
    write_rejected(manifest, rejected)
    manifest.refuse()
    shown = "; ".join(
        f"{count:,} × {reason}, first {key or 'a row without a key'} ({_where(line)})"
        for reason, count, line, key in reasons[:SHOWN]
    )
    if any(reason == SWAPPED and count >= bad / 2 for reason, count, _, _ in reasons):
        shown += "; are columns.lat and columns.lon swapped?"
    if bad == rows:
        raise DataError(f"none of {rows:,} rows can be used: {shown}; all of them: {rejected}")
    raise DataError(
        f"{bad:,} of {rows:,} rows ({percent_text(100 * share)} %) cannot be used, more than "
        f"max_rejected_fraction={max_rejected_fraction:g}: {shown}; all of them: {rejected}; fix them, or accept "
        f"them with max_rejected_fraction={min(1.0, -(-share * 100 // 1) / 100):g}, and rerun the command"
    )


def close_build(
    root: Path,
    manifest: Manifest,
    settings: dict[str, Any],
    records: dict[str, list[ShardRecord]],
    published: Published | None,
) -> None:
    """Write README.md and then metadata.json, which marks a data set as complete."""
    reasons = {reason: count for reason, count, _, _ in manifest.reasons()}
    bad, rows = sum(reasons.values()), manifest.count()
    described: dict[str, Any] = {
        "name": published.name if published else root.name,
        "command": " ".join(["python", *sys.orig_argv[1:]]),
        "settings": settings,
        "rows": rows,
        "accepted": rows - bad,
        "rejected": bad,
        "reasons": reasons,
        "counts": {split: sum(record.samples for record in of_split) for split, of_split in records.items()},
        "shards": {split: len(of_split) for split, of_split in records.items()},
        "bytes": sum(record.bytes for of_split in records.values() for record in of_split),
        "versions": {package: metadata.version(package) for package in ("pillow", "torch", "webdataset")},
    }
    if published:
        described["published"] = _compared(published, rows - bad)
    write_text_atomic(root / "README.md", _readme(described))
    write_json(root / "metadata.json", described)


def _compared(published: Published, built: int) -> dict[str, Any]:
    """The number of photographs that were built, beside the published number."""
    missing = None if published.samples is None else published.samples - built
    if missing:
        log.warning(
            "%s: %s photographs were built, %s are published: %s; results are not comparable with published ones",
            published.name, f"{built:,}", f"{published.samples:,}",
            f"{missing:,} are missing" if missing > 0 else f"{-missing:,} too many",
        )  # fmt: skip
    return {"samples": published.samples, "built": built, "missing": missing, "source": published.source}


def _where(line: str) -> str:
    return f"line {line}" if line.isdecimal() else line  # else a tar


def _readme(described: dict[str, Any]) -> str:
    settings, published = described["settings"], described.get("published")
    lines = [f"# {markdown_text(described['name'])}", "", "| split | shards | samples |", "|---|---|---|"]
    for split, count in described["counts"].items():
        lines.append(f"| {markdown_text(split)} | {described['shards'][split]:,} | {count:,} |")
    if published and published["samples"]:
        share = f"{published['built']:,} of the benchmark's {published['samples']:,} published photographs."
        lines += ["", f"{share} {published['source']}"]
    size = settings["max_side_px"]
    scaled = f"scaled to {size} px at most, JPEG quality {settings['jpeg_quality']}" if size else "byte for byte"
    source = ", ".join(f"{key} {value}" for key, value in settings.items() if key.startswith(("input", "images")))
    lines += [
        "",
        f"Each sample is a picture ({scaled}) and a json with `key`, `lat`, `lon` (degrees, WGS 84) and the source's "
        f"other fields. Samples are shuffled with seed {settings['seed']}.",
        "",
        f"{described['rejected']:,} of {described['rows']:,} rows were rejected; `rejected.csv` names each.",
        "",
        *(f"- {markdown_text(reason)}: {count:,}" for reason, count in described["reasons"].items()),
        f"- Source: {markdown_text(source)}.",
        "- Every setting and version is in `metadata.json`.",
        f"- Built by {markdown_text(described['command'])}.",
    ]
    return "\n".join(lines) + "\n"
