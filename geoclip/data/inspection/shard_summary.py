"""What examined shards amount to: counts, sizes, duplicates, and how they differ from index.json."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from geoclip.data.account import Account
from geoclip.data.batch import Skip, SkipReport
from geoclip.data.inspection.shard_examination import ShardFindings
from geoclip.data.shard_list import ShardFiles

SHOWN = 20  # examples of what is wrong
SAMPLE, PLACE = ["key", "lat", "lon"], ["lat", "lon"]
TWICE = "key and coordinates of an earlier sample"


@dataclass(kw_only=True, slots=True)
class SplitSummary:
    """What one folder of tars holds."""

    shards: int
    samples: int
    bytes: int
    mean_picture_bytes: float
    samples_per_shard: tuple[int, int]  # fewest, most
    longer_side_px: tuple[int, int, int]  # smallest, median, largest; 0 where there are no pictures
    shorter_side_px: tuple[int, int, int]
    formats: dict[str, int]
    places_twice: int  # samples at the very coordinates of another one before them; common, no fault
    keys_twice: int  # samples with the key and the coordinates of another one before them, in whichever tar
    keys_shared: int  # samples with the key of another one at other coordinates; both are used
    skipped: dict[str, int]  # files that look like shards and are not read, by reason
    faults: dict[str, int]  # members and samples that cannot be used, by reason
    broken: dict[str, int]  # pictures that cannot be decoded, by reason
    examples: list[str]  # the first of faults, broken and keys_twice
    index_json: list[str] | None  # how index.json differs from the tars; null: there is none

    @property
    def wrong(self) -> int:
        """How many things are not as they should be."""
        return (
            sum(self.faults.values())
            + sum(self.broken.values())
            + self.keys_twice
            + sum(self.skipped.values())
            + len(self.index_json or [])
        )


def summarise_split(files: ShardFiles, findings: list[ShardFindings], samples: pd.DataFrame) -> SplitSummary:
    """The summary of a folder whose tars were examined; `samples` are those of all of them, see `samples_of`."""
    faults, broken = SkipReport(), SkipReport()
    for one in findings:
        faults.add(one.faults)
        broken.add(one.broken)
    twice = samples.duplicated(SAMPLE)
    named = samples[twice].head(SHOWN)
    wrong = [*files.skipped, *(skip for one in findings for skip in (*one.faults, *one.broken))][:SHOWN]
    wrong += [Skip(shard=shard, key=key, reason=TWICE) for shard, key in zip(named["shard"], named["key"], strict=True)]
    decoded = samples.loc[samples["width"] > 0, ["width", "height"]]
    counts = [len(one) for one in findings]
    return SplitSummary(
        shards=len(findings),
        samples=len(samples),
        bytes=sum(one.bytes for one in findings),
        mean_picture_bytes=int(samples["bytes"].sum()) / max(1, len(samples)),
        samples_per_shard=(min(counts, default=0), max(counts, default=0)),
        longer_side_px=_least_middle_most(decoded.max(axis=1)),
        shorter_side_px=_least_middle_most(decoded.min(axis=1)),
        formats=dict(sum((one.formats for one in findings), Counter()).most_common()),
        places_twice=int(samples.duplicated(PLACE).sum()),
        keys_twice=int(twice.sum()),
        keys_shared=int(samples.duplicated("key").sum() - twice.sum()),
        skipped=dict(files.account.skipped.counts.most_common()),
        faults=dict(faults.counts.most_common()),
        broken=dict(broken.counts.most_common()),
        examples=[f"{skip.shard}{':' * bool(skip.key)}{skip.key}: {skip.reason}" for skip in wrong],
        index_json=_differences(Path(files.what) / "index.json", findings),
    )


def samples_of(findings: list[ShardFindings]) -> pd.DataFrame:
    """The samples of these tars in order, each with the name of its `shard`."""
    tables = [one.samples.assign(shard=Path(one.path).name) for one in findings]
    return pd.concat(tables or [ShardFindings(path="").samples.assign(shard="")], ignore_index=True)


def in_common(a: pd.DataFrame, b: pd.DataFrame) -> dict[str, int]:
    """How many keys, samples (a key with its coordinates) and exact coordinates two splits have in common."""
    return {
        name: len(a[columns].drop_duplicates().merge(b[columns].drop_duplicates()))
        for name, columns in (("keys", ["key"]), ("samples", SAMPLE), ("places", PLACE))
    }


def samples_account(what: str, findings: list[ShardFindings]) -> Account:
    """Of the samples of a split: a picture that cannot be decoded is not used."""
    account = Account(what=what, used=sum(len(one) - len(one.broken) for one in findings))
    for one in findings:
        account.skipped.add((*one.faults, *one.broken))
    return account


def _least_middle_most(values: pd.Series[int]) -> tuple[int, int, int]:
    return (int(values.min()), int(values.median()), int(values.max())) if len(values) else (0, 0, 0)


def _differences(path: Path, findings: list[ShardFindings]) -> list[str] | None:
    """How the tars differ from what index.json says of them; None: there is no index.json."""
    if not path.is_file():
        return None
    try:
        said = {row["name"]: row for row in json.loads(path.read_text(encoding="utf-8"))["shards"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"index.json is damaged ({error!r})"]
    differences = [f"{name} is missing" for name in said if name not in {Path(one.path).name for one in findings}]
    for one in findings:
        name = Path(one.path).name
        if name not in said:
            differences.append(f"{name} is not in index.json")
            continue
        is_now = {"samples": len(one), "bytes": one.bytes, "sha256": one.sha256}
        differences += [
            f"{name}: {key} {str(value)[:12]}, index.json says {str(said[name][key])[:12]}"
            for key, value in is_now.items()
            if key in said[name] and said[name][key] != value
        ]
    return differences
