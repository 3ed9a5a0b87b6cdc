"""Measured multipliers of a checkpoint: the file `entropy_matched.json`.

    {
      "n_train": 64,                  tokens that the checkpoint was trained at
      "unit": "tokens",               what the lengths below are in: tokens or bp
      "documents": 4,                 held-out documents (or "windows") that were measured
      "sha256": "...",                checksum of their tokens
      "schemes": {"rope": {"128": {
        "beta": [[1.08], [1.21]],     of each layer and head
        "entropy": [[2.51], [1.93]],  what beta gives, mean over queries, in nats
        "matched": [[true], [true]]   whether that is the entropy at the training length
      }}}
    }

DNABERT-2 has one scheme, `alibi`, and its lengths are those of windows, in bp.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from longscale.errors import LongscaleError
from longscale.evaluation.entropy import HIGHEST, LOWEST, Match
from longscale.files import atomic_path

UNITS = ("tokens", "bp")
UNMATCHED = "unmatched"  # the flag of an arm whose entropy no multiplier restores
ALIBI = "alibi"  # the scheme of DNABERT-2
MATCHED_RULE = "entropy-matched"

Matches = list[list[Match]]  # of each layer and head


@dataclass(frozen=True)
class Measured:
    """What a file holds; `matches` is scheme -> length in `unit` -> layers of heads."""

    path: Path
    n_train: float
    unit: str
    matches: Mapping[str, Mapping[int, Matches]]

    @property
    def multipliers(self) -> dict[str, dict[int, torch.Tensor]]:
        """Scheme -> length -> (layers, heads), float32, as `set_rule` takes it."""
        return {
            scheme: {
                length: torch.tensor([[match.beta for match in layer] for layer in layers])
                for length, layers in lengths.items()
            }
            for scheme, lengths in self.matches.items()
        }

    @property
    def flags(self) -> dict[str, dict[int, list[str]]]:
        """Scheme -> length -> `["unmatched"]` if a head's entropy was not restored, else `[]`."""
        return {
            scheme: {
                length: [] if all(m.matched for layer in layers for m in layer) else [UNMATCHED]
                for length, layers in lengths.items()
            }
            for scheme, lengths in self.matches.items()
        }

    def at(self, scheme: str, length: int) -> tuple[torch.Tensor, list[str]]:
        """Multipliers (layers, heads) and flags; `LongscaleError` where there is no measurement."""
        known = self.matches.get(scheme, {})
        if length not in known:
            lengths = ", ".join(map(str, known)) or "none"
            raise LongscaleError(
                f"{self.path}: there are no multipliers of scheme {scheme!r} at {length} "
                f"{self.unit}; measured are: {lengths}"
            )
        return self.multipliers[scheme][length], self.flags[scheme][length]


def describe_matches(matches: Matches) -> str:
    """The range of the multipliers and how many are unmatched, for the log."""
    heads = [match for layer in matches for match in layer]
    betas = [match.beta for match in heads]
    unmatched = sum(not match.matched for match in heads)
    return (
        f"multipliers {min(betas):.2f} to {max(betas):.2f}, {unmatched} of {len(heads)} unmatched"
    )


def digest_tokens(sequences: Iterable[np.ndarray]) -> str:
    """SHA-256 of token ids (tokens,), sequence by sequence, each with its length before it."""
    total = hashlib.sha256()
    for ids in sequences:
        total.update(len(ids).to_bytes(8, "big") + ids.astype("<i8").tobytes())
    return total.hexdigest()


def write_measured(
    matches: Mapping[str, Mapping[int, Matches]],
    path: str | Path,
    *,
    n_train: float,
    unit: str,
    facts: Mapping[str, Any],
) -> None:
    """Write the file (see above), whole or not at all.

    `matches`: scheme -> length in `unit` -> layers of heads. `facts`: what else the file says, at
    least `sha256` and `documents` or `windows`.
    """
    schemes = {
        scheme: {str(length): _columns(layers) for length, layers in lengths.items()}
        for scheme, lengths in matches.items()
    }
    content = {"n_train": n_train, "unit": unit, **facts, "schemes": schemes}
    with atomic_path(path) as part:
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _columns(layers: Matches) -> dict[str, list[list[Any]]]:
    return {
        name: [[getattr(match, name) for match in layer] for layer in layers]
        for name in ("beta", "entropy", "matched")
    }


def read_measured(path: str | Path) -> Measured:
    """Read what `write_measured` wrote; `LongscaleError` naming what is not as it must be."""
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LongscaleError(
            f"{path}: not a readable file of measured multipliers ({error})"
        ) from error
    if not isinstance(content, dict):
        raise LongscaleError(f"{path}: must hold a JSON object with n_train, unit and schemes")
    n_train, unit = content.get("n_train"), content.get("unit")
    if not _is_number(n_train) or n_train < 2:
        raise LongscaleError(f"{path}: 'n_train' is {n_train!r}, it must be a number of tokens")
    if unit not in UNITS:
        raise LongscaleError(f"{path}: 'unit' is {unit!r}, it must be {' or '.join(UNITS)}")
    schemes = content.get("schemes")
    if not isinstance(schemes, dict) or not all(isinstance(s, dict) for s in schemes.values()):
        raise LongscaleError(f"{path}: 'schemes' must map a scheme and a length to multipliers")
    matches = {
        scheme: {
            _length(length, scheme, path): _read_layers(cell, f"{path}: {scheme} at {length}")
            for length, cell in lengths.items()
        }
        for scheme, lengths in schemes.items()
    }
    _check_one_shape(matches, path)
    return Measured(path, n_train, unit, matches)


def _length(text: str, scheme: str, path: Path) -> int:
    if not text.isdecimal():
        raise LongscaleError(f"{path}: {scheme} has the length {text!r}, it must be whole")
    return int(text)


def _read_layers(cell: Any, where: str) -> Matches:
    """The matches of one scheme and length; `where` names them in errors."""
    columns = [cell.get(name) if isinstance(cell, dict) else None for name in _columns([])]
    shapes = [_shape(column) for column in columns]
    if None in shapes or len(set(shapes)) > 1:
        raise LongscaleError(
            f"{where}: 'beta', 'entropy' and 'matched' must be lists of the same layers and heads"
        )
    rows = [list(zip(*of_layer, strict=True)) for of_layer in zip(*columns, strict=True)]
    for beta, entropy, matched in (head for layer in rows for head in layer):
        if not _is_number(beta) or not LOWEST <= beta <= HIGHEST:
            raise LongscaleError(
                f"{where}: 'beta' holds {beta!r}, a multiplier is between {LOWEST} and {HIGHEST}"
            )
        if not _is_number(entropy) or not isinstance(matched, bool):
            raise LongscaleError(
                f"{where}: 'entropy' holds {entropy!r} and 'matched' {matched!r}, they must be a "
                "number and true or false"
            )
    return [[Match(*head) for head in layer] for layer in rows]


def _check_one_shape(matches: Mapping[str, Mapping[int, Matches]], path: Path) -> None:
    shapes = {_shape(layers) for lengths in matches.values() for layers in lengths.values()}
    if len(shapes) > 1:
        raise LongscaleError(f"{path}: all multipliers must be of the same layers and heads")


def _shape(rows: Any) -> tuple[int, ...] | None:
    """Heads of each layer; None for what is no list of lists."""
    if not isinstance(rows, Sequence) or not all(isinstance(row, list) for row in rows):
        return None
    return tuple(len(row) for row in rows)


def _is_number(value: Any) -> bool:
    is_real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_real and math.isfinite(value)
