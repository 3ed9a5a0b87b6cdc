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
MARGIN_BP = (INPUT_BP - TARGET_BINS * BIN_BP) // 2  # without states, on either side
UNKNOWN = 4  # N, and what lies outside the window: 0 of each base, as in its training


class EnformerEncoder:
    """A token is a base, of which the first in each bin of 128 bp spells the bin.

    Windows that are shorter than the input stand in its middle, and what lies in the margins, for
    which there are no states, is spelt by nobody.
    """

    bp_per_token = 1.0
    pad_id = UNKNOWN
    mask_id = None
    trained_tokens = INPUT_BP

    def __init__(self, model: torch.nn.Module, width: int) -> None:
        self.model, self.width = model, width

    def tokenise(self, windows: np.ndarray) -> TokenSpans:
        """Codes of the bases (A, C, G, T, anything else), one per base."""
        codes = np.full(256, UNKNOWN, np.int64)
        codes[np.frombuffer(BASES, np.uint8)] = np.arange(len(BASES))
        count, width = windows.shape
        if width > INPUT_BP:
            raise LongscaleError(
                f"context_bp: {width:,} bp are more than the {INPUT_BP:,} that Enformer reads"
            )
        offsets = np.arange(count + 1, dtype=np.int64) * width
        starts, stops = (np.tile(edges, count) for edges in _bins_of(width))
        return TokenSpans(codes[windows].ravel(), offsets, starts, stops, width)

    def hidden(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The state of each base's bin, (B, L, D); in the margins that of the outermost bin."""
        del mask  # all windows of a batch are of one length
        around = INPUT_BP - ids.shape[1]
        padded = torch.nn.functional.pad(ids, (around // 2, around - around // 2), value=UNKNOWN)
        # One at a time: each fills the whole input, however short the context.
        states = torch.cat(
            [self.model(one, return_only_embeddings=True) for one in padded.long().split(1)]
        )
        place = torch.arange(ids.shape[1], device=ids.device) + around // 2 - MARGIN_BP
        return states[:, (place // BIN_BP).clamp(0, TARGET_BINS - 1)]

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


def _bins_of(width: int) -> tuple[np.ndarray, np.ndarray]:
    """What each base of a window of `width` bp spells: starts and stops (width,) int32 in bp.

    Of the bases of a bin, the first in the window spells all of the bin that lies in the window.
    """
    before = (INPUT_BP - width) // 2 - MARGIN_BP  # of the window, in bp from the first bin
    place = np.arange(width) + before
    inside = (place >= 0) & (place < TARGET_BINS * BIN_BP)
    bins = place // BIN_BP
    opens = inside & (np.diff(bins, prepend=bins[0] - 1) != 0)
    starts = np.arange(width, dtype=np.int32)
    ends = np.minimum((bins + 1) * BIN_BP - before, width)
    return starts, np.where(opens, ends, starts).astype(np.int32)


def load(folder: Path, *, logits: bool) -> EnformerEncoder:
    """config.json and model.safetensors (or pytorch_model.bin, tensors only) of
    EleutherAI/enformer-official-rough in `folder`.

    Where the configuration does not say, positions are those of the original's gamma functions
    (`use_tf_gamma`), as enformer-pytorch does for that checkpoint. Raises `LongscaleError` where
    the package is absent or the folder cannot be read.
    """
    try:
        from enformer_pytorch.config_enformer import EnformerConfig
        from enformer_pytorch.modeling_enformer import Enformer
    except ImportError as error:
        raise LongscaleError(
            f"architecture: enformer needs the package enformer-pytorch ({error}); install it "
            "with pip install --no-deps -r requirements-enformer.txt"
        ) from error
    if logits:
        raise LongscaleError(f"{folder}: Enformer has no masked-LM head")
    try:
        stored = {"use_tf_gamma": True, **json.loads((folder / "config.json").read_text())}
        known = EnformerConfig().to_dict()
        config = EnformerConfig(**{key: stored[key] for key in stored if key in known})
        model = Enformer(config)
        _assign(model, _weights(folder))
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise LongscaleError(
            f"{folder}: cannot be loaded as Enformer ({reason}); it needs config.json and "
            "model.safetensors or pytorch_model.bin"
        ) from error
    return EnformerEncoder(model, 2 * config.dim)


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of the checkpoint; no other objects are read."""
    path = folder / "model.safetensors"
    if path.exists():
        return load_file(path)
    return torch.load(folder / "pytorch_model.bin", map_location="cpu", weights_only=True)


def _assign(model: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Load `weights`; of the names that a shared tensor has, one is enough."""
    missing, unexpected = model.load_state_dict(weights, strict=False)
    own = model.state_dict()
    loaded = {own[name].data_ptr() for name in weights.keys() & own.keys()}
    wrong = [name for name in missing if own[name].data_ptr() not in loaded] + unexpected
    if wrong:
        raise ValueError(f"{len(wrong)} weights are missing or unknown, {wrong[0]} first")
