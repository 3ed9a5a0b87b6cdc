"""HyenaDNA as a frozen encoder."""

import json
from pathlib import Path

import numpy as np
import torch

from longscale.errors import LongscaleError
from longscale.models.checkpoint import load_checkpoint
from longscale.models.encoders import NativeEncoder
from longscale.models.hyenadna import PAD, HyenaDNAModel, encode_characters
from longscale.models.token_spans import TokenSpans


class HyenaDNAEncoder(NativeEncoder):
    """One token per base, no attention: no length rule, no rotary positions. It is causal, so a
    state has seen what stands on its left alone.
    """

    bp_per_token = 1.0
    pad_id = PAD

    def __init__(self, model: HyenaDNAModel, *, cls: bool) -> None:
        super().__init__(model)
        self.cls = cls

    @property
    def width(self) -> int:
        """D of the hidden states."""
        return self.model.config.d_model

    @property
    def trained_tokens(self) -> int:
        """The longest sequence that it has filters for."""
        return self.model.config.max_seq_len

    def tokenise(self, windows: np.ndarray) -> TokenSpans:
        """Characters and [SEP], as the repository's tokenizer has it."""
        return encode_characters(windows, cls=self.cls)

    def set_rule(self, rule: str, measured: torch.Tensor | None = None) -> None:
        """Nothing but `none`."""
        del measured
        if rule != "none":
            raise LongscaleError(f"rule: {rule!r} acts on attention, which HyenaDNA does not have")


def load(folder: Path, *, logits: bool) -> HyenaDNAEncoder:
    """The checkpoint in `folder`; raises where a masked-LM head is asked for."""
    if logits:
        raise LongscaleError(f"{folder}: HyenaDNA is causal and has no masked-LM head")
    # The hub's -hf repositories say who reads their text; that tokenizer puts no [CLS] in front.
    path = folder / "tokenizer_config.json"
    own = json.loads(path.read_text()) if path.exists() else {}
    return HyenaDNAEncoder(load_checkpoint(HyenaDNAModel, folder), cls="auto_map" not in own)
