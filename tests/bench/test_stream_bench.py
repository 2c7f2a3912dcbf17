"""The stream's benchmark runs, and its released loader crops, jitters and normalises."""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("stream")


def jpeg(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (shade, shade, shade)).save(file, "JPEG")
    return file.getvalue()


def test_every_way_is_timed_and_in_the_table(bench: ModuleType, tmp_path: Path) -> None:
    found = bench.measure(tmp_path, [jpeg(shade) for shade in range(0, 80, 2)], repeats=2)
    assert len(found) == 5 and all(way["samples_per_s"] > 0 for way in found.values())
    assert found[bench.RELEASED]["ratio_to_released"] == found[bench.WHOLE]["share_of_whole_decodes"] == 1
    described = {"photographs": 40, "mean_bytes": 900, "turns": 2, "batch": 32, "libjpeg_turbo": "3"}
    page = bench.table(found, described, {"processor": "this one"})
    assert all(f"| {name} |" in page for name in found) and "this one" in page


def test_the_released_loader_crops_jitters_and_normalises(bench: ModuleType, tmp_path: Path) -> None:
    path, rng = tmp_path / "grey.jpg", np.random.default_rng(0)
    path.write_bytes(jpeg(100))
    for _ in range(5):
        sample = bench.released_sample(path, rng)
        assert sample.shape == (3, 224, 224)
        shade = sample * bench.STD + bench.MEAN
        assert 0.6 * 100 / 255 - 0.01 < shade.min() <= shade.max() < 1.4 * 100 / 255 + 0.01
    shares = []
    for _ in range(500):
        left, top, right, bottom = bench.random_box((1024, 768), rng)
        assert 0 <= left < right <= 1024 and 0 <= top < bottom <= 768
        shares.append((right - left) * (bottom - top) / (1024 * 768))
    assert 0.079 < min(shares) < 0.12 and max(shares) > 0.9
