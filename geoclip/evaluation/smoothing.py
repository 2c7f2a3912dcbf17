"""Spatial smoothing of the heat over a gallery."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from geoclip.geo.geodesy import EARTH_RADIUS_KM, unit_vectors

Floats = NDArray[np.float64]

REACH = 3.0  # in standard deviations: beyond it a Gaussian has 1 % of its height
PLACES_PER_CHUNK = 512


def smooth_heat(heat_NG: NDArray[np.float32], gallery_deg_G2: Floats, smooth_km: float) -> Floats:
    """(N, G) what each place of the gallery has around it: a Gaussian-weighted sum of the heat, scaled to sum to 1.

    A place then stands for its surroundings: many likely places near each other win over a likelier one far from all.

    Args:
        heat_NG: (N, G) probabilities over the gallery.
        gallery_deg_G2: (G, 2) latitude, longitude in degrees.
        smooth_km: standard deviation of the Gaussian, along great circles; cut off at three of them.

    Source: kernel density estimation, Silverman, "Density Estimation for Statistics and Data Analysis", 1986, ch. 4.
    """
    points = unit_vectors(torch.from_numpy(gallery_deg_G2)).numpy()
    tree = cKDTree(points)
    longest = 2 * np.sin(min(REACH * smooth_km / EARTH_RADIUS_KM, np.pi) / 2)
    smoothed = np.empty((heat_NG.shape[0], len(points)))
    for first in range(0, len(points), PLACES_PER_CHUNK):
        chunk = points[first : first + PLACES_PER_CHUNK]
        weights = cKDTree(chunk).sparse_distance_matrix(tree, longest, output_type="coo_matrix").tocsr()
        # Chords to arcs to weights; the matrix holds zeros too, of a place to itself.
        arc_km = 2 * EARTH_RADIUS_KM * np.arcsin(np.clip(weights.data / 2, 0, 1))
        weights.data = np.exp(-0.5 * (arc_km / smooth_km) ** 2)
        smoothed[:, first : first + len(chunk)] = (weights @ heat_NG.T).T
    total: Floats = smoothed / smoothed.sum(axis=1, keepdims=True)
    return total
