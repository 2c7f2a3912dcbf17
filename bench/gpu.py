"""The GPU path on a card, each row with the limit of the card. At most six minutes.

Without a network, bring a cache with the released wheels' files (GEOCLIP_CACHE).

    python -m bench.gpu [--only features,search] [--output bench/gpu.json]
    python -m bench.gpu --device cpu --quick        every row, small: that it still runs

Weights are random, of the real architectures. Writes bench/gpu.json and, from it, the table in bench/gpu.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bench.card import Card, describe, measure_limits
from bench.gpu_rows import encoder, features, reading, retrieval, runs, syncs
from geoclip.runs.run_dir import provenance, write_json

HERE = Path(__file__).parent
PARTS: dict[str, Callable[[Card], None]] = {
    "limits": measure_limits,
    "features": features.measure_rates,
    "growth": features.measure_growth,
    "syncs": syncs.measure_syncs,
    "locations": retrieval.measure_location_encoder,
    "search": retrieval.measure_search,
    "resume": features.measure_resume,
    "encoder": encoder.measure_features,
    "step": encoder.measure_step,
    "reading": reading.measure_reading,
    "losses": features.measure_losses,  # late: its reference is computed by the CPU meanwhile
    "runs": runs.measure_runs,
    "accuracy": runs.measure_accuracy,
    "from_features": runs.measure_from_features,
    "two_ranks": runs.measure_two_ranks,
}


def measure(card: Card, names: list[str], output: Path | None, found: dict[str, Any] | None = None) -> dict[str, Any]:
    """Measure every part; a failed part is reported, and the others still run. Rows are written after each part.

    Args:
        card: the device.
        names: of the parts.
        output: the JSON file; None: none is written.
        found: the measurements of an earlier process, whose device failed.
    """
    found = found or {"card": describe(card), "rows": [], "failed": {}, "seconds": {}, **provenance()}
    with tempfile.TemporaryDirectory() as folder:
        if "losses" in names:
            card.memo["reference"] = Path(folder) / "reference.json"
            card.memo["process"] = features.start_reference(card, card.memo["reference"])
        try:
            for number, name in enumerate(names):
                _measure_part(card, name, found)
                if output is not None:
                    write_json(output, found)
                if name in found["failed"] and output is not None and not _usable(card):
                    _in_another_process(card, names[number + 1 :], output)
                    return json.loads(output.read_text())  # type: ignore[no-any-return]
        finally:
            if process := card.memo.get("process"):
                process.kill()
                process.wait(30)
            if working := card.memo.get("folder"):
                working.cleanup()
    return found


def _measure_part(card: Card, name: str, found: dict[str, Any]) -> None:
    start_s, before = time.perf_counter(), len(card.rows)
    torch.compiler.reset()  # so that no part inherits the dynamic shapes of another
    try:
        PARTS[name](card)
    except Exception as error:  # time on a card is short: the other parts must still run
        traceback.print_exc()
        found["failed"][name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    rows = [{"part": name, **asdict(row)} for row in card.rows[before:]]
    found["rows"] += rows
    found["limits"] = card.limits
    found["seconds"][name] = round(time.perf_counter() - start_s, 1)
    for row in rows:
        print(line(row), flush=True)
    print(f"-- {name}: {found['seconds'][name]} s", flush=True)


def _usable(card: Card) -> bool:
    """Whether the device still computes; after a fault inside a kernel this process can never use it again."""
    try:
        card.synchronize()
    except RuntimeError:
        return False
    return True


def _in_another_process(card: Card, names: list[str], output: Path) -> None:
    """The parts that are left."""
    if names:
        command = [sys.executable, "-m", "bench.gpu", "--device", str(card.device), "--only", ",".join(names)]
        quick = ["--quick"] if card.quick else []
        subprocess.run([*command, "--output", str(output), "--continue", *quick], check=False)


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    share = "" if row["share"] is None else f"{row['share']:.0%}"
    target = row["target"]
    aim = "" if target is None else f"{target:.0%}" if row["share"] is not None and target <= 1 else f"{target:,g}"
    return f"| {row['name']} | {row['value']:,.4g} {row['unit']} | {share} | {row['limit']} | {aim} | {row['note']} |"


def table(found: dict[str, Any]) -> str:
    """Markdown: the card, then a line per row."""
    card = ", ".join(f"{key} {value}" for key, value in found["card"].items())
    head = ["| row | value | share | of | target | note |", "| --- | ---: | ---: | --- | ---: | --- |"]
    failed = [f"\nFailed: {name}: {why}" for name, why in found["failed"].items()]
    return "\n".join(
        [
            "# The GPU path beside the card's own limits\n",
            "By `make bench-gpu`. Share: the value as a part of what the card itself would allow, which the next "
            "column names; the first rows measure that. What it means: [README.md](README.md).\n",
            f"{card}; revision `{(found['git_revision'] or 'unknown')[:12]}`.\n",
            *head,
            *map(line, found["rows"]),
            *failed,
        ]
    )


def main() -> None:
    """Measure and write, or compute the reference for the process that started this one."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, cpu")
    parser.add_argument(
        "--quick", action="store_true", help="every row small; nothing is written unless --output is given"
    )
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by comma: %(default)s")
    parser.add_argument("--output", type=Path, help="the JSON file; default: bench/gpu.json, of all parts alone")
    parser.add_argument("--continue", dest="more", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--reference", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.reference:
        features.write_reference(Card(device=torch.device("cpu"), quick=chosen.quick), chosen.reference)
        return
    names = chosen.only.split(",")
    if unknown := set(names) - set(PARTS):
        parser.error(f"no part is called {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if chosen.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("no GPU here; --device cpu --quick runs every row small")
    complete = not chosen.quick and set(names) == set(PARTS)
    output = chosen.output or (HERE / "gpu.json" if complete else None)
    card, earlier = Card(device=torch.device(chosen.device), quick=chosen.quick), None
    if chosen.more and output is not None:
        earlier = json.loads(output.read_text())
        card.limits = earlier["limits"]
    else:
        names = list(dict.fromkeys(["limits", *names]))
    found = measure(card, names, output, earlier)
    if output is not None:
        output.with_suffix(".md").write_text(f"{table(json.loads(output.read_text()))}\n")
    if found["failed"]:
        sys.exit("failed: " + "; ".join(f"{name}: {why}" for name, why in found["failed"].items()))


if __name__ == "__main__":
    main()
