"""Arms are chosen on one protocol and reported on the other."""

import pytest
from mlm_cells import arm, cell_writer, targets

from longscale.evaluation.mlm_choice import CHOICE_COLUMNS, build_choice_table

ARMS = [
    *(("rope", "none"), ("rope", "infoscale"), ("windowed", "infoscale"), ("windowed", "logn")),
    *(("rerope", "infoscale"), ("windowed-recall", "none")),
]


@pytest.fixture
def study(tmp_path):
    """What `cell_writer` gives."""
    return cell_writer(tmp_path)


def build(cells):
    return build_choice_table(cells, resamples=200, report=lambda line: None)


def cells_with(study, dev: dict, test: dict, length: int = 1024, **place):
    """One file per protocol; arms that are not named are right half of the time."""
    dev_rows, test_rows = targets(15, seed=1), targets(15, seed=2)
    return [
        study(
            {a: arm(rows, accuracy.get(a, 0.5), seed + i) for i, a in enumerate(ARMS)},
            protocol=protocol,
            length=length,
            **place,
        )
        for protocol, rows, accuracy, seed in (
            ("selection", dev_rows, dev, 100),
            ("fixed-target", test_rows, test, 200),
        )
    ]


def test_what_is_best_on_development_documents_is_compared_on_test_documents(study):
    dev = {
        ("windowed", "infoscale"): 0.8,
        ("windowed", "logn"): 0.9,
        ("windowed-recall", "none"): 0.97,
    }
    test = {("rerope", "infoscale"): 0.99, ("windowed-recall", "none"): 0.97}
    table = build(cells_with(study, dev, test))
    assert list(table.columns) == CHOICE_COLUMNS
    assert table["candidates"].tolist() == ["listed", "all"]
    # ReRoPE would win on the test documents; nobody may look there.
    assert set(zip(table["against_scheme"], table["against_rule"], strict=True)) == {
        ("windowed", "infoscale")
    }
    listed, best = table.iloc[0], table.iloc[1]
    assert (listed["scheme"], listed["rule"]) == ("windowed", "logn")
    assert listed["verdict"] == "unresolved"
    assert (best["scheme"], best["rule"]) == ("windowed-recall", "none")
    assert best["verdict"] == "better"
    assert best["delta"] == pytest.approx(best["accuracy"] - best["against_accuracy"])
    assert best["loss_delta"] == pytest.approx(best["loss"] - best["against_loss"])


def test_only_dot_product_checkpoints_beyond_the_training_length_with_both_protocols(study):
    assert build(cells_with(study, {}, {}, attention="cos16")).empty
    assert build(cells_with(study, {}, {}, trained_scheme="pose", corpus="p")).empty
    assert build(cells_with(study, {}, {}, length=64, corpus="short")).empty
    assert build(cells_with(study, {}, {}, corpus="one")[1:]).empty


def test_seeds_that_both_have(study):
    cells = [c for seed in (1, 2, 3) for c in cells_with(study, {}, {}, seed=seed)]
    table = build(cells)
    assert table["seeds"].tolist() == [3, 3]
    assert table["documents"].tolist() == [15, 15]
