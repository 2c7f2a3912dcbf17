"""hydra/sweeper=optuna. Hydra takes sweepers from this package alone; what this one does is geoclip/cli/search.py."""

from __future__ import annotations

from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class OptunaSearch(Sweeper):
    """Points of a sweep, each drawn with a view to how the earlier ones came out. Any launcher runs them."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """What Hydra knows by now."""
        self.config = config
        self.hydra_context = hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Go through the search."""
        from geoclip.cli.search import search

        assert self.config is not None and self.launcher is not None and self.hydra_context is not None
        search(self.config, self.hydra_context.config_loader, self.launcher, arguments, **self.settings)
