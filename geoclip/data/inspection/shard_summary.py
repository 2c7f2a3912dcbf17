"""What examined shards amount to: counts, sizes, duplicates, and how they differ from index.json."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geoclip.data.account import Account
from geoclip.data.batch import Skip, SkipReport
from geoclip.data.inspection.shard_examination import ShardFindings, no_numbers
from geoclip.data.shard_index import index_shard
from geoclip.data.shard_list import ShardFiles

SHOWN = 20  # examples of what is wrong
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


def summarise_split(files: ShardFiles, findings: list[ShardFindings]) -> SplitSummary:
    """The summary of a folder whose tars were examined."""
    faults, broken = SkipReport(), SkipReport()
    for one in findings:
        faults.add(one.faults)
        broken.add(one.broken)
    keys_twice, twice = _keys_twice(findings)
    wrong = [*files.skipped, *(skip for one in findings for skip in (*one.faults, *one.broken))]
    size_px_N2 = np.concatenate([np.zeros((0, 2), dtype=np.int64), *(one.size_px_N2 for one in findings)])
    size_px_N2 = size_px_N2[size_px_N2.min(axis=1) > 0]
    picture_bytes = sum(int(one.picture_bytes_N.sum()) for one in findings)
    samples = sum(map(len, findings))
    return SplitSummary(
        shards=len(findings),
        samples=samples,
        bytes=sum(one.bytes for one in findings),
        mean_picture_bytes=picture_bytes / max(1, samples),
        samples_per_shard=(min(map(len, findings), default=0), max(map(len, findings), default=0)),
        longer_side_px=_least_middle_most(size_px_N2.max(axis=1)),
        shorter_side_px=_least_middle_most(size_px_N2.min(axis=1)),
        formats=dict(sum((one.formats for one in findings), Counter()).most_common()),
        places_twice=samples - len(_distinct_places(findings)),
        keys_twice=keys_twice,
        keys_shared=samples - len(np.unique(_joined([one.key_hash_N for one in findings]))) - keys_twice,
        skipped=dict(files.account.skipped.counts.most_common()),
        faults=dict(faults.counts.most_common()),
        broken=dict(broken.counts.most_common()),
        examples=[_line(skip) for skip in (*wrong[:SHOWN], *twice)],
        index_json=_differences(Path(files.what) / "index.json", findings),
    )


def _keys_twice(findings: list[ShardFindings]) -> tuple[int, list[Skip]]:
    """How many samples have key and coordinates of one before them, over all tars, and the first of them by name."""
    hashes = [one.sample_hash_N for one in findings]
    all_N = _joined(hashes)
    _, first = np.unique(all_N, return_index=True)
    again_N = np.ones(len(all_N), dtype=np.bool_)
    again_N[first] = False
    ends = np.cumsum([len(one) for one in hashes])
    named = []
    for row in np.flatnonzero(again_N)[:SHOWN].tolist():
        number = int(np.searchsorted(ends, row, side="right"))
        path = Path(findings[number].path)
        key = index_shard(path).keys[row - int(ends[number]) + len(hashes[number])]
        named.append(Skip(shard=path.name, key=key, reason=TWICE))
    return int(again_N.sum()), named


def in_common(a: list[ShardFindings], b: list[ShardFindings]) -> dict[str, int]:
    """How many keys, samples (a key with its coordinates) and exact coordinates two splits have in common."""
    keys_a, keys_b = (_joined([one.key_hash_N for one in side]) for side in (a, b))
    samples_a, samples_b = (_joined([one.sample_hash_N for one in side]) for side in (a, b))
    places = np.intersect1d(_distinct_places(a), _distinct_places(b))
    return {
        "keys": len(np.intersect1d(keys_a, keys_b)),
        "samples": len(np.intersect1d(samples_a, samples_b)),
        "places": len(places),
    }


def samples_account(what: str, findings: list[ShardFindings]) -> Account:
    """Of the samples of a split: a picture that cannot be decoded is not used."""
    account = Account(what=what, used=sum(len(one) - len(one.broken) for one in findings))
    for one in findings:
        account.skipped.add((*one.faults, *one.broken))
    return account


def _joined(hashes: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([no_numbers(), *hashes])


def _distinct_places(findings: list[ShardFindings]) -> NDArray[np.complex128]:
    """Every pair of coordinates once, as one number."""
    return np.unique(places_of(findings).view(np.complex128)[:, 0])


def places_of(findings: list[ShardFindings]) -> NDArray[np.float64]:
    """(N, 2) latitude, longitude in degrees of all samples; -0 and 0 are one number."""
    return np.concatenate([np.empty((0, 2)), *(one.gps_deg_N2 + 0.0 for one in findings)])


def _least_middle_most(values_N: NDArray[np.int64]) -> tuple[int, int, int]:
    if not len(values_N):
        return 0, 0, 0
    return int(values_N.min()), int(np.median(values_N)), int(values_N.max())


def _differences(path: Path, findings: list[ShardFindings]) -> list[str] | None:
    """How the tars differ from what index.json says of them; None: there is no index.json."""
    if not path.is_file():
        return None
    try:
        said = {row["name"]: row for row in json.loads(path.read_text(encoding="utf-8"))["shards"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"index.json is damaged ({error!r})"]
    differences = [
        f"{name} is missing" for name in said if name not in {Path(one.path).name for one in findings}
    ]
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


def _line(skip: Skip) -> str:
    return f"{skip.shard}:{skip.key}: {skip.reason}" if skip.key else f"{skip.shard}: {skip.reason}"
