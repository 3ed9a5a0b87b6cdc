"""What a masked language model thinks of an allele, without any training.

For each allele, in its own context, all tokens that overlap it are hidden at once, and the log
probabilities of what stands there are added. The score is that of the reference allele minus that
of the alternative one: high where the model finds the alternative unlikely, as harmful variants
are. Where an allele change leaves the cut into tokens as it is (an SNV in 6-mers), both contexts
are the same once hidden, and this is the usual masked-token log-likelihood ratio.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from longscale.errors import LongscaleError
from longscale.genome.sequence import Genome
from longscale.models.batches import token_batches
from longscale.models.encoders import Encoder
from longscale.training.embed import context_windows, reverse_complement

CHUNK_BP = 8_000_000


@torch.inference_mode()
def allele_log_likelihoods(
    encoder: Encoder, windows: np.ndarray, starts: np.ndarray, stops: np.ndarray, batch_tokens: int
) -> np.ndarray:
    """Log probability (nats) of the tokens that overlap [start, stop) of each window, all of them
    hidden: float64 (windows,).

    `windows` (rows, bp) uint8 ASCII; `starts`, `stops` (rows,) in bp, 0-based, half-open. Raises
    `LongscaleError` for an encoder that is no masked language model.
    """
    if encoder.mask_id is None:
        raise LongscaleError("zero_shot: the model is no masked language model")
    tokens = encoder.tokenise(windows)
    spans = tokens.overlapping(starts, stops)
    device = next(encoder.model.parameters()).device
    result = np.empty(len(windows))
    for rows in token_batches(tokens.lengths, batch_tokens):
        ids, mask = (torch.from_numpy(x).to(device) for x in tokens.pad(rows, encoder.pad_id))
        place = torch.arange(ids.shape[1], device=device)
        first, last = torch.from_numpy(spans[rows]).to(device)[:, :, None].unbind(1)  # rows 1
        hidden = (place >= first) & (place < last)
        logits = encoder.logits(ids.masked_fill(hidden, encoder.mask_id), mask)
        log_p = logits[hidden].double().log_softmax(-1).gather(1, ids[hidden][:, None])[:, 0]
        owner = hidden.nonzero()[:, 0]
        summed = log_p.new_zeros(len(rows)).index_add(0, owner, log_p)
        result[rows] = summed.cpu().numpy()
    return result


def log_likelihood_ratios(
    encoder: Encoder,
    genome: Genome,
    rows: pd.DataFrame,
    context_bp: int,
    *,
    batch_tokens: int,
    both_strands: bool = False,
    report: Callable[[str], None] = print,
) -> np.ndarray:
    """Log P(reference) - log P(alternative) of each variant, in nats: float64 (rows,).

    `rows` has contig, anchor (0-based place of the variant's first base), strand, ref, alt.
    `both_strands`: the mean over the context and its reverse complement. Raises as
    `allele_log_likelihoods`.
    """
    result = np.empty(len(rows))
    centre = context_bp // 2
    per_chunk = max(1, CHUNK_BP // context_bp)
    for first in range(0, len(rows), per_chunk):
        chunk = rows.iloc[first : first + per_chunk].reset_index(drop=True)
        parts = {}
        for allele in ("ref", "alt"):
            windows = context_windows(genome, chunk.assign(strand=""), context_bp, allele)
            stops = np.minimum(centre + chunk[allele].str.len().to_numpy(), context_bp)
            starts = np.full(len(chunk), centre)
            strands = [(windows, starts, stops)]
            if both_strands:
                mirrored = context_bp - stops, context_bp - starts
                strands.append((reverse_complement(windows), *mirrored))
            parts[allele] = np.mean(
                [allele_log_likelihoods(encoder, *strand, batch_tokens) for strand in strands],
                axis=0,
            )
        result[first : first + len(chunk)] = parts["ref"] - parts["alt"]
        report(f"{first + len(chunk):,}/{len(rows):,} variants at {context_bp:,} bp")
    return result
