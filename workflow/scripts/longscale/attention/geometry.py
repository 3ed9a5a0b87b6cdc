"""The geometry of a position scheme: which keys a query attends to, at which relative position.

Positions and distances are in tokens. r = i - j is the query's position minus the key's; it is
positive for keys on the left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the workflow reads the names of the schemes in every job, without torch
    import torch

    from longscale.attention.recall import Recall

BASE = 10000.0


@dataclass(frozen=True)
class Setting:
    """What a scheme may look at.

    `n`: tokens of the sequence; `n_train`: tokens the model was trained at; `n_max`: the longest
    sequence it is meant for (presets of NTK, PoSE and RandPos); `head_dim`: d of the rotation.
    """

    n: int
    n_train: int
    n_max: int
    head_dim: int

    @property
    def stretch(self) -> float:
        """s = n / n_train, 1 at the least."""
        return max(1.0, self.n / self.n_train)


@dataclass(frozen=True)
class Piece:
    """Pairs with low <= i - j <= high; their relative position is queries[i] - keys[j].

    `queries`, `keys`: positions (n,), float64, one per token. `low`, `high`: None is unbounded.
    `first_keys`: only the sequence's first so many keys; None: all. `first_queries` likewise.
    `unpaired_keys` is a defect of the released ReRoPE: keys that are not rotated are left in
    another order of features than the queries.
    """

    queries: torch.Tensor
    keys: torch.Tensor
    low: int | None = None
    high: int | None = None
    first_keys: int | None = None
    first_queries: int | None = None
    unpaired_keys: bool = False


@dataclass(frozen=True)
class Geometry:
    """What a scheme makes of a sequence.

    `pieces` do not overlap; a pair that lies in none of them is not attended. `theta` (d/2,),
    float64, are the angles per position; None: queries and keys are not rotated. `alibi`: a bias
    -m |r| is added to the logits, with one slope m per layer. `recall`: what is mixed into the
    model's answer (`recall.py`); None: nothing. The rest is for released schemes:
    `slope` overrides the layers' slopes, `scale` multiplies all logits, `scaled_bias` lets the
    length rule multiply the bias too, and `count_all` gives it all real keys as its n.
    """

    pieces: tuple[Piece, ...]
    theta: torch.Tensor | None
    alibi: bool = False
    recall: Recall | None = None
    slope: float | None = None
    scale: float = 1.0
    scaled_bias: bool = False
    count_all: bool = False


def rotation(head_dim: int, base: float = BASE) -> torch.Tensor:
    """theta_i = base^(-2i/d), (d/2,), float64 (Su et al. 2021, RoFormer, arXiv 2104.09864)."""
    import torch

    return base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)


def ntk_base(head_dim: int, stretch: float) -> float:
    """B s^(d/(d-2)): the base of NTK-aware scaling for sequences `stretch` = s times as long.

    The slowest pair of features then turns s times slower, the fastest as before. Sources: bloc97
    2023, "NTK-Aware Scaled RoPE"; Peng et al. 2023 (arXiv 2309.00071), section 3.1.
    """
    return BASE * stretch ** (head_dim / (head_dim - 2))


def steps(n: int) -> torch.Tensor:
    """0 ... n - 1 as float64."""
    import torch

    return torch.arange(n, dtype=torch.float64)


def everything(positions: torch.Tensor, theta: torch.Tensor | None, **kwargs: bool) -> Geometry:
    """All pairs, queries and keys at the same positions."""
    return Geometry((Piece(positions, positions),), theta, **kwargs)


def constant(value: float, n: int) -> torch.Tensor:
    """`n` times the same position."""
    return steps(n) * 0 + value


def clamped_sides(n: int, inside: int, distance: float, first_keys: int | None = None) -> tuple:
    """Pairs further apart than `inside`, all at relative position +-distance."""
    at, zero = constant(distance, n), constant(0, n)
    left = Piece(at, zero, low=inside + 1, first_keys=first_keys)
    right = Piece(-at, zero, high=-inside - 1, first_keys=first_keys)
    return left, right


def attended(geometry: Geometry, lengths: torch.Tensor, n: int) -> torch.Tensor:
    """How many real keys each query attends to: (B, n) for sequences of `lengths` (B,) real tokens.

    This is the n of a length rule. Padding is on the right.
    """
    import torch

    if geometry.count_all:
        return lengths[:, None].expand(-1, n)
    i = torch.arange(n, device=lengths.device)
    counts = torch.zeros(len(lengths), n, dtype=torch.long, device=lengths.device)
    for piece in geometry.pieces:
        end = lengths[:, None].clamp(max=n if piece.first_keys is None else piece.first_keys)
        first = torch.zeros_like(i) if piece.high is None else (i - piece.high).clamp(min=0)
        last = end - 1 if piece.low is None else torch.minimum(i - piece.low, end - 1)
        count = (last - first + 1).clamp(min=0)
        if piece.first_queries is not None:
            count = count * (i < piece.first_queries)
        counts += count
    return counts


def relative_map(geometry: Geometry, n: int) -> torch.Tensor:
    """r'(i, j) of every pair, (n, n) float64, NaN where a pair is not attended; for figures."""
    import torch

    i = torch.arange(n)
    r = i[:, None] - i[None, :]
    relative = torch.full((n, n), math.nan, dtype=torch.float64)
    for piece in geometry.pieces:
        inside = covers(piece, r, i[:, None], i[None, :])
        relative = torch.where(inside, piece.queries[:, None] - piece.keys[None, :], relative)
    return relative


def covers(piece: Piece, r: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
    """Which pairs lie in the piece, for distances `r` = i - j (rows, keys)."""
    import torch

    inside = torch.ones_like(r, dtype=torch.bool)
    if piece.low is not None:
        inside = inside & (r >= piece.low)
    if piece.high is not None:
        inside = inside & (r <= piece.high)
    if piece.first_keys is not None:
        inside = inside & (j < piece.first_keys)
    if piece.first_queries is not None:
        inside = inside & (i < piece.first_queries)
    return inside
