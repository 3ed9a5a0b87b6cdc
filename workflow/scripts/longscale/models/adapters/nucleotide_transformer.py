"""Nucleotide Transformer v2 as a frozen encoder."""

from pathlib import Path

import numpy as np

from longscale.models.checkpoint import load_checkpoint
from longscale.models.encoders import NativeEncoder
from longscale.models.nucleotide_transformer import (
    MASK,
    PAD,
    K,
    NucleotideTransformerForMaskedLM,
    NucleotideTransformerModel,
    encode_kmers,
)
from longscale.models.token_spans import TokenSpans


class NucleotideTransformerEncoder(NativeEncoder):
    """6-mers; its rotary base can be rescaled."""

    bp_per_token = float(K)
    pad_id = PAD
    mask_id = MASK

    def tokenise(self, windows: np.ndarray) -> TokenSpans:
        """6-mers after <cls>; their rule needs no file."""
        return encode_kmers(windows)


def load(folder: Path, *, logits: bool) -> NucleotideTransformerEncoder:
    """The checkpoint in `folder`."""
    model = NucleotideTransformerForMaskedLM if logits else NucleotideTransformerModel
    return NucleotideTransformerEncoder(load_checkpoint(model, folder))
