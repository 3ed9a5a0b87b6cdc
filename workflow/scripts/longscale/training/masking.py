"""Which tokens a masked language model is trained to predict."""

from collections.abc import Collection

import numpy as np
import torch
from scipy.special import entr

from longscale.models.masked_lm import IGNORED_LABEL

STAYS_MASKED, IS_DRAWN = 0.8, 0.1  # of the targets; the others stay what they are


def mask_ids(
    ids: np.ndarray,
    rng: np.random.Generator,
    fraction: float,
    *,
    special: Collection[int],
    mask: int,
    others: np.ndarray,
) -> dict[str, torch.Tensor]:
    """A masked-LM batch: `fraction` of the tokens that are not `special` are targets; 80% of those
    become `mask`, 10% one of `others`, 10% stay (BERT, Devlin et al. 2019, arXiv 1810.04805).

    `ids` (rows, n) -> `input_ids`, `labels`: (rows, n) int64; the labels of other tokens are -100.
    """
    eligible = ~np.isin(ids, list(special))
    targets = (rng.random(ids.shape) < fraction) & eligible
    if not targets.any():  # a small batch; a loss over no token would not be a number
        targets.flat[np.flatnonzero(eligible)[:1]] = True
    labels = np.where(targets, ids, IGNORED_LABEL)
    fate = rng.random(ids.shape)
    masked = np.where(targets & (fate < STAYS_MASKED), mask, ids)
    drawn = rng.choice(others, size=ids.shape)
    masked = np.where(targets & (fate >= 1 - IS_DRAWN), drawn, masked)
    return {
        "input_ids": torch.from_numpy(masked.astype(np.int64)),
        "labels": torch.from_numpy(labels.astype(np.int64)),
    }


def context_free_loss(frequencies: np.ndarray, others: np.ndarray) -> float:
    """Mean loss, in nats, of the best answer that sees a target's own place and nothing around it.

    `frequencies` (vocabulary,): how often each token is a target, as counts or shares; `others`:
    the ids that `mask_ids` draws from. At a mask that answer is the frequencies; at a token it
    weighs whether this one stayed or was drawn. So it is below the entropy of the frequencies.
    """
    shares = frequencies / frequencies.sum()
    stays = 1 - STAYS_MASKED - IS_DRAWN
    drawn = np.zeros(len(shares))
    drawn[others] = IS_DRAWN / len(others)
    # H(true | seen) = H(true, seen) - H(seen). Seen is u with stays * share(u) + drawn(u); pairs of
    # a true t and a seen u have share(t) * drawn(u), and stays * share(t) more where t is u.
    seen = stays * shares + drawn
    both = shares * drawn
    pairs = IS_DRAWN * entr(shares).sum() + entr(drawn).sum()  # as if t and u were never the same
    pairs += (entr(both + stays * shares) - entr(both)).sum()
    return float(STAYS_MASKED * entr(shares).sum() + pairs - entr(seen).sum())
