"""A user's features find the rows of the task that they belong to."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longscale.errors import LongscaleError
from longscale.evaluation.lrb_table import (
    ProbeCell,
    TaskFiles,
    build_lrb_table,
)
from longscale.training.probe import ProbeSettings, run_probe
from longscale.training.probe_features import read_features


@pytest.fixture
def rows():
    return pd.DataFrame(
        {
            "row": [0, 1, 2, 3],
            "contig": ["chr1", "chr1", "chr2", "chr2"],
            "anchor": [9, 9, 19, 29],
            "ref": ["A", "A", "C", "G"],
            "alt": ["T", "T", "G", "A"],
            "tissue": ["liver", "lung", "liver", "lung"],
        }
    )


@pytest.fixture
def features():
    return pd.DataFrame(
        {
            "contig": ["chr2", "chr1", "chr3"],
            "pos": [20, 10, 1],
            "ref": ["c", "A", "A"],
            "alt": ["G", "t", "C"],
            "gc": [0.25, 0.5, 0.0],
            "distance": [3, 4, 5],
        }
    )


def write(frame, tmp_path):
    path = tmp_path / "mine.parquet"
    frame.to_parquet(path)
    return path


def test_a_variant_serves_all_its_tissues_and_what_is_unmatched_is_told(tmp_path, rows, features):
    shuffled = rows.sample(frac=1, random_state=2)
    found = read_features(write(features, tmp_path), shuffled, leave_out_missing=True)
    assert found.names == ("gc", "distance")
    assert (found.rows, found.pieces, found.width) == (4, 1, 2)
    np.testing.assert_array_equal(found.matched, [True, True, True, False])
    np.testing.assert_array_equal(
        found.read(np.array([2, 0, 1]))[:, 0], [[0.25, 3], [0.5, 4], [0.5, 4]]
    )
    assert "1 of the task's 4 rows have no features" in found.unmatched
    assert "1 of the file's 3 variants are not in the task" in found.unmatched


def test_with_tissues_each_row_finds_its_own(tmp_path, rows, features):
    mine = pd.concat(
        [features.iloc[[1]].assign(tissue=t, gc=g) for t, g in [("lung", 1), ("x", 2)]]
    )
    found = read_features(write(mine, tmp_path), rows, leave_out_missing=True)
    np.testing.assert_array_equal(found.matched, [False, True, False, False])
    assert found.values[1, 0, 0] == 1


def with_lists(frame, lists):
    return frame.drop(columns=["gc", "distance"]).assign(state=lists)


@pytest.mark.parametrize("kind", ["list", "fixed"])
def test_one_column_of_lists_is_the_same_as_many_of_numbers(tmp_path, rows, features, kind):
    columns = read_features(write(features[:2], tmp_path), rows[:3])
    lists = with_lists(features, features[["gc", "distance"]].to_numpy(float).tolist())
    table = pa.Table.from_pandas(lists[:2], preserve_index=False)
    if kind == "fixed":
        state = pa.array(lists["state"][:2].tolist(), pa.list_(pa.float32(), 2))
        table = table.set_column(table.column_names.index("state"), "state", state)
    pq.write_table(table, tmp_path / "lists.parquet", row_group_size=1)
    found = read_features(tmp_path / "lists.parquet", rows[:3])
    np.testing.assert_array_equal(found.values, columns.values)
    assert found.names == ("state[0]", "state[1]")


def test_a_whole_match_says_nothing(tmp_path, rows, features):
    assert read_features(write(features[:2], tmp_path), rows[:3]).unmatched == ""


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda frame: frame, "1 of the task's 4 rows have no features, first of them chr2 30 G A"),
        (lambda frame: frame.assign(pos=1.5), "column 'pos' is double, whole numbers"),
        (lambda frame: frame.assign(ref=["A", None, "C"]), "row 2: column 'ref' is empty"),
        (lambda frame: frame.assign(gc=1e300), "column 'gc' must hold finite numbers"),
        (lambda frame: frame.assign(gc=[[1.0]] * 3), "'gc' holds lists and stands beside 1 other"),
        (lambda frame: with_lists(frame, [[1, 2], [3], [4, 5]]), "row 2: .* a list of 1 numbers"),
        (lambda frame: with_lists(frame, [[1, 2], None, [4, 5]]), "row 2: .* a list of 0 numbers"),
        (lambda frame: with_lists(frame, [[], [], []]), "row 1: .* one or more are expected"),
        (lambda frame: with_lists(frame, [[1], [np.nan], [2]]), "'state' must hold finite numbers"),
        (lambda frame: frame.drop(columns="pos"), "column 'pos' is missing"),
        (lambda frame: frame[["contig", "pos", "ref", "alt"]], "no column holds a feature"),
        (lambda frame: frame.assign(gc="high"), "column 'gc' must hold finite numbers"),
        (lambda frame: frame.assign(gc=np.nan), "column 'gc' must hold finite numbers"),
        (lambda frame: pd.concat([frame, frame]), "chr2 20 C G stands more than once"),
        (lambda frame: frame.assign(contig="1"), "none of its 3 variants is one of the task's"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path, rows, features, change, sentence):
    with pytest.raises(LongscaleError, match=sentence):
        read_features(write(change(features), tmp_path), rows)
    (tmp_path / "mine.parquet").write_text("contig,pos")
    with pytest.raises(LongscaleError, match="not a readable parquet file"):
        read_features(tmp_path / "mine.parquet", rows)


def test_a_features_file_is_probed_and_lands_in_the_leaderboard(tmp_path):
    """A feature that tells the label, among noise, in float32 only: 1e6 is no float16."""
    n, rng = 300, np.random.default_rng(0)
    contig = rng.choice(["chr1", "chr2", "chr3", "chr9"], n)
    rows = pd.DataFrame(
        {
            "row": np.arange(n),
            "contig": contig,
            "anchor": rng.permutation(10**6)[:n],
            "ref": "A",
            "alt": "C",
            "tissue": rng.choice(["liver", "lung"], n),
            "strand": "",
            "split": np.where(contig == "chr9", "test", "train"),
        }
    )
    labels = rng.integers(0, 2, (n, 1)).astype(np.float32)
    mine = rows[["contig", "ref", "alt"]].assign(pos=rows["anchor"] + 1)
    mine["state"] = list(np.stack([1e6 * labels[:, 0], rng.normal(size=n)], axis=1))
    found = read_features(write(mine.sample(frac=1, random_state=1), tmp_path), rows)
    cell = ProbeCell.from_path(tmp_path / "t/mine/0/none/none")
    settings = ProbeSettings(epochs=20, learning_rate=1e-2, batch=16, folds=2)
    options = {"kind": "variant", "outputs": ["label"], "context_bp": 0, "settings": settings}
    run_probe(rows, found, labels, cell.path, **options, report=lambda line: None)
    rows.to_parquet(tmp_path / "t.parquet")
    np.save(tmp_path / "t.labels.npy", labels)
    files = TaskFiles(tmp_path / "t.parquet", tmp_path / "t.labels.npy")
    table = build_lrb_table([cell], {"t": files}, resamples=20, report=lambda line: None)
    best = table[table["metric"] == "auroc"].iloc[0]
    assert best[["model", "context_bp", "metric", "value"]].tolist() == ["mine", 0, "auroc", 1]
