"""Recall against the definition written out, pair by pair."""

import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from longscale.attention.recall import Recall, match_lengths, recall

MASK = 4


def match_oracle(ids: list[int], i: int, j: int, reach: int) -> int:
    """Tokens that agree without a gap beside i and j, left plus right."""
    total = 0
    for side in (-1, 1):
        for offset in range(1, reach + 1):
            a, b = i + side * offset, j + side * offset
            if not (0 <= a < len(ids) and 0 <= b < len(ids)):
                break
            if ids[a] != ids[b] or ids[a] == MASK:
                break
            total += 1
    return total


sequences = st.lists(st.sampled_from([MASK, 5, 6, 7]), min_size=1, max_size=30)


@given(ids=sequences, reach=st.integers(1, 4), data=st.data())
def test_match_lengths(ids: list[int], reach: int, data):
    rows = data.draw(st.lists(st.integers(0, len(ids) - 1), min_size=1, max_size=4, unique=True))
    found = match_lengths(torch.tensor([ids]), torch.tensor(sorted(rows)), MASK, reach)[0]
    expected = [[match_oracle(ids, i, j, reach) for j in range(len(ids))] for i in sorted(rows)]
    assert found.tolist() == expected


@given(ids=sequences, padding=st.integers(0, 5), null=st.floats(-3, 6), data=st.data())
def test_mixture_is_the_softmax_over_the_model_and_every_token(
    ids: list[int], padding: int, null: float, data
):
    row = data.draw(st.integers(0, len(ids) - 1))
    own = torch.randn(1, 1, 8, generator=torch.Generator().manual_seed(len(ids)))
    settings = Recall(strength=1.5, null=null, reach=3)
    padded = torch.tensor([ids + [0] * padding])
    lengths = torch.tensor([len(ids)])
    found = recall(own, padded, torch.tensor([row]), MASK, settings, lengths)[0, 0]
    # The padding would agree with nothing real beyond the end of the sequence, so the oracle sees
    # the padded sequence, too.
    weights = {"own": math.exp(null)}
    for j, token in enumerate(ids):
        if j != row and token != MASK:
            m = match_oracle(padded[0].tolist(), row, j, 3)
            weights[j] = math.exp(1.5 * m - math.log(len(ids)))
    total = sum(weights.values())
    expected = own[0, 0].double().softmax(-1).numpy() * weights.pop("own") / total
    for j, weight in weights.items():
        expected[ids[j]] += weight / total
    np.testing.assert_allclose(found.double().exp().numpy(), expected, rtol=1e-4, atol=1e-7)


def test_chance_matches_weigh_the_same_at_every_length():
    settings = Recall(strength=1.5, null=4.0, reach=5)
    own = torch.zeros(1, 1, 40)
    kept = []
    for n in (200, 2000, 20000):
        ids = torch.randint(5, 40, (1, n), generator=torch.Generator().manual_seed(1))
        ids[0, n // 2] = MASK
        mixed = recall(own, ids, torch.tensor([n // 2]), MASK, settings)
        kept.append(float((mixed - own.log_softmax(-1)).abs().max()))
    assert max(kept) < 0.15  # nothing to recall in random tokens: the answer hardly moves


def test_many_rows_are_the_same_as_one_at_a_time():
    ids = torch.randint(5, 9, (2, 150), generator=torch.Generator().manual_seed(2))
    ids[:, ::7] = MASK
    rows, settings = torch.arange(150), Recall(1.5, 4.0, 5)
    logits = torch.randn(2, 150, 9, generator=torch.Generator().manual_seed(3))
    together = recall(logits, ids, rows, MASK, settings)
    for row in (0, 63, 64, 149):
        alone = recall(logits[:, [row]], ids, rows[[row]], MASK, settings)
        torch.testing.assert_close(together[:, [row]], alone)
