"""Report of a download: the sums of img2dataset's statistics, and whether tars are missing.

    python -m tools.download_report --list data/mp16/download/list --tars data/mp16/download/tars

`make data-mp16` and `make data-urls` call it after img2dataset, which ends with status 0 even when tars are missing.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from geoclip.errors import DataError
from geoclip.runs.run_dir import write_json
from geoclip.system.console import percent_text, printable
from tools.url_list import read_url_list

# An overloaded server or a network fault; 404 and 410 are permanent.
TEMPORARY = re.compile(
    r"HTTP Error (408|429|5\d\d)|timed out|reset by peer|Remote end closed|IncompleteRead|Connection refused"
    r"|Temporary failure|unreachable|EOF occurred",
    re.IGNORECASE,
)
SHOWN = 12


@dataclass(kw_only=True, slots=True, frozen=True)
class Report:
    """Links of a list by their result."""

    links: int
    downloaded: int
    dead: int  # not downloaded: gone, refused, unreachable
    no_picture: int  # downloaded, but OpenCV cannot decode it: HTML, truncated, empty
    passing: int  # dead for a temporary reason
    reasons: dict[str, int]
    tars: int
    tars_missing: int
    megabytes: float

    def __str__(self) -> str:
        shown = list(self.reasons.items())[:SHOWN]
        return "\n".join(
            (
                f"{self.links:,} links tried: {self.downloaded:,} pictures in {self.tars:,} tars, "
                f"{self.megabytes:,.1f} MB",
                f"  {self._share(self.dead)} dead links",
                f"  {self._share(self.no_picture)} are not pictures",
                *(f"    {count:>9,}  {reason}" for reason, count in shown),
                *([f"    … and {len(self.reasons) - SHOWN} more reasons"] if len(self.reasons) > SHOWN else []),
            )
        )

    def _share(self, count: int) -> str:
        return f"{count:,} ({percent_text(100 * count / max(1, self.links))} %)"


def read_report(list_folder: Path, tars: Path) -> Report:
    """Sum up the *_stats.json that img2dataset writes beside every complete tar.

    Raises:
        DataError: there is no list, or statistics are corrupt.
    """
    expected = read_url_list(list_folder).tars
    totals: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    found = sorted(tars.glob("*_stats.json"))
    for path in found:
        stats = _stats(path)
        totals.update({name: stats[name] for name in ("count", "successes", "failed_to_download", "failed_to_resize")})
        reasons.update(_faults(stats))
        totals["bytes"] += _tar_of(path).stat().st_size
    return Report(
        links=totals["count"],
        downloaded=totals["successes"],
        dead=totals["failed_to_download"],
        no_picture=totals["failed_to_resize"],
        passing=sum(count for reason, count in reasons.items() if TEMPORARY.search(reason)),
        reasons=dict(reasons.most_common()),
        tars=len(found),
        tars_missing=expected - len(found),
        megabytes=totals["bytes"] / 1e6,
    )


def forget_temporary(tars: Path, above: float = 0.01) -> int:
    """Delete the statistics of tars with more than this share of temporary failures: img2dataset fetches them again.

    Returns:
        The number of these tars.
    """
    forgotten = 0
    for path in sorted(tars.glob("*_stats.json")):
        stats = _stats(path)
        passing = sum(count for reason, count in _faults(stats).items() if TEMPORARY.search(reason))
        if passing > above * stats["count"]:
            path.unlink()
            forgotten += 1
    return forgotten


def _faults(stats: dict[str, Any]) -> dict[str, int]:
    """Failures by reason, each on one line."""
    faults: Counter[str] = Counter()
    for reason, count in stats["status_dict"].items():
        if reason != "success":
            faults["empty answer" if "!buf.empty()" in reason else " ".join(reason.split())] += count
    return dict(faults)


def _tar_of(stats: Path) -> Path:
    return stats.with_name(stats.name.removesuffix("_stats.json") + ".tar")


def _stats(path: Path) -> dict[str, Any]:
    try:
        stats: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        stats["status_dict"], stats["count"], _tar_of(path).stat()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} or its tar is corrupt ({error!r}); delete it to fetch that tar again") from error
    return stats


def main(arguments: list[str] | None = None) -> None:
    """The command line; see the top of this file. Status 1 if tars are missing."""
    parser = argparse.ArgumentParser(prog="python -m tools.download_report", description=str(__doc__).split("\n")[0])
    parser.add_argument("--list", type=Path, required=True, help="folder that tools.url_list wrote")
    parser.add_argument("--tars", type=Path, required=True, help="img2dataset's output folder")
    parser.add_argument("--retry", action="store_true", help="before a download: forget tars with temporary failures")
    given = parser.parse_args(arguments)
    try:
        if given.retry:
            print(
                f"{forget_temporary(given.tars):,} tars are fetched again: over 1 % of their links failed temporarily"
            )
            return
        report = read_report(given.list, given.tars)
    except DataError as error:
        sys.exit(f"geoclip: {error}")
    print(printable(report))
    write_json(given.tars.parent / "links.json", asdict(report))
    print(f"the same as JSON: {given.tars.parent}/links.json; link by link: {given.tars}/*.parquet")
    if report.passing:
        print(
            f"{report.passing:,} links failed temporarily: the same command with RETRY=1 THREADS=2 fetches their tars "
            "again, more slowly"
        )
    if report.tars_missing:
        sys.exit(f"geoclip: {report.tars_missing:,} tars are missing; rerun the command to resume")


if __name__ == "__main__":
    main()
