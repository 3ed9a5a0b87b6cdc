"""DNABERT-2 as a frozen encoder."""

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from longscale.models.checkpoint import load_checkpoint
from longscale.models.dnabert2 import DNABERT2ForMaskedLM, DNABERT2Model
from longscale.models.encoders import NativeEncoder
from longscale.models.token_spans import TokenSpans
from longscale.models.tokenizer import MASK, PAD, encode_spans, load_tokenizer


class DNABERT2Encoder(NativeEncoder):
    """Byte pairs: about 5.1 bp per token."""

    bp_per_token = 5.1
    pad_id = PAD
    mask_id = MASK

    def __init__(self, model: DNABERT2Model | DNABERT2ForMaskedLM, tokenizer: Tokenizer) -> None:
        super().__init__(model)
        self.tokenizer = tokenizer

    def tokenise(self, windows: np.ndarray) -> TokenSpans:
        """Byte pairs with [CLS] and [SEP]."""
        return encode_spans(self.tokenizer, windows)


def load(folder: Path, *, logits: bool) -> DNABERT2Encoder:
    """The checkpoint and the tokenizer in `folder`."""
    model = DNABERT2ForMaskedLM if logits else DNABERT2Model
    return DNABERT2Encoder(load_checkpoint(model, folder), load_tokenizer(folder))
