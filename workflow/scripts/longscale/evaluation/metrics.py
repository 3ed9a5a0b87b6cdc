"""Metrics of a binary classifier that gives log-odds, thin over scikit-learn.

All take `labels` (rows,) of 0 and 1 and `scores` (rows,), the log-odds of label 1; a prediction
is 1 where the log-odds are above 0. A metric that is not defined on its input is NaN, never a
number that could be read as a result.
"""

import math

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    matthews_corrcoef,
    precision_recall_fscore_support,
    roc_auc_score,
)


def auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve, ties count 1/2; NaN where a class or a finite score is missing."""
    if not _rankable(labels, scores):
        return math.nan
    return float(roc_auc_score(labels, scores))


def auprc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Average precision; NaN where a class or a finite score is missing."""
    if not _rankable(labels, scores):
        return math.nan
    return float(average_precision_score(labels, scores))


def classification_metrics(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """`auprc, accuracy, f1, mcc, precision, recall`, the last five at log-odds > 0.

    `precision` is NaN where nothing is predicted to be 1, `recall` where nothing is 1, `f1`
    where both hold, `mcc` where labels or predictions are constant. All are NaN where a score is
    not finite.
    """
    names = ("auprc", "accuracy", "f1", "mcc", "precision", "recall")
    if labels.size == 0 or not np.isfinite(scores).all():
        return dict.fromkeys(names, math.nan)
    predicted = (scores > 0).astype(int)
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predicted, average="binary", zero_division=np.nan
    )
    constant = np.unique(labels).size == 1 or np.unique(predicted).size == 1
    values = (
        auprc(labels, scores),
        accuracy_score(labels, predicted),
        f1,
        math.nan if constant else matthews_corrcoef(labels, predicted),
        precision,
        recall,
    )
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def _rankable(labels: np.ndarray, scores: np.ndarray) -> bool:
    return np.unique(labels).size == 2 and bool(np.isfinite(scores).all())
