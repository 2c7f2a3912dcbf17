"""From the command to the answer, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from bench.harness import Row, compare
from geoclip.data.assets import asset_path
from tests.model.released import write_tiny_clip

ROOT = Path(__file__).parents[2]
RELEASED = """
import json, sys
from tests.model.released import tiny_released_geoclip
model = tiny_released_geoclip(sys.argv[1]).eval()
places, probabilities = model.predict(sys.argv[2], top_k=5)
print(json.dumps([[*map(float, place)] for place in places]))
"""


def measure(quick: bool) -> list[Row]:
    """One picture through a small CLIP over the released gallery; and `--help`, which has no counterpart."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [help_of(turns=2 if quick else 5)]
        return rows if quick else [*rows, prediction(folder)]


def run(*command: str) -> str:
    """What a Python process says.

    Raises:
        RuntimeError: it failed.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def help_of(turns: int) -> Row:
    """`--help` of the entry point with the most to say, beside importing torch, which it must not."""
    return compare(
        "python -m geoclip.train --help, beside `import torch`",
        ours=lambda: run("-m", "geoclip.train", "--help"),
        released=lambda: run("-c", "import torch"),
        agree=lambda ours, theirs: "",
        turns=turns,
        target=None,
        note="the released code has no command: the other side is what it imports first",
        memory=False,
    )


def prediction(folder: Path) -> Row:
    """`geoclip.predict` on one picture, its gallery kept from an earlier call, beside the released `predict`."""
    clip, picture = write_tiny_clip(folder / "clip"), folder / "picture.png"
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(picture)
    asset_path("gallery_100k.csv")  # fetching it is no part of either side

    def ours() -> list[list[float]]:
        run(
            *("-m", "geoclip.predict", "checkpoint=official", f"backbone={clip}", f"image={picture}"),
            *("top_k=5", f"output={folder}/answer"),
        )
        (answer,) = folder.glob("answer/**/*.json")
        return [[place["lat"], place["lon"]] for place in json.loads(answer.read_text())["predictions"]]

    def released() -> list[list[float]]:
        found: list[list[float]] = json.loads(run("-c", RELEASED, str(clip), str(picture)).splitlines()[-1])
        return found

    def agree(mine: list[list[float]], theirs: list[list[float]]) -> str:
        assert np.allclose(mine, theirs, atol=1e-4), f"{mine} and {theirs}"
        return "the same five places"

    return compare(
        "python -m geoclip.predict of one picture, from the command to the answer",
        ours=ours,
        released=released,
        agree=agree,
        turns=3,
        note="both with a small random CLIP; maps and HTML drawn on our side",
        memory=False,
    )
