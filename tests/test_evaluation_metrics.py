"""Metrics against their definitions, and NaN where they are not defined."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longscale.evaluation.metrics import auprc, auroc, classification_metrics


def auroc_by_pairs(labels, scores):
    """The definition: how often a positive beats a negative, ties count 1/2."""
    pairs = [(p > q) + 0.5 * (p == q) for p in scores[labels == 1] for q in scores[labels == 0]]
    return sum(pairs) / len(pairs)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=30))
def test_auroc_is_the_share_of_pairs_won(rows):
    labels = np.array([label for label, _ in rows], int)
    scores = np.array([score for _, score in rows], np.float32)
    if np.unique(labels).size == 1:
        assert math.isnan(auroc(labels, scores))
    else:
        assert auroc(labels, scores) == pytest.approx(auroc_by_pairs(labels, scores), abs=1e-12)


def test_metrics_from_a_confusion_matrix_by_hand():
    # 5 true positives, 2 false negatives, 3 false positives, 10 true negatives; a log-odds of 0
    # is a prediction of 0.
    labels = np.repeat([1, 1, 0, 0], [5, 2, 3, 10])
    scores = np.repeat([0.5, -1.0, 2.0, 0.0], [5, 2, 3, 10])
    values = classification_metrics(labels, scores)
    assert values["accuracy"] == pytest.approx(15 / 20)
    assert values["precision"] == pytest.approx(5 / 8)
    assert values["recall"] == pytest.approx(5 / 7)
    assert values["f1"] == pytest.approx(2 * 5 / (2 * 5 + 3 + 2))
    assert values["mcc"] == pytest.approx((5 * 10 - 3 * 2) / math.sqrt(8 * 7 * 13 * 12))
    # Thresholds 2, .5, 0, -1: recall gained at each times the precision there.
    assert values["auprc"] == pytest.approx(5 / 7 * 5 / 8 + 2 / 7 * 7 / 20)


def test_undefined_is_nan_never_a_number():
    labels = np.array([0, 1, 0, 1])
    never = classification_metrics(labels, np.full(4, -1.0))
    assert math.isnan(never["precision"])
    assert math.isnan(never["mcc"])
    assert (never["recall"], never["f1"], never["accuracy"]) == (0, 0, 0.5)
    for bad in (np.nan, np.inf, -np.inf):
        scores = np.array([bad, 1.0, 0.0, 2.0])
        assert math.isnan(auroc(labels, scores))
        assert math.isnan(auprc(labels, scores))
        assert all(map(math.isnan, classification_metrics(labels, scores).values()))
    one_class = classification_metrics(np.zeros(4, int), np.array([-1.0, -2.0, -1.0, -3.0]))
    assert math.isnan(one_class["recall"])
    assert math.isnan(one_class["auprc"])
    assert one_class["accuracy"] == 1
    assert all(map(math.isnan, classification_metrics(np.zeros(0, int), np.zeros(0)).values()))


@pytest.mark.filterwarnings("error")
def test_no_warning_on_a_degenerate_input():
    labels = np.array([0, 1, 0, 1])
    for scores in (np.zeros(4), np.ones(4), np.array([np.nan] * 4)):
        classification_metrics(labels, scores)
    classification_metrics(np.ones(4, int), np.zeros(4))
    classification_metrics(np.zeros(4, int), np.zeros(4))
