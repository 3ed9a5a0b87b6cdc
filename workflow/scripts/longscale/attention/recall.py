"""Recall: what stood elsewhere in the sequence between the same neighbours.

A window keeps a model's attention as it was trained and loses all that lies further away. Recall
brings back the part that still tells something, at the output and without training: a query i
points at every other token j with the logit

    strength * m_ij - ln n,    m_ij = tokens that agree without a gap, left of i and j plus right,

and keeps what the model says by itself with a logit of `null`. The softmax over all of them mixes
the model's distribution with the tokens pointed at.

Why this form: among n random keys, about n e^(-h m) agree with the query's neighbours over m
tokens, h being the entropy of a token given those before it, in nats. A match is more than chance
once h m exceeds ln n: the count that dilutes softmax attention is subtracted, so the weight of
chance matches does not grow with the length. It is the argument behind InfoScale (attention
condenses once the information of the best key, I, reaches ln n), with a match in place of a cosine.

Related: the continuous cache (Grave et al. 2017, arXiv 1612.04426) and pointer sentinel mixtures
(Merity et al. 2017, arXiv 1609.07843) of causal models; neither is bidirectional, and neither
subtracts ln n.
"""

from dataclasses import dataclass

import torch

ROWS = 64  # query rows at once: memory is ROWS x n


@dataclass(frozen=True)
class Recall:
    """`strength`: nats per token that agrees; `null`: logit of the model's own answer; `reach`: the
    most tokens that count on each side.
    """

    strength: float
    null: float
    reach: int


def match_lengths(ids: torch.Tensor, rows: torch.Tensor, mask_id: int, reach: int) -> torch.Tensor:
    """m_ij for the query rows: (B, R, n), int64, at most 2 `reach`.

    `ids` (B, n): tokens with the masked ones as `mask_id`, which agrees with nothing.
    """
    n = ids.shape[1]
    positions = torch.arange(n, device=ids.device)
    total = torch.zeros(len(ids), len(rows), n, dtype=torch.long, device=ids.device)
    for side in (-1, 1):
        running = torch.ones_like(total, dtype=torch.bool)
        for offset in range(1, reach + 1):
            of_query, of_key = rows + side * offset, positions + side * offset
            inside = (of_query >= 0) & (of_query < n)
            query = ids[:, of_query.clamp(0, n - 1)].masked_fill(~inside, mask_id)
            key = ids[:, of_key.clamp(0, n - 1)].masked_fill((of_key < 0) | (of_key >= n), -1)
            agrees = (query[:, :, None] == key[:, None, :]) & (query != mask_id)[:, :, None]
            running &= agrees
            total += running
    return total


def recall(
    logits: torch.Tensor,
    ids: torch.Tensor,
    rows: torch.Tensor,
    mask_id: int,
    settings: Recall,
    lengths: torch.Tensor | None = None,
) -> torch.Tensor:
    """The model's logits (B, R, V) of the query rows, mixed with what is recalled: log
    probabilities (B, R, V).

    `lengths` (B,): real tokens, None: all.
    """
    parts = [
        _recall_rows(logits[:, a : a + ROWS], ids, rows[a : a + ROWS], mask_id, settings, lengths)
        for a in range(0, len(rows), ROWS)
    ]
    return torch.cat(parts, dim=1)


def _recall_rows(
    logits: torch.Tensor,
    ids: torch.Tensor,
    rows: torch.Tensor,
    mask_id: int,
    settings: Recall,
    lengths: torch.Tensor | None,
) -> torch.Tensor:
    n = ids.shape[1]
    real = torch.full((len(ids),), n, device=ids.device) if lengths is None else lengths
    positions = torch.arange(n, device=ids.device)
    silent = (ids == mask_id) | (positions >= real[:, None])  # B n
    silent = silent[:, None] | (positions == rows[:, None])  # B R n
    pointers = settings.strength * match_lengths(ids, rows, mask_id, settings.reach)
    pointers = pointers - real.double().log()[:, None, None]
    pointers = pointers.masked_fill(silent, -torch.inf).to(logits.dtype)
    own = logits.log_softmax(-1) + settings.null
    index = ids[:, None].expand_as(pointers)
    top = pointers.amax(-1, keepdim=True).clamp_min(torch.finfo(logits.dtype).min)
    summed = torch.zeros_like(own).scatter_add(-1, index, (pointers - top).exp())
    pointed = summed.log() + top
    return torch.logaddexp(own, pointed).log_softmax(-1)
