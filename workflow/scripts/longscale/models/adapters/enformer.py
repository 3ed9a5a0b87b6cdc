"""Enformer (Avsec et al. 2021) through enformer-pytorch, an optional extra, as a frozen encoder.

Its inputs are 196,608 bp; its states stand for 128 bp each and cover the middle 114,688. Under
transformers 5 its `from_pretrained` does not work, so the weights are read here.
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from longscale.errors import LongscaleError
from longscale.models.token_spans import TokenSpans

BASES = b"ACGT"
BIN_BP = 128
INPUT_BP, TARGET_BINS = 196_608, 896
UNKNOWN = 4  # N, and what lies outside the window: 0.25 of each base


class EnformerEncoder:
    """A token is a bin of 128 bp. Windows that are shorter than the input stand in its middle."""

    bp_per_token = float(BIN_BP)
    pad_id = UNKNOWN
    mask_id = None
    trained_tokens = INPUT_BP // BIN_BP

    def __init__(self, model: torch.nn.Module, width: int) -> None:
        self.model, self.width = model, width

    def tokenise(self, windows: np.ndarray) -> TokenSpans:
        """Codes of the bases (A, C, G, T, anything else), one per base."""
        codes = np.full(256, UNKNOWN, np.int64)
        codes[np.frombuffer(BASES, np.uint8)] = np.arange(len(BASES))
        count, width = windows.shape
        if width > TARGET_BINS * BIN_BP:
            raise LongscaleError(
                f"context_bp: {width:,} bp are more than the {TARGET_BINS * BIN_BP:,} that "
                "Enformer has states for"
            )
        offsets = np.arange(count + 1, dtype=np.int64) * width
        starts = np.tile(np.arange(width, dtype=np.int32), count)
        return TokenSpans(codes[windows].ravel(), offsets, starts, starts + 1, width)

    def hidden(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The state of each base's bin, (B, L, D)."""
        del mask  # all windows of a batch are of one length
        around = INPUT_BP - ids.shape[1]
        padded = torch.nn.functional.pad(ids, (around // 2, around - around // 2), value=UNKNOWN)
        _, states = self.model(padded, return_embeddings=True)
        bins = torch.arange(ids.shape[1], device=ids.device) + around // 2
        first = (INPUT_BP - TARGET_BINS * BIN_BP) // 2
        return states[:, (bins - first) // BIN_BP]

    def logits(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """It has none."""
        del ids, mask
        raise LongscaleError("Enformer has no masked-LM head")

    def set_rule(self, rule: str, measured: torch.Tensor | None = None) -> None:
        """Nothing but `none`: its positions and its length are built in."""
        del measured
        if rule != "none":
            raise LongscaleError(f"rule: {rule!r} cannot be put on Enformer")

    def extend(self, stretch: float) -> None:
        """Nothing."""
        raise LongscaleError(
            f"extension: 'ntk' (stretch {stretch:g}) rescales rotary positions, which Enformer "
            "does not have"
        )


def load(folder: Path, *, logits: bool) -> EnformerEncoder:
    """config.json and model.safetensors (or pytorch_model.bin, tensors only) of
    EleutherAI/enformer-official-rough in `folder`.
    """
    try:
        from enformer_pytorch import Enformer, EnformerConfig
    except ImportError as error:
        raise LongscaleError(
            "architecture: enformer needs the package enformer-pytorch "
            "(pip install --no-deps enformer-pytorch==0.8.12 einops)"
        ) from error
    if logits:
        raise LongscaleError(f"{folder}: Enformer has no masked-LM head")
    known = EnformerConfig().to_dict()
    stored = json.loads((folder / "config.json").read_text())
    config = EnformerConfig(**{key: stored[key] for key in stored if key in known})
    model = Enformer(config)
    weights = folder / "model.safetensors"
    if weights.exists():
        state = load_file(weights)
    else:
        state = torch.load(folder / "pytorch_model.bin", map_location="cpu", weights_only=True)
    model.load_state_dict(state)
    return EnformerEncoder(model, 2 * config.dim)
