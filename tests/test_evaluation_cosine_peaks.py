"""Cosines of random keys: the formulas against the density itself and against random directions."""

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize_scalar

from longscale.evaluation.cosine_peaks import BINS, histogram_peak, theory_mean, theory_mode

PLACES = [(d, alpha) for d in (8, 64, 128) for alpha in (0.5, 8.0, 32.0, 128.0, 512.0)]


def log_density(x, alpha, d):
    return (d - 3) / 2 * math.log1p(-x * x) + alpha * x


@pytest.mark.parametrize(("d", "alpha"), PLACES)
def test_the_mode_is_where_the_density_is_highest(d, alpha):
    found = minimize_scalar(
        lambda x: -log_density(x, alpha, d),
        bounds=(-1 + 1e-9, 1 - 1e-9),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert theory_mode(alpha, d) == pytest.approx(found.x, abs=1e-6)


@pytest.mark.parametrize(("d", "alpha"), PLACES)
def test_the_mean_is_that_of_the_density(d, alpha):
    mode = theory_mode(alpha, d)
    highest = log_density(mode, alpha, d)

    def moment(power):
        density = lambda x: x**power * math.exp(log_density(x, alpha, d) - highest)  # noqa: E731
        parts = [(-1, mode - 0.2), (mode - 0.2, mode), (mode, (1 + mode) / 2), ((1 + mode) / 2, 1)]
        return sum(quad(density, max(a, -1), b, epsabs=1e-13)[0] for a, b in parts if b > -1)

    assert theory_mean(alpha, d) == pytest.approx(moment(1) / moment(0), abs=1e-6)


def test_the_published_values_for_128_dimensions():
    """alpha -> mode and mean, to three digits."""
    for alpha, mode, mean in [(8, 0.064, 0.062), (32, 0.241, 0.236), (128, 0.625, 0.619)]:
        assert round(theory_mode(alpha, 128), 3) == mode
        assert round(theory_mean(alpha, 128), 3) == mean


def test_the_dot_product_has_no_theory():
    assert math.isnan(theory_mode(math.nan, 64))
    assert math.isnan(theory_mean(math.nan, 64))


def test_attention_over_random_directions_peaks_where_theory_says():
    """d is small enough for some of the keys to lie where attention wants them."""
    d, alpha = 12, 6.0
    keys = np.random.default_rng(1).normal(size=(1_000_000, d))
    cosines = keys[:, 0] / np.linalg.norm(keys, axis=1)  # the query is the first axis
    weights = np.exp(alpha * cosines)
    assert histogram_peak(cosines, weights) == pytest.approx(theory_mode(alpha, d), abs=0.02)
    mean = np.average(cosines, weights=weights)
    assert mean == pytest.approx(theory_mean(alpha, d), abs=2e-3)
    assert histogram_peak(cosines) == pytest.approx(0, abs=0.02)


def test_the_peak_of_a_histogram_is_smoothed():
    """One full bin among empty ones is no match for a broad hump of twice its weight."""
    hump = np.random.default_rng(0).normal(0.2, 0.03, 2000)
    spike = np.full(200, -0.5013)
    counts = np.histogram(np.concatenate([hump, spike]), BINS, (-1, 1))[0]
    assert np.linspace(-1, 1, BINS + 1)[counts.argmax()] < 0  # without smoothing
    assert histogram_peak(np.concatenate([hump, spike])) == pytest.approx(0.2, abs=0.03)


def test_cosines_that_rounding_brought_beyond_1_count():
    assert histogram_peak(np.full((3, 4), 1 + 1e-7)) == pytest.approx(1, abs=2 / BINS)
