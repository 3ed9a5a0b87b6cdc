"""Score files of the masked-language-model branch: one parquet per checkpoint and length.

A row is a target (a masked token) under one position scheme and one length rule: the loss of its
true token in nats, and whether the model's first guess was right. The columns are `document`,
`target` (0-based position of the token in its document), `token` (its id), `scheme`, `rule`,
`loss` and `correct`. All arms of a file, scheme x rule, hold the same targets.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from longscale.errors import LongscaleError
from longscale.evaluation.scores import METADATA_KEY, is_list_of_strings, read_with_provenance
from longscale.files import atomic_path

PROTOCOLS = ("fixed-target", "selection", "released")
TARGET_COLUMNS = ["document", "target", "token"]
MLM_COLUMNS = [*TARGET_COLUMNS, "scheme", "rule", "loss", "correct"]
NON_FINITE_LOSS = "non_finite_loss"

_TRAINING = r"([^/]+)/([^/]+)/(\d+)/([^/]+)/([^/]+)/seed(\d+)/"


@dataclass(frozen=True)
class MLMTraining:
    """The place of one training in the study; `train_length` is in tokens."""

    corpus: str
    model: str
    train_length: int
    attention: str
    trained_scheme: str
    seed: int

    @classmethod
    def from_path(cls, path: str | Path) -> Self:
        """Read the place from a file below `.../{corpus}/{model}/{train_length}/{attention}/
        {trained_scheme}/seed{seed}/`.

        Raises:
            LongscaleError: the path does not lie in such a folder.
        """
        match = re.search(_TRAINING, Path(path).as_posix())
        if match is None:
            raise LongscaleError(
                f"{path}: the path of what a training gave must lie in {{corpus}}/{{model}}/"
                "{train_length}/{attention}/{trained_scheme}/seed{seed}/"
            )
        corpus, model, train_length, attention, trained_scheme, seed = match.groups()
        return cls(corpus, model, int(train_length), attention, trained_scheme, int(seed))


@dataclass(frozen=True)
class MLMCell:
    """One score file and its place in the study; `train_length` and `length` are in tokens."""

    path: Path
    corpus: str
    model: str
    train_length: int
    attention: str
    trained_scheme: str
    seed: int
    protocol: str
    length: int

    @classmethod
    def from_path(cls, path: str | Path) -> Self:
        """Read the place from `.../{corpus}/{model}/{train_length}/{attention}/{trained_scheme}/
        seed{seed}/{protocol}/{length}.parquet`.

        Raises:
            LongscaleError: the path does not end like that, or the protocol is unknown.
        """
        path = Path(path)
        match = re.search(_TRAINING + r"([^/]+)/(\d+)\.parquet$", path.as_posix())
        if match is None or match[7] not in PROTOCOLS:
            raise LongscaleError(
                f"{path}: the path of a masked-language-model score file must end in {{corpus}}/"
                "{model}/{train_length}/{attention}/{trained_scheme}/seed{seed}/{protocol}/"
                f"{{length}}.parquet, with the protocol {' or '.join(PROTOCOLS)}"
            )
        training = MLMTraining.from_path(match.group())
        return cls(path, **vars(training), protocol=match[7], length=int(match[8]))


@dataclass(frozen=True)
class AlignedArms:
    """The rows of a score file with the targets side by side.

    arms: (scheme, rule), sorted.
    targets: the columns `TARGET_COLUMNS`, sorted by document and position.
    loss, correct: (arms, targets) float32 in nats, bool.
    """

    arms: list[tuple[str, str]]
    targets: pd.DataFrame
    loss: np.ndarray
    correct: np.ndarray

    @cached_property
    def finite(self) -> np.ndarray:
        """(arms,) whether every loss of the arm is a finite number."""
        return np.isfinite(self.loss).all(axis=1)


def write_mlm_scores(frame: pd.DataFrame, path: str | Path, provenance: Mapping[str, Any]) -> None:
    """Write a score file, whole or not at all.

    Args:
        frame: the columns `MLM_COLUMNS`; `loss` is stored as float32.
        path: the parquet file.
        provenance: what JSON can hold, with at least `flags` (a list of strings: flags of the
            training), `arm_flags` (`scheme/rule` -> list of flags) and `not_run` (`scheme/rule`
            -> why that arm cannot run at this length).

    Raises:
        LongscaleError: a column is missing or holds what it may not, a target stands twice in an
            arm, two arms hold different targets, an arm has a loss that is not finite and no flag
            `non_finite_loss`, or the provenance lacks one of its keys or names an unknown arm.
    """
    _check_provenance(provenance, path)
    _check_arms(align_arms(frame, path), provenance, path)
    columns = {
        "document": pa.array(frame["document"].astype(object), pa.string()),
        "target": pa.array(frame["target"].to_numpy(np.int64)),
        "token": pa.array(frame["token"].to_numpy(np.int32)),
        "scheme": pa.array(frame["scheme"].astype(object), pa.string()).dictionary_encode(),
        "rule": pa.array(frame["rule"].astype(object), pa.string()).dictionary_encode(),
        "loss": pa.array(frame["loss"].to_numpy(np.float32)),
        "correct": pa.array(frame["correct"].to_numpy(bool)),
    }
    metadata = json.dumps(dict(provenance), sort_keys=True)
    table = pa.table(columns).replace_schema_metadata({METADATA_KEY: metadata})
    with atomic_path(path) as part:
        pq.write_table(table, part)


def read_mlm_scores(path: str | Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read a score file: its rows in the file's order, `scheme` and `rule` as categories, and its
    provenance.

    Raises:
        LongscaleError: the file is not a score file (see `write_mlm_scores`).
    """
    frame, provenance = _read_frame(path)
    _check_arms(align_arms(frame, path), provenance, path)
    return frame, provenance


def read_aligned_arms(path: str | Path) -> tuple[AlignedArms, dict[str, Any]]:
    """What `read_mlm_scores` reads, with the targets side by side (see there for errors)."""
    frame, provenance = _read_frame(path)
    aligned = align_arms(frame, path)
    _check_arms(aligned, provenance, path)
    return aligned, provenance


def align_arms(frame: pd.DataFrame, path: str | Path) -> AlignedArms:
    """Bring the targets of every arm of `frame` into one order; `path` is for the errors.

    Raises:
        LongscaleError: a bad column, a target twice in an arm, or arms with different targets.
    """
    _check_columns(frame, path)
    documents, document_names = pd.factorize(frame["document"], sort=True)
    schemes, scheme_names = pd.factorize(frame["scheme"], sort=True)
    rules, rule_names = pd.factorize(frame["rule"], sort=True)
    numbers = schemes * len(rule_names) + rules
    keys = np.stack([documents, frame["target"], frame["token"]], axis=1).astype(np.int64)
    order = np.lexsort((keys[:, 1], documents, numbers))
    numbers, keys = numbers[order], keys[order]  # by arm, document and position
    _check_unique(numbers, keys, frame.iloc[order], path)

    present, counts = np.unique(numbers, return_counts=True)
    scheme_of, rule_of = np.divmod(present, max(1, len(rule_names)))
    arms = list(zip(scheme_names[scheme_of].tolist(), rule_names[rule_of].tolist(), strict=True))
    _check_same_targets(arms, np.split(keys, np.cumsum(counts))[:-1], path)

    shape = (len(arms), len(keys) // max(1, len(arms)))
    first = keys[: shape[1]]
    names = np.asarray(document_names, dtype=object)[first[:, 0]]
    targets = pd.DataFrame({"document": names, "target": first[:, 1], "token": first[:, 2]})
    loss = frame["loss"].to_numpy(np.float32)[order].reshape(shape)
    return AlignedArms(arms, targets, loss, frame["correct"].to_numpy(bool)[order].reshape(shape))


def _read_frame(path: str | Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The rows and the provenance of a file, the latter checked."""
    frame, provenance = read_with_provenance(path)
    _check_provenance(provenance, path)
    return frame, provenance


def _check_columns(frame: pd.DataFrame, path: str | Path) -> None:
    missing = [name for name in MLM_COLUMNS if name not in frame.columns]
    if missing:
        raise LongscaleError(
            f"{path}: column {missing[0]!r} is missing, a score file of the masked-language-model "
            f"branch has {', '.join(MLM_COLUMNS)}"
        )
    for name in MLM_COLUMNS:
        if name != "loss" and frame[name].isna().any():
            raise LongscaleError(f"{path}: column {name!r} has an empty cell, each must be filled")
    for name in ("target", "token"):
        if not pd.api.types.is_integer_dtype(frame[name]) and len(frame):
            raise LongscaleError(f"{path}: column {name!r} must hold whole numbers")
    if (frame["target"] < 0).any():
        raise LongscaleError(f"{path}: column 'target' is negative, positions start at 0")
    if not frame["correct"].isin([True, False]).all():
        raise LongscaleError(f"{path}: column 'correct' must hold true and false alone")


def _check_unique(
    numbers: np.ndarray, keys: np.ndarray, rows: pd.DataFrame, path: str | Path
) -> None:
    """All are sorted by arm (`numbers`), document and position: a repetition follows its like."""
    again = (numbers[1:] == numbers[:-1]) & (keys[1:, :2] == keys[:-1, :2]).all(axis=1)
    if again.any():
        row = rows.iloc[int(again.argmax()) + 1]
        raise LongscaleError(
            f"{path}: target {row['target']} of document {row['document']} stands more than once "
            f"in {row['scheme']}/{row['rule']}, each must have one row per arm"
        )


def _check_same_targets(
    arms: list[tuple[str, str]], keys: list[np.ndarray], path: str | Path
) -> None:
    """`keys` (targets, 3) of each arm: document, position and token, sorted."""
    for arm, of_arm in zip(arms, keys, strict=True):
        if not np.array_equal(of_arm, keys[0]):
            raise LongscaleError(
                f"{path}: the arms {'/'.join(arms[0])} and {'/'.join(arm)} hold different targets, "
                "all arms of a file must hold the same documents, positions and tokens"
            )


def _check_arms(aligned: AlignedArms, provenance: Mapping[str, Any], path: str | Path) -> None:
    """What the rows and the provenance say of each other."""
    ran = {"/".join(arm) for arm in aligned.arms}
    not_run = provenance["not_run"].keys()
    if ran & not_run:
        raise LongscaleError(
            f"{path}: {min(ran & not_run)} has rows and stands in 'not_run', it must be one of both"
        )
    unknown = provenance["arm_flags"].keys() - ran - not_run
    if unknown:
        raise LongscaleError(
            f"{path}: 'arm_flags' names {min(unknown)}, which is no arm of the file; an arm is "
            "written scheme/rule"
        )
    for arm, finite in zip(aligned.arms, aligned.finite, strict=True):
        name = "/".join(arm)
        flags = {*provenance["flags"], *provenance["arm_flags"].get(name, [])}
        if not finite and NON_FINITE_LOSS not in flags:
            raise LongscaleError(
                f"{path}: {name} has a loss that is not a finite number, its 'arm_flags' must "
                f"hold {NON_FINITE_LOSS!r}"
            )


def _check_provenance(provenance: Any, path: str | Path) -> None:
    known = provenance if isinstance(provenance, Mapping) else {}
    if not is_list_of_strings(known.get("flags")):
        raise LongscaleError(f"{path}: the provenance's 'flags' must be a list of strings")
    arm_flags = known.get("arm_flags")
    if not isinstance(arm_flags, Mapping) or not all(map(is_list_of_strings, arm_flags.values())):
        raise LongscaleError(
            f"{path}: the provenance's 'arm_flags' must map scheme/rule to a list of strings"
        )
    not_run = known.get("not_run")
    if not isinstance(not_run, Mapping) or not all(
        isinstance(reason, str) and re.fullmatch(r"[^/]+/[^/]+", arm)
        for arm, reason in not_run.items()
    ):
        raise LongscaleError(
            f"{path}: the provenance's 'not_run' must map scheme/rule to the reason, a string"
        )
