"""The training loop: what is resumed, what is kept, what is flagged."""

import json
import math
import os
import signal

import pytest
import torch
from forks import run_forked
from safetensors.torch import load_file, save_file
from scipy.stats import entropy

from longscale.errors import LongscaleError
from longscale.models.dnabert2 import DNABERT2Config, DNABERT2ForSequenceClassification
from longscale.training import loop
from longscale.training.loop import (
    device_precision,
    has_learned,
    require_finite,
    save_trained,
    still_improving,
    train,
)
from longscale.training.lora import add_lora

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


def run(
    folder,
    *,
    dev=collate,
    data=collate,
    killed_at=None,
    settings=SETTINGS,
    build=model_of,
    **options,
):
    """Train a new model; (model, outcome, lines), or the lines if it was killed at that line."""
    lines, model = [], build()

    def report(line):
        lines.append(line)
        if killed_at and line.startswith(killed_at):
            raise KilledError

    if killed_at:
        with pytest.raises(KilledError):
            run_model(model, folder, dev, data, settings, report, **options)
        return lines
    return model, run_model(model, folder, dev, data, settings, report, **options), lines


def run_model(model, folder, dev, data, settings, report, rows=ROWS, dev_rows=ROWS, **options):
    options = {"arguments": arguments() if dev else without_dev()} | options
    pair = (dev, dev_rows) if dev else None
    return train(model, data, rows, folder, settings=settings, dev=pair, report=report, **options)


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
    assert lines[0] == "resumed at step 24 of 24"
    assert [line.split(",")[0] for line in lines[1:]] == [f"kept: step {outcome['best_step']}"]
    assert_same_weights(undisturbed, again)
    assert unlike(resumed) == unlike(outcome)


def test_a_half_written_checkpoint_is_passed_over(whole, tmp_path):
    run(tmp_path / "killed", killed_at="step 9/24")
    (tmp_path / "killed" / "checkpoint-6" / "trainer_state.json").unlink()
    again, _, lines = run(tmp_path / "killed")
    assert "resumed at step 3 of 24" in lines
    assert_same_weights(whole[0], again)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "config.json"]
)
def test_a_checkpoint_of_which_a_file_is_cut_in_half_is_passed_over(whole, tmp_path, name):
    run(tmp_path / "killed", killed_at="step 9/24")
    cut = tmp_path / "killed" / "checkpoint-6" / name
    with cut.open("r+b") as handle:
        handle.truncate(cut.stat().st_size // 2)
    again, resumed, lines = run(tmp_path / "killed")
    assert "checkpoint-6 is not whole any more: it is not resumed from" in lines
    assert "resumed at step 3 of 24" in lines
    assert_same_weights(whole[0], again)
    assert unlike(resumed) == unlike(whole[1])


def test_a_bit_that_flips_is_noticed(whole, tmp_path):
    run(tmp_path / "killed", killed_at="step 9/24")
    path = tmp_path / "killed" / "checkpoint-6" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    _, _, lines = run(tmp_path / "killed")
    assert "resumed at step 3 of 24" in lines


def test_a_checkpoint_whose_best_one_is_damaged_is_not_gone_on_with(tmp_path):
    """The training would end with its last weights in place of its best."""
    run(tmp_path / "killed", dev=opposite, killed_at="step 9/24")
    left = {path.name for path in (tmp_path / "killed").glob("checkpoint-*")}
    assert left == {"checkpoint-3", "checkpoint-6"}
    (tmp_path / "killed" / "checkpoint-3" / "model.safetensors").write_bytes(b"")
    undisturbed, outcome, _ = run(tmp_path / "whole", dev=opposite)
    again, resumed, lines = run(tmp_path / "killed", dev=opposite)
    assert not any(line.startswith("resumed") for line in lines)
    assert_same_weights(undisturbed, again)
    assert unlike(resumed) == unlike(outcome)


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


# --- SIGKILL ----------------------------------------------------------------------------------


def killing(count):
    """A collator at whose batch of this number the process ends, as the kernel ends it."""
    served = []

    def kill(indices):
        served.append(indices)
        if len(served) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return collate(indices)

    return kill


def adapted():
    model = model_of()
    add_lora(model, r=2, alpha=4, dropout=0.1, target_modules=["Wqkv", "dense"])
    return model


@pytest.fixture
def saved_at_every_line(monkeypatch):
    """A checkpoint at every line of the log, as if each had taken ten minutes."""
    monkeypatch.setattr(loop, "MOST_SECONDS_UNSAVED", -1)


def assert_killed_and_the_same(tmp_path, resumed_at, batch, **options):
    """The kill is in the fifth of the six steps of the second epoch."""
    undisturbed, outcome, _ = run(tmp_path / "whole", **options)
    codes = run_forked(lambda: run(tmp_path / "killed", data=killing(batch), **options))
    assert codes == [-signal.SIGKILL]
    again, resumed, lines = run(tmp_path / "killed", **options)
    assert f"resumed at step {resumed_at} of 24" in lines
    assert_same_weights(undisturbed, again)
    assert unlike(resumed) == unlike(outcome)


def test_a_run_killed_inside_an_epoch_ends_as_if_nothing_had_been(tmp_path):
    """Weights, losses and all else that is written, with dropout, bit for bit."""
    assert_killed_and_the_same(tmp_path, 9, 12)


def test_so_does_one_with_adapters_and_accumulated_steps(tmp_path):
    changes = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    assert_killed_and_the_same(tmp_path, 9, 23, build=adapted, arguments=arguments(**changes))


@pytest.mark.usefixtures("saved_at_every_line")
def test_so_does_one_with_checkpoints_between_evaluations(tmp_path):
    changes = {"eval_steps": 6, "save_steps": 6, "logging_steps": 2}
    assert_killed_and_the_same(tmp_path, 10, 12, arguments=arguments(**changes))


def test_checkpoints_between_evaluations_change_nothing(tmp_path, whole, saved_at_every_line):
    _, outcome, _ = run(tmp_path / "a", arguments=arguments(logging_steps=1))
    losses = [row["eval_loss"] for row in outcome["history"] if "eval_loss" in row]
    expected = [row["eval_loss"] for row in whole[1]["history"] if "eval_loss" in row]
    assert losses == expected


def test_a_run_killed_while_it_writes_a_checkpoint_takes_the_one_before(whole, tmp_path):
    def die_writing():
        own = loop.SharingTrainer._save_rng_state
        loop.SharingTrainer._save_rng_state = lambda trainer, folder: (
            os.kill(os.getpid(), signal.SIGKILL) if folder.endswith("-9") else own(trainer, folder)
        )
        run(tmp_path / "killed")

    assert run_forked(die_writing) == [-signal.SIGKILL]
    assert (tmp_path / "killed" / "checkpoint-9" / "model.safetensors").exists()
    again, resumed, lines = run(tmp_path / "killed")
    assert "resumed at step 6 of 24" in lines
    assert_same_weights(whole[0], again)
    assert unlike(resumed) == unlike(whole[1])


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


@pytest.mark.usefixtures("saved_at_every_line")
def test_the_best_is_kept_through_a_kill_that_comes_after_it(tmp_path):
    """The first evaluation is the best; eight checkpoints on, the process ends."""
    options = {"dev": opposite, "patience": 4, "arguments": arguments(logging_steps=1)}
    folder = tmp_path / "a"
    assert run_forked(lambda: run(folder, data=killing(12), **options)) == [-signal.SIGKILL]
    assert {path.name for path in folder.glob("c*")} == {"checkpoint-3", "checkpoint-10"}
    best = load_file(folder / "checkpoint-3" / "model.safetensors")
    model, outcome, _ = run(folder, **options)
    assert (outcome["best_step"], outcome["steps"]) == (3, 15)
    assert {path.name for path in folder.glob("c*")} == {"checkpoint-3", "checkpoint-15"}
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, best[name]), name
    losses = [row["eval_loss"] for row in outcome["history"] if "eval_loss" in row]
    assert dev_loss(model, opposite) == pytest.approx(min(losses), rel=1e-5)
    assert min(losses[1:]) > losses[0] + 0.01


@pytest.mark.parametrize("rows", [23, 1])
def test_the_development_loss_is_the_mean_over_its_rows(tmp_path, rows):
    """Its last batch, which is smaller, weighs no more than its rows."""
    model, outcome, _ = run(tmp_path / "a", dev_rows=rows, arguments=arguments(max_steps=3))
    with torch.inference_mode():
        expected = model.eval()(**collate(list(range(rows)))).loss.item()
    assert outcome["history"][-1]["eval_loss"] == pytest.approx(expected, rel=1e-6)


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


# --- the same update, however it is computed --------------------------------------------------

GRADIENT_DESCENT = {
    "optim": "sgd",
    "learning_rate": 0.5,
    "lr_scheduler_type": "constant",
    "num_train_epochs": 2,
    "logging_steps": 1,
}


def by_hand(rows, batch, order):
    """A model after gradient descent on the mean loss of each batch of `order`, epoch by epoch."""
    model = model_of(0.0).train()
    for epoch in order:
        for first in range(0, rows, batch):
            model.zero_grad()
            model(**collate(epoch[first : first + batch])).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # as the Trainer does
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= 0.5 * parameter.grad
    return model


def recording(batches):
    """`collate` that also notes what it is asked for."""
    return lambda indices: batches.append(list(indices)) or collate(indices)


def assert_near(model, weights):
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, weights[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rows", [24, 21, 17])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_accumulated_steps_are_the_big_batch(tmp_path, rows, steps):
    """Eight rows an update; in an epoch's last one eight, five (4 + 1) or a single one."""
    batches = []
    changes = {"per_device_train_batch_size": 8 // steps, "gradient_accumulation_steps": steps}
    model, outcome, _ = run(
        tmp_path / "a",
        dev=None,
        data=recording(batches),
        build=lambda: model_of(0.0),
        rows=rows,
        arguments=without_dev(save_strategy="no", **GRADIENT_DESCENT, **changes),
    )
    flat = [row for batch in batches for row in batch]
    order = flat[:rows], flat[rows:]
    assert all(sorted(epoch) == list(range(rows)) for epoch in order)
    assert order[0] != order[1]
    assert_near(model, by_hand(rows, 8, order).state_dict())
    assert outcome["steps"] == 2 * -(-rows // 8)


# --- several processes ------------------------------------------------------------------------


def in_two(folder, name, **options):
    """`run` in two processes: the weights, the outcome, the batches and the seed of each."""

    def one():
        batches, rank = [], os.environ["RANK"]
        model, outcome, lines = run(folder / name, data=recording(batches), **options)
        save_file(model.state_dict(), folder / f"{name}.{rank}.safetensors")
        outcome |= {"batches": batches, "lines": lines, "torch_seed": torch.initial_seed()}
        (folder / f"{name}.{rank}.json").write_text(json.dumps(outcome))

    assert run_forked(one, 2) == [0, 0]
    weights = [load_file(folder / f"{name}.{rank}.safetensors") for rank in (0, 1)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    return weights[0], [json.loads((folder / f"{name}.{rank}.json").read_text()) for rank in (0, 1)]


def losses_of(outcome):
    return [row.get("loss", row.get("eval_loss")) for row in outcome["history"]]


@pytest.mark.parametrize(("rows", "dev_rows", "steps"), [(24, 24, 1), (21, 13, 2), (17, 17, 1)])
def test_two_processes_are_one_with_the_same_batch(tmp_path, rows, dev_rows, steps):
    """In an epoch's last batch a process has fewer rows than the other, or none; rows differ in
    their number of tokens.
    """
    options = {"rows": rows, "dev_rows": dev_rows, "build": lambda: model_of(0.0)}
    size, accumulation = "per_device_train_batch_size", "gradient_accumulation_steps"
    batches, own = [], {size: 4 * steps}
    options["arguments"] = arguments(**GRADIENT_DESCENT, **own)
    model, outcome, _ = run(tmp_path / "one", data=recording(batches), **options)
    own = {size: 2, accumulation: steps}
    options["arguments"] = arguments(**GRADIENT_DESCENT, **own)
    weights, parts = in_two(tmp_path, "two", **options)
    assert_near(model, weights)
    for part in parts:
        assert losses_of(part) == pytest.approx(losses_of(outcome), rel=1e-5)
        assert (part["steps"], part["best_step"]) == (outcome["steps"], outcome["best_step"])
    if rows == 24:  # else a process without a row has computed one that does not count
        pairs = zip(parts[0]["batches"], parts[1]["batches"], strict=True)
        assert [sorted(one + other) for one, other in pairs] == list(map(sorted, batches))
        assert parts[0]["tokens"] == parts[1]["tokens"] == outcome["tokens"]


def test_two_processes_go_on_after_a_kill_and_do_not_share_their_dropout(tmp_path):
    options = {"arguments": arguments(per_device_train_batch_size=2)}
    weights, (first, second) = in_two(tmp_path, "whole", **options)
    assert first["torch_seed"] != second["torch_seed"]
    codes = run_forked(lambda: run(tmp_path / "again", data=killing(12), **options), 2)
    assert codes == [-signal.SIGKILL] * 2
    others, (resumed, _) = in_two(tmp_path, "again", **options)
    assert "resumed at step 9 of 24" in resumed["lines"]
    assert all(torch.equal(weights[key], others[key]) for key in weights)
    assert losses_of(resumed) == losses_of(first)


def test_one_process_does_not_resume_from_two(tmp_path, whole):
    options = {"arguments": arguments(per_device_train_batch_size=2)}
    codes = run_forked(lambda: run(tmp_path / "a", data=killing(12), **options), 2)
    assert codes == [-signal.SIGKILL] * 2
    model, _, lines = run(tmp_path / "a")
    assert not any(line.startswith("resumed") for line in lines)
    assert_same_weights(model, whole[0])


def test_a_process_uses_one_gpu_however_many_it_sees(tmp_path):
    seen = loop.OneDeviceArguments(output_dir=str(tmp_path), use_cpu=True)
    seen._n_gpu = 4  # what it sets where it finds as many
    assert (seen.n_gpu, seen.train_batch_size) == (1, seen.per_device_train_batch_size)


# --- the rest ---------------------------------------------------------------------------------


def test_the_log_is_for_people(whole):
    lines = whole[2]
    assert lines[0].startswith("step 3/24  loss 0.")
    assert lines[0].endswith(" min left")
    assert " tokens/s  " in lines[0]
    assert lines[1].startswith("step 3/24  dev loss 0.")
    assert lines[-1].startswith("kept: step ")
    assert len(lines) == 17


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


def test_checkpoints_are_there_until_the_model_stands(tmp_path, monkeypatch):
    """Killed while it is saved, a training goes on from its last checkpoint."""
    folder, model = tmp_path / "model", model_of()
    (folder / "checkpoints" / "checkpoint-3").mkdir(parents=True)
    (folder / "of_an_older_model.json").write_text("")
    names = {"config.json", "model.safetensors", "training.json"}

    def die(*args, **kwargs):
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(model, "save_pretrained", die)
        with pytest.raises(KilledError):
            save_trained(model, folder, {})
    assert {path.name for path in folder.iterdir()} == {"checkpoints", "of_an_older_model.json"}
    with monkeypatch.context() as patched:
        patched.setattr(loop.Path, "unlink", die)
        patched.setattr(loop.shutil, "rmtree", die)
        with pytest.raises(KilledError):
            save_trained(model, folder, {})
    assert names | {"checkpoints"} <= {path.name for path in folder.iterdir()}
    save_trained(model, folder, {})
    assert {path.name for path in folder.iterdir()} == names


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
