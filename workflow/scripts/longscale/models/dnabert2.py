"""DNABERT-2 as a native transformers model, with length rules and cosine attention.

DNABERT-2 (Zhou et al. 2024, arXiv 2306.15006) is a MosaicBERT (Portes et al. 2023, arXiv
2312.17482): a BERT encoder with symmetric ALiBi instead of position embeddings, GEGLU
(Shazeer 2020, arXiv 2002.05202) instead of a plain MLP, layer norm after each residual, and all
layers run on packed real tokens. Parameter names are those of the published checkpoint.

Shapes at the ends of lines: B sequences, L padded tokens, T real tokens of the batch, H heads,
d = hidden_size / H, D = hidden_size, V = vocabulary.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutputWithPooling,
    MaskedLMOutput,
    SequenceClassifierOutput,
)

from longscale.attention.alibi import alibi_band, alibi_slopes
from longscale.attention.cosine import DOT, parse_attention, unit_vectors
from longscale.attention.kernel import Packing, pack, packed_attention
from longscale.attention.released import released_keys, released_queries
from longscale.attention.rules import length_multiplier, length_rule
from longscale.errors import LongscaleError
from longscale.models.geglu import by_rows, geglu
from longscale.models.head_rules import HeadRules
from longscale.models.masked_lm import IGNORED_LABEL, MaskedLMHead, TiedMaskedLM


class DNABERT2Config(PreTrainedConfig):
    """Configuration; the defaults are those of DNABERT-2-117M.

    `attention`: what is inside the softmax (`longscale.attention.cosine`).
    `n_train`: real tokens the checkpoint was trained at, special tokens counted (the median over
    its training windows); every length rule but `none` needs it.
    `tissues`: what each column of `DNABERT2ForVariantEffect`'s one-hot tissue stands for, if any.
    Raises `LongscaleError` for an attention that is not known, heads that do not divide
    `hidden_size`, and dropout on attention probabilities, which fused attention does not have.
    """

    model_type = "dnabert2"

    vocab_size: int = 4096
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.0
    classifier_dropout: float | int | None = None
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    pad_token_id: int | None = 3
    tie_word_embeddings: bool = True
    attention: str = "dot"
    n_train: float | int | None = None
    tissues: list[str] | None = None

    def __post_init__(self, **kwargs: object) -> None:
        super().__post_init__(**kwargs)
        parse_attention(self.attention)
        if self.hidden_size % self.num_attention_heads:
            raise LongscaleError(
                f"num_attention_heads: {self.num_attention_heads} heads do not divide hidden_size "
                f"{self.hidden_size}; choose a divisor."
            )
        if self.attention_probs_dropout_prob:
            raise LongscaleError(
                "attention_probs_dropout_prob: fused attention has no dropout on probabilities, so "
                f"{self.attention_probs_dropout_prob} cannot be honoured; set it to 0.0, as "
                "DNABERT-2 does."
            )


class DNABERT2Embeddings(nn.Module):
    """LN(word + token type); ALiBi stands for positions."""

    def __init__(self, config: DNABERT2Config) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(
            config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id
        )
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: torch.Tensor, token_type_ids: torch.Tensor | None) -> torch.Tensor:
        if token_type_ids is None:
            token_types = self.token_type_embeddings.weight[0]
        else:
            token_types = self.token_type_embeddings(token_type_ids)
        return self.dropout(self.LayerNorm(self.word_embeddings(input_ids) + token_types))  # T D


class DNABERT2SelfAttention(nn.Module):
    """softmax(beta(n) * logits + ALiBi) V; what the logits are is `config.attention`."""

    def __init__(self, config: DNABERT2Config) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.attention = parse_attention(config.attention)
        self.Wqkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        if self.attention.learned:
            self.alpha = nn.Parameter(torch.empty(self.heads))

    def heads_of(self, qkv: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Output of Wqkv (T, 3 D) -> queries, keys, values, each (T, H, d)."""
        return qkv.view(len(qkv), 3, self.heads, self.head_dim).unbind(1)

    def queries_keys_values(
        self, x: torch.Tensor, packing: Packing, beta: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Queries, keys, values (T, H, d); a query times a key is the logit, bias aside.

        `beta` (T, 1, 1) or (T, H, 1).
        """
        q, k, v = self.heads_of(self.Wqkv(x))  # T H d
        if not self.attention.cosine:
            scale = self.head_dim**-0.5
        elif self.attention.released:
            q, k = released_queries(q), released_keys(k, packing.sequence, packing.shape[0])
            scale = self.attention.alpha
        else:
            q, k = unit_vectors(q), unit_vectors(k)
            scale = self.alpha[:, None] if self.attention.learned else self.attention.alpha
        return q * (beta * scale), k, v  # the one place where a length rule acts on the logits

    def forward(
        self, x: torch.Tensor, packing: Packing, beta: torch.Tensor, band: torch.Tensor
    ) -> torch.Tensor:
        q, k, v = self.queries_keys_values(x, packing, beta)
        mixed = packed_attention(q.to(v.dtype), k.to(v.dtype), v, packing, band)
        return mixed.flatten(1)  # T D


class DNABERT2SelfOutput(nn.Module):
    """Projection, residual, layer norm."""

    def __init__(self, config: DNABERT2Config) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, mixed: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return self.LayerNorm(self.dropout(self.dense(mixed)) + x)


class DNABERT2Attention(nn.Module):
    """Self-attention and its output; holds them together for the sake of the key names."""

    def __init__(self, config: DNABERT2Config) -> None:
        super().__init__()
        self.self = DNABERT2SelfAttention(config)
        self.output = DNABERT2SelfOutput(config)


class DNABERT2MLP(nn.Module):
    """GEGLU: LN(x + W_o (gelu(g) * u)) with [g, u] = W x."""

    def __init__(self, config: DNABERT2Config) -> None:
        super().__init__()
        self.gated_layers = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.wo = nn.Linear(config.intermediate_size, config.hidden_size)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        product = geglu(self.gated_layers(x), self.dropout.p if self.training else 0.0)
        return self.layernorm(self.wo(product) + x)


class DNABERT2Layer(GradientCheckpointingLayer):
    """One block of the encoder; its activations may be computed again instead of kept."""

    def __init__(self, config: DNABERT2Config) -> None:
        super().__init__()
        self.attention = DNABERT2Attention(config)
        self.mlp = DNABERT2MLP(config)

    def forward(
        self, x: torch.Tensor, packing: Packing, beta: torch.Tensor, band: torch.Tensor
    ) -> torch.Tensor:
        mixed = self.attention.self(x, packing, beta, band)
        return by_rows(lambda mixed, x: self.mlp(self.attention.output(mixed, x)), mixed, x)


class DNABERT2Encoder(nn.Module):
    """The stack of blocks, on packed tokens."""

    def __init__(self, config: DNABERT2Config) -> None:
        super().__init__()
        self.layer = nn.ModuleList(DNABERT2Layer(config) for _ in range(config.num_hidden_layers))

    def forward(
        self, x: torch.Tensor, packing: Packing, betas: Sequence[torch.Tensor], band: torch.Tensor
    ) -> torch.Tensor:
        for layer, beta in zip(self.layer, betas, strict=True):
            x = layer(x, packing, beta, band)
        return x


class DNABERT2Pooler(nn.Module):
    """tanh(W [CLS])."""

    def __init__(self, config: DNABERT2Config) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, cls: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.dense(cls))


class DNABERT2PreTrainedModel(HeadRules, PreTrainedModel):
    """What all DNABERT-2 models share: configuration, initialisation, the length rule."""

    config_class = DNABERT2Config
    base_model_prefix = "bert"
    supports_gradient_checkpointing = True

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, DNABERT2SelfAttention) and module.attention.learned:
            # What |q||k|/sqrt(d) is for entries of unit variance; `match_alpha` measures it.
            init.constant_(module.alpha, math.sqrt(module.head_dim))


class DNABERT2Model(DNABERT2PreTrainedModel):
    """Embeddings and encoder, with the [CLS] pooler unless `add_pooling_layer` is False."""

    def __init__(self, config: DNABERT2Config, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.rule, self.measured = "none", None
        self.embeddings = DNABERT2Embeddings(config)
        self.encoder = DNABERT2Encoder(config)
        self.pooler = DNABERT2Pooler(config) if add_pooling_layer else None
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embeddings.word_embeddings = value

    def encode(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, Packing]:
        """Last hidden state of the packed real tokens, (T, D), and how they are packed.

        `input_ids`, `attention_mask` (1 at real tokens; None: all are), `token_type_ids`: (B, L).
        """
        packing = pack(torch.ones_like(input_ids) if attention_mask is None else attention_mask)
        if token_type_ids is not None:
            token_type_ids = token_type_ids.flatten()[packing.tokens]
        x = self.embeddings(input_ids.flatten()[packing.tokens], token_type_ids)
        betas, band = self.length_scaling(packing)
        return self.encoder(x, packing, betas, band), packing

    def length_scaling(self, packing: Packing) -> tuple[list[torch.Tensor], torch.Tensor]:
        """beta of each token, layer by layer, (T, 1, 1) or measured for each head (T, H, 1), and
        the ALiBi band, (1, H, W); the rule acts on beta alone.

        Only for a released rule the band is multiplied too, (B, H, W).
        """
        config, rule, device = self.config, length_rule(self.rule), packing.tokens.device
        heads = config.num_attention_heads
        band = alibi_band(alibi_slopes(heads).to(device), packing.longest)[None]  # 1 H W
        d = config.hidden_size if rule.whole_width else config.hidden_size // heads
        if rule.scales_bias:
            multiplier = length_multiplier(self.rule, packing.lengths, config.n_train, d)
            band = band * multiplier.to(device, torch.float32)[:, None, None]  # B H W
        return self.multipliers(packing, d), band

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
    ) -> BaseModelOutputWithPooling:
        """Last hidden state (B, L, D), zero at padding, and pooled [CLS] (B, D)."""
        hidden, packing = self.encode(input_ids, attention_mask, token_type_ids)
        pooled = self.pooler(hidden[packing.first_tokens()]) if self.pooler else None
        return BaseModelOutputWithPooling(
            last_hidden_state=packing.unpack(hidden), pooler_output=pooled
        )


class DNABERT2PredictionTransform(nn.Module):
    """LN(gelu(W x)) before the decoder."""

    def __init__(self, config: DNABERT2Config) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.LayerNorm(F.gelu(self.dense(x)))


class DNABERT2PredictionHead(nn.Module):
    """Transform, then a decoder whose weight is the word embeddings."""

    def __init__(self, config: DNABERT2Config) -> None:
        super().__init__()
        self.transform = DNABERT2PredictionTransform(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.transform(x))


class DNABERT2ForMaskedLM(DNABERT2PreTrainedModel, TiedMaskedLM):
    """Masked language model; with labels, the head runs on the labelled tokens alone."""

    _tied_weights_keys: ClassVar[dict[str, str]] = {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight"
    }

    def __init__(self, config: DNABERT2Config) -> None:
        super().__init__(config)
        self.bert = DNABERT2Model(config, add_pooling_layer=False)
        self.cls = MaskedLMHead(DNABERT2PredictionHead(config))
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> MaskedLMOutput:
        """Logits (B, L, V), zero at padding; with `labels` (B, L), logits of the labelled tokens.

        Labelled are real tokens whose label is not -100; their logits, (labelled, V), are in
        reading order. The loss is the mean cross-entropy over them.
        """
        hidden, packing = self.bert.encode(input_ids, attention_mask, token_type_ids)
        if labels is None:
            return MaskedLMOutput(logits=packing.unpack(self.cls.predictions(hidden)))
        reading_order = packing.tokens.argsort()
        targets = labels.flatten()[packing.tokens[reading_order]]
        labelled = targets != IGNORED_LABEL
        logits = self.cls.predictions(hidden[reading_order[labelled]])  # labelled V
        return MaskedLMOutput(loss=F.cross_entropy(logits, targets[labelled]), logits=logits)


def _classifier_dropout(config: DNABERT2Config) -> nn.Dropout:
    """Dropout before a classifier: its own probability, or the hidden one where it has none."""
    own = config.classifier_dropout
    return nn.Dropout(config.hidden_dropout_prob if own is None else own)


class DNABERT2ForSequenceClassification(DNABERT2PreTrainedModel):
    """A linear classifier on the pooled [CLS]."""

    def __init__(self, config: DNABERT2Config) -> None:
        super().__init__(config)
        self.bert = DNABERT2Model(config)
        self.dropout = _classifier_dropout(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Logits (B, num_labels) and, with `labels` (B,), the mean cross-entropy."""
        hidden, packing = self.bert.encode(input_ids, attention_mask, token_type_ids)
        pooled = self.bert.pooler(hidden[packing.first_tokens()])
        logits = self.classifier(self.dropout(pooled))
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


class DNABERT2VariantHead(nn.Module):
    """[ref, alt, alt - ref, tissue] -> two logits, through one hidden layer."""

    def __init__(self, config: DNABERT2Config) -> None:
        super().__init__()
        self.dense = nn.Linear(
            3 * config.hidden_size + len(config.tissues or []), config.hidden_size
        )
        self.dropout = _classifier_dropout(config)
        self.out = nn.Linear(config.hidden_size, 2)

    def forward(
        self, ref: torch.Tensor, alt: torch.Tensor, tissue: torch.Tensor | None
    ) -> torch.Tensor:
        features = [ref, alt, alt - ref] + ([] if tissue is None else [tissue.to(ref.dtype)])
        return self.out(self.dropout(F.gelu(self.dense(torch.cat(features, dim=-1)))))  # B 2


class DNABERT2ForVariantEffect(DNABERT2PreTrainedModel):
    """Both alleles through one encoder, read out around the variant (protocol `paired`)."""

    def __init__(self, config: DNABERT2Config) -> None:
        super().__init__(config)
        self.bert = DNABERT2Model(config, add_pooling_layer=False)
        self.head = DNABERT2VariantHead(config)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        readout_start: torch.Tensor | None = None,
        readout_stop: torch.Tensor | None = None,
        tissue: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Logits (B, 2) of B variants and, with `labels` (B,), the mean cross-entropy.

        `input_ids`, `attention_mask` (2B, L): the reference alleles, then the alternative ones.
        `readout_start`, `readout_stop` (2B,): token indices into L, half-open, over which the last
        hidden state is averaged. `tissue` (B, tissues): one-hot, None where the task has none.
        Raises `LongscaleError` for an empty readout, one outside the real tokens, or a tissue
        vector that does not fit `config.tissues`.
        """
        _check_tissue(tissue, len(self.config.tissues or []))
        hidden, packing = self.bert.encode(input_ids, attention_mask)
        readout = _mean_readout(packing, hidden, readout_start, readout_stop)  # 2B D
        ref, alt = readout.chunk(2)
        logits = self.head(ref, alt, tissue)
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


def _check_tissue(tissue: torch.Tensor | None, tissues: int) -> None:
    width = 0 if tissue is None else tissue.shape[-1]
    if width != tissues:
        raise LongscaleError(
            f"tissue: the batch has {width} tissues, the model's config {tissues};"
            " they must be equal."
        )


def _mean_readout(
    packing: Packing, hidden: torch.Tensor, start: torch.Tensor, stop: torch.Tensor
) -> torch.Tensor:
    """Mean over the tokens [start, stop) of each batch row, (rows, D), from packed `hidden`."""
    row, column = packing.tokens // packing.shape[1], packing.tokens % packing.shape[1]
    inside = ((column >= start[row]) & (column < stop[row])).nonzero().squeeze(1)
    tokens = torch.bincount(row[inside], minlength=packing.shape[0])
    wrong = ((tokens != stop - start) | (tokens == 0)).nonzero()
    if len(wrong):
        at = int(wrong[0])
        raise LongscaleError(
            f"readout: row {at} reads tokens {int(start[at])} to {int(stop[at])}, which is empty "
            "or outside its real tokens; it must be a half-open range within them."
        )
    read = hidden[inside].float()  # sums of half-precision numbers would lose digits
    summed = read.new_zeros(packing.shape[0], hidden.shape[1]).index_add(0, row[inside], read)
    return (summed / tokens[:, None]).to(hidden.dtype)


@torch.no_grad()
def match_alpha(
    model: DNABERT2PreTrainedModel, batches: Iterable[Mapping[str, torch.Tensor]]
) -> None:
    """Set alpha of a `cos-matched` model, per layer and head, to the mean of |q||k| / sqrt(d).

    The mean is over all pairs of real tokens of a sequence in `batches` (mappings with `input_ids`
    and `attention_mask`, both (B, L)), in the model as it is with `dot` attention: `model` holds
    the weights of a checkpoint that was trained with `dot`. Raises `LongscaleError` if the model is
    not `cos-matched` or there are no batches.
    """
    attentions = [layer.attention.self for layer in model.base_model.encoder.layer]
    if not all(attention.attention.learned for attention in attentions):
        raise LongscaleError(
            f"attention: {model.config.attention!r} has no alpha to match; load the checkpoint "
            "with attention cos-matched."
        )
    matched, training = attentions[0].attention, model.training
    model.eval()
    for attention in attentions:
        attention.attention = DOT
    try:
        means = _mean_norm_products(model, attentions, batches)
    finally:
        for attention in attentions:
            attention.attention = matched
        model.train(training)
    for attention, mean in zip(attentions, means, strict=True):
        attention.alpha.copy_(mean)


def _mean_norm_products(
    model: DNABERT2PreTrainedModel,
    attentions: list[DNABERT2SelfAttention],
    batches: Iterable[Mapping[str, torch.Tensor]],
) -> list[torch.Tensor]:
    """Mean of |q||k| / sqrt(d) over pairs of tokens, one tensor (H,) per attention layer."""
    device = model.device
    qkvs: dict[int, torch.Tensor] = {}
    totals = torch.zeros(len(attentions), attentions[0].heads, device=device, dtype=torch.float64)
    pairs = 0.0
    hooks = [
        attention.Wqkv.register_forward_hook(
            lambda _module, _args, output, index=index: qkvs.__setitem__(index, output)
        )
        for index, attention in enumerate(attentions)
    ]
    try:
        for batch in batches:
            _, packing = model.base_model.encode(
                batch["input_ids"].to(device), batch["attention_mask"].to(device)
            )
            pairs += float(packing.lengths.square().sum())
            for index, attention in enumerate(attentions):
                q, k, _ = attention.heads_of(qkvs[index].double())
                norms = torch.stack([q.norm(dim=-1), k.norm(dim=-1)], dim=1)  # T 2 H
                sums = norms.new_zeros(packing.shape[0], 2, attention.heads)
                sums = sums.index_add(0, packing.sequence, norms)
                totals[index] += (sums[:, 0] * sums[:, 1]).sum(0) / math.sqrt(attention.head_dim)
    finally:
        for hook in hooks:
            hook.remove()
    if not pairs:
        raise LongscaleError("match_alpha: there are no batches; give at least one.")
    return list(totals / pairs)
