"""Which tokens a masked language model is trained to predict."""

from collections.abc import Collection

import numpy as np
import torch

from longscale.models.masked_lm import IGNORED_LABEL


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
    masked = np.where(targets & (fate < 0.8), mask, ids)
    drawn = rng.choice(others, size=ids.shape)
    masked = np.where(targets & (fate >= 0.9), drawn, masked)
    return {
        "input_ids": torch.from_numpy(masked.astype(np.int64)),
        "labels": torch.from_numpy(labels.astype(np.int64)),
    }
