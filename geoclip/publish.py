"""Publish: `python -m geoclip.publish checkpoint=runs/NAME repo=owner/name`. `--help` shows everything."""

from __future__ import annotations

import logging
from pathlib import Path

from omegaconf import DictConfig

from geoclip.cli.app import run_entry_point
from geoclip.config import PublishConfig, publish_problems, typed
from geoclip.system.console import setup_logging

log = logging.getLogger("geoclip")


def main(cfg: DictConfig) -> None:
    """Check the configuration, then publish."""
    config = typed(cfg, PublishConfig, publish_problems)
    setup_logging()
    publish(config)


def publish(config: PublishConfig) -> Path:
    """Write a model, its gallery and its card into a folder, and upload it to the Hub if `push` is true.

    Returns:
        The folder.

    Raises:
        GeoclipError: checkpoint, gallery or evaluations are missing, or the Hub is not reachable.
    """
    from geoclip.factory.publishing import results_of, write_card, write_model
    from geoclip.model.hub import send
    from geoclip.pretrained.resolver import resolve_run

    checkpoint = resolve_run(config.checkpoint, config.runs_dir)
    path, run = checkpoint.files[0], checkpoint.results
    folder = Path(config.output) if config.output else run / "release"
    results = results_of(run, path, force=config.force)
    written = write_model(folder, path, backbone=config.backbone)
    files = write_card(written, run, results, repo=config.repo, licence=config.licence)
    layout = "the authors' layout" if not written.misfits else "geoclip's own layout"
    log.info("written: %s, in %s%s", folder, layout, "".join(f"; {misfit}" for misfit in written.misfits))
    if not config.push:
        log.info("not uploaded; check %s, then add push=true", folder / "README.md")
        return folder
    address = send(folder, files, config.repo, private=config.private, message=f"{checkpoint.name}, {path.stem}")
    log.info("published: %s", address)
    return folder


if __name__ == "__main__":
    run_entry_point("publish", PublishConfig, main)
