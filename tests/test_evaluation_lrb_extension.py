"""Context extension: the form of the paper's Table 2, and what a rule adds."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lrb_cells import FOLDS, RNG, N, write_cell, write_task
from sklearn.metrics import roc_auc_score

from longscale.evaluation.lrb_extension import (
    EXTENSION_COLUMNS,
    FurtherTrained,
    build_extension_table,
    build_table_2,
)
from longscale.evaluation.lrb_table import build_lrb_table

PUBLISHED = Path(__file__).resolve().parents[1] / "resources" / "lrb_published.tsv"
ARMS = {
    ("none", "none", 1000): 1.0,
    ("none", "none", 2000): 0.2,
    ("none", "ntk", 2000): 0.6,
    ("infoscale", "ntk", 2000): 2.0,
    ("logn", "ntk", 2000): 0.6,
}


@pytest.fixture
def study(tmp_path):
    """A model with rules and NTK scaling, its further training, and one without any arm."""
    rng = RNG(0)
    labels = rng.integers(0, 2, (N, 1)).astype(np.float32)
    rows, files = write_task(tmp_path / "rows", "t", labels, pd.DataFrame({"row": [0]}))
    files = type(files)(files.rows, files.labels)
    test = np.flatnonzero(rows["split"] == "test")
    noise = rng.normal(size=(FOLDS, test.size))

    def frame(signal):
        scores = {f"fold{f}:label": signal * labels[test, 0] + noise[f] for f in range(FOLDS)}
        return pd.DataFrame({"row": test, **scores})

    cells = [
        write_cell(
            tmp_path, frame(s), "variant", ["label"], context=bp, rule=rule, extension=extension
        )
        for (rule, extension, bp), s in ARMS.items()
    ]
    more = {"context": 2000, "extension": "ntk"}
    cells.append(write_cell(tmp_path, frame(1.5), "variant", ["label"], model="m-long", **more))
    cells.append(write_cell(tmp_path, frame(0.9), "variant", ["label"], model="plain"))
    table = build_lrb_table(
        cells, {"t": files}, published=PUBLISHED, resamples=200, report=lambda line: None
    )
    return table, cells, files, labels[test, 0], frame


def build(study):
    table, cells, files, *_ = study
    longer = {"m-long": FurtherTrained("m", 2000)}
    return build_extension_table(table, cells, {"t": files}, further_trained=longer, resamples=200)


def test_models_with_an_arm_stand_there_and_further_training_is_a_context(study):
    found = build(study)
    assert list(found.columns) == EXTENSION_COLUMNS
    own = found[found["published"] == 0]
    assert set(own["model"]) == {"m"}
    places = own[["model_context", "scaling", "rule", "context_bp"]].itertuples(index=False)
    assert [tuple(place) for place in places] == [
        ("pretrained", "none", "none", 1000),
        ("pretrained", "none", "none", 2000),
        *[("pretrained", "ntk", rule, 2000) for rule in ("none", "infoscale", "logn")],
        ("extended-2000", "ntk", "none", 2000),
    ]
    assert set(own["metric"]) == {"auroc"}


def test_a_rule_is_compared_with_the_same_scaling_and_length(study):
    _, _, _, labels, frame = study
    own = build(study).set_index(["published", "model_context", "scaling", "rule", "context_bp"])
    row = own.loc[(0, "pretrained", "ntk", "infoscale", 2000)]

    def auroc(signal):
        return np.mean([roc_auc_score(labels, frame(signal)[f"fold{f}:label"]) for f in (0, 1)])

    assert row["rule_delta"] == pytest.approx(auroc(2.0) - auroc(0.6))
    assert 0 < row["rule_delta_lo"] < row["rule_delta"] < row["rule_delta_hi"]
    assert row["rule_verdict"] == "better"
    same = own.loc[(0, "pretrained", "ntk", "logn", 2000)]
    assert same[["rule_delta", "rule_delta_lo", "rule_delta_hi"]].tolist() == [0, 0, 0]
    assert same["rule_verdict"] == "unresolved"
    assert own.loc[(0, "pretrained", "ntk", "none", 2000), "rule_verdict"] == "baseline"
    for alone in (("pretrained", "none", "none", 2000), ("extended-2000", "ntk", "none", 2000)):
        assert own.loc[(0, *alone), "rule_verdict"] == ""
        assert np.isnan(own.loc[(0, *alone), "rule_delta"])


def test_other_test_rows_are_no_pair(study):
    _, cells, *_ = study
    path = next(cell.path for cell in cells if cell.rule == "infoscale") / "predictions.parquet"
    pd.read_parquet(path)[:-1].to_parquet(path)
    found = build(study)
    assert found.loc[found["rule"] == "infoscale", "rule_verdict"].tolist() == [""]
    assert found.loc[found["rule"] == "logn", "rule_verdict"].tolist() == ["unresolved"]


def test_table_2_is_input_length_by_model_context_with_the_papers_numbers(study):
    wide = build_table_2(build(study))
    contexts = ["pretrained", "extended-2000", "extended-24000", "extended-48000"]
    assert list(wide.columns) == [
        *("task", "metric", "published", "model", "scaling", "rule", "context_bp"),
        *contexts,
    ]
    theirs = wide[wide["published"] == 1]
    assert theirs["context_bp"].tolist() == [12_000, 24_000, 48_000, 96_000, 192_000]
    assert theirs[["pretrained", *contexts[2:]]].to_numpy().tolist() == [
        ["0.718", "0.725", "0.729"],
        ["0.720", "0.725", "0.730"],
        ["0.726", "0.728", "0.732"],
        ["0.734", "0.732", "0.738"],
        ["0.730", "0.735", "0.742"],
    ]
    own = wide.query("published == 0 and scaling == 'ntk' and rule == 'none'").iloc[0]
    assert own["pretrained"].startswith("0.")
    assert "[" in own["pretrained"]
    assert own["extended-2000"] != own["pretrained"]


def test_without_cells_there_are_no_differences_and_nothing_is_nothing(study):
    table, *_ = study
    assert build_extension_table(table)["rule_delta"].isna().all()
    plain = table[(table["model"] == "plain") & (table["published"] == 0)]
    empty = build_extension_table(plain)
    assert list(empty.columns) == EXTENSION_COLUMNS
    assert empty.empty
    assert build_table_2(empty).empty
