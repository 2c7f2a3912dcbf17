"""Data: shards, features, galleries and benchmarks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from geoclip.config.choices import BenchmarkKind, DataKind, GalleryKind, PlacesSource, ShardSource

MAX_PIXELS = 89_478_485  # decoded at most: a quarter GiB of RGB
BLUE_MARBLE_ROOT = "data/bluemarble"  # the embedded default's, which no other data set may take


@dataclass(kw_only=True, slots=True)
class BlueMarbleConfig:
    """How the embedded default's views are cut; what is on disk must have been built with the same numbers."""

    size_px: int = 48
    span_km: float = 1000.0  # side of a view
    gallery_size: int = 24_000
    val_size: int = 2_000
    test_size: int = 2_000
    unseen_size: int = 2_000  # at least so many, in whole 5° cells without a training view
    samples_per_shard: int = 4_000
    jpeg_quality: int = 92
    seed: int = 0


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """Training and validation shards, and how they are read."""

    name: str = MISSING
    kind: DataKind = MISSING
    root: str = MISSING  # folder of the splits, or empty when nothing is set
    train: str = "train"  # below root: a folder of shards, or a pattern such as mp-16-{000000..000393}.tar
    val: str = "val"
    fraction: float = 1.0
    streams: int = 16  # the canonical streams that a global batch is dealt from; see data/stream.py
    shuffle_buffer: int = 1000  # samples held per stream
    max_bad_fraction: float = 0.05  # of the shards, samples or pictures: more that are skipped end the run
    max_pixels: int = (
        MAX_PIXELS  # pictures of more are skipped; JPEGs of up to 4 times as many are decoded smaller
    )
    crop_scale_min: float = 1.0  # smallest area share of the random crop; 1 leaves the image whole
    crop_ratio: float = 1.0  # the crop's aspect ratio lies in [1/ratio, ratio]
    flip: bool = False
    color_jitter: float = 0.0  # probability of (brightness .4, contrast .4, saturation .4, hue .1)
    grayscale: float = 0.0  # probability
    bluemarble: BlueMarbleConfig = field(default_factory=BlueMarbleConfig)


@dataclass(kw_only=True, slots=True)
class GalleryConfig:
    """The coordinates that predictions are drawn from; `own` is the gallery that a run was validated with."""

    name: str = MISSING
    kind: GalleryKind = GalleryKind.file
    path: str = ""


@dataclass(kw_only=True, slots=True)
class BenchmarkConfig:
    """Images with known places: a split of shards, or photographs beside a CSV."""

    name: str = MISSING
    kind: BenchmarkKind = MISSING
    root: str = ""
    split: str = ""  # shards: below root
    built: str = (
        ""  # photos: the shards that geoclip.shards benchmark=NAME builds; read where root is not given
    )
    metadata: str = ""  # photos: the CSV below root, found by itself where it is the only one
    variable: str = ""  # the environment variable that root is read from
    source: str = ""  # where the photographs come from
    published_n: int | None = None


@dataclass(kw_only=True, slots=True)
class ColumnsConfig:
    """What a table calls its columns; empty ones are found by themselves."""

    key: str = ""  # the pictures' names; source=wds: a field of the jsons in place of the tars' own keys
    lat: str = ""
    lon: str = ""


@dataclass(kw_only=True, slots=True)
class ShardsConfig:
    """What `geoclip.shards` builds, and where; or the shards that it verifies."""

    source: ShardSource = ShardSource.bluemarble
    root: str = BLUE_MARBLE_ROOT
    overwrite: bool = False  # replace shards that were built with other settings
    bluemarble: BlueMarbleConfig = field(default_factory=BlueMarbleConfig)
    input: str = ""  # csv: the table; wds: a folder of tars, or a pattern such as mp-16-{000000..000393}.tar
    images: str = ""  # csv: a folder, .zip or .tar; empty: the table's folder
    columns: ColumnsConfig = field(default_factory=ColumnsConfig)
    split: str = "train"
    val_samples: int = 0  # so many, drawn at random, make the split `val`
    samples_per_shard: int = 10_000  # at most; shards are equal to within one
    max_side_px: int | None = None  # larger pictures are scaled down to this longer side; null: none is
    jpeg_quality: int = 90  # of pictures that are scaled down
    workers: int = 0  # processes; 0: one per core
    max_rejected_fraction: float = 0.05  # more rows of no use end the build
    max_pixels: int = MAX_PIXELS  # pictures of more are rejected; JPEGs of up to 4 times as many are not
    seed: int = 0  # of the shuffle
    benchmark: BenchmarkConfig | None = None  # build the shards of this one
    inspect: str = ""  # build nothing: verify and summarise the shards in this folder


@dataclass(kw_only=True, slots=True)
class GalleryBuildConfig:
    """A gallery to build, and the test sets that it is measured against. The filters come in this order."""

    source: PlacesSource = PlacesSource.released_100k
    path: str = ""  # csv: the file; shards: a folder of tars, or a pattern such as mp-16-{000000..000393}.tar
    output: str = ""  # the CSV to write; empty: galleries/<source>-<hash of what decides its contents>.csv
    box: list[float] = field(default_factory=list)  # south, west, north, east in degrees; west may be > east
    country: Any = field(default_factory=list)  # ISO 3166 code, or a list of them
    exclude: Any = field(default_factory=list)  # benchmarks or CSVs whose places it must not hold
    exclude_radius_km: float = 0.0  # 0: these very coordinates
    radius_km: float = 0.0  # no two places nearer to each other; 0: no place twice
    size: int | None = None  # so many places, drawn at random; null: all
    seed: int = 0  # of the random order
    against: Any = field(default_factory=list)  # further test sets to measure the gallery's ceilings on
    overwrite: bool = False  # replace another gallery at output
