"""Any encoder whose architecture ships with transformers, from a folder."""

from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, PreTrainedModel
from transformers import PreTrainedTokenizerFast as FastTokenizer

from longscale.errors import LongscaleError
from longscale.models.encoders import sample_bp_per_token
from longscale.models.token_spans import TokenSpans, spans_by_offsets


class HuggingFaceEncoder:
    """A model and a fast tokenizer of transformers; without remote code, rules and extensions."""

    def __init__(self, model: PreTrainedModel, tokenizer: FastTokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer
        config = model.config
        self.width = int(config.hidden_size)
        self.trained_tokens = getattr(config, "max_position_embeddings", None)
        self.pad_id, self.mask_id = tokenizer.pad_token_id or 0, tokenizer.mask_token_id
        self.bp_per_token = sample_bp_per_token(self.tokenise)
        self.most_tokens = _learned_positions(model)

    def tokenise(self, windows: np.ndarray) -> TokenSpans:
        """The tokenizer's tokens, special ones included."""
        return spans_by_offsets(self.tokenizer.backend_tokenizer, windows)

    def hidden(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Last hidden state (B, L, D)."""
        self._check_length(ids)
        return self.model.base_model(ids, attention_mask=mask).last_hidden_state

    def logits(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits (B, L, V)."""
        self._check_length(ids)
        return self.model(ids, attention_mask=mask).logits

    def _check_length(self, ids: torch.Tensor) -> None:
        if self.most_tokens is not None and ids.shape[1] > self.most_tokens:
            raise LongscaleError(
                f"context_bp: a window of {ids.shape[1]:,} tokens is longer than the "
                f"{self.most_tokens:,} for which {type(self.model).__name__} has learned positions;"
                " a shorter context is needed"
            )

    def set_rule(self, rule: str, measured: torch.Tensor | None = None) -> None:
        """Nothing but `none`: the attention is transformers' own."""
        del measured
        if rule != "none":
            raise LongscaleError(
                f"rule: {rule!r} cannot be put on a model of transformers; native are dnabert2, "
                "gau-alpha and nucleotide-transformer"
            )

    def extend(self, stretch: float) -> None:
        """Nothing."""
        raise LongscaleError(
            f"extension: 'ntk' (stretch {stretch:g}) cannot be put on a model of transformers; "
            "nucleotide-transformer and gau-alpha have it"
        )


def _learned_positions(model: PreTrainedModel) -> int | None:
    """The most tokens that the model's position embeddings are for; None where it has none."""
    tables = [
        module
        for name, module in model.named_modules()
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding)
    ]
    # RoBERTa and ESM count from behind the padding's own position.
    sizes = [
        table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
        for table in tables
    ]
    return min(sizes, default=None)


def load(folder: Path, *, logits: bool) -> HuggingFaceEncoder:
    """The model and tokenizer in `folder`; safetensors only, nothing from the network."""
    kind = AutoModelForMaskedLM if logits else AutoModel
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        model, info = kind.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
        tokenizer = FastTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise LongscaleError(
            f"{folder}: cannot be loaded as an encoder of transformers ({reason}); it needs "
            "config.json of an architecture that transformers has, model.safetensors and "
            "tokenizer.json"
        ) from error
    missing = [key for key in info["missing_keys"] if not key.startswith("pooler.")]
    if missing:
        raise LongscaleError(
            f"{folder}: {len(missing)} weights are missing, {missing[0]} first; random ones in "
            "their place would make the embeddings worthless"
        )
    return HuggingFaceEncoder(model, tokenizer)
