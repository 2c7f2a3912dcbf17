"""How a share is printed, everywhere."""

from __future__ import annotations

import math

MOST_DIGITS = 9


def percent_text(percent: float, digits: int = 1) -> str:
    """A share in percent without its sign: 100 only where it is all, 0 only where it is none, – where it is unknown.

    Args:
        percent: in [0, 100].
        digits: after the point; more are printed where these alone would say 0 or 100.
    """
    if math.isnan(percent):
        return "–"
    if math.isclose(percent, 100, abs_tol=10**-MOST_DIGITS):
        return "100"
    texts = (f"{percent:.{count}f}" for count in range(digits, MOST_DIGITS + 1))
    return next((text for text in texts if float(text) not in (0, 100)), f"{0:.{digits}f}")


def probability_text(probability: float) -> str:
    """A probability with at least two digits, in percent with its sign."""
    percent = 100 * probability
    if percent == 0 or percent >= 9.95:
        return f"{percent_text(percent, 0)} %"
    return f"{percent:#.2g} %" if percent >= 0.01 else f"{percent:.0e} %"
