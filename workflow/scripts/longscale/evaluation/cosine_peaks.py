"""Where the cosines of queries and keys lie: theory for random keys, and what is measured.

Among keys that are uniform on the sphere in d dimensions, the cosines that attention with logits
alpha * cosine weights have the density (1 - x^2)^((d-3)/2) e^(alpha x) on [-1, 1]. That is the
marginal of a von Mises-Fisher distribution of concentration alpha (Mardia and Jupp 2000,
Directional Statistics, section 9.3).
"""

import math

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.special import ive

BINS = 400  # over [-1, 1]
SMOOTHING = 3.0  # standard deviation of the smoothing, in bins


def theory_mode(alpha: float, d: int) -> float:
    """Where the density is highest: (sqrt(m^2 + alpha^2) - m) / alpha, m = (d - 3) / 2.

    Rises with alpha > 0 from 0 to 1; for d >= 3.
    """
    m = (d - 3) / 2
    return alpha / (math.hypot(m, alpha) + m)  # the same, without the difference of near numbers


def theory_mean(alpha: float, d: int) -> float:
    """The mean of the density: I_{d/2}(alpha) / I_{d/2-1}(alpha), modified Bessel functions."""
    return float(ive(d / 2, alpha) / ive(d / 2 - 1, alpha))


def histogram_peak(cosines: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The highest point of the smoothed histogram of `cosines`; both arrays of any shape."""
    flat = None if weights is None else np.ravel(weights)
    counts, edges = np.histogram(np.ravel(cosines).clip(-1, 1), BINS, (-1, 1), weights=flat)
    smooth = gaussian_filter1d(counts.astype(float), SMOOTHING, mode="constant")
    peak = int(smooth.argmax())
    return float(edges[peak] + edges[peak + 1]) / 2
