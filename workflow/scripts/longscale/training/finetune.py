"""Fine-tuning an encoder on a variant task at one window length."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tokenizers import Tokenizer
from transformers import set_seed

from longscale.attention.cosine import parse_attention
from longscale.errors import LongscaleError
from longscale.files import atomic_folder
from longscale.genome.sequence import Genome
from longscale.models.checkpoint import load_checkpoint
from longscale.models.dnabert2 import DNABERT2ForVariantEffect, match_alpha
from longscale.models.tokenizer import PAD, EncodedWindows, encode_windows
from longscale.training.loop import train, write_outcome
from longscale.variants.windows import gather_windows, readout_span

MATCH_WINDOWS = 512


def widen(rows: np.ndarray, width: int, fill: int) -> np.ndarray:
    """`rows` (rows, tokens) filled up on the right to `width` tokens."""
    return np.pad(rows, ((0, 0), (0, width - rows.shape[1])), constant_values=fill)


@dataclass(frozen=True)
class AllelePairs:
    """Tokens of both alleles of each variant, its tissue as one-hot and its label.

    reference, alternative: the windows of the variants, in the same order; tissue: (rows, tissues) float32.
    """

    reference: EncodedWindows
    alternative: EncodedWindows
    tissue: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: list[int] | np.ndarray) -> dict[str, torch.Tensor]:
        """The inputs of `DNABERT2ForVariantEffect`: reference rows first, then the alternative ones."""
        rows = np.asarray(indices)
        width = max(self.reference.lengths[rows].max(), self.alternative.lengths[rows].max())
        padded = [allele.pad(rows) for allele in (self.reference, self.alternative)]
        ids = np.concatenate([widen(pair[0], width, PAD) for pair in padded])
        mask = np.concatenate([widen(pair[1], width, 0) for pair in padded])
        readout = np.concatenate([self.reference.readout[rows], self.alternative.readout[rows]])
        batch = {
            "input_ids": ids,
            "attention_mask": mask,
            "readout_start": readout[:, 0].astype(np.int64),
            "readout_stop": readout[:, 1].astype(np.int64),
            "labels": self.labels[rows].astype(np.int64),
        }
        if self.tissue.shape[1]:
            batch["tissue"] = self.tissue[rows]
        return {name: torch.from_numpy(array) for name, array in batch.items()}


def encode_pairs(
    genome: Genome, tokenizer: Tokenizer, variants: pd.DataFrame, window_bp: int, tissues: list[str]
) -> AllelePairs:
    """Windows of both alleles of `variants` as tokens, with the readout around the allele."""
    encoded = {}
    for allele in ("ref", "alt"):
        windows = gather_windows(genome, variants, window_bp, allele)
        spans = readout_span(variants[allele].str.len().to_numpy(), window_bp)
        encoded[allele] = encode_windows(tokenizer, windows, spans)
    one_hot = variants["tissue"].to_numpy()[:, None] == np.array(tissues, dtype=object)[None, :]
    one_hot = one_hot.reshape(len(variants), len(tissues)).astype(np.float32)
    if tissues and not one_hot.any(axis=1).all():
        unknown = sorted(set(variants["tissue"]) - set(tissues))
        raise LongscaleError(f"tissue {unknown[0]!r} has no training variants; known: {', '.join(tissues)}")
    return AllelePairs(encoded["ref"], encoded["alt"], one_hot, variants["label"].to_numpy())


def list_tissues(variants: pd.DataFrame) -> list[str]:
    """The tissues of the training variants in alphabetical order; empty where the task has none."""
    return sorted(set(variants.loc[variants["split"] == "train", "tissue"]) - {""})


def median_tokens(pairs: AllelePairs) -> int:
    """n_train: the median number of real tokens of the training windows, both alleles."""
    return int(np.median(np.concatenate([pairs.reference.lengths, pairs.alternative.lengths])))


def matching_batches(pairs: AllelePairs, rows: int = 64) -> Iterator[dict[str, torch.Tensor]]:
    """Inputs over which the pretrained model's |q||k| is measured for cos-matched."""
    for first in range(0, min(MATCH_WINDOWS, len(pairs)), rows):
        ids, mask = pairs.reference.pad(np.arange(first, min(first + rows, len(pairs))))
        yield {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}


def start_model(
    pretrained: Path, attention: str, pairs: AllelePairs, tissues: list[str]
) -> DNABERT2ForVariantEffect:
    """The pretrained encoder with a new head; for cos-matched its alphas are measured on the training windows."""
    model = load_checkpoint(
        DNABERT2ForVariantEffect,
        pretrained,
        attention=attention,
        n_train=median_tokens(pairs),
        num_tissues=len(tissues),
    )
    if parse_attention(attention).learned:
        match_alpha(model, matching_batches(pairs))
    return model


def finetune(
    genome: Genome,
    tokenizer: Tokenizer,
    variants: pd.DataFrame,
    pretrained: str | Path,
    folder: str | Path,
    *,
    attention: str,
    window_bp: int,
    options: dict,
    seed: int,
    provenance: dict,
    report: Callable[[str], None] = print,
) -> None:
    """Fine-tune on the rows of `variants` whose split is train, stop by those whose split is dev.

    `options` is the `finetune` section of the configuration. Writes config.json (with `n_train`, the
    attention and the tissues), model.safetensors and training.json to `folder`, whole or not at all.
    """
    set_seed(seed)
    tissues = list_tissues(variants)
    sets = {}
    for split in ("train", "dev"):
        rows = variants[variants["split"] == split].reset_index(drop=True)
        if rows["label"].nunique() < 2:
            raise LongscaleError(
                f"the {split} variants have {len(rows)} rows and {rows['label'].nunique()} classes; both classes are needed"
            )
        sets[split] = encode_pairs(genome, tokenizer, rows, window_bp, tissues)
        tokens = int(sets[split].reference.lengths.sum() + sets[split].alternative.lengths.sum())
        report(f"{split}: {len(rows):,} variants ({int(rows['label'].sum()):,} positive), {tokens:,} tokens")
    model = start_model(Path(pretrained), attention, sets["train"], tissues)
    model.config.tissues = tissues
    report(f"n_train is {model.config.n_train} tokens at {window_bp} bp; attention {attention}")
    folder = Path(folder)
    outcome = train(
        model,
        sets["train"].batch,
        len(sets["train"]),
        folder / "checkpoints",
        settings={"options": options, "seed": seed, "model": model.config.to_dict(), **provenance},
        arguments=finetune_arguments(options, len(sets["train"]), seed),
        precision=options["precision"],
        dev=(sets["dev"].batch, len(sets["dev"])),
        patience=options["patience"],
        report=report,
    )
    with atomic_folder(folder) as part:
        model.save_pretrained(part)
        write_outcome(
            {"n_train": model.config.n_train, "seed": seed, **outcome, **provenance}, part / "training.json"
        )


def finetune_arguments(options: dict, examples: int, seed: int) -> dict:
    """`TrainingArguments` of a fine-tuning run."""
    rows = options["batch_size"] * options["accumulation_steps"]
    per_epoch = max(1, -(-examples // rows))
    every = max(1, per_epoch // options["evaluations_per_epoch"])
    return {
        "num_train_epochs": options["epochs"],
        "per_device_train_batch_size": options["batch_size"],
        "per_device_eval_batch_size": options["batch_size"] * 2,
        "gradient_accumulation_steps": options["accumulation_steps"],
        "learning_rate": options["learning_rate"],
        "warmup_steps": options["warmup_fraction"],
        "weight_decay": options["weight_decay"],
        "logging_steps": every,
        "eval_strategy": "steps",
        "eval_steps": every,
        "save_strategy": "steps",
        "save_steps": every,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "seed": seed,
    }
