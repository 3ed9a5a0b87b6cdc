"""ALiBi, symmetric, as a view that takes no memory (Press et al. 2022, arXiv 2108.12409).

bias[h, i, j] = -slope_h |i - j| is a Toeplitz matrix. With the keys in reverse order, j = n-1-c, it
becomes a Hankel matrix: |i - j| = |i + c - (n-1)| depends on i + c alone, and a strided view of one
vector per head shows it without writing n^2 numbers. The vector of the longest sequence serves all.
"""

import torch


def alibi_slopes(heads: int) -> torch.Tensor:
    """`slopes_of` as a tensor (H,), float32."""
    return torch.tensor(slopes_of(heads))


def slopes_of(heads: int) -> list[float]:
    """Slopes of H heads: 2^(-8/H), 2^(-16/H), ... for a power of two.

    For other H: the slopes of the next lower power of two, then every other slope of the next
    higher one (the authors' interleave; 12 heads: 2^-1 ... 2^-8, 2^-0.5, 2^-1.5, 2^-2.5, 2^-3.5).
    """
    power = 1 << (heads.bit_length() - 1)
    slopes = [2 ** (-8 * h / power) for h in range(1, power + 1)]
    slopes += [2 ** (-4 * h / power) for h in range(1, 2 * (heads - power), 2)]
    return slopes


def alibi_band(slopes: torch.Tensor, n: int) -> torch.Tensor:
    """The bias by offset i + c, (H, 2n - 1), for sequences of up to `n` tokens."""
    offset = torch.arange(2 * n - 1, device=slopes.device, dtype=slopes.dtype) - (n - 1)
    return -slopes[:, None] * offset.abs()


def hankel_view(band: torch.Tensor, n: int) -> torch.Tensor:
    """The bias of n queries and n reversed keys as a view, (G, H, n, n).

    `band` (G, H, 2N - 1), contiguous, N >= n: one row for all sequences (G = 1) or one for each.
    """
    groups, heads, width = band.shape
    longest = (width + 1) // 2
    return band.as_strided(
        (groups, heads, n, n),
        (heads * width, width, 1, 1),
        band.storage_offset() + longest - n,
    )
