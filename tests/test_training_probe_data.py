"""Shards, blocks and moments against the whole array in memory."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from longscale.errors import LongscaleError
from longscale.training.probe_data import Examples, Moments, Shards
from longscale.training.probe_folds import chromosome_folds


def write_shards(folder, values, shard_rows=7, bins=None):
    folder.mkdir(parents=True, exist_ok=True)
    rows, pieces, width = values.shape
    for number, start in enumerate(range(0, rows, shard_rows)):
        part = values[start : start + shard_rows].astype(np.float16)
        np.save(folder / f"shard-{number:05}.npy", part)
    index = {"rows": rows, "pieces": pieces, "width": width, "shard_rows": shard_rows, "bins": bins}
    (folder / "index.json").write_text(json.dumps(index))
    return Shards(folder)


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(3, 2, (40, 4, 3)).astype(np.float16)


def make_rows(n):
    return pd.DataFrame(
        {
            "row": np.arange(n),
            "contig": [f"chr{1 + number % 5}" for number in range(n)],
            "anchor": np.arange(n)[::-1],
            **dict.fromkeys(("ref", "alt", "tissue", "strand"), ""),
            "split": np.where(np.arange(n) % 5 == 4, "test", "train"),
        }
    )


def test_rows_come_in_the_order_asked_for(tmp_path, values):
    shards = write_shards(tmp_path, values)
    numbers = np.random.default_rng(1).integers(0, 40, 60)
    np.testing.assert_array_equal(shards.read(numbers), values[numbers])
    assert shards.read(np.array([], int)).shape == (0, 4, 3)


def test_an_index_that_is_not_there_or_does_not_fit(tmp_path, values):
    with pytest.raises(LongscaleError, match=r"index\.json: cannot be read"):
        Shards(tmp_path)
    shards = write_shards(tmp_path, values)
    np.save(tmp_path / "shard-00001.npy", values[:3])
    with pytest.raises(LongscaleError, match=r"shard-00001\.npy: \(3, 4, 3\) is not the shape"):
        shards.read(np.array([8]))
    (tmp_path / "shard-00002.npy").unlink()
    with pytest.raises(LongscaleError, match=r"shard-00002\.npy: not a readable shard"):
        shards.read(np.array([15]))


@pytest.fixture
def profile(tmp_path, values):
    labels = np.random.default_rng(2).exponential(size=(40, 9, 2)).astype(np.float16)
    shards = write_shards(tmp_path, values)
    none = np.full(40, -1)
    return Examples(shards, none, 0, labels, profile=True, first_bin=3, log_labels=True)


def test_a_profile_has_one_position_per_covered_bin(profile, values):
    batch = profile.read(np.array([11, 4]))
    np.testing.assert_array_equal(batch.features, values[[11, 4]].reshape(8, 3))
    expected = np.log1p(profile.labels[[11, 4], 3:7].astype(np.float32)).reshape(8, 2)
    np.testing.assert_array_equal(batch.labels, expected)


@pytest.mark.parametrize("block_bytes", [1, 100, 1 << 20])
def test_an_epoch_holds_every_position_once_features_beside_labels(profile, block_bytes):
    examples = replace(profile, block_bytes=block_bytes)
    numbers = np.arange(30)
    whole = examples.read(numbers)
    expected = np.hstack([whole.features, whole.labels])

    def epoch(generator):
        batches = list(examples.batches(numbers, 5, generator))
        assert max(len(batch.labels) for batch in batches) <= 5
        return np.vstack([np.hstack([batch.features, batch.labels]) for batch in batches])

    np.testing.assert_array_equal(epoch(None), expected)
    shuffled = epoch(np.random.default_rng(4))
    assert not np.array_equal(shuffled, expected)
    np.testing.assert_array_equal(np.unique(shuffled, axis=0), np.unique(expected, axis=0))
    assert len(shuffled) == len(expected)


@pytest.mark.parametrize("block_bytes", [100, 1 << 20])
def test_the_standard_of_a_fold_is_that_of_its_training_rows(profile, block_bytes):
    examples = replace(profile, block_bytes=block_bytes)
    folds = chromosome_folds(make_rows(40))
    moments = Moments.of(examples, folds)
    for fold in range(5):
        batch = examples.read(folds.train_rows(fold))
        standards = moments.standard(folds.train_groups(fold))
        for standard, own in zip(standards, (batch.features, batch.labels), strict=True):
            own = own.astype(np.float64)
            np.testing.assert_allclose(standard.mean, own.mean(axis=0), rtol=1e-12)
            np.testing.assert_allclose(standard.spread, own.std(axis=0), rtol=1e-9)


def test_a_constant_column_has_spread_one(tmp_path, values):
    values[..., 1] = 0.1
    shards = write_shards(tmp_path, values)
    examples = Examples(shards, np.full(40, -1), 0, np.ones((40, 1)))
    folds = chromosome_folds(make_rows(40))
    features, labels = Moments.of(examples, folds).standard(folds.train_groups(0))
    np.testing.assert_array_equal(features.spread == 1, np.arange(12) % 3 == 1)
    assert labels.spread == 1


@pytest.mark.parametrize("bad", [-0.5, np.nan, np.inf])
def test_a_label_that_has_no_logarithm_is_named(profile, bad):
    profile.labels[6, 4, 1] = bad
    with pytest.raises(LongscaleError, match=r"label 1 of row 6 is .*finite number of 0 or more"):
        profile.read(np.array([5, 6]))


def test_an_embedding_that_is_not_finite_is_named(tmp_path, values):
    values[33, 1, 2] = np.inf
    examples = Examples(write_shards(tmp_path, values), np.full(40, -1), 0, np.ones((40, 1)))
    with pytest.raises(LongscaleError, match="embedding of row 33"):
        examples.read(np.arange(30, 40))


def test_no_more_than_a_block_is_in_memory(profile, monkeypatch):
    read, sizes = profile.source.read, []

    def counted(numbers):
        found = read(numbers)
        sizes.append(found.nbytes)
        return found

    monkeypatch.setattr(profile.source, "read", counted)
    examples = replace(profile, block_bytes=100)  # a row has 4 x 3 float16: 24 bytes
    for _ in examples.batches(np.arange(40), 5, np.random.default_rng(0)):
        pass
    assert sizes == [96] * 10
    sizes.clear()
    Moments.of(examples, chromosome_folds(make_rows(40)))
    assert max(sizes) == 96
    assert sum(sizes) == 32 * 24  # no test row
