"""Chunked attention against the dense matrix written out pair by pair."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longscale.attention.chunked import attention_weights, chunked_attention, rotate, turn, turns_of
from longscale.attention.geometry import Geometry, Setting, relative_map, rotation
from longscale.attention.positions import POSITION_SCHEMES, position_scheme

# ReRoPE's released form has no relative map: its far keys lie in another order of features.
SCHEMES = [name for name in POSITION_SCHEMES if name != "rerope-released"]


def dense_attention(q, k, v, geometry: Geometry, *, slope=0.0, lengths=None, squared=False):
    """Attention by the relative map: q . R(-r') k for every pair, on its own."""
    batch, n, _ = q.shape
    relative = relative_map(geometry, n)
    out = torch.zeros(batch, n, v.shape[-1], dtype=torch.float64)
    for b in range(batch):
        real = n if lengths is None else int(lengths[b])
        for i in range(n):
            logits = torch.full((n,), -math.inf, dtype=torch.float64)
            for j in range(real):
                if not relative[i, j].isnan():
                    logits[j] = product(q[b, i], k[b, j], relative[i, j], geometry.theta)
                    logits[j] -= slope * abs(i - j)
            weights = logits.clamp(min=0).square() / real if squared else logits.softmax(0)
            out[b, i] = weights @ v[b].double()
    return out


def product(q, k, relative, theta):
    """q . R(-r) k as a sum over complex numbers: Re(q conj(k) e^(i r theta))."""
    if theta is None:
        return q.double() @ k.double()
    pairs = lambda x: torch.view_as_complex(x.double().view(-1, 2).contiguous())  # noqa: E731
    turn = torch.polar(torch.ones_like(theta), relative * theta)
    return (pairs(q) * pairs(k).conj() * turn).real.sum()


def inputs(n: int, batch: int = 2, d: int = 6, e: int = 3, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, n, size, generator=generator) for size in (d, d, e)]


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("chunk", [5, 256])
def test_every_scheme_equals_the_dense_matrix(name: str, chunk: int):
    n = 37
    q, k, v = inputs(n)
    geometry = position_scheme(name).geometry(Setting(n, 12, 40, 6))
    slope = 0.25 if geometry.alibi else 0.0
    given_slope = torch.full((1, n, 1), slope) if geometry.alibi else None
    found = chunked_attention(q, k, v, geometry, slope=given_slope, chunk=chunk)
    expected = dense_attention(q, k, v, geometry, slope=slope)
    torch.testing.assert_close(found.double(), expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["rope", "windowed", "streamingllm", "rerope", "alibi"])
@pytest.mark.parametrize("normalization", ["softmax", "squared_relu"])
def test_padding(name: str, normalization: str):
    n, lengths = 30, torch.tensor([30, 17])
    q, k, v = inputs(n)
    geometry = position_scheme(name).geometry(Setting(n, 12, 40, 6))
    found = chunked_attention(
        q, k, v, geometry, lengths=lengths, normalization=normalization, chunk=7
    )
    squared = normalization == "squared_relu"
    expected = dense_attention(q, k, v, geometry, lengths=lengths, squared=squared)
    for b, real in enumerate(lengths):
        torch.testing.assert_close(
            found[b, :real].double(), expected[b, :real], atol=2e-6, rtol=1e-5
        )
    assert found.isfinite().all()  # also at padded queries whose window holds no real key


@settings(max_examples=60)
@given(
    name=st.sampled_from(SCHEMES),
    n=st.integers(1, 60),
    chunk=st.integers(1, 70),
    data=st.data(),
)
def test_rows_and_chunks_change_nothing(name: str, n: int, chunk: int, data):
    rows = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=9, unique=True))
    rows = torch.tensor(sorted(rows))
    q, k, v = inputs(n, batch=1, seed=n)
    geometry = position_scheme(name).geometry(Setting(n, 12, 80, 6))
    whole = chunked_attention(q, k, v, geometry)
    part = chunked_attention(q, k, v, geometry, rows=rows, chunk=chunk)
    torch.testing.assert_close(part, whole[:, rows], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["rope", "streamingllm", "leaky-rerope", "alibi"])
def test_gradients(name: str):
    n = 20
    q, k, v = (x.double().requires_grad_() for x in inputs(n, batch=1))
    geometry = position_scheme(name).geometry(Setting(n, 8, 40, 6))
    assert torch.autograd.gradcheck(
        lambda *x: chunked_attention(*x, geometry, chunk=6), (q, k, v), atol=1e-5
    )


def test_changing_one_key_changes_one_column():
    n = 24
    q, k, _ = inputs(n, batch=1)
    geometry = position_scheme("rope").geometry(Setting(n, 8, 40, 6))
    eye = torch.eye(n)[None]
    relu = {"normalization": "squared_relu"}  # each weight feels its own logit alone
    before = chunked_attention(q, k, eye, geometry, **relu)
    k[0, 5] += 1
    changed = (chunked_attention(q, k, eye, geometry, **relu) != before).any(dim=(0, 1))
    assert changed.nonzero().flatten().tolist() == [5]


@pytest.mark.parametrize("name", POSITION_SCHEMES)
@pytest.mark.parametrize("normalization", ["softmax", "squared_relu"])
def test_weights_are_what_the_values_are_mixed_with(name: str, normalization: str):
    n, rows, lengths = 23, torch.tensor([0, 3, 4, 11, 16]), torch.tensor([23, 17])
    q, k, v = inputs(n)
    geometry = position_scheme(name).geometry(Setting(n, 8, 40, 6))
    how = {"slope": torch.full((1, n, 1), 0.25) if geometry.alibi else None}
    how |= {"lengths": lengths, "rows": rows, "normalization": normalization}
    weights = attention_weights(q, k, geometry, **how)
    assert weights.shape == (2, 5, n)
    torch.testing.assert_close(weights @ v, chunked_attention(q, k, v, geometry, **how))
    assert (weights[1, :, 17:] == 0).all()
    outside = relative_map(geometry, n)[rows].isnan()
    assert (weights[:, outside] == 0).all()
    if normalization == "softmax":
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 5))


def test_positions_per_sequence_replace_the_schemes():
    n = 9
    q, k, v = inputs(n)
    geometry = position_scheme("rope").geometry(Setting(n, 8, 40, 6))
    positions = torch.arange(n).double().repeat(2, 1)
    positions[1] += 100 * (positions[1] > 3)
    found = chunked_attention(q, k, v, geometry, turns=turns_of(geometry, positions))
    torch.testing.assert_close(found[0], chunked_attention(q, k, v, geometry)[0])
    theta = rotation(6)
    turned = [rotate(x[1:], turn(positions[1], theta)) for x in (q, k)]
    expected = (turned[0] @ turned[1].transpose(1, 2)).softmax(-1) @ v[1:]
    torch.testing.assert_close(found[1:], expected)


def test_rotation_keeps_its_precision_far_out():
    x = torch.ones(1, 2, 4)
    far = torch.tensor([0.0, 1e6])
    near = rotate(x, turn(far.double(), rotation(4)))
    angle = 1e6 % (2 * math.pi)
    assert math.isclose(near[0, 1, 0], math.cos(angle) - math.sin(angle), abs_tol=1e-6)
