"""Calibrated confidence: a temperature fitted on validation images, and the expected error of a prediction.

The temperature from training serves the loss. The one that calibrates probabilities depends on the gallery too, so a
calibration is valid for one checkpoint with one gallery and one number of views.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression, minimize_scalar
from torch import Tensor

from geoclip.evaluation.details import reliability
from geoclip.evaluation.metrics import Floats
from geoclip.evaluation.retrieval import MASS_KM, SCORES_AT_ONCE, Rows, rank_gallery
from geoclip.geo.geodesy import EARTH_RADIUS_KM, unit_vectors
from geoclip.runs.run_dir import write_json

log = logging.getLogger("geoclip")

FILE = "calibration.json"
SCALES = (0.1, 1000.0)  # range of the search


@dataclass(kw_only=True, slots=True, frozen=True)
class Calibration:
    """A scale and a curve that calibrate a model's probabilities over one gallery.

    Attributes:
        scale: factor of similarities, in place of exp(logit scale).
        raw_km: rising expected errors by the softmax alone: the curve's knots.
        error_km: the errors observed there on validation images, rising too.
        facts: checkpoint, gallery and views that it is valid for, and measures before and after.
    """

    scale: float
    raw_km: tuple[float, ...]
    error_km: tuple[float, ...]
    facts: dict[str, Any]

    def expected_of(self, heat_G: NDArray[np.float32], points_G3: Tensor) -> float:
        """Expected error in km of one prediction, from probabilities over the gallery's points on the unit sphere."""
        best = torch.tensor([int(heat_G.argmax())])
        raw_km = expected_distance_km(torch.from_numpy(heat_G)[None], best, points_G3)
        return float(self.expected_error_km(raw_km.numpy())[0])

    def expected_error_km(self, raw_km_N: Floats) -> Floats:
        """(N,) expected errors in km, from those of `raw_expected_km`; constant beyond the ends of the curve."""
        expected: Floats = np.interp(raw_km_N, self.raw_km, self.error_km)
        return expected


def fit_scale(image_ND: Tensor, gallery_GD: Tensor, nearest_row_N: Rows) -> float:
    """The scale that maximises the likelihood of the gallery rows nearest to the true locations.

    Source: temperature scaling, Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2.
    """
    nearest_N1 = torch.from_numpy(nearest_row_N)[:, None].to(gallery_GD.device)
    at_once = max(1, SCORES_AT_ONCE // len(gallery_GD))

    def nats(log_scale: float) -> float:
        scale, total = float(np.exp(log_scale)), 0.0
        for image_BD, nearest_B1 in zip(image_ND.split(at_once), nearest_N1.split(at_once), strict=True):
            logits = scale * (image_BD @ gallery_GD.T)
            own = logits.gather(1, nearest_B1)[:, 0]
            total += float((logits.logsumexp(dim=1) - own).double().sum())
        return total / len(image_ND)

    with torch.inference_mode():
        bounds = (float(np.log(SCALES[0])), float(np.log(SCALES[1])))
        found = minimize_scalar(nats, bounds=bounds, method="bounded", options={"xatol": 1e-3})
    return float(np.exp(found.x))


@torch.inference_mode()
def raw_expected_km(image_ND: Tensor, gallery_GD: Tensor, gallery_deg_G2: Floats, scale: float) -> tuple[Floats, Rows]:
    """(N,) distance in km from the best location, averaged by the softmax over the gallery; and (N,) the best rows."""
    points_G3 = unit_vectors(torch.from_numpy(gallery_deg_G2))
    expected, best = [], []
    for image_BD in image_ND.split(max(1, SCORES_AT_ONCE // len(gallery_GD))):
        share_BG = (scale * image_BD @ gallery_GD.T).softmax(dim=1).cpu()
        best.append(share_BG.argmax(dim=1))
        expected.append(expected_distance_km(share_BG, best[-1], points_G3))
    return torch.cat(expected).numpy(), torch.cat(best).numpy()


def expected_distance_km(share_BG: Tensor, best_B: Tensor, points_G3: Tensor) -> Tensor:
    """(B,) mean distance in km from the best location, weighted by shares; float64 points on the unit sphere."""
    cosine_BG = points_G3[best_B] @ points_G3.T
    arc_BG = 2 * ((1 - cosine_BG).clamp(min=0) / 2).sqrt().clamp(max=1).asin()
    return EARTH_RADIUS_KM * (share_BG.double() * arc_BG).sum(dim=1)


def expected_curve(raw_km_N: Floats, error_km_N: Floats) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Knots of the rising curve from the softmax's expected errors to the observed ones: raw and observed.

    Source: isotonic regression by pool adjacent violators, Barlow et al., "Statistical Inference under Order
    Restrictions", 1972; for calibration Zadrozny, Elkan, "Transforming Classifier Scores into Accurate Multiclass
    Probability Estimates", KDD 2002.
    """
    order = np.argsort(raw_km_N, kind="stable")
    raw, fitted = raw_km_N[order], isotonic_regression(error_km_N[order]).x
    steps = np.flatnonzero(np.diff(fitted))
    ends = np.unique(np.concatenate(([0], steps, steps + 1, [len(raw) - 1])))
    return tuple(raw[ends].tolist()), tuple(fitted[ends].tolist())


def summary(
    image_ND: Tensor, gallery_GD: Tensor, gallery_deg_G2: Floats, nearest_row_N: Rows, error_km_N: Floats, scale: float
) -> dict[str, Any]:
    """NLL, and the calibration error of the probability within 25 and 200 km of the best location, at a scale."""
    ranking = rank_gallery(image_ND, gallery_GD, gallery_deg_G2, nearest_row_N, scale, k=1)
    found = {km: reliability(ranking.mass_km_N[km], error_km_N < km) for km in MASS_KM}
    return {
        "scale": scale,
        "nll": float(ranking.nll_N.mean()),
        "ece": {str(km): one.ece for km, one in found.items()},
        "bins": {str(km): [asdict(bin_) for bin_ in one.bins] for km, one in found.items()},
    }


def write_calibration(folder: Path, calibration: Calibration) -> Path:
    """calibration.json in a run's folder."""
    write_json(folder / FILE, asdict(calibration))
    return folder / FILE


def read_calibration(folder: Path, **wanted: Any) -> Calibration | None:
    """The calibration in a run's folder; None, with a log line, if there is none or it has other facts.

    Args:
        folder: of the run.
        wanted: checkpoint_sha256, gallery_sha256, tta, which must agree.
    """
    try:
        saved = json.loads((folder / FILE).read_text(encoding="utf-8"))
        calibration = Calibration(
            scale=saved["scale"], raw_km=tuple(saved["raw_km"]), error_km=tuple(saved["error_km"]), facts=saved["facts"]
        )
    except FileNotFoundError:
        log.info("the probabilities are not calibrated; python -m geoclip.calibrate does it on the validation split")
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be read (%s); calibrate again", folder / FILE, error)
        return None
    if other := [key for key, value in wanted.items() if calibration.facts.get(key) != value]:
        log.warning("%s has another %s and is not used; calibrate again", folder / FILE, ", ".join(other))
        return None
    return calibration
