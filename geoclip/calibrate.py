"""Calibrate: `python -m geoclip.calibrate checkpoint=…`; `--help` explains every key."""

from __future__ import annotations

import logging
from pathlib import Path

from omegaconf import DictConfig

from geoclip.cli.app import run_entry_point, typed_beside_run
from geoclip.config import CalibrateConfig, calibrate_problems
from geoclip.system.console import setup_logging

log = logging.getLogger("geoclip")


def main(cfg: DictConfig) -> None:
    """Check the configuration, then calibrate."""
    setup_logging()
    calibrate(typed_beside_run(cfg, CalibrateConfig, calibrate_problems))


def calibrate(config: CalibrateConfig) -> Path:
    """Fit one model's temperature and expected error on a validation set; returns the path of calibration.json.

    Raises:
        GeoclipError: model, benchmark or gallery cannot be read.
    """
    from geoclip.evaluation import calibration as fitting
    from geoclip.evaluation.metrics import distance_km, nearest_location
    from geoclip.factory.loading import embed_benchmark, load_model
    from geoclip.plotting.curves import draw_calibration
    from geoclip.runs.run_dir import git_revision, saving

    loaded = load_model(config, needs_backbone=not config.image_features)
    queries, _ = embed_benchmark(config, loaded)
    gallery_GD = loaded.embedded(loaded.gallery)
    truth_N2, locations_G2 = queries.gps_deg_N2.double().numpy(), loaded.gallery.gps_deg_G2.numpy()
    nearest_N, _ = nearest_location(truth_N2, locations_G2)
    scale = fitting.fit_scale(queries.image_ND, gallery_GD, nearest_N)
    raw_km_N, best_N = fitting.raw_expected_km(queries.image_ND, gallery_GD, locations_G2, scale)
    error_km_N = distance_km(locations_G2[best_N], truth_N2, "sphere")
    raw_km, error_km = fitting.expected_curve(raw_km_N, error_km_N)
    before, after = (
        fitting.summary(queries.image_ND, gallery_GD, locations_G2, nearest_N, error_km_N, one)
        for one in (loaded.scale, scale)
    )
    facts = {
        "checkpoint_sha256": loaded.sha256,
        "gallery_sha256": loaded.gallery.sha256,
        "tta": config.tta.value,
        "benchmark": config.benchmark.name,
        "n": len(queries.keys),
        "git_revision": git_revision(),
        "before": before,
        "after": after,
    }
    calibration = fitting.Calibration(scale=scale, raw_km=raw_km, error_km=error_km, facts=facts)
    for km in after["ece"]:
        log.info("ECE within %s km: %.3f before, %.3f after", km, before["ece"][km], after["ece"][km])
    log.info("scale: %.3g before, %.3g after", before["scale"], after["scale"])
    log.info("NLL: %.3f before, %.3f after", before["nll"], after["nll"])
    figure = loaded.folder / "figures" / "calibration.png"
    with saving(loaded.folder):
        path = fitting.write_calibration(loaded.folder, calibration)
        draw_calibration(figure, before, after, raw_km_N, error_km_N, calibration)
    log.info("written: %s and figures/calibration.png", path)
    return path


if __name__ == "__main__":
    run_entry_point("calibrate", CalibrateConfig, main)
