"""Masked language modelling of a GAU-alpha on a corpus, at one length and with one scheme."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import set_seed

from longscale.attention.geometry import Setting
from longscale.attention.positions import position_scheme
from longscale.errors import LongscaleError
from longscale.models.characters import SpecialIds
from longscale.models.checkpoint import load_checkpoint
from longscale.models.gau_alpha import GAUAlphaConfig, GAUAlphaForMaskedLM
from longscale.training.loop import NOT_LEARNED, has_learned, require_finite, save_trained, train
from longscale.training.masking import context_free_loss, mask_ids

DEV_CROPS = 256
EVALUATIONS = 10
LOGGED = 50  # points of the loss curve
UNTRAINED = {"steps": 0, "best_step": 0, "tokens": 0, "seconds": 0.0, "flags": [], "history": []}


class Crops:
    """Random stretches of `length` tokens of a corpus; a batch is a function of the seed and its
    numbers alone, so a run can resume and every attention sees the same batches.
    """

    def __init__(self, documents: Sequence[np.ndarray], length: int, seed: int) -> None:
        usable = [ids for ids in documents if len(ids) >= length]
        if not usable:
            raise LongscaleError(f"no document of the corpus has {length} tokens to train on.")
        self.tokens = np.concatenate(usable)
        sizes = np.array([len(ids) for ids in usable])
        self.places = np.cumsum(sizes - length + 1)
        self.length, self.seed = length, seed

    def draw(self, indices: list[int]) -> np.ndarray:
        """Token ids (rows, length) for the given numbers."""
        rng = np.random.default_rng([self.seed, *indices])
        place = rng.integers(self.places[-1], size=len(indices))
        document = np.searchsorted(self.places, place, side="right")
        start = place + document * (
            self.length - 1
        )  # the ends at which no crop of a document begins
        return self.tokens[start[:, None] + np.arange(self.length)]


def train_mlm(
    documents: Sequence[np.ndarray],
    dev_documents: Sequence[np.ndarray],
    config: GAUAlphaConfig,
    special: SpecialIds,
    folder: str | Path,
    *,
    options: dict,
    seed: int,
    provenance: dict,
    initial: str | Path | None = None,
    report: Callable[[str], None] = print,
) -> None:
    """Train on stretches of `config.n_train` tokens and write the model to `folder`, whole or not
    at all.

    `documents`: token ids of each training document; `dev_documents` give the development loss.
    `options` is the `train` section of the branch's configuration; steps, batches and masks depend
    on it and on the seed, never on the attention. `initial`: a checkpoint to start from. The folder
    gets config.json, model.safetensors and training.json (with the loss curve).
    """
    set_seed(seed)
    model = initial_model(config, initial, trains=options["steps"] > 0)
    others = np.setdiff1d(np.arange(config.vocab_size), special.all)
    positions = position_scheme(config.scheme).training

    def batches(crops: Crops, part: int) -> Callable[[list[int]], dict[str, torch.Tensor]]:
        def collate(indices: list[int]) -> dict[str, torch.Tensor]:
            rng = np.random.default_rng([seed, part, *indices])
            batch = mask_ids(
                crops.draw(indices),
                rng,
                options["mask_fraction"],
                special=special.never_predicted,
                mask=special.mask,
                others=others,
            )
            batch["attention_mask"] = torch.ones_like(batch["input_ids"])  # the Trainer counts it
            if positions is not None:
                n = crops.length
                setting = Setting(n, config.n_train, config.n_max, config.attention_key_size)
                generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
                batch["positions"] = positions(setting, len(indices), generator)
            return batch

        return collate

    folder = Path(folder)
    outcome = UNTRAINED
    if options["steps"]:
        outcome = train(
            model,
            batches(Crops(documents, config.n_train, seed), 1),
            options["steps"] * options["batch_size"],
            folder / "checkpoints",
            settings={
                "options": options,
                "seed": seed,
                "model": config.to_dict(),
                **provenance,
            },
            arguments=training_arguments(options, seed),
            precision=options["precision"],
            dev=(batches(Crops(dev_documents, config.n_train, seed), 2), DEV_CROPS),
            report=report,
        )
        tokens = np.concatenate([*dev_documents])
        tokens = tokens[~np.isin(tokens, list(special.never_predicted))]
        frequencies = np.bincount(tokens, minlength=config.vocab_size)
        if not has_learned(outcome["history"], context_free_loss(frequencies, others)):
            outcome["flags"].append(NOT_LEARNED)
    require_finite(outcome, "mlm.train")
    record = {"n_train": config.n_train, "seed": seed, **outcome, **provenance}
    save_trained(model, folder, record)


def training_arguments(options: dict, seed: int) -> dict:
    """What the Trainer is told; the development loss is looked at, never chosen by."""
    steps = options["steps"]
    return {
        "max_steps": steps,
        "per_device_train_batch_size": options["batch_size"],
        "per_device_eval_batch_size": options["batch_size"],
        "learning_rate": options["learning_rate"],
        "warmup_steps": options["warmup_fraction"],
        "weight_decay": options["weight_decay"],
        "logging_steps": max(1, steps // LOGGED),
        "eval_strategy": "steps",
        "eval_steps": max(1, steps // EVALUATIONS),
        "save_strategy": "steps",
        "save_steps": options["checkpoint_steps"],
        "seed": seed,
    }


def initial_model(
    config: GAUAlphaConfig, checkpoint: str | Path | None, *, trains: bool
) -> GAUAlphaForMaskedLM:
    """A new model, or a published checkpoint with this training's attention, scheme and lengths.

    Raises `LongscaleError` where a checkpoint is to be scored as it is (`trains` is False) under an
    attention that it was not trained with.
    """
    if checkpoint is None:
        return GAUAlphaForMaskedLM(config)
    own = {"attention": config.attention, "scheme": config.scheme}
    lengths = {key: getattr(config, key) for key in ("n_train", "n_max", "mask_token_id")}
    published = load_checkpoint(GAUAlphaForMaskedLM, checkpoint, **lengths)
    stored = {"attention": published.config.attention, "scheme": published.config.scheme}
    if own == stored:
        return published
    if not trains:
        raise LongscaleError(
            f"{checkpoint}: trained with {stored['attention']} and {stored['scheme']}, so with"
            f" mlm.train.steps 0 it cannot be scored as {own['attention']} with {own['scheme']}"
        )
    return load_checkpoint(GAUAlphaForMaskedLM, checkpoint, **own, **lengths)
