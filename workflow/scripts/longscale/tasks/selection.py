"""Which of the eligible documents are the test, and which the dev set.

`spectral` is the paper's way (Fig. 1 of arXiv 2501.08570): documents are clustered spectrally, and
from each cluster as many are drawn as its size asks for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from longscale.errors import LongscaleError

MOST_CLUSTERED = 4000
"""Spectral clustering compares every document with every other; of more documents this many are
drawn first."""

FEWEST_CLUSTERED = 4
CLUSTERED_CHARACTERS = 10_000  # of each document: its beginning tells what it is about
N_GRAMS = (2, 3)
MOST_TERMS = 50_000
SMALLEST_AFFINITY = 1e-6  # keeps the graph of the documents in one piece


@dataclass(frozen=True)
class Pool:
    """The eligible documents: texts, and whether each may be a test or a dev document (bool)."""

    texts: Sequence[str]
    may_test: np.ndarray
    may_dev: np.ndarray


@dataclass(frozen=True)
class Selection:
    """What became of each eligible document.

    split: (documents,) `test`, `dev` or empty. cluster: (documents,) int, the largest cluster is
    0, -1 where there is none. place: (documents, 2) float, the first two spectral coordinates or
    NaN.
    """

    split: np.ndarray
    cluster: np.ndarray
    place: np.ndarray


def select_documents(
    pool: Pool,
    *,
    select: str,
    test_documents: int,
    dev_documents: int,
    clusters: int,
    seed: int,
    listed: Sequence[int] = (),
) -> Selection:
    """Choose test documents, then dev documents among the rest; the same seed, the same choice.

    `select`: a key of `SELECTIONS`, or `lines`, where the test documents are those at the indices
    `listed` and the dev documents are random. Raises LongscaleError where documents are too few.
    """
    n_documents = len(pool.texts)
    rng = np.random.default_rng(seed)
    cluster, place = np.full(n_documents, -1), np.full((n_documents, 2), np.nan)
    usable = np.ones(n_documents, bool)
    if select == "spectral":
        rows = np.arange(n_documents)
        if n_documents > MOST_CLUSTERED:
            rows = np.sort(rng.choice(n_documents, MOST_CLUSTERED, replace=False))
        cluster[rows], place[rows] = cluster_documents(
            [pool.texts[row] for row in rows], clusters, seed
        )
        usable = cluster >= 0
    draw = SELECTIONS.get(select, draw_random)
    split = np.full(n_documents, "", dtype=object)
    if select == "lines":
        split[list(listed)] = "test"
    else:
        rows = np.flatnonzero(usable & pool.may_test)
        split[_draw_enough(draw, rows, test_documents, "test", cluster, rng)] = "test"
    rows = np.flatnonzero(usable & pool.may_dev & (split == ""))
    split[_draw_enough(draw, rows, dev_documents, "dev", cluster, rng)] = "dev"
    return Selection(split, cluster, place)


def _draw_enough(
    draw: Callable[..., np.ndarray],
    rows: np.ndarray,
    count: int,
    split: str,
    cluster: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    if count > len(rows):
        raise LongscaleError(
            f"{split}_documents is {count}, but only {len(rows)} long enough documents are there "
            f"to choose them from; ask for fewer, for shorter lengths, or give longer documents"
        )
    return draw(rows, count, cluster, rng) if count else rows[:0]


def draw_random(
    rows: np.ndarray,
    count: int,
    cluster: np.ndarray,  # noqa: ARG001
    rng: np.random.Generator,
) -> np.ndarray:
    """`count` of the `rows`, each as likely as any other."""
    return rng.choice(rows, count, replace=False)


def draw_evenly(
    rows: np.ndarray,
    count: int,
    cluster: np.ndarray,  # noqa: ARG001
    rng: np.random.Generator,  # noqa: ARG001
) -> np.ndarray:
    """The middles of `count` equal stretches of `rows`."""
    return rows[(2 * np.arange(count) + 1) * len(rows) // (2 * count)]


def draw_stratified(
    rows: np.ndarray, count: int, cluster: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """`count` of the `rows`, from each cluster a number proportional to its size."""
    names, sizes = np.unique(cluster[rows], return_counts=True)
    chosen = [
        rng.choice(rows[cluster[rows] == name], share, replace=False)
        for name, share in zip(names, apportion(sizes, count), strict=True)
    ]
    return np.concatenate(chosen)


def apportion(sizes: np.ndarray, count: int) -> np.ndarray:
    """Divide `count` in proportion to `sizes` by the largest remainder (Hare's quota).

    A tie goes to the larger size, then to the first. No share exceeds its size.
    """
    quota = count * sizes  # times the sum of the sizes: whole numbers leave no room for rounding
    shares, remainders = quota // sizes.sum(), quota % sizes.sum()
    order = np.lexsort((np.arange(len(sizes)), -sizes, -remainders))
    shares[order[: count - shares.sum()]] += 1
    return shares


SELECTIONS: dict[str, Callable[..., np.ndarray]] = {
    "random": draw_random,
    "even": draw_evenly,
    "spectral": draw_stratified,
}
"""Selection -> function (rows, count, cluster of each document, generator) -> chosen rows."""


def cluster_documents(
    texts: Sequence[str], clusters: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Spectral clusters of documents, and their first two spectral coordinates.

    Affinity is the cosine of the TF-IDF weights of character n-grams, which asks for no word
    boundaries and so suits any script. Returns (documents,) int, the largest cluster first, and
    (documents, 2) float. There are never more clusters than documents. Raises LongscaleError for
    fewer than four documents.
    """
    if len(texts) < FEWEST_CLUSTERED:
        raise LongscaleError(
            f"select: 'spectral' needs at least {FEWEST_CLUSTERED} long enough documents, and "
            f"there are {len(texts)}; 'random' does with fewer"
        )
    # A second to import, and needed here only.
    from sklearn.cluster import SpectralClustering
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.manifold import SpectralEmbedding

    weights = TfidfVectorizer(
        analyzer="char", ngram_range=N_GRAMS, sublinear_tf=True, max_features=MOST_TERMS
    ).fit_transform([text[:CLUSTERED_CHARACTERS] for text in texts])
    affinity = np.maximum((weights @ weights.T).toarray(), SMALLEST_AFFINITY)
    clustering = SpectralClustering(
        min(clusters, len(texts)), affinity="precomputed", random_state=seed
    )
    embedding = SpectralEmbedding(2, affinity="precomputed", random_state=seed)
    return _largest_first(clustering.fit_predict(affinity)), embedding.fit_transform(affinity)


def _largest_first(labels: np.ndarray) -> np.ndarray:
    """Labels counted by falling size (then by first member): they mean the same in every run."""
    _, first, codes, sizes = np.unique(
        labels, return_index=True, return_inverse=True, return_counts=True
    )
    return np.argsort(np.lexsort((first, -sizes)))[codes]
