"""Metrics against scipy and scikit-learn, draws against rows that are really repeated."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, average_precision_score, r2_score, roc_auc_score

from longscale.evaluation import probe_metrics
from longscale.evaluation.probe_metrics import (
    BlockMeans,
    BlockMoments,
    auroc_by_group,
    measure_accuracy,
    measure_auprc,
    measure_auroc,
    measure_spearman_genes,
    pearson_rows,
    spearman_rows,
)

ROWS, OUTPUTS, BLOCKS, DRAWS = 60, 4, 9, 7


@pytest.fixture
def task():
    """Labels (with ties), predictions, blocks and draws; the first column's mean is far from 0."""
    rng = np.random.default_rng(0)
    labels = np.round(rng.normal([1e4, 0, 0, -3], size=(ROWS, OUTPUTS)), 1)
    predictions = np.round(0.5 * labels + rng.normal(size=(ROWS, OUTPUTS)), 1)
    blocks = rng.permutation(np.arange(ROWS) % BLOCKS)
    weights = rng.multinomial(BLOCKS, np.full(BLOCKS, 1 / BLOCKS), DRAWS).astype(float)
    return labels, predictions, blocks, weights


def classes(task):
    labels, predictions, blocks, weights = task
    return (
        (predictions - np.median(predictions, axis=0) > 0.3).astype(float),
        labels,
        blocks,
        weights,
    )


def by_hand(task, metric):
    """Value and draws: repeat the rows of every drawn block, ask the library for each output."""
    labels, predictions, blocks, weights = task

    def mean(repeats):
        drawn = (np.repeat(values, repeats, axis=0) for values in (labels, predictions))
        return np.mean([metric(y, p) for y, p in zip(*(v.T for v in drawn), strict=True)])

    repeats = weights.astype(int)[:, blocks]
    return mean(np.ones(ROWS, int)), [mean(own) for own in repeats]


def spearman_genes(task, folds=1):
    """The last of `folds` folds, the others being noise."""
    labels, predictions, blocks, weights = task
    noise = np.random.default_rng(9).normal(size=(folds - 1, *predictions.shape))
    of_folds = np.concatenate([noise, predictions[None]])
    return measure_spearman_genes(labels, of_folds, blocks, weights)[-1]


def check(measured, expected, rtol=1e-9):
    np.testing.assert_allclose(measured.value, expected[0], rtol=rtol)
    np.testing.assert_allclose(measured.resampled, expected[1], rtol=rtol, atol=1e-12)
    assert measured.undefined == 0


def moments_of(task, parts=1):
    labels, predictions, blocks, _ = task
    moments = BlockMoments(BLOCKS, OUTPUTS)
    for part in np.array_split(np.arange(ROWS), parts):
        moments.add(labels[part], predictions[part], blocks[part])
    return moments


@pytest.mark.parametrize("parts", [1, 7])
def test_pearson_and_r2_across_genes(task, parts):
    moments, weights = moments_of(task, parts), task[3]
    check(moments.pearson(weights), by_hand(task, lambda y, p: pearsonr(y, p)[0]), 1e-6)
    check(moments.r2(weights), by_hand(task, r2_score), 1e-6)
    labels, predictions, blocks, _ = task
    flat = [values.reshape(-1, 1) for values in (labels, predictions)]
    repeats = np.repeat(weights.astype(int)[:, blocks], OUTPUTS, axis=1)
    drawn = [r2_score(*(np.repeat(values, own, axis=0) for values in flat)) for own in repeats]
    check(moments.r2_flat(weights), (r2_score(*flat), drawn), 1e-6)


@pytest.mark.parametrize("chunk", [2, 128])
def test_spearman_across_genes(task, monkeypatch, chunk):
    monkeypatch.setattr(probe_metrics, "_CHUNK_DRAWS", chunk)
    check(spearman_genes(task, folds=3), by_hand(task, lambda y, p: spearmanr(y, p)[0]))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(1, 3))
def test_spearman_of_draws_with_many_ties(seed, rows, levels):
    rng = np.random.default_rng(seed)
    pair = rng.integers(0, levels + 1, (2, rows, 1)).astype(float)
    copies = rng.integers(0, 4, (5, rows)).astype(float)
    found = spearman_genes((*pair, np.arange(rows), copies)).resampled
    for own, value in zip(copies.astype(int), found, strict=True):
        y, p = (np.repeat(values[:, 0], own) for values in pair)
        if len(y) < 2 or np.ptp(y) == 0 or np.ptp(p) == 0:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(spearmanr(y, p)[0], abs=1e-12)


@pytest.mark.parametrize(("rows", "oracle"), [(pearson_rows, pearsonr), (spearman_rows, spearmanr)])
def test_correlation_across_tissues(task, rows, oracle):
    labels, predictions, blocks, weights = task
    values = rows(labels, predictions)
    slow = np.array([oracle(y, p)[0] for y, p in zip(labels, predictions, strict=True)])
    np.testing.assert_allclose(values, slow, rtol=1e-9)
    means = BlockMeans(BLOCKS)
    for part in np.array_split(np.arange(ROWS), 4):
        means.add(values[part], blocks[part])
    repeats = weights.astype(int)[:, blocks]
    check(means.measured(weights), (slow.mean(), [np.repeat(slow, own).mean() for own in repeats]))


@pytest.mark.parametrize("constant", [0.1, 7e5, 0.0])
@pytest.mark.parametrize("which", [0, 1])
def test_constant_columns_and_rows_are_left_out_and_counted(task, constant, which):
    labels, predictions, _, weights = task
    kept = moments_of(task).pearson(None)
    task[which][:, 2] = constant
    found, spearman = moments_of(task, 3).pearson(weights), spearman_genes(task)
    slow = [pearsonr(labels[:, i], predictions[:, i])[0] for i in (0, 1, 3)]
    assert found.value == pytest.approx(np.mean(slow), rel=1e-6) != kept.value
    assert found.undefined == spearman.undefined == 1
    assert found.usable
    assert spearman.usable
    assert moments_of(task).r2(None).undefined == 1 - which  # of the labels only
    for rows in (pearson_rows, spearman_rows):
        flipped = rows(labels.T, predictions.T)
        np.testing.assert_array_equal(np.isnan(flipped), [False, False, True, False])
        means = BlockMeans(2)
        means.add(flipped, np.array([0, 0, 1, 1]))
        assert means.measured(None).undefined == 1


def test_a_constant_answer_has_no_correlation_but_an_r2(task):
    labels, predictions, _, weights = task
    predictions[:] = labels.mean(axis=0)
    moments = moments_of(task)
    assert np.isnan(moments.pearson(weights).value)
    assert not moments.pearson(weights).usable
    assert moments.pearson(None).undefined == OUTPUTS
    assert moments.r2(None).value == pytest.approx(0, abs=1e-9)


def test_classification_metrics_are_means_over_outputs(task):
    task = classes(task)
    check(measure_auroc(*task), by_hand(task, roc_auc_score))
    accuracy = by_hand(task, lambda y, p: accuracy_score(y, p > 0))
    check(measure_accuracy(*task), accuracy)
    found = measure_auprc(*task)
    assert found.value == pytest.approx(by_hand(task, average_precision_score)[0])
    assert found.resampled is None


def test_an_output_of_one_class_is_left_out(task):
    labels, scores, blocks, weights = classes(task)
    labels[:, 1] = 1
    found = measure_auroc(labels, scores, blocks, weights)
    slow = [roc_auc_score(labels[:, i], scores[:, i]) for i in (0, 2, 3)]
    assert found.value == pytest.approx(np.mean(slow))
    assert found.undefined == measure_auprc(labels, scores, blocks, None).undefined == 1
    scores[0, 0] = np.nan
    assert np.isnan(measure_accuracy(labels, scores, blocks, None).value)
    assert measure_auroc(labels, scores, blocks, None).undefined == 2


def test_auroc_by_tissue_is_the_mean_over_folds(task):
    labels, scores, _, _ = classes(task)
    tissue = np.random.default_rng(2).choice(["a", "b", "c"], ROWS)
    labels[tissue == "c", 0] = 0
    found = auroc_by_group(labels[:, 0], scores.T[:2], tissue).set_index("group")
    for name in "ab":
        own = tissue == name
        slow = [roc_auc_score(labels[own, 0], scores[own, fold]) for fold in range(2)]
        assert found.loc[name, "auroc"] == pytest.approx(np.mean(slow))
        slow = [average_precision_score(labels[own, 0], scores[own, fold]) for fold in range(2)]
        assert found.loc[name, "auprc"] == pytest.approx(np.mean(slow))
        assert found.loc[name, "positives"] == labels[own, 0].sum()
    assert np.isnan(found.loc["c", "auroc"])
    assert found["n"].sum() == ROWS
