"""Metrics of probes, with what they become when blocks of the genome are drawn again.

`labels` and `predictions` are (rows, outputs); a row is a variant, a gene, an interval or the bin
of a profile, an output a class, a tissue or a track. `blocks` (rows,) numbers each row's genomic
block, `weights` (draws, blocks) says how often each draw takes each block. "Across genes" compares
the rows of an output, "across tissues" the outputs of a row; the mean over outputs or rows is the
metric. A column (or row) that is constant in labels or predictions has no correlation: it is NaN,
left out of the mean and counted.

R² is the coefficient of determination of each output, 1 - SS_res / SS_tot, and its mean over
outputs (`r2`), as scikit-learn's `r2_score` and torchmetrics' `R2Score` give it. The benchmark's
paper does not say which R² it means; `r2_flat` takes all outputs as one column.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from longscale.evaluation import metrics
from longscale.evaluation.intervals import weighted_auroc, win_counts

# Below this share of a column's mean square, its variance is rounding: the column is constant.
CONSTANT_SHARE = 1e-12
# Draws that Spearman's ranks are computed for at a time: a row's stay in the cache.
_CHUNK_DRAWS = 128


@dataclass(frozen=True)
class Measured:
    """A metric on all rows, and in each draw (None: no interval for this one).

    undefined: outputs (across genes) or rows (across tissues) that had to be left out.
    """

    value: float
    resampled: np.ndarray | None = None
    undefined: int = 0

    @property
    def usable(self) -> bool:
        """Whether an interval may rest on it."""
        return self.resampled is not None and bool(np.isfinite(self.resampled).all())


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is not NaN; NaN where all is."""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0).sum(axis=-1), known.sum(axis=-1))


def _ratio(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    """`over / under`, NaN where `under` is 0."""
    over, under = np.broadcast_arrays(np.asarray(over, float), np.asarray(under, float))
    return np.divide(over, under, out=np.full(over.shape, np.nan), where=under != 0)


def _measured(values: np.ndarray, resampled: np.ndarray | None) -> Measured:
    """From `values` (outputs,) and `resampled` (draws, outputs)."""
    means = None if resampled is None else _mean(resampled)
    return Measured(float(_mean(values)), means, int(np.isnan(values).sum()))


# ------------------------------------------------------------------------- classification


def measure_auroc(
    labels: np.ndarray, scores: np.ndarray, blocks: np.ndarray, weights: np.ndarray | None
) -> Measured:
    """AUROC per output, ties count 1/2, and its mean; NaN where a class or a finite score is
    missing."""
    values = np.array([metrics.auroc(*pair) for pair in zip(labels.T, scores.T, strict=True)])
    if weights is None or np.isnan(values).all():
        return _measured(values, None)
    drawn = [
        weighted_auroc(win_counts(own_scores, own_labels, blocks), weights)
        for own_labels, own_scores, value in zip(labels.T, scores.T, values, strict=True)
        if not math.isnan(value)
    ]
    return _measured(values, np.stack(drawn, axis=1))


def measure_auprc(
    labels: np.ndarray, scores: np.ndarray, blocks: np.ndarray, weights: np.ndarray | None
) -> Measured:
    """Average precision per output, and its mean; no draws."""
    del blocks, weights
    values = [metrics.auprc(*pair) for pair in zip(labels.T, scores.T, strict=True)]
    return _measured(np.array(values), None)


def measure_accuracy(
    labels: np.ndarray, scores: np.ndarray, blocks: np.ndarray, weights: np.ndarray | None
) -> Measured:
    """Share of labels that are predicted right, at log-odds above 0."""
    if not np.isfinite(scores).all():
        return Measured(math.nan)
    means = BlockMeans(blocks.max() + 1 if weights is None else weights.shape[1])
    means.add(((scores > 0) == (labels == 1)).mean(axis=1), blocks)
    return means.measured(weights)


def auroc_by_group(labels: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> pd.DataFrame:
    """AUROC and AUPRC within each group of rows: columns `group, n, positives, auroc, auprc`.

    `labels` (rows,), `scores` (folds, rows), over which both are averaged, `groups` (rows,) names.
    Groups in the order of their names; NaN where a class is missing.
    """
    rows = []
    for group in np.unique(groups):
        own = groups == group
        means = [
            float(np.mean([metric(labels[own], of_fold[own]) for of_fold in scores]))
            for metric in (metrics.auroc, metrics.auprc)
        ]
        rows.append((group, int(own.sum()), int(labels[own].sum()), *means))
    return pd.DataFrame(rows, columns=["group", "n", "positives", "auroc", "auprc"])


# --------------------------------------------------------------------- correlations, by moments


class BlockMeans:
    """The mean of a value per row, from sums and counts by block; rows may come in parts."""

    def __init__(self, blocks: int) -> None:
        self.sums, self.counts = np.zeros((2, blocks))
        self.undefined = 0

    def add(self, values: np.ndarray, blocks: np.ndarray) -> None:
        """`values` (rows,); NaN is left out and counted."""
        known = ~np.isnan(values)
        self.undefined += int((~known).sum())
        self.sums += np.bincount(blocks[known], values[known], self.sums.size)
        self.counts += np.bincount(blocks[known], minlength=self.counts.size)

    def measured(self, weights: np.ndarray | None) -> Measured:
        """The mean over all rows, and over those of each draw."""
        value = float(_ratio(self.sums.sum(), self.counts.sum()))
        resampled = None if weights is None else _ratio(weights @ self.sums, weights @ self.counts)
        return Measured(value, resampled, self.undefined)


class BlockMoments:
    """First and second moments of labels and predictions by block and output, from which Pearson's
    correlation and R² across rows follow, whole or drawn; rows may come in parts."""

    def __init__(self, blocks: int, outputs: int) -> None:
        # 1, y, p, y², p², yp, (y - p)²
        self.sums = np.zeros((7, blocks, outputs))
        self.shift: np.ndarray | None = None

    def add(self, labels: np.ndarray, predictions: np.ndarray, blocks: np.ndarray) -> None:
        """Add rows; the first one is subtracted from all, so that constant columns are zeros."""
        pair = np.stack([labels, predictions]).astype(np.float64)
        if self.shift is None:
            self.shift = pair[:, :1].copy()
        error = pair[0] - pair[1]
        y, p = pair - self.shift
        by_block = np.argsort(blocks, kind="stable")
        starts = np.flatnonzero(np.diff(blocks[by_block], prepend=-1))
        terms = (np.ones_like(y), y, p, y * y, p * p, y * p, error * error)
        for sums, term in zip(self.sums, terms, strict=True):
            sums[blocks[by_block][starts]] += np.add.reduceat(term[by_block], starts, axis=0)

    def pearson(self, weights: np.ndarray | None) -> Measured:
        """Pearson's correlation across rows, mean over outputs."""
        return self._measure(_pearson_of, weights)

    def r2(self, weights: np.ndarray | None) -> Measured:
        """Coefficient of determination across rows, mean over outputs."""
        return self._measure(_r2_of, weights)

    def r2_flat(self, weights: np.ndarray | None) -> Measured:
        """Coefficient of determination of all rows and outputs as one column."""
        flat = BlockMoments(self.sums.shape[1], 1)
        if self.shift is not None:
            # The outputs' shifts differ: undo them, in the moments of the labels that R² needs.
            count, y, square = self.sums[0], self.sums[1], self.sums[3]
            shift = self.shift[0] - self.shift[0].mean()
            flat.sums[[0, 1, 3, 6], :, 0] = [
                count.sum(axis=1),
                (y + count * shift).sum(axis=1),
                (square + 2 * y * shift + count * shift**2).sum(axis=1),
                self.sums[6].sum(axis=1),
            ]
        return flat._measure(_r2_of, weights)

    def _measure(
        self, formula: Callable[[np.ndarray], np.ndarray], weights: np.ndarray | None
    ) -> Measured:
        whole = formula(self.sums.sum(axis=1, keepdims=True))[0]
        drawn = None if weights is None else formula(weights @ self.sums)
        return _measured(whole, drawn)


def _spread_of(count: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Sum of squares about the mean; 0 where it is nothing but rounding."""
    spread = second - _ratio(first**2, count)
    return np.where(spread > CONSTANT_SHARE * second, spread, 0)


def _pearson_of(moments: np.ndarray) -> np.ndarray:
    count, y, p, yy, pp, yp, _ = moments
    spreads = _spread_of(count, y, yy) * _spread_of(count, p, pp)
    return np.clip(_ratio(yp - _ratio(y * p, count), np.sqrt(spreads)), -1, 1)


def _r2_of(moments: np.ndarray) -> np.ndarray:
    count, y, _, yy, _, _, errors = moments
    return 1 - _ratio(errors, _spread_of(count, y, yy))


# ------------------------------------------------------------------------- correlations of rows


def pearson_rows(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Pearson's correlation across the outputs of each row: (rows,), NaN where one is constant."""
    constant = [np.ptp(values, axis=1) == 0 for values in (labels, predictions)]
    y, p = (
        values - values.mean(axis=1, keepdims=True)
        for values in (labels.astype(np.float64), predictions.astype(np.float64))
    )
    products = np.einsum("ro,ro->r", y, p)
    squares = np.einsum("ro,ro->r", y, y) * np.einsum("ro,ro->r", p, p)
    squares[constant[0] | constant[1]] = 0
    return np.clip(_ratio(products, np.sqrt(squares)), -1, 1)


def spearman_rows(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Spearman's correlation across the outputs of each row: (rows,), NaN where one is constant."""
    return pearson_rows(rankdata(labels, axis=1), rankdata(predictions, axis=1))


# ------------------------------------------------------------------- Spearman across genes


def measure_spearman_genes(
    labels: np.ndarray, predictions: np.ndarray, blocks: np.ndarray, weights: np.ndarray | None
) -> list[Measured]:
    """Spearman's correlation across the rows of each output, and its mean, of each fold.

    `predictions` (folds, rows, outputs): the labels are ranked once for all of them. Ranks are
    those within the drawn rows, of which a block brings several copies, not those of all.
    """
    values = [spearman_rows(labels.T, of_fold.T) for of_fold in predictions]
    if weights is None:
        return [_measured(of_fold, None) for of_fold in values]
    drawn = np.empty((len(predictions), len(weights), labels.shape[1]))
    for start in range(0, len(weights), _CHUNK_DRAWS):
        chunk = slice(start, start + _CHUNK_DRAWS)
        copies = np.ascontiguousarray(weights[chunk, blocks].T)  # rows, draws
        for output, column in enumerate(labels.T):
            y = _drawn_ranks(column, copies)
            weighted = copies * y
            spread = np.einsum("rd,rd->d", weighted, y)
            for fold, of_fold in enumerate(predictions):
                p = _drawn_ranks(of_fold[:, output], copies)
                spreads = spread * np.einsum("rd,rd,rd->d", copies, p, p)
                products = np.einsum("rd,rd->d", weighted, p)
                drawn[fold, chunk, output] = _ratio(products, np.sqrt(spreads))
    return [_measured(*of_fold) for of_fold in zip(values, drawn, strict=True)]


def _drawn_ranks(column: np.ndarray, copies: np.ndarray) -> np.ndarray:
    """Ranks less their mean, ties sharing the middle, where row r stands `copies[r, d]` times in
    draw d: (rows, draws). Whole and half numbers, so a constant column is exactly 0."""
    values, group = np.unique(column, return_inverse=True)
    order = np.argsort(group, kind="stable")
    size = copies.take(order, axis=0)
    if values.size < column.size:
        starts = np.searchsorted(group[order], np.arange(values.size))
        size = np.add.reduceat(size, starts, axis=0)
    ranks = np.cumsum(size, axis=0)
    middle = ranks[-1] / 2
    size /= 2
    ranks -= size
    ranks -= middle
    return ranks.take(group, axis=0)
