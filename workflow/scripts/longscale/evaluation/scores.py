"""Score files: one parquet per checkpoint and evaluation length, one column per length rule.

A row is a test variant (and tissue); a rule's column holds its log-odds of label 1, so the
threshold of a prediction is 0. `pos` is 1-based, as in VCF.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from longscale.errors import LongscaleError
from longscale.files import atomic_path

VARIANT_KEY = ["contig", "pos", "ref", "alt"]
ROW_KEY = [*VARIANT_KEY, "tissue"]
ROW_COLUMNS = [*ROW_KEY, "label"]
ROW_TEXTS = ["contig", "ref", "alt", "tissue"]

METADATA_KEY = b"longscale"


@dataclass(frozen=True)
class Cell:
    """One score file and its place in the study.

    `train_bp` and `eval_bp` are window lengths in bp, `seed` the number of the fine-tuning run.
    """

    path: Path
    task: str
    protocol: str
    model: str
    train_bp: int
    attention: str
    seed: int
    eval_bp: int

    @classmethod
    def from_path(cls, path: str | Path) -> Self:
        """Read the place from `.../{task}/{protocol}/{model}/{train_bp}/{attention}/seed{seed}/
        {eval_bp}.parquet`.

        Raises:
            LongscaleError: the path does not end like that.
        """
        path = Path(path)
        match = re.search(
            r"([^/]+)/([^/]+)/([^/]+)/(\d+)/([^/]+)/seed(\d+)/(\d+)\.parquet$", path.as_posix()
        )
        if match is None:
            raise LongscaleError(
                f"{path}: the path of a score file must end in {{task}}/{{protocol}}/{{model}}/"
                "{train_bp}/{attention}/seed{seed}/{eval_bp}.parquet"
            )
        task, protocol, model, train_bp, attention, seed, eval_bp = match.groups()
        return cls(path, task, protocol, model, int(train_bp), attention, int(seed), int(eval_bp))


def write_scores(frame: pd.DataFrame, path: str | Path, provenance: Mapping[str, Any]) -> None:
    """Write a score file, whole or not at all.

    Args:
        frame: the columns `contig, pos, ref, alt, tissue, label` (pos 1-based; tissue `""` where
            the task has none; label 0 or 1), then one column per rule with the log-odds of
            label 1, stored as float32.
        path: the parquet file.
        provenance: what JSON can hold; `flags` is a list of strings such as `not_converged`;
            `rule_flags`, which may be absent, maps a rule to flags of its column alone.

    Raises:
        LongscaleError: a column is missing, a label is not 0 or 1, a row stands twice, or
            `flags` or `rule_flags` is not as it must be.
    """
    _check_frame(frame, path)
    _check_flags(provenance, path)
    rules = rule_columns(frame)
    texts = {name: pa.array(frame[name].to_list(), pa.string()) for name in ROW_TEXTS}
    numbers = {
        "pos": pa.array(frame["pos"].to_numpy(np.int64)),
        "label": pa.array(frame["label"].to_numpy(np.int8)),
    }
    scores = {rule: pa.array(frame[rule].to_numpy(np.float32)) for rule in rules}
    table = pa.table({**texts, **numbers, **scores}).select([*ROW_COLUMNS, *rules])
    metadata = json.dumps(dict(provenance), sort_keys=True)
    with atomic_path(path) as part:
        pq.write_table(table.replace_schema_metadata({METADATA_KEY: metadata}), part)


def read_scores(path: str | Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read a score file: its rows in the file's order, and its provenance.

    Raises:
        LongscaleError: the file is not a score file (see `write_scores`).
    """
    frame, provenance = read_with_provenance(path)
    _check_frame(frame, path)
    _check_flags(provenance, path)
    return frame, provenance


def read_with_provenance(path: str | Path) -> tuple[pd.DataFrame, Any]:
    """Rows and provenance of a score file of either branch, neither checked.

    Raises:
        LongscaleError: the file is not parquet, or has no provenance that is JSON.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise LongscaleError(f"{path}: not a readable parquet file ({error})") from error
    metadata = (table.schema.metadata or {}).get(METADATA_KEY)
    if metadata is None:
        raise LongscaleError(
            f"{path}: the parquet metadata has no key 'longscale', which every score file carries"
        )
    try:
        provenance = json.loads(metadata)
    except ValueError as error:
        raise LongscaleError(
            f"{path}: the metadata key 'longscale' is not JSON ({error})"
        ) from error
    return table.to_pandas(ignore_metadata=True), provenance


def rule_columns(frame: pd.DataFrame) -> list[str]:
    """Names of the length rules that `frame` holds scores of, in its order."""
    return [name for name in frame.columns if name not in ROW_COLUMNS]


def _check_frame(frame: pd.DataFrame, path: str | Path) -> None:
    missing = [name for name in ROW_COLUMNS if name not in frame.columns]
    if missing:
        raise LongscaleError(
            f"{path}: column {missing[0]!r} is missing, a score file has {', '.join(ROW_COLUMNS)}"
        )
    if not rule_columns(frame):
        raise LongscaleError(f"{path}: no score column, a score file has one per length rule")
    if not frame["label"].isin([0, 1]).all():
        raise LongscaleError(f"{path}: column 'label' holds a value other than 0 and 1")
    if frame.duplicated(ROW_KEY).any():
        contig, pos, ref, alt, tissue = frame.loc[frame.duplicated(ROW_KEY), ROW_KEY].iloc[0]
        raise LongscaleError(
            f"{path}: {contig}:{pos} {ref}>{alt} {tissue} stands more than once, "
            "each variant and tissue must have one row"
        )


def _check_flags(provenance: Mapping[str, Any], path: str | Path) -> None:
    flags = provenance.get("flags") if isinstance(provenance, Mapping) else None
    if not is_list_of_strings(flags):
        raise LongscaleError(f"{path}: the provenance's 'flags' must be a list of strings")
    of_rules = provenance.get("rule_flags", {})
    if not isinstance(of_rules, Mapping) or not all(map(is_list_of_strings, of_rules.values())):
        raise LongscaleError(
            f"{path}: the provenance's 'rule_flags' must map a rule to a list of strings"
        )


def is_list_of_strings(value: Any) -> bool:
    """Whether `value` is a list of strings."""
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)
