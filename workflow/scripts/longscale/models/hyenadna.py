"""HyenaDNA as a native transformers model, and its tokens, one per character.

HyenaDNA (Nguyen et al. 2023, arXiv 2306.15794) is a causal language model without attention: each
layer convolves with a filter as long as the sequence, which a small network computes from the
distance (Poli et al. 2023, Hyena, arXiv 2302.10866). Parameter names are those of the published
checkpoints (LongSafari/hyenadna-*-hf); `checkpoint.py` knows those of the original code. There is
no dropout here.

Shapes at the ends of lines: B sequences, L tokens, D = d_model, V = vocabulary, padded up to
a multiple of `pad_vocab_size_multiple`.
"""

import math
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from scipy.fft import next_fast_len
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput

from longscale.errors import LongscaleError
from longscale.models.token_spans import TokenSpans, token_spans

# --- tokens -----------------------------------------------------------------------------------

CLS, SEP, BOS, MASK, PAD, RESERVED, UNK = range(7)
CHARACTERS = "ACGTN"  # ids 7 to 11
_IDS = np.full(256, UNK, np.uint16)
_IDS[np.frombuffer(CHARACTERS.encode(), np.uint8)] = UNK + 1 + np.arange(len(CHARACTERS))


def encode_characters(windows: np.ndarray, *, cls: bool = True) -> TokenSpans:
    """Tokens of `windows` (rows, window_bp) uint8 ASCII: [CLS] first, [SEP] last.

    Anything but A, C, G, T and N, lower case too, is [UNK]. The tokenizer of the original code adds
    both special tokens; that of the hub's repositories (`cls` False) adds [SEP] alone.
    """
    row, starts = (index.ravel() for index in np.indices(windows.shape, dtype=np.int32))
    ids = _IDS[windows].ravel()
    return token_spans(windows, row, starts, ids, first=CLS if cls else None, last=SEP)


# --- the network ------------------------------------------------------------------------------

FAST_DECAY, SLOW_DECAY, DECAY_TARGET = 0.3, 1.5, 1e-2  # shares of l_max, and what is left there
DECAY_SHIFT = 0.05
LOWEST_BAND = 1e-4


class HyenaDNAConfig(PreTrainedConfig):
    """Configuration; the defaults are those of hyenadna-small-32k-seqlen-hf.

    `max_seq_len`: l_max, the longest sequence there are filters for. Raises `LongscaleError` for
    an order other than 2 and an `emb_dim` that is not odd and 3 or more.
    """

    model_type = "hyenadna"
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "d_model",
        "num_hidden_layers": "n_layer",
    }

    vocab_size: int = 12
    pad_vocab_size_multiple: int = 8
    d_model: int = 256
    n_layer: int = 4
    d_inner: int = 1024
    max_seq_len: int = 32770
    emb_dim: int = 5
    filter_order: int = 64
    num_inner_mlps: int = 2
    activation_freq: float | int = 10
    hyena_order: int = 2
    short_filter_order: int = 3
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    pad_token_id: int | None = PAD
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: object) -> None:
        super().__post_init__(**kwargs)
        if self.hyena_order != 2:
            raise LongscaleError(
                f"hyena_order: {self.hyena_order} is not known; all published models have 2."
            )
        if self.emb_dim < 3 or self.emb_dim % 2 == 0:
            raise LongscaleError(
                f"emb_dim: {self.emb_dim} must be odd and 3 or more: the time, and a cosine and a "
                "sine for each band."
            )

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding: `vocab_size`, rounded up."""
        multiple = self.pad_vocab_size_multiple
        return -(-self.vocab_size // multiple) * multiple


def causal_convolution(signal: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """y[t] = sum over s <= t of kernel[t - s] signal[s]; (..., L) and (..., L) -> (..., L).

    By FFT, in float32 or better, padded so that nothing wraps around: O(L log L).
    """
    length, wide = signal.shape[-1], torch.promote_types(signal.dtype, torch.float32)
    size = next_fast_len(2 * length - 1, real=True)
    signals, kernels = (torch.fft.rfft(x.to(wide), n=size) for x in (signal, kernel))
    return torch.fft.irfft(signals * kernels, n=size)[..., :length].to(signal.dtype)


class HyenaDNAPositions(nn.Module):
    """What the filter network sees of each distance: t = 0 ... 1, and cosines and sines of it.

    Stored in the checkpoints (some train them), so they are buffers that are read and written.
    """

    def __init__(self, config: HyenaDNAConfig) -> None:
        super().__init__()
        self.register_buffer("z", torch.empty(1, config.max_seq_len, config.emb_dim))
        self.register_buffer("t", torch.empty(1, config.max_seq_len, 1))

    def values(self) -> tuple[torch.Tensor, torch.Tensor]:
        """z = [t, cos(f w), -sin(f w)] and t, of all distances; as at initialisation."""
        _, length, width = self.z.shape
        bands = (width - 1) // 2
        t = torch.linspace(0, 1, length, dtype=torch.float64)[:, None]
        w = 2 * math.pi * torch.arange(length, dtype=torch.float64)[:, None] / length
        angles = torch.linspace(LOWEST_BAND, bands - 1, bands, dtype=torch.float64) * w
        return torch.cat([t, angles.cos(), -angles.sin()], dim=-1)[None].float(), t[None].float()


class HyenaDNASine(nn.Module):
    """sin(freq x), with a frequency per feature."""

    def __init__(self, config: HyenaDNAConfig) -> None:
        super().__init__()
        self.freq = nn.Parameter(torch.empty(1, config.filter_order))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(self.freq * x)


class HyenaDNAModulation(nn.Module):
    """h (exp(-t |delta|) + 0.05): a window whose width differs from feature to feature."""

    def __init__(self, config: HyenaDNAConfig) -> None:
        super().__init__()
        self.register_buffer("deltas", torch.empty(1, 1, config.d_model))

    def values(self) -> torch.Tensor:
        """The decays as at initialisation."""
        slow, fast = (math.log(DECAY_TARGET) / share for share in (SLOW_DECAY, FAST_DECAY))
        return torch.linspace(slow, fast, self.deltas.shape[-1])[None, None]

    def forward(self, h: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return h * (torch.exp(-t * self.deltas.abs()) + DECAY_SHIFT)


class HyenaDNAFilter(nn.Module):
    """The long filter: a network of the distance, modulated; and D, the weight of the input.

    Linear maps stand at even places and one sine, shared by all, between them: its frequencies are
    stored at place 1 (and in some files at 3, 5, ... again).
    """

    def __init__(self, config: HyenaDNAConfig) -> None:
        super().__init__()
        widths = [config.emb_dim, *[config.filter_order] * (config.num_inner_mlps + 1)]
        maps = [nn.Linear(*pair) for pair in pairwise(widths)]
        maps.append(nn.Linear(config.filter_order, config.d_model, bias=False))
        self.bias = nn.Parameter(torch.empty(config.d_model))
        self.pos_emb = HyenaDNAPositions(config)
        self.implicit_filter = nn.ModuleDict(
            {"1": HyenaDNASine(config)}
            | {str(2 * index): linear for index, linear in enumerate(maps)}
        )
        self.modulation = HyenaDNAModulation(config)

    def filter(self, length: int) -> torch.Tensor:
        """The filter at distances 0 ... length - 1, (length, D).

        In full precision even where the products around it are bfloat16: 10 times a rounding error
        is much for the argument of a sine.
        """
        h, t = self.pos_emb.z[0, :length], self.pos_emb.t[0, :length]
        sine, *maps = self.implicit_filter.values()
        with torch.autocast(h.device.type, enabled=False):
            for linear in maps[:-1]:
                h = sine(linear(h))
            return self.modulation(maps[-1](h), t)[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, D, L) convolved, plus D x."""
        convolved = causal_convolution(x, self.filter(x.shape[-1]).T)
        return convolved + self.bias[:, None] * x


class HyenaDNAOperator(nn.Module):
    """W_o (x0 * filter(x1 * v)), with [x0, x1, v] a short causal convolution of W_i x."""

    def __init__(self, config: HyenaDNAConfig) -> None:
        super().__init__()
        inner = (config.hyena_order + 1) * config.d_model
        self.in_proj = nn.Linear(config.d_model, inner)
        self.short_filter = nn.Conv1d(
            inner,
            inner,
            config.short_filter_order,
            groups=inner,
            padding=config.short_filter_order - 1,
        )
        self.filter_fn = HyenaDNAFilter(config)
        self.out_proj = nn.Linear(config.d_model, config.d_model)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        short = self.short_filter(self.in_proj(x).transpose(1, 2))[..., : x.shape[1]]  # B 3D L
        x0, x1, v = short.chunk(3, dim=1)
        return self.out_proj((x0 * self.filter_fn(v * x1)).transpose(1, 2))


class HyenaDNAMLP(nn.Module):
    """W_2 gelu(W_1 x), the tanh approximation."""

    def __init__(self, config: HyenaDNAConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.d_model, config.d_inner)
        self.fc2 = nn.Linear(config.d_inner, config.d_model)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class HyenaDNABlock(nn.Module):
    """x + operator(LN(x)), then x + MLP(LN(x))."""

    def __init__(self, config: HyenaDNAConfig) -> None:
        super().__init__()
        self.mixer = HyenaDNAOperator(config)
        self.norm1 = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.mlp = HyenaDNAMLP(config)
        self.norm2 = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.mixer(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class HyenaDNABackbone(nn.Module):
    """Embeddings, the stack of blocks, a last norm."""

    def __init__(self, config: HyenaDNAConfig) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict(
            {"word_embeddings": nn.Embedding(config.padded_vocab_size, config.d_model)}
        )
        self.layers = nn.ModuleList(HyenaDNABlock(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        x = self.embeddings["word_embeddings"](input_ids)  # B L D
        for layer in self.layers:
            x = layer(x)
        return self.ln_f(x)


class HyenaDNAPreTrainedModel(PreTrainedModel):
    """What the models share: configuration and initialisation."""

    config_class = HyenaDNAConfig
    base_model_prefix = "hyena"

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, HyenaDNAPositions):
            z, t = module.values()
            init.copy_(module.z, z)
            init.copy_(module.t, t)
        elif isinstance(module, HyenaDNAModulation):
            init.copy_(module.deltas, module.values())
        elif isinstance(module, HyenaDNASine):
            init.constant_(module.freq, self.config.activation_freq)
        elif isinstance(module, HyenaDNAFilter):
            init.normal_(module.bias)


class HyenaDNAModel(HyenaDNAPreTrainedModel):
    """The backbone."""

    def __init__(self, config: HyenaDNAConfig) -> None:
        super().__init__(config)
        self.backbone = HyenaDNABackbone(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.backbone.embeddings["word_embeddings"]

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.backbone.embeddings["word_embeddings"] = value

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> BaseModelOutput:
        """Last hidden state (B, L, D) of `input_ids` (B, L).

        The model knows no mask: [PAD] is a token as any other, which no token before it sees. A
        mask (1 at real tokens) is looked at only to see that padding stands on the right. Raises
        `LongscaleError` where it does not, and for more tokens than `max_seq_len`.
        """
        longest = self.config.max_seq_len
        if input_ids.shape[1] > longest:
            raise LongscaleError(
                f"input_ids: {input_ids.shape[1]} tokens are more than max_seq_len {longest}, for "
                "which the checkpoint has filters; shorten the windows or take another checkpoint."
            )
        if attention_mask is not None and (attention_mask.diff(dim=1) > 0).any():
            raise LongscaleError(
                "attention_mask: HyenaDNA reads padding as text, so it must stand behind all real "
                "tokens, where they do not see it."
            )
        return BaseModelOutput(last_hidden_state=self.backbone(input_ids))


class HyenaDNAForCausalLM(HyenaDNAPreTrainedModel):
    """Causal language model; its head is the word embeddings, unless the config says otherwise."""

    _tied_weights_keys: ClassVar[dict[str, str]] = {
        "lm_head.weight": "hyena.backbone.embeddings.word_embeddings.weight"
    }

    def __init__(self, config: HyenaDNAConfig) -> None:
        super().__init__(config)
        self.hyena = HyenaDNAModel(config)
        self.lm_head = nn.Linear(config.d_model, config.padded_vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.lm_head = value

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> CausalLMOutput:
        """Logits (B, L, V): at each token those of the next; arguments as in `HyenaDNAModel`."""
        hidden = self.hyena(input_ids, attention_mask).last_hidden_state
        return CausalLMOutput(logits=self.lm_head(hidden))
