"""Attention entropy, and the multipliers that restore it: the rule `entropy-matched`.

The entropy of a query's attention, in nats, is -sum_j a_j ln a_j over its keys. For each layer and
head, the mean over queries at the training length is the target; at another length the multiplier
beta is the one for which softmax(beta * logits + bias) has the same mean: bias and mask are in
place and never multiplied. Layers are solved in order, each on what the layers below it give once
theirs is set.

Shapes at the ends of lines: B sequences, R sampled queries, n keys, H heads, T packed tokens.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import brentq

from longscale.attention.chunked import logit_blocks, rotated_pieces
from longscale.attention.geometry import covers
from longscale.attention.kernel import Packing, pack
from longscale.errors import LongscaleError
from longscale.models.batches import token_batches
from longscale.models.dnabert2 import DNABERT2PreTrainedModel
from longscale.models.gau_alpha import GAUAlphaForMaskedLM, GAULayer, Surroundings
from longscale.models.tokenizer import EncodedWindows

LOWEST, HIGHEST = 0.5, 4.0  # where a multiplier is looked for
GRID = 25  # values between them, 1 among them, at which the entropy is computed first
QUERIES = 64  # sampled queries of each sequence
BATCH_TOKENS = 8192
_NEGLIGIBLE = -1e4  # a logit so far below the largest has no weight, and is finite


@dataclass(frozen=True)
class Logits:
    """Logits of sampled queries of one head, and what is added to them after the multiplier.

    `logits` (..., n), finite. `bias`, broadcast against it: -inf where a key is not attended; None:
    nothing is added.
    """

    logits: torch.Tensor
    bias: torch.Tensor | None = None

    def entropy(self, beta: float) -> float:
        """Mean entropy in nats under the multiplier `beta`."""
        a = self.logits * beta
        if self.bias is not None:
            a += self.bias
        a -= a.amax(-1, keepdim=True)
        a.clamp_min_(_NEGLIGIBLE)
        weights = a.exp()
        total = weights.sum(-1)
        entropies = total.log() - torch.linalg.vecdot(weights, a) / total
        return float(entropies.double().mean())


@dataclass(frozen=True)
class Match:
    """A solved multiplier and the mean entropy that it gives, in nats.

    `matched` is False where no multiplier in [0.5, 4] restores the entropy; then `beta` is the one
    on the grid that comes nearest.
    """

    beta: float
    entropy: float
    matched: bool


def match_entropy(entropy: Callable[[float], float], target: float) -> Match:
    """The root of entropy(beta) = target in [0.5, 4] that is nearest 1.

    With a bias, the entropy need not fall with beta, so there may be several roots: the grid is
    walked from 1 outwards, as far as a root could still be nearer than the one found. Raises
    `LongscaleError` if an entropy is not a finite number.
    """

    @functools.cache
    def excess(beta: float) -> float:
        value = entropy(beta) - target
        if not math.isfinite(value):
            raise LongscaleError(
                f"the attention entropy at multiplier {beta:g} or its target is not a finite "
                "number; the checkpoint's weights must be intact"
            )
        return value

    best = math.inf
    for near, far in _steps_from_one():
        if abs(best - 1) <= abs(near - 1):
            break
        if excess(near) == 0:
            best = near
        elif excess(near) * excess(far) <= 0:
            root = brentq(excess, *sorted((near, far)), xtol=1e-4)
            best = min(best, root, key=lambda beta: abs(beta - 1))
    matched = math.isfinite(best)
    if not matched:
        best = min(_grid(), key=lambda beta: abs(excess(beta)))
    return Match(best, entropy(best), matched)


@functools.cache
def _grid() -> tuple[float, ...]:
    grid = np.geomspace(LOWEST, HIGHEST, GRID)
    grid[np.abs(grid - 1).argmin()] = 1.0  # where it would be but for rounding
    return tuple(grid.tolist())


@functools.cache
def _steps_from_one() -> tuple[tuple[float, float], ...]:
    """The steps of the grid as (end nearer to 1, other end), the nearest steps first."""
    grid = _grid()
    steps = [sorted(ends, key=lambda end: abs(end - 1)) for ends in itertools.pairwise(grid)]
    return tuple((near, far) for near, far in sorted(steps, key=lambda ends: abs(ends[0] - 1)))


Layers = Iterator[Iterator[Logits]]  # layer by layer, the logits of each head
Multipliers = list[torch.Tensor]  # of each layer, (H,)


def _match_layers(
    layers: Layers, multipliers: Multipliers, targets: Sequence[Sequence[float]]
) -> list[list[Match]]:
    """Solve the heads of each layer and set `multipliers[layer]` before the next one is computed.

    `targets`: entropies in nats, of each layer and head.
    """
    matches = []
    for layer, heads in enumerate(layers):
        pairs = zip(heads, targets[layer], strict=True)
        matches.append([match_entropy(logits.entropy, target) for logits, target in pairs])
        betas = [match.beta for match in matches[-1]]
        multipliers[layer] = torch.tensor(betas, device=multipliers[layer].device)
    return matches


def _sampled_rows(n: int, device: torch.device) -> torch.Tensor:
    """Up to 64 positions, evenly spaced from the first to the last, ascending."""
    rows = torch.linspace(0, n - 1, min(n, QUERIES), device=device, dtype=torch.float64)
    return rows.round().long()


# --------------------------------------------------------------------------------- GAU-alpha


def match_gau(
    model: GAUAlphaForMaskedLM, ids: torch.Tensor, target: Sequence[float]
) -> list[Match]:
    """The multiplier of each layer that restores the entropies `target` on `ids` (B, n).

    The model's scheme is in place; its rule must be `none`. GAU-alpha has one head per layer.
    """
    multipliers = _ones(model, 1)
    layers = gau_layers(model, ids, multipliers)
    matches = _match_layers(layers, multipliers, [[value] for value in target])
    return [heads[0] for heads in matches]


def gau_entropies(model: GAUAlphaForMaskedLM, ids: torch.Tensor) -> list[float]:
    """Mean attention entropy of each layer on `ids` (B, n) under the model's rule and scheme, in
    nats.
    """
    layers = gau_layers(model, ids, _ones(model, 1))
    return [logits.entropy(1.0) for heads in layers for logits in heads]


@torch.no_grad()
def gau_layers(model: GAUAlphaForMaskedLM, ids: torch.Tensor, multipliers: Multipliers) -> Layers:
    """Logits of each layer in turn for sequences `ids` (B, n), without padding.

    When a layer was yielded, the caller may set `multipliers[layer]`, which comes on top of the
    model's own rule; the layers above see the result. Raises `LongscaleError` for a model whose
    attention is no softmax.
    """
    base = model.base_model
    if model.config.normalization == "squared_relu":
        raise LongscaleError(
            "normalization: squared_relu has no softmax whose entropy could be measured; the rule "
            "entropy-matched needs softmax or softmax_plus."
        )
    ids = ids.to(model.device)
    around = base.surroundings(ids.shape[1])
    own = torch.ones(len(multipliers), device=ids.device)
    own = own if around.measured is None else around.measured.flatten()
    rows = _sampled_rows(ids.shape[1], ids.device)
    x = base.embeddings(ids)
    for index, layer in enumerate(base.encoder.layer):
        around.measured = own
        q, k = gau_queries_keys(layer, x, around)
        yield iter([position_logits(q, k, around, layer.gau.bias_slope(around), rows)])
        if index + 1 < len(multipliers):
            around.measured = own * torch.cat(multipliers)
            x = layer(x, around)


def gau_queries_keys(
    layer: GAULayer, x: torch.Tensor, around: Surroundings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and keys (B, n, d) before rotation, every factor on the logits in the queries."""
    gau, size = layer.gau, layer.gau.sizes[-1]
    bias = None if gau.i_dense.bias is None else gau.i_dense.bias[-size:]
    # z alone of u, v, z: the gates are ten times as wide, and would be computed twice.
    z = F.silu(F.linear(x, gau.i_dense.weight[-size:], bias))
    q, k = gau.queries_keys(z)
    return q * around.multiplier(gau.layer), k


def position_logits(
    q: torch.Tensor,
    k: torch.Tensor,
    around: Surroundings,
    slope: torch.Tensor | None,
    rows: torch.Tensor,
) -> Logits:
    """Logits (B, R, n) of the query rows under a position scheme, what is added to them apart.

    ALiBi's `slope` is bias, and so is the mask; only a released scheme whose bias the rule
    multiplies has it in the logits.
    """
    geometry, n = around.geometry, k.shape[1]
    logits = q.new_zeros(len(q), len(rows), n)
    bias = q.new_full((len(rows), n), -math.inf)
    r = rows[:, None] - torch.arange(n, device=q.device)
    for piece in rotated_pieces(q, k, geometry, around.turns):
        inside = covers(piece[0], r, rows[:, None], torch.arange(n, device=q.device))
        for block, keys in logit_blocks([piece], rows):
            part = logits[:, :, keys]
            logits[:, :, keys] = torch.where(inside[:, keys], block, part)
        bias = bias.masked_fill(inside, 0.0)
    if slope is not None:
        alibi = -slope[:, rows] * r.abs()  # 1 R n
        if geometry.scaled_bias:
            logits = logits + alibi
        else:
            bias = bias + alibi[0]
    return Logits(logits, bias if bias.any() else None)


# --------------------------------------------------------------------------------- DNABERT-2


def match_dnabert2(
    model: DNABERT2PreTrainedModel, at_training: EncodedWindows, at_length: EncodedWindows
) -> list[list[Match]]:
    """The multiplier of each layer and head that restores on the windows `at_length` the entropies
    that the windows `at_training` have.

    The model's rule must be `none`.
    """
    return restore_dnabert2(model, at_length, dnabert2_entropies(model, at_training))


def restore_dnabert2(
    model: DNABERT2PreTrainedModel, windows: EncodedWindows, targets: Sequence[Sequence[float]]
) -> list[list[Match]]:
    """The multiplier of each layer and head that gives `windows` the entropies `targets`."""
    multipliers = _ones(model, model.config.num_attention_heads)
    return _match_layers(dnabert2_layers(model, windows, multipliers), multipliers, targets)


def dnabert2_entropies(
    model: DNABERT2PreTrainedModel, windows: EncodedWindows
) -> list[list[float]]:
    """Mean attention entropy of each layer and head under the model's rule, in nats."""
    layers = dnabert2_layers(model, windows, _ones(model, model.config.num_attention_heads))
    return [[logits.entropy(1.0) for logits in heads] for heads in layers]


@dataclass
class _Batch:
    """Windows on their way through the layers: hidden states (T, D) and what all layers share."""

    packing: Packing
    x: torch.Tensor
    betas: list[torch.Tensor]
    band: torch.Tensor


@torch.no_grad()
def dnabert2_layers(
    model: DNABERT2PreTrainedModel,
    windows: EncodedWindows,
    multipliers: Multipliers,
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> Layers:
    """Logits of each layer in turn, head by head; a head must be used before the next is asked for.

    When a layer was yielded, the caller may set `multipliers[layer]`, which comes on top of the
    model's own rule; the layers above see the result. All windows pass a layer before the next, in
    batches of at most `batch_tokens`. The model must be in evaluation mode.
    """
    base = model.base_model
    batches = []
    for rows in token_batches(windows.lengths, batch_tokens):
        ids, mask = (torch.from_numpy(array).to(model.device) for array in windows.pad(rows))
        packing = pack(mask)
        x = base.embeddings(ids.flatten()[packing.tokens], None)
        batches.append(_Batch(packing, x, *base.length_scaling(packing)))
    for index, layer in enumerate(base.encoder.layer):
        attention = layer.attention.self
        heads = [
            attention.queries_keys_values(batch.x, batch.packing, batch.betas[index])[:2]
            for batch in batches
        ]
        yield (_head_logits(batches, heads, head) for head in range(attention.heads))
        if index + 1 < len(multipliers):
            for batch in batches:
                beta = batch.betas[index] * multipliers[index][:, None]
                batch.x = layer(batch.x, batch.packing, beta, batch.band)


def _head_logits(
    batches: Sequence[_Batch], queries_keys: Sequence[tuple[torch.Tensor, torch.Tensor]], head: int
) -> Logits:
    """Sampled queries of all sequences one below the other: (sampled queries, longest)."""
    longest = max(batch.packing.longest for batch in batches)
    logits, biases = [], []
    for batch, (q, k) in zip(batches, queries_keys, strict=True):
        sizes = batch.packing.lengths.long().tolist()
        sequences = zip(q[:, head].split(sizes), k[:, head].split(sizes), strict=True)
        for number, (of_q, of_k) in enumerate(sequences):
            band = batch.band[number if len(batch.band) > 1 else 0, head]
            rows = _sampled_rows(len(of_k), q.device)
            r = rows[:, None] - torch.arange(len(of_k), device=q.device)
            padding = (0, longest - len(of_k))
            logits.append(F.pad(of_q[rows] @ of_k.T, padding))
            bias = band[r + len(band) // 2]
            biases.append(F.pad(bias, padding, value=-math.inf))
    return Logits(torch.cat(logits).float(), torch.cat(biases))


def _ones(model: GAUAlphaForMaskedLM | DNABERT2PreTrainedModel, heads: int) -> Multipliers:
    return [torch.ones(heads, device=model.device) for _ in model.base_model.encoder.layer]
