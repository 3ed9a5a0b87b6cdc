"""Attention names, and cosine logits."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longscale.attention.cosine import DOT, Attention, parse_attention, unit_vectors
from longscale.errors import LongscaleError


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("dot", DOT),
        ("cos16", Attention("cos16", cosine=True, alpha=16.0)),
        ("cos0.5", Attention("cos0.5", cosine=True, alpha=0.5)),
        ("cos-matched", Attention("cos-matched", cosine=True)),
        ("cos32-released", Attention("cos32-released", cosine=True, alpha=32.0, released=True)),
    ],
)
def test_known_names(name, parsed):
    assert parse_attention(name) == parsed


def test_only_matched_is_learned():
    names = ("dot", "cos16", "cos-matched", "cos16-released")
    assert [parse_attention(name).learned for name in names] == [False, False, True, False]


@pytest.mark.parametrize(
    "name",
    [
        *("", "Dot", "cos", "cos0", "cos0.0", "cos-16", "cos016", "cos16.0", "cos1e3", "cos16 "),
        *("cosinf", "cos-matched-released", "dot-released", "cos16\n", "cos\u0661"),
    ],
)
def test_other_names_are_refused_with_the_known_ones(name):
    with pytest.raises(LongscaleError, match=r"dot, cos<alpha>.*cos-matched"):
        parse_attention(name)


@given(st.floats(min_value=1e-3, max_value=1e4))
def test_every_plain_decimal_is_an_alpha(alpha):
    text = f"{alpha:.3f}".rstrip("0").rstrip(".")
    if float(text):
        assert parse_attention(f"cos{text}").alpha == float(text)


def cosine_logits(q, k, alpha):
    return alpha * unit_vectors(q) @ unit_vectors(k).T


@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_logits_stay_within_alpha(seed, size):
    generator = torch.Generator().manual_seed(seed)
    q, k = size * torch.randn(2, 9, 5, generator=generator)
    assert cosine_logits(q, k, 16.0).abs().max() <= 16 * (1 + 1e-6)
    torch.testing.assert_close(cosine_logits(q, q, 16.0).diagonal(), torch.full((9,), 16.0))


def test_logits_are_alpha_times_the_cosine_similarity():
    q, k = torch.randn(2, 9, 5)
    oracle = 8 * torch.nn.functional.cosine_similarity(q[:, None], k[None], dim=-1)
    torch.testing.assert_close(cosine_logits(q, k, 8.0), oracle)


def test_changing_one_key_changes_one_column():
    q, k = torch.randn(2, 9, 5)
    changed = k.clone()
    changed[3] += 1
    columns = (cosine_logits(q, k, 8.0) != cosine_logits(q, changed, 8.0)).any(0)
    assert columns.nonzero().flatten().tolist() == [3]


def test_zero_vectors_have_zero_cosine_and_finite_gradients():
    q = torch.zeros(2, 4, requires_grad=True)
    logits = unit_vectors(q) @ unit_vectors(torch.randn(3, 4)).T
    logits.sum().backward()
    assert (logits == 0).all()
    assert q.grad.isfinite().all()


def test_half_precision_is_normalised_in_float32():
    x = torch.full((1, 4), 3e4, dtype=torch.float16)  # its squares are beyond float16
    assert unit_vectors(x).dtype == torch.float32
    torch.testing.assert_close(unit_vectors(x), torch.full((1, 4), 0.5))
