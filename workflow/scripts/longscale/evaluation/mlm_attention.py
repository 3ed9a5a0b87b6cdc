"""What attention does inside a GAU-alpha: entropies and their multipliers, cosines, maps.

Measured on development documents, which are held out from training and from the tables, in windows
around the middle of each.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from longscale.attention.cosine import unit_vectors
from longscale.attention.positions import CannotRunError
from longscale.attention.rules import length_rule
from longscale.errors import LongscaleError
from longscale.evaluation.cosine_peaks import histogram_peak, theory_mean, theory_mode
from longscale.evaluation.entropy import (
    Match,
    gau_entropies,
    gau_queries_keys,
    match_gau,
    position_logits,
)
from longscale.evaluation.mlm_records import COSINE_COLUMNS, ENTROPY_COLUMNS
from longscale.evaluation.multipliers import Matches, describe_matches
from longscale.models.gau_alpha import GAUAlphaForMaskedLM

# Short lengths are measured on so many tokens of a document, in windows side by side: 64 tokens
# would say little about the mean entropy that everything else is matched to.
LEAST_TOKENS = 1024


def long_enough(documents: Sequence[np.ndarray], longest: int) -> list[np.ndarray]:
    """The documents (token ids) of at least `longest` tokens: all lengths use the same ones.

    Raises `LongscaleError` if there is none.
    """
    kept = [ids for ids in documents if len(ids) >= longest]
    if not kept:
        most = max(map(len, documents), default=0)
        raise LongscaleError(
            f"none of the {len(documents)} development documents has {longest} tokens, the longest "
            f"length to measure at; the longest one has {most}"
        )
    return kept


def middle_windows(documents: Sequence[np.ndarray], length: int) -> torch.Tensor:
    """Windows of `length` tokens around the middle of each document: (windows, length) int64.

    One for each document, or as many side by side as 1024 tokens hold (and the document).
    """
    rows = []
    for ids in documents:
        count = max(1, min(LEAST_TOKENS, len(ids)) // length)
        start = (len(ids) - count * length) // 2
        rows.append(ids[start : start + count * length].reshape(count, length))
    return torch.from_numpy(np.concatenate(rows).astype(np.int64))


# ------------------------------------------------------------------------------------- entropy


def match_schemes(
    model: GAUAlphaForMaskedLM,
    documents: Sequence[np.ndarray],
    schemes: Sequence[str],
    lengths: Sequence[int],
    report: Callable[[str], None] = print,
) -> dict[str, dict[int, Matches]]:
    """Scheme -> length in tokens -> the multiplier of each layer (one head).

    The entropies to restore are those under the same scheme at the training length, up to which the
    multipliers are 1. A length at which a scheme cannot run is left out.
    """
    found: dict[str, dict[int, Matches]] = {}
    for scheme in schemes:
        model.set_rule("none")
        model.set_scheme(scheme)
        target = gau_entropies(model, middle_windows(documents, model.config.n_train))
        found[scheme] = {}
        for length in lengths:
            try:
                found[scheme][length] = _match_length(model, documents, length, target)
            except CannotRunError as error:
                report(f"{scheme} cannot run at {length} tokens: {error}")
            else:
                report(f"{scheme} at {length:,} tokens: {describe_matches(found[scheme][length])}")
    return found


def _match_length(
    model: GAUAlphaForMaskedLM,
    documents: Sequence[np.ndarray],
    length: int,
    target: Sequence[float],
) -> Matches:
    windows = middle_windows(documents, length)
    if length > model.config.n_train:
        return [[match] for match in match_gau(model, windows, target)]
    is_target = length == model.config.n_train
    entropies = target if is_target else gau_entropies(model, windows)
    return [[Match(1.0, entropy, True)] for entropy in entropies]


def measure_entropies(
    model: GAUAlphaForMaskedLM,
    documents: Sequence[np.ndarray],
    rules: Sequence[str],
    lengths: Sequence[int],
    matched: dict[int, Matches],
) -> pd.DataFrame:
    """Mean entropy, in nats, of each layer at each length under each rule: `ENTROPY_COLUMNS`.

    The scheme is the one that the model was trained with; `matched`: its measured multipliers by
    length. A length without them, at which the scheme cannot run, is left out.
    """
    model.set_scheme(model.config.scheme)
    rows = []
    for length in lengths:
        if length not in matched:
            continue
        windows = middle_windows(documents, length)
        entropies_of = {}  # by multiplier: up to n_train, most rules have the same
        if length <= model.config.n_train:
            model.set_rule("none")
            entropies_of[_factor(model, length)] = _entropies(matched[length])
        for rule in rules:
            if length_rule(rule).measured:
                entropies = _entropies(matched[length])
            else:
                model.set_rule(rule)
                factor = _factor(model, length)
                if factor not in entropies_of:
                    entropies_of[factor] = gau_entropies(model, windows)
                entropies = entropies_of[factor]
            rows += [(layer, length, rule, value) for layer, value in enumerate(entropies)]
    model.set_rule("none")
    return pd.DataFrame(rows, columns=ENTROPY_COLUMNS)


def _factor(model: GAUAlphaForMaskedLM, length: int) -> bytes:
    """The rule's multiplier of every query, as a key."""
    return model.base_model.surroundings(length).multiplier(0).cpu().numpy().tobytes()


def _entropies(matches: Matches) -> list[float]:
    return [head.entropy for (head,) in matches]


# ------------------------------------------------------------------------------ cosines and maps


@dataclass(frozen=True)
class LayerView:
    """One layer's attention over whole windows.

    `cosine`: of query and key before rotation; `before`, `after`: their logits before and after the
    position scheme, -inf where a key is not attended; each (windows, n, n). `alpha`: the scale of
    cosine attention, None for the dot product.
    """

    alpha: float | None
    cosine: torch.Tensor
    before: torch.Tensor
    after: torch.Tensor


@torch.no_grad()
def view_layers(model: GAUAlphaForMaskedLM, windows: torch.Tensor) -> Iterator[LayerView]:
    """What each layer in turn does with `windows` (windows, n), under the scheme that the model was
    trained with and no length rule.
    """
    model.set_rule("none")
    model.set_scheme(model.config.scheme)
    windows = windows.to(model.device)
    around = model.base_model.surroundings(windows.shape[1])
    rows = torch.arange(windows.shape[1], device=model.device)
    x = model.base_model.embeddings(windows)
    for layer in model.base_model.encoder.layer:
        q, k = gau_queries_keys(layer, x, around)
        moved = position_logits(q, k, around, layer.gau.bias_slope(around), rows)
        after = moved.logits if moved.bias is None else moved.logits + moved.bias
        cosine = unit_vectors(q) @ unit_vectors(k).transpose(1, 2)
        attention = layer.gau.attention
        alpha = float(layer.gau.alpha) if attention.learned else attention.alpha
        yield LayerView(alpha, cosine, q @ k.transpose(1, 2), after)
        x = layer(x, around)


def measure_cosines(model: GAUAlphaForMaskedLM, windows: torch.Tensor) -> pd.DataFrame:
    """Where the cosines of queries and keys before RoPE lie, layer by layer: `COSINE_COLUMNS`.

    Over all pairs of each of `windows` (windows, n): `peak` of the histogram, and the same, and the
    mean, weighted by attention. `theory_mode` and `theory_mean` are for random keys; `alpha` and
    they are NaN for the dot product.
    """
    d = model.config.attention_key_size
    rows = []
    for layer, view in enumerate(view_layers(model, windows)):
        cosines = view.cosine.double().cpu().numpy()
        weights = torch.softmax(view.after.double(), dim=-1).cpu().numpy()
        alpha = math.nan if view.alpha is None else view.alpha
        rows.append(
            {
                "alpha": alpha,
                "layer": layer,
                "peak": histogram_peak(cosines),
                "weighted_peak": histogram_peak(cosines, weights),
                "weighted_mean": float((cosines * weights).sum() / weights.sum()),
                "theory_mode": theory_mode(alpha, d),
                "theory_mean": theory_mean(alpha, d),
            }
        )
    return pd.DataFrame(rows)[COSINE_COLUMNS]


def attention_maps(model: GAUAlphaForMaskedLM, window: torch.Tensor) -> dict[str, np.ndarray]:
    """Logits of one window (n,) `before` and `after` RoPE: (layers, n, n) float32, NaN where a key
    is not attended.
    """
    views = list(view_layers(model, window[None]))
    maps = {
        "before": torch.cat([view.before for view in views]),
        "after": torch.cat([view.after for view in views]),
    }
    return {
        name: values.masked_fill(values.isinf(), math.nan).cpu().numpy()
        for name, values in maps.items()
    }
