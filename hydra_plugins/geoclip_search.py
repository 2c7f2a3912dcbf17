"""hydra/sweeper=optuna, for geoclip/cli/search.py: Hydra finds sweepers only in this package."""

from __future__ import annotations

from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class OptunaSearch(Sweeper):
    """A sweep whose points are drawn by the results of earlier ones; any launcher runs them."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep Hydra's configuration and create the launcher."""
        self.config = config
        self.hydra_context = hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the search."""
        from geoclip.cli.search import search

        assert self.config is not None and self.launcher is not None and self.hydra_context is not None
        search(self.config, self.hydra_context.config_loader, self.launcher, arguments, **self.settings)
