"""Rows in batches of like length."""

from collections.abc import Iterator

import numpy as np


def token_batches(lengths: np.ndarray, batch_tokens: int) -> Iterator[np.ndarray]:
    """Row numbers in batches of at most `batch_tokens` tokens, rows of like length together.

    `lengths`: (rows,) tokens of each row. A row longer than `batch_tokens` is a batch of its own.
    """
    order = np.argsort(lengths, kind="stable")
    batch: list[int] = []
    total = 0
    for row in order:
        if batch and total + lengths[row] > batch_tokens:
            yield np.array(batch)
            batch, total = [], 0
        batch.append(row)
        total += lengths[row]
    if batch:
        yield np.array(batch)
