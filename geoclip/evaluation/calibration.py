"""Calibrated confidence: a temperature fitted on validation images, and the error that is to be expected.

The temperature of training serves the loss; the one that makes probabilities true depends on the gallery too, so a
calibration is of one checkpoint with one gallery and one number of views.
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
from geoclip.evaluation.retrieval import MASS_KM, Rows, rank_gallery
from geoclip.geo.geodesy import EARTH_RADIUS_KM, unit_vectors
from geoclip.runs.run_dir import write_json

log = logging.getLogger("geoclip")

FILE = "calibration.json"
SCORES_AT_ONCE = 8_000_000
SCALES = (0.1, 1000.0)  # between which the best one is looked for


@dataclass(kw_only=True, slots=True, frozen=True)
class Calibration:
    """What makes a model's probabilities over one gallery mean what they say.

    Attributes:
        scale: that similarities are multiplied by, in place of exp(logit scale).
        raw_km: rising expected errors by the softmax alone, at which the curve bends.
        error_km: the errors that came with them on the validation images, rising too.
        facts: of what it holds: checkpoint, gallery, views; and what it was measured to do.
    """

    scale: float
    raw_km: tuple[float, ...]
    error_km: tuple[float, ...]
    facts: dict[str, Any]

    def expected_of(self, heat_G: NDArray[np.float32], points_G3: Tensor) -> float:
        """The error to expect of one answer in km, from its heat over the gallery's points of the unit sphere."""
        best = torch.tensor([int(heat_G.argmax())])
        raw_km = expected_distance_km(torch.from_numpy(heat_G)[None], best, points_G3)
        return float(self.expected_error_km(raw_km.numpy())[0])

    def expected_error_km(self, raw_km_N: Floats) -> Floats:
        """(N,) errors to expect in km, from what `raw_expected_km` says; held beyond what was seen."""
        expected: Floats = np.interp(raw_km_N, self.raw_km, self.error_km)
        return expected


def fit_scale(image_ND: Tensor, gallery_GD: Tensor, nearest_row_N: Rows) -> float:
    """The scale under which the gallery's places nearest to the truths are likeliest.

    Args:
        image_ND: (N, D) unit vectors of validation images.
        gallery_GD: (G, D) unit vectors.
        nearest_row_N: the gallery's place nearest to each truth.

    Source: temperature scaling, Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2.
    """
    nearest_N1 = torch.from_numpy(nearest_row_N)[:, None].to(gallery_GD.device)
    at_once = max(1, SCORES_AT_ONCE // len(gallery_GD))

    def nats(log_scale: float) -> float:
        scale, total = float(np.exp(log_scale)), 0.0
        for first in range(0, len(image_ND), at_once):
            rows = slice(first, first + at_once)
            logits = scale * (image_ND[rows] @ gallery_GD.T)
            own = logits.gather(1, nearest_N1[rows])[:, 0]
            total += float((logits.logsumexp(dim=1) - own).double().sum())
        return total / len(image_ND)

    with torch.inference_mode():
        bounds = (float(np.log(SCALES[0])), float(np.log(SCALES[1])))
        found = minimize_scalar(nats, bounds=bounds, method="bounded", options={"xatol": 1e-3})
    return float(np.exp(found.x))


@torch.inference_mode()
def raw_expected_km(image_ND: Tensor, gallery_GD: Tensor, gallery_deg_G2: Floats, scale: float) -> tuple[Floats, Rows]:
    """(N,) distance in km from the best place, weighted by the softmax over the gallery; and (N,) the best places."""
    points_G3 = unit_vectors(torch.from_numpy(gallery_deg_G2))
    expected, best = [], []
    at_once = max(1, SCORES_AT_ONCE // len(gallery_GD))
    for image_BD in image_ND.split(at_once):
        share_BG = (scale * image_BD @ gallery_GD.T).softmax(dim=1).cpu()
        best_B = share_BG.argmax(dim=1)
        expected.append(expected_distance_km(share_BG, best_B, points_G3))
        best.append(best_B)
    return torch.cat(expected).numpy(), torch.cat(best).numpy()


def expected_distance_km(share_BG: Tensor, best_B: Tensor, points_G3: Tensor) -> Tensor:
    """(B,) mean distance in km of all places from the best one, by their shares; points on the unit sphere, float64."""
    cosine_BG = points_G3[best_B] @ points_G3.T
    arc_BG = 2 * ((1 - cosine_BG).clamp(min=0) / 2).sqrt().clamp(max=1).asin()
    return EARTH_RADIUS_KM * (share_BG.double() * arc_BG).sum(dim=1)


def expected_curve(raw_km_N: Floats, error_km_N: Floats) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The rising curve through errors over what the softmax expected: its bends, raw and observed.

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
    """NLL, and the calibration error of the mass within 25 and 200 km of the best place, under a scale."""
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
    """The calibration in a run's folder, if it is of this checkpoint, gallery and number of views; said in one line.

    Args:
        folder: of the run.
        wanted: checkpoint_sha256, gallery_sha256, tta, which it must have been fitted with.
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
    other = [key for key, value in wanted.items() if calibration.facts.get(key) != value]
    if other:
        log.warning("%s is of another %s and is not used; calibrate again", folder / FILE, ", ".join(other))
        return None
    return calibration
