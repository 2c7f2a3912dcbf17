"""Whether a model is as often right as it says.

Asked is what a user would ask: does the truth lie within 25 km, or 200 km, of the best guess? The model's own answer is
the probability that its softmax gives to all places of the gallery within that distance of the guess; were it
calibrated, of the images with an answer of 0.7 seven in ten would lie there. The probability of the best place alone is
no such answer: a gallery twice as dense halves it, and no error is small enough for a point to be hit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoclip.evaluation.accuracy import Floats

BINS = 15  # as Guo et al. have it


@dataclass(kw_only=True, slots=True, frozen=True)
class Bin:
    """Images of similar confidence."""

    n: int
    confidence: float  # mean of what the model says, in [0, 1]
    share: float  # of the images for which it came true


@dataclass(kw_only=True, slots=True, frozen=True)
class Reliability:
    """How far what a model says of itself lies from what came true."""

    ece: float  # expected calibration error in [0, 1]
    overconfidence: float  # mean confidence minus the share that came true; negative: too modest
    bins: tuple[Bin, ...]  # by rising confidence


def reliability(confidence_N: Floats, came_true_N: NDArray[np.bool_], bins: int = BINS) -> Reliability:
    """Expected calibration error over bins that hold equally many images, and the bins.

    Of n images even a calibrated model shows an error of about 0.4 · sqrt(bins / n): 0.02 of 4,500.

    Args:
        confidence_N: (N,) probabilities.
        came_true_N: (N,) whether what they are of came true.
        bins: at most so many; fewer images have one each.

    Raises:
        ValueError: no images.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3; with bins of equal mass
    after Nguyen, O'Connor, "Posterior calibration and exploratory analysis for natural language processing models",
    EMNLP 2015, section 4.
    """
    if not len(confidence_N):
        raise ValueError("no images to measure calibration on")
    order = np.argsort(confidence_N, kind="stable")
    found = tuple(
        Bin(n=len(rows), confidence=float(confidence_N[rows].mean()), share=float(came_true_N[rows].mean()))
        for rows in np.array_split(order, min(bins, len(order)))
    )
    gaps = [one.n * abs(one.confidence - one.share) for one in found]
    return Reliability(
        ece=sum(gaps) / len(order), overconfidence=float(confidence_N.mean() - came_true_N.mean()), bins=found
    )
