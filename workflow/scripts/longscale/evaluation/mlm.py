"""Masked-LM accuracy of a checkpoint at one length, for every position scheme and length rule.

Protocols:

* `fixed-target`: the same target tokens at every length, in the middle of each document, while the
  context grows around them; up to nine of 64 are masked in one forward pass, the same ones at every
  length.
* `released`: what the released scripts do: every position of the first tokens of each document
  masked in turn, a document that is too short repeated until it is long enough.

Positions are 0-based, in tokens.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from longscale.attention.positions import CannotRunError
from longscale.attention.rules import length_rule
from longscale.errors import LongscaleError
from longscale.evaluation.mlm_scores import NON_FINITE_LOSS
from longscale.models.characters import SpecialIds, encode_texts
from longscale.models.gau_alpha import GAUAlphaForMaskedLM
from longscale.tasks.corpora import Document as Text

MOST_PER_PASS = 9  # of a span of the training length; the model was trained with 15% masked
Arm = tuple[str, str]  # scheme, rule
Multipliers = Mapping[str, Mapping[int, torch.Tensor]]  # scheme, length -> (layers, heads)


@dataclass(frozen=True)
class Document:
    """A test document: its name and its token ids (tokens,) int64."""

    name: str
    ids: np.ndarray


@dataclass(frozen=True)
class Pass:
    """Sequences of one length that are masked at the same places: one forward pass.

    `ids` (B, n) before masking; `rows` (R,), ascending: where the masks are; `documents` (B,) their
    names;
    `targets` (B, R): the positions of the rows in their documents; `scored` (B, R): which of them
    count (a token that the vocabulary does not have cannot be predicted).
    """

    ids: np.ndarray
    rows: np.ndarray
    documents: np.ndarray
    targets: np.ndarray
    scored: np.ndarray


def target_offsets(span: int, groups: int, per_pass: int = MOST_PER_PASS) -> list[np.ndarray]:
    """Offsets in a span of `span` tokens that are masked together, one array per forward pass.

    `groups` sets of up to nine targets, evenly spaced within a set and the sets within each other;
    `per_pass` splits each further without changing the targets. Raises `LongscaleError` for more
    groups than the spacing has room for.
    """
    spacing = max(1, span // MOST_PER_PASS)
    if not 1 <= groups <= spacing:
        raise LongscaleError(
            f"mlm.evaluation.groups is {groups}, but a span of {span} tokens holds 1 to {spacing}"
        )
    passes = []
    for group in range(groups):
        offsets = np.arange(group * spacing // groups, span, spacing)[:MOST_PER_PASS]
        parts = -(-len(offsets) // min(per_pass, MOST_PER_PASS))
        passes.extend(offsets[part::parts] for part in range(parts))
    return passes


def fixed_target_passes(
    documents: Sequence[Document],
    length: int,
    *,
    span: int,
    longest: int,
    groups: int,
    special: SpecialIds,
    per_pass: int = MOST_PER_PASS,
    batch_tokens: int = 8192,
) -> Iterator[Pass]:
    """The forward passes of protocol `fixed-target` at `length` tokens.

    The targets lie in the `span` tokens around the middle of each document; the context of
    `length` >= `span` tokens has the same middle. `longest` is the longest length of the study:
    a document must have so many tokens whatever the length, so all lengths have the same targets.
    """
    for document in documents:
        if len(document.ids) < longest:
            raise LongscaleError(
                f"document {document.name!r} has {len(document.ids)} tokens, but a test document "
                f"needs the longest length of the study, {longest}"
            )
    batch = max(1, batch_tokens // length)
    for offsets in target_offsets(span, groups, per_pass):
        rows = offsets + length // 2 - span // 2
        for start in range(0, len(documents), batch):
            part = documents[start : start + batch]
            starts = np.array([len(document.ids) // 2 - length // 2 for document in part])
            ids = np.stack([d.ids[at : at + length] for d, at in zip(part, starts, strict=True)])
            yield Pass(
                ids,
                rows,
                np.array([document.name for document in part]),
                starts[:, None] + rows,
                ~np.isin(ids[:, rows], special.all),
            )


def released_passes(
    documents: Sequence[Document],
    length: int,
    *,
    special: SpecialIds,
    batch_tokens: int = 8192,
) -> Iterator[Pass]:
    """The forward passes of protocol `released` at `length` tokens: one masked token in each."""
    tiled = np.stack([np.resize(document.ids, length) for document in documents])
    names = np.array([document.name for document in documents])
    batch = max(1, batch_tokens // length)
    for position in range(length):
        rows = np.array([position])
        for start in range(0, len(documents), batch):
            ids = tiled[start : start + batch]
            targets = np.full((len(ids), 1), position)
            scored = ~np.isin(ids[:, rows], special.all)
            yield Pass(ids, rows, names[start : start + batch], targets, scored)


def encode_documents(tokenizer: Tokenizer, texts: Sequence[Text]) -> list[Document]:
    """The documents as token ids, without special tokens."""
    encoded = encode_texts(tokenizer, [text.text for text in texts])
    return [
        Document(text.name, ids.astype(np.int64)) for text, ids in zip(texts, encoded, strict=True)
    ]


def passes_of(
    protocol: str,
    documents: Sequence[Document],
    length: int,
    *,
    span: int,
    longest: int,
    special: SpecialIds,
    options: Mapping[str, int],
) -> Callable[[], Iterator[Pass]]:
    """What makes the forward passes of a protocol, once for every arm.

    `options`: `groups`, `targets_per_pass` and `batch_tokens` of `mlm.evaluation`. Protocol
    `selection` is `fixed-target` on development documents.
    """
    batch_tokens = options["batch_tokens"]
    if protocol == "released":
        return lambda: released_passes(
            documents, length, special=special, batch_tokens=batch_tokens
        )
    return lambda: fixed_target_passes(
        documents,
        length,
        span=span,
        longest=longest,
        groups=options["groups"],
        special=special,
        per_pass=options["targets_per_pass"],
        batch_tokens=batch_tokens,
    )


@torch.no_grad()
def score_pass(
    model: GAUAlphaForMaskedLM, one: Pass, mask_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """Loss in nats, float32, and whether the likeliest token is the true one: (B, R) each."""
    ids = torch.from_numpy(one.ids).to(model.device)
    rows = torch.from_numpy(one.rows).to(model.device)
    masked = ids.clone()
    masked[:, rows] = mask_id
    logits = model(masked, rows=rows).logits.float()  # B R V
    true = ids[:, rows]
    loss = F.cross_entropy(logits.transpose(1, 2), true, reduction="none")
    return loss.cpu().numpy(), (logits.argmax(-1) == true).cpu().numpy()


def score_arms(
    model: GAUAlphaForMaskedLM,
    passes: Callable[[], Iterable[Pass]],
    arms: Sequence[Arm],
    length: int,
    mask_id: int,
    *,
    measured: Multipliers | None = None,
    report: Callable[[str], None] = print,
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Score every arm on the same passes.

    `measured`: scheme -> length -> multipliers (layers, 1), for measured rules. Returns one
    row per arm and target token (columns `document, target, token, scheme, rule, loss, correct`)
    and, for arms that cannot run at this length, `scheme/rule` -> the reason. Where the rules of a
    scheme have the same multipliers (up to the training length), they are computed once.
    """
    frames: list[pd.DataFrame] = []
    not_run: dict[str, str] = {}
    known: dict[bytes, pd.DataFrame] = {}
    for scheme, rule in arms:
        try:
            signature = _use(model, scheme, rule, length, measured or {})
        except CannotRunError as error:
            not_run[f"{scheme}/{rule}"] = str(error)
            report(f"{scheme}/{rule} cannot run at {length} tokens: {error}")
            continue
        if signature not in known:
            known[signature] = _score(model, passes(), mask_id)
            report(f"{scheme}/{rule} at {length} tokens: {_summary(known[signature])}")
        frames.append(known[signature].assign(scheme=scheme, rule=rule))
    columns = ["document", "target", "token", "scheme", "rule", "loss", "correct"]
    table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)
    return table[columns], not_run


def arm_flags(
    scores: pd.DataFrame,
    length: int,
    unmatched: Mapping[str, Mapping[int, list[str]]] | None = None,
) -> dict[str, list[str]]:
    """`scheme/rule` -> flags of what `score_arms` gave: losses that are not finite, and those that
    came with the measured multipliers (`unmatched`: scheme -> length -> flags).
    """
    flags = {}
    for (scheme, rule), rows in scores.groupby(["scheme", "rule"], sort=False):
        found = [] if np.isfinite(rows["loss"]).all() else [NON_FINITE_LOSS]
        if length_rule(rule).measured and unmatched:
            found += unmatched[scheme][length]
        if found:
            flags[f"{scheme}/{rule}"] = found
    return flags


def _use(
    model: GAUAlphaForMaskedLM,
    scheme: str,
    rule: str,
    length: int,
    measured: Multipliers,
) -> bytes:
    """Set the arm; what the model computes at `length` is a function of what is returned."""
    multipliers = None
    if length_rule(rule).measured:
        try:
            multipliers = measured[scheme][length].flatten().to(model.device)
        except KeyError:
            raise LongscaleError(
                f"rule {rule!r} was not measured for scheme {scheme!r} at {length} tokens"
            ) from None
    model.set_rule(rule, multipliers)
    model.set_scheme(scheme)
    around = model.base_model.surroundings(length)
    layers = range(len(model.base_model.encoder.layer))
    parts = [around.multiplier(layer) for layer in layers]
    for piece in around.geometry.pieces:
        parts += [piece.queries, piece.keys]
    found = hashlib.sha256(repr(replace(around.geometry, pieces=(), theta=None)).encode())
    for piece in around.geometry.pieces:
        limits = (piece.low, piece.high, piece.first_keys, piece.first_queries)
        found.update(repr((*limits, piece.unpaired_keys)).encode())
    for part in [*parts, around.geometry.theta]:
        found.update(b"-" if part is None else part.cpu().numpy().tobytes())
    return found.digest()


def _score(model: GAUAlphaForMaskedLM, passes: Iterable[Pass], mask_id: int) -> pd.DataFrame:
    parts = []
    for one in passes:
        loss, correct = score_pass(model, one, mask_id)
        keep = one.scored.ravel()
        parts.append(
            pd.DataFrame(
                {
                    "document": np.repeat(one.documents, len(one.rows))[keep],
                    "target": one.targets.ravel()[keep],
                    "token": one.ids[:, one.rows].ravel()[keep],
                    "loss": loss.ravel()[keep],
                    "correct": correct.ravel()[keep],
                }
            )
        )
    table = pd.concat(parts, ignore_index=True)
    return table.sort_values(["document", "target"], ignore_index=True)


def _summary(table: pd.DataFrame) -> str:
    return f"accuracy {table['correct'].mean():.3f}, loss {table['loss'].mean():.3f}"
