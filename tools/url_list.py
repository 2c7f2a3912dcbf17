"""The list that img2dataset downloads from: published URLs and coordinates as parts of 100,000 rows.

    python -m tools.url_list --urls mp16_urls.csv --places mp16_places365.csv --out data/mp16/list

`make data-mp16` and `make data-urls` call it.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from geoclip.errors import DataError
from geoclip.runs.run_dir import write_json
from tools.published_lists import Listed, joined

PART_ROWS = 100_000  # img2dataset reads one part into memory


@dataclass(kw_only=True, slots=True)
class UrlList:
    """The contents of `list.json` beside the parts."""

    rows: int  # photographs to download
    part_rows: int
    tar_rows: int  # photographs per tar
    rejected: dict[str, int]  # rows of the published list that are not downloaded, by reason
    made_of: dict[str, str | int]

    @property
    def tars(self) -> int:
        """Tars of the complete download: img2dataset starts a new one with each part."""
        parts, rest = divmod(self.rows, self.part_rows)
        return parts * -(-self.part_rows // self.tar_rows) + -(-rest // self.tar_rows)


def write_url_list(
    urls: Path,
    out: Path,
    places: Path | None = None,
    *,
    tar_rows: int = 1000,
    part_rows: int = PART_ROWS,
    flickr_size: str = "",
) -> UrlList:
    """Write `out`: urls/part-*.jsonl (img_id, url, lat, lon), rejected.csv (key, reason) and list.json.

    Atomic. A second call with the same arguments changes nothing, so that a download resumes with the same rows.

    Args:
        urls: see `published_lists.joined`.
        out: folder to write.
        places: see `published_lists.joined`.
        tar_rows: photographs per tar of img2dataset.
        part_rows: photographs per part of the list.
        flickr_size: see `published_lists.sized`.

    Raises:
        DataError: a file is missing or lacks a column, no row is left, or `out` was made with other arguments.
    """
    made_of: dict[str, str | int] = {"tar_rows": tar_rows, "part_rows": part_rows, "flickr_size": flickr_size}
    for what, path in (("urls", urls), ("places", places)):
        if path is not None:
            if not path.is_file():
                raise DataError(f"{what}={path} is not a file")
            made_of |= {what: path.name, f"{what}_bytes": path.stat().st_size}
    if (out / "list.json").is_file():
        return _as_before(out, made_of)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "urls").mkdir(parents=True)
    rejected: Counter[str] = Counter()
    rows = _write_parts(partial, joined(urls, places, partial / "known.sqlite", flickr_size), part_rows, rejected)
    if not rows:
        raise DataError(f"no row of {urls} can be used: {dict(rejected)}; {partial}/rejected.csv names them")
    reasons = dict(rejected.most_common())
    made = UrlList(rows=rows, part_rows=part_rows, tar_rows=tar_rows, rejected=reasons, made_of=made_of)
    write_json(partial / "list.json", asdict(made))
    shutil.rmtree(out, ignore_errors=True)
    os.replace(partial, out)
    return made


def read_url_list(folder: Path) -> UrlList:
    """The list.json of a list.

    Raises:
        DataError: the file is missing or invalid.
    """
    try:
        return UrlList(**json.loads((folder / "list.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{folder}/list.json cannot be read ({error}); write the list again") from error


def _as_before(out: Path, made_of: dict[str, str | int]) -> UrlList:
    made = read_url_list(out)
    other = {name for name in made_of.keys() | made.made_of.keys() if made_of.get(name) != made.made_of.get(name)}
    if other:
        name = min(other)
        raise DataError(
            f"{out} was made with {name}={made.made_of.get(name)}, now it is {made_of.get(name)}; what was downloaded "
            f"belongs to the old list: choose another folder, or delete {out.parent}"
        )
    return made


def _write_parts(folder: Path, listed: Iterator[Listed], part_rows: int, rejected: Counter[str]) -> int:
    """Write the parts and rejected.csv, counting its reasons in `rejected`. Returns the rows in the parts."""
    with (folder / "rejected.csv").open("w", newline="", encoding="utf-8") as bad_file:
        bad = csv.writer(bad_file)
        bad.writerow(("key", "reason"))

        def lines() -> Iterator[str]:  # JSON: in a CSV, img2dataset reads the name 007 as the number 7
            for row in listed:
                if row.fault:
                    rejected[row.fault] += 1
                    bad.writerow((row.name, row.fault))
                else:
                    lat, lon = row.gps_deg
                    yield json.dumps({"img_id": row.name, "url": row.url, "lat": lat, "lon": lon}) + "\n"

        good = lines()
        rows = 0
        while first := next(good, None):
            with (folder / "urls" / f"part-{rows // part_rows:05d}.jsonl").open("w", encoding="utf-8") as file:
                file.write(first)
                rows += 1
                for line in islice(good, part_rows - 1):
                    file.write(line)
                    rows += 1
    return rows


def main(arguments: list[str] | None = None) -> None:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(prog="python -m tools.url_list", description=str(__doc__).split("\n")[0])
    parser.add_argument("--urls", type=Path, required=True, help="CSV: name, url (and lat, lon)")
    parser.add_argument("--places", type=Path, help="CSV: name, lat, lon; not needed if --urls has them")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--tar-rows", type=int, default=1000, help="photographs in a tar of img2dataset's")
    parser.add_argument("--flickr-size", default="", help="Flickr's size letter, such as z for 640 px")
    given = parser.parse_args(arguments)
    options = {"tar_rows": given.tar_rows, "flickr_size": given.flickr_size}
    try:
        made = write_url_list(given.urls, given.out, given.places, **options)
    except DataError as error:
        sys.exit(f"geoclip: {error}")
    print(f"{made.rows:,} photographs to download into {made.tars:,} tars; the list: {given.out}/urls")
    for reason, count in made.rejected.items():
        print(f"  {count:,} rows are left out: {reason} (named in {given.out}/rejected.csv)")


if __name__ == "__main__":
    main()
