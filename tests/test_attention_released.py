"""The released defects, pinned to what the released code computes."""

import torch

from longscale.attention.released import infoscale_released, released_keys, released_queries


def released_logits(q, k, alpha):
    """The released lines on one padded sequence, (n, H, d) -> (H, n, n)."""
    q, k = q.permute(1, 0, 2), k.permute(1, 2, 0)  # H n d, H d n: permuted before the norm
    q = alpha * q / (q.norm(dim=-1, keepdim=True) + 1e-9)
    k = k / (k.norm(dim=-1, keepdim=True) + 1e-9)
    return q @ k


def test_keys_are_normalised_along_their_sequence():
    lengths = [3, 5]
    q, k = torch.randn(2, sum(lengths), 2, 4)
    sequence = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1])
    units = released_queries(q), released_keys(k, sequence, 2)
    for part in (slice(0, 3), slice(3, 8)):
        logits = 32 * torch.einsum("ihd,jhd->hij", units[0][part], units[1][part])
        torch.testing.assert_close(logits, released_logits(q[part], k[part], 32))


def test_changing_one_key_changes_every_column():
    """That is what makes it a defect; compare test_attention_cosine."""
    q, k = torch.randn(2, 6, 1, 4)
    changed = k.clone()
    changed[2] += 1
    differs = released_logits(q, k, 32) != released_logits(q, changed, 32)
    assert differs.any(1).all()


def test_short_sequences_are_flattened():
    n = torch.tensor([2.0, 100.0, 512.0, 2000.0], dtype=torch.float64)
    beta = infoscale_released(n, 0, 768)
    assert beta[0] < beta[1] < 1
    assert beta[2] == 1
    assert beta[3] > 1
