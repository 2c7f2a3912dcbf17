"""Data: shards, galleries and benchmarks, read and built. Schemas, then rules."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geoclip.config.choices import BenchmarkKind, DataKind, GalleryKind, PlacesSource, ShardSource
from geoclip.config.composed import option, options
from geoclip.config.keys import key, name_key, seed_key, shown
from geoclip.system.files import name_problem

MAX_PIXELS = 89_478_485  # decoded at most: a quarter GiB of RGB
BLUE_MARBLE_ROOT = "data/bluemarble"  # the embedded default's, which no other data set may take
FARTHEST_KM = 20_000  # about half of the Earth's circumference
MP16_FIX = (
    "set MP16_SHARDS or data.root to the folder of the MP16 tar shards (key.jpg + key.json with lat, lon in "
    "each tar); README.md, section 'Train on MP16', says how to build them"
)


def max_pixels_key() -> Any:
    """The key for the largest picture that is decoded."""
    comment = "larger pictures are skipped; JPEGs of up to 4 times as many are decoded smaller"
    return key(MAX_PIXELS, comment, at_least=1, unit="pixels")


@dataclass(kw_only=True, slots=True)
class BlueMarbleConfig:
    """How the embedded default's views are cut; what is on disk must have been built with the same numbers."""

    size_px: int = key(48, "side of a view", at_least=1, unit="pixels")
    span_km: float = key(1000.0, "side of a view", above=0, at_most=FARTHEST_KM, unit="km")
    gallery_size: int = key(24_000, "coordinates of the gallery", at_least=1)
    val_size: int = key(2_000, at_least=1, unit="views")
    test_size: int = key(2_000, at_least=1, unit="views")
    unseen_size: int = key(2_000, "at least, in complete 5° cells without a training view", at_least=1, unit="views")
    samples_per_shard: int = key(4_000, at_least=1)
    jpeg_quality: int = key(92, at_least=1, at_most=100)
    seed: int = seed_key("of the coordinates")


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """Training and validation shards, and how they are read."""

    name: str = name_key("of the chosen option")
    kind: DataKind = key(comment="bluemarble: views that are built where they are missing; shards: tar files")
    root: str = key(comment="folder of the splits, or empty when nothing is set")
    train: str = key("train", "below root: a folder of shards, or a pattern such as mp-16-{000000..000393}.tar")
    val: str = key("val", "below root, likewise")
    fraction: float = key(1.0, "share of the training samples", above=0, at_most=1)
    streams: int = key(16, "sequences of samples that a global batch takes equal parts of", at_least=1)
    shuffle_buffer: int = key(1000, "per stream; 1 keeps the shards' order", at_least=1, unit="samples")
    max_bad_fraction: float = key(
        0.05, "share of unreadable shards, samples or pictures; more end the run", at_least=0, below=1
    )
    max_pixels: int = max_pixels_key()
    crop_scale_min: float = key(1.0, "smallest area share of the random crop; 1: no crop", above=0, at_most=1)
    crop_ratio: float = key(1.0, "the crop's aspect ratio is within [1/ratio, ratio]", at_least=1)
    flip: bool = key(False, "random horizontal flip")
    color_jitter: float = key(
        0.0, "probability of brightness .4, contrast .4, saturation .4, hue .1", at_least=0, at_most=1
    )
    grayscale: float = key(0.0, "probability", at_least=0, at_most=1)
    bluemarble: BlueMarbleConfig = field(default_factory=BlueMarbleConfig)

    @property
    def augments(self) -> bool:
        """Whether two views of a picture can differ."""
        return self.crop_scale_min < 1 or self.flip or self.color_jitter > 0 or self.grayscale > 0


@dataclass(kw_only=True, slots=True)
class GalleryConfig:
    """The coordinates that predictions are drawn from."""

    name: str = name_key("of the chosen option")
    kind: GalleryKind = key(GalleryKind.file, "own: the gallery that the run was validated with")
    path: str = key("", "kind=file: a CSV with the columns LAT, LON")


@dataclass(kw_only=True, slots=True)
class BenchmarkConfig:
    """Images with known locations: a split of shards, or photographs beside a CSV."""

    name: str = name_key("of the result files")
    kind: BenchmarkKind = key(comment="what root contains")
    root: str = key("", "folder of the shards, or of the photographs")
    split: str = key("", "shards: below root")
    built: str = key("", "photos: the shards of geoclip.shards benchmark=NAME, read where root is not given")
    metadata: str = key("", "photos: the CSV below root; empty: the only one there")
    variable: str = key("", "the environment variable that root is read from")
    source: str = key("", "where the photographs come from")
    published_n: int | None = key(None, "number of images in publications")


def _column(comment: str) -> Any:
    return key("", comment)


@dataclass(kw_only=True, slots=True)
class ColumnsConfig:
    """Column names of a table; empty ones are detected."""

    key: str = _column("names of the pictures; source=wds: a field of the jsons instead of the tars' keys")
    lat: str = _column("latitude")
    lon: str = _column("longitude")


@dataclass(kw_only=True, slots=True)
class ShardsConfig:
    """What `geoclip.shards` builds, and where; or the shards that it verifies."""

    source: ShardSource = key(ShardSource.bluemarble, "what the shards are made of")
    root: str = key(BLUE_MARBLE_ROOT, "the folder to build")
    overwrite: bool = key(False, "replace shards that were built with other settings")
    bluemarble: BlueMarbleConfig = field(default_factory=BlueMarbleConfig)
    input: str = key("", "csv: the table; wds: a folder of tars, or a pattern such as mp-16-{000000..000393}.tar")
    images: str = key("", "csv: a folder, .zip or .tar; empty: the table's folder")
    columns: ColumnsConfig = field(default_factory=ColumnsConfig)
    split: str = key("train", "the folder below root")
    val_samples: int = key(0, "drawn at random for the split val", at_least=0, unit="samples")
    samples_per_shard: int = key(10_000, "at most; shards are equal to within one", at_least=1)
    max_side_px: int | None = key(
        None, "larger pictures are scaled down to this longer side; null: none", at_least=16, unit="pixels"
    )
    jpeg_quality: int = key(90, "of pictures that are scaled down", at_least=1, at_most=100)
    workers: int = key(0, "processes; 0: one per core", at_least=0)
    max_rejected_fraction: float = key(0.05, "share of unusable rows; more end the build", at_least=0, at_most=1)
    max_pixels: int = max_pixels_key()
    seed: int = seed_key("of the shuffle")
    benchmark: BenchmarkConfig | None = None
    inspect: str = key("", "build nothing: verify and summarise the shards in this folder")


@dataclass(kw_only=True, slots=True)
class GalleryBuildConfig:
    """A gallery to build, and the test sets that it is measured against. The filters are applied in this order."""

    source: PlacesSource = key(PlacesSource.released_100k, "where the coordinates come from")
    path: str = key("", "csv: the file; shards: a folder of tars, or a pattern such as mp-16-{000000..000393}.tar")
    output: str = key("", "the CSV to write; empty: galleries/<source>-<hash of what decides its contents>.csv")
    box: list[float] = key([], "south, west, north, east in degrees; west > east crosses the antimeridian")
    country: Any = key([], "ISO 3166 codes")
    exclude: Any = key([], "benchmarks or CSVs whose coordinates the gallery must not contain")
    exclude_radius_km: float = key(
        0.0, "around them; 0: exactly these coordinates", at_least=0, at_most=FARTHEST_KM, unit="km"
    )
    radius_km: float = key(0.0, "least distance of two locations", at_least=0, at_most=FARTHEST_KM, unit="km")
    size: int | None = key(None, "coordinates, drawn at random; null: all", at_least=1)
    seed: int = seed_key("of the order")
    against: Any = key([], "further test sets to measure the gallery's ceilings on")
    overwrite: bool = key(False, "replace another gallery at output")


def data_problems(data: DataConfig, *, read: bool = True) -> list[str]:
    """Reasons why these shards cannot be read; without `read` there are none."""
    if data.kind is DataKind.bluemarble or not read:
        return []
    if not data.root:
        return [f"data={data.name}: has no shards; {MP16_FIX}"]
    if "://" in data.root:
        return [f"data.root={data.root}: is an address; mount it, or copy the shards to a file system"]
    return [] if Path(data.root).is_dir() else [f"data.root={data.root}: is not a folder; {MP16_FIX}"]


def gallery_problems(gallery: GalleryConfig, *, may_be_built: bool = False) -> list[str]:
    """Reasons why this gallery cannot be read; `may_be_built` allows a file that the demo's data will bring."""
    if gallery.kind is GalleryKind.own:
        return [
            f"gallery={gallery.name}: is for evaluation; train with gallery=bluemarble, gallery=released_100k or "
            "gallery=csv"
        ]
    if gallery.kind is GalleryKind.released or may_be_built or os.path.isfile(gallery.path):
        return []
    return [f"gallery.path={shown(gallery.path)}: is not a file; must be a CSV with the columns LAT, LON"]


def shards_problems(config: ShardsConfig) -> list[str]:
    """Every reason why these shards cannot be built, or inspected."""
    if config.inspect:
        there = os.path.isdir(config.inspect)
        return [] if there else [f"inspect={config.inspect}: is not a folder; name one that contains shards"]
    problems = [] if config.root else ["root='': must name the folder to build"]
    if config.benchmark is not None:
        problems += _benchmark_problems(config, config.benchmark)
    elif config.source is ShardSource.bluemarble:
        return problems
    else:
        problems += _csv_problems(config) if config.source is ShardSource.csv else _wds_problems(config)
        if config.root == BLUE_MARBLE_ROOT:
            problems.append(f"root={config.root}: is the embedded default's; name another folder: root=data/NAME")
    if problem := name_problem(config.split):
        problems.append(f"split={config.split!r}: {problem}; it names a folder below root, such as train")
    if config.val_samples and config.split == "val":
        problems.append("val_samples: are held out for the split val; name the other one: split=train")
    return problems


def shards_root(config: ShardsConfig) -> str:
    """The folder to build: what was given, or data/NAME of a benchmark."""
    if config.benchmark is not None and config.root == BLUE_MARBLE_ROOT:
        return f"data/{config.benchmark.name}"
    return config.root


def _csv_problems(config: ShardsConfig) -> list[str]:
    problems = []
    if not os.path.isfile(config.input):
        problems.append(f"input={shown(config.input)}: must be a CSV with names, latitudes and longitudes of pictures")
    if config.images and not os.path.exists(config.images):
        problems.append(f"images={config.images}: is neither a folder nor a .zip nor a .tar")
    return problems + _inside_problems(config, {"input": config.input, "images": config.images})


def _wds_problems(config: ShardsConfig) -> list[str]:
    problems = []
    if not config.input:
        problems.append(
            "input='': must name the tars (source=wds): input=FOLDER or input='FOLDER/mp-16-{000000..000393}.tar'"
        )
    if config.images:
        problems.append(f"images={config.images}: is for source=csv; with source=wds the tars contain the pictures")
    if config.columns.lat or config.columns.lon:
        problems.append("columns.lat, columns.lon: are for source=csv; a tar's jsons have lat and lon")
    return problems + _inside_problems(config, {"input": config.input})


def _benchmark_problems(config: ShardsConfig, benchmark: BenchmarkConfig) -> list[str]:
    if benchmark.kind is BenchmarkKind.shards:
        return [f"benchmark={benchmark.name}: is shards already; benchmarks of photographs can be built"]
    problems = []
    if config.source is ShardSource.wds or config.input or config.images:
        problems.append(
            f"benchmark={benchmark.name}: takes its table and photographs from benchmark.root; leave source, input and "
            "images out"
        )
    if not benchmark.root:
        problems.append(no_photographs(benchmark, "the folder of the photographs and their CSV"))
    elif not os.path.isdir(benchmark.root):
        problems.append(f"benchmark.root={benchmark.root}: is not a folder; {benchmark.source}")
    return problems + _inside_problems(config, {"benchmark.root": benchmark.root})


def no_photographs(benchmark: BenchmarkConfig, folder: str) -> str:
    """The sentence about a benchmark whose photographs are nowhere."""
    variable = f"{benchmark.variable}=FOLDER or " if benchmark.variable else ""
    return (
        f"benchmark={benchmark.name}: has no photographs; set {variable}benchmark.root=FOLDER to {folder}. "
        f"{benchmark.source}"
    )


def _inside_problems(config: ShardsConfig, inputs: dict[str, str]) -> list[str]:
    """What is read must not be where is written: overwrite=true would delete it."""
    root = Path(shards_root(config) or "?").resolve()
    return [
        f"{name}={value}: is inside root={shards_root(config)}; name another folder to build: root={root}-shards"
        for name, value in inputs.items()
        if value and Path(value.partition("{")[0]).resolve().is_relative_to(root)
    ]


def gallery_build_problems(config: GalleryBuildConfig) -> list[str]:
    """Every reason why this gallery cannot be built, each with its fix."""
    problems = [*_source_problems(config), *box_problems(config.box), *country_problems(config.country)]
    if config.exclude_radius_km and not config.exclude:
        problems.append(f"exclude_radius_km={config.exclude_radius_km}: needs test sets: exclude=[yfcc4k,im2gps3k]")
    if config.output and Path(config.output).suffix.lower() != ".csv":
        problems.append(f"output={config.output}: must end in .csv; a .json and a .png are written beside it")
    for name in ("exclude", "against"):
        for one in one_or_many(getattr(config, name)):
            problems += _test_set_problems(name, one)
    return problems


def one_or_many(value: Any) -> list[str]:
    """What was given as one name or as a list of names, as a list."""
    return [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)] if value else []


def _source_problems(config: GalleryBuildConfig) -> list[str]:
    match config.source:
        case PlacesSource.released_100k if config.path:
            return [f"path={config.path}: is for source=csv or source=shards; source=released_100k has none"]
        case PlacesSource.csv if not os.path.isfile(config.path):
            return [f"path={shown(config.path)}: must be a CSV with columns for latitude and longitude (source=csv)"]
        case PlacesSource.shards if not config.path:
            return ["path='': must name shards: path=FOLDER/train, or path='FOLDER/mp-16-{000000..000393}.tar'"]
        case _:
            return []


def country_problems(country: Any) -> list[str]:
    """Reasons why these are no countries."""
    return [
        f"country={name}: must be an ISO 3166 code of two or three letters, e.g. FR or [FR,DEU]"
        for name in one_or_many(country)
        if len(name.strip()) not in (2, 3) or not name.strip().isalpha()
    ]


def box_problems(box: list[float]) -> list[str]:
    """Reasons why this is no box."""
    if not box:
        return []
    if len(box) == 4:
        south, west, north, east = box
        if -90 <= south <= north <= 90 and -180 <= west <= 180 and -180 <= east <= 180:
            return []
    return [
        f"box={box}: must be [south,west,north,east] in degrees, -90 <= south <= north <= 90 and west, east in "
        "[-180, 180]; a box over the antimeridian has west > east"
    ]


def _test_set_problems(name: str, test_set: str) -> list[str]:
    if os.path.isfile(test_set):
        return []
    benchmark = option("benchmark", test_set, BenchmarkConfig)
    if benchmark is None:
        known = ", ".join(options("benchmark"))
        return [f"{name}={test_set}: is neither a CSV nor a benchmark; benchmarks are {known}"]
    if benchmark.kind is BenchmarkKind.photos and os.path.isfile(benchmark.metadata):
        return []
    if benchmark.built and not benchmark.root and os.path.isfile(f"{benchmark.built}/test/index.json"):
        return []
    if not benchmark.root:
        return [
            f"{name}={test_set}: has no coordinates; set {benchmark.variable}=FOLDER to the folder of its CSV, or name "
            f"the CSV itself, {name}=[FILE.csv]. {benchmark.source}"
        ]
    if not os.path.isdir(benchmark.root):
        return [f"{name}={test_set}: {benchmark.root} is not a folder; name its CSV instead, {name}=[FILE.csv]"]
    return []
