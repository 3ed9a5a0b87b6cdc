"""The parts of a transformer block that treat each token alone, without going through main memory.

At the size of DNABERT-2-117M the two halves of a gated layer are 25 KB a token. Written out for a
whole batch, each operation on them waits for memory, and for new pages from the system; a block of
rows stays in the cache and its memory is used again for the next. The arithmetic of an element is
the same, so nothing is approximated. On a GPU there are no such blocks.

Shapes at the ends of lines: T tokens, I intermediate features.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

ROWS = 512


def row_blocks(x: torch.Tensor) -> Iterator[slice]:
    """Slices of at most `ROWS` rows that cover `x`; one slice of all rows on a GPU."""
    rows = ROWS if x.device.type == "cpu" else max(1, len(x))
    return (slice(start, start + rows) for start in range(0, len(x), rows))


def by_rows(
    function: Callable[..., torch.Tensor], x: torch.Tensor, *others: torch.Tensor
) -> torch.Tensor:
    """function(x, *others), (T, D) -> (T, D), for a function that treats each row alone.

    In blocks where no gradient is recorded.
    """
    if torch.is_grad_enabled() or x.device.type != "cpu" or len(x) <= ROWS:
        return function(x, *others)
    result = None
    for rows in row_blocks(x):
        block = function(x[rows], *(other[rows] for other in others))
        if result is None:  # in the function's dtype: under autocast not that of x
            result = block.new_empty(len(x), block.shape[1])
        result[rows] = block
    return result


def geglu(gated: torch.Tensor, dropout: float = 0.0) -> torch.Tensor:
    """dropout(gelu(g) * u) of [g, u] = `gated`, (T, 2 I) -> (T, I); Shazeer 2020, arXiv 2002.05202.

    Where no gradient is recorded the result takes the place of g in `gated`.
    """
    if gated.device.type != "cpu":
        g, u = gated.chunk(2, dim=-1)
        return F.dropout(F.gelu(g) * u, dropout)
    keep = None
    if dropout:  # the numbers that F.dropout would draw
        shape = (len(gated), gated.shape[1] // 2)
        keep = gated.new_empty(shape).bernoulli_(1 - dropout).div_(1 - dropout)
    if torch.is_grad_enabled():
        return _GEGLU.apply(gated, keep)
    g, u = gated.chunk(2, dim=-1)
    for rows in row_blocks(gated):
        torch.ops.aten.gelu_(g[rows])
        _product(g[rows], u[rows], None if keep is None else keep[rows], out=g[rows])
    return g


def _product(
    a: torch.Tensor, b: torch.Tensor, keep: torch.Tensor | None, out: torch.Tensor
) -> None:
    """a * b * keep into `out`."""
    torch.mul(a, b, out=out)
    if keep is not None:
        out.mul_(keep)


class _GEGLU(torch.autograd.Function):
    """gelu(g) * u * keep; of the forward pass it holds `gated` and `keep` alone."""

    @staticmethod
    def forward(ctx, gated: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:  # noqa: ANN001
        ctx.save_for_backward(gated, keep)
        product = gated.new_empty(len(gated), gated.shape[1] // 2)  # T I
        for rows in row_blocks(gated):
            g, u = gated[rows].chunk(2, dim=-1)
            _product(F.gelu(g), u, None if keep is None else keep[rows], out=product[rows])
        return product

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:  # noqa: ANN001
        gated, keep = ctx.saved_tensors
        of_gated = torch.empty_like(gated)
        for rows in row_blocks(gated):
            g, u = gated[rows].chunk(2, dim=-1)
            of_g, of_u = of_gated[rows].chunk(2, dim=-1)
            of_product = gradient[rows] if keep is None else gradient[rows] * keep[rows]
            torch.mul(of_product, F.gelu(g), out=of_u)
            of_g.copy_(torch.ops.aten.gelu_backward(of_product * u, g))
        return of_gated, None
