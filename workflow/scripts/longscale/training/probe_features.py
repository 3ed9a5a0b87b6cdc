"""A user's own features of a task's variants, for the probe that embeddings get."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from longscale.errors import LongscaleError

VARIANT_COLUMNS = ["contig", "pos", "ref", "alt"]
TEXT_COLUMNS = ("contig", "ref", "alt", "tissue")


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


def read_features(
    path: str | Path, rows: pd.DataFrame, *, leave_out_missing: bool = False
) -> Features:
    """Read a parquet of features and match it with a task's rows.

    The file has `contig` (UCSC name), `pos` (1-based), `ref`, `alt`, where they depend on it
    `tissue`, and either one column of numbers per feature or one column of lists of numbers, all of
    one length. `rows` are the task's (columns `row`, `contig`, `anchor`, `ref`, `alt`, `tissue`); a
    variant is matched by all its columns, in upper case. Variants that the task does not have are
    not used. `leave_out_missing`: rows of the task without features are left out, not an error.

    Raises:
        LongscaleError: the file cannot be read, lacks a column, has a variant twice, a feature that
            is no finite number, lists of unequal length, no feature at all, or not every row of the
            task.
    """
    frame, values, names = _read(Path(path))
    key = list(frame.columns)
    task = rows.assign(pos=rows["anchor"] + 1)
    if frame.duplicated().any():
        raise LongscaleError(
            f"{path}: {_told(frame[frame.duplicated()])} stands more than once, each variant must "
            "have one row"
        )
    place = pd.MultiIndex.from_frame(frame).get_indexer(pd.MultiIndex.from_frame(task[key]))
    has = place >= 0
    if not has.any():
        raise LongscaleError(
            f"{path}: none of its {len(frame):,} variants is one of the task's {len(rows):,} rows; "
            "they are compared by contig (UCSC name), pos (1-based), ref and alt"
        )
    if not (has.all() or leave_out_missing):
        raise LongscaleError(
            f"{path}: {(~has).sum():,} of the task's {len(rows):,} rows have no features, first of "
            f"them {_told(task.loc[~has, key])}; a leaderboard compares models on the same rows"
            " (probe.leave_out_missing: true leaves them out)"
        )
    matched = np.zeros(int(rows["row"].max()) + 1, bool)
    matched[rows["row"]] = has
    found = np.full((len(matched), 1, len(names)), np.nan, np.float32)
    found[rows["row"][has], 0] = values[place[has]]
    lost, idle = int((~has).sum()), len(frame) - len(np.unique(place[has]))
    sentence = (
        f"{path}: {lost:,} of the task's {len(rows):,} rows have no features and are left out, and "
        f"{idle:,} of the file's {len(frame):,} variants are not in the task"
    )
    return Features(found, matched, names, sentence if lost or idle else "")


def _told(variants: pd.DataFrame) -> str:
    """The first of some variants, in words."""
    return " ".join(map(str, variants.iloc[0]))


def _read(path: Path) -> tuple[pd.DataFrame, np.ndarray, tuple[str, ...]]:
    """The columns that tell the variant (alleles in upper case), the features (rows, width) float32
    and their names."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        reason = " ".join(str(error).split())
        raise LongscaleError(f"{path}: not a readable parquet file ({reason})") from error
    of_pandas = [name for name in table.column_names if name.startswith("__index_level_")]
    table = table.drop_columns(of_pandas)
    key = [*VARIANT_COLUMNS, *(["tissue"] if "tissue" in table.column_names else [])]
    missing = [name for name in VARIANT_COLUMNS if name not in table.column_names]
    features = [name for name in table.column_names if name not in key]
    if missing or not features:
        what = f"column {missing[0]!r} is missing" if missing else "no column holds a feature"
        raise LongscaleError(
            f"{path}: {what}, a features file has {', '.join(VARIANT_COLUMNS)} and one column per "
            "feature or one column of lists"
        )
    frame = _variants(path, table.select(key))
    lists = [name for name in features if _is_list(table.schema.field(name).type)]
    if not lists:
        columns = [_numbers(path, name, table[name]) for name in features]
        return frame, np.stack(columns, axis=1), tuple(features)
    if len(features) > 1:
        raise LongscaleError(
            f"{path}: column {lists[0]!r} holds lists and stands beside {len(features) - 1} other "
            "columns; features are one column of lists or one column of numbers each"
        )
    values = _list_values(path, lists[0], table[lists[0]].combine_chunks())
    return frame, values, tuple(f"{lists[0]}[{index}]" for index in range(values.shape[1]))


def _is_list(kind: pa.DataType) -> bool:
    return any(
        test(kind)
        for test in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    )


def _variants(path: Path, table: pa.Table) -> pd.DataFrame:
    """The columns that tell the variant, checked."""
    if not pa.types.is_integer(table.schema.field("pos").type):
        raise LongscaleError(
            f"{path}: column 'pos' is {table.schema.field('pos').type}, whole numbers (1-based) "
            "are expected"
        )
    for name in table.column_names:
        if table[name].null_count:
            empty = pc.index(pc.is_null(table[name]), True).as_py()
            raise LongscaleError(
                f"{path}, row {empty + 1}: column {name!r} is empty, each row must tell its variant"
            )
    text = {name: pa.string() for name in TEXT_COLUMNS if name in table.column_names}
    frame = pd.DataFrame(
        {
            name: table[name].cast(text.get(name, pa.int64())).to_numpy()
            for name in table.column_names
        }
    )
    return frame.assign(ref=frame["ref"].str.upper(), alt=frame["alt"].str.upper())


def _numbers(path: Path, name: str, column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """A column as float32, of finite numbers."""
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise LongscaleError(f"{path}: column {name!r} must hold finite numbers only, not {kind}")
    with np.errstate(over="ignore"):
        whole = pc.cast(column, pa.float64(), safe=False)  # what is empty becomes NaN
        values = whole.to_numpy(zero_copy_only=False).astype(np.float32)
    if not np.isfinite(values).all():
        raise LongscaleError(
            f"{path}: column {name!r} must hold finite numbers only, value "
            f"{np.flatnonzero(~np.isfinite(values))[0] + 1} of it is not"
        )
    return values


def _list_values(path: Path, name: str, column: pa.Array) -> np.ndarray:
    """A column of lists as (rows, width) float32."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    width = int(lengths[0]) if len(lengths) else 0
    if (lengths != width).any() or not width:
        row = int(np.flatnonzero(lengths != width)[0]) if width else 0
        raise LongscaleError(
            f"{path}, row {row + 1}: column {name!r} holds a list of {int(lengths[row])} numbers, "
            f"{f'{width} as in row 1 are' if width else 'one or more are'} expected"
        )
    return _numbers(path, name, column.flatten()).reshape(-1, width)
