"""Bootstrap of AUROC over genomic blocks and seeds, exact and fast.

Variants that lie close together share sequence, linkage and often the label, so single rows are
never resampled: a draw takes whole blocks of the genome with replacement, and fine-tuning seeds
with replacement (a hierarchical bootstrap, Davison and Hinkley 1997, section 3.8).

AUROC is the Mann-Whitney U statistic over its maximum (Hanley and McNeil 1982). If a draw takes
block b with multiplicity w_b, and M_ij is the number of pairs of a positive of block i and a
negative of block j in which the positive has the higher score (ties count 1/2), the AUROC of the
drawn rows is

    w' M w / ((w' p) (w' q)),    p_b, q_b: positives and negatives of block b.

M is counted once per score column; a draw then costs one quadratic form instead of a sort. All
counts are whole numbers (wins are stored doubled) below 2^53, so that float64 holds them exactly
and the result depends neither on the order of summation nor on the number of threads.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

LEVEL = 0.95

# Cells of the temporary (positives, blocks) array of win_counts: 8 MB of float64.
_CHUNK_CELLS = 1_000_000


@dataclass(frozen=True)
class WinCounts:
    """Pairs won by positives against negatives, by block.

    doubled: (positive_blocks, negative_blocks) twice the wins, so that a tie counts 1.
    positive_blocks, negative_blocks: the blocks of the rows and columns, ascending.
    positives, negatives: rows of that class in each of these blocks.
    """

    doubled: np.ndarray
    positive_blocks: np.ndarray
    negative_blocks: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray


@dataclass(frozen=True)
class BlockDraws:
    """`weights` (resamples, blocks): how often each draw takes each block, float64 whole numbers.

    `redrawn` counts the draws that held one class only and were drawn again.
    """

    weights: np.ndarray
    redrawn: int


def draw_generator(seed: int, *names: str) -> np.random.Generator:
    """Random numbers that are a function of `seed` and `names` alone."""
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])


def block_ids(contigs: pd.Series, pos: pd.Series, block_bp: int) -> np.ndarray:
    """Number the occupied blocks of `block_bp` bp along each contig: (rows,) int64 from 0.

    `pos` is 1-based; block k of a contig is the 0-based, half-open interval
    [k * block_bp, (k + 1) * block_bp). Numbers ascend by contig name, then along the contig.
    """
    index = (pos.to_numpy(np.int64) - 1) // block_bp
    blocks = pd.MultiIndex.from_arrays([contigs.to_numpy(str), index])
    return np.asarray(blocks.unique().sort_values().get_indexer(blocks))


def draw_blocks(
    blocks: np.ndarray, labels: np.ndarray, resamples: int, generator: np.random.Generator
) -> BlockDraws:
    """Draw as many blocks as there are, with replacement, `resamples` times.

    `blocks` and `labels` are (rows,). A draw that lacks a class has no AUROC: it is drawn again,
    and counted. Both classes must be present in the rows.
    """
    n_blocks = int(blocks.max()) + 1
    positives = np.bincount(blocks[labels == 1], minlength=n_blocks)
    negatives = np.bincount(blocks[labels == 0], minlength=n_blocks)
    weights = np.empty((resamples, n_blocks))
    todo = np.arange(resamples)
    redrawn = 0
    while todo.size:
        weights[todo] = generator.multinomial(n_blocks, np.full(n_blocks, 1 / n_blocks), todo.size)
        todo = todo[(weights[todo] @ positives == 0) | (weights[todo] @ negatives == 0)]
        redrawn += todo.size
    return BlockDraws(weights, redrawn)


def draw_seeds(n_seeds: int, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """Draw `n_seeds` seeds with replacement: (n_seeds, resamples) shares that sum to 1."""
    counts = generator.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), resamples)
    return counts.T / n_seeds


def win_counts(scores: np.ndarray, labels: np.ndarray, blocks: np.ndarray) -> WinCounts:
    """Count, for each pair of blocks, the pairs of rows that the positive wins.

    `scores`, `labels` and `blocks` are (rows,); scores are finite. Time and memory follow
    rows + positives x blocks, not positives x negatives.
    """
    positive = labels == 1
    positive_blocks, row_of = np.unique(blocks[positive], return_inverse=True)
    negative_blocks, column_of = np.unique(blocks[~positive], return_inverse=True)
    order = np.argsort(scores[positive], kind="stable")
    thresholds, row_of_rank = scores[positive][order], row_of[order]

    # From its left rank on, positives tie with a negative or beat it; from its right rank on they
    # beat it. Counted at both, a win is 2 and a tie 1.
    first_rank = np.concatenate(
        [np.searchsorted(thresholds, scores[~positive], side) for side in ("left", "right")]
    )
    column_of_rank = np.concatenate([column_of, column_of])

    shape = (positive_blocks.size, negative_blocks.size)
    doubled = np.zeros(shape)
    beaten = np.zeros(shape[1])
    step = max(1, _CHUNK_CELLS // max(1, shape[1]))
    for start in range(0, thresholds.size, step):
        ranks = min(step, thresholds.size - start)
        inside = (first_rank >= start) & (first_rank < start + ranks)
        cells = (first_rank[inside] - start) * shape[1] + column_of_rank[inside]
        counts = np.bincount(cells, minlength=ranks * shape[1]).reshape(ranks, shape[1])
        wins = np.cumsum(counts, axis=0) + beaten  # rank, negative block
        rank = np.arange(ranks)
        members = (np.ones(ranks), (row_of_rank[start : start + ranks], rank))
        doubled += csr_array(members, shape=(shape[0], ranks)) @ wins
        beaten = wins[-1]
    return WinCounts(
        doubled, positive_blocks, negative_blocks, np.bincount(row_of), np.bincount(column_of)
    )


def weighted_auroc(wins: WinCounts, weights: np.ndarray) -> np.ndarray:
    """AUROC of each draw: `weights` (draws, blocks) -> (draws,).

    A draw that lacks a class gives NaN.
    """
    of_positives = weights[:, wins.positive_blocks]
    of_negatives = weights[:, wins.negative_blocks]
    won = np.einsum("dj,dj->d", of_positives @ wins.doubled, of_negatives) / 2
    pairs = (of_positives @ wins.positives) * (of_negatives @ wins.negatives)
    return np.divide(won, pairs, out=np.full(won.shape, np.nan), where=pairs > 0)


def percentile_interval(values: np.ndarray) -> tuple[float, float]:
    """The central 95% of bootstrap values (draws,): Efron's percentile interval."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
