"""What is inside the softmax: the dot product or a scaled cosine, and its name.

| name | logits of a query q and a key k |
| --- | --- |
| `dot` | q.k / sqrt(d) |
| `cos<alpha>`, e.g. `cos16` | alpha q.k / (|q| |k|), alpha fixed |
| `cos-matched` | the same with one learned alpha per head |
| `cos<alpha>-released` | the released code's defect, see `released.py` |
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from longscale.errors import LongscaleError

if TYPE_CHECKING:  # the workflow checks names of attentions in every job, without torch
    import torch

# One spelling per alpha (no cos016, no cos16.0), because the name is part of a result's path.
_COSINE = re.compile(r"cos(?P<alpha>(?:0|[1-9]\d*)(?:\.\d*[1-9])?)(?P<released>-released)?")

# Norms below this are held at it, so that a zero vector has a zero cosine and finite gradients.
_SMALLEST_NORM = 1e-6


@dataclass(frozen=True)
class Attention:
    """A parsed attention name; `alpha` is None for `dot` and where it is learned."""

    name: str
    cosine: bool
    alpha: float | None = None
    released: bool = False

    @property
    def learned(self) -> bool:
        """Whether alpha is a parameter per head (`cos-matched`)."""
        return self.cosine and self.alpha is None


DOT = Attention("dot", cosine=False)


def parse_attention(name: str) -> Attention:
    """The `Attention` that `name` stands for; `LongscaleError` if it is none of the table above."""
    if name == "dot":
        return DOT
    if name == "cos-matched":
        return Attention(name, cosine=True)
    match = _COSINE.fullmatch(name)
    if match is None or float(match["alpha"]) == 0:
        raise LongscaleError(
            f"attention: {name!r} is not known; use dot, cos<alpha> with a positive number in "
            "plain decimals (cos16), cos-matched, or cos<alpha>-released"
        )
    released = match["released"] is not None
    return Attention(name, cosine=True, alpha=float(match["alpha"]), released=released)


def unit_vectors(x: torch.Tensor) -> torch.Tensor:
    """`x` (..., d) over its L2 norm along d, in float32 at least; a zero vector stays zero.

    Source: Henry et al. 2020, QKNorm (arXiv 2010.04245); CosScale (arXiv 2501.08570).
    """
    x = x.float() if x.dtype.itemsize < 4 else x
    return x / x.norm(dim=-1, keepdim=True).clamp_min(_SMALLEST_NORM)
