"""Position schemes: where a query believes a key to be, for a bidirectional encoder.

Every scheme has the same signature: a `Setting` (how long the sequence is, what the model was
trained at) gives a `Geometry` (which keys a query attends to and at which relative position).
To add a scheme, write one function and one row of `POSITION_SCHEMES`. Temperatures are length
rules (`rules.py`), never part of a scheme.

r = i - j is the query's position minus the key's, in tokens. An encoder sees both sides, so every
relative map is odd: r'(j, i) = -r'(i, j). Where the published method is causal, it is mirrored
here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from longscale.attention.geometry import (
    Geometry,
    Piece,
    Setting,
    clamped_sides,
    everything,
    ntk_base,
    rotation,
    steps,
)
from longscale.attention.released_positions import RELEASED_SCHEMES
from longscale.errors import LongscaleError

if TYPE_CHECKING:  # the workflow reads the names of the schemes in every job, without torch
    import torch

SINKS = 4  # StreamingLLM's attention sinks
GLOBAL_KEYS = 10  # LM-Infinite's starting tokens
YARN_ROTATIONS = (1, 32)  # YaRN's alpha and beta
# Chosen on development documents by benchmarks/recall_constants.py (docs/mlm.md).
RECALL = {"strength": 2.0, "null": 5.0, "reach": 5}


class CannotRunError(LongscaleError):
    """A scheme has no answer at this length; the tables flag such a cell `cannot_run`."""


def rope(s: Setting) -> Geometry:
    """r' = r: rotary positions as trained (Su et al. 2021, arXiv 2104.09864)."""
    return everything(steps(s.n), rotation(s.head_dim))


def pi(s: Setting) -> Geometry:
    """r' = r / s: Position Interpolation (Chen et al. 2023, arXiv 2306.15595)."""
    return everything(steps(s.n) / s.stretch, rotation(s.head_dim))


def ntk(s: Setting) -> Geometry:
    """Base B s^(d/(d-2)), s = n_max / n_train at every length: fixed NTK-aware scaling.

    Source: bloc97 2023, "NTK-Aware Scaled RoPE"; Peng et al. 2023 (arXiv 2309.00071), section 3.1.
    """
    factor = max(1.0, s.n_max / s.n_train)
    return everything(steps(s.n), rotation(s.head_dim, ntk_base(s.head_dim, factor)))


def ntk_dynamic(s: Setting) -> Geometry:
    """Base B s^(d/(d-2)), s = n / n_train: dynamic NTK-aware scaling.

    Source: emozilla 2023, "Dynamically Scaled RoPE"; Peng et al. 2023 (arXiv 2309.00071), 3.3.
    """
    return everything(steps(s.n), rotation(s.head_dim, ntk_base(s.head_dim, s.stretch)))


def yarn(s: Setting) -> Geometry:
    """theta' = (1 - g) theta / s + g theta: NTK by parts (Peng et al. 2023, arXiv 2309.00071).

    g rises from 0 to 1 with the rotations that a dimension makes within n_train, from 1 to 32, or
    to the number that the fastest dimension makes where n_train is too short for 32 (else no
    dimension would keep its angle). YaRN's temperature is the length rule `yarn-temperature`.
    """
    theta = rotation(s.head_dim)
    rotations = s.n_train * theta / (2 * math.pi)
    low, high = YARN_ROTATIONS
    high = max(min(high, s.n_train / (2 * math.pi)), low + 1e-3)
    kept = ((rotations - low) / (high - low)).clamp(0, 1)
    return everything(steps(s.n), (1 - kept) * theta / s.stretch + kept * theta)


def alibi(s: Setting) -> Geometry:
    """No rotation; bias -m |r| on the logits (Press et al. 2022, arXiv 2108.12409), trained in.

    Symmetric, as in MosaicBERT (Portes et al. 2023, arXiv 2312.17482). A model with one head per
    layer has one slope per layer, the slopes that ALiBi gives to as many heads.
    """
    return everything(steps(s.n), None, alibi=True)


def windowed(s: Setting) -> Geometry:
    """Keys with |r| <= w, w = n_train // 2, so that about n_train keys are attended; r' = r.

    Source: Beltagy et al. 2020, Longformer (arXiv 2004.05150), section 3.1.
    """
    at, w = steps(s.n), s.n_train // 2
    return Geometry((Piece(at, at, low=-w, high=w),), rotation(s.head_dim))


def streamingllm(s: Setting) -> Geometry:
    """A window |r| <= w and four sinks at the start, seen at r' = sgn(r) min(|r|, w).

    w = n_train // 2. Up to n_train tokens nothing has left the cache: plain RoPE. Sink queries
    see no more than other queries do. Source: Xiao et al. 2024 (arXiv 2309.17453), section 3.2.
    """
    if s.n <= s.n_train:
        return rope(s)
    at, w = steps(s.n), s.n_train // 2
    window = Piece(at, at, low=-w, high=w)
    return Geometry((window, *clamped_sides(s.n, w, w, SINKS)), rotation(s.head_dim))


def lm_infinite(s: Setting) -> Geometry:
    """A window |r| < n_train and ten global keys, at r' = sgn(r) min(|r|, n_train - 1).

    Plain RoPE up to n_train. Source: Han et al. 2024, LM-Infinite (arXiv 2308.16137), section 4.
    """
    at, w = steps(s.n), s.n_train - 1
    window = Piece(at, at, low=-w, high=w)
    return Geometry((window, *clamped_sides(s.n, w, w, GLOBAL_KEYS)), rotation(s.head_dim))


def windowed_recall(s: Setting) -> Geometry:
    """`windowed`, and at the output what stood elsewhere between the same neighbours.

    Ours (docs/mlm.md): the window keeps attention as it was trained, `recall.py` brings back what
    the rest of the sequence still tells.
    """
    from longscale.attention.recall import Recall

    return replace(windowed(s), recall=Recall(**RECALL))


def rerope(s: Setting) -> Geometry:
    """r' = r for |r| < w, else sgn(r) w; w = n_train // 2; every key is attended.

    Source: Su 2023, "ReRoPE" (kexue.fm/archives/9708; bojone/rerope). Its ln n scaling is the
    length rule `logn`.
    """
    at, w = steps(s.n), s.n_train // 2
    near = Piece(at, at, low=1 - w, high=w - 1)
    return Geometry((near, *clamped_sides(s.n, w - 1, w)), rotation(s.head_dim))


def leaky_rerope(s: Setting) -> Geometry:
    """r' = r for |r| < w, else sgn(r) (w + (|r| - w) / k); w = n_train // 2.

    k is the smallest number, 1 or more, for which |r'| stays below n_train: plain RoPE up to
    n_train. Source: Su 2023, "Leaky ReRoPE" (kexue.fm/archives/9708).
    """
    at, w = steps(s.n), s.n_train // 2
    k = max(1.0, (s.n - 1 - w) / (s.n_train - 1 - w))
    shift = w - w / k
    near = Piece(at, at, low=1 - w, high=w - 1)
    left = Piece(at / k + shift, at / k, low=w)
    right = Piece(at / k - shift, at / k, high=-w)
    return Geometry((near, left, right), rotation(s.head_dim))


def self_extend(s: Setting) -> Geometry:
    """r' = r for |r| < w, else floor(i/G) - floor(j/G) + sgn(r) (w - floor(w/G)); w = n_train // 2.

    G is the smallest group for which |r'| stays below n_train: plain RoPE up to n_train.
    Source: Jin et al. 2024, Self-Extend (arXiv 2401.01325), eq. 4.
    """
    at, w = steps(s.n), s.n_train // 2
    group = next(g for g in range(1, s.n + 1) if (s.n - 1) // g + w - w // g < s.n_train)
    grouped, shift = (at / group).floor(), w - w // group
    near = Piece(at, at, low=1 - w, high=w - 1)
    left = Piece(grouped + shift, grouped, low=w)
    right = Piece(grouped - shift, grouped, high=-w)
    return Geometry((near, left, right), rotation(s.head_dim))


def pose(s: Setting) -> Geometry:
    """r' = r / s, s = n_max / n_train at every length; trained on positions with a skip.

    Source: Zhu et al. 2024, PoSE (arXiv 2309.10400), with linear interpolation. Raises
    `CannotRunError` beyond n_max.
    """
    _check_longest(s, "pose")
    return everything(steps(s.n) * min(1.0, s.n_train / s.n_max), rotation(s.head_dim))


def randpos(s: Setting) -> Geometry:
    """n of the n_max positions in order, the same ones for every sequence of n tokens.

    Source: Ruoss et al. 2023, randomized positional encodings (arXiv 2305.16843). Raises
    `CannotRunError` beyond n_max.
    """
    import torch

    _check_longest(s, "randpos")
    draw = torch.Generator().manual_seed(s.n)
    return everything(_sorted_subset(s.n, s.n_max, draw), rotation(s.head_dim))


def pose_training(s: Setting, rows: int, generator: torch.Generator) -> torch.Tensor:
    """PoSE's training positions (rows, n): two chunks of the sequence with a skip between them.

    The chunks' border is uniform in 1 ... n - 1, the skip in 0 ... n_max - n (section 3.2).
    """
    import torch

    border = torch.randint(1, max(2, s.n), (rows, 1), generator=generator)
    skip = torch.randint(0, max(0, s.n_max - s.n) + 1, (rows, 1), generator=generator)
    at = torch.arange(s.n)
    positions = at + skip * (at >= border)
    return positions.double() * min(1.0, s.n_train / s.n_max)


def randpos_training(s: Setting, rows: int, generator: torch.Generator) -> torch.Tensor:
    """RandPos' training positions (rows, n): a sorted subset of n_max positions per sequence."""
    import torch

    return torch.stack([_sorted_subset(s.n, s.n_max, generator) for _ in range(rows)])


def _sorted_subset(n: int, of: int, generator: torch.Generator) -> torch.Tensor:
    import torch

    return torch.randperm(of, generator=generator)[:n].sort().values.double()


def _check_longest(s: Setting, name: str) -> None:
    if s.n > s.n_max:
        raise CannotRunError(
            f"{name}: trained for up to {s.n_max} tokens, so it cannot run at {s.n}."
        )


@dataclass(frozen=True)
class PositionScheme:
    """A row of `POSITION_SCHEMES`.

    `trained`: the scheme must be trained in; others are put on a model trained with `rope`.
    `training`: positions (rows, n) of a training batch, where they are drawn.
    `released`: a defect of the released code, for comparison only. `ours`: proposed here.
    """

    geometry: Callable[[Setting], Geometry]
    trained: bool = False
    training: Callable[[Setting, int, torch.Generator], torch.Tensor] | None = None
    released: bool = False
    ours: bool = False


POSITION_SCHEMES: dict[str, PositionScheme] = {
    "rope": PositionScheme(rope),
    "pi": PositionScheme(pi),
    "ntk": PositionScheme(ntk),
    "ntk-dynamic": PositionScheme(ntk_dynamic),
    "yarn": PositionScheme(yarn),
    "alibi": PositionScheme(alibi, trained=True),
    "windowed": PositionScheme(windowed),
    "windowed-recall": PositionScheme(windowed_recall, ours=True),
    "streamingllm": PositionScheme(streamingllm),
    "lm-infinite": PositionScheme(lm_infinite),
    "rerope": PositionScheme(rerope),
    "leaky-rerope": PositionScheme(leaky_rerope),
    "self-extend": PositionScheme(self_extend),
    "pose": PositionScheme(pose, trained=True, training=pose_training),
    "randpos": PositionScheme(randpos, trained=True, training=randpos_training),
    **{name: PositionScheme(row, released=True) for name, row in RELEASED_SCHEMES.items()},
}


def position_scheme(name: str) -> PositionScheme:
    """The row of that name; `LongscaleError` naming the known ones if there is none."""
    if name not in POSITION_SCHEMES:
        known = [known for known, row in POSITION_SCHEMES.items() if not row.released]
        raise LongscaleError(
            f"scheme: {name!r} is not a position scheme; the known ones are {', '.join(known)}"
            " (and those of the released code, whose names end in -released)"
        )
    return POSITION_SCHEMES[name]
