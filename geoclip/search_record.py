"""The record of a search: every point and how it came out, as SQLite (Optuna's), as JSON and as a picture."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from geoclip.run_dir import write_json
from geoclip.sweep_axes import Axis, Choice, override_of

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial


@dataclass(kw_only=True, slots=True)
class SearchRecord:
    """What is known of one space; its files are `stem`.db, .json and .png."""

    name: str
    stem: Path
    axes: list[Axis]
    fixed: list[str]  # overrides that all points share
    study: Study

    def trials(self) -> list[FrozenTrial]:
        """Every point so far, also those that failed or were cut short."""
        return self.study.get_trials(deepcopy=False)

    def cut_short(self) -> list[Trial]:
        """Points that an earlier start left behind: nobody else searches here."""
        from optuna.trial import Trial, TrialState

        return [Trial(self.study, trial._trial_id) for trial in self.trials() if trial.state is TrialState.RUNNING]

    def note(self, trial: Trial, geoscore: float | None, error: str) -> None:
        """How a point came out: its score, or what went wrong."""
        from optuna.trial import TrialState

        if geoscore is None:
            trial.set_user_attr("error", error)
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self.study.tell(trial, geoscore)

    def best(self) -> FrozenTrial | None:
        """The point with the highest score, the earliest of equals."""
        scored = [trial for trial in self.trials() if trial.value is not None]
        return max(scored, key=lambda trial: trial.value or 0.0, default=None)

    def overrides(self, trial: FrozenTrial) -> list[str]:
        """What tells a point from the others, as it stands on a command line."""
        return [override_of(axis, trial.params[axis.key]) for axis in self.axes if axis.key in trial.params]

    def command(self, trial: FrozenTrial) -> str:
        """What trains a point again, with other seeds."""
        grid = ["-m", *self.fixed, "hydra/sweeper=basic", "hydra.sweeper.params=null"]
        return shlex.join(["python", "-m", "geoclip.train", *grid, *self.overrides(trial), "seed=1,2,3"])

    def account(self) -> dict[str, Any]:
        """What the .json holds: every point with its score on the validation split, and the best one's command."""
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
        return {
            "name": self.name,
            "split": "val",
            "axes": [asdict(axis) for axis in self.axes],
            "trials": rows,
            "best": None if best is None else {**rows[best.number], "command": self.command(best)},
        }

    def write(self) -> dict[str, Any]:
        """Renew the .json; returns what it holds."""
        account = self.account()
        write_json(self.stem.with_name(f"{self.stem.name}.json"), account)
        return account


@contextmanager
def claimed_search(stem: Path) -> Iterator[None]:
    """While inside, no other process on this file system goes on with this search.

    Raises:
        SystemExit: one does.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{stem}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise SystemExit(f"geoclip: another process goes on with {stem}.db; wait for it") from None
    try:
        yield
    finally:
        lock.release()


def open_study(stem: Path) -> Study:
    """What is known of this space so far, in `stem`.db."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(f"sqlite:///{stem}.db")
    return optuna.create_study(storage=storage, study_name=stem.name, direction="maximize", load_if_exists=True)


def suggested(trial: Trial, axis: Axis) -> str | float:
    """The trial's value on an axis, drawn now unless it was drawn before."""
    if isinstance(axis, Choice):
        return str(trial.suggest_categorical(axis.key, axis.values))
    if axis.whole:
        return trial.suggest_int(axis.key, int(axis.low), int(axis.high), log=axis.log)
    return trial.suggest_float(axis.key, axis.low, axis.high, log=axis.log)
