"""GAU-alpha, trained on a genome, as a frozen encoder."""

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from longscale.models.characters import special_ids
from longscale.models.checkpoint import load_checkpoint
from longscale.models.encoders import NativeEncoder, sample_bp_per_token
from longscale.models.gau_alpha import GAUAlphaForMaskedLM, GAUAlphaModel
from longscale.models.token_spans import TokenSpans, spans_by_offsets
from longscale.models.tokenizer import read_tokenizer


class GAUAlphaEncoder(NativeEncoder):
    """One token per base, or byte pairs, as the corpus has them.

    Its position scheme is that of its training, or `ntk` where it is extended.
    """

    def __init__(self, model: GAUAlphaModel | GAUAlphaForMaskedLM, tokenizer: Tokenizer) -> None:
        super().__init__(model)
        self.tokenizer = tokenizer
        specials = special_ids(tokenizer)
        self.pad_id, self.mask_id = specials.pad, specials.mask
        self.by_base = all(
            len(token) == 1
            for token, number in tokenizer.get_vocab().items()
            if number not in specials.all
        )
        self.bp_per_token = 1.0 if self.by_base else sample_bp_per_token(self.tokenise)

    def tokenise(self, windows: np.ndarray) -> TokenSpans:
        """The corpus's tokens."""
        return spans_by_offsets(self.tokenizer, windows)

    def hidden(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Last hidden state (B, L, D)."""
        return self.model.base_model(ids, mask).last_hidden_state

    def extend(self, stretch: float) -> None:
        """NTK-aware scaling is one of its position schemes: by the length of the inputs where all
        have one, else by that of the context, so that a row does not depend on those beside it.
        """
        if not self.by_base:
            self.model.config.n_max = round(stretch * self.trained_tokens)
        self.model.set_scheme("ntk-dynamic" if self.by_base else "ntk")


def load(folder: Path, *, logits: bool) -> GAUAlphaEncoder:
    """The checkpoint and the tokenizer in `folder`."""
    model = GAUAlphaForMaskedLM if logits else GAUAlphaModel
    return GAUAlphaEncoder(load_checkpoint(model, folder), read_tokenizer(folder))
