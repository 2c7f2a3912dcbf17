"""A study as a sweep file for wandb: `python -m geoclip.sweep_file study=scales`. `--help` shows everything."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from geoclip.config import ConfigError, SweepFileConfig, TrainConfig, sweep_file_problems, typed
from geoclip.console import setup_logging
from geoclip.entry import composition_sentence, run_entry_point
from geoclip.sweep_axes import Axis, Choice, axes_of, corners, problems_of

log = logging.getLogger("geoclip")


def main(cfg: DictConfig) -> None:
    """Write the file."""
    config = typed(cfg, SweepFileConfig, sweep_file_problems)
    setup_logging()
    try:
        write_sweep_file(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError([composition_sentence(error, TrainConfig)]) from None


def write_sweep_file(config: SweepFileConfig) -> dict[str, Any]:
    """Write `output`; returns what it holds.

    Raises:
        HydraException: the study, a key or a value is none of geoclip.train's.
        ConfigError: nothing varies, or an interval is none.
    """
    import yaml
    from hydra import compose

    from geoclip.run_dir import write_text

    said = [f"+experiment={config.study}", *config.overrides]
    _, shared = axes_of(None, said)
    composed = compose("train", shared, return_hydra_config=True)
    sweeper = composed.hydra.sweeper
    axes, fixed = axes_of(sweeper.params, said)
    problems = problems_of(axes)
    if not axes:
        problems.append(f"conf/experiment/{config.study}.yaml has no hydra.sweeper.params: nothing varies")
    if problems:
        raise ConfigError(problems)
    for corner in corners(axes):  # a key that is none ends here, not in the agent
        compose("train", [*fixed, *corner])
    sweep = wandb_sweep(
        composed.name, axes, fixed, project=config.project, points=sweeper.get("trials") or None
    )
    path = Path(config.output)
    head = f"# wandb sweep {path.name} && wandb agent ENTITY/{config.project}/SWEEP     as many agents as you like\n"
    write_text(path, head + yaml.safe_dump(sweep, sort_keys=False))
    log.info("written: %s, %s over %s", path, sweep["method"], ", ".join(sweep["parameters"]))
    log.info("go on with: wandb sweep %s", path)
    return sweep


def wandb_sweep(
    name: str, axes: Sequence[Axis], fixed: Sequence[str], *, project: str, points: int | None
) -> dict[str, Any]:
    """A sweep in wandb's words: a grid over choices, a Bayesian search as soon as there is an interval.

    Args:
        name: of the sweep.
        axes: what varies.
        fixed: overrides that all points share.
        project: of wandb.
        points: how many a search has in all; None for a grid.

    Source: docs.wandb.ai, "Define sweep configuration".
    """
    grid = points is None and all(isinstance(axis, Choice) for axis in axes)
    sweep: dict[str, Any] = {
        "name": name,
        "project": project,
        "program": "geoclip/train.py",
        "method": "grid" if grid else "bayes",
        "metric": {"name": "val/geoscore", "goal": "maximize"},
        "parameters": {axis.key: _parameter(axis) for axis in axes},
        # An agent's process has no terminal's shell: each argument arrives as it stands here.
        "command": [
            *("${env}", "${interpreter}", "-m", "geoclip.train", *fixed, "hydra.mode=RUN"),
            "${args_no_hyphens}",
        ],
    }
    return sweep if points is None else sweep | {"run_cap": points}


def _parameter(axis: Axis) -> dict[str, Any]:
    if isinstance(axis, Choice):
        return {"values": [_value(value) for value in axis.values]}
    if axis.whole and axis.log:
        return {"distribution": "q_log_uniform_values", "min": axis.low, "max": axis.high, "q": 1}
    if axis.whole:
        return {"distribution": "int_uniform", "min": axis.low, "max": axis.high}
    kind = "log_uniform_values" if axis.log else "uniform"
    return {"distribution": kind, "min": axis.low, "max": axis.high}


def _value(said: str) -> int | float | str:
    """Numbers as numbers, so that wandb can draw them; all else, lists too, as it stands on a command line."""
    for kind in (int, float):
        try:
            value = kind(said)
        except ValueError:
            continue
        if math.isfinite(value):
            return value
    return said


if __name__ == "__main__":
    run_entry_point("sweep_file", SweepFileConfig, main)
