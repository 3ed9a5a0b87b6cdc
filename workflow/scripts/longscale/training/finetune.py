"""Fine-tuning an encoder on a variant task at one window length."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import entropy
from tokenizers import Tokenizer
from transformers import set_seed

from longscale.attention.cosine import parse_attention
from longscale.errors import LongscaleError
from longscale.genome.sequence import Genome
from longscale.models.checkpoint import load_checkpoint
from longscale.models.dnabert2 import DNABERT2PreTrainedModel, match_alpha
from longscale.models.tokenizer import check_vocabulary, load_tokenizer
from longscale.training.loop import NOT_LEARNED, has_learned, processes, save_trained, train
from longscale.training.lora import add_lora
from longscale.training.protocols import PROTOCOLS, Examples, Protocol

# Windows over which the pretrained model's |q||k| is measured for cos-matched.
MATCH_ROWS = 512
MATCH_BATCH = 64


# An epoch can take hours; the log says where a run stands more often than that.
MOST_STEPS_UNLOGGED = 50


def median_tokens(examples: Examples) -> int:
    """n_train: the median number of real tokens of the training windows, all alleles."""
    return int(np.median(np.concatenate([windows.lengths for windows in examples.windows])))


def matching_batches(examples: Examples) -> Iterator[dict[str, torch.Tensor]]:
    """The first training windows, one allele, as inputs of an encoder."""
    for first in range(0, min(MATCH_ROWS, len(examples)), MATCH_BATCH):
        rows = np.arange(first, min(first + MATCH_BATCH, len(examples)))
        ids, mask = examples.windows[0].pad(rows)
        yield {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}


def start_model(
    protocol: Protocol,
    pretrained: Path,
    tokenizer: Tokenizer,
    attention: str,
    examples: Examples,
    tissues: list[str],
) -> DNABERT2PreTrainedModel:
    """The pretrained encoder with a new head; cos-matched is measured on the training windows."""
    model = load_checkpoint(
        protocol.model,
        pretrained,
        attention=attention,
        n_train=median_tokens(examples),
        tissues=tissues,
        num_labels=2,
    )
    check_vocabulary(tokenizer, model.config.vocab_size, str(pretrained))
    if parse_attention(attention).learned:
        match_alpha(model, matching_batches(examples))
    return model


def finetune_files(fasta: str, tokenizer: str, variants: str, **arguments: object) -> None:
    """`finetune` with the genome, the tokenizer and the variants read from their files."""
    table = pd.read_parquet(variants)
    finetune(Genome(fasta), load_tokenizer(tokenizer), table, **arguments)


def finetune(
    genome: Genome,
    tokenizer: Tokenizer,
    variants: pd.DataFrame,
    pretrained: str | Path,
    folder: str | Path,
    *,
    protocol: str,
    attention: str,
    window_bp: int,
    options: dict,
    seed: int,
    provenance: dict,
    report: Callable[[str], None] = print,
) -> None:
    """Fine-tune on the rows of `variants` whose split is train, stop by those whose split is dev.

    `options` is the `finetune` section of the configuration. Writes config.json (with `n_train`,
    the attention and the tissues), model.safetensors and training.json to `folder`, whole or not at
    all; adapters (`options["lora"]`) are merged into the weights. Raises LongscaleError where a
    split lacks a class.
    """
    set_seed(seed)
    steps = PROTOCOLS[protocol]
    tissues = steps.list_tissues(variants)
    sets = {}
    for split in ("train", "dev"):
        rows = variants[variants["split"] == split].reset_index(drop=True)
        if rows["label"].nunique() < 2:
            raise LongscaleError(
                f"the {split} variants have {len(rows)} rows and {rows['label'].nunique()} classes;"
                " both classes are needed"
            )
        sets[split] = steps.examples.encode(genome, tokenizer, rows, window_bp, tissues)
        report(
            f"{split}: {len(rows):,} variants ({int(rows['label'].sum()):,} positive),"
            f" {int(sets[split].lengths.sum()):,} tokens"
        )
    model = start_model(steps, Path(pretrained), tokenizer, attention, sets["train"], tissues)
    adapted = add_lora(model, **options["lora"]) if options["lora"] else None
    report(f"n_train is {model.config.n_train} tokens at {window_bp} bp; attention {attention}")
    folder = Path(folder)
    outcome = train(
        model,
        sets["train"].batch,
        len(sets["train"]),
        folder / "checkpoints",
        settings={
            "options": options,
            "seed": seed,
            "protocol": protocol,
            "window_bp": window_bp,
            "model": model.config.to_dict(),
            "tokenizer": tokenizer.to_str(),
            **provenance,
        },
        arguments=finetune_arguments(options, len(sets["train"]), seed),
        precision=options["precision"],
        dev=(sets["dev"].batch, len(sets["dev"])),
        patience=options["patience"],
        report=report,
    )
    if adapted:
        adapted.merge_and_unload()
    labels = np.bincount(sets["dev"].labels.astype(int))
    if not has_learned(outcome["history"], entropy(labels)):
        outcome["flags"].append(NOT_LEARNED)
    outcome |= {"n_train": model.config.n_train, "seed": seed, "finetune": options, **provenance}
    save_trained(model, folder, outcome)


def finetune_arguments(options: dict, examples: int, seed: int) -> dict:
    """`TrainingArguments` of a fine-tuning run over `examples` training rows."""
    rows = options["batch_size"] * options["accumulation_steps"] * processes()
    per_epoch = max(1, -(-examples // rows))
    every = max(1, per_epoch // options["evaluations_per_epoch"])
    return {
        "num_train_epochs": options["epochs"],
        "per_device_train_batch_size": options["batch_size"],
        "per_device_eval_batch_size": options["batch_size"] * 2,
        "gradient_accumulation_steps": options["accumulation_steps"],
        "activation_checkpointing": options["gradient_checkpointing"],
        "learning_rate": options["learning_rate"],
        "warmup_steps": options["warmup_fraction"],
        "weight_decay": options["weight_decay"],
        "logging_steps": min(every, MOST_STEPS_UNLOGGED),
        "eval_strategy": "steps",
        "eval_steps": every,
        "save_strategy": "steps",
        "save_steps": every,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "seed": seed,
    }
