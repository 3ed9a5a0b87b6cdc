"""The training loop both trainings share: transformers' Trainer, resumable, with a log a person can
read.
"""

import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import broadcast_object_list
from torch.utils.data import DataLoader, Dataset
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_utils import EvalLoopOutput

from longscale.errors import LongscaleError
from longscale.files import atomic_path, checksum
from longscale.models.masked_lm import IGNORED_LABEL
from longscale.provenance import digest

NON_FINITE_LOSS, NOT_CONVERGED = "non_finite_loss", "not_converged"
NOT_LEARNED = "not_learned"

# A last development loss that is lower than all others by a larger share is still falling.
CONVERGED_WITHIN = 0.01

# Of a checkpoint: its files and their checksums.
SEAL = "sealed.json"

# A run that is killed loses the work since its last checkpoint.
MOST_SECONDS_UNSAVED = 600

Collate = Callable[[list[int]], dict[str, torch.Tensor]]


def processes() -> int:
    """Processes that train together: those that torchrun has started, else this one alone."""
    return int(os.environ["WORLD_SIZE"]) if torch.distributed.is_torchelastic_launched() else 1


def is_main_process() -> bool:
    """Whether this process is the one that writes."""
    return processes() == 1 or os.environ["RANK"] == "0"


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


class SaveNowAndThen(TrainerCallback):
    """A checkpoint at the next line of the log where the last one is too long ago.

    Only there: the Trainer forgets the losses since its last report when it resumes.
    """

    def __init__(self) -> None:
        self.saved = time.monotonic()

    def on_save(self, args, state, control, **kwargs) -> None:  # noqa: ANN001, ARG002, ANN003
        """Whyever it was saved."""
        self.saved = time.monotonic()

    def on_log(self, args, state, control, **kwargs) -> None:  # noqa: ANN001, ARG002, ANN003
        """All processes save together, by the clock of the first."""
        late = time.monotonic() - self.saved > MOST_SECONDS_UNSAVED
        if broadcast_object_list([late])[0]:
            control.should_save = True


class SealCheckpoint(TrainerCallback):
    """What is cut or damaged later, by a full disk or a failing one, is not resumed from."""

    def on_save(self, args, state, control, **kwargs) -> None:  # noqa: ANN001, ARG002, ANN003
        """When all files are written, those of other processes, too (`_save_rng_state`)."""
        if is_main_process():
            seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class OneDeviceArguments(TrainingArguments):
    """A process uses one GPU, however many it sees.

    The Trainer would else cut each tensor into as many parts, and a batch of both alleles, the
    references first, is no longer one then.
    """

    n_gpu = 1


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


def seal(checkpoint: Path) -> None:
    """Write down the checksum of each file of a finished checkpoint."""
    names = [path.name for path in checkpoint.iterdir() if path.name != SEAL]
    with atomic_path(checkpoint / SEAL) as part:
        part.write_text(json.dumps({name: checksum(checkpoint / name) for name in names}))


def is_whole(checkpoint: Path) -> bool:
    """Whether it was sealed, and all that it held then is as it was."""
    try:
        sealed = json.loads((checkpoint / SEAL).read_text())
        return all(checksum(checkpoint / name) == found for name, found in sealed.items())
    except (OSError, ValueError, AttributeError):
        return False


def best_before(checkpoint: Path) -> Path | None:
    """The checkpoint that was the best one when this one was written, if there was one."""
    best = json.loads((checkpoint / "trainer_state.json").read_text())["best_model_checkpoint"]
    return checkpoint.with_name(Path(best).name) if best else None


def usable_checkpoint(
    folder: Path, settings: str, report: Callable[[str], None] = print
) -> str | None:
    """The newest checkpoint of a run with these settings; what cannot be used is removed."""
    stamp = folder / "settings.sha256"
    if not (stamp.exists() and stamp.read_text() == settings):
        if list(folder.glob("checkpoint-*")):
            report("a training with other settings or code was stopped here: it is not resumed")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        stamp.write_text(settings)
    whole = {path for path in folder.glob("checkpoint-*") if is_whole(path)}
    # Without the best one a training would end with its last weights.
    usable = {path for path in whole if best_before(path) in {None, *whole}}
    for path in set(folder.glob("checkpoint-*")) - usable:
        report(f"{path.name} is not whole any more: it is not resumed from")
        shutil.rmtree(path)
    return str(max(usable, key=lambda path: int(path.name.rsplit("-", 1)[1]), default="")) or None


def train(
    model: PreTrainedModel,
    collate: Collate,
    examples: int,
    folder: Path,
    *,
    settings: dict,
    arguments: dict,
    precision: str = "auto",
    dev: tuple[Collate, int] | None = None,
    patience: int | None = None,
    report: Callable[[str], None] = print,
) -> dict:
    """Train `model` in place; `folder` holds checkpoints to resume from (the caller removes it
    once the model is safe).

    `collate` turns row numbers below `examples` into a batch; `dev` is the same pair for the
    development set, whose best checkpoint is kept. `arguments` go to `TrainingArguments`;
    `settings` is everything that the result depends on: checkpoints of other settings are not
    resumed from. Started by torchrun, each of its processes calls this with the same arguments;
    a batch is then `processes()` times as large, and shared between them.

    Returns steps, best_step, flags (`non_finite_loss`, `not_converged`), seconds and the loss
    history.
    """
    trainer_arguments = OneDeviceArguments(
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
        ddp_find_unused_parameters=False,
        **device_precision(precision),
        **arguments,
    )
    settings = settings | {"processes": processes()}
    resume = [usable_checkpoint(folder, digest(settings), report) if is_main_process() else None]
    resume = broadcast_object_list(resume)[0]
    initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    log = LogForPeople(report)
    trainer = SharingTrainer(
        model=model,
        args=trainer_arguments,
        data_collator=collate,
        train_dataset=Indices(examples),
        eval_dataset=Indices(dev[1]) if dev else None,
        callbacks=[log, SaveNowAndThen(), SealCheckpoint()],
    )
    trainer.dev_collate = dev[0] if dev else None
    if patience is not None:
        trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=patience))
    trainer.remove_callback(
        next(c for c in trainer.callback_handler.callbacks if type(c).__name__ == "PrinterCallback")
    )
    # The processes start from the same weights, and their dropout must differ.
    torch.manual_seed(trainer_arguments.seed + trainer_arguments.process_index)
    started = time.monotonic()
    trainer.train(resume_from_checkpoint=resume)
    outcome = summarise(trainer, log, seconds=time.monotonic() - started)
    if NON_FINITE_LOSS in outcome["flags"] and trainer.state.best_model_checkpoint is None:
        model.load_state_dict(initial)
    if outcome["best_loss"] is not None:
        kept = f"step {outcome['best_step']}, dev loss {outcome['best_loss']:.4f}"
        report(f"kept: {kept}")
    trainer.accelerator.wait_for_everyone()  # to read the best checkpoint before it is removed
    return outcome


class SharingTrainer(Trainer):
    """A Trainer whose processes share each batch, and whose development set has a collator of its
    own.

    However many processes and steps of accumulation there are, the loss of an update is the mean
    over all its labelled rows (or tokens), and the development loss that over the whole set. The
    Trainer itself averages the means of unequal parts, and repeats rows where an epoch's last batch
    cannot be shared evenly.
    """

    dev_collate: Collate | None = None
    loss_is_scaled_for_ga = True  # compute_loss does it

    def shared(self, dataset: Dataset, size: int, collate: Collate, *, shuffle: bool) -> DataLoader:
        """Batches of `size` rows for each process, of which the same are drawn in all of them.

        A process without a row in an epoch's last batch computes one that does not count.
        """

        def collate_share(indices: list[int]) -> dict[str, torch.Tensor]:
            share = indices[self.args.process_index :: self.args.world_size]
            batch = collate(share or indices[:1])
            return batch | {"items": (batch["labels"] != IGNORED_LABEL).sum() * bool(share)}

        loader = DataLoader(
            dataset,
            size * self.args.world_size,
            shuffle=shuffle,
            collate_fn=collate_share,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return prepare_data_loader(
            loader,
            self.args.device,
            num_processes=1,
            process_index=0,
            put_on_device=True,
            use_seedable_sampler=True,
            data_seed=self.args.seed,
        )

    def get_train_dataloader(self) -> DataLoader:
        """The training rows in an order that depends on seed and epoch alone."""
        size = self.args.per_device_train_batch_size
        return self.shared(self.train_dataset, size, self.data_collator, shuffle=True)

    def get_eval_dataloader(self, eval_dataset: Dataset | None = None) -> DataLoader:
        """The development set in order."""
        size = self.args.per_device_eval_batch_size
        return self.shared(eval_dataset or self.eval_dataset, size, self.dev_collate, shuffle=False)

    def get_batch_samples(self, epoch_iterator, num_batches, device):  # noqa: ANN001, ANN201
        """The batches of an update, and how many rows or tokens of them are labelled."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        items = sum(batch["items"] for batch in batches)
        return batches, self.accelerator.reduce(items.to(device))

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):  # noqa: ANN001, ANN201, ARG002
        """This batch's part of the update's mean loss; the processes' gradients are averaged."""
        own = inputs.pop("items")
        return model(**inputs).loss * (own * self.args.world_size / num_items_in_batch)

    def evaluation_loop(self, dataloader, *args, metric_key_prefix="eval", **kwargs):  # noqa: ANN001, ANN002, ANN003, ANN201, ARG002
        """The mean loss over the development set."""
        self.model.eval()
        total = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        for batch in dataloader:
            inputs = self._prepare_inputs(batch)
            items = inputs.pop("items").double()
            with torch.no_grad(), self.compute_loss_context_manager():
                total += torch.stack([self.model(**inputs).loss * items, items])
        loss, items = self.accelerator.reduce(total).tolist()
        return EvalLoopOutput(None, None, {f"{metric_key_prefix}_loss": loss / items}, int(items))

    def _save_rng_state(self, output_dir: str) -> None:
        """As the Trainer does; a checkpoint's last file is written when all processes are here."""
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()


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
        "best_loss": state.best_metric if state.best_model_checkpoint else None,
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
    """The model's own files and training.json in `folder`, each whole, and nothing else.

    What else was there, the checkpoints among it, goes when all of them stand: a run that is killed
    before goes on from its last checkpoint.
    """
    if not is_main_process():
        return
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".model.") as part:
        model.save_pretrained(part)
        text = json.dumps(record, indent=1, allow_nan=True) + "\n"
        Path(part, "training.json").write_text(text)
        written = [path.replace(folder / path.name) for path in Path(part).iterdir()]
    for path in set(folder.iterdir()) - set(written):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
