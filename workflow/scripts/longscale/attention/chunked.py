"""Exact attention of one head under a position scheme, a block of queries at a time.

Memory grows with the length, not with its square: at no time do more than `chunk` rows of logits
exist. Keys that no query of a block attends to are not touched, so the time of a windowed scheme
grows with the length, too.

Shapes at the ends of lines: B sequences, n tokens (padding on the right), d features of queries and
keys, e features of values, R query rows.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F

from longscale.attention.geometry import Geometry, Piece, covers

CHUNK = 256
NORMALIZATIONS = ("softmax", "softmax_plus", "squared_relu")

Turn = tuple[torch.Tensor, torch.Tensor]  # cos, sin: (n, d/2) or (B, n, d/2)
Turns = list[tuple[Turn | None, Turn | None]]  # of queries and keys, for each piece


def turn(
    positions: torch.Tensor,
    theta: torch.Tensor,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Turn:
    """cos and sin of position times angle, by which `rotate` turns.

    `positions` (n,) or (B, n), float64; `theta` (d/2,). The product is thousands of radians, so it
    is float64 whatever the `dtype` of the result.
    """
    angles = positions.to(device)[..., None] * theta.to(device)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: torch.Tensor, by: Turn) -> torch.Tensor:
    """RoPE on interleaved pairs of `x` (B, n, d); the result has the pairs' halves apart.

    Queries and keys come out in the same order of features, so their products are those of the
    interleaved layout.
    """
    cos, sin = by
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.cat([even * cos - odd * sin, even * sin + odd * cos], dim=-1)


def turns_of(
    geometry: Geometry,
    positions: torch.Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Turns:
    """How queries and keys of each piece are turned; None: not at all.

    All layers turn alike, so a model makes this once. `positions` (B, n) replace the positions of a
    scheme whose training draws them per sequence.
    """
    theta = geometry.theta
    if theta is None:
        return [(None, None)] * len(geometry.pieces)
    if positions is not None:
        drawn = turn(positions, theta, dtype, device)
        return [(drawn, drawn)] * len(geometry.pieces)
    turns = []
    for piece in geometry.pieces:
        of_queries = turn(piece.queries, theta, dtype, device)
        same = piece.keys is piece.queries
        of_keys = of_queries if same else turn(piece.keys, theta, dtype, device)
        turns.append((of_queries, None if piece.unpaired_keys else of_keys))
    return turns


def rotated_pieces(
    q: torch.Tensor,
    k: torch.Tensor,
    geometry: Geometry,
    turns: Turns | None = None,
) -> list[tuple[Piece, torch.Tensor, torch.Tensor]]:
    """Each piece of `geometry` with its rotated queries and keys, (B, n, d).

    `turns`: of `turns_of`; None: made here.
    """
    if turns is None:
        turns = turns_of(geometry, dtype=q.dtype, device=q.device)
    return [
        (piece, *(x if by is None else rotate(x, by) for x, by in zip((q, k), pair, strict=True)))
        for piece, pair in zip(geometry.pieces, turns, strict=True)
    ]


def chunked_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    geometry: Geometry,
    *,
    slope: torch.Tensor | None = None,
    lengths: torch.Tensor | None = None,
    rows: torch.Tensor | None = None,
    turns: Turns | None = None,
    normalization: str = "softmax",
    dropout: float = 0.0,
    chunk: int = CHUNK,
) -> torch.Tensor:
    """Attention output of the query rows: (B, R, e).

    `q`, `k` (B, n, d) before rotation, scale and length rule already in `q`; `v` (B, n, e).
    `slope`: ALiBi's, positive, broadcast against (B, n, 1). `lengths` (B,): real tokens, None: all.
    `rows` (R,), ascending: the query rows that are needed, None: all. `turns`: of `turns_of`, None:
    made here. `dropout`: on the attention weights. `squared_relu` is relu(logits)^2 over the number
    of real tokens, without softmax.
    """
    n = q.shape[1]
    rows = torch.arange(n, device=q.device) if rows is None else rows
    pieces = rotated_pieces(q, k, geometry, turns)
    memory = None if torch.is_grad_enabled() else _Memory()
    outputs = v.new_empty(len(v), len(rows), v.shape[-1]) if memory else []
    for start in range(0, len(rows), chunk):
        i = rows[start : start + chunk]
        blocks = logit_blocks(pieces, i, slope=slope, lengths=lengths, memory=memory)
        real = n if lengths is None else lengths
        parts = _weight_blocks(blocks, normalization, real, dropout, memory)
        mixed = [part @ v[:, keys] for part, keys in parts]
        mixed = mixed[0] if len(mixed) == 1 else torch.stack(mixed).sum(0)
        if memory:
            outputs[:, start : start + chunk] = mixed
        else:
            outputs.append(mixed)
    return outputs if memory else torch.cat(outputs, dim=1)


class _Memory:
    """Memory for the logits of one block of queries, used again for the next.

    Asking the system for fresh pages costs as much as the softmax. Only where no gradient is
    recorded: a backward pass needs the weights of every block.
    """

    def __init__(self) -> None:
        self.held: dict[str, torch.Tensor] = {}

    def room(self, name: str, shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
        """An uninitialised tensor, contiguous; it shares memory with the last of that `name`."""
        size = math.prod(shape)
        if name not in self.held or self.held[name].numel() < size:
            self.held[name] = like.new_empty(size)
        return self.held[name][:size].view(shape)


def attention_weights(
    q: torch.Tensor, k: torch.Tensor, geometry: Geometry, **keywords: Any
) -> torch.Tensor:
    """The weights that `chunked_attention` gives to the values, as a whole: (B, R, n).

    For figures and checks of small inputs. Arguments are those of `chunked_attention`.
    """
    eye = torch.eye(q.shape[1], dtype=q.dtype, device=q.device).expand(len(q), -1, -1)
    return chunked_attention(q, k, eye, geometry, **keywords)


def logit_blocks(
    pieces: list[tuple[Piece, torch.Tensor, torch.Tensor]],
    i: torch.Tensor,
    *,
    slope: torch.Tensor | None = None,
    lengths: torch.Tensor | None = None,
    memory: _Memory | None = None,
) -> list[tuple[torch.Tensor, slice]]:
    """Logits of the query rows `i`, piece by piece: (B, rows, keys) and the slice of keys.

    What a piece does not hold is the lowest finite number, so a row without any key (a padded
    query under a window) gives some finite output, never NaN. The slices of two pieces may
    overlap; the pairs that are attended never do.
    """
    n = pieces[0][2].shape[1]
    first, last = int(i[0]), int(i[-1])
    queries = slice(first, last + 1) if last - first + 1 == len(i) else i
    blocks = []
    for piece, q, k in pieces:
        low = 0 if piece.high is None else max(0, first - piece.high)
        high = n if piece.low is None else min(n, last - piece.low + 1)
        high = high if piece.first_keys is None else min(high, piece.first_keys)
        if piece.first_queries is not None and first >= piece.first_queries:
            continue
        if low >= high:
            continue
        room = None
        if memory:
            room = memory.room(f"piece {len(blocks)}", (len(q), len(i), high - low), q)
        logits = torch.bmm(q[:, queries], k[:, low:high].transpose(1, 2), out=room)  # B rows keys
        logits = _mask(logits, piece, i, low, slope, queries, lengths)
        blocks.append((logits, slice(low, high)))
    return blocks


def _mask(
    logits: torch.Tensor,
    piece: Piece,
    i: torch.Tensor,
    low: int,
    slope: torch.Tensor | None,
    queries: slice | torch.Tensor,
    lengths: torch.Tensor | None,
) -> torch.Tensor:
    """Bias and mask of one block; nothing is written where all pairs are attended."""
    j = torch.arange(low, low + logits.shape[-1], device=logits.device)
    bounded = (piece.low, piece.high, piece.first_queries) != (None, None, None)
    if slope is not None or bounded:
        r = i[:, None] - j
        if slope is not None:
            logits = logits - slope[:, queries] * r.abs()
        if bounded:
            inside = covers(piece, r, i[:, None], j)
            if not inside.all():
                logits = logits.masked_fill(~inside, torch.finfo(logits.dtype).min)
    if lengths is not None:
        padding = j >= lengths[:, None, None]
        logits = logits.masked_fill(padding, torch.finfo(logits.dtype).min)
    return logits


def _weight_blocks(
    blocks: list[tuple[torch.Tensor, slice]],
    normalization: str,
    lengths: torch.Tensor | int,
    dropout: float = 0.0,
    memory: _Memory | None = None,
) -> list[tuple[torch.Tensor, slice]]:
    """Attention weights of `logit_blocks`, normalised over the keys of all blocks together."""
    logits = torch.cat([block for block, _ in blocks], dim=-1) if blocks[1:] else blocks[0][0]
    weights = _weights(logits, normalization, lengths, out=logits if memory else None)
    if dropout:
        weights = F.dropout(weights, dropout)
    parts = weights.split([block.shape[-1] for block, _ in blocks], dim=-1)
    return [(part, keys) for part, (_, keys) in zip(parts, blocks, strict=True)]


def _weights(
    logits: torch.Tensor,
    normalization: str,
    lengths: torch.Tensor | int,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    if normalization != "squared_relu":
        return torch.softmax(logits, dim=-1, out=out)
    count = lengths[:, None, None] if torch.is_tensor(lengths) else lengths
    return F.relu(logits).square() / count
