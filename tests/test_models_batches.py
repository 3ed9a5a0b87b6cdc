"""Batches of rows of like length."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from longscale.models.batches import token_batches


@settings(max_examples=150, deadline=None)
@given(lengths=st.lists(st.integers(1, 90), max_size=40), limit=st.integers(1, 200))
def test_batches_hold_every_row_once_and_respect_the_limit(lengths, limit):
    lengths = np.array(lengths, dtype=np.int64)
    batches = list(token_batches(lengths, limit))
    rows = np.concatenate([*batches, np.array([], dtype=np.int64)])
    assert sorted(rows) == list(range(len(lengths)))
    assert (np.diff(lengths[rows.astype(int)]) >= 0).all()  # rows of like length stand together
    totals = [lengths[batch].sum() for batch in batches]
    for batch, total in zip(batches, totals, strict=True):
        assert total <= limit or len(batch) == 1
    for total, after in zip(totals, batches[1:], strict=False):
        assert total + lengths[after[0]] > limit  # no batch ends before it must
