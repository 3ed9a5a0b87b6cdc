"""Frozen encoders: windows of bases in, hidden states with their places in bp out.

An encoder of any architecture is an object of the protocol `Encoder`, which a module in `adapters/`
makes. To add one, write a module there and a row of `adapters.ENCODERS`.
"""

import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from longscale.attention.geometry import ntk_base
from longscale.errors import LongscaleError
from longscale.models.token_spans import TokenSpans

EXTENSIONS = ("none", "ntk")
SAMPLE_BP = 3000


class Encoder(Protocol):
    """A model that is not trained any further.

    width: D, of a hidden state. bp_per_token: about. trained_tokens: the longest input, special
    tokens counted, that it was trained on, None where it is not known. pad_id: fills batches up.
    mask_id: hides a token from a masked language model, None where there is none.
    """

    width: int
    bp_per_token: float
    trained_tokens: int | None
    pad_id: int
    mask_id: int | None
    model: torch.nn.Module

    def tokenise(self, windows: np.ndarray) -> TokenSpans:
        """Tokens of windows (rows, window_bp), uint8 ASCII, upper case, with their places in bp."""
        ...

    def hidden(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Last hidden state (B, L, D) of ids and attention mask (B, L)."""
        ...

    def logits(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits (B, L, V) of a masked language model; raises where the encoder is none."""
        ...

    def set_rule(self, rule: str, measured: torch.Tensor | None = None) -> None:
        """Use a length rule from now on; raises where the model has no attention to put it on."""
        ...

    def extend(self, stretch: float) -> None:
        """Rescale the rotary base for inputs `stretch` times as long as the trained ones; raises
        where the model has no rotary positions.
        """
        ...


def load_encoder(
    architecture: str, folder: str | Path, *, logits: bool = False, device: str = "cpu"
) -> Encoder:
    """The checkpoint in `folder` as a frozen encoder; `logits`: with its masked-LM head.

    Raises `LongscaleError` for an architecture that is not in `ENCODERS`, and as the architecture's
    own loading does.
    """
    from longscale.models.adapters import ENCODERS  # they import this module

    if architecture not in ENCODERS:
        raise LongscaleError(
            f"architecture: {architecture!r} has no encoder; known are {', '.join(ENCODERS)}"
        )
    encoder = ENCODERS[architecture](Path(folder), logits=logits)
    encoder.model.to(device).eval().requires_grad_(False)
    return encoder


def open_encoder(
    architecture: str, files: Iterable[str | Path], *, logits: bool = False, device: str = "cpu"
) -> Encoder:
    """`load_encoder` for a checkpoint whose files lie in several folders (or for one folder)."""
    with tempfile.TemporaryDirectory() as folder:
        for path in encoder_files(files):
            Path(folder, path.name).symlink_to(path)
        return load_encoder(architecture, folder, logits=logits, device=device)


def encoder_files(files: Iterable[str | Path]) -> list[Path]:
    """The files of a checkpoint, absolute and by name; a folder stands for those in it."""
    paths = [Path(path).absolute() for path in files]
    found = [file for path in paths for file in (path.iterdir() if path.is_dir() else [path])]
    return sorted(found, key=lambda path: path.name)


def has_masked_lm(architecture: str, files: Iterable[str | Path]) -> bool:
    """Whether a checkpoint is a masked language model: by its architecture, for `huggingface` by
    what its config.json says that it was saved as.
    """
    if architecture != "huggingface":
        return architecture in ("dnabert2", "gau-alpha", "nucleotide-transformer")
    config = next(path for path in encoder_files(files) if path.name == "config.json")
    saved_as = json.loads(config.read_text()).get("architectures") or []
    return any(name.endswith("ForMaskedLM") for name in saved_as)


def set_extension(encoder: Encoder, extension: str, context_bp: int) -> None:
    """Make `encoder` ready for windows of `context_bp`, for good.

    `none`: as it was trained. `ntk`: where the windows have more tokens than it was trained on, the
    rotary base b (L'/L)^(d/(d-2)) of NTK-aware scaling (Peng et al. 2023, arXiv 2309.00071); the
    Genomics Long-Range Benchmark prints the inverse ratio. Raises `LongscaleError` for another
    name, and where the model's training length is not known.
    """
    if extension not in EXTENSIONS:
        raise LongscaleError(
            f"extension: {extension!r} is not known; it must be one of {', '.join(EXTENSIONS)}"
        )
    if extension == "none":
        return
    if encoder.trained_tokens is None:
        raise LongscaleError(
            "extension: 'ntk' needs the number of tokens that the model was trained on; its "
            "config.json does not tell (n_train)"
        )
    encoder.extend(max(1.0, context_bp / encoder.bp_per_token / encoder.trained_tokens))


def sample_bp_per_token(tokenise: Callable[[np.ndarray], TokenSpans]) -> float:
    """How many bases one token stands for, about: in `SAMPLE_BP` random ones."""
    sample = np.random.default_rng(1).choice(np.frombuffer(b"ACGT", np.uint8), (1, SAMPLE_BP))
    return SAMPLE_BP / float(tokenise(sample).lengths[0])


class NativeEncoder:
    """An `Encoder` of one of our own models; subclasses say how windows become tokens.

    `model`: the bare encoder, or the masked language model around it.
    """

    bp_per_token: float
    pad_id: int
    mask_id: int | None = None

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model

    @property
    def width(self) -> int:
        """D of the hidden states."""
        return self.model.config.hidden_size

    @property
    def trained_tokens(self) -> int | None:
        """n_train of the checkpoint's config."""
        n_train = self.model.config.n_train
        return None if n_train is None else int(n_train)

    def hidden(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Last hidden state (B, L, D)."""
        return self.model.base_model(ids, mask).last_hidden_state

    def logits(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits (B, L, V)."""
        if self.model.base_model is self.model:
            raise LongscaleError(f"{type(self.model).__name__}: has no masked-LM head")
        return self.model(ids, mask).logits

    def set_rule(self, rule: str, measured: torch.Tensor | None = None) -> None:
        """Use a length rule from now on."""
        self.model.set_rule(rule, measured)

    def extend(self, stretch: float) -> None:
        """Rescale the rotary base; raises where there is none."""
        if not hasattr(self.model, "set_rotary_base"):
            raise LongscaleError(
                f"extension: 'ntk' rescales rotary positions, which {type(self.model).__name__} "
                "does not have"
            )
        config = self.model.config
        head_dim = config.hidden_size // config.num_attention_heads
        self.model.set_rotary_base(ntk_base(head_dim, stretch))


def pool_states(
    hidden: torch.Tensor, starts: np.ndarray, stops: np.ndarray, edges: np.ndarray
) -> torch.Tensor:
    """Mean hidden state of stretches of one window, each base counted once: (pieces, D) float32.

    `hidden` (tokens, D); token i spells [starts[i], stops[i]) of the window (special tokens spell
    nothing); piece j is [edges[j, 0], edges[j, 1]), `edges` (pieces, 2), in bp of the window,
    0-based and half-open. A base's state is that of the token which spells it. Raises ValueError
    for a piece that is empty or leaves what the tokens spell.
    """
    low, high = int(edges.min()), int(edges.max())
    used = np.flatnonzero((stops > low) & (starts < high) & (stops > starts))
    if (edges[:, 0] >= edges[:, 1]).any() or not len(used):
        raise ValueError("a piece is empty or outside the window")
    bounds = np.append(starts[used], stops[used[-1]])
    if bounds[0] > low or bounds[-1] < high:
        raise ValueError("a piece leaves what the tokens spell")
    # Sums from the left, in float64: the difference of two of them keeps its digits.
    states = hidden[torch.from_numpy(used).to(hidden.device)].double()
    lengths = torch.from_numpy(np.diff(bounds)).to(hidden.device)
    sums = torch.cat([states.new_zeros(1, states.shape[1]), (states * lengths[:, None]).cumsum(0)])
    token = np.clip(np.searchsorted(bounds, edges, side="right") - 1, 0, len(used) - 1)
    inside = torch.from_numpy(edges - bounds[token]).to(hidden.device)  # bp into that token
    token = torch.from_numpy(token).to(hidden.device)
    upto = sums[token] + states[token] * inside[..., None]  # pieces 2 D
    bp = torch.from_numpy(edges[:, 1] - edges[:, 0]).to(hidden.device)
    return ((upto[:, 1] - upto[:, 0]) / bp[:, None]).float()
