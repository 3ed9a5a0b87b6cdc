"""Which documents are held out: shares, clusters, seeds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from longscale.errors import LongscaleError
from longscale.tasks import selection
from longscale.tasks.selection import (
    Pool,
    apportion,
    cluster_documents,
    draw_evenly,
    select_documents,
)

WORDS = {
    "garden": ["rose", "tulip", "spade", "soil", "water", "bloom", "leaf", "root", "seed", "hedge"],
    "sea": ["wave", "ship", "sail", "anchor", "tide", "fish", "reef", "storm", "mast"],
    "maths": ["proof", "lemma", "integer", "prime", "vector", "limit", "group", "ring"],
}
SIZES = {"garden": 12, "sea": 6, "maths": 3}


@pytest.fixture(scope="module")
def library():
    """Texts of three subjects in mixed order, and the subject of each."""
    rng = np.random.default_rng(4)
    subjects = [subject for subject, size in SIZES.items() for _ in range(size)]
    rng.shuffle(subjects)
    return [" ".join(rng.choice(WORDS[subject], 80)) for subject in subjects], subjects


def pool_of(texts, may_test=None, may_dev=None):
    everything = np.ones(len(texts), bool)
    return Pool(
        texts,
        everything if may_test is None else may_test,
        everything if may_dev is None else may_dev,
    )


def choose(pool, **changed):
    settings = {
        "select": "random",
        "test_documents": 7,
        "dev_documents": 3,
        "clusters": 3,
        "seed": 1,
    }
    return select_documents(pool, **(settings | changed))


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=8).flatmap(
        lambda sizes: st.tuples(st.just(sizes), st.integers(0, sum(sizes)))
    )
)
def test_shares_are_the_quotas_rounded(sizes_and_count):
    sizes, count = sizes_and_count
    shares = apportion(np.array(sizes), count)
    quotas = count * np.array(sizes) / sum(sizes)
    assert shares.sum() == count
    assert (np.abs(shares - quotas) < 1).all()
    assert (shares <= sizes).all()
    larger = np.subtract.outer(sizes, sizes) > 0
    assert (np.subtract.outer(shares, shares)[larger] >= 0).all()


def test_the_largest_remainder_decides():
    assert apportion(np.array([47, 16, 15, 12, 10]), 10).tolist() == [5, 2, 1, 1, 1]
    assert apportion(np.array([2, 2, 4]), 2).tolist() == [1, 0, 1]


def test_clusters_are_the_subjects(library):
    texts, subjects = library
    cluster, place = cluster_documents(texts, 3, seed=1)
    assert adjusted_rand_score(subjects, cluster) == 1
    assert np.bincount(cluster).tolist() == sorted(SIZES.values(), reverse=True)
    assert place.shape == (len(texts), 2)
    assert np.isfinite(place).all()
    spread = np.array([place[cluster == c].std(axis=0).max() for c in range(3)])
    centres = np.array([place[cluster == c].mean(axis=0) for c in range(3)])
    assert np.linalg.norm(centres[0] - centres[1]) > 3 * spread.max()


def test_spectral_selection_takes_from_each_cluster_its_share(library):
    texts, subjects = library
    chosen = choose(pool_of(texts), select="spectral")
    for split, counts in (("test", [4, 2, 1]), ("dev", [2, 1, 0])):
        taken = [subjects[row] for row in np.flatnonzero(chosen.split == split)]
        assert [taken.count(subject) for subject in SIZES] == counts


@pytest.mark.parametrize("select", ["random", "spectral", "even"])
def test_the_same_seed_the_same_choice(library, select):
    texts, _ = library
    first, again, other = (choose(pool_of(texts), select=select, seed=seed) for seed in (1, 1, 2))
    assert first.split.tolist() == again.split.tolist()
    np.testing.assert_array_equal(first.place, again.place)
    assert (first.split.tolist() == other.split.tolist()) == (select == "even")
    for found in (first, other):
        assert [(found.split == split).sum() for split in ("test", "dev")] == [7, 3]


@pytest.mark.parametrize("select", ["random", "spectral", "even"])
def test_a_document_goes_only_where_it_may(library, select):
    texts, _ = library
    may_test = np.arange(len(texts)) < 12
    chosen = choose(pool_of(texts, may_test, ~may_test), select=select)
    assert may_test[chosen.split == "test"].all()
    assert not may_test[chosen.split == "dev"].any()
    assert (chosen.split == "dev").sum() == 3


def test_random_choice_reaches_every_document(library):
    texts, _ = library
    taken = sum((choose(pool_of(texts), seed=seed).split == "test") for seed in range(60))
    assert taken.min() > 0
    assert taken.sum() == 60 * 7


@given(st.integers(1, 60), st.integers(1, 60))
def test_even_choice_is_even(n_rows, count):
    count = min(count, n_rows)
    chosen = draw_evenly(np.arange(n_rows), count, None, None)
    gaps = np.diff(chosen)
    assert len(set(chosen.tolist())) == count
    assert not len(gaps) or gaps.max() - gaps.min() <= 1
    assert abs(chosen[0] - (n_rows - 1 - chosen[-1])) <= 1 + n_rows % count


def test_listed_documents_are_the_test_and_dev_is_random(library):
    texts, _ = library
    chosen = choose(pool_of(texts), select="lines", listed=[5, 2])
    assert np.flatnonzero(chosen.split == "test").tolist() == [2, 5]
    assert (chosen.split == "dev").sum() == 3


def test_without_clustering_there_is_no_cluster(library):
    texts, _ = library
    chosen = choose(pool_of(texts))
    assert set(chosen.cluster) == {-1}
    assert np.isnan(chosen.place).all()


def test_of_very_many_documents_some_are_drawn_before_clustering(library, monkeypatch):
    texts, _ = library
    monkeypatch.setattr(selection, "MOST_CLUSTERED", 15)
    chosen = choose(pool_of(texts), select="spectral")
    assert (chosen.cluster >= 0).sum() == 15
    assert (chosen.cluster[chosen.split != ""] >= 0).all()
    assert np.isnan(chosen.place[chosen.cluster < 0]).all()


@pytest.mark.filterwarnings("ignore:k >= N")  # scikit-learn goes over to the dense solver
def test_never_more_clusters_than_documents(library):
    texts, _ = library
    cluster, _ = cluster_documents(texts[:5], 9, seed=1)
    assert len(set(cluster)) <= 5


def test_documents_without_a_common_letter_are_clustered_without_a_warning(recwarn):
    texts = [letter * 40 for letter in "abcdefgh"]
    cluster, _ = cluster_documents(texts, 2, seed=1)
    assert len(cluster) == 8
    assert [str(w.message) for w in recwarn if "not fully connected" in str(w.message)] == []


def test_too_few_documents_are_one_sentence(library):
    texts, _ = library
    with pytest.raises(LongscaleError, match="test_documents is 22, but only 21 long enough"):
        choose(pool_of(texts), test_documents=22)
    with pytest.raises(LongscaleError, match="dev_documents is 15, but only 14 long enough"):
        choose(pool_of(texts), dev_documents=15)
    with pytest.raises(LongscaleError, match="at least 4 long enough documents, and there are 3"):
        choose(pool_of(texts[:3]), select="spectral", test_documents=1, dev_documents=1)
