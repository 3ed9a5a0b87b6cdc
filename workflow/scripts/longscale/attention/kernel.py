"""Exact attention over packed real tokens; no (n, n) scores, no (H, n, n) bias.

A padded batch is packed to its T real tokens with the sequences sorted by length, so that
sequences of equal length lie next to each other and form a group that is a view, (g, n, H, d). Each
group is one call of PyTorch's fused attention with the zero-copy bias of `alibi.py`.

Why groups of exactly equal length: a further group costs about 30 us forward and 80 us forward and
backward (one CPU thread), which is little beside what padding costs. 128 sequences of 50 to 70
tokens (21 lengths, 4 heads of 16) take 6 ms forward and 18 ms with backward in 21 groups, but 9 ms
and 29 ms padded to one group with an extra feature that masks the padded keys exactly.

A steep ALiBi slope leaves distant keys no weight at all: by Cauchy and Schwarz no logit of a head
exceeds L = max |q| max |k|, so against the query's own key, which has no bias, the logit at
distance r is at most 2 L - slope r, and the weight at most e to that. Below e^-105 it is less than
half of the smallest number that float32 has: zero, and so are all gradients through it. On a CPU
such keys are left out, a block of queries at a time, where that saves enough work (`reaches`,
`window_pieces`). Queries carry the length rule, so L does.
"""

import math
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from longscale.attention.alibi import hankel_view
from longscale.errors import LongscaleError

UNDERFLOW = 105.0  # e^-105 < 2^-150, half of the smallest denormal number
SHORTEST_WINDOWED = 1024  # tokens; below, what is left out is not worth the blocks
BLOCK = 256  # queries
WORTH_IT = 0.9  # the largest share of pairs in its blocks for which a head gets blocks

Pieces = tuple[tuple[slice, slice, slice], ...]  # heads, queries, reversed keys


@dataclass(frozen=True)
class Packing:
    """Where the real tokens of a padded batch (B, L) lie when packed; made by `pack`.

    `rows` (B,): the batch row of each packed sequence, shortest first.
    `lengths` (B,): real tokens of each packed sequence, float64 on the CPU.
    `tokens` (T,): index of each packed token in the flattened batch (B * L).
    `sequence` (T,): number of the packed sequence that each token belongs to.
    `groups`: (sequences, tokens of each), in packed order.
    """

    shape: tuple[int, int]
    rows: torch.Tensor
    lengths: torch.Tensor
    tokens: torch.Tensor
    sequence: torch.Tensor
    groups: tuple[tuple[int, int], ...]

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return self.groups[-1][1]

    def first_tokens(self) -> torch.Tensor:
        """Packed index of each batch row's first real token (its [CLS]), (B,)."""
        lengths = self.lengths.long().to(self.rows.device)
        starts = lengths.cumsum(0) - lengths
        return torch.empty_like(starts).index_copy(0, self.rows, starts)

    def positions(self) -> torch.Tensor:
        """Place of each packed token in its sequence, from 0, (T,)."""
        lengths = self.lengths.long().to(self.rows.device)
        starts = lengths.cumsum(0) - lengths
        return torch.arange(len(self.tokens), device=starts.device) - starts[self.sequence]

    def unpack(self, packed: torch.Tensor) -> torch.Tensor:
        """(T, ...) -> (B, L, ...), zero where there is no real token."""
        batch, length = self.shape
        padded = packed.new_zeros(batch * length, *packed.shape[1:])
        return padded.index_copy(0, self.tokens, packed).unflatten(0, (batch, length))


def pack(attention_mask: torch.Tensor) -> Packing:
    """The packing of a batch whose `attention_mask` (B, L) is not 0 at real tokens.

    Raises `LongscaleError` if a row has no real token or a gap between real tokens (distances
    between tokens would then depend on the padding).
    """
    mask = attention_mask != 0
    batch, width = mask.shape
    position = torch.arange(width, device=mask.device)
    lengths = mask.sum(1)
    last = torch.where(mask, position, -1).amax(1)
    first = torch.where(mask, position, width).amin(1)
    wrong = ((last - first + 1 != lengths) | (lengths == 0)).nonzero()
    if len(wrong):
        raise LongscaleError(
            f"attention_mask: row {int(wrong[0])} has no real token or a gap between them; "
            "it must be one run of ones with padding before or after it."
        )
    rows = torch.argsort(lengths, stable=True)
    sorted_lengths = lengths[rows]
    sequence, column = mask[rows].nonzero(as_tuple=True)
    sorted_lengths = sorted_lengths.cpu()
    groups = tuple((len(list(same)), n) for n, same in groupby(sorted_lengths.tolist()))
    return Packing(
        shape=(batch, width),
        rows=rows,
        lengths=sorted_lengths.double(),
        tokens=rows[sequence] * width + column,
        sequence=sequence,
        groups=groups,
    )


def unbiased_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, packing: Packing
) -> torch.Tensor:
    """softmax(q k^T) v within each sequence; arguments as those of `packed_attention`."""
    sizes = [sequences * n for sequences, n in packing.groups]
    outputs = []
    for group, *qkv in zip(packing.groups, *(x.split(sizes) for x in (q, k, v)), strict=True):
        grouped = (x.unflatten(0, group).transpose(1, 2) for x in qkv)  # g H n d
        mixed = F.scaled_dot_product_attention(*grouped, scale=1.0)
        outputs.append(mixed.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs)


def packed_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, packing: Packing, band: torch.Tensor
) -> torch.Tensor:
    """softmax(q k^T + bias) v within each sequence; (T, H, d) -> (T, H, d).

    `q` carries every factor on the logits (1/sqrt(d), alpha, beta), which is what keeps them off
    the bias. `band`: `alibi_band` of at least the longest sequence, (1, H, W) for all sequences or
    (B, H, W) in packed order.
    """
    sizes = [sequences * n for sequences, n in packing.groups]
    bands = band.split([sequences for sequences, _ in packing.groups]) if len(band) > 1 else None
    reach = reaches(q, k, band)
    outputs = []
    for index, ((sequences, n), *qkv) in enumerate(
        zip(packing.groups, q.split(sizes), k.split(sizes), v.split(sizes), strict=True)
    ):
        queries, keys, values = (x.unflatten(0, (sequences, n)) for x in qkv)
        queries, keys, values = (
            x.transpose(1, 2) for x in (queries, keys.flip(1), values.flip(1))
        )  # g H n d
        own = band if bands is None else bands[index]
        together = math.ceil(torch.get_num_threads() / sequences)
        pieces = window_pieces(reach, n, together) if reach and n >= SHORTEST_WINDOWED else ()
        if len(pieces) > 1:
            mixed = _Windowed.apply(queries, keys, values, own, pieces)
        else:
            mixed = F.scaled_dot_product_attention(
                queries, keys, values, attn_mask=hankel_view(own, n), scale=1.0
            )
        outputs.append(mixed.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs) if len(outputs) > 1 else outputs[0]


@torch.no_grad()
def reaches(q: torch.Tensor, k: torch.Tensor, band: torch.Tensor) -> list[int] | None:
    """Distance in tokens beyond which every weight of a head is zero in float32, for each head.

    `q`, `k` (T, H, d) and `band` as in `packed_attention`. None where it is not asked for: on a
    GPU, in short sequences, and with a band for each sequence.
    """
    longest = (band.shape[-1] + 1) // 2
    if q.device.type != "cpu" or len(band) > 1 or longest < SHORTEST_WINDOWED:
        return None
    norms = (torch.linalg.vector_norm(x, dim=-1, dtype=band.dtype) for x in (q, k))  # T H
    largest = (norm.amax(0).double() for norm in norms)
    slope = -band[0, :, longest].double()  # the bias at distance 1
    reach = (2 * math.prod(largest) + UNDERFLOW) / slope
    return reach.nan_to_num(nan=longest).clamp(max=longest).ceil().int().tolist()


def window_pieces(reach: list[int], n: int, together: int = 1) -> Pieces:
    """Which pairs to compute: pieces that hold every pair within each head's `reach`.

    `together` neighbouring heads share their pieces (the backward pass of the fused kernel is
    parallel over sequences and heads alone). The keys' slices count from the last key.
    """
    whole = slice(0, n)
    pieces: list[tuple[slice, slice, slice]] = []
    for first in range(0, len(reach), together):
        heads = slice(first, min(first + together, len(reach)))
        far = max(reach[heads])
        blocks = [(start, min(start + BLOCK, n)) for start in range(0, n, BLOCK)]
        spans = [(max(0, start - far), min(n, stop + far)) for start, stop in blocks]
        pairs = sum(
            (stop - start) * (high - low)
            for (start, stop), (low, high) in zip(blocks, spans, strict=True)
        )
        if pairs > WORTH_IT * n * n:
            if pieces and pieces[-1][1:] == (whole, whole):
                heads = slice(pieces.pop()[0].start, heads.stop)
            pieces.append((heads, whole, whole))
            continue
        for (start, stop), (low, high) in zip(blocks, spans, strict=True):
            pieces.append((heads, slice(start, stop), slice(n - high, n - low)))
    return tuple(pieces)


class _Windowed(torch.autograd.Function):
    """PyTorch's fused attention on pieces of queries, each with one run of keys.

    A function of its own, as autograd would make a whole gradient for every slice. Queries, keys
    and values (g, H, n, d), keys and values reversed; result (g, H, n, d).
    """

    @staticmethod
    def forward(
        ctx,  # noqa: ANN001
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        band: torch.Tensor,
        pieces: Pieces,
    ) -> torch.Tensor:
        groups, heads, n, d = q.shape
        bias = hankel_view(band, n)
        output = q.new_empty(groups, n, heads, d).transpose(1, 2)
        normalizer = torch.empty(groups, heads, n, dtype=band.dtype)
        for h, i, c in pieces:
            output[:, h, i], normalizer[:, h, i] = (
                torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                    q[:, h, i], k[:, h, c], v[:, h, c], attn_mask=bias[:, h, i, c], scale=1.0
                )
            )
        ctx.save_for_backward(q, k, v, band, output, normalizer)
        ctx.pieces = pieces
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN001
        q, k, v, band, output, normalizer = ctx.saved_tensors
        bias = hankel_view(band, q.shape[2])
        of_q, of_k, of_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for h, i, c in ctx.pieces:
            of_q[:, h, i], more_k, more_v = (
                torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                    *(gradient[:, h, i], q[:, h, i], k[:, h, c], v[:, h, c]),
                    *(output[:, h, i], normalizer[:, h, i], 0.0, False),
                    attn_mask=bias[:, h, i, c],
                    scale=1.0,
                )
            )
            of_k[:, h, c] += more_k
            of_v[:, h, c] += more_v
        return of_q, of_k, of_v, None, None
