"""GAU-alpha as a native transformers model, with length rules, position schemes, cosine attention.

GAU-alpha (Su 2022, kexue.fm/archives/9052) is an encoder of gated attention units (Hua et al. 2022,
FLASH, arXiv 2202.10447): one attention head with a small key and a wide value per layer, rotary
positions, and a norm without weights after each residual. Parameter names are those of the
published checkpoints.

Shapes at the ends of lines: B sequences, n tokens (padding on the right), R rows that are asked
for, D = hidden_size, E = intermediate_size, K = attention_key_size, V = vocabulary.
"""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, MaskedLMOutput

from longscale.attention.alibi import slopes_of
from longscale.attention.chunked import (
    NORMALIZATIONS,
    attention_weights,
    chunked_attention,
    turns_of,
)
from longscale.attention.cosine import parse_attention, unit_vectors
from longscale.attention.geometry import Geometry, Setting, attended
from longscale.attention.positions import position_scheme
from longscale.attention.recall import recall
from longscale.attention.rules import (
    check_measured,
    check_n_train,
    length_multiplier,
    length_rule,
)
from longscale.errors import LongscaleError
from longscale.models.masked_lm import IGNORED_LABEL, MaskedLMHead, TiedMaskedLM

SOFTMAX_PLUS_BASE = 512  # ln n / ln 512 is 1 at the length that GAU-alpha was trained at


class GAUAlphaConfig(PreTrainedConfig):
    """Configuration; the defaults are those of chinese_GAU-alpha-char_L-24_H-768.

    `attention`: what is inside the softmax (`longscale.attention.cosine`).
    `normalization`: `softmax`, `softmax_plus` (logits times ln n / ln 512) or `squared_relu`.
    `n_train`: tokens the checkpoint was trained at. `n_max`: the longest sequence it is meant for.
    `scheme`: the position scheme it was trained with (`longscale.attention.positions`).
    `mask_token_id`: what stands for a masked token; schemes with recall need it.
    Raises `LongscaleError` for names that are not known.
    """

    model_type = "gau_alpha"

    vocab_size: int = 12000
    hidden_size: int = 768
    num_hidden_layers: int = 24
    intermediate_size: int = 1536
    attention_key_size: int = 128
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    hidden_act: str = "swish"
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    use_bias: bool = False
    normalization: str = "softmax_plus"
    attention_scale: bool = True
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True
    attention: str = "dot"
    n_train: int | None = None
    n_max: int | None = None
    scheme: str = "rope"
    mask_token_id: int | None = None

    def __post_init__(self, **kwargs: object) -> None:
        super().__post_init__(**kwargs)
        if parse_attention(self.attention).released:
            raise LongscaleError(
                f"attention: {self.attention!r} is a defect of the released DNABERT-2 code, which "
                "GAU-alpha does not have; use dot, cos<alpha> or cos-matched."
            )
        position_scheme(self.scheme)
        if self.normalization not in NORMALIZATIONS:
            raise LongscaleError(
                f"normalization: {self.normalization!r} is not known; use "
                f"{', '.join(NORMALIZATIONS)}."
            )
        if self.hidden_act not in ("swish", "silu"):
            raise LongscaleError(f"hidden_act: {self.hidden_act!r} is not known; use swish.")


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps), without a weight."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.eps)


class ScaleOffset(nn.Module):
    """x * weight (+ bias), per feature: how a query and a key are made of the same vector."""

    def __init__(self, size: int, offset: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.bias = nn.Parameter(torch.empty(size)) if offset else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * self.weight
        return x if self.bias is None else x + self.bias


class Surroundings:
    """What all layers of a forward pass share: the geometry, the lengths, beta(n), turns.

    `beta` (B or 1, n, 1): the length rule times the checkpoint's own normalisation. `measured`
    (layers,): the multipliers of a measured rule, one per layer, or None. `positions` (B, n):
    instead of the scheme's, or None.
    """

    def __init__(
        self,
        geometry: Geometry,
        lengths: torch.Tensor | None,
        beta: torch.Tensor,
        measured: torch.Tensor | None,
        positions: torch.Tensor | None,
    ) -> None:
        self.geometry, self.lengths, self.beta = geometry, lengths, beta
        self.measured = measured
        self.turns = turns_of(geometry, positions, device=beta.device)

    def multiplier(self, layer: int) -> torch.Tensor:
        """The multiplier of a layer's logits, (B or 1, n, 1)."""
        return self.beta if self.measured is None else self.beta * self.measured[layer]


class GatedAttentionUnit(nn.Module):
    """O (u * A v): [u, v, z] = silu(W x), A = softmax(beta(n) * logits of z * w_q and z * w_k)."""

    def __init__(self, config: GAUAlphaConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.sizes = (config.intermediate_size, config.intermediate_size, config.attention_key_size)
        self.attention = parse_attention(config.attention)
        self.dot_scale = config.attention_key_size**-0.5 if config.attention_scale else 1.0
        self.normalization = config.normalization
        self.dropout = config.attention_probs_dropout_prob
        self.slope = slopes_of(config.num_hidden_layers)[layer]
        self.i_dense = nn.Linear(config.hidden_size, sum(self.sizes), bias=config.use_bias)
        self.o_dense = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.use_bias)
        self.q_scaleoffset = ScaleOffset(config.attention_key_size, config.use_bias)
        self.k_scaleoffset = ScaleOffset(config.attention_key_size, config.use_bias)
        if self.attention.learned:
            self.alpha = nn.Parameter(torch.empty(()))

    def gates(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """u, v (B, n, E) and z (B, n, K), of which queries and keys are made."""
        return F.silu(self.i_dense(x)).split(self.sizes, dim=-1)

    def queries_keys(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries and keys (B, n, K) before rotation; their product is the logit without a rule."""
        q, k = self.q_scaleoffset(z), self.k_scaleoffset(z)
        if not self.attention.cosine:
            return q * self.dot_scale, k
        alpha = self.alpha if self.attention.learned else self.attention.alpha
        return unit_vectors(q) * alpha, unit_vectors(k)

    def bias_slope(self, around: Surroundings) -> torch.Tensor | None:
        """ALiBi's slope, (B or 1, n, 1), where the scheme has one."""
        geometry = around.geometry
        if not geometry.alibi:
            return None
        slope = self.slope if geometry.slope is None else geometry.slope
        multiplier = around.multiplier(self.layer)
        return multiplier * slope if geometry.scaled_bias else torch.full_like(multiplier, slope)

    def attention_inputs(
        self, z: torch.Tensor, around: Surroundings, rows: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, object]]:
        """Queries and keys (B, n, K), the rule in the queries, and what else decides the weights.

        In float32 even where the products around it are bfloat16: a cosine is then good to 1 in
        500, and times an alpha of 128 that is no longer small.
        """
        q, k = self.queries_keys(z)
        q = q * around.multiplier(self.layer)  # the one place where a length rule acts
        keywords = {
            "slope": self.bias_slope(around),
            "lengths": around.lengths,
            "rows": rows,
            "turns": around.turns,
            "normalization": self.normalization,
        }
        return q.float(), k.float(), keywords

    def forward(
        self, x: torch.Tensor, around: Surroundings, rows: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(B, n, D) -> (B, R, D)."""
        u, v, z = self.gates(x)
        q, k, keywords = self.attention_inputs(z, around, rows)
        dropout = self.dropout if self.training else 0.0
        with torch.autocast(q.device.type, enabled=False):
            mixed = chunked_attention(
                q, k, v.float(), around.geometry, dropout=dropout, **keywords
            )  # B R E
        return self.o_dense((u if rows is None else u[:, rows]) * mixed)

    def weights(
        self, x: torch.Tensor, around: Surroundings, rows: torch.Tensor | None = None
    ) -> torch.Tensor:
        """A of the equation, (B, R, n), without dropout; for figures and checks of small inputs."""
        q, k, keywords = self.attention_inputs(self.gates(x)[2], around, rows)
        with torch.autocast(q.device.type, enabled=False):
            return attention_weights(q, k, around.geometry, **keywords)


class GAULayer(nn.Module):
    """norm(x + GAU(x))."""

    def __init__(self, config: GAUAlphaConfig, layer: int) -> None:
        super().__init__()
        self.gau = GatedAttentionUnit(config, layer)
        self.norm = RMSNorm(config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self, x: torch.Tensor, around: Surroundings, rows: torch.Tensor | None = None
    ) -> torch.Tensor:
        update = self.dropout(self.gau(x, around, rows))
        return self.norm((x if rows is None else x[:, rows]) + update)


class GAUAlphaEmbeddings(nn.Module):
    """norm(word + token type)."""

    def __init__(self, config: GAUAlphaConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(
            config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id
        )
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.norm = RMSNorm(config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        x = self.word_embeddings(input_ids) + self.token_type_embeddings.weight[0]
        return self.dropout(self.norm(x))  # B n D


class GAUAlphaEncoder(nn.Module):
    """The stack of layers; only the last one may be asked for a part of the rows."""

    def __init__(self, config: GAUAlphaConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(
            GAULayer(config, layer) for layer in range(config.num_hidden_layers)
        )

    def forward(
        self, x: torch.Tensor, around: Surroundings, rows: torch.Tensor | None = None
    ) -> torch.Tensor:
        for layer in self.layer[:-1]:
            x = layer(x, around)
        return self.layer[-1](x, around, rows)


class GAUAlphaPreTrainedModel(PreTrainedModel):
    """What the models share: configuration, initialisation, length rule and position scheme."""

    config_class = GAUAlphaConfig
    base_model_prefix = "gau_alpha"

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ScaleOffset):
            init.ones_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        if isinstance(module, GatedAttentionUnit) and module.attention.learned:
            init.constant_(module.alpha, math.sqrt(module.sizes[-1]))

    def set_rule(self, name: str, measured: torch.Tensor | None = None) -> None:
        """Use the length rule `name` from now on; it is not saved.

        `measured` (layers,): the multipliers of a measured rule. Raises `LongscaleError` for an
        unknown rule, for one of the released DNABERT-2 code, and if what it needs
        (`config.n_train`, `measured`) is not there.
        """
        check_n_train(name, self.config.n_train)
        if length_rule(name).released:
            raise LongscaleError(
                f"rule: {name!r} is the released DNABERT-2 code's, not GAU-alpha's"
            )
        check_measured(name, measured)
        self.base_model.rule, self.base_model.measured = name, measured

    def set_scheme(self, name: str, **options: int) -> None:
        """Use the position scheme `name` from now on; it is not saved.

        `options`: keywords of the scheme's function (`rerope-released` has one, `window`). Raises
        `LongscaleError` for an unknown scheme, and for one other than `rope` if `config.n_train`
        is not set.
        """
        position_scheme(name)
        if name != "rope" and self.config.n_train is None:
            raise LongscaleError(
                f"n_train: scheme {name!r} needs the number of tokens the checkpoint was trained "
                "at; write n_train into the checkpoint's config.json."
            )
        self.base_model.scheme, self.base_model.scheme_options = name, options


class GAUAlphaModel(GAUAlphaPreTrainedModel):
    """Embeddings and encoder."""

    def __init__(self, config: GAUAlphaConfig) -> None:
        super().__init__(config)
        self.rule, self.measured = "none", None
        self.scheme, self.scheme_options = config.scheme, {}
        self.embeddings = GAUAlphaEmbeddings(config)
        self.encoder = GAUAlphaEncoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embeddings.word_embeddings = value

    def surroundings(
        self,
        n: int,
        attention_mask: torch.Tensor | None = None,
        positions: torch.Tensor | None = None,
    ) -> Surroundings:
        """What the layers need to know of sequences of `n` tokens.

        Raises `CannotRunError` where the scheme cannot run at `n`, and `LongscaleError` for
        padding that is not on the right.
        """
        config, device = self.config, self.device
        n_train = config.n_train or n
        setting = Setting(n, n_train, config.n_max or max(n, n_train), config.attention_key_size)
        geometry = position_scheme(self.scheme).geometry(setting, **self.scheme_options)
        lengths = None if attention_mask is None else _lengths(attention_mask)
        real = torch.tensor([n], device=device) if lengths is None else lengths
        keys = attended(geometry, real, n).double().clamp(min=1)  # B n
        d = config.attention_key_size
        beta = (
            1.0
            if self.measured is not None
            else length_multiplier(self.rule, keys, config.n_train, d)
        )
        if config.normalization == "softmax_plus":
            beta = beta * keys.log() / math.log(SOFTMAX_PLUS_BASE)
        beta = torch.as_tensor(beta * geometry.scale, dtype=torch.float32, device=device)
        beta = beta.expand(len(real), n)[..., None]
        return Surroundings(geometry, lengths, beta, self.measured, positions)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        positions: torch.Tensor | None = None,
        rows: torch.Tensor | None = None,
    ) -> BaseModelOutput:
        """Last hidden state, (B, R, D).

        `input_ids`, `attention_mask` (1 at real tokens; None: all are): (B, n). `positions` (B, n)
        replace those of the scheme (training of PoSE and RandPos). `rows` (R,), ascending: the
        tokens that are asked for; None: all.
        """
        hidden, _ = self.encode(input_ids, attention_mask, positions, rows)
        return BaseModelOutput(last_hidden_state=hidden)

    def encode(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        positions: torch.Tensor | None = None,
        rows: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, Surroundings]:
        """Last hidden state (B, R, D) and what the layers knew; arguments as in `forward`."""
        around = self.surroundings(input_ids.shape[1], attention_mask, positions)
        return self.encoder(self.embeddings(input_ids), around, rows), around

    def attention_weights(
        self,
        input_ids: torch.Tensor,
        layer: int,
        attention_mask: torch.Tensor | None = None,
        rows: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The weights that the queries `rows` of a layer give to the keys: (B, R, n).

        The arguments are those of `forward`; layers count from 0. For small inputs.
        """
        around = self.surroundings(input_ids.shape[1], attention_mask)
        x = self.embeddings(input_ids)
        for below in self.encoder.layer[:layer]:
            x = below(x, around)
        return self.encoder.layer[layer].gau.weights(x, around, rows)


class GAUAlphaPredictions(nn.Module):
    """A decoder whose weight is the word embeddings."""

    def __init__(self, config: GAUAlphaConfig) -> None:
        super().__init__()
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.decoder(hidden)


class GAUAlphaForMaskedLM(GAUAlphaPreTrainedModel, TiedMaskedLM):
    """Masked language model; the head runs on the tokens that are asked for alone."""

    _tied_weights_keys: ClassVar[dict[str, str]] = {
        "cls.predictions.decoder.weight": "gau_alpha.embeddings.word_embeddings.weight"
    }

    def __init__(self, config: GAUAlphaConfig) -> None:
        super().__init__(config)
        self.gau_alpha = GAUAlphaModel(config)
        self.cls = MaskedLMHead(GAUAlphaPredictions(config))
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        positions: torch.Tensor | None = None,
        rows: torch.Tensor | None = None,
    ) -> MaskedLMOutput:
        """Logits (B, R, V); with `labels` (B, n), those of the labelled tokens, (labelled, V).

        Labelled are tokens (among `rows`) whose label is not -100; the loss is the mean
        cross-entropy over them.
        The other arguments are those of `GAUAlphaModel.forward`.
        """
        hidden, around = self.gau_alpha.encode(input_ids, attention_mask, positions, rows)
        recalls = around.geometry.recall is not None
        if labels is None or recalls:
            logits = self.cls.predictions(hidden)  # B R V
            if recalls:
                logits = self._recall(logits, input_ids, rows, around)
            if labels is None:
                return MaskedLMOutput(logits=logits)
        labels = labels if rows is None else labels[:, rows]
        labelled = labels != IGNORED_LABEL
        # Without recall the head runs on the labelled tokens alone.
        logits = logits[labelled] if recalls else self.cls.predictions(hidden[labelled])
        return MaskedLMOutput(loss=F.cross_entropy(logits, labels[labelled]), logits=logits)

    def _recall(
        self,
        logits: torch.Tensor,
        input_ids: torch.Tensor,
        rows: torch.Tensor | None,
        around: Surroundings,
    ) -> torch.Tensor:
        """The model's answer mixed with what is recalled, (B, R, V)."""
        mask_id = self.config.mask_token_id
        if mask_id is None:
            raise LongscaleError(
                "mask_token_id: recall must know masked tokens; write the tokenizer's id of [MASK] "
                "into the checkpoint's config.json."
            )
        rows = torch.arange(input_ids.shape[1], device=logits.device) if rows is None else rows
        settings, lengths = around.geometry.recall, around.lengths
        return recall(logits, input_ids, rows, mask_id, settings, lengths)


def _lengths(attention_mask: torch.Tensor) -> torch.Tensor | None:
    """Real tokens of each sequence, (B,); None where there is no padding."""
    mask = attention_mask.bool()
    if mask.all():
        return None
    if (mask[:, 1:] & ~mask[:, :-1]).any() or not mask[:, 0].all():
        raise LongscaleError(
            "attention_mask: real tokens must come first and padding last in every sequence."
        )
    return mask.sum(dim=1)
