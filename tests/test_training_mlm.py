"""Masked-LM training: its crops, its batches, its equality across attentions, resuming."""

import functools
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from longscale.errors import LongscaleError
from longscale.models.characters import SpecialIds
from longscale.models.gau_alpha import GAUAlphaConfig, GAUAlphaForMaskedLM
from longscale.models.masked_lm import IGNORED_LABEL
from longscale.training import mlm
from longscale.training.masking import context_free_loss, mask_ids
from longscale.training.mlm import Crops, train_mlm

SPECIAL = SpecialIds(0, 1, 2, 3, 4)
OPTIONS = {
    "steps": 6,
    "batch_size": 4,
    "learning_rate": 0.01,
    "warmup_fraction": 0.1,
    "weight_decay": 0.01,
    "mask_fraction": 0.15,
    "checkpoint_steps": 2,
    "precision": "fp32",
}


def documents(sizes=(40, 12, 100)) -> list[np.ndarray]:
    """Tokens that tell where they stand: document times 1000 plus place."""
    return [1000 * i + np.arange(size) for i, size in enumerate(sizes)]


def texts(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(5, 20, 200).astype(np.int64) for _ in range(3)]


def config(**changes: object) -> GAUAlphaConfig:
    return GAUAlphaConfig(
        **{
            "vocab_size": 20,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "intermediate_size": 16,
            "attention_key_size": 8,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "normalization": "softmax",
            "n_train": 16,
            "n_max": 64,
            **changes,
        }
    )


def train(folder, seed=1, initial=None, options=OPTIONS, **changes):
    train_mlm(
        texts(),
        texts(1),
        config(**changes),
        SPECIAL,
        folder,
        options=options,
        seed=seed,
        provenance={},
        initial=initial,
        report=lambda _: None,
    )
    return load_file(folder / "model.safetensors")


def test_crops_lie_in_one_document_each_and_every_place_is_as_likely():
    crops = Crops(documents(), 16, seed=1)
    drawn = crops.draw(list(range(20_000)))
    np.testing.assert_array_equal(np.diff(drawn, axis=1), 1)
    starts, counts = np.unique(drawn[:, 0], return_counts=True)
    places = [*range(25), *range(2000, 2085)]  # the document of 12 tokens has none
    assert starts.tolist() == places
    expected = 20_000 / len(places)
    assert abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_a_batch_is_a_function_of_its_numbers():
    one, other = Crops(documents(), 16, seed=1), Crops(documents(), 16, seed=2)
    np.testing.assert_array_equal(one.draw([3, 4]), one.draw([3, 4]))
    assert (one.draw([3, 4]) != one.draw([5, 6])).any()
    assert (one.draw([3, 4]) != other.draw([3, 4])).any()


def test_nothing_long_enough_to_train_on():
    with pytest.raises(LongscaleError, match="no document of the corpus has 16 tokens"):
        Crops([np.arange(15)], 16, seed=1)


def test_masking_is_15_80_10_10():
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 30, (400, 500))
    others = np.arange(5, 30)
    batch = mask_ids(ids, rng, 0.15, special=[0, 1, 2, 3], mask=4, others=others)
    labels, masked = batch["labels"].numpy(), batch["input_ids"].numpy()
    targets = labels != IGNORED_LABEL
    assert not np.isin(ids[targets], [0, 1, 2, 3]).any()
    np.testing.assert_array_equal(labels[targets], ids[targets])
    np.testing.assert_array_equal(masked[~targets], ids[~targets])
    eligible = ~np.isin(ids, [0, 1, 2, 3])
    assert targets.sum() / eligible.sum() == pytest.approx(0.15, abs=0.003)
    is_mask = (masked == 4) & targets & (ids != 4)
    assert is_mask.sum() / targets.sum() == pytest.approx(0.8 * 25 / 26, abs=0.01)
    changed = targets & (masked != 4) & (masked != ids)
    assert changed.sum() / targets.sum() == pytest.approx(0.1 * 24 / 25, abs=0.01)
    assert np.isin(masked[changed], others).all()


@pytest.mark.parametrize("tokens", [25, 7])
def test_the_context_free_loss_is_that_of_the_best_table_of_answers(tokens):
    rng = np.random.default_rng(3)
    frequencies = np.zeros(30)
    frequencies[5 : 5 + tokens] = rng.integers(0, 50, tokens)
    others = np.arange(5, 30)
    share = frequencies / frequencies.sum()
    joint = np.zeros((30, 31))  # true, seen; the last column is the mask
    for true in range(30):
        joint[true, 30] += 0.8 * share[true]
        joint[true, true] += 0.1 * share[true]
        for seen in others:
            joint[true, seen] += 0.1 * share[true] / len(others)
    answers = joint / np.maximum(joint.sum(axis=0), 1e-300)
    known = joint > 0
    loss = -(joint[known] * np.log(answers[known])).sum()
    assert context_free_loss(frequencies, others) == pytest.approx(loss, rel=1e-12)


def test_a_batch_without_a_target_gets_one():
    ids = np.full((1, 3), 7)
    rng = np.random.default_rng(1)
    batch = mask_ids(ids, rng, 1e-9, special=[0], mask=4, others=np.arange(5, 9))
    assert (batch["labels"] != IGNORED_LABEL).sum() == 1


def recorded_batches(monkeypatch, tmp_path, **changes) -> list[dict[str, torch.Tensor]]:
    """The training batches of a run."""
    seen = []
    forward = GAUAlphaForMaskedLM.forward

    @functools.wraps(forward)  # the Trainer looks at its signature
    def recording(self, **inputs):
        if self.training:
            seen.append({name: value.clone() for name, value in inputs.items()})
        return forward(self, **inputs)

    with monkeypatch.context() as patch:
        patch.setattr(GAUAlphaForMaskedLM, "forward", recording)
        train(tmp_path / json.dumps(changes).replace("/", "_"), **changes)
    return seen


def test_every_attention_and_scheme_sees_the_same_batches(monkeypatch, tmp_path):
    runs = [
        recorded_batches(monkeypatch, tmp_path, attention=attention, scheme=scheme)
        for attention, scheme in (
            *(("dot", "rope"), ("cos16", "rope"), ("dot", "alibi")),
            *(("dot", "pose"), ("dot", "randpos")),
        )
    ]
    assert {len(run) for run in runs} == {OPTIONS["steps"]}
    for run in runs[1:]:
        for one, other in zip(runs[0], run, strict=True):
            assert torch.equal(one["input_ids"], other["input_ids"])
            assert torch.equal(one["labels"], other["labels"])
    assert "positions" not in runs[0][0]
    pose, randpos = runs[3][0]["positions"], runs[4][0]["positions"]
    assert (pose.diff(dim=1) > 0).all()
    assert pose.max() <= 63 * 16 / 64
    assert (randpos.diff(dim=1) >= 1).all()
    assert randpos.max() < 64
    assert not torch.equal(randpos[0], randpos[1])  # drawn per sequence


def test_writes_a_checkpoint_with_its_curve(tmp_path):
    weights = train(tmp_path / "run")
    again = train(tmp_path / "again")
    other = train(tmp_path / "other", seed=2)
    name = "gau_alpha.encoder.layer.0.gau.i_dense.weight"
    assert torch.equal(weights[name], again[name])
    assert not torch.equal(weights[name], other[name])
    training = json.loads((tmp_path / "run" / "training.json").read_text())
    assert training["n_train"] == 16
    assert training["steps"] == 6
    assert training["tokens"] == 6 * 4 * 16
    assert [row["step"] for row in training["history"] if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert any("eval_loss" in row for row in training["history"])
    loaded = GAUAlphaForMaskedLM.from_pretrained(tmp_path / "run")
    assert (loaded.config.n_train, loaded.config.n_max, loaded.config.scheme) == (16, 64, "rope")


def test_resumes_where_it_was_stopped(monkeypatch, tmp_path):
    whole = train(tmp_path / "whole")

    class StopHereError(Exception):
        pass

    def stopping(self, indices, calls=[]):  # noqa: B006
        calls.append(1)
        if len(calls) == 5:
            raise StopHereError
        return draw(self, indices)

    draw = Crops.draw
    with monkeypatch.context() as patch:
        patch.setattr(mlm.Crops, "draw", stopping)
        with pytest.raises(StopHereError):
            train(tmp_path / "cut")
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    resumed = train(tmp_path / "cut")
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name


def test_zero_steps_take_a_checkpoint_as_it_is(tmp_path):
    first = train(tmp_path / "first")
    nothing = OPTIONS | {"steps": 0}
    taken = train(tmp_path / "taken", initial=tmp_path / "first", options=nothing)
    for name, tensor in first.items():
        assert torch.equal(tensor, taken[name]), name
    with pytest.raises(LongscaleError, match="trained with dot and rope, so with"):
        train(tmp_path / "no", initial=tmp_path / "first", options=nothing, attention="cos16")
    assert not (tmp_path / "no").exists()


def test_goes_on_from_a_checkpoint_with_another_attention(tmp_path):
    first = train(tmp_path / "first")
    second = train(tmp_path / "second", initial=tmp_path / "first", attention="cos16")
    name = "gau_alpha.embeddings.word_embeddings.weight"
    assert 0 < (first[name] - second[name]).abs().max() < 0.5
    config = json.loads((tmp_path / "second" / "config.json").read_text())
    assert config["attention"] == "cos16"
