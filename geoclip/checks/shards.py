"""Why shards cannot be built."""

from __future__ import annotations

import os
from pathlib import Path

from geoclip.checks.data import blue_marble_problems
from geoclip.config import BLUE_MARBLE_ROOT, BenchmarkConfig, BenchmarkKind, ShardsConfig, ShardSource
from geoclip.files import name_problem


def shards_problems(config: ShardsConfig) -> list[str]:
    """Every reason why these shards cannot be built, or inspected."""
    if config.inspect:
        there = os.path.isdir(config.inspect)
        return [] if there else [f"inspect={config.inspect} is no folder; name one that holds shards"]
    problems = [] if config.root else ["root='' must name the folder to build"]
    if config.benchmark is not None:
        problems += _benchmark_problems(config, config.benchmark)
    else:
        match config.source:
            case ShardSource.bluemarble:
                return problems + blue_marble_problems(config.bluemarble, "bluemarble")
            case ShardSource.csv:
                problems += _csv_problems(config)
            case ShardSource.wds:
                problems += _wds_problems(config)
        if config.root == BLUE_MARBLE_ROOT:
            problems.append(
                f"root={config.root} is the embedded default's; name another folder: root=data/NAME"
            )
    return problems + _number_problems(config)


def shards_root(config: ShardsConfig) -> str:
    """The folder to build: what was given, or data/NAME of a benchmark."""
    if config.benchmark is not None and config.root == BLUE_MARBLE_ROOT:
        return f"data/{config.benchmark.name}"
    return config.root


def _csv_problems(config: ShardsConfig) -> list[str]:
    problems = []
    if not config.input:
        problems.append(
            "source=csv needs a table: input=FILE.csv with pictures' names, latitudes and longitudes"
        )
    elif not os.path.isfile(config.input):
        problems.append(f"input={config.input} is no file; it must be a CSV")
    if config.images and not os.path.exists(config.images):
        problems.append(f"images={config.images} is neither a folder nor a .zip nor a .tar")
    return problems + _inside_problems(config, {"input": config.input, "images": config.images})


def _wds_problems(config: ShardsConfig) -> list[str]:
    problems = []
    if not config.input:
        problems.append("source=wds needs tars: input=FOLDER or input='FOLDER/mp-16-{000000..000393}.tar'")
    if config.images:
        problems.append("images= is for source=csv; with source=wds the pictures lie in the tars")
    if config.columns.lat or config.columns.lon:
        problems.append("columns.lat and columns.lon are for source=csv; a tar's jsons have lat and lon")
    return problems + _inside_problems(config, {"input": config.input})


def _benchmark_problems(config: ShardsConfig, benchmark: BenchmarkConfig) -> list[str]:
    if benchmark.kind is BenchmarkKind.shards:
        return [f"benchmark={benchmark.name} is shards already; benchmarks of photographs can be built"]
    problems = []
    if config.source is ShardSource.wds or config.input or config.images:
        problems.append(
            f"benchmark={benchmark.name} takes its table and photographs from benchmark.root; leave source, input and "
            "images out"
        )
    if not benchmark.root:
        problems.append(
            f"benchmark={benchmark.name} has no photographs: set {benchmark.variable}=FOLDER or benchmark.root=FOLDER "
            f"to the folder that holds them and their CSV. {benchmark.source}"
        )
    elif not os.path.isdir(benchmark.root):
        problems.append(f"benchmark.root={benchmark.root} is no folder; {benchmark.source}")
    return problems + _inside_problems(config, {"benchmark.root": benchmark.root})


def _inside_problems(config: ShardsConfig, inputs: dict[str, str]) -> list[str]:
    """What is read must not lie where is written: overwrite=true would delete it."""
    root = Path(shards_root(config) or "?").resolve()
    return [
        f"{key}={value} lies in root={shards_root(config)}; name another folder to build: root={root}-shards"
        for key, value in inputs.items()
        if value and Path(value.partition("{")[0]).resolve().is_relative_to(root)
    ]


def _number_problems(config: ShardsConfig) -> list[str]:
    problems = []
    for key, least in (("samples_per_shard", 1), ("val_samples", 0), ("workers", 0), ("max_pixels", 1)):
        if getattr(config, key) < least:
            problems.append(f"{key}={getattr(config, key)} must be {least} or more")
    if config.max_side_px is not None and config.max_side_px < 16:
        problems.append(f"max_side_px={config.max_side_px} must be 16 or more; null scales nothing down")
    if not 1 <= config.jpeg_quality <= 100:
        problems.append(f"jpeg_quality={config.jpeg_quality} must lie in 1 … 100")
    if not 0 <= config.max_rejected_fraction <= 1:
        problems.append(f"max_rejected_fraction={config.max_rejected_fraction} is a share in [0, 1]")
    if problem := name_problem(config.split):
        problems.append(f"split={config.split!r} {problem}; it names a folder below root, such as train")
    if config.val_samples and config.split == "val":
        problems.append("val_samples= holds samples out for the split val; name the other one: split=train")
    return problems
