"""A search."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True, slots=True)
class SearchConfig:
    """hydra.sweeper of a search: points of `params`, drawn by the tree of Parzen estimators of Optuna."""

    _target_: str = "hydra_plugins.geoclip_search.OptunaSearch"
    trials: int = 24  # in all, finished and failed ones included; more of them go on with the same search
    at_once: int = 1  # handed to the launcher together: hydra/launcher=joblib runs them side by side
    random_trials: int = 8  # the first ones are drawn at random
    seed: int = 0  # of the draws; trial n of a history is always the same
    params: dict[str, str] | None = None  # interval(a,b), tag(log,interval(a,b)), or choices
