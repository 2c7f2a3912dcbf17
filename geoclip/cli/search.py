"""A search: Optuna draws each point by the results of earlier ones on the validation split."""

from __future__ import annotations

import importlib.util
import logging
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from geoclip.cli.sweep import (
    Axis,
    Choice,
    axes_of,
    compose_point,
    corners,
    described,
    override_of,
    problems_of,
    trains_here,
)
from geoclip.config import ConfigError, TrainConfig, train_problems
from geoclip.runs.run_dir import config_for_hash, fingerprint_of, to_dict, write_json
from geoclip.system.console import setup_logging
from geoclip.system.processes import locked_or

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

log = logging.getLogger("geoclip")

MAX_FAILURES = 3  # without a success: the error is in something that all points share


@dataclass(kw_only=True, slots=True)
class SearchRecord:
    """The results of one search; its files are `stem`.db, .json and .png."""

    name: str
    stem: Path
    axes: list[Axis]
    fixed: list[str]  # overrides of all points
    study: Study

    def trials(self) -> list[FrozenTrial]:
        """Every point so far, failed and interrupted ones too."""
        return self.study.get_trials(deepcopy=False)

    def interrupted(self) -> list[Trial]:
        """Points that an earlier start did not finish."""
        from optuna.trial import Trial, TrialState

        return [Trial(self.study, trial._trial_id) for trial in self.trials() if trial.state is TrialState.RUNNING]

    def best(self) -> FrozenTrial | None:
        """The point with the highest score, the earliest if several have it."""
        scored = [trial for trial in self.trials() if trial.value is not None]
        return max(scored, key=lambda trial: trial.value or 0.0, default=None)

    def overrides(self, trial: FrozenTrial) -> list[str]:
        """The overrides of a point that distinguish it."""
        return [override_of(axis, trial.params[axis.key]) for axis in self.axes if axis.key in trial.params]

    def command(self, trial: FrozenTrial) -> str:
        """The command that trains a point with other seeds."""
        grid = ["-m", *self.fixed, "hydra/sweeper=basic", "hydra.sweeper.params=null"]
        return shlex.join(["python", "-m", "geoclip.train", *grid, *self.overrides(trial), "seed=1,2,3"])

    def write(self) -> dict[str, Any]:
        """Write the .json: every point with its score, and the best point's command. Returns its contents."""
        rows = [
            {
                "number": trial.number,
                "state": trial.state.name.lower(),
                "geoscore": trial.value,
                "error": trial.user_attrs.get("error"),
                "values": trial.params,
                "overrides": self.overrides(trial),
            }
            for trial in self.trials()
        ]
        best = self.best()
        account = {
            "name": self.name,
            "split": "val",
            "axes": [asdict(axis) for axis in self.axes],
            "trials": rows,
            "best": None if best is None else {**rows[best.number], "command": self.command(best)},
        }
        write_json(self.stem.with_name(f"{self.stem.name}.json"), account)
        return account


def open_study(stem: Path) -> Study:
    """Optuna's study in `stem`.db, new or continued."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(f"sqlite:///{stem}.db")
    return optuna.create_study(storage=storage, study_name=stem.name, direction="maximize", load_if_exists=True)


def suggested(trial: Trial, axis: Axis) -> str | float:
    """The trial's value on an axis, drawn unless it was drawn before."""
    if isinstance(axis, Choice):
        return str(trial.suggest_categorical(axis.key, axis.values))
    if axis.whole:
        return trial.suggest_int(axis.key, int(axis.low), int(axis.high), log=axis.log)
    return trial.suggest_float(axis.key, axis.low, axis.high, log=axis.log)


def search(
    config: DictConfig,
    loader: ConfigLoader,
    launcher: Launcher,
    arguments: Sequence[str],
    *,
    trials: int,
    at_once: int,
    random_trials: int,
    seed: int,
    params: Mapping[str, str] | None,
) -> None:
    """Run the missing points and log the best one.

    Args:
        config: Hydra's configuration of the sweep.
        loader: composes a point.
        launcher: runs points; each returns its GeoScore on the validation split.
        arguments: the command line.
        trials: number of points, those of earlier starts included.
        at_once: points per call of the launcher.
        random_trials: points that are drawn at random, before results count.
        seed: of the draws.
        params: the axes.

    Raises:
        ConfigError: Optuna is missing, or no point can run.
        SystemExit: another process runs this search, or all points fail; with status 0 for check_only=true.
    """
    axes, fixed = axes_of(params, arguments)
    _refuse_early(axes, trials, at_once)
    first = _checked_corners(config, loader, axes, fixed)
    facts = [[asdict(axis) for axis in axes], config_for_hash(to_dict(first), {}), seed, random_trials]
    stem = Path(first.runs_dir, ".search", f"{first.name}-{fingerprint_of(facts)}")
    if first.check_only:
        print(
            f"{first.name}: {trials} points, in {stem}.db", *(f"  {described(axis)}" for axis in axes), "OK", sep="\n"
        )
        raise SystemExit(0)
    setup_logging()
    refusal = SystemExit(f"geoclip: another process searches in {stem}.db; wait for it")
    with locked_or(refusal, Path(f"{stem}.lock")):
        record = SearchRecord(name=first.name, stem=stem, axes=axes, fixed=fixed, study=open_study(stem))
        Search(
            record=record, config=config, loader=loader, launcher=launcher,
            trials=trials, at_once=at_once, random_trials=random_trials, seed=seed,
        ).run()  # fmt: skip
        _close(record)


def _refuse_early(axes: Sequence[Axis], trials: int, at_once: int) -> None:
    problems = problems_of(axes)
    if not axes:
        problems.append("there is nothing to search: set hydra.sweeper.params, or key=interval(low,high) with -m")
    for key, value in (("trials", trials), ("at_once", at_once)):
        if value < 1:
            problems.append(f"hydra.sweeper.{key}={value} must be 1 or more")
    if importlib.util.find_spec("optuna") is None:
        problems.append(
            "hydra/sweeper=optuna needs a library that is not installed: pip install -c constraints.txt -e '.[sweeps]'"
        )
    if os.environ.get("WORLD_SIZE", "1") != "1":
        problems.append(
            "a search is launched by one process, not by torchrun; "
            "hydra/launcher=submitit_slurm starts many ranks for each point"
        )
    if problems:
        raise ConfigError(problems)


def _composed(
    config: DictConfig, loader: ConfigLoader, overrides: Sequence[str]
) -> tuple[TrainConfig | None, list[str]]:
    """A point, or None and its problems."""
    try:
        return compose_point(loader, config, overrides, lambda found: train_problems(found, 1)), []
    except ConfigError as error:
        return None, error.problems


def _checked_corners(
    config: DictConfig, loader: ConfigLoader, axes: Sequence[Axis], fixed: Sequence[str]
) -> TrainConfig:
    """The first corner of the space that can run.

    Raises:
        ConfigError: no corner can run.
    """
    found = [_composed(config, loader, [*fixed, *corner]) for corner in corners(axes)]
    valid = [corner for corner, _ in found if corner is not None]
    if not valid:
        raise ConfigError(list(dict.fromkeys(problem for _, problems in found for problem in problems)))
    from geoclip.cli.preflight import Preflight

    preflight, problems = Preflight(), list[str]()
    for corner in valid:
        problems = preflight.look_at(corner, here=trains_here(config)).problems
        if not problems:
            return corner
    raise ConfigError(problems)


@dataclass(kw_only=True, slots=True)
class Search:
    """One start of a search."""

    record: SearchRecord
    config: DictConfig
    loader: ConfigLoader
    launcher: Launcher
    trials: int
    at_once: int
    random_trials: int
    seed: int
    started_s: float = field(default_factory=time.monotonic)
    drawn: int = 0  # points of this start
    launched: int = 0  # points of these that could run
    scored: int = 0

    def run(self) -> None:
        """Resume interrupted points from their checkpoints, then run new ones up to `trials`."""
        record, left = self.record, self.record.interrupted()
        missing = max(0, self.trials - len(record.trials())) + len(left)
        log.info("%s: %d points, %d to run, in %s.db", record.name, self.trials, missing, record.stem)
        while True:
            batch, left = left[: self.at_once], left[self.at_once :]
            while len(batch) < self.at_once and len(record.trials()) < self.trials:
                batch.append(record.study.ask())
            if not batch:
                return
            self._launch(batch)
            missing -= len(batch)
            record.write()
            log.info("%s", self._progress(missing))

    def _launch(self, batch: Sequence[Trial]) -> None:
        """Draw, run and record some points."""
        first, drawn = self.drawn, []
        self.drawn += len(batch)
        for trial in batch:
            point = [*self.record.fixed, *self._draw(trial)]
            _, problems = _composed(self.config, self.loader, point)
            if problems:
                self._note(trial, None, "; ".join(problems))
            else:
                drawn.append((trial, point))
        ended = self.launcher.launch([point for _, point in drawn], first) if drawn else []
        for (trial, _), job in zip(drawn, ended, strict=True):
            self._note(trial, *_outcome(job))
        self.launched += len(drawn)
        if self.launched >= MAX_FAILURES and not self.scored:
            raise SystemExit(f"geoclip: the first {self.launched} points all failed, see above")

    def _draw(self, trial: Trial) -> list[str]:
        """The point's overrides, drawn unless the record has them."""
        from optuna.samplers import TPESampler

        # One generator per point: a search that was killed draws the same points as one that was not.
        self.record.study.sampler = TPESampler(
            seed=self.seed * 100_003 + trial.number, n_startup_trials=self.random_trials
        )
        return [override_of(axis, suggested(trial, axis)) for axis in self.record.axes]

    def _note(self, trial: Trial, geoscore: float | None, error: str) -> None:
        from optuna.trial import TrialState

        if geoscore is None:
            trial.set_user_attr("error", error)
            self.record.study.tell(trial, state=TrialState.FAIL)
            log.warning("point %d failed: %s", trial.number, error)
        else:
            self.record.study.tell(trial, geoscore)
            self.scored += 1

    def _progress(self, missing: int) -> str:
        from tqdm import tqdm

        passed_s = time.monotonic() - self.started_s
        left_s = passed_s / self.drawn * missing
        best, clock, ended = self.record.best(), tqdm.format_interval, len(self.record.trials())
        so_far = f"; best {best.value:,.0f} by {' '.join(self.record.overrides(best))}" if best else ""
        return (
            f"{self.record.name}: {ended} of {ended + missing} points in {clock(passed_s)}, "
            f"about {clock(left_s)} left{so_far}"
        )


def _outcome(job: JobReturn) -> tuple[float | None, str]:
    """GeoScore, or None and the error. A stopped point raises PointEnded; the next start of the search resumes it."""
    value = job._return_value
    if job.status is JobStatus.COMPLETED:
        return (float(value), "") if isinstance(value, int | float) else (None, f"{value} is not a GeoScore")
    if isinstance(value, Exception) and value.args and isinstance(value.args[0], int):
        raise value
    return None, (str(value).splitlines() or [repr(value)])[0].removeprefix("geoclip: ")


def _close(record: SearchRecord) -> None:
    """Write the figure; log the best point's command."""
    from geoclip.studies.figures import draw_search

    account = record.write()
    states = [row["state"] for row in account["trials"]]
    finished, failed = states.count("complete"), states.count("fail")
    log.info("%s: %d points, %d finished, %d failed", record.name, len(states), finished, failed)
    if account["best"] is None:
        raise SystemExit(f"geoclip: no point of {record.stem}.db was finished")
    draw_search(account, record.stem.with_name(f"{record.stem.name}.png"))
    log.info("written: %s.json and .png", record.stem)
    best = account["best"]
    log.info("best: GeoScore %.0f on val; with other seeds:\n  %s", best["geoscore"], best["command"])
