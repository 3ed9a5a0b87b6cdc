"""The training loop: what is resumed, what is kept, what is flagged."""

import json
import math

import pytest
import torch
from scipy.stats import entropy

from longscale.errors import LongscaleError
from longscale.models.dnabert2 import DNABERT2Config, DNABERT2ForSequenceClassification
from longscale.training.loop import (
    device_precision,
    has_learned,
    require_finite,
    save_trained,
    still_improving,
    train,
)

ROWS = 24
BATCH = 4
TOKENS = torch.randint(5, 20, (ROWS, 9), generator=torch.Generator().manual_seed(3))
LABELS = (TOKENS == 7).any(1).long()
SETTINGS = {"seed": 1}


class KilledError(BaseException):
    """Stands for the end of the process."""


def collate(indices):
    """Rows with a padded token in every second one; labels that can be learned."""
    mask = torch.ones(len(indices), 9, dtype=torch.long)
    mask[torch.tensor(indices) % 2 == 1, 8:] = 0
    return {"input_ids": TOKENS[indices], "attention_mask": mask, "labels": LABELS[indices]}


def opposite(indices):
    """The same rows with the other label: learning makes it worse."""
    return collate(indices) | {"labels": 1 - LABELS[indices]}


class Explosive(DNABERT2ForSequenceClassification):
    """A model whose loss, and so its gradients, can be made not a number by the batch."""

    def forward(self, input_ids, attention_mask=None, labels=None, factor=1.0):
        output = super().forward(input_ids, attention_mask, labels=labels)
        output.loss = output.loss * factor
        return output


def model_of(dropout=0.1):
    torch.manual_seed(5)
    config = DNABERT2Config(
        vocab_size=20,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        hidden_dropout_prob=dropout,
        num_labels=2,
    )
    return Explosive(config)


def arguments(**changes):
    """Two evaluations in each of four epochs of six steps."""
    return {
        "num_train_epochs": 4,
        "per_device_train_batch_size": BATCH,
        "per_device_eval_batch_size": BATCH,
        "learning_rate": 0.01,
        "logging_steps": 3,
        "eval_strategy": "steps",
        "eval_steps": 3,
        "save_strategy": "steps",
        "save_steps": 3,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "seed": 1,
    } | changes


def without_dev(**changes):
    changes = {"eval_strategy": "no", "load_best_model_at_end": False} | changes
    return arguments(**changes)


def run(folder, *, dev=collate, data=collate, killed_at=None, settings=SETTINGS, **options):
    """Train a new model; (model, outcome, lines), or the lines if it was killed at that line."""
    lines, model = [], model_of()

    def report(line):
        lines.append(line)
        if killed_at and line.startswith(killed_at):
            raise KilledError

    if killed_at:
        with pytest.raises(KilledError):
            run_model(model, folder, dev, data, settings, report, **options)
        return lines
    return model, run_model(model, folder, dev, data, settings, report, **options), lines


def run_model(model, folder, dev, data, settings, report, **options):
    options = {"arguments": arguments() if dev else without_dev()} | options
    pair = (dev, ROWS) if dev else None
    return train(model, data, ROWS, folder, settings=settings, dev=pair, report=report, **options)


def assert_same_weights(a, b):
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(x, y), name


def unlike(outcome, *keys):
    return {key: value for key, value in outcome.items() if key not in ("seconds", *keys)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The undisturbed run: model, outcome, lines."""
    return run(tmp_path_factory.mktemp("loop") / "whole")


# --- resuming ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dev", "killed_at"),
    [(collate, "step 3/24  loss"), (collate, "step 24/24  dev"), (None, "step 9/24  loss")],
)
def test_a_killed_run_goes_on_bit_by_bit_as_if_nothing_had_been(whole, tmp_path, dev, killed_at):
    """Dropout and the order of rows included, in the middle of an epoch and at its end."""
    undisturbed, outcome, _ = whole if dev else run(tmp_path / "whole", dev=None)
    run(tmp_path / "killed", dev=dev, killed_at=killed_at)
    again, resumed, lines = run(tmp_path / "killed", dev=dev)
    steps = int(killed_at.split()[1].split("/")[0])
    assert any(line == f"resumed at step {steps - 3} of 24" for line in lines) == (steps > 3)
    assert_same_weights(undisturbed, again)
    assert unlike(resumed) == unlike(outcome)
    assert len(outcome["history"]) == (16 if dev else 8)
    assert outcome["tokens"] == 4 * sum(9 - row % 2 for row in range(ROWS))


def test_a_run_killed_twice_is_still_the_same(whole, tmp_path):
    run(tmp_path / "killed", killed_at="step 9/24")
    run(tmp_path / "killed", killed_at="step 18/24")
    again, resumed, _ = run(tmp_path / "killed")
    assert_same_weights(whole[0], again)
    assert unlike(resumed) == unlike(whole[1])


def test_patience_is_not_forgotten(tmp_path):
    """The first evaluation is the best; the run was killed before the last one of the patience."""
    options = {"dev": opposite, "patience": 3}
    undisturbed, outcome, _ = run(tmp_path / "whole", **options)
    assert (outcome["best_step"], outcome["steps"]) == (3, 12)
    run(tmp_path / "killed", killed_at="step 12/24  dev", **options)
    again, resumed, lines = run(tmp_path / "killed", **options)
    assert "resumed at step 9 of 24" in lines
    assert_same_weights(undisturbed, again)
    assert unlike(resumed) == unlike(outcome)


def test_a_finished_loop_is_not_trained_again(tmp_path):
    """Killed after the last step, before the model was safe."""
    undisturbed, outcome, _ = run(tmp_path / "a")
    again, resumed, lines = run(tmp_path / "a")
    assert lines == ["resumed at step 24 of 24"]
    assert_same_weights(undisturbed, again)
    assert unlike(resumed) == unlike(outcome)


def test_a_half_written_checkpoint_is_passed_over(whole, tmp_path):
    run(tmp_path / "killed", killed_at="step 9/24")
    (tmp_path / "killed" / "checkpoint-6" / "trainer_state.json").unlink()
    again, _, lines = run(tmp_path / "killed")
    assert "resumed at step 3 of 24" in lines
    assert_same_weights(whole[0], again)


def test_other_settings_do_not_resume(whole, tmp_path):
    run(tmp_path / "a", killed_at="step 18/24")
    (tmp_path / "a" / "leftover").write_text("")
    model, outcome, lines = run(tmp_path / "a", settings={"seed": 2})
    assert not any(line.startswith("resumed") for line in lines)
    assert not (tmp_path / "a" / "leftover").exists()
    assert_same_weights(model, whole[0])
    assert unlike(outcome) == unlike(whole[1])


def test_another_seed_gives_other_weights(whole, tmp_path):
    other, _, _ = run(tmp_path / "b", arguments=arguments(seed=2))
    assert not torch.equal(whole[0].classifier.weight, other.classifier.weight)


# --- the best model ---------------------------------------------------------------------------


def dev_loss(model, dev):
    with torch.inference_mode():
        batches = [range(i, i + BATCH) for i in range(0, ROWS, BATCH)]
        losses = [model.eval()(**dev(list(rows))).loss.item() for rows in batches]
    return sum(losses) / len(losses)


@pytest.mark.parametrize("dev", [collate, opposite])
def test_the_weights_of_the_lowest_development_loss_are_kept(tmp_path, dev):
    model, outcome, _ = run(tmp_path / "a", dev=dev)
    losses = {row["step"]: row["eval_loss"] for row in outcome["history"] if "eval_loss" in row}
    assert list(losses) == list(range(3, 25, 3))
    assert outcome["best_step"] == min(losses, key=losses.get)
    assert dev_loss(model, dev) == pytest.approx(min(losses.values()), rel=1e-5)
    assert max(losses.values()) > min(losses.values()) + 0.05


@pytest.mark.parametrize("patience", [1, 2])
def test_training_stops_when_patience_is_over(tmp_path, patience):
    _, outcome, _ = run(tmp_path / "a", dev=opposite, patience=patience)
    assert (outcome["best_step"], outcome["steps"]) == (3, 3 + 3 * patience)
    assert outcome["flags"] == []


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([0.7], True),
        ([0.7, 0.6], True),
        ([0.7, 0.694], False),  # lower, but by less than 1%
        ([0.7, 0.692], True),
        ([0.7, 0.5, 0.6], False),
        ([0.7, 0.5, 0.499, 0.6, 0.49], True),
    ],
)
def test_still_improving_compares_the_last_loss_with_the_lowest_before(losses, expected):
    assert still_improving(losses) is expected


def test_still_falling_at_the_end_is_flagged(tmp_path):
    steady = arguments(num_train_epochs=2, learning_rate=0.01, lr_scheduler_type="constant")
    _, outcome, _ = run(tmp_path / "a", arguments=steady)
    losses = [row["eval_loss"] for row in outcome["history"] if "eval_loss" in row]
    assert still_improving(losses)
    assert outcome["flags"] == ["not_converged"]
    assert outcome["best_step"] == outcome["steps"] == 12


def test_a_plateau_at_the_end_is_not_flagged(tmp_path):
    _, outcome, _ = run(tmp_path / "a", arguments=arguments(learning_rate=1e-9))
    losses = [row["eval_loss"] for row in outcome["history"] if "eval_loss" in row]
    assert max(losses) < 1.001 * min(losses)
    assert outcome["flags"] == []


def test_the_last_step_is_evaluated_even_between_two_evaluations(tmp_path):
    _, outcome, _ = run(tmp_path / "a", arguments=arguments(max_steps=7))
    steps = [row["step"] for row in outcome["history"] if "eval_loss" in row]
    assert steps == [3, 6, 7]


def test_without_a_development_set_the_last_weights_are_kept_unflagged(tmp_path):
    _, outcome, _ = run(tmp_path / "a", dev=None)
    assert outcome["best_step"] == outcome["steps"] == 24
    assert outcome["flags"] == []


# --- a loss that is not a number --------------------------------------------------------------


def poisoned(good_batches):
    """A collator whose loss is finite for that many batches, then not a number."""
    served = []

    def spoil(indices):
        served.append(indices)
        return collate(indices) | {"factor": 1.0 if len(served) <= good_batches else math.nan}

    return spoil


@pytest.mark.parametrize(("good", "stopped", "best"), [(7, 9, 6), (0, 3, 3)])
def test_a_non_finite_loss_stops_and_keeps_the_best(tmp_path, good, stopped, best):
    model, outcome, lines = run(tmp_path / "a", data=poisoned(good))
    assert outcome["flags"] == ["non_finite_loss"]
    assert (outcome["best_step"], outcome["steps"]) == (best, stopped)
    assert f"step {stopped}: the loss is not finite; training stops here" in lines
    if good == 0:  # there was no best
        assert_same_weights(model, model_of())
    else:
        losses = [row["eval_loss"] for row in outcome["history"] if "eval_loss" in row]
        assert math.isnan(losses[-1])
        assert dev_loss(model, collate) == pytest.approx(min(losses[:-1]), rel=1e-5)


def test_a_non_finite_loss_without_a_development_set_returns_to_the_start(tmp_path):
    model, outcome, _ = run(tmp_path / "a", dev=None, data=poisoned(4))
    assert outcome["flags"] == ["non_finite_loss"]
    assert outcome["steps"] == 6
    assert_same_weights(model, model_of())


def test_a_non_finite_development_loss_is_flagged_too(tmp_path):
    _, outcome, _ = run(tmp_path / "a", dev=poisoned(6))
    assert outcome["flags"] == ["non_finite_loss"]
    assert (outcome["best_step"], outcome["steps"]) == (3, 6)


# --- the rest ---------------------------------------------------------------------------------


def test_the_log_is_for_people(whole):
    lines = whole[2]
    assert lines[0].startswith("step 3/24  loss 0.")
    assert lines[0].endswith(" min left")
    assert " tokens/s  " in lines[0]
    assert lines[1].startswith("step 3/24  dev loss 0.")
    assert len(lines) == 16


def test_precision_on_a_machine_without_a_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert device_precision("auto") == device_precision("fp32") == {"bf16": False, "fp16": False}
    assert device_precision("bf16") == {"bf16": True, "fp16": False}
    with pytest.raises(LongscaleError, match=r"finetune.precision is fp16, which needs a GPU"):
        device_precision("fp16")


@pytest.mark.parametrize(("has_bf16", "chosen"), [(True, "bf16"), (False, "fp16")])
def test_precision_on_a_gpu(monkeypatch, has_bf16, chosen):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: has_bf16)
    assert device_precision("auto")[chosen] is True
    assert sum(device_precision("auto").values()) == 1
    assert device_precision("fp16") == {"bf16": False, "fp16": True}


def test_bf16_trains_here_too(tmp_path):
    _, outcome, _ = run(tmp_path / "a", precision="bf16")
    assert outcome["flags"] in ([], ["not_converged"])
    first, *_, last = [row["loss"] for row in outcome["history"] if "loss" in row]
    assert last < first


def test_a_model_is_saved_with_its_outcome(tmp_path):
    model, outcome, _ = run(tmp_path / "a", data=poisoned(0))
    save_trained(model, tmp_path / "model", outcome)
    stored = json.loads((tmp_path / "model" / "training.json").read_text())
    assert stored["flags"] == ["non_finite_loss"]
    assert math.isnan(stored["history"][0]["loss"])
    DNABERT2ForSequenceClassification.from_pretrained(tmp_path / "model")


def test_a_loss_that_is_not_finite_is_one_sentence_with_the_key_to_change():
    require_finite({"flags": ["not_converged"], "steps": 7}, "mlm.train")
    with pytest.raises(LongscaleError, match=r"at step 7; a lower mlm\.train\.learning_rate"):
        require_finite({"flags": ["non_finite_loss"], "steps": 7}, "mlm.train")


@pytest.mark.parametrize(
    ("losses", "positives", "learned"),
    [
        ([0.6931, 0.6936], 0.5, False),
        ([0.6931, 0.5], 0.5, True),
        ([0.6865, 0.7], 0.5, False),  # within 1% of ln 2
        ([0.33], 0.1, False),  # a constant answer reaches .325 here
        ([0.30], 0.1, True),
        ([], 0.5, False),
    ],
)
def test_a_loss_no_better_than_without_the_input_is_no_learning(losses, positives, learned):
    history = [{"loss": 1.0}, *({"eval_loss": loss} for loss in losses)]
    assert has_learned(history, entropy([1 - positives, positives])) is learned
