"""What the released DNABERT-2 code does wrong, kept for parity checks and the `released` protocol.

Source: HT-NEKO/Information-Entropy-Invariance at commit 66d4543, my_bert_layers.py (PyTorch path).
Nothing in a main table uses this module. Its three defects:

* `cos<alpha>-released`: keys are normalised along the sequence, each feature on its own, because
  they were transposed before the norm was taken: not a cosine.
* `infoscale-released`: d is heads * head_dim, n_train is always 512, and sequences below n_train
  are flattened (beta < 1).
* The same rule multiplies the ALiBi bias together with the logits.

The rules `infoscale-released-d`, `-ntrain` and `-bias` have one of the defects of the rule each.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# How names of attentions and rules of the released code end.
RELEASED_CHOICE = re.compile(r"-released(?:-[a-z]+)?$")
RELEASED_N_TRAIN = 512
RELEASED_EPSILON = 1e-9


def infoscale_released(n: torch.Tensor, n_train: float, head_dim: int) -> torch.Tensor:
    """sqrt((1 - n^(-2/D)) / (1 - 512^(-2/D))), below n_train too (my_bert_layers.py:193-204).

    `n_train` is not used: 512 is written into the released code. For `infoscale-released` the
    caller hands D = heads * head_dim in the place of `head_dim`.
    """
    del n_train
    exponent = -2 / head_dim
    return ((1 - n**exponent) / (1 - RELEASED_N_TRAIN**exponent)).sqrt()


def released_queries(queries: torch.Tensor) -> torch.Tensor:
    """Queries (T, H, d) over their norm along the head dimension plus 1e-9."""
    return queries / (queries.norm(dim=-1, keepdim=True) + RELEASED_EPSILON)


def released_keys(keys: torch.Tensor, sequence: torch.Tensor, sequences: int) -> torch.Tensor:
    """Keys (T, H, d), each feature over its norm along its sequence (my_bert_layers.py:169-178).

    `sequence` (T,) numbers the sequence of each packed token from 0 to `sequences` - 1.
    """
    squares = keys.new_zeros(sequences, *keys.shape[1:]).index_add(0, sequence, keys.square())
    return keys / (squares.sqrt() + RELEASED_EPSILON)[sequence]


def released_token_limit(window_bp: int) -> int:
    """Tokens after which the released scripts cut a window on its right.

    The largest power of two up to window_bp / 3.9: 256, 512, 1024 and 2048 tokens for windows of
    1000, 2000, 6000 and 10000 bp, as their `model_max_length` has it. About 5.1 bp make a token,
    so the two longest windows do lose sequence.
    """
    return 1 << int(window_bp / 3.9).bit_length() - 1
