"""Packing and packed attention against dense attention with masks and score matrices."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from longscale.attention import kernel
from longscale.attention.alibi import alibi_band, alibi_slopes
from longscale.attention.kernel import (
    pack,
    packed_attention,
    reaches,
    unbiased_attention,
    window_pieces,
)
from longscale.errors import LongscaleError


def mask_of(lengths, width=None, left=False):
    """Attention mask (B, L) with padding on the right, or on the left."""
    mask = (torch.arange(width or max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return mask.flip(1) if left else mask


def dense_attention(q, k, v, mask, slopes):
    """The equation, (B, L, H, d) -> the same; every score and every bias stands in memory."""
    length = q.shape[1]
    scores = torch.einsum("bihd,bjhd->bhij", q, k)
    distance = (torch.arange(length)[:, None] - torch.arange(length)).abs()
    scores = scores - slopes[:, None, None] * distance
    scores = scores.masked_fill(mask[:, None, None, :] == 0, -math.inf)
    return torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v)


def both(lengths, heads=3, head_dim=8, *, width=None, left=False, dtype=torch.float32, seed=0):
    """Outputs at real tokens and gradients of q, k, v: (packed, dense)."""
    mask = mask_of(lengths, width, left)
    generator = torch.Generator().manual_seed(seed)
    shape = (3, *mask.shape, heads, head_dim)
    qkv = torch.randn(shape, generator=generator, dtype=dtype)
    weight = torch.randn(shape[1:], generator=generator, dtype=dtype) * mask[..., None, None]
    slopes = alibi_slopes(heads).to(dtype)
    packing = pack(mask)
    results = []
    for packed in (True, False):
        leaf = qkv.clone().requires_grad_()
        if packed:
            q, k, v = leaf.flatten(1, 2)[:, packing.tokens]
            band = alibi_band(slopes, packing.longest)[None]
            output = packing.unpack(packed_attention(q, k, v, packing, band))
        else:
            output = dense_attention(*leaf, mask, slopes)
        (output * weight).sum().backward()
        results.append((output * mask[..., None, None], leaf.grad))
    return results


@pytest.mark.parametrize(
    "lengths",
    [[1], [1, 1], [2], [1, 2, 3], [7, 7, 7], [24, 17, 9], [5, 64, 5, 33, 64, 1], [513, 700]],
)
@pytest.mark.parametrize("left", [False, True])
def test_equals_dense_attention(lengths, left):
    packed, dense = both(lengths, width=max(lengths) + 2, left=left)
    torch.testing.assert_close(packed, dense, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("length", [1024, 4096])
def test_equals_dense_attention_on_long_sequences(length):
    packed, dense = both([length], heads=1, head_dim=8)
    torch.testing.assert_close(packed, dense, atol=2e-5, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=9),
    heads=st.integers(1, 6),
    head_dim=st.sampled_from([1, 3, 4, 16]),
    seed=st.integers(0, 1000),
)
def test_equals_dense_attention_in_double_precision(lengths, heads, head_dim, seed):
    packed, dense = both(lengths, heads, head_dim, dtype=torch.float64, seed=seed)
    torch.testing.assert_close(packed, dense, atol=1e-12, rtol=1e-10)


# --- keys that are left out -------------------------------------------------------------------


@pytest.fixture
def windows_in_short_sequences(monkeypatch):
    """Slopes of 8 and more reach 18 tokens; counts the pieces of each group of sequences."""
    monkeypatch.setattr(kernel, "SHORTEST_WINDOWED", 1)
    monkeypatch.setattr(kernel, "BLOCK", 5)
    counts = []

    def counted(*arguments):
        pieces = window_pieces(*arguments)
        counts.append(len(pieces))
        return pieces

    monkeypatch.setattr(kernel, "window_pieces", counted)
    return counts


def steep(heads, dtype=torch.float32):
    return torch.tensor([16.0, 0.25, 40.0, 12.0][:heads], dtype=dtype)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("lengths", [[64], [64, 64, 64], [3, 70, 41, 70, 1]])
def test_windowed_heads_equal_dense_attention(
    windows_in_short_sequences, monkeypatch, lengths, threads
):
    monkeypatch.setattr(kernel.torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr("test_attention_kernel.alibi_slopes", steep)
    packed, dense = both(lengths, heads=4, width=max(lengths) + 2)
    torch.testing.assert_close(packed, dense, atol=2e-5, rtol=1e-5)
    assert max(windows_in_short_sequences) > 5  # and not the ordinary path


def test_windowed_gradients_are_those_of_finite_differences(windows_in_short_sequences):
    packing = pack(mask_of([24]))
    band = alibi_band(steep(3, torch.float64), 24)[None]
    qkv = 0.1 * torch.randn(3, 24, 3, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda q, k, v: packed_attention(q, k, v, packing, band), [x.requires_grad_() for x in qkv]
    )
    assert max(windows_in_short_sequences) > 5


@pytest.mark.parametrize("n", [1024, 4096])
def test_windows_of_the_real_slopes_equal_dense_attention(n):
    packing = pack(mask_of([n]))
    q, k, v = torch.randn(3, n, 2, 16) * 0.7
    slopes = alibi_slopes(2) * 8  # 0.5, 0.03
    band = alibi_band(slopes, n)[None]
    assert len(window_pieces(reaches(q, k, band), n)) > 1
    packed = packed_attention(q, k, v, packing, band)
    dense = dense_attention(q[None], k[None], v[None], mask_of([n]), slopes)[0]
    torch.testing.assert_close(packed, dense, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [0.1, 1.0, 4.0])
def test_no_key_beyond_the_reach_has_any_weight(size):
    """Largest logits where they hurt most: queries far from the key that they look for."""
    n, slopes = 1500, torch.tensor([0.5, 1.0, 2.0])
    q, k = size * torch.randn(2, n, 3, 4)
    q[700] = 5 * size  # one query and one key that fit and are far apart
    k[100] = 5 * size
    reach = reaches(q, k, alibi_band(slopes, n)[None])
    distance = (torch.arange(n)[:, None] - torch.arange(n)).abs()
    logits = torch.einsum("ihd,jhd->hij", q, k) - slopes[:, None, None] * distance
    weights = logits.softmax(-1)
    for head in range(3):
        assert (weights[head][distance > reach[head]] == 0).all()
    if size == 0.1:
        assert max(reach) < n  # and something is left out


def test_reaches_are_asked_for_only_where_they_help():
    q = torch.full((1500, 1, 4), math.nan)
    band = alibi_band(torch.tensor([0.5]), 1500)[None]
    assert reaches(q, q, band) == [1500]  # a model that has diverged: all pairs
    assert reaches(q, q, band.expand(2, -1, -1)) is None
    q = torch.full((1500, 1, 4), 1 / 3)
    assert reaches(q.bfloat16(), q, band) == [212]  # (2 * 4/9 + 105) / 0.5, rounded up
    assert reaches(q[:9], q[:9], alibi_band(torch.tensor([0.5]), 9)[None]) is None


@given(
    reach=st.lists(st.integers(1, 900), min_size=1, max_size=7),
    n=st.integers(1, 900),
    together=st.integers(1, 4),
)
@settings(max_examples=50, deadline=None)
def test_pieces_hold_each_pair_within_reach_once(reach, n, together):
    covered = torch.zeros(len(reach), n, n)
    for h, i, c in window_pieces(reach, n, together):
        covered[h, i, c] += 1
    covered = covered.flip(2)  # keys in their own order
    distance = (torch.arange(n)[:, None] - torch.arange(n)).abs()
    for head, far in enumerate(reach):
        assert (covered[head] <= 1).all()
        assert (covered[head][distance <= far] == 1).all()


def test_a_band_for_each_sequence():
    """Only the released rule scales the bias, by another factor for each sequence."""
    mask = mask_of([4, 9, 4])
    packing = pack(mask)
    q, k, v = torch.randn(3, len(packing.tokens), 2, 4)
    slopes, factors = alibi_slopes(2), torch.tensor([1.0, 2.0, 3.0])
    bands = alibi_band(slopes, 9) * factors[packing.rows][:, None, None]
    output = packing.unpack(packed_attention(q, k, v, packing, bands))
    for row in range(3):
        single = [packing.unpack(x)[row : row + 1] for x in (q, k, v)]
        dense = dense_attention(*single, mask[row : row + 1], slopes * factors[row])
        real = mask[row].bool()
        torch.testing.assert_close(output[row, real], dense[0, real], atol=1e-5, rtol=1e-5)


def test_packing_describes_the_batch():
    packing = pack(torch.tensor([[1, 1, 1, 0], [0, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 0]]))
    assert packing.shape == (4, 4)
    assert packing.rows.tolist() == [1, 2, 0, 3]
    assert packing.lengths.tolist() == [1.0, 2.0, 3.0, 3.0]
    assert packing.tokens.tolist() == [5, 10, 11, 0, 1, 2, 12, 13, 14]
    assert packing.sequence.tolist() == [0, 1, 1, 2, 2, 2, 3, 3, 3]
    assert packing.groups == ((1, 1), (1, 2), (2, 3))
    assert packing.longest == 3
    assert packing.first_tokens().tolist() == [3, 0, 1, 6]
    assert packing.positions().tolist() == [0, 0, 1, 0, 1, 2, 0, 1, 2]


@given(st.lists(st.integers(1, 12), min_size=1, max_size=8), st.booleans())
def test_unpacking_restores_real_tokens_and_zeroes_padding(lengths, left):
    mask = mask_of(lengths, left=left)
    padded = torch.randn(*mask.shape, 3)
    packing = pack(mask)
    restored = packing.unpack(padded.flatten(0, 1)[packing.tokens])
    assert torch.equal(restored, padded * mask[..., None])
    first = padded.flatten(0, 1)[packing.tokens][packing.first_tokens()]
    assert torch.equal(first, padded[torch.arange(len(lengths)), mask.argmax(1)])


@pytest.mark.parametrize("row", [[0, 0, 0], [1, 0, 1]])
def test_rows_without_tokens_and_with_gaps_are_refused(row):
    with pytest.raises(LongscaleError, match=r"attention_mask: row 1 .* one run of ones"):
        pack(torch.tensor([[1, 1, 0], row]))


class LargestAllocation(TorchDispatchMode):
    """Bytes of the largest tensor that any operation returns, and the operations' names."""

    def __init__(self):
        super().__init__()
        self.bytes = 0
        self.operations = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        self.operations.add(func.name())
        for tensor in torch.utils._pytree.tree_leaves(output):
            if torch.is_tensor(tensor):
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return output


@pytest.mark.parametrize("lengths", [[512], [511, 512, 512]])
def test_no_scores_and_no_bias_are_materialised(lengths):
    packing = pack(mask_of(lengths))
    q, k, v = torch.randn(3, sum(lengths), 2, 8).requires_grad_().unbind(0)
    with LargestAllocation() as seen:
        band = alibi_band(alibi_slopes(2), packing.longest)[None]
        packed_attention(q, k, v, packing, band).sum().backward()
    assert seen.bytes <= 3 * sum(lengths) * 2 * 8 * 4  # q, k and v together
    assert seen.bytes < 512 * 512 * 4  # one head's scores of one sequence
    assert "aten::_scaled_dot_product_flash_attention_for_cpu" in seen.operations


def test_the_detector_sees_dense_attention():
    q, k, v = torch.randn(3, 1, 128, 2, 8)
    with LargestAllocation() as seen:
        dense_attention(q, k, v, mask_of([128]), alibi_slopes(2))
    assert seen.bytes >= 2 * 128 * 128 * 4


def test_half_precision_inputs_are_close_to_float32():
    packing = pack(mask_of([30, 200]))
    q, k, v = torch.randn(3, 230, 2, 16) * 0.5
    band = alibi_band(alibi_slopes(2), 200)[None]
    exact = packed_attention(q, k, v, packing, band)
    half = packed_attention(*(x.bfloat16() for x in (q, k, v)), packing, band)
    assert half.dtype == torch.bfloat16
    assert F.mse_loss(half.float(), exact).sqrt() < 0.01 * exact.std()


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("lengths", [[1], [5, 64, 5, 33, 64, 1], [513, 700]])
def test_attention_without_a_bias_equals_dense_attention(lengths, left):
    mask = mask_of(lengths, width=max(lengths) + 2, left=left)
    packing = pack(mask)
    leaf = torch.randn(3, *mask.shape, 3, 8).requires_grad_()
    weight = torch.randn(*mask.shape, 3, 8) * mask[..., None, None]
    with LargestAllocation() as seen:
        output = unbiased_attention(*leaf.flatten(1, 2)[:, packing.tokens], packing)
    assert seen.bytes <= leaf.untyped_storage().nbytes()  # no scores
    dense = dense_attention(*leaf, mask, torch.zeros(3))
    gradients = [
        torch.autograd.grad((either * weight).sum(), leaf)[0]
        for either in (packing.unpack(output), dense)
    ]
    dense = dense * mask[..., None, None]
    torch.testing.assert_close(packing.unpack(output), dense, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(*gradients, atol=2e-5, rtol=1e-5)
