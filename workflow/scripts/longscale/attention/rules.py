"""Length rules: one multiplier beta(n) on the attention logits of a sequence of n real tokens.

Every rule has the same signature: `n` (a float64 tensor of any shape, already raised to at least
`n_train`, so that beta is exactly 1 there and below), `n_train` (tokens the checkpoint was trained
at) and `head_dim` (d of the equation). To add a rule, write one function and one row of
`LENGTH_RULES`. Rules multiply logits alone, never the ALiBi bias or the mask; only the released
defect (`released.py`) is an exception.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from longscale.attention.released import infoscale_released
from longscale.errors import LongscaleError

if TYPE_CHECKING:  # the workflow reads the names of the rules in every job, without torch
    import torch


def none(n: torch.Tensor, n_train: float, head_dim: int) -> torch.Tensor:
    """beta(n) = 1: softmax attention as published (Vaswani et al. 2017, arXiv 1706.03762)."""
    del n_train, head_dim
    return n * 0 + 1


def infoscale(n: torch.Tensor, n_train: float, head_dim: int) -> torch.Tensor:
    """InfoScale: sqrt(1 - n^(-2/d)) / sqrt(1 - n_train^(-2/d)).

    Source: Li et al. 2025, "Information Entropy Invariance" (arXiv 2501.08570), the formula of the
    released code. The root is the largest cosine to expect among n random directions in d
    dimensions. Between 1 (d -> 0) and `sqrtlogn` (d -> infinity).
    """
    exponent = -2 / head_dim
    return ((1 - n**exponent) / (1 - n_train**exponent)).sqrt()


def logn(n: torch.Tensor, n_train: float, head_dim: int) -> torch.Tensor:
    """ln n / ln n_train.

    Sources: Su 2021 (kexue.fm/archives/8823); Chiang and Cholak 2022 (arXiv 2202.12172), eq. 1.
    """
    del head_dim
    return n.log() / math.log(n_train)


def sqrtlogn(n: torch.Tensor, n_train: float, head_dim: int) -> torch.Tensor:
    """sqrt(ln n / ln n_train) (Jin et al. 2023, arXiv 2306.08645)."""
    return logn(n, n_train, head_dim).sqrt()


def yarn_temperature(n: torch.Tensor, n_train: float, head_dim: int) -> torch.Tensor:
    """(0.1 ln(n / n_train) + 1)^2: YaRN's temperature alone, without its positions.

    Source: Peng et al. 2023, YaRN (arXiv 2309.00071): 0.1 ln s + 1 on queries and keys alike.
    """
    del head_dim
    return (0.1 * (n / n_train).log() + 1).square()


def entropy_matched(n: torch.Tensor, n_train: float, head_dim: int) -> torch.Tensor:
    """Never called: the multiplier is measured, per head and length (`evaluation.entropy`).

    It is the one that gives each head the attention entropy at n that it has at n_train, on
    unlabelled data that is held out, with bias and mask in place.
    """
    del n, n_train, head_dim
    raise LongscaleError("rule: 'entropy-matched' is measured, it has no formula.")


def critscale(n: torch.Tensor, n_train: float, head_dim: int) -> torch.Tensor:
    """CritScale: n^(2/d) sqrt(1 - n^(-2/d)) over the same at n_train.

    d times that quantity is the scale of cosine logits at which the entropy of attention over n
    random directions in d dimensions reaches zero; InfoScale keeps its root and drops n^(2/d).
    """
    return (n / n_train) ** (2 / head_dim) * infoscale(n, n_train, head_dim)


@dataclass(frozen=True)
class LengthRule:
    """A row of `LENGTH_RULES`.

    `measured`: the multipliers come from a measurement on the checkpoint, one per head and length,
    not from the formula. Two defects of the released code: `whole_width`, d is heads * head_dim;
    `scales_bias`, the bias is multiplied too.
    """

    multiplier: Callable[[torch.Tensor, float, int], torch.Tensor]
    needs_n_train: bool = True
    measured: bool = False
    whole_width: bool = False
    scales_bias: bool = False

    @property
    def released(self) -> bool:
        """Whether the rule is the released code's, or has one of its defects."""
        return self.whole_width or self.scales_bias or self.multiplier is infoscale_released


LENGTH_RULES: dict[str, LengthRule] = {
    "none": LengthRule(none, needs_n_train=False),
    "infoscale": LengthRule(infoscale),
    "logn": LengthRule(logn),
    "sqrtlogn": LengthRule(sqrtlogn),
    "yarn-temperature": LengthRule(yarn_temperature),
    "critscale": LengthRule(critscale),
    "entropy-matched": LengthRule(entropy_matched, measured=True),
    # The released code's, and its three defects one at a time.
    "infoscale-released": LengthRule(
        infoscale_released, needs_n_train=False, whole_width=True, scales_bias=True
    ),
    "infoscale-released-d": LengthRule(infoscale, whole_width=True),
    "infoscale-released-ntrain": LengthRule(infoscale_released, needs_n_train=False),
    "infoscale-released-bias": LengthRule(infoscale, scales_bias=True),
}


def length_rule(name: str) -> LengthRule:
    """The row of `LENGTH_RULES` with that name; `LongscaleError` naming the known ones if none."""
    if name not in LENGTH_RULES:
        raise LongscaleError(
            f"rule: {name!r} is not a length rule; the known ones are {', '.join(LENGTH_RULES)}"
        )
    return LENGTH_RULES[name]


def length_multiplier(
    rule: str, n: torch.Tensor | float, n_train: float | None, head_dim: int
) -> torch.Tensor:
    """beta(n) as a float64 tensor of the shape of `n` (0-d for a number).

    `n`: real tokens of a sequence, special tokens counted; `n_train`: the same at training, None
    only for rules that do not need it. For a rule of `whole_width` the caller hands heads *
    head_dim as `head_dim`. Raises `LongscaleError` for an unknown rule and for n_train below 2.
    """
    import torch

    row = length_rule(rule)
    n = torch.as_tensor(n, dtype=torch.float64)
    if not row.needs_n_train:
        return row.multiplier(n, 0, head_dim)
    check_n_train(rule, n_train)
    return row.multiplier(n.clamp(min=n_train), n_train, head_dim)


def check_n_train(rule: str, n_train: float | None) -> None:
    """`LongscaleError` where `rule` needs a training length and `n_train` is not one."""
    if length_rule(rule).needs_n_train and (n_train is None or n_train < 2):
        raise LongscaleError(
            f"n_train: rule {rule!r} needs the number of tokens the checkpoint was trained at, "
            f"2 or more, not {n_train}; write n_train into the checkpoint's config.json."
        )


def check_measured(rule: str, measured: object | None) -> None:
    """`LongscaleError` unless measured multipliers are given exactly where `rule` asks for them."""
    if length_rule(rule).measured and measured is None:
        raise LongscaleError(
            f"rule: {rule!r} has no formula; give the multipliers measured on the checkpoint."
        )
    if not length_rule(rule).measured and measured is not None:
        raise LongscaleError(f"rule: {rule!r} has a formula; it takes no measured multipliers.")
