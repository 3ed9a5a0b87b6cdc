"""The benchmark's table against its numbers computed by hand from the same files."""

from dataclasses import replace
from pathlib import Path
from statistics import stdev

import numpy as np
import pandas as pd
import pytest
from lrb_cells import FOLDS, RNG, N, write_cell, write_task
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, average_precision_score, r2_score, roc_auc_score

from longscale.errors import LongscaleError
from longscale.evaluation import lrb_table
from longscale.evaluation.compare import write_table
from longscale.evaluation.lrb_table import (
    LRB_COLUMNS,
    ProbeCell,
    build_detail_table,
    build_lrb_table,
    read_lrb_table,
    read_published,
)

PUBLISHED = Path(__file__).resolve().parents[1] / "resources" / "lrb_published.tsv"
OUTPUTS, BINS = 3, 4


def build(cells, files, **options):
    return build_lrb_table(cells, {"t": files}, resamples=200, report=lambda line: None, **options)


def values(table):
    return table.set_index("metric")["value"]


@pytest.fixture
def variant(tmp_path):
    rng = RNG(0)
    labels = rng.integers(0, 2, (N, 1)).astype(np.float32)
    posterior = np.clip(0.8 * labels[:, 0] + rng.normal(0.1, 0.3, N), 0, 1)
    truth = pd.DataFrame({"row": np.arange(N), "label": posterior})
    rows, files = write_task(tmp_path / "rows", "t", labels, truth.sample(frac=1, random_state=0))
    test = np.flatnonzero(rows["split"] == "test")
    frame = pd.DataFrame({"row": test})
    for fold in range(FOLDS):
        frame[f"fold{fold}:label"] = (labels[test, 0] - 0.5 + rng.normal(size=test.size)).astype(
            "f4"
        )
    return labels[:, 0], rows, files, frame, truth.set_index("row")["label"]


def test_classification(tmp_path, variant):
    labels, _, files, frame, truth = variant
    cell = write_cell(tmp_path, frame, "variant", ["label"])
    table = build([cell], files)
    assert list(table.columns) == LRB_COLUMNS
    found, own = values(table), labels[frame["row"]]
    oracles = {
        "auroc": roc_auc_score,
        "auprc": average_precision_score,
        "accuracy": lambda y, p: accuracy_score(y, p > 0),
    }
    assert list(found.index) == list(oracles)
    for metric, oracle in oracles.items():
        slow = [oracle(own, frame[f"fold{fold}:label"]) for fold in range(FOLDS)]
        assert found[metric] == pytest.approx(np.mean(slow))
        assert table.set_index("metric").loc[metric, "fold_sd"] == pytest.approx(stdev(slow))
        ceiling = table.set_index("metric").loc[metric, "ceiling"]
        assert ceiling == pytest.approx(oracle(own, truth[frame["row"]] - 0.5))
    assert (table["n"] == len(frame)).all()
    assert (table["folds"] == FOLDS).all()
    first = table.iloc[0]
    assert first["value_lo"] < first["value"] < first["value_hi"]
    assert (table["flags"] == "").all()


def test_regressions_are_scored_on_the_scale_of_the_training_rows(tmp_path):
    rng = RNG(0)
    labels = rng.exponential(3, (N, OUTPUTS)).astype(np.float32)
    truth = pd.DataFrame(np.log1p(labels) + rng.normal(size=(N, OUTPUTS)), columns=list("abc"))
    rows, files = write_task(tmp_path / "rows", "t", labels, truth.assign(row=np.arange(N)))
    test = np.flatnonzero(rows["split"] == "test")
    targets = (np.log1p(labels[test]) - 0.5) / [2.0, 1.0, 0.5]
    frame = pd.DataFrame({"row": test})
    folds = [targets + rng.normal(size=targets.shape) for _ in range(FOLDS)]
    for fold, predictions in enumerate(folds):
        frame[[f"fold{fold}:{output}" for output in "abc"]] = predictions
    table = build([write_cell(tmp_path, frame, "expression", list("abc"))], files)

    def oracles(predictions):
        return {
            "spearman_genes": np.mean(
                [spearmanr(*pair)[0] for pair in zip(targets.T, predictions.T, strict=True)]
            ),
            "spearman_tissues": np.mean(
                [spearmanr(*pair)[0] for pair in zip(targets, predictions, strict=True)]
            ),
            "r2": r2_score(targets, predictions),
            "r2_flat": r2_score(targets.ravel(), predictions.ravel()),
        }

    slow = pd.DataFrame([oracles(predictions) for predictions in folds]).mean()
    pd.testing.assert_series_equal(values(table), slow, check_names=False)
    scaled = (truth.loc[test].to_numpy() - 0.5) / [2.0, 1.0, 0.5]
    ceiling = table.set_index("metric")["ceiling"]
    pd.testing.assert_series_equal(ceiling, pd.Series(oracles(scaled)), check_names=False)
    assert ((table["value_lo"] < table["value"]) & (table["value"] < table["value_hi"])).all()


@pytest.mark.parametrize("batch_rows", [7, 1 << 16])
def test_a_profile_is_read_in_parts(tmp_path, monkeypatch, batch_rows):
    monkeypatch.setattr(lrb_table, "_BATCH_ROWS", batch_rows)
    rng = RNG(0)
    labels = rng.exponential(3, (N, 6, OUTPUTS)).astype(np.float16)
    place = pd.MultiIndex.from_product([range(N), range(1, 1 + BINS)], names=["row", "bin"])
    truth = pd.DataFrame(rng.normal(size=(len(place), OUTPUTS)), place, list("abc")).reset_index()
    rows, files = write_task(tmp_path / "rows", "t", labels, truth)
    test = rows["split"] == "test"
    frame = truth[["row", "bin"]][test[truth["row"]].to_numpy()].reset_index(drop=True)
    own = np.log1p(labels[frame["row"], frame["bin"]].astype(float))
    targets = (own - 0.5) / [2.0, 1.0, 0.5]
    folds = [targets + rng.normal(size=targets.shape) for _ in range(FOLDS)]
    for fold, predictions in enumerate(folds):
        frame[[f"fold{fold}:{output}" for output in "abc"]] = predictions
    table = build([write_cell(tmp_path, frame, "profile", list("abc"))], files)
    slow = [
        {
            "pearson_genes": np.mean(
                [pearsonr(*pair)[0] for pair in zip(targets.T, p.T, strict=True)]
            ),
            "pearson_tissues": np.mean(
                [pearsonr(*pair)[0] for pair in zip(targets, p, strict=True)]
            ),
            "r2": r2_score(targets, p),
            "r2_flat": r2_score(targets.ravel(), p.ravel()),
        }
        for p in folds
    ]
    pd.testing.assert_series_equal(values(table), pd.DataFrame(slow).mean(), check_names=False)
    assert table["ceiling"].notna().all()


def test_zero_shot_scores_have_no_folds(tmp_path, variant):
    labels, _, files, frame, _ = variant
    cell = ProbeCell.from_path(tmp_path / "t/m/5/none/none/zero_shot.parquet")
    cell.path.mkdir(parents=True)
    scores = frame.set_axis(["row", "cosine", "llr"], axis=1)
    scores.to_parquet(cell.path / "zero_shot.parquet")
    table = build([cell], files).set_index("metric")
    assert list(table.index) == ["auroc_cosine", "auprc_cosine", "auroc_llr", "auprc_llr"]
    slow = roc_auc_score(labels[frame["row"]], scores["llr"])
    assert table.loc["auroc_llr", "value"] == pytest.approx(slow)
    assert table.loc["auroc_llr", "value_lo"] < slow < table.loc["auroc_llr", "value_hi"]
    assert (table["folds"] == 0).all()
    assert table["fold_sd"].isna().all()


def test_flags_tell_what_is_left_out(tmp_path, variant):
    _, _, files, frame, _ = variant
    cell = write_cell(tmp_path, frame[:-1], "variant", ["label"], flags=["not_converged"])
    labels = np.load(files.labels)
    labels[frame["row"][1:]] = 0
    labels[frame["row"][0]] = 1
    np.save(files.labels, labels)
    assert set(build([cell], files)["flags"]) == {"not_converged;rows_left_out;few_of_class"}
    np.save(files.labels, labels * 0)
    table = build([cell], files).set_index("metric")
    assert np.isnan(table.loc["auroc", "value"])
    assert table.loc["auroc", "flags"].endswith(";undefined:1")


def test_details_by_tissue_and_output(tmp_path, variant):
    labels, rows, files, frame, _ = variant
    cell = write_cell(tmp_path, frame, "variant", ["label"])
    table = build_detail_table([cell], {"t": files})
    assert table.groupby("by")["n"].sum().tolist() == [len(frame)] * 2
    own = rows.loc[frame["row"]]
    liver = (own["tissue"] == "liver").to_numpy()
    slow = [
        roc_auc_score(labels[frame["row"]][liver], frame[f"fold{fold}:label"][liver])
        for fold in range(FOLDS)
    ]
    row = table[table["group"] == "liver"].iloc[0]
    assert row["auroc"] == pytest.approx(np.mean(slow))
    assert row["by"] == "tissue"
    assert table["group"][table["by"] == "output"].tolist() == ["label"]


def test_published_numbers_stand_in_the_table_as_such(tmp_path, variant):
    _, _, files, frame, _ = variant
    cell = write_cell(tmp_path, frame, "variant", ["label"])
    table = build([cell], files, published=PUBLISHED)
    write_table(table, tmp_path / "lrb.tsv")
    again = read_lrb_table(tmp_path / "lrb.tsv")
    pd.testing.assert_frame_equal(again, table, atol=1e-6)
    theirs = again[again["published"] == 1]
    assert len(theirs) == 87 == len(again) - 3
    assert theirs["value"].between(0, 1).all()
    assert theirs["value_lo"].isna().all()
    assert "12000\t" in (tmp_path / "lrb.tsv").read_text()
    key = ["task", "model", "context_bp", "extension", "metric"]
    assert not read_published(PUBLISHED).duplicated(key).any()


EQTL, RNA, CAGE = "variant_effect_causal_eqtl", "bulk_rna_expression", "cage_prediction"
# As the paper prints them: HyenaDNA 1.6M, .4M, 3.3M, 6.6M; NT 50M, 100M, 250M, 500M; Enformer.
PRINTED_MODELS = (
    *("HyenaDNA-1.6M", "HyenaDNA-0.4M", "HyenaDNA-3.3M", "HyenaDNA-6.6M"),
    *("NT-50M", "NT-100M", "NT-250M", "NT-500M", "Enformer"),
)
PRINTED = {
    (EQTL, "auroc"): ".705 .704 .713 .706 .714 .722 .721 .719 .755",
    (EQTL, "accuracy"): ".648 .649 .658 .647 .661 .664 .661 .657 .668",
    (RNA, "spearman_genes"): ".701 .622 .605 .726 .750 .761 .776 .780 .871",
    (RNA, "spearman_tissues"): ".182 .166 .167 .230 .225 .219 .237 .306 .554",
    (RNA, "r2"): ".377 .264 .225 .399 .397 .458 .470 .478 .802",
    (CAGE, "pearson_genes"): ".278 .273 .328 .297 .446 .483 .508 .524 .701",
    (CAGE, "pearson_tissues"): ".082 .106 .139 .177 .157 .162 .171 .170 .541",
    (CAGE, "r2"): ".071 .073 .110 .089 .201 .235 .260 .276 .492",
}
PRINTED_EXTENSION = {
    12: ".718 .725 .729",
    24: ".720 .725 .730",
    48: ".726 .728 .732",
    96: ".734 .732 .738",
    192: ".730 .735 .742",
}


def test_published_numbers_are_those_that_are_printed():
    expected = {
        (task, model, None, "none", metric): float(value)
        for (task, metric), values in PRINTED.items()
        for model, value in zip(PRINTED_MODELS, values.split(), strict=True)
    } | {
        (EQTL, "NT-50M", 1000 * kb, extension, "auroc"): float(value)
        for kb, values in PRINTED_EXTENSION.items()
        for extension, value in zip(
            ("ntk", "extended-24000", "extended-48000"), values.split(), strict=True
        )
    }
    found = read_published(PUBLISHED)
    keys = ["task", "model", "context_bp", "extension", "metric"]
    places = found[keys].astype(object).where(found[keys].notna(), None)
    assert dict(zip(map(tuple, places.to_numpy()), found["value"], strict=True)) == expected


def test_a_context_without_a_ceiling_has_none(tmp_path, variant):
    _, _, files, frame, _ = variant
    cell = write_cell(tmp_path, frame, "variant", ["label"], context=500)
    assert build([cell], files)["ceiling"].isna().all()


def test_labels_that_are_logarithms_already_stay(tmp_path, monkeypatch):
    rng = RNG(0)
    labels = rng.normal(size=(N, 1))
    truth = pd.DataFrame({"row": np.arange(N), "a": labels[:, 0]})
    rows, files = write_task(tmp_path / "rows", "t", labels, truth)
    test = np.flatnonzero(rows["split"] == "test")
    frame = pd.DataFrame(
        {"row": test, **{f"fold{f}:a": (labels[test, 0] - 0.5) / 2 for f in (0, 1)}}
    )
    cell = write_cell(tmp_path, frame, "expression", ["a"])
    path = cell.path / "folds.json"
    path.write_text(path.read_text().replace('"log1p": true', '"log1p": false'))
    table = build([cell], files).set_index("metric")
    assert table.loc["r2", ["value", "ceiling"]].tolist() == pytest.approx([1, 1])


def test_the_order_of_cells_does_not_matter(tmp_path, variant):
    _, _, files, frame, _ = variant
    cells = [write_cell(tmp_path, frame, "variant", ["label"], context=c) for c in (9, 10)]
    pd.testing.assert_frame_equal(build(cells, files), build(cells[::-1], files))
    with pytest.raises(LongscaleError, match="two score files for the same cell"):
        build([cells[0], replace(cells[0])], files)


def test_what_cannot_be_read(tmp_path, variant):
    _, _, files, frame, truth = variant
    with pytest.raises(LongscaleError, match="must end in"):
        ProbeCell.from_path("results/probe/t/m/long/none/none")
    empty = ProbeCell.from_path(tmp_path / "t/m/1/none/none")
    with pytest.raises(LongscaleError, match=r"neither folds\.json nor"):
        build([empty], files)
    cell = write_cell(tmp_path, frame, "variant", ["label"])
    pd.DataFrame({"row": truth.index[:-1], "label": truth[:-1]}).to_parquet(files.ceilings[1000])
    with pytest.raises(LongscaleError, match=r"no 'label' of row 119, the ceiling must cover"):
        build([cell], files)
    (cell.path / "folds.json").write_text("{}")
    with pytest.raises(LongscaleError, match="not the record of a probe's folds"):
        build([cell], files)
