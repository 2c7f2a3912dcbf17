"""Small shards to train on, and their coordinates."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import webdataset as wds
from PIL import Image


@dataclass(kw_only=True)
class TinyShards:
    """Shards on disk, and their coordinates by key."""

    root: Path
    gps_deg: dict[str, tuple[float, float]]

    def paths(self, split: str = "train") -> list[Path]:
        return sorted((self.root / split).glob("*.tar"))


def write_tar(path: Path, *members: tuple[str, bytes]) -> Path:
    """A tar of named contents."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_shards(
    folder: Path, counts: list[int], *, split: str = "train", size_px: int = 16, seed: int = 0, noise: bool = False
) -> TinyShards:
    """Shards of flat-coloured pictures, or of noise, which fills some bytes, in folder/shards."""
    rng = np.random.default_rng(seed)
    gps_deg = {}
    (folder / "shards" / split).mkdir(parents=True, exist_ok=True)
    for number, count in enumerate(counts):
        with wds.TarWriter(str(folder / "shards" / split / f"{number:06d}.tar")) as tar:
            for sample in range(count):
                key = f"{split}-{number:02d}-{sample:04d}"
                lat, lon = float(rng.uniform(-80, 80)), float(rng.uniform(-180, 180))
                picture = io.BytesIO()
                color = (round(lat + 90), round((lon + 180) / 2), sample % 256)
                size = (size_px, size_px)
                (Image.effect_noise(size, 80) if noise else Image.new("RGB", size, color)).save(picture, "PNG")
                text = json.dumps({"key": key, "lat": lat, "lon": lon})
                tar.write({"__key__": key, "png": picture.getvalue(), "json": text.encode()})
                gps_deg[key] = (lat, lon)
    return TinyShards(root=folder / "shards", gps_deg=gps_deg)
