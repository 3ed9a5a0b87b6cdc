"""Nucleotide Transformer v2 as a native transformers model, with length rules; its k-mer tokens.

Nucleotide Transformer v2 (Dalla-Torre et al. 2025, Nature Methods 22, 287) is an ESM encoder with
rotary positions and a gated feed-forward (Shazeer 2020, arXiv 2002.05202), norms before each
residual branch, and tokens of six bases. Parameter names are those of the published checkpoints
(InstaDeepAI/nucleotide-transformer-v2-*-multi-species). What those hold beyond that has no effect
on the output and is left out: position embeddings and a head for protein contacts.

Shapes at the ends of lines: B sequences, L padded tokens, T real tokens of the batch, H heads,
d = hidden_size / H, D = hidden_size, V = vocabulary.
"""

import math
from collections import OrderedDict

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, MaskedLMOutput

from longscale.attention.geometry import BASE, rotation
from longscale.attention.kernel import Packing, pack, unbiased_attention
from longscale.attention.rules import length_rule
from longscale.errors import LongscaleError
from longscale.models.head_rules import HeadRules
from longscale.models.token_spans import TokenSpans, token_spans

# --- tokens -----------------------------------------------------------------------------------

K = 6
UNK, PAD, MASK, CLS = range(4)
FIRST_KMER = 6  # AAAAAA; <eos> and <bos> come before it and are not used
ALPHABET = "ATCG"  # the order in which k-mers are enumerated
FIRST_SINGLE = FIRST_KMER + len(ALPHABET) ** K  # A, T, C, G, N

_N, _OTHER = 4, 5
_CODES = np.full(256, _OTHER, np.int32)
_CODES[np.frombuffer(f"{ALPHABET}N".encode(), np.uint8)] = np.arange(5)
_CHUNK_BP = 4_000_000  # bounds the memory for intermediate results


def encode_kmers(windows: np.ndarray) -> TokenSpans:
    """Tokens of `windows` (rows, window_bp) uint8 ASCII, upper case; <cls> first, nothing last.

    Each stretch of A, C, G, T is cut into 6-mers from its left; what is left over (under 6 bp) is
    one token per base. Each N is a token. Anything else, lower case too, ends a stretch and is one
    <unk> token per run of such characters, as the published tokenizer has it.
    """
    size = max(1, _CHUNK_BP // max(1, windows.shape[1]))
    firsts = range(0, max(1, len(windows)), size)
    chunks = [_kmers(windows[first : first + size]) for first in firsts]
    row, starts, ids = (np.concatenate(part) for part in zip(*chunks, strict=True))
    row += np.repeat(firsts, [len(chunk[0]) for chunk in chunks])
    return token_spans(windows, row, starts, ids, first=CLS)


def _kmers(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, start and id of each token, in reading order, without <cls>."""
    width = windows.shape[1]
    code, place = _CODES[windows], np.arange(width, dtype=np.int32)
    is_base = code < _N
    # The nearest character on either side that is no base: a stretch lies between them.
    left = np.maximum.accumulate(np.where(is_base, np.int32(-1), place), axis=1)
    right = np.where(is_base, np.int32(width), place)[:, ::-1]
    right = np.minimum.accumulate(right, axis=1)[:, ::-1]
    inside, stretch = place - left - 1, right - left - 1
    in_kmer = is_base & (inside < stretch - stretch % K)
    continues = in_kmer & (inside % K > 0)
    continues[:, 1:] |= (code[:, 1:] == _OTHER) & (code[:, :-1] == _OTHER)
    row, starts = (~continues).nonzero()
    ids = np.where(code[row, starts] == _OTHER, UNK, FIRST_SINGLE + code[row, starts])
    kmers = in_kmer[row, starts]
    digits = code[row[kmers, None], starts[kmers, None] + np.arange(K)]
    ids[kmers] = FIRST_KMER + digits @ (len(ALPHABET) ** np.arange(K)[::-1])
    return row, starts, ids


# --- the network ------------------------------------------------------------------------------


# What all checkpoints of version 2 have in common, and others of the same key names have not.
_FIXED = (
    "position_embedding_type",
    "emb_layer_norm_before",
    "token_dropout",
    "add_bias_fnn",
    "tie_word_embeddings",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
)


class NucleotideTransformerConfig(PreTrainedConfig):
    """Configuration; the defaults are those of nucleotide-transformer-v2-50m-multi-species.

    `n_train`: real tokens the checkpoint was trained at, <cls> counted; every length rule but
    `none` needs it. Raises `LongscaleError` for heads that do not divide `hidden_size` into even
    parts, and for what version 2 does not have: the file is then one of another model.
    """

    model_type = "nucleotide_transformer"

    vocab_size: int = 4107
    hidden_size: int = 512
    num_hidden_layers: int = 12
    num_attention_heads: int = 16
    intermediate_size: int = 2048
    max_position_embeddings: int = 2050
    position_embedding_type: str = "rotary"
    emb_layer_norm_before: bool = False
    token_dropout: bool = False
    add_bias_fnn: bool = False
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    pad_token_id: int | None = PAD
    mask_token_id: int | None = MASK
    tie_word_embeddings: bool = False
    n_train: float | int | None = None

    def __post_init__(self, **kwargs: object) -> None:
        super().__post_init__(**kwargs)
        if self.hidden_size % (2 * self.num_attention_heads):
            raise LongscaleError(
                f"num_attention_heads: {self.num_attention_heads} heads do not divide hidden_size "
                f"{self.hidden_size} into even parts; choose another number."
            )
        for key in _FIXED:
            if getattr(self, key) != getattr(type(self), key):
                raise LongscaleError(
                    f"{key}: {getattr(self, key)!r} is not Nucleotide Transformer v2's "
                    f"{getattr(type(self), key)!r}; version 1 and other ESM models cannot be read."
                )


def _dense(inputs: int, outputs: int, bias: bool = True) -> nn.Sequential:
    """A linear map that is called `dense`, for the sake of the key names."""
    return nn.Sequential(OrderedDict(dense=nn.Linear(inputs, outputs, bias=bias)))


def _rotated(x: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """x (T, H, d), feature i paired with i + d/2, turned by `turn` = cos and sin (2, T, 1, d/2)."""
    (a, b), (cos, sin) = x.chunk(2, dim=-1), turn
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


class NucleotideTransformerSelfAttention(nn.Module):
    """softmax(beta(n) q k^T / sqrt(d)) V, queries and keys turned by their positions."""

    def __init__(self, config: NucleotideTransformerConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.head_dim = config.hidden_size // self.heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, x: torch.Tensor, packing: Packing, beta: torch.Tensor, turn: torch.Tensor
    ) -> torch.Tensor:
        qkv = (self.query(x), self.key(x), self.value(x))
        q, k, v = (part.unflatten(-1, (self.heads, self.head_dim)) for part in qkv)  # T H d
        q = q * (beta * self.head_dim**-0.5)  # the one place where a length rule acts
        q, k = (_rotated(part, turn).to(v.dtype) for part in (q, k))
        return unbiased_attention(q, k, v, packing).flatten(1)  # T D


class NucleotideTransformerAttention(nn.Module):
    """Norm, self-attention, projection."""

    def __init__(self, config: NucleotideTransformerConfig) -> None:
        super().__init__()
        self.self = NucleotideTransformerSelfAttention(config)
        self.output = _dense(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self, x: torch.Tensor, packing: Packing, beta: torch.Tensor, turn: torch.Tensor
    ) -> torch.Tensor:
        return self.output(self.self(self.LayerNorm(x), packing, beta, turn))


class NucleotideTransformerLayer(nn.Module):
    """x + attention(x), then x + W_o (silu(g) * u) with [g, u] = W LN(x)."""

    def __init__(self, config: NucleotideTransformerConfig) -> None:
        super().__init__()
        self.attention = NucleotideTransformerAttention(config)
        self.intermediate = _dense(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.output = _dense(config.intermediate_size, config.hidden_size, bias=False)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self, x: torch.Tensor, packing: Packing, beta: torch.Tensor, turn: torch.Tensor
    ) -> torch.Tensor:
        x = x + self.attention(x, packing, beta, turn)
        g, u = self.intermediate(self.LayerNorm(x)).chunk(2, dim=-1)  # T intermediate
        return x + self.output(F.silu(g) * u)


class NucleotideTransformerEncoder(nn.Module):
    """The stack of layers and a last norm, on packed tokens."""

    def __init__(self, config: NucleotideTransformerConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(
            NucleotideTransformerLayer(config) for _ in range(config.num_hidden_layers)
        )
        self.emb_layer_norm_after = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self, x: torch.Tensor, packing: Packing, betas: list[torch.Tensor], turn: torch.Tensor
    ) -> torch.Tensor:
        for layer, beta in zip(self.layer, betas, strict=True):
            x = layer(x, packing, beta, turn)
        return self.emb_layer_norm_after(x)


class NucleotideTransformerPreTrainedModel(HeadRules, PreTrainedModel):
    """What the models share: configuration, initialisation, length rule and rotary base."""

    config_class = NucleotideTransformerConfig
    base_model_prefix = "esm"

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, NucleotideTransformerLMHead):
            init.zeros_(module.bias)

    def set_rule(self, name: str, measured: torch.Tensor | None = None) -> None:
        """As in `HeadRules`; raises for a rule of the released DNABERT-2 code, too."""
        if length_rule(name).released:
            raise LongscaleError(
                f"rule: {name!r} is a defect of the released DNABERT-2 code, which Nucleotide "
                "Transformer does not have; use another rule."
            )
        super().set_rule(name, measured)

    def set_rotary_base(self, base: float = BASE) -> None:
        """Use angles base^(-2i/d) per position from now on; it is not saved.

        The checkpoints are trained with 10000; `attention.geometry.ntk_base` gives the one of
        NTK-aware scaling. Raises `LongscaleError` for a base that is not above 1.
        """
        if not 1 < base < math.inf:
            raise LongscaleError(f"rotary base: {base} is not a number above 1, such as {BASE:g}.")
        self.base_model.rotary_base = base


class NucleotideTransformerModel(NucleotideTransformerPreTrainedModel):
    """Embeddings and encoder."""

    def __init__(self, config: NucleotideTransformerConfig) -> None:
        super().__init__(config)
        self.rule, self.measured, self.rotary_base = "none", None, BASE
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(
                    config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id
                )
            }
        )
        self.encoder = NucleotideTransformerEncoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings["word_embeddings"]

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embeddings["word_embeddings"] = value

    def encode(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Packing]:
        """Last hidden state of the packed real tokens, (T, D), and how they are packed.

        Arguments as in `forward`.
        """
        packing = pack(torch.ones_like(input_ids) if attention_mask is None else attention_mask)
        x = self.get_input_embeddings()(input_ids.flatten()[packing.tokens])  # T D
        d = self.config.hidden_size // self.config.num_attention_heads
        theta = rotation(d, self.rotary_base).to(x.device)
        angles = packing.positions()[:, None, None] * theta  # T 1 d/2, exact in float64
        turn = torch.stack([angles.cos(), angles.sin()]).float()
        return self.encoder(x, packing, self.multipliers(packing, d), turn), packing

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> BaseModelOutput:
        """Last hidden state (B, L, D), zero at padding.

        `input_ids`, `attention_mask` (1 at real tokens; None: all are): (B, L). Padding may stand
        before or behind; positions count real tokens, from 0.
        """
        hidden, packing = self.encode(input_ids, attention_mask)
        return BaseModelOutput(last_hidden_state=packing.unpack(hidden))


class NucleotideTransformerLMHead(nn.Module):
    """decoder(LN(gelu(W x))) + bias; the decoder is not tied to the embeddings."""

    def __init__(self, config: NucleotideTransformerConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.bias = nn.Parameter(torch.empty(config.vocab_size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.layer_norm(F.gelu(self.dense(x)))) + self.bias


class NucleotideTransformerForMaskedLM(NucleotideTransformerPreTrainedModel):
    """Masked language model."""

    def __init__(self, config: NucleotideTransformerConfig) -> None:
        super().__init__(config)
        self.esm = NucleotideTransformerModel(config)
        self.lm_head = NucleotideTransformerLMHead(config)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head.decoder

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.lm_head.decoder = value

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> MaskedLMOutput:
        """Logits (B, L, V), zero at padding; arguments as in `NucleotideTransformerModel`."""
        hidden, packing = self.esm.encode(input_ids, attention_mask)
        return MaskedLMOutput(logits=packing.unpack(self.lm_head(hidden)))
