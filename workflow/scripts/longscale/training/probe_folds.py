"""Which rows a probe is trained, chosen and scored on.

Rows that are not test rows fall into groups: their chromosomes, or random tenths where the
benchmark's own split is random. A fold validates on one group and trains on all others, so whatever
is fitted on its training rows is a sum over groups.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from longscale.errors import LongscaleError

TEST = -1
ROW_ORDER = ["contig", "anchor", "ref", "alt", "tissue", "strand"]
FOLDS = 5
TENTHS = 10


@dataclass(frozen=True)
class Folds:
    """Groups of rows, and the one that each fold validates on.

    order: (rows,) row numbers by place, which is the same however the file was sorted. group:
    (rows,) by row number, `TEST` for test rows. names: of the groups. valid: (folds,) a group each.
    """

    order: np.ndarray
    group: np.ndarray
    names: tuple[str, ...]
    valid: tuple[int, ...]

    def test(self) -> np.ndarray:
        """Numbers of the test rows, by place."""
        return self.order[self.group[self.order] == TEST]

    def valid_rows(self, fold: int) -> np.ndarray:
        """Numbers of the rows that `fold` chooses its epoch on, by place."""
        return self.order[self.group[self.order] == self.valid[fold]]

    def train_groups(self, fold: int) -> np.ndarray:
        """The groups that `fold` trains on."""
        return np.delete(np.arange(len(self.names)), self.valid[fold])

    def train_rows(self, fold: int) -> np.ndarray:
        """Numbers of the rows that `fold` trains on, by place."""
        return self.order[np.isin(self.group[self.order], self.train_groups(fold))]


def chromosome_folds(rows: pd.DataFrame, *, folds: int = FOLDS, seed: int = 1) -> Folds:
    """Each fold validates on one chromosome without test rows, drawn at random.

    The chromosomes of the folds differ while there are enough. `rows`: columns `row`, `contig`,
    `anchor`, `split` and those of `ROW_ORDER`.

    Raises:
        LongscaleError: a chromosome holds both test and other rows, or fewer than two are left.
    """
    of_test = rows["split"] == "test"
    shared = set(rows["contig"][of_test]) & set(rows["contig"][~of_test])
    if shared:
        raise LongscaleError(
            f"{min(shared)}: the chromosome holds both test and training rows, a probe's folds "
            "must not share a chromosome"
        )
    names = sorted(set(rows["contig"][~of_test]))
    group = pd.Index(names).get_indexer(rows["contig"])
    return _folds(rows, np.where(of_test, TEST, group), names, folds, seed)


def random_folds(rows: pd.DataFrame, *, folds: int = FOLDS, seed: int = 1) -> Folds:
    """Each fold validates on another random tenth of the rows that are no test rows.

    For a benchmark whose own split is random; count what overlaps with `count_overlaps`. Columns
    and errors as for `chromosome_folds`.
    """
    by_place = rows.sort_values(ROW_ORDER, kind="stable").index
    open_rows = by_place[(rows["split"] != "test").loc[by_place]]
    tenths = np.arange(len(open_rows)) % TENTHS
    group = pd.Series(TEST, rows.index)
    group[open_rows] = np.random.default_rng([seed, TENTHS]).permutation(tenths)
    count = min(TENTHS, len(open_rows))
    return _folds(rows, group.to_numpy(), [f"tenth {i}" for i in range(count)], folds, seed)


def _folds(rows: pd.DataFrame, group: np.ndarray, names: list[str], folds: int, seed: int) -> Folds:
    number = rows["row"].to_numpy()
    if len(rows) and (number.min() < 0 or len(np.unique(number)) < len(rows)):
        raise LongscaleError("column 'row' must number the rows from 0, each once")
    if len(names) < 2:
        raise LongscaleError(
            f"the rows that are no test rows lie in {len(names)} chromosome(s); a probe needs two "
            "or more, one of them to choose its epoch on"
        )
    drawn = np.random.default_rng([seed, folds]).permutation(len(names))
    by_number = np.full(number.max() + 1, TEST)
    by_number[number] = group
    order = rows.sort_values(ROW_ORDER, kind="stable")["row"].to_numpy()
    return Folds(order, by_number, tuple(names), tuple(np.resize(drawn, folds).tolist()))


def count_overlaps(rows: pd.DataFrame, which: np.ndarray, train: np.ndarray, bp: int) -> int:
    """How many rows of `which` have a context that overlaps the context of a row of `train`.

    `which` and `train` are row numbers; contexts are `bp` long around `anchor`, so two overlap
    where their anchors on a contig are less than `bp` apart.
    """
    by_number = rows.set_index("row")
    trained = by_number.loc[train].groupby("contig")["anchor"]
    anchors = {contig: np.sort(values.to_numpy()) for contig, values in trained}
    overlapping = 0
    for contig, values in by_number.loc[which].groupby("contig")["anchor"]:
        if contig in anchors:
            first = np.searchsorted(anchors[contig], values - bp, "right")
            behind = np.searchsorted(anchors[contig], values + bp, "left")
            overlapping += int((behind > first).sum())
    return overlapping
