"""Checks before training: read data, build models, compare, and list every problem.

`check_only=true` prints the result; a sweep checks all of its points before the first one trains.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from geoclip.config import DataKind, GalleryKind, LossKind, TrainConfig
from geoclip.data.features import read_record
from geoclip.data.shards import fingerprint
from geoclip.distributed import World, device_problem
from geoclip.errors import GeoclipError, memory_problem
from geoclip.factory.data import build_gallery, build_stream_plan, open_shards, require_features_of
from geoclip.factory.model import build_image_encoder, build_location_encoder
from geoclip.factory.training import build_queue, build_recipe, named_checkpoint, require_negatives
from geoclip.prepare.shard_building import is_built
from geoclip.runs.run_dir import fingerprint_of, is_finished, run_path, to_dict

log = logging.getLogger("geoclip")

T = TypeVar("T")
CPU = torch.device("cpu")
ELSEWHERE = "on a machine that only checks or launches runs, add compute.device=auto"


@dataclass(kw_only=True, slots=True)
class Findings:
    """Facts and problems of a run before training."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    run: Path | None = None  # None: depends on data that are not built yet
    finished: bool = False
    samples: int = 0  # per epoch
    validation: int = 0
    gallery: int = 0
    steps: int = 0
    trained: int = 0  # parameters that are trained
    parameters: int = 0
    device: str = ""

    def lines(self) -> list[str]:
        """Lines to print."""
        state = ", finished" if self.finished else ""
        known = [
            f"run: {self.run or 'its folder depends on data that are not built yet'}{state}",
            f"samples: {self.samples:,} for training, {self.validation:,} for validation" if self.samples else "",
            f"gallery: {self.gallery:,} coordinates" if self.gallery else "",
            f"steps: {self.steps:,}" if self.steps else "",
            f"parameters: {self.trained:,} trained of {self.parameters:,}",
            f"device: {self.device}",
        ]
        return [line for line in known if line] + [f"note: {note}" for note in self.notes]


class Preflight:
    """Checks runs; data and models that several runs share are read and built once."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}

    def look_at(self, config: TrainConfig, *, here: bool) -> Findings:
        """Every problem that this run would have before its first step.

        Args:
            config: with valid values.
            here: whether it trains on this machine, which then needs its device.
        """
        found = Findings(device=config.compute.device)
        if missing := device_problem(config.compute.device):
            (found.problems if here else found.notes).append(f"{missing}; {ELSEWHERE}")
        elif config.compute.device == "auto":
            found.device = "cuda" if torch.cuda.is_available() else "cpu"
        if unwritable := folder_problem(Path(config.runs_dir)):
            found.problems.append(f"runs_dir={config.runs_dir}: {unwritable}")
        found.trained, found.parameters = self._try(found, lambda: self._parameters(config)) or (0, 0)
        gallery = self._try(found, lambda: self._gallery(config))
        if gallery:
            found.gallery = len(gallery.gps_deg_G2)
        files = self._try(found, lambda: self._data(config, found))
        if files and gallery:
            files |= {"gallery": gallery.sha256[:8]}
            found.run = run_path(to_dict(config), files)
            found.finished = is_finished(found.run)
            self._try(found, lambda: named_checkpoint(config, files))
        return found

    def _data(self, config: TrainConfig, found: Findings) -> dict[str, str] | None:
        """Fingerprints of the shards; None if training builds them first."""
        data, encoder = config.data, config.encoder
        if data.kind is DataKind.bluemarble and not is_built(
            Path(data.root), to_dict(data.bluemarble), overwrite=False
        ):
            found.notes.append(
                f"data.root={data.root} is not built, so its samples are not checked: training builds it first, in "
                f"a few minutes; python -m geoclip.shards root={data.root} builds it now"
            )
            if encoder.features:
                require_features_of(data, encoder)
            return None
        alone = World(rank=0, size=1, device=CPU)
        splits = self._once(lambda: open_shards(data, encoder, alone), "shards", to_dict(data), to_dict(encoder))
        plan = build_stream_plan(config, splits["train"])
        found.samples = plan.samples
        found.validation = min(sum(one.samples for one in splits["val"]), config.validate_samples)
        found.steps = build_recipe(config, plan.samples, CPU).last_step
        build_queue(config.queue, plan.subset, config.seed)
        require_negatives(config, plan.subset)
        files = {"shards": fingerprint(splits["train"])}
        if encoder.features:
            files["features"] = fingerprint_of(read_record(Path(encoder.features)))
        return files

    def _gallery(self, config: TrainConfig) -> Any:
        gallery = config.gallery
        path, with_views = Path(gallery.path), config.data.kind is DataKind.bluemarble
        is_built = gallery.kind is GalleryKind.file and with_views and path.is_relative_to(config.data.root)
        if is_built and not path.is_file():
            return None
        return self._once(lambda: build_gallery(gallery), "gallery", to_dict(gallery))

    def _parameters(self, config: TrainConfig) -> tuple[int, int]:
        """Trained and all parameters. Reads pretrained weights, so that missing ones are found."""
        encoder, location, loss = config.encoder, config.location, config.loss
        width = location.embedding_dim
        parts = [
            self._once(lambda: _count(build_image_encoder(encoder, width)), "image", to_dict(encoder), width),
            self._once(lambda: _count(build_location_encoder(location)), "location", to_dict(location)),
            (int(loss.learn_temperature), 1),
            (int(loss.kind is LossKind.sigmoid),) * 2,
        ]
        return sum(trained for trained, _ in parts), sum(every for _, every in parts)

    def _once(self, make: Callable[[], T], *key: Any) -> T:
        """The result or error of `make`, computed once per key."""
        name = json.dumps(key)
        if name not in self._known:
            try:
                self._known[name] = make()
            except GeoclipError as error:
                self._known[name] = error
        if isinstance(self._known[name], GeoclipError):
            raise self._known[name]
        known: T = self._known[name]
        return known

    @staticmethod
    def _try(found: Findings, look: Callable[[], T]) -> T | None:
        try:
            return look()
        except GeoclipError as error:
            found.problems.append(str(error))
        except OSError as error:
            found.problems.append(f"{error.filename or 'a file'}: {error.strerror or error}")
        except (MemoryError, RuntimeError) as error:
            if not (problem := memory_problem(error)):
                raise
            found.problems.append(problem)
        return None


def _count(module: torch.nn.Module) -> tuple[int, int]:
    every = [(one.numel(), one.requires_grad) for one in module.parameters()]
    return sum(size for size, trained in every if trained), sum(size for size, _ in every)


def folder_problem(folder: Path) -> str:
    """Why nothing can be written below this folder, which may not exist yet; empty when it can."""
    existing = folder.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        return f"{existing} is a file, not a folder"
    return "" if os.access(existing, os.W_OK | os.X_OK) else f"{existing} cannot be written"
