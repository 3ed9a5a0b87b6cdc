"""GEGLU in blocks of rows against the formula, and blocks against the whole."""

import pytest
import torch
import torch.nn.functional as F

from longscale.models.geglu import ROWS, by_rows, geglu, row_blocks

TOKENS = [1, 7, ROWS, ROWS + 1, 2 * ROWS + 3]


def formula(gated, dropout=0.0):
    g, u = gated.chunk(2, dim=-1)
    return F.dropout(F.gelu(g) * u, dropout)


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_equals_the_formula_forward_and_backward(tokens, dropout):
    values = 2 * torch.randn(tokens, 10)
    weight = torch.randn(tokens, 5)
    outputs, gradients = [], []
    for compute in (geglu, formula):
        torch.manual_seed(1)
        leaf = values.clone().requires_grad_()
        output = compute(leaf, dropout)
        (output * weight).sum().backward()
        outputs.append(output.detach())
        gradients.append(leaf.grad)
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(*gradients)
    assert not dropout or tokens < 5 or (outputs[0] == 0).any()


def test_the_gradient_is_that_of_finite_differences():
    gated = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(geglu, (gated,))


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_without_gradients_the_result_is_the_same(tokens, dropout):
    gated = torch.randn(tokens, 10)
    torch.manual_seed(1)
    expected = formula(gated, dropout)
    torch.manual_seed(1)
    with torch.inference_mode():
        torch.testing.assert_close(geglu(gated.clone(), dropout), expected)


@pytest.mark.parametrize("tokens", TOKENS)
def test_blocks_of_rows_equal_the_whole(tokens):
    x, y = torch.randn(2, tokens, 4)
    seen = []

    def function(x, y):
        seen.append(len(x))
        return (x + y).double()

    expected = (x + y).double()
    with torch.no_grad():
        assert torch.equal(by_rows(function, x, y), expected)
    assert sum(seen) == tokens
    assert max(seen) <= ROWS
    seen.clear()
    assert torch.equal(by_rows(function, x.requires_grad_(), y), expected)
    assert seen == [tokens]  # with gradients, in one piece


def test_blocks_cover_each_row_once():
    x = torch.arange(2 * ROWS + 5)
    assert torch.equal(torch.cat([x[rows] for rows in row_blocks(x)]), x)
