"""Complete commands on the card: the embedded default, features, a run that is killed and resumed, two ranks."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from bench.card import Card, GpuRow
from geoclip.training.checkpoint import read_checkpoint

SPLITS = ("test", "test_unseen_cells")
SMALL_VIEWS = ("gallery_size=93000", "val_size=60", "test_size=60", "unseen_size=60")
QUICK = (  # the location encoder embeds a gallery of 93,000
    *("optim.max_steps=4", "optim.batch_size=16", "queue.size=16", "location.sigmas=[1]"),
    *("location.frequencies=8", "location.hidden_dim=16", "location.embedding_dim=16"),
)
LAST_STEP, KILLED_AFTER = 60, 25
PATIENCE_S = 240


def measure_runs(card: Card) -> None:
    """Three seeds of the embedded default, and beside them a run that is killed and resumed."""
    folder = _folder(card)
    _done(_command(folder, "shards", "source=bluemarble", *(_small("bluemarble", card))), folder)
    started_s, seeds = time.perf_counter(), _seeds(card)
    training = [_train(folder, card, f"seed={seed}", f"name=seed{seed}", _workers(card, 3)) for seed in seeds]
    _killed_and_resumed(folder, card)
    for process in training:
        _done(process, folder)
    spent_s = time.perf_counter() - started_s
    name = f"{len(seeds)} runs of the embedded default and one killed, together"
    card.report(GpuRow(name=name, value=spent_s, unit="s"))


def _workers(card: Card, count: int) -> str:
    """Small runs read in their own process: starting readers would be most of what they do."""
    return f"compute.workers={0 if card.quick else count}"


def _splits(card: Card) -> tuple[str, ...]:
    return SPLITS[:1] if card.quick else SPLITS


def _seeds(card: Card) -> tuple[int, ...]:
    return (0,) if card.quick else (0, 1, 2)


def _folder(card: Card) -> Path:
    """The working folder of all parts here."""
    if "folder" not in card.memo:
        card.memo["folder"] = tempfile.TemporaryDirectory()
    return Path(card.memo["folder"].name)


def _small(prefix: str, card: Card) -> list[str]:
    return [f"{prefix}.{setting}" for setting in SMALL_VIEWS] if card.quick else []


def _command(folder: Path, command: str, *overrides: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    started = [sys.executable, *(launcher or ("-m",)), f"geoclip.{command}", *overrides]
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(part for part in (os.environ.get("PYTHONPATH"), root) if part)
    log = (folder / "log.txt").open("ab")
    return subprocess.Popen(
        started, cwd=folder, stdout=log, stderr=log, env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "2"}
    )


def _train(folder: Path, card: Card, *overrides: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    short = list(QUICK) if card.quick else []
    common = [f"compute.device={card.device.type}", "logger=jsonl", *_small("data.bluemarble", card), *short]
    return _command(folder, "train", *common, *overrides, launcher=launcher)


def _done(process: subprocess.Popen[bytes], folder: Path) -> None:
    if process.wait(PATIENCE_S):
        raise RuntimeError(f"{process.args!r}: status {process.returncode}: {_log(folder)}")


def _log(folder: Path) -> str:
    return (folder / "log.txt").read_text(errors="replace")[-1500:]


def _run(folder: Path, name: str) -> Path:
    found = sorted((folder / "runs").glob(f"{name}-*"))
    if not found:
        raise RuntimeError(f"no run {name}: {_log(folder)}")
    return found[0]


def measure_accuracy(card: Card) -> None:
    """By split: mean and standard deviation over the seeds of `measure_runs`, in percent."""
    folder, seeds = _folder(card), _seeds(card)
    asked = [
        _command(
            folder, "evaluate", f"checkpoint={_run(folder, f'seed{seed}')}", f"benchmark={split}",
            f"device={card.device.type}",
        )
        for seed in seeds
        for split in _splits(card)
    ]  # fmt: skip
    for process in asked:
        _done(process, folder)
    for split in _splits(card):
        found = [json.loads((_run(folder, f"seed{seed}") / "eval" / f"{split}.json").read_text()) for seed in seeds]
        for km in ("1", "25", "200"):
            shares = [one["accuracy_percent"][km]["value"] for one in found]
            spread = statistics.stdev(shares) if len(shares) > 1 else 0.0
            card.report(
                GpuRow(
                    name=f"embedded default, {split}, within {km} km",
                    value=statistics.mean(shares),
                    unit="%",
                    note=f"seeds {', '.join(f'{share:.1f}' for share in shares)}; standard deviation {spread:.1f}",
                )
            )


def _killed_and_resumed(folder: Path, card: Card) -> None:
    """SIGKILL in the middle, the same command again, and the same run undisturbed: their last weights."""
    every = 2 if card.quick else 10
    common = ["compute.deterministic=true", f"compute.checkpoint_every_steps={every}", "seed=7", "name=killed",
              "compute.log_every_steps=1", _workers(card, 2),
              *([] if card.quick else [f"optim.max_steps={LAST_STEP}"])]  # fmt: skip
    through = _train(folder, card, *common, "runs_dir=through")
    process = _train(folder, card, *common)
    deadline_s = time.monotonic() + PATIENCE_S
    after = 2 if card.quick else KILLED_AFTER
    while process.poll() is None and time.monotonic() < deadline_s:
        metrics = sorted((folder / "runs").glob("killed-*/metrics.jsonl"))
        if metrics and metrics[0].read_text().count("\n") > after:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.02)
    killed = process.wait(PATIENCE_S) == -signal.SIGKILL
    _done(_train(folder, card, *common), folder)
    _done(through, folder)
    last = [sorted((folder / root).glob("killed-*/checkpoints/step*"))[-1] for root in ("runs", "through")]
    one, other = (read_checkpoint(path)["model"] for path in last)
    same = all(torch.equal(one[name], other[name]) for name in other)
    note = f"{last[0].name}; {'killed in the middle' if killed else 'ended before it was killed'}"
    card.report(
        GpuRow(
            name="a run killed and resumed, compute.deterministic=true: the same bits",
            value=float(same),
            unit="1: yes",
            note=note,
        )
    )


def measure_from_features(card: Card) -> None:
    """Extraction with a trained backbone, and a run from the features, kept on the device and recorded as a graph."""
    folder = _folder(card)
    frozen = ["encoder=resnet_tiny_frozen", f"encoder.repo={_run(folder, 'seed0')}"]
    small, device = _small("data.bluemarble", card), f"compute.device={card.device.type}"
    start_s = time.perf_counter()
    _done(_command(folder, "features", *frozen, *small, device, _workers(card, 12), "batch_size=512"), folder)
    extracted_s = time.perf_counter() - start_s
    features = next((folder / "features").glob("bluemarble-*"))
    start_s = time.perf_counter()
    longer = [] if card.quick else ["optim.epochs=10", "compute.log_every_steps=100"]
    here = [
        _workers(card, 4),
        f"encoder.features={features}",
        "compute.features_on_device=true",
        "name=features",
        *longer,
    ]
    _done(_train(folder, card, *frozen, *here), folder)
    trained_s = time.perf_counter() - start_s
    rows = [json.loads(line) for line in (_run(folder, "features") / "metrics.jsonl").read_text().splitlines()]
    speed = [row["samples_per_s"] for row in rows if "samples_per_s" in row]
    scores = [row["geoscore"] for row in rows if "geoscore" in row]
    card.report(
        GpuRow(name="python -m geoclip.features on the embedded default, train and val", value=extracted_s, unit="s")
    )
    card.report(
        GpuRow(
            name="python -m geoclip.train from these features, from command to end",
            value=trained_s,
            unit="s",
            note=f"{statistics.median(speed):,.0f} samples/s in the median record, batch and location encoder of "
            f"the embedded default; GeoScore on validation {scores[-1]:,.0f}",
        )
    )


def measure_two_ranks(card: Card) -> None:
    """Torchrun with two ranks on one card, over gloo: a smoke test beside one rank."""
    folder = _folder(card)
    steps = ["optim.max_steps=4"] if card.quick else ["optim.max_steps=20"]
    common = [*steps, "seed=9", _workers(card, 1), "compute.log_every_steps=4", "compute.precision=float32"]
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")
    two = _train(folder, card, *common, "name=two", launcher=launcher)
    for process in (_train(folder, card, *common, "name=one"), two):
        _done(process, folder)
    losses = []
    for name in ("two", "one"):
        lines = (_run(folder, name) / "metrics.jsonl").read_text().splitlines()
        losses.append([row["loss"] for row in map(json.loads, lines) if "loss" in row])
    apart = max(abs(two - one) / one for two, one in zip(*losses, strict=True))
    card.report(
        GpuRow(
            name="two ranks on one card over gloo: their losses beside one rank's",
            value=100 * apart,
            unit="% apart at most",
        )
    )
