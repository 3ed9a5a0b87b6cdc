"""The training loop both trainings share: transformers' Trainer, resumable, with a log a person can
read.
"""

import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.data import Dataset
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from longscale.errors import LongscaleError
from longscale.files import atomic_folder
from longscale.provenance import digest

NON_FINITE_LOSS, NOT_CONVERGED = "non_finite_loss", "not_converged"
NOT_LEARNED = "not_learned"

# A last development loss that is lower than all others by a larger share is still falling.
CONVERGED_WITHIN = 0.01


class Indices(Dataset):
    """A data set whose items are row numbers: the collator builds a whole batch at once."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index


class LogForPeople(TrainerCallback):
    """Step, loss, tokens/s and time left, a line at a time; stops at a non-finite loss."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self.report = report
        self.non_finite = False
        self.started = time.monotonic()
        self.first_step = self.first_tokens = 0

    def on_train_begin(self, args, state, control, **kwargs) -> None:  # noqa: ANN001, ARG002, ANN003
        """Remember where this process took over."""
        self.started = time.monotonic()
        self.first_step, self.first_tokens = state.global_step, state.num_input_tokens_seen
        if state.global_step:
            self.report(f"resumed at step {state.global_step} of {state.max_steps}")

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:  # noqa: ANN001, ARG002, ANN003
        """One line per report of the Trainer."""
        logs = logs or {}
        if "loss" in logs:
            seconds = max(time.monotonic() - self.started, 1e-9)
            rate = (state.num_input_tokens_seen - self.first_tokens) / seconds
            steps = max(state.global_step - self.first_step, 1)
            left = (state.max_steps - state.global_step) * seconds / steps
            self.report(
                f"step {state.global_step}/{state.max_steps}  loss {logs['loss']:.4f}"
                f"  {rate:,.0f} tokens/s  {left / 60:.1f} min left"
            )
        if "eval_loss" in logs:
            self.report(
                f"step {state.global_step}/{state.max_steps}  dev loss {logs['eval_loss']:.4f}"
            )
        if any(not math.isfinite(logs.get(key, 0.0)) for key in ("loss", "eval_loss")):
            self.non_finite = True
            control.should_training_stop = True
            self.report(f"step {state.global_step}: the loss is not finite; training stops here")


def device_precision(precision: str) -> dict[str, bool]:
    """Trainer's bf16/fp16 switches for a configured precision on this machine."""
    cuda = torch.cuda.is_available()
    if precision == "auto":
        precision = "fp32" if not cuda else "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    if precision == "fp16" and not cuda:
        raise LongscaleError(
            "finetune.precision is fp16, which needs a GPU; bf16 or fp32 would work here"
        )
    return {"bf16": precision == "bf16", "fp16": precision == "fp16"}


def usable_checkpoint(folder: Path, settings: str) -> str | None:
    """The newest checkpoint of a run with these settings; another run's leftovers are removed."""
    stamp = folder / "settings.sha256"
    if stamp.exists() and stamp.read_text() == settings:
        steps = [
            path for path in folder.glob("checkpoint-*") if (path / "trainer_state.json").exists()
        ]
        if steps:
            return str(max(steps, key=lambda path: int(path.name.rsplit("-", 1)[1])))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    stamp.write_text(settings)
    return None


def train(
    model: PreTrainedModel,
    collate: Callable[[list[int]], dict[str, torch.Tensor]],
    examples: int,
    folder: Path,
    *,
    settings: dict,
    arguments: dict,
    precision: str = "auto",
    dev: tuple[Callable[[list[int]], dict[str, torch.Tensor]], int] | None = None,
    patience: int | None = None,
    report: Callable[[str], None] = print,
) -> dict:
    """Train `model` in place; `folder` holds checkpoints to resume from (the caller removes it
    once the model is safe).

    `collate` turns row numbers below `examples` into a batch; `dev` is the same pair for the
    development set, whose best checkpoint is kept. `arguments` go to `TrainingArguments`;
    `settings` is everything that the result depends on: checkpoints of other settings are not
    resumed from.

    Returns steps, best_step, flags (`non_finite_loss`, `not_converged`), seconds and the loss
    history.
    """
    resume = usable_checkpoint(folder, digest(settings))
    initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    log = LogForPeople(report)
    trainer = EvaluatingTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder),
            use_cpu=not torch.cuda.is_available(),
            remove_unused_columns=False,
            label_names=["labels"],
            disable_tqdm=True,
            report_to="none",
            logging_nan_inf_filter=False,
            include_num_input_tokens_seen="non_padding",
            dataloader_pin_memory=torch.cuda.is_available(),
            save_total_limit=2,
            # A resumed run must not forget how long it has waited for a lower development loss.
            restore_callback_states_from_checkpoint=True,
            **device_precision(precision),
            **arguments,
        ),
        data_collator=collate,
        train_dataset=Indices(examples),
        eval_dataset=Indices(dev[1]) if dev else None,
        callbacks=[log],
    )
    trainer.dev_collate = dev[0] if dev else None
    if patience is not None:
        trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=patience))
    trainer.remove_callback(
        next(c for c in trainer.callback_handler.callbacks if type(c).__name__ == "PrinterCallback")
    )
    started = time.monotonic()
    trainer.train(resume_from_checkpoint=resume)
    outcome = summarise(trainer, log, seconds=time.monotonic() - started)
    if NON_FINITE_LOSS in outcome["flags"] and trainer.state.best_model_checkpoint is None:
        model.load_state_dict(initial)
    return outcome


class EvaluatingTrainer(Trainer):
    """A Trainer whose development set has a collator of its own."""

    dev_collate: Callable[[list[int]], dict[str, torch.Tensor]] | None = None

    def get_eval_dataloader(self, eval_dataset=None):  # noqa: ANN001, ANN201
        """The development set in order, in batches of the configured size."""
        return torch.utils.data.DataLoader(
            eval_dataset if eval_dataset is not None else self.eval_dataset,
            batch_size=self.args.eval_batch_size,
            collate_fn=self.dev_collate,
        )


def still_improving(losses: list[float]) -> bool:
    """Whether the last of the development losses undercuts all before it by more than 1%."""
    return len(losses) == 1 or losses[-1] < (1 - CONVERGED_WITHIN) * min(losses[:-1])


def summarise(trainer: Trainer, log: LogForPeople, *, seconds: float) -> dict:
    """What the tables and a reader need to know of a finished training."""
    state = trainer.state
    best = state.best_global_step if state.best_model_checkpoint else state.global_step
    flags = [NON_FINITE_LOSS] if log.non_finite else []
    losses = [row["eval_loss"] for row in state.log_history if "eval_loss" in row]
    if losses and not log.non_finite and still_improving(losses):
        flags.append(NOT_CONVERGED)
    keys = ("step", "loss", "eval_loss", "learning_rate")
    history = [{k: row[k] for k in keys if k in row} for row in state.log_history]
    return {
        "steps": state.global_step,
        "best_step": best,
        "tokens": int(state.num_input_tokens_seen),
        "seconds": round(seconds, 1),
        "flags": flags,
        "history": [row for row in history if "loss" in row or "eval_loss" in row],
    }


def has_learned(history: list[dict], uninformed: float) -> bool:
    """Whether the lowest development loss is at least 1% below `uninformed`: the loss, in nats, of
    the best answer that knows nothing of the input.
    """
    losses = [row["eval_loss"] for row in history if "eval_loss" in row]
    return bool(losses and min(losses) < 0.99 * uninformed)


def require_finite(outcome: dict, section: str) -> None:
    """Raises `LongscaleError` where the loss stopped being finite; `section`: of the config."""
    if NON_FINITE_LOSS in outcome["flags"]:
        raise LongscaleError(
            f"{section}: the loss is no longer finite at step {outcome['steps']}; a lower"
            f" {section}.learning_rate may help"
        )


def save_trained(model: PreTrainedModel, folder: str | Path, record: dict) -> None:
    """The model's own files and training.json in `folder`, all or none of them."""
    with atomic_folder(folder) as part:
        model.save_pretrained(part)
        (part / "training.json").write_text(json.dumps(record, indent=1, allow_nan=True) + "\n")
