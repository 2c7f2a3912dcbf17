"""Every row of the benchmark: the released code, ours, and the limit of the machine.

    python -m bench.speed [--quick] [--only location_encoder,prediction]

Writes bench/speed.json and the table in bench/README.md. With --quick: small work, nothing is written; the ratios are
compared with those of bench/quick.json, and a row that fell by more than its noise fails. --record keeps the quick
ratios as the new ones.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from bench.harness import Row, as_json, bandwidth, matrix_rate
from geoclip.runs.run_dir import provenance, write_json
from geoclip.studies.readme import fill_generated

HERE = Path(__file__).parent
ROWS = sorted(path.stem for path in (HERE / "rows").glob("*.py") if path.stem != "__init__")
SLACK = 0.75  # a median must fall below this part of the kept ratio's lower quartile


def measure(names: list[str], quick: bool) -> list[Row]:
    """The rows of these modules of bench/rows, one after the other."""
    rows: list[Row] = []
    for name in (bar := tqdm(names, unit="part", file=sys.stderr)):
        bar.set_postfix_str(name)
        rows += importlib.import_module(f"bench.rows.{name}").measure(quick)
    return rows


def fallen(rows: list[Row], kept: dict[str, dict[str, float]]) -> list[str]:
    """A sentence for every row whose ratio is below the kept one by more than the noise of both.

    Args:
        rows: of this run.
        kept: for each row's name `ratio` and `ratio_low`, its lower quartile.
    """
    found = []
    for row in rows:
        if row.ratio is None or row.ratio_high is None or row.name not in kept:
            continue
        floor = SLACK * kept[row.name]["ratio_low"]
        if row.ratio_high < floor:
            found.append(
                f"{row.name}: {row.ratio:,.2f} times the released code "
                f"({row.ratio_low:,.2f} to {row.ratio_high:,.2f}); kept is "
                f"{kept[row.name]['ratio']:,.2f}, below {floor:,.2f} is more than noise"
            )
    return found


def ratios(rows: list[Row]) -> dict[str, dict[str, float]]:
    """What bench/quick.json keeps: no seconds."""
    return {
        row.name: {"ratio": round(row.ratio, 3), "ratio_low": round(row.ratio_low, 3)}
        for row in rows
        if row.ratio is not None and row.ratio_low is not None
    }


def _kept() -> dict[str, dict[str, float]]:
    """bench/quick.json."""
    path = HERE / "quick.json"
    kept: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.is_file() else {}
    return kept


def seconds(value: float | None) -> str:
    """With a unit."""
    if value is None:
        return ""
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        if value * factor >= 1:
            return f"{value * factor:,.3g} {unit}"
    return f"{value * 1e6:.2g} µs"


def table(rows: list[Row], *revisions: str) -> str:
    """Markdown."""
    lines = [
        "| row | released | ours | ratio (quartiles) | target | limit | our share of it "
        "| memory, released / ours | answers |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in rows:
        ratio = f"**{row.ratio:,.3g}** ({row.ratio_low:,.3g}–{row.ratio_high:,.3g})" if row.ratio else ""
        limit = f"{seconds(row.limit_s)}, {row.limit_of}" if row.limit_s else ""
        peaks_mb = (row.released_peak_mb, row.ours_peak_mb)
        memory = " / ".join(f"{mb:,.0f} MB" for mb in peaks_mb if mb is not None)
        lines.append(
            f"| {row.name} | {seconds(row.released_s)} | {seconds(row.ours_s)} | {ratio} "
            f"| {f'{row.target:g}' if row.target else ''} | {limit} | {f'{row.share:.0%}' if row.share else ''} "
            f"| {memory} | {'; '.join(part for part in (row.agreement, row.note) if part)} |"
        )
    listed = ", ".join(f"`{one[:12]}`" for one in sorted(revisions))
    return "\n".join(lines) + f"\n\nAt revision {listed}."


def keep(rows: list[Row], made_by: dict[str, Any]) -> dict[str, Any]:
    """Write bench/speed.json: these rows, and earlier ones that were not measured again."""
    path = HERE / "speed.json"
    earlier = json.loads(path.read_text())["rows"] if path.is_file() else []
    new = [{"row": as_json(row), "revision": made_by["git_revision"]} for row in rows]
    names = {row.name for row in rows}
    kept = sorted(
        [row for row in earlier if row["row"]["name"] not in names] + new, key=lambda row: str(row["row"]["name"])
    )
    found = {
        "rows": kept,
        "matrix_rate": matrix_rate(),
        "bandwidth": bandwidth(),
        "threads": torch.get_num_threads(),
        **made_by,
    }
    write_json(path, found)
    return found


def machine_of(found: dict[str, Any]) -> str:
    """A sentence about the machine."""
    machine = found["machine"]
    return (
        f"{machine['processor']}, {machine['cores']} cores, {found['threads']} threads; measured matrix rate "
        f"{found['matrix_rate'] / 1e9:,.0f} GFLOP/s in float32, bandwidth {found['bandwidth'] / 1e9:,.1f} GB/s; "
        f"PyTorch {found['versions']['torch']}, Python {found['python']}."
    )


def main() -> None:
    """Measure; write what was found, or compare it with what is kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small work; compare with bench/quick.json")
    parser.add_argument("--record", action="store_true", help="with --quick: keep these ratios")
    parser.add_argument("--only", default=",".join(ROWS), help="parts, by comma: %(default)s")
    chosen = parser.parse_args()
    names = chosen.only.split(",")
    if unknown := set(names) - set(ROWS):
        parser.error(f"no part is called {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    rows, made_by = measure(names, chosen.quick), provenance()
    print(table(rows, made_by["git_revision"]))
    if not chosen.quick:
        kept = keep(rows, made_by)
        readme = HERE / "README.md"
        text = table([Row(**row["row"]) for row in kept["rows"]], *{row["revision"] for row in kept["rows"]})
        readme.write_text(fill_generated(readme.read_text(), {"speed": f"{text}\n\n{machine_of(kept)}"}))
    elif chosen.record:
        write_json(HERE / "quick.json", _kept() | ratios(rows))
    else:
        worse = fallen(rows, _kept())
        if worse:
            sys.exit("slower than it was:\n" + "\n".join(worse))
        print("No row fell by more than its noise.")


if __name__ == "__main__":
    main()
