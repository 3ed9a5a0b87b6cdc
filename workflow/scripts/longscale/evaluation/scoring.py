"""A fine-tuned checkpoint scores variants at one window length, under every length rule."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from tokenizers import Tokenizer

from longscale.attention.rules import length_rule
from longscale.errors import LongscaleError
from longscale.evaluation.scores import ROW_COLUMNS
from longscale.genome.sequence import Genome
from longscale.models.batches import token_batches
from longscale.models.dnabert2 import DNABERT2PreTrainedModel
from longscale.training.protocols import PROTOCOLS, Examples

CHUNK_BP = 8_000_000
REPORT_SECONDS = 10.0


@torch.inference_mode()
def score_examples(
    model: DNABERT2PreTrainedModel,
    examples: Examples,
    rules: Sequence[str],
    batch_tokens: int,
    measured: torch.Tensor | None = None,
) -> np.ndarray:
    """Log-odds of label 1, (rows, rules) float32; `measured` as in `score_variants`."""
    scores = np.empty((len(examples), len(rules)), dtype=np.float32)
    lengths = examples.lengths
    for rows in token_batches(lengths, batch_tokens):
        batch = {name: tensor.to(model.device) for name, tensor in examples.batch(rows).items()}
        del batch["labels"]
        for column, rule in enumerate(rules):
            model.set_rule(rule, measured if length_rule(rule).measured else None)
            logits = model(**batch).logits.float()  # rows 2
            scores[rows, column] = (logits[:, 1] - logits[:, 0]).cpu().numpy()
    return scores


def score_variants(
    model: DNABERT2PreTrainedModel,
    tokenizer: Tokenizer,
    genome: Genome,
    variants: pd.DataFrame,
    window_bp: int,
    rules: Sequence[str],
    *,
    protocol: str,
    batch_tokens: int,
    measured: torch.Tensor | None = None,
    report: Callable[[str], None] = print,
) -> pd.DataFrame:
    """One row per variant of `variants`, in its order: the columns of a score file, one per rule.

    Windows and tokens are made once and serve all rules. `measured` (layers, heads): the
    multipliers of a measured rule (`entropy-matched`) at this length.
    """
    if variants.empty:
        raise LongscaleError("there is no test variant to score")
    model.eval()
    tissues = list(model.config.tissues or [])
    encode = PROTOCOLS[protocol].examples.encode
    rows_per_chunk = max(1, CHUNK_BP // window_bp)
    parts, started, told = [], time.monotonic(), 0.0
    for first in range(0, len(variants), rows_per_chunk):
        chunk = variants.iloc[first : first + rows_per_chunk].reset_index(drop=True)
        examples = encode(genome, tokenizer, chunk, window_bp, tissues)
        parts.append(score_examples(model, examples, rules, batch_tokens, measured))
        done, seconds = first + len(chunk), time.monotonic() - started
        if seconds - told > REPORT_SECONDS or done == len(variants):
            told = seconds
            left = seconds / done * (len(variants) - done)
            report(
                f"{done:,}/{len(variants):,} variants at {window_bp:,} bp, {left / 60:.1f} min left"
            )
    scores = pd.DataFrame(np.concatenate(parts), columns=list(rules))
    return pd.concat([variants[ROW_COLUMNS].reset_index(drop=True), scores], axis=1)
