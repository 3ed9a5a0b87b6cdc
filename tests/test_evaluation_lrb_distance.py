"""AUROC within groups of tissue and distance, against the rows picked by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lrb_cells import FOLDS, RNG, N, write_cell, write_task
from sklearn.metrics import roc_auc_score

from longscale.evaluation.lrb_distance import ALL, DISTANCE_COLUMNS, build_distance_table
from longscale.evaluation.lrb_table import build_lrb_table
from longscale.tasks.gene_starts import bucket_names

EDGES = (0, 70_000, 130_000)


@pytest.fixture
def made(tmp_path):
    rng = RNG(0)
    labels = rng.integers(0, 2, (N, 1)).astype(np.float32)
    rows, files = write_task(tmp_path / "rows", "t", labels, pd.DataFrame({"row": [0]}))
    files = type(files)(files.rows, files.labels)
    test = np.flatnonzero(rows["split"] == "test")
    frame = pd.DataFrame({"row": test})
    for fold in range(FOLDS):
        frame[f"fold{fold}:label"] = (labels[test, 0] + rng.normal(size=test.size)).astype("f4")
    cell = write_cell(tmp_path, frame, "variant", ["label"])
    return labels[:, 0], rows, files, frame, cell


def build(cell, files, edges=EDGES, **options):
    quiet = {"resamples": 200, "report": lambda line: None}
    return build_distance_table([cell], {"t": files}, edges=edges, **quiet | options)


def test_groups_hold_the_rows_that_belong_there(made):
    labels, rows, files, frame, cell = made
    table = build(cell, files)
    assert list(table.columns) == DISTANCE_COLUMNS
    own = rows.set_index("row").loc[frame["row"]]
    distance = own["tss_distance"].abs()
    inside = {
        ALL: distance.fillna(0) >= 0,
        "0-69999": distance < 70_000,
        "70000-129999": (distance >= 70_000) & (distance < 130_000),
        "130000-": distance >= 130_000,
        "unknown": distance.isna(),
    }
    for row in table.itertuples():
        chosen = inside[row.tss_distance].to_numpy().copy()
        if row.tissue != ALL:
            chosen &= (own["tissue"] == row.tissue).to_numpy()
        of_group = labels[frame["row"]][chosen]
        assert (row.n, row.positives) == (chosen.sum(), of_group.sum())
        if 0 < row.positives < row.n:
            slow = [
                roc_auc_score(of_group, frame[f"fold{fold}:label"][chosen]) for fold in range(FOLDS)
            ]
            assert row.auroc == pytest.approx(np.mean(slow))
        if row.n > 20:
            assert row.auroc_lo < row.auroc < row.auroc_hi
    assert set(table["tissue"]) == {ALL, "liver", "lung"}
    assert len(table) == 15


def test_all_rows_have_the_interval_of_the_benchmarks_table(made):
    _, _, files, _, cell = made
    first = build(cell, files).iloc[0]
    table = build_lrb_table([cell], {"t": files}, resamples=200, report=lambda line: None)
    same = table.iloc[0]
    assert [first["auroc"], first["auroc_lo"], first["auroc_hi"], first["n"]] == [
        *same[["value", "value_lo", "value_hi", "n"]]
    ]


@settings(max_examples=15, deadline=None)
@given(st.sets(st.integers(1, 250_000), max_size=4))
def test_every_row_is_in_one_bucket_whatever_the_edges(tmp_path_factory, inner):
    labels = RNG(3).integers(0, 2, (N, 1)).astype(np.float32)
    folder = tmp_path_factory.mktemp("buckets")
    rows, files = write_task(folder / "rows", "t", labels, pd.DataFrame({"row": [0]}))
    files = type(files)(files.rows, files.labels)
    test = np.flatnonzero(rows["split"] == "test")
    frame = pd.DataFrame({"row": test, **{f"fold{fold}:label": labels[test, 0] for fold in (0, 1)}})
    edges = (0, *sorted(inner))
    table = build(write_cell(folder, frame, "variant", ["label"]), files, edges, resamples=5)
    for _, of_tissue in table.groupby("tissue"):
        counts = of_tissue.set_index("tss_distance")[["n", "positives"]]
        assert (counts.drop(ALL).sum() == counts.loc[ALL]).all()
        order = [ALL, *bucket_names(edges), "unknown"]
        assert list(counts.index) == [name for name in order if name in counts.index]


def test_a_group_of_one_class_has_no_auroc_and_says_how_small_it_is(made):
    _, rows, files, _, cell = made
    labels = np.load(files.labels)
    labels[rows["tissue"] == "lung"] = 0
    np.save(files.labels, labels)
    lung = build(cell, files).query("tissue == 'lung' and tss_distance == 'all'").iloc[0]
    assert np.isnan(lung[["auroc", "auroc_lo", "auroc_hi"]].astype(float)).all()
    assert lung["positives"] == 0
    assert "few_of_class" in lung["flags"]
    assert "rows_left_out" not in lung["flags"]


def test_zero_shot_scores_count_too_and_regressions_do_not(tmp_path, made):
    _, _, files, frame, cell = made
    scores = frame.set_axis(["row", "cosine", "llr"], axis=1)
    scores.to_parquet(cell.path / "zero_shot.parquet")
    (cell.path / "folds.json").unlink()
    table = build(cell, files)
    assert set(table["metric"]) == {"auroc_cosine", "auroc_llr"}
    assert (table["folds"] == 0).all()
    other = write_cell(tmp_path, frame, "expression", ["label"], model="r")
    assert build(other, files).empty
