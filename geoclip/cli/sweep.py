"""Sweeps: check all points before the first starts, log progress, summarise at the end; the axes of a search.

Hydra calls `SweepWatch`: at the start in the launching process, at each point's end in the process that ran it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict

from geoclip.config import ConfigError, TrainConfig, train_problems, typed
from geoclip.errors import DataError, GeoclipError
from geoclip.runs.run_dir import config_for_hash, fingerprint_of, is_finished, read_yaml, to_dict, write_json
from geoclip.system.console import setup_logging

if TYPE_CHECKING:
    from geoclip.cli.preflight import Findings


@dataclass(kw_only=True, slots=True, frozen=True)
class Choice:
    """One of these values, as written on a command line: `1e-3`, `[1,16]`, `small`."""

    key: str
    values: tuple[str, ...]


@dataclass(kw_only=True, slots=True, frozen=True)
class Interval:
    """A number between two others, both inclusive."""

    key: str
    low: float
    high: float
    log: bool  # uniform in the logarithm
    whole: bool  # int(interval(2,6)): integers only


Axis = Choice | Interval


def axes_of(params: Mapping[str, str] | None, arguments: Iterable[str]) -> tuple[list[Axis], list[str]]:
    """The axes of a search, and the overrides that all points share.

    Args:
        params: hydra.sweeper.params of an experiment.
        arguments: the command line, which overrides `params`.
    """
    overrides = [*(f"{key}={value}" for key, value in (params or {}).items()), *arguments]
    axes: dict[str, Axis] = {}
    fixed: dict[str, str] = {}
    for override in OverridesParser.create().parse_overrides(overrides):
        key = override.get_key_element()
        axes.pop(key, None)
        fixed.pop(key, None)
        value = override.value()
        if isinstance(value, IntervalSweep):
            low, high = value.start, value.end
            assert low is not None and high is not None
            whole = isinstance(low, int) and isinstance(high, int)
            axes[key] = Interval(key=key, low=low, high=high, log="log" in value.tags, whole=whole)
        elif override.is_sweep_override():
            axes[key] = Choice(key=key, values=tuple(override.sweep_string_iterator()))
        else:
            fixed[key] = (
                override.input_line or "" if override.is_delete() else f"{key}={override.get_value_element_as_str()}"
            )
    return list(axes.values()), list(fixed.values())


def override_of(axis: Axis, value: str | float) -> str:
    """`key=value`, with six digits of a float."""
    return f"{axis.key}={value:.6g}" if isinstance(value, float) else f"{axis.key}={value}"


def described(axis: Axis) -> str:
    """An axis in words."""
    if isinstance(axis, Choice):
        return f"{axis.key}: {', '.join(axis.values)}"
    kind = f"{', integers' if axis.whole else ''}{', uniform in the logarithm' if axis.log else ''}"
    return f"{axis.key}: {axis.low:g} to {axis.high:g}{kind}"


def ends(axis: Axis) -> tuple[str, ...]:
    """Every choice; or both ends of an interval and a fraction between them, which is invalid for an integer key."""
    if isinstance(axis, Choice):
        return tuple(override_of(axis, value) for value in axis.values)
    between = () if axis.whole else (axis.low + 0.618 * (axis.high - axis.low),)
    return tuple(override_of(axis, value) for value in (axis.low, *between, axis.high))


def problems_of(axes: Iterable[Axis]) -> list[str]:
    """Invalid intervals."""
    spans = [axis for axis in axes if isinstance(axis, Interval)]
    return [
        f"{axis.key}: {axis.low:g} to {axis.high:g} is not an interval"
        + ("; on a logarithmic axis both ends are above 0" if axis.log else "; the lower end comes first")
        for axis in spans
        if axis.low >= axis.high or (axis.log and axis.low <= 0)
    ]


def corners(axes: Iterable[Axis]) -> Iterator[list[str]]:
    """The first value of every axis; then every other end, one axis at a time."""
    all_ends = [ends(axis) for axis in axes]
    first = [values[0] for values in all_ends]
    yield first
    for number, values in enumerate(all_ends):
        for value in values[1:]:
            yield [*first[:number], value, *first[number + 1 :]]


log = logging.getLogger("geoclip")

POLL_S = 1.0


@dataclass(kw_only=True, slots=True, frozen=True)
class Point:
    """One run of a sweep."""

    overrides: tuple[str, ...]
    config: TrainConfig


class SweepWatch(Callback):
    """Hydra's callback. It is pickled to the processes that run points, so it has no state."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Compose and check every point of a grid; the points of a search are not known yet.

        Raises:
            ConfigError: some points cannot run; all problems are listed.
            SystemExit: with status 0 after the list of points, for check_only=true.
        """
        if os.environ.get("RANK", "0") != "0" or not config.hydra.sweeper._target_.endswith("BasicSweeper"):
            return
        try:
            points = grid(config)
        except HydraException as error:  # Hydra would print it as a warning, and start
            raise ConfigError([" ".join(str(error).split())]) from None
        names = {(point.config.runs_dir, point.config.name) for point in points}
        done = set().union(*(finished_configs(Path(runs), name) for runs, name in names))
        is_done = [fingerprint_of(config_for_hash(to_dict(point.config), {})) in done for point in points]
        finished, name = sum(is_done), points[0].config.name
        findings = look_at_points(points, is_done, here=trains_here(config))
        listed = f"{name}: {len(points)} points, {finished} finished, {len(points) - finished} to run"
        if points[0].config.check_only:
            rows = (
                f"  {'finished' if end else 'to run  '}  {point}"
                for point, end in zip(swept(points), is_done, strict=True)
            )
            first = next((one for one in findings if one is not None), None)
            summary = ["of the first to run:", *(f"  {line}" for line in first.lines())] if first else []
            print("\n".join([listed, *rows, *summary, "OK"]), flush=True)
            raise SystemExit(0)
        setup_logging()
        log.info("%s", listed)
        _Progress.start(_folder(config), points, finished)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Write the result of a point to a file, for the launching process."""
        if config.hydra.mode is None or config.hydra.mode.name != "MULTIRUN":
            return
        error = job_return._return_value if job_return.status is JobStatus.FAILED else None
        if error is not None and not isinstance(error, GeoclipError) and type(error).__name__ != "PointEnded":
            log.error("this point failed", exc_info=error)
        message = str(error).splitlines()[0] if error is not None and str(error) else repr(error)
        write_json(
            _folder(config) / f"{int(config.hydra.job.num):05d}.json",
            {
                "point": int(config.hydra.job.num),
                "error": None if error is None else message,
                "value": None if error is not None else job_return.return_value,
            },
        )


def _folder(config: DictConfig) -> Path:
    return Path(config.hydra.sweep.dir) / str(config.name)


def trains_here(config: DictConfig) -> bool:
    """Whether a multirun's points train on this machine: false for jobs of Slurm."""
    return not config.hydra.launcher._target_.rpartition(".")[2].startswith("Slurm")


def grid(config: DictConfig) -> list[Point]:
    """Every point of Hydra's own sweeper, composed and checked.

    Raises:
        ConfigError: some points cannot run.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    loader = hydra.config_loader
    params = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    parsed = OverridesParser.create(config_loader=loader).parse_overrides([*params, *config.hydra.overrides.task])
    (batch,) = BasicSweeper.split_arguments(parsed, None)
    points, problems = [], []
    size = int(os.environ.get("WORLD_SIZE", "1"))
    for overrides in batch:
        try:
            checked = compose_point(loader, config, overrides, lambda found: train_problems(found, size))
        except ConfigError as error:
            problems += [f"{' '.join(_varying(overrides, batch))}: {problem}" for problem in error.problems]
        else:
            points.append(Point(overrides=tuple(overrides), config=checked))
    if problems:
        raise ConfigError(problems, f"{len(batch)} points, of which some cannot run; none was started")
    return points


def compose_point(
    loader: ConfigLoader,
    config: DictConfig,
    overrides: Sequence[str],
    problems: Callable[[TrainConfig], list[str]] = lambda _: [],
) -> TrainConfig:
    """A point of the sweep that Hydra composed `config` for; a ConfigError lists its problems."""
    composed = loader.load_sweep_config(config, list(overrides))
    with open_dict(composed):
        del composed["hydra"]
    return typed(composed, TrainConfig, problems)


def look_at_points(points: Sequence[Point], is_done: Sequence[bool], *, here: bool) -> list[Findings | None]:
    """The findings of each point that must still run; None for finished ones.

    Raises:
        ConfigError: some points cannot run.
    """
    from geoclip.cli.preflight import Preflight

    setup_logging()
    preflight, problems = Preflight(), list[str]()
    found = [
        None if done else preflight.look_at(point.config, here=here)
        for point, done in zip(points, is_done, strict=True)
    ]
    for point, one in zip(swept(points), found, strict=True):
        problems += [f"{point}: {problem}" for problem in (one.problems if one else [])]
    problems = problems or _same_runs(points, found)
    if problems:
        raise ConfigError(problems, f"{len(points)} points, of which some cannot run; none was started")
    return found


def _same_runs(points: Sequence[Point], found: Sequence[Findings | None]) -> list[str]:
    """A problem for each run that several points share: they differ only in keys outside of the run's identity."""
    by_run: dict[Path, list[str]] = {}
    for point, one in zip(swept(points), found, strict=True):
        if one is not None and one.run is not None:
            by_run.setdefault(one.run, []).append(point)
    return [
        f"{' and '.join(same)} are the same run, {run}: compute and logger do not decide a run's folder; "
        "add name=, or start them one by one"
        for run, same in by_run.items()
        if len(same) > 1
    ]


def swept(points: Sequence[Point]) -> list[str]:
    """The overrides that distinguish each point."""
    batch = [point.overrides for point in points]
    return [" ".join(_varying(overrides, batch)) for overrides in batch]


def _varying(overrides: Sequence[str], batch: Sequence[Sequence[str]]) -> list[str]:
    common = set(batch[0]).intersection(*batch)
    return [override for override in overrides if override not in common]


def finished_configs(runs_dir: Path, name: str) -> set[str]:
    """Fingerprints of the configurations of finished runs with this name, without their files."""
    found = set()
    for path in runs_dir.glob(f"{name}-*/config.yaml"):
        with suppress(DataError, KeyError, TypeError):  # of another program
            if is_finished(path.parent):
                found.add(fingerprint_of(config_for_hash(read_yaml(path), {})))
    return found


class _Progress:
    """Progress and results of the sweep that this process launched."""

    current: _Progress | None = None

    def __init__(self, folder: Path, points: Sequence[Point], done: int) -> None:
        self.folder, self.points, self.done = folder, points, done
        self.ended = threading.Event()
        self.started_s = time.monotonic()
        self.thread = threading.Thread(target=self._watch, daemon=True, name="sweep")

    @classmethod
    def start(cls, folder: Path, points: Sequence[Point], done: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        cls.current = cls(folder, points, done)
        cls.current.thread.start()

    def _watch(self) -> None:
        """Log a line whenever a point has ended."""
        logged = 0
        while not self.ended.wait(POLL_S):
            ended = len(list(self.folder.glob("*.json")))
            if ended > logged:
                logged = ended
                log.info("%s", self._progress(ended))

    def _progress(self, ended: int) -> str:
        from tqdm import tqdm

        passed_s = time.monotonic() - self.started_s
        run = max(1, ended - self.done)  # points that were finished before end at once
        left_s = passed_s / run * (len(self.points) - ended)
        clock = tqdm.format_interval
        name = self.points[0].config.name
        return f"{name}: {ended} of {len(self.points)} points in {clock(passed_s)}, about {clock(left_s)} left"

    def close(self) -> None:
        """Log which points failed."""
        self.ended.set()
        self.thread.join(timeout=10 * POLL_S)  # a slow disk, at most
        ended = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(self.folder.glob("*.json"))]
        failed = [point for point in ended if point["error"]]
        missing = len(self.points) - len(ended)
        log.info(
            "%s: %d points, %d finished, %d failed%s",
            self.points[0].config.name,
            len(self.points),
            len(ended) - len(failed),
            len(failed),
            f", {missing} not started or not ended" if missing else "",
        )
        names = swept(self.points)
        for point in failed:
            log.info("  failed: %s: %s", names[point["point"]], point["error"])
        if failed or missing:
            log.info("rerunning the command runs only the missing points")


def end_sweep() -> None:
    """Log the summary of the sweep, if this process launched one."""
    if _Progress.current:
        _Progress.current.close()
        _Progress.current = None
