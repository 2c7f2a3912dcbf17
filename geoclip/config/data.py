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

MAX_PIXELS = 89_478_485  # largest decoded picture: 0.25 GiB of RGB
BLUE_MARBLE_ROOT = "data/bluemarble"  # reserved for the embedded default
FARTHEST_KM = 20_000  # about half of the Earth's circumference
MP16_FIX = (
    "set MP16_SHARDS or data.root to the folder of the MP16 tar shards (key.jpg + key.json with lat, lon in "
    "each tar); README.md, section 'Train on MP16', describes how to build them"
)


def max_pixels_key() -> Any:
    """The key for the largest picture that is decoded, which several commands have."""
    comment = "larger pictures are skipped; JPEGs of up to 4 times this size are decoded at a smaller scale"
    return key(MAX_PIXELS, comment, at_least=1, unit="pixels")


@dataclass(kw_only=True, slots=True)
class BlueMarbleConfig:
    """The views of the embedded default. Shards on disk must have been built with the same values."""

    size_px: int = key(48, "side of a view, in pixels", at_least=1, unit="pixels")
    span_km: float = key(1000.0, "side of a view, on the ground", above=0, at_most=FARTHEST_KM, unit="km")
    gallery_size: int = key(24_000, "number of coordinates in the gallery", at_least=1)
    val_size: int = key(2_000, "size of the split val", at_least=1, unit="views")
    test_size: int = key(2_000, "size of the split test", at_least=1, unit="views")
    unseen_size: int = key(
        2_000, "smallest size of test_unseen_cells: 5° cells without training views", at_least=1, unit="views"
    )
    samples_per_shard: int = key(4_000, "views in a shard", at_least=1)
    jpeg_quality: int = key(92, "quality of the JPEGs", at_least=1, at_most=100)
    seed: int = seed_key("of the coordinates")


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """Training and validation shards, and how they are read."""

    name: str = name_key("name of the chosen option, for run folders, tables and files")
    kind: DataKind = key(comment="bluemarble: views of the Blue Marble, built on first use; shards: tar files")
    root: str = key(comment="folder that contains the splits; empty: not set")
    train: str = key(
        "train", "training split below root: folder of shards, or a pattern such as mp-16-{000000..000393}.tar"
    )
    val: str = key("val", "validation split below root, in the same form")
    fraction: float = key(1.0, "share of the training samples that is used", above=0, at_most=1)
    streams: int = key(16, "sample sequences; a global batch takes an equal share of each", at_least=1)
    shuffle_buffer: int = key(1000, "shuffle buffer of a stream; 1: no shuffling", at_least=1, unit="samples")
    max_bad_fraction: float = key(
        0.05, "tolerated share of unreadable shards, samples or pictures", at_least=0, below=1
    )
    max_pixels: int = max_pixels_key()
    crop_scale_min: float = key(1.0, "random crop: least share of the area; 1: no crop", above=0, at_most=1)
    crop_ratio: float = key(1.0, "random crop: largest aspect ratio r; the ratio is in [1/r, r]", at_least=1)
    flip: bool = key(False, "random horizontal flip")
    color_jitter: float = key(
        0.0, "probability of colour jitter (brightness, contrast, saturation 0.4; hue 0.1)", at_least=0, at_most=1
    )
    grayscale: float = key(0.0, "probability of conversion to greyscale", at_least=0, at_most=1)
    bluemarble: BlueMarbleConfig = field(default_factory=BlueMarbleConfig)

    @property
    def augments(self) -> bool:
        """Whether two views of a picture can differ."""
        return self.crop_scale_min < 1 or self.flip or self.color_jitter > 0 or self.grayscale > 0


@dataclass(kw_only=True, slots=True)
class GalleryConfig:
    """The coordinates that predictions are drawn from."""

    name: str = name_key("name of the chosen option, for run folders, tables and files")
    kind: GalleryKind = key(GalleryKind.file, "own: as in the run's validation; released: GeoCLIP's 100,000")
    path: str = key("", "kind=file: CSV with the columns LAT, LON in degrees")


@dataclass(kw_only=True, slots=True)
class BenchmarkConfig:
    """Images with known locations: a split of shards, or photographs beside a CSV."""

    name: str = name_key("name of the benchmark and of its result files")
    kind: BenchmarkKind = key(comment="what root contains: shards, or photographs beside a CSV")
    root: str = key("", "folder of the shards or photographs")
    split: str = key("", "kind=shards: split below root")
    built: str = key("", "kind=photos: shards that geoclip.shards benchmark=NAME builds, read if root is empty")
    metadata: str = key("", "kind=photos: CSV below root; empty: the only CSV there")
    variable: str = key("", "environment variable with the default of root")
    source: str = key("", "where to obtain the photographs")
    published_n: int | None = key(None, "number of images in publications; null: unpublished")


def _column(comment: str) -> Any:
    return key("", comment)


@dataclass(kw_only=True, slots=True)
class ColumnsConfig:
    """Column names of a table; empty ones are detected."""

    key: str = _column("column of the picture names; source=wds: JSON field with the keys; empty: names in the tars")
    lat: str = _column("column of the latitude, degrees")
    lon: str = _column("column of the longitude, degrees")


@dataclass(kw_only=True, slots=True)
class ShardsConfig:
    """The shards to build or to verify."""

    source: ShardSource = key(ShardSource.bluemarble, "Blue Marble views, a table of pictures, or tars")
    root: str = key(BLUE_MARBLE_ROOT, "folder to write; with benchmark=NAME the default is data/NAME")
    overwrite: bool = key(False, "replace existing shards that were built with other settings")
    bluemarble: BlueMarbleConfig = field(default_factory=BlueMarbleConfig)
    input: str = key("", "csv: the table; wds: folder of tars, or a pattern such as mp-16-{000000..000393}.tar")
    images: str = key("", "csv: folder, .zip or .tar of the pictures; empty: the table's folder")
    columns: ColumnsConfig = field(default_factory=ColumnsConfig)
    split: str = key("train", "name of the split, a folder below root")
    val_samples: int = key(0, "number of samples drawn at random for the split val", at_least=0, unit="samples")
    samples_per_shard: int = key(10_000, "limit of samples in a shard; shards differ by at most one", at_least=1)
    max_side_px: int | None = key(
        None, "longer side to which larger pictures are scaled; null: none", at_least=16, unit="pixels"
    )
    jpeg_quality: int = key(90, "JPEG quality of the pictures that are scaled down", at_least=1, at_most=100)
    workers: int = key(0, "number of processes; 0: one per core", at_least=0)
    max_rejected_fraction: float = key(
        0.05, "tolerated share of unusable rows; more are an error", at_least=0, at_most=1
    )
    max_pixels: int = max_pixels_key()
    seed: int = seed_key("of the shuffle")
    benchmark: BenchmarkConfig | None = None
    inspect: str = key("", "folder of shards to verify and summarise; nothing is built")


@dataclass(kw_only=True, slots=True)
class GalleryBuildConfig:
    """A gallery to build, and the test sets on which it is measured. Filters apply in the order of the keys."""

    source: PlacesSource = key(PlacesSource.released_100k, "source of the coordinates")
    path: str = key("", "csv: the file; shards: folder of tars, or a pattern such as mp-16-{000000..000393}.tar")
    output: str = key("", "CSV to write; empty: galleries/<source>-<hash of sources and filters>.csv")
    box: list[float] = key([], "only within [south,west,north,east], degrees; west > east crosses the antimeridian")
    country: Any = key([], "only within these countries, ISO 3166 codes")
    exclude: Any = key([], "benchmarks or CSVs whose coordinates are removed from the gallery")
    exclude_radius_km: float = key(
        0.0,
        "also remove coordinates within this distance; 0: only equal ones",
        at_least=0,
        at_most=FARTHEST_KM,
        unit="km",
    )
    radius_km: float = key(
        0.0, "least distance between two locations; 0: any", at_least=0, at_most=FARTHEST_KM, unit="km"
    )
    size: int | None = key(None, "number of coordinates, drawn at random; null: all", at_least=1)
    seed: int = seed_key("of the random order")
    against: Any = key([], "further benchmarks or CSVs on which the best possible accuracy is measured")
    overwrite: bool = key(False, "replace an existing, different gallery at output")


def data_problems(data: DataConfig, *, read: bool = True) -> list[str]:
    """Reasons why these shards cannot be read; none if they are not read."""
    if data.kind is DataKind.bluemarble or not read:
        return []
    if not data.root:
        return [f"data={data.name}: has no shards; {MP16_FIX}"]
    if "://" in data.root:
        return [f"data.root={data.root}: is an address; mount it, or copy the shards to a file system"]
    return [] if Path(data.root).is_dir() else [f"data.root={data.root}: is not a folder; {MP16_FIX}"]


def gallery_problems(gallery: GalleryConfig, *, may_be_built: bool = False) -> list[str]:
    """Reasons why this gallery cannot be read; `may_be_built`: the file may be built together with the data."""
    if gallery.kind is GalleryKind.own:
        return [
            f"gallery={gallery.name}: is for evaluation; train with gallery=bluemarble, gallery=released_100k or "
            "gallery=csv"
        ]
    if gallery.kind is GalleryKind.released or may_be_built or os.path.isfile(gallery.path):
        return []
    return [f"gallery.path={shown(gallery.path)}: is not a file; must be a CSV with the columns LAT, LON"]


def shards_problems(config: ShardsConfig) -> list[str]:
    """Every reason why these shards cannot be built or inspected."""
    if config.inspect:
        exists = os.path.isdir(config.inspect)
        return [] if exists else [f"inspect={config.inspect}: is not a folder; name one that contains shards"]
    problems = [] if config.root else ["root='': must name the folder to build"]
    if config.benchmark is not None:
        problems += _benchmark_problems(config, config.benchmark)
    elif config.source is ShardSource.bluemarble:
        return problems
    else:
        problems += _csv_problems(config) if config.source is ShardSource.csv else _wds_problems(config)
        if config.root == BLUE_MARBLE_ROOT:
            problems.append(
                f"root={config.root}: is reserved for the embedded default; name another folder: root=data/NAME"
            )
    if problem := name_problem(config.split):
        problems.append(f"split={config.split!r}: {problem}; it names a folder below root, such as train")
    if config.val_samples and config.split == "val":
        problems.append(f"val_samples={config.val_samples}: needs another split than val: split=train")
    return problems


def shards_root(config: ShardsConfig) -> str:
    """The folder to build: `root`, or data/NAME of a benchmark."""
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
    """The message about a benchmark without photographs."""
    variable = f"{benchmark.variable}=FOLDER or " if benchmark.variable else ""
    return (
        f"benchmark={benchmark.name}: has no photographs; set {variable}benchmark.root=FOLDER to {folder}. "
        f"{benchmark.source}"
    )


def _inside_problems(config: ShardsConfig, inputs: dict[str, str]) -> list[str]:
    """Refuse inputs inside the output folder, which overwrite=true deletes."""
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
    """One name or a list of names, as a list."""
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
    """Reasons why these are not country codes."""
    return [
        f"country={name}: must be an ISO 3166 code of two or three letters, e.g. FR or [FR,DEU]"
        for name in one_or_many(country)
        if len(name.strip()) not in (2, 3) or not name.strip().isalpha()
    ]


def box_problems(box: list[float]) -> list[str]:
    """Reasons why this is not a valid box."""
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
