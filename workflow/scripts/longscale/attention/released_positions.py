"""The released GAU-alpha code's position schemes, for parity checks and comparison only.

Source: HT-NEKO/Information-Entropy-Invariance at commit 66d4543, model/my_gau_alpha_eval. Their
defects, against the schemes of `positions.py`:

* PI multiplies positions by n / n_train instead of dividing.
* YaRN ramps in dimensions, not in rotations, and its temperature multiplies the logits twice.
* ALiBi's bias is added before the division by sqrt(d), and the length rule multiplies it.
* StreamingLLM keeps |r| < n_train, sees sinks at their true distance, and lets the first four
  queries see everything.
* ReRoPE gives far keys on the right the position of those on the left, and rotates far queries
  into another order of features than the keys.
* LM-Infinite and windowed attention never run: both are plain RoPE.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from longscale.attention.geometry import (
    BASE,
    Geometry,
    Piece,
    Setting,
    constant,
    everything,
    rotation,
    steps,
)

RELEASED_SINKS = 4
RELEASED_REROPE_WINDOW = 64


def pi_released(s: Setting) -> Geometry:
    """r' = r n / n_train (modeling_gau_alpha.py:201)."""
    return everything(steps(s.n) * (s.n / s.n_train), rotation(s.head_dim))


def yarn_released(s: Setting) -> Geometry:
    """YaRN of its authors' code with (0.1 ln s + 1)^2 on the logits (modeling_gau_alpha.py:204)."""
    stretch, half = s.n / s.n_train, s.head_dim // 2

    def dimension(rotations: float) -> float:
        ratio = s.n_train / (rotations * 2 * math.pi)
        return s.head_dim * math.log(ratio) / (2 * math.log(BASE))

    low = max(math.floor(dimension(32)), 0)
    high = min(math.ceil(dimension(1)), s.head_dim - 1)
    ramp = ((steps(half) - low) / ((high - low) or 0.001)).clamp(0, 1)
    theta = rotation(s.head_dim)
    scale = (0.1 * math.log(stretch) + 1) ** 2 if stretch > 1 else 1.0
    theta = theta / stretch * ramp + theta * (1 - ramp)
    return replace(everything(steps(s.n), theta), scale=scale)


def alibi_released(s: Setting) -> Geometry:
    """One slope of 2^-8, divided by sqrt(d) and multiplied by the rule (layer.py:265, 299, 323)."""
    geometry = everything(steps(s.n), None, alibi=True, scaled_bias=True)
    return replace(geometry, slope=2**-8 / math.sqrt(s.head_dim))


def streamingllm_released(s: Setting) -> Geometry:
    """|r| < n_train, four sink keys and four sink queries, true distances (layer.py:144)."""
    at, w = steps(s.n), s.n_train - 1
    window = Piece(at, at, low=-w, high=w)
    sinks = Piece(at, at, low=w + 1, first_keys=RELEASED_SINKS)
    top = Piece(at, at, high=-w - 1, first_queries=RELEASED_SINKS)
    return Geometry((window, sinks, top), rotation(s.head_dim), count_all=True)


def rerope_released(s: Setting, window: int = RELEASED_REROPE_WINDOW) -> Geometry:
    """|r| >= w: relative position w - 1 on both sides, features unpaired (layer.py:193, 233)."""
    at, far, zero = steps(s.n), constant(window - 1, s.n), constant(0, s.n)
    near = Piece(at, at, low=1 - window, high=window - 1)
    left = Piece(far, zero, low=window, unpaired_keys=True)
    right = Piece(far, zero, high=-window, unpaired_keys=True)
    return Geometry((near, left, right), rotation(s.head_dim))


def plain_released(s: Setting) -> Geometry:
    """r' = r, under names of schemes that never run (layer.py:272, 293)."""
    return everything(steps(s.n), rotation(s.head_dim))


RELEASED_SCHEMES: dict[str, Callable[[Setting], Geometry]] = {
    "pi-released": pi_released,
    "yarn-released": yarn_released,
    "alibi-released": alibi_released,
    "streamingllm-released": streamingllm_released,
    "rerope-released": rerope_released,
    "lm-infinite-released": plain_released,
    "windowed-released": plain_released,
}
