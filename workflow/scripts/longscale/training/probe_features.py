"""A user's own features of a task's variants, for the probe that embeddings get."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from longscale.errors import LongscaleError

VARIANT_COLUMNS = ["contig", "pos", "ref", "alt"]


@dataclass(frozen=True)
class Features:
    """Features by row number of the task: a source of embeddings with one piece.

    values: (rows, 1, width) float32, NaN where the file has no such variant. matched: (rows,)
    whether it has. names: of the features. unmatched: one sentence on what found no partner, or "".
    """

    values: np.ndarray
    matched: np.ndarray
    names: tuple[str, ...]
    unmatched: str
    pieces: int = 1

    @property
    def rows(self) -> int:
        """Rows of the task."""
        return len(self.values)

    @property
    def width(self) -> int:
        """Features of a variant."""
        return self.values.shape[-1]

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """(n, 1, width) of the rows `numbers`, in their order."""
        return self.values[numbers]


def read_features(path: str | Path, rows: pd.DataFrame) -> Features:
    """Read a parquet of features and match it with a task's rows.

    The file has `contig` (UCSC name), `pos` (1-based), `ref`, `alt`, where they depend on it
    `tissue`, and one column of numbers per feature. `rows` are the task's (columns `row`, `contig`,
    `anchor`, `ref`, `alt`, `tissue`); a variant is matched by all its columns, in upper case.

    Raises:
        LongscaleError: the file cannot be read, lacks a column, has a variant twice, a feature that
            is no finite number, no feature at all, or no variant of the task.
    """
    frame = _read(path)
    key = [*VARIANT_COLUMNS, *(["tissue"] if "tissue" in frame else [])]
    names = [name for name in frame.columns if name not in key]
    task = rows.assign(pos=rows["anchor"] + 1)
    if frame.duplicated(key).any():
        first = frame.loc[frame.duplicated(key), key].iloc[0]
        raise LongscaleError(
            f"{path}: {' '.join(map(str, first))} stands more than once, each variant must have "
            "one row"
        )
    place = pd.MultiIndex.from_frame(frame[key]).get_indexer(pd.MultiIndex.from_frame(task[key]))
    if not (place >= 0).any():
        raise LongscaleError(
            f"{path}: none of its {len(frame):,} variants is one of the task's {len(rows):,} rows; "
            "they are compared by contig (UCSC name), pos (1-based), ref and alt"
        )
    values = np.full((int(rows["row"].max()) + 1, 1, len(names)), np.nan, np.float32)
    matched = np.zeros(len(values), bool)
    matched[rows["row"]] = place >= 0
    values[rows["row"][place >= 0], 0] = frame[names].to_numpy(np.float32)[place[place >= 0]]
    lost, idle = int((place < 0).sum()), len(frame) - len(np.unique(place[place >= 0]))
    sentence = (
        f"{path}: {lost:,} of the task's {len(rows):,} rows have no features and are left out, and "
        f"{idle:,} of the file's {len(frame):,} variants are not in the task"
    )
    return Features(values, matched, tuple(names), sentence if lost or idle else "")


def _read(path: str | Path) -> pd.DataFrame:
    """The file's columns, checked; alleles in upper case."""
    try:
        frame = pq.read_table(path).to_pandas(ignore_metadata=True)
    except (OSError, pa.ArrowInvalid) as error:
        raise LongscaleError(f"{path}: not a readable parquet file ({error})") from error
    missing = [name for name in VARIANT_COLUMNS if name not in frame]
    features = frame.columns.difference([*VARIANT_COLUMNS, "tissue"])
    if missing or not len(features):
        what = f"column {missing[0]!r} is missing" if missing else "no column holds a feature"
        raise LongscaleError(
            f"{path}: {what}, a features file has {', '.join(VARIANT_COLUMNS)} and one column per "
            "feature"
        )
    for name in features:
        numeric = pd.api.types.is_numeric_dtype(frame[name])
        if not numeric or not np.isfinite(frame[name].to_numpy(np.float32)).all():
            raise LongscaleError(f"{path}: column {name!r} must hold finite numbers only")
    return frame.assign(ref=frame["ref"].str.upper(), alt=frame["alt"].str.upper())
