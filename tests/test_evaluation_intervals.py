"""The fast bootstrap against resampling rows one by one, and its coverage."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from longscale.evaluation import intervals
from longscale.evaluation.intervals import (
    block_ids,
    draw_blocks,
    draw_generator,
    draw_seeds,
    percentile_interval,
    weighted_auroc,
    win_counts,
)


def resample_rows(scores, labels, blocks, weights):
    """The obvious way: repeat the rows of every drawn block, then ask scikit-learn."""
    repeats = weights.astype(int)[blocks]
    return roc_auc_score(np.repeat(labels, repeats), np.repeat(scores, repeats))


def random_task(rng, rows, n_blocks, *, ties):
    blocks = rng.integers(0, n_blocks, rows)
    blocks[:n_blocks] = np.arange(n_blocks)
    labels = rng.integers(0, 2, rows)
    labels[:2] = 0, 1
    scores = rng.normal(size=rows) + labels
    return (np.round(scores) if ties else scores).astype(np.float32), labels, blocks


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("chunk", [1, 37, 1_000_000])
def test_each_draw_equals_resampled_rows(monkeypatch, ties, chunk):
    monkeypatch.setattr(intervals, "_CHUNK_CELLS", chunk)
    scores, labels, blocks = random_task(np.random.default_rng(3), 150, 11, ties=ties)
    draws = draw_blocks(blocks, labels, 60, np.random.default_rng(4))
    fast = weighted_auroc(win_counts(scores, labels, blocks), draws.weights)
    slow = [resample_rows(scores, labels, blocks, weights) for weights in draws.weights]
    np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(-2, 2), st.integers(0, 3)), min_size=1, max_size=25
    )
)
def test_win_counts_are_the_pairs_won(rows):
    labels, scores, blocks = (np.array(column, float) for column in zip(*rows, strict=True))
    _, blocks = np.unique(blocks, return_inverse=True)
    wins = win_counts(scores, labels, blocks)
    for i, first in enumerate(wins.positive_blocks):
        for j, second in enumerate(wins.negative_blocks):
            positives = scores[(labels == 1) & (blocks == first)]
            negatives = scores[(labels == 0) & (blocks == second)]
            won = np.sign(positives[:, None] - negatives[None, :]) + 1
            assert wins.doubled[i, j] == won.sum()
            assert wins.positives[i] == positives.size
            assert wins.negatives[j] == negatives.size
    whole = weighted_auroc(wins, np.ones((1, blocks.max() + 1)))[0]
    if 0 < labels.sum() < labels.size:
        assert whole == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    else:
        assert math.isnan(whole)


def test_doubled_wins_are_exact_whole_numbers_whatever_the_order_of_rows():
    rng = np.random.default_rng(0)
    scores, labels, blocks = random_task(rng, 500, 20, ties=True)
    shuffled = rng.permutation(500)
    weights = draw_blocks(blocks, labels, 50, np.random.default_rng(1)).weights
    one = weighted_auroc(win_counts(scores, labels, blocks), weights)
    other = weighted_auroc(
        win_counts(scores[shuffled], labels[shuffled], blocks[shuffled]), weights
    )
    assert one.tobytes() == other.tobytes()


def test_blocks_are_cut_from_the_start_of_each_contig():
    contigs = pd.Series(["chr2", "chr1", "chr1", "chr1", "chr2", "chr1"])
    pos = pd.Series([1, 1_000_000, 1_000_001, 1, 2_000_001, 5_500_000])
    # chr1: [1, 1e6] is block 0, 1e6 + 1 starts block 1, 5.5e6 is the next one that is occupied.
    assert block_ids(contigs, pos, 1_000_000).tolist() == [3, 0, 1, 0, 4, 2]


def test_draws_are_a_function_of_seed_and_names():
    blocks, labels = np.arange(40) % 10, np.arange(40) % 2

    def weights(*key):
        return draw_blocks(blocks, labels, 20, draw_generator(*key)).weights

    np.testing.assert_array_equal(weights(1, "eqtl"), weights(1, "eqtl"))
    assert not np.array_equal(weights(1, "eqtl"), weights(2, "eqtl"))
    assert not np.array_equal(weights(1, "eqtl"), weights(1, "clinvar"))
    assert not np.array_equal(weights(1, "a", "b"), weights(1, "ab"))
    assert (weights(1, "eqtl").sum(axis=1) == 10).all()


def test_a_draw_without_a_class_is_drawn_again_and_counted():
    blocks, labels = np.array([0, 1, 2, 3]), np.array([1, 0, 0, 0])
    draws = draw_blocks(blocks, labels, 4000, np.random.default_rng(0))
    scores = np.array([1.0, 0.0, 2.0, 0.5])
    assert np.isfinite(weighted_auroc(win_counts(scores, labels, blocks), draws.weights)).all()
    # A draw misses block 0 with probability (3/4)^4, and takes block 0 alone with (1/4)^4.
    rejected = 0.75**4 + 0.25**4
    assert draws.redrawn / (draws.redrawn + 4000) == pytest.approx(rejected, abs=0.03)


def test_seed_draws_are_shares():
    shares = draw_seeds(3, 3000, np.random.default_rng(0))
    assert shares.shape == (3, 3000)
    np.testing.assert_allclose(shares.sum(axis=0), 1)
    # Variance of a multinomial share: (1/3)(2/3)/3.
    assert shares.var() == pytest.approx(2 / 27, rel=0.05)
    np.testing.assert_array_equal(draw_seeds(1, 5, np.random.default_rng(0)), np.ones((1, 5)))


def test_percentile_interval():
    assert percentile_interval(np.arange(1001.0)) == pytest.approx((25, 975))


def test_interval_of_a_clustered_null_covers_one_half():
    """Score and label both depend on the block, not on each other: AUROC is 1/2 on average.

    Resampling rows as if they were independent misses it far more often than once in 20.
    """
    rng = np.random.default_rng(7)
    n_blocks, per_block, reps = 40, 12, 250
    blocks = np.repeat(np.arange(n_blocks), per_block)
    rows = np.arange(blocks.size)
    covered = {"blocks": 0, "rows": 0}
    for _ in range(reps):
        scores = np.repeat(rng.normal(size=n_blocks), per_block) + rng.normal(size=blocks.size)
        share = np.repeat(rng.beta(1, 1, n_blocks), per_block)
        labels = (rng.random(blocks.size) < share).astype(int)
        for name, units, resamples in (("blocks", blocks, 200), ("rows", rows, 60)):
            weights = draw_blocks(units, labels, resamples, rng).weights
            low, high = percentile_interval(
                weighted_auroc(win_counts(scores, labels, units), weights)
            )
            covered[name] += low <= 0.5 <= high
    assert 0.89 <= covered["blocks"] / reps <= 0.99
    assert covered["rows"] / reps < 0.8
