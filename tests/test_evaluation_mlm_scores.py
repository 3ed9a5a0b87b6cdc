"""Score files of the masked-LM branch: round trip, alignment, and the sentences for bad ones."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longscale.errors import LongscaleError
from longscale.evaluation.mlm_scores import (
    MLM_COLUMNS,
    MLMCell,
    MLMTraining,
    align_arms,
    read_aligned_arms,
    read_mlm_scores,
    write_mlm_scores,
)

PROVENANCE = {"flags": [], "arm_flags": {}, "not_run": {}}
ARMS = [("rope", "none"), ("rope", "infoscale"), ("pi", "none")]


def example_frame(arms=ARMS) -> pd.DataFrame:
    """Two targets of one document and one of another, in every arm."""
    targets = pd.DataFrame(
        {"document": ["b", "a", "b"], "target": [7, 900, 3], "token": [11, 12, 13]}
    )
    parts = [targets.assign(scheme=scheme, rule=rule) for scheme, rule in arms]
    frame = pd.concat(parts, ignore_index=True)
    numbers = np.random.default_rng(0)
    return frame.assign(
        loss=numbers.exponential(size=len(frame)), correct=numbers.random(len(frame)) < 0.5
    )


def test_round_trip_keeps_rows_order_and_provenance(tmp_path):
    path = tmp_path / "deep" / "64.parquet"
    provenance = {
        "flags": ["not_converged"],
        "arm_flags": {"pi/none": ["unmatched"], "alibi/none": []},
        "not_run": {"alibi/none": "needs training"},
        "seed": 3,
    }
    frame = example_frame().sample(frac=1, random_state=1)
    write_mlm_scores(frame, path, provenance)
    back, said = read_mlm_scores(path)
    assert said == provenance
    assert list(back.columns) == MLM_COLUMNS
    dtypes = {name: str(back[name].dtype) for name in ("target", "token", "loss", "correct")}
    assert dtypes == {"target": "int64", "token": "int32", "loss": "float32", "correct": "bool"}
    for name in ("scheme", "rule"):
        assert isinstance(back[name].dtype, pd.CategoricalDtype)
    for name in MLM_COLUMNS:
        expected = frame[name].astype("float32") if name == "loss" else frame[name]
        assert back[name].tolist() == expected.tolist()


def test_metadata_has_the_one_key_and_the_bytes_are_the_same_again(tmp_path):
    for name in ("a", "b"):
        write_mlm_scores(example_frame(), tmp_path / name, PROVENANCE)
    metadata = pq.read_schema(tmp_path / "a").metadata
    assert list(metadata) == [b"longscale"]
    assert json.loads(metadata[b"longscale"]) == PROVENANCE
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_file_in_which_no_arm_ran(tmp_path):
    provenance = PROVENANCE | {"not_run": {"rope/none": "out of memory"}}
    write_mlm_scores(example_frame().iloc[:0], tmp_path / "a.parquet", provenance)
    aligned, _ = read_aligned_arms(tmp_path / "a.parquet")
    assert aligned.arms == []
    assert aligned.loss.shape == (0, 0)
    assert aligned.targets.empty


@settings(max_examples=40)
@given(
    targets=st.lists(
        st.tuples(st.sampled_from(["a", "b", "ä", "10", "9"]), st.integers(0, 5)),
        min_size=1,
        unique=True,
    ),
    arms=st.lists(
        st.tuples(st.sampled_from(["rope", "pi", "yarn"]), st.sampled_from(["none", "logn"])),
        min_size=1,
        unique=True,
    ),
    seed=st.integers(0, 99),
)
def test_alignment_finds_every_row_whatever_the_order(targets, arms, seed):
    numbers = np.random.default_rng(seed)
    rows = [(*target, 7, *arm) for arm in arms for target in targets]
    frame = pd.DataFrame(rows, columns=MLM_COLUMNS[:5])
    frame = frame.assign(
        loss=numbers.random(len(frame)).astype("float32"), correct=numbers.random(len(frame)) < 0.5
    )
    aligned = align_arms(frame.sample(frac=1, random_state=seed), "x")
    known = frame.set_index(["scheme", "rule", "document", "target"])
    assert aligned.arms == sorted(arms)
    assert list(zip(aligned.targets["document"], aligned.targets["target"], strict=True)) == sorted(
        targets
    )
    for row, (scheme, rule) in enumerate(aligned.arms):
        for column, (document, target) in enumerate(sorted(targets)):
            expected = known.loc[scheme, rule, document, target]
            assert aligned.loss[row, column] == expected["loss"]
            assert aligned.correct[row, column] == expected["correct"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.drop(columns="token"), "column 'token' is missing"),
        (lambda f: pd.concat([f, f.iloc[4:5]]), "target 900 of document a stands more than once"),
        (lambda f: f.iloc[1:], "pi/none and rope/none hold different targets"),
        (lambda f: f.assign(target=[7, 900, 3] * 2 + [7, 900, 4]), "hold different targets"),
        (lambda f: f.assign(token=[11, 12, 13] * 2 + [11, 12, 9]), "hold different targets"),
        (lambda f: f.assign(target=-f["target"]), "'target' is negative"),
        (lambda f: f.assign(target=f["target"] + 0.5), "'target' must hold whole numbers"),
        (lambda f: f.assign(correct=range(9)), "'correct' must hold true and false alone"),
        (lambda f: f.assign(document=None), "'document' has an empty cell"),
        (lambda f: f.assign(loss=np.nan), "pi/none has a loss that is not a finite number"),
        (lambda f: f.assign(loss=np.inf), "must hold 'non_finite_loss'"),
    ],
)
def test_a_bad_frame_is_refused_and_nothing_is_written(tmp_path, change, words):
    with pytest.raises(LongscaleError, match=words):
        write_mlm_scores(change(example_frame()), tmp_path / "a.parquet", PROVENANCE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "flagged",
    [
        {"flags": ["non_finite_loss"]},
        {"arm_flags": {"/".join(arm): ["non_finite_loss"] for arm in ARMS}},
    ],
)
def test_a_loss_that_is_not_finite_is_kept_where_it_is_flagged(tmp_path, flagged):
    frame = example_frame().assign(loss=np.inf)
    write_mlm_scores(frame, tmp_path / "a.parquet", PROVENANCE | flagged)
    aligned, _ = read_aligned_arms(tmp_path / "a.parquet")
    assert not aligned.finite.any()


@pytest.mark.parametrize(
    ("provenance", "words"),
    [
        ({}, "'flags' must be a list of strings"),
        (PROVENANCE | {"flags": "x"}, "'flags' must be a list of strings"),
        (PROVENANCE | {"arm_flags": []}, "'arm_flags' must map scheme/rule"),
        (PROVENANCE | {"arm_flags": {"pi/none": "x"}}, "'arm_flags' must map scheme/rule"),
        (PROVENANCE | {"arm_flags": {"ntk/none": ["x"]}}, "names ntk/none, which is no arm"),
        (PROVENANCE | {"not_run": {"pi": "x"}}, "'not_run' must map scheme/rule"),
        (PROVENANCE | {"not_run": {"ntk/none": None}}, "'not_run' must map scheme/rule"),
        (PROVENANCE | {"not_run": {"pi/none": "x"}}, "pi/none has rows and stands in 'not_run'"),
    ],
)
def test_a_bad_provenance_is_refused(tmp_path, provenance, words):
    with pytest.raises(LongscaleError, match=words):
        write_mlm_scores(example_frame(), tmp_path / "a.parquet", provenance)
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_refused_by_name(tmp_path):
    path = tmp_path / "a.parquet"
    with pytest.raises(LongscaleError, match=r"a\.parquet: not a readable parquet file"):
        read_mlm_scores(path)
    table = pa.Table.from_pandas(example_frame(), preserve_index=False)
    pq.write_table(table, path)
    with pytest.raises(LongscaleError, match="has no key 'longscale'"):
        read_mlm_scores(path)
    for metadata, words in [("{", "is not JSON"), ("[]", "'flags' must be a list")]:
        pq.write_table(table.replace_schema_metadata({"longscale": metadata}), path)
        with pytest.raises(LongscaleError, match=words):
            read_mlm_scores(path)
    broken = table.drop_columns("loss").replace_schema_metadata(
        {"longscale": json.dumps(PROVENANCE)}
    )
    pq.write_table(broken, path)
    with pytest.raises(LongscaleError, match="column 'loss' is missing"):
        read_mlm_scores(path)


def test_cell_and_training_from_path():
    folder = "results/mlm/pydoc/small/64/cos-matched/rope/seed12"
    cell = MLMCell.from_path(f"{folder}/fixed-target/4096.parquet")
    assert (cell.corpus, cell.model, cell.train_length) == ("pydoc", "small", 64)
    assert (cell.attention, cell.trained_scheme, cell.seed) == ("cos-matched", "rope", 12)
    assert (cell.protocol, cell.length) == ("fixed-target", 4096)
    assert cell.path.as_posix() == f"{folder}/fixed-target/4096.parquet"
    training = MLMTraining("pydoc", "small", 64, "cos-matched", "rope", 12)
    for name in ("training.json", "attention/entropy.tsv"):
        assert MLMTraining.from_path(f"{folder}/{name}") == training
    for wrong in ("paired/4096.parquet", "released/4096.csv", "4096.parquet", "released/x.parquet"):
        with pytest.raises(LongscaleError, match="must end in"):
            MLMCell.from_path(f"{folder}/{wrong}")
    with pytest.raises(LongscaleError, match="must lie in"):
        MLMTraining.from_path("results/mlm/pydoc/small/64/dot/seed1/training.json")
