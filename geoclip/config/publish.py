"""A trained model, put together for others."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True, slots=True)
class PublishConfig:
    """One model, its gallery and its card."""

    checkpoint: str = "latest"  # a run's folder or checkpoint, or `latest`
    runs_dir: str = "runs"
    repo: str = ""  # owner/name on the Hugging Face Hub
    output: str = ""  # folder; empty: release/ in the run's folder
    push: bool = False  # false: nothing leaves this machine
    private: bool = True  # of a new repository
    licence: str = ""  # of the weights, as the Hub names licences: mit, cc-by-nc-4.0, …
    backbone: str = ""  # Hub id of a frozen CLIP that encoder.repo gave as a folder
    force: bool = False  # without one evaluation
