"""Masked language modelling on a genome, for models without a published checkpoint."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import set_seed

from longscale.errors import LongscaleError
from longscale.genome.sequence import Genome
from longscale.models.dnabert2 import DNABERT2Config, DNABERT2ForMaskedLM
from longscale.models.tokenizer import (
    CLS,
    MASK,
    PAD,
    SEP,
    UNK,
    EncodedWindows,
    check_excluded,
    encode_windows,
)
from longscale.training.loop import require_finite, save_trained, train
from longscale.training.masking import mask_ids

# Never predicted; [UNK] stands for runs of N.
SPECIAL = (UNK, CLS, SEP, PAD)
DRAWS = 100


class GenomeWindows:
    """Random windows of a genome; a batch is a function of the seed and its numbers alone, so a run
    can resume.
    """

    def __init__(
        self, genome: Genome, window_bp: int, seed: int, exclude: tuple[str, ...] = ()
    ) -> None:
        check_excluded(genome, exclude)
        self.genome, self.window_bp, self.seed = genome, window_bp, seed
        lengths = {n: s for n, s in genome.lengths.items() if n not in exclude and s >= window_bp}
        if not lengths:
            raise LongscaleError(
                f"no contig is left that is as long as pretrain.window_bp ({window_bp} bp)"
            )
        self.names = list(lengths)
        self.sizes = np.array(list(lengths.values()))

    def draw(self, indices: list[int]) -> np.ndarray:
        """Windows (rows, window_bp) uint8 for the given numbers; at most half of each is N."""
        rng = np.random.default_rng([self.seed, *indices])
        windows = self._draw(rng, len(indices))
        for _ in range(DRAWS):
            bad = (windows == ord("N")).mean(axis=1) > 0.5
            if not bad.any():
                return windows
            windows[bad] = self._draw(rng, int(bad.sum()))
        raise LongscaleError(
            f"windows of {self.window_bp} bp that are not mostly N are too rare in this genome"
        )

    def _draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        contigs = rng.choice(len(self.names), size=count, p=self.sizes / self.sizes.sum())
        starts = (rng.random(count) * (self.sizes[contigs] - self.window_bp + 1)).astype(np.int64)
        return self.genome.gather([self.names[c] for c in contigs], starts, self.window_bp)


def mask_tokens(
    encoded: EncodedWindows, rng: np.random.Generator, fraction: float, vocab_size: int
) -> dict[str, torch.Tensor]:
    """A masked-LM batch of windows: `input_ids`, `attention_mask`, `labels`, (rows, longest) int64;
    see `mask_ids`.
    """
    ids, mask = encoded.pad(np.arange(len(encoded.lengths)))
    others = np.arange(MASK + 1, vocab_size)
    batch = mask_ids(ids, rng, fraction, special=SPECIAL, mask=MASK, others=others)
    return batch | {"attention_mask": torch.from_numpy(mask)}


def pretrain(
    genome: Genome,
    tokenizer: Tokenizer,
    config: DNABERT2Config,
    folder: str | Path,
    *,
    options: dict,
    seed: int,
    provenance: dict,
    report: Callable[[str], None] = print,
) -> None:
    """Train a masked language model on windows of the genome and write it to `folder`, whole or not
    at all.

    `options` is the `pretrain` section of the configuration. `config.n_train` becomes the median
    number of tokens of the training windows. The folder gets config.json, model.safetensors and
    training.json.
    """
    set_seed(seed)
    source = GenomeWindows(genome, options["window_bp"], seed, tuple(options["exclude_contigs"]))
    sample = encode_windows(tokenizer, source.draw(list(range(min(1000, options["steps"])))))
    config.n_train = int(np.median(sample.lengths))
    model = DNABERT2ForMaskedLM(config)

    def collate(indices: list[int]) -> dict[str, torch.Tensor]:
        encoded = encode_windows(tokenizer, source.draw(indices))
        rng = np.random.default_rng([seed, 1, *indices])
        return mask_tokens(encoded, rng, options["mask_fraction"], config.vocab_size)

    folder = Path(folder)
    outcome = train(
        model,
        collate,
        options["steps"] * options["batch_size"],
        folder / "checkpoints",
        settings={
            "options": options,
            "seed": seed,
            "model": config.to_dict(),
            "tokenizer": tokenizer.to_str(),
            **provenance,
        },
        arguments={
            "max_steps": options["steps"],
            "per_device_train_batch_size": options["batch_size"],
            "learning_rate": options["learning_rate"],
            "warmup_steps": 0.05,
            "weight_decay": 0.01,
            "logging_steps": max(1, options["steps"] // 20),
            "save_strategy": "steps",
            "save_steps": options["checkpoint_steps"],
            "seed": seed,
        },
        report=report,
    )
    require_finite(outcome, "pretrain")
    record = {"n_train": config.n_train, "seed": seed, **outcome, **provenance}
    save_trained(model, folder, record)
