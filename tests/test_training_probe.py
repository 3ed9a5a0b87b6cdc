"""The probe learns what is there, is a function of places and seed, and sees no row that it must
not see."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.distance import cosine, euclidean

from longscale.errors import LongscaleError
from longscale.evaluation.metrics import auroc
from longscale.tasks.probe_tasks import PROBE_TASKS
from longscale.training.probe import (
    PROBE_KINDS,
    Probe,
    ProbeSettings,
    make_examples,
    run_probe,
    train_fold,
    write_zero_shot,
    zero_shot_scores,
)
from longscale.training.probe_data import Moments, Standard
from longscale.training.probe_folds import Folds, chromosome_folds

QUICK = ProbeSettings(epochs=2, folds=2)


class InMemory:
    """The plainest source of embeddings."""

    def __init__(self, values):
        self.values = np.asarray(values, np.float16)
        self.rows, self.pieces, self.width = self.values.shape

    def read(self, numbers):
        return self.values[numbers]


def make_rows(n, seed=0):
    rng = np.random.default_rng(seed)
    contig = rng.choice(["chr1", "chr2", "chr3", "chr8"], n)
    return pd.DataFrame(
        {
            "row": np.arange(n),
            "contig": contig,
            "anchor": rng.permutation(n * 100)[:n],
            "ref": "A",
            "alt": "C",
            "tissue": rng.choice(["liver", "lung"], n),
            "strand": "",
            "split": np.where(contig == "chr8", "test", "train"),
        }
    )


@pytest.fixture
def task():
    """The label is whether the alleles differ upwards, in lung downwards."""
    rng = np.random.default_rng(1)
    rows = make_rows(400)
    values = rng.normal(5, 3, (400, 2, 3)).astype(np.float16)
    upwards = values[:, 1, 0] > values[:, 0, 0]
    labels = (upwards ^ (rows["tissue"] == "lung")).to_numpy(np.float32)[:, None]
    return rows, values, labels


def run(folder, rows, values, labels, kind="variant", settings=QUICK, **options):
    source = values if hasattr(values, "read") else InMemory(values)
    outputs = [f"o{i}" for i in range(labels.shape[-1])]
    lines = []
    arguments = {"kind": kind, "outputs": outputs, "context_bp": 500, "settings": settings}
    run_probe(rows, source, labels, folder, **arguments, report=lines.append, **options)
    frame = pd.read_parquet(folder / "predictions.parquet")
    return frame, json.loads((folder / "folds.json").read_text()), lines


def train(rows, values, labels, fold=0, kind="variant"):
    """The trained fold itself."""
    folds = chromosome_folds(rows, folds=2)
    examples = make_examples(rows, InMemory(values), labels, PROBE_KINDS[kind])
    moments = Moments.of(examples, folds)
    return train_fold(examples, folds, fold, moments, PROBE_KINDS[kind], QUICK), folds, examples


# --- what it learns


def test_an_effect_that_depends_on_the_tissue_is_learned_only_with_the_tissue(tmp_path, task):
    rows, values, labels = task
    settings = ProbeSettings(epochs=30, learning_rate=1e-2, batch=64, folds=2)
    with_tissue, _, _ = run(tmp_path / "a", *task, settings=settings)
    without, _, _ = run(tmp_path / "b", rows.assign(tissue=""), values, labels, settings=settings)
    own = labels[with_tissue["row"], 0]
    for fold in range(2):
        assert auroc(own, with_tissue[f"fold{fold}:o0"].to_numpy()) > 0.9
        assert auroc(own, without[f"fold{fold}:o0"].to_numpy()) < 0.65


def test_expression_is_learned_on_its_logarithm(tmp_path, task):
    rows, values, _ = task
    x = values.reshape(400, 6).astype(np.float64)
    labels = np.expm1(np.abs(x @ np.random.default_rng(0).normal(size=(6, 2)))).astype(np.float32)
    settings = ProbeSettings(epochs=30, learning_rate=1e-2, batch=32, folds=2)
    frame, record, _ = run(tmp_path, rows, values, labels, "expression", settings, log1p=True)
    for fold, of_fold in enumerate(record["folds"]):
        logs = np.log1p(labels[frame["row"]])
        targets = (logs - of_fold["label_mean"]) / of_fold["label_spread"]
        predicted = frame[[f"fold{fold}:o0", f"fold{fold}:o1"]].to_numpy()
        assert ((predicted - targets) ** 2).mean() < 0.5  # a constant answer has about 1


def test_a_profile_is_predicted_for_the_bins_that_there_are(tmp_path):
    rng = np.random.default_rng(0)
    rows = make_rows(60).assign(split=rng.choice(["train", "valid", "test"], 60))
    labels = rng.exponential(size=(60, 9, 2)).astype(np.float16)
    values = np.log1p(labels[:, 3:7].astype(np.float64)) * [2, -1] + [1, 7]  # 4 bins, width 2
    settings = ProbeSettings(epochs=20, learning_rate=1e-2, batch=16, folds=3)
    frame, record, _ = run(
        tmp_path, rows, values, labels, "profile", settings, first_bin=3, log1p=True
    )
    test = rows["row"][rows["split"] == "test"].to_numpy()
    np.testing.assert_array_equal(frame["row"], np.repeat(test, 4))
    np.testing.assert_array_equal(frame["bin"], np.tile([3, 4, 5, 6], len(test)))
    assert record["bins"] == [3, 7]
    assert len({fold["validation"] for fold in record["folds"]}) == 3
    fold = record["folds"][0]
    logs = np.log1p(labels[frame["row"], frame["bin"]].astype(np.float32))
    targets = (logs - fold["label_mean"]) / fold["label_spread"]
    assert ((frame[["fold0:o0", "fold0:o1"]].to_numpy() - targets) ** 2).mean() < 0.1
    assert fold["overlapping_train"]["test"] > 0  # contexts of 500 bp on 6,000 bp


def test_forward_is_the_formula():
    rng = np.random.default_rng(0)
    features = Standard(rng.normal(size=3), rng.uniform(1, 2, 3))
    probe = Probe(features, None, known_tissues=np.array([True, False]), hidden=[4, 4], outputs=2)
    x = rng.normal(size=(4, 3)).astype(np.float16)
    codes = np.array([0, 1, -1, 0])
    one_hot = np.array([[1, 0], [0, 0], [0, 0], [1, 0]])  # the second has no training row
    slow = np.hstack([(x.astype(np.float64) - features.mean) / features.spread, one_hot])
    linear = [layer for layer in probe.layers if isinstance(layer, torch.nn.Linear)]
    assert [layer.out_features for layer in linear] == [4, 4, 2]
    for number, layer in enumerate(linear):
        weight, bias = (p.detach().double().numpy() for p in (layer.weight, layer.bias))
        slow = slow @ weight.T + bias
        slow = np.maximum(slow, 0) if number < 2 else slow
    fast = probe(torch.from_numpy(x), torch.from_numpy(codes)).detach().numpy()
    np.testing.assert_allclose(fast, slow, rtol=1e-4, atol=1e-5)


CHR8_9 = ("chr8", "chr9")
PROTOCOLS = {  # hidden layers, bp that are averaged, outputs, test chromosomes
    "variant_effect_causal_eqtl": (2, 1500, 1, ("chr9", "chr10")),
    "variant_effect_pathogenic_clinvar": (2, 1500, 1, ("chr8",)),
    "bulk_rna_expression": (1, 384 + 256, 218, ("chr8",)),
    "cage_prediction": (2, 896 * 128, 50, "random"),
    "regulatory_element_promoter": (2, None, 1, CHR8_9),
    "regulatory_element_enhancer": (2, None, 1, CHR8_9),
    "chromatin_features_histone_marks": (2, 200, 20, CHR8_9),
    "chromatin_features_dna_accessibility": (2, 200, 20, CHR8_9),
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocols_are_the_benchmarks(name):
    task, kind = PROBE_TASKS[name], PROBE_KINDS[PROBE_TASKS[name].kind]
    pool = None if task.pool_bp is None else sum(task.pool_bp)
    *expected, chromosomes = PROTOCOLS[name]
    assert [kind.hidden_layers, pool, task.outputs] == expected
    assert set(task.test_chromosomes) == set(chromosomes)
    assert task.hidden_layers == kind.hidden_layers
    assert kind.regression == (name in ("bulk_rna_expression", "cage_prediction"))
    assert kind.profile == (name == "cage_prediction")
    assert ProbeSettings().folds == 5


@pytest.mark.parametrize(("kind", "layers"), [("variant", 2), ("expression", 1), ("interval", 2)])
def test_hidden_layers_are_twice_as_wide_as_the_embedding(task, kind, layers):
    rows, values, labels = task
    trained, _, _ = train(rows, values, labels, kind=kind)
    sizes = [layer.out_features for layer in trained.probe.layers if hasattr(layer, "weight")]
    assert sizes == [6] * layers + [1]


def test_the_epoch_of_the_lowest_validation_loss_is_kept(task):
    rows, values, labels = task
    noise = np.random.default_rng(0).permutation(labels)  # nothing to learn: it overfits
    folds = chromosome_folds(rows, folds=2)
    kind = replace(PROBE_KINDS["variant"], batch=16)
    examples = make_examples(rows, InMemory(values), noise, kind)
    settings = ProbeSettings(epochs=15, learning_rate=3e-2)
    trained = train_fold(examples, folds, 0, Moments.of(examples, folds), kind, settings)
    assert trained.best_epoch == np.argmin(trained.valid_losses) + 1 < 15
    valid = examples.read(folds.valid_rows(0))
    features, tissue, targets = trained.probe.on_device(valid)
    logits = trained.probe(features, tissue)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets).item()
    assert loss == pytest.approx(min(trained.valid_losses), rel=1e-5)
    assert trained.flags == []


# --- what it depends on


def test_same_seed_same_file_another_seed_another(tmp_path, task):
    first, _, _ = run(tmp_path / "a", *task)
    second, _, _ = run(tmp_path / "b", *task)
    third, _, _ = run(tmp_path / "c", *task, settings=replace(QUICK, seed=2))
    pd.testing.assert_frame_equal(first, second)
    assert not first.equals(third)


@pytest.mark.parametrize("kind", ["variant", "profile"])
def test_order_of_the_rows_does_not_matter(tmp_path, task, kind):
    rows, values, labels = task
    if kind == "profile":
        labels = np.abs(values).repeat(2, axis=2)  # 2 bins, 6 tracks
    old = np.random.default_rng(5).permutation(400)
    shuffled = rows.iloc[old].assign(row=np.arange(400))
    settings = replace(QUICK, block_bytes=1000)
    first, _, _ = run(tmp_path / "a", rows, values, labels, kind, settings)
    second, _, _ = run(tmp_path / "b", shuffled, values[old], labels[old], kind, settings)
    second["row"] = old[second["row"]]
    places = [name for name in ("row", "bin") if name in first]
    second = second.sort_values(places, ignore_index=True)
    # The same weights; a product's rounding depends on where in a batch a row stands.
    pd.testing.assert_frame_equal(first, second, check_exact=False, rtol=0, atol=1e-5)


def leaks(rows, values, labels, fold=0):
    """Whether a fold's weights or training losses depend on rows that it must not train on.

    Such rows get an offset that tells their label. One epoch: which of several is kept may depend
    on the validation rows, that is their use.
    """
    folds = chromosome_folds(rows, folds=2)
    unseen = np.concatenate([folds.valid_rows(fold), folds.test()])
    planted = values.copy()
    planted[unseen] += np.float16(30) * labels[unseen][:, :, None].astype(np.float16)
    one, other = (train(rows, x, labels, fold)[0] for x in (values, planted))
    return one.train_losses != other.train_losses


def test_nothing_is_fitted_on_rows_outside_training(task):
    assert not any(leaks(*task, fold=fold) for fold in range(2))


def test_the_planted_leak_would_be_caught(task, monkeypatch):
    """A standard over all groups is the leak: the test above must see it."""
    rows, _, _ = task
    everything = np.arange(3)
    assert len(chromosome_folds(rows).names) == 3
    original = Moments.standard
    monkeypatch.setattr(Moments, "standard", lambda self, groups: original(self, everything))
    assert all(leaks(*task, fold=fold) for fold in range(2))


def test_test_rows_change_no_probe(task):
    rows, values, labels = task
    test = (rows["split"] == "test").to_numpy()
    other_values, other_labels = values.copy(), labels.copy()
    other_values[test], other_labels[test] = 1000, 1
    one, other = train(rows, values, labels)[0], train(rows, other_values, other_labels)[0]
    assert one.valid_losses == other.valid_losses
    for name, tensor in one.probe.state_dict().items():
        assert torch.equal(tensor, other.probe.state_dict()[name]), name


def test_training_on_the_validation_group_too_would_be_caught(task, monkeypatch):
    monkeypatch.setattr(Folds, "train_groups", lambda self, fold: np.arange(len(self.names)))
    assert leaks(*task)


# --- records, errors


def test_folds_json_tells_what_a_reader_needs(tmp_path, task):
    rows, values, labels = task
    frame, record, lines = run(tmp_path, rows, values, labels, provenance={"code": "x"})
    test = rows["row"][rows["split"] == "test"]
    np.testing.assert_array_equal(frame["row"], test)
    assert list(frame.columns) == ["row", "fold0:o0", "fold1:o0"]
    assert record["kind"] == "variant"
    assert record["provenance"] == {"code": "x"}
    for fold, line in zip(record["folds"], lines, strict=True):
        assert fold["overlapping_train"] == {"valid": 0, "test": 0}
        assert sum(fold["rows"].values()) == len(rows)
        assert fold["rows"]["valid"] == (rows["contig"] == fold["validation"]).sum()
        assert fold["validation"] in line
        assert fold["best_valid_loss"] == min(fold["valid_losses"])
        assert fold["epochs"] == 2


def test_rows_without_embedding_are_left_out(tmp_path, task):
    rows, values, labels = task
    missing = np.arange(400) % 7 == 0
    values[missing] = np.nan
    frame, _, _ = run(tmp_path, rows[~missing], values, labels)
    assert not missing[frame["row"]].any()
    assert np.isfinite(frame.to_numpy()).all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda rows, x, y: (rows, x, y[:-1]), "400 embeddings, 399 labels"),
        (lambda rows, x, y: (rows, x, y + 1), "neither 0 nor 1"),
        (lambda rows, x, y: (rows[rows["split"] != "test"], x, y), "nothing to score"),
        (lambda rows, x, y: (rows[rows["split"] == "test"], x, y), "two or more"),
    ],
)
def test_what_cannot_be_probed(tmp_path, task, change, sentence):
    with pytest.raises(LongscaleError, match=sentence):
        run(tmp_path / "cell", *change(*task))
    assert not (tmp_path / "cell").exists()


def test_zero_shot_distances_are_scipys():
    values = np.random.default_rng(0).normal(size=(9, 2, 5)).astype(np.float16)
    numbers = np.array([4, 0, 7, 8, 1])
    found = zero_shot_scores(InMemory(values), numbers, block_rows=2)
    np.testing.assert_array_equal(found["row"], numbers)
    for number, score in found.set_index("row").iterrows():
        ref, alt = values[number].astype(np.float64)
        assert score["cosine"] == pytest.approx(cosine(ref, alt), rel=1e-9)
        assert score["l2"] == pytest.approx(euclidean(ref, alt), rel=1e-12)


def test_zero_shot_needs_rows_two_alleles_and_each_row_once(tmp_path):
    with pytest.raises(LongscaleError, match="1 pieces a row"):
        zero_shot_scores(InMemory(np.ones((2, 1, 3))), np.arange(2))
    with pytest.raises(LongscaleError, match="nothing to score"):
        zero_shot_scores(InMemory(np.ones((2, 2, 3))), np.arange(0))
    path = tmp_path / "zero_shot.parquet"
    scores = pd.DataFrame({"row": [0, 1], "llr": [0.5, 1.0]})
    write_zero_shot(scores, path)
    pd.testing.assert_frame_equal(pd.read_parquet(path), scores)
    for bad in (scores.assign(row=0), scores[["row"]]):
        with pytest.raises(LongscaleError, match="each row once"):
            write_zero_shot(bad, path)
