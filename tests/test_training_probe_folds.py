"""Folds never share a chromosome, and do not depend on how the rows are sorted."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longscale.errors import LongscaleError
from longscale.training.probe_folds import chromosome_folds, count_overlaps, random_folds


def make_rows(contigs, rng, test=("chr8",)):
    n = len(contigs)
    frame = pd.DataFrame(
        {
            "row": np.arange(n),
            "contig": contigs,
            "anchor": rng.permutation(10 * n)[:n],
            "ref": "A",
            "alt": rng.choice(list("CGT"), n),
            "tissue": rng.choice(["liver", "lung"], n),
            "strand": "",
        }
    )
    return frame.assign(split=np.where(frame["contig"].isin(test), "test", "train"))


def parts(folds, fold):
    return folds.train_rows(fold), folds.valid_rows(fold), folds.test()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=80),
    st.integers(0, 5),
    st.randoms(use_true_random=False),
)
def test_parts_share_no_chromosome_and_hold_every_row_once(numbers, seed, shuffler):
    shuffler.shuffle(numbers)
    rows = make_rows([f"chr{number}" for number in numbers], np.random.default_rng(seed))
    if len(set(numbers) - {8}) < 2:
        with pytest.raises(LongscaleError, match="two or more"):
            chromosome_folds(rows, seed=seed)
        return
    folds = chromosome_folds(rows, seed=seed)
    for fold in range(5):
        of_parts = parts(folds, fold)
        contigs = [set(rows["contig"].to_numpy()[part]) for part in of_parts]
        assert len(set.union(*contigs)) == sum(map(len, contigs))
        assert sorted(np.concatenate(of_parts)) == list(range(len(rows)))
        assert contigs[2] <= {"chr8"}
        assert len(contigs[1]) == 1
    assert len(set(folds.valid)) == min(5, len(set(numbers) - {8}))


@pytest.mark.parametrize("make_folds", [chromosome_folds, random_folds])
def test_order_of_the_file_does_not_matter(make_folds):
    rng = np.random.default_rng(3)
    rows = make_rows(rng.choice(["chr1", "chr2", "chr3", "chr8"], 200), rng)
    shuffled = rows.sample(frac=1, random_state=1)
    renumbered = shuffled.assign(row=np.arange(200))
    old_number = shuffled["row"].to_numpy()
    for fold in range(5):
        first, second = (parts(make_folds(frame), fold) for frame in (rows, renumbered))
        for one, other in zip(first, second, strict=True):
            np.testing.assert_array_equal(one, old_number[other])


def test_random_folds_validate_on_distinct_tenths():
    rng = np.random.default_rng(0)
    rows = make_rows(rng.choice(["chr1", "chr8"], 104), rng)
    rows["split"] = rng.choice(["train", "valid", "test"], 104)  # a split that ignores contigs
    folds = random_folds(rows)
    n_open = (rows["split"] != "test").sum()
    assert set(folds.test()) == set(rows.index[rows["split"] == "test"])
    valid = [set(folds.valid_rows(fold)) for fold in range(5)]
    assert len(set.union(*valid)) == sum(map(len, valid))
    assert {len(part) for part in valid} <= {n_open // 10, n_open // 10 + 1}
    assert not np.array_equal(folds.group, random_folds(rows, seed=2).group)


def test_a_chromosome_with_test_and_training_rows_is_refused():
    rows = make_rows(["chr1", "chr2", "chr8", "chr8"], np.random.default_rng(0))
    rows.loc[3, "split"] = "train"
    with pytest.raises(LongscaleError, match="chr8: the chromosome holds both"):
        chromosome_folds(rows)


def test_a_row_number_that_stands_twice_is_refused():
    rows = make_rows(["chr1", "chr2"], np.random.default_rng(0)).assign(row=[0, 0])
    with pytest.raises(LongscaleError, match="each once"):
        chromosome_folds(rows)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 60)), min_size=2, max_size=30),
    st.integers(1, 25),
)
def test_overlaps_are_pairs_of_intervals_that_share_a_base(places, bp):
    rows = pd.DataFrame(places, columns=["contig", "anchor"]).assign(row=range(len(places)))
    half = len(places) // 2
    train, which = np.arange(half), np.arange(half, len(places))

    def bases(row):
        contig, anchor = places[row]
        return {(contig, base) for base in range(anchor - bp // 2, anchor - bp // 2 + bp)}

    slow = sum(any(bases(row) & bases(other) for other in train) for row in which)
    assert count_overlaps(rows, which, train, bp) == slow
