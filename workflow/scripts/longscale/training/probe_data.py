"""What a probe reads: frozen embeddings in memory-mapped shards, labels, tissues.

A source of embeddings has `rows`, `pieces`, `width` and `read(numbers)`; it is a folder of shards
or a table of a user's own features. Nothing here holds a task's embeddings in memory as a whole.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np

from longscale.errors import LongscaleError
from longscale.training.probe_folds import Folds

# A memory-mapped file holds a file descriptor, of which a process has 1,024 as a rule.
OPEN_SHARDS = 256


class Source(Protocol):
    """Frozen embeddings by row number."""

    rows: int
    pieces: int
    width: int

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """(n, pieces, width) of the rows `numbers`, in their order; float16 or float32."""
        ...


class Shards:
    """A folder of embeddings: `index.json` and `shard-00000.npy`, ... of (rows, pieces, width)
    float16. `bins`: of a profile, [first, last) of the bins that there are; else None.
    """

    def __init__(self, folder: str | Path) -> None:
        """Read the index.

        Raises:
            LongscaleError: the index is absent or does not fit the shards.
        """
        self.folder = Path(folder)
        try:
            index = json.loads((self.folder / "index.json").read_text())
            self.rows, self.pieces, self.width, self.shard_rows = (
                int(index[key]) for key in ("rows", "pieces", "width", "shard_rows")
            )
            self.bins = tuple(index["bins"]) if index.get("bins") else None
        except (OSError, ValueError, KeyError) as error:
            raise LongscaleError(
                f"{self.folder}/index.json: cannot be read as the index of embeddings ({error}); "
                "it is written when all of them are there"
            ) from error
        self._shard = lru_cache(OPEN_SHARDS)(self._open)

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """(n, pieces, width) float16 of the rows `numbers`, in their order, read in the file's."""
        found = np.empty((len(numbers), self.pieces, self.width), np.float16)
        by_place = np.argsort(numbers, kind="stable")
        shard, row = np.divmod(numbers[by_place], self.shard_rows)
        starts = np.flatnonzero(np.diff(shard, prepend=-1))
        for start, stop in pairwise([*starts, len(numbers)]):
            found[by_place[start:stop]] = self._shard(int(shard[start]))[row[start:stop]]
        return found

    def _open(self, number: int) -> np.ndarray:
        path = self.folder / f"shard-{number:05}.npy"
        due = min(self.shard_rows, self.rows - number * self.shard_rows)
        try:
            shard = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise LongscaleError(f"{path}: not a readable shard ({error})") from error
        if shard.shape != (due, self.pieces, self.width):
            raise LongscaleError(
                f"{path}: {shard.shape} is not the shape {(due, self.pieces, self.width)} "
                "that index.json tells of"
            )
        return shard


@dataclass(frozen=True)
class Batch:
    """Positions of some rows: `features` (n, pieces x width) as they are stored, `tissue` (n,)
    codes, `labels` (n, outputs) float32. A row has one position, in a profile one per bin."""

    features: np.ndarray
    tissue: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Examples:
    """Embeddings, tissues and labels of a task, by row number.

    tissue: (rows,) codes below `tissues`; -1 is none. labels: (rows, outputs), of a profile
    (rows, bins, outputs), memory-mapped; `first_bin` is the bin of the first embedding.
    log_labels: whether a label x is learned as log(1 + x). block_bytes: of embeddings that are in
    memory at a time.
    """

    source: Source
    tissue: np.ndarray
    tissues: int
    labels: np.ndarray
    profile: bool = False
    first_bin: int = 0
    log_labels: bool = False
    block_bytes: int = 256 << 20

    @property
    def width(self) -> int:
        """Features of a position."""
        return self.source.width if self.profile else self.source.pieces * self.source.width

    @property
    def positions(self) -> int:
        """Positions of a row."""
        return self.source.pieces if self.profile else 1

    @property
    def outputs(self) -> int:
        """Labels of a position."""
        return self.labels.shape[-1]

    def read(self, numbers: np.ndarray) -> Batch:
        """All positions of the rows `numbers`, row by row.

        Raises:
            LongscaleError: a label or an embedding is not a finite number, or a label that is
                learned as log(1 + x) is negative.
        """
        labels = np.asarray(self._labels(numbers), np.float32).reshape(-1, self.outputs)
        bad = ~np.isfinite(labels) | (self.log_labels & (labels < 0))
        if bad.any():
            row, output = np.argwhere(bad)[0]
            raise LongscaleError(
                f"label {output} of row {numbers[row // self.positions]} is {labels[row, output]},"
                f" it must be a finite number{' of 0 or more' if self.log_labels else ''}"
            )
        features = self.source.read(numbers).reshape(-1, self.width)
        if not np.isfinite(features).all():
            row = np.flatnonzero(~np.isfinite(features).all(axis=1))[0] // self.positions
            raise LongscaleError(
                f"the embedding of row {numbers[row]} holds a value that is not a finite number"
            )
        tissue = np.repeat(self.tissue[numbers], self.positions)
        return Batch(features, tissue, np.log1p(labels) if self.log_labels else labels)

    def _labels(self, numbers: np.ndarray) -> np.ndarray:
        if not self.profile:
            return self.labels[numbers]
        return self.labels[numbers, self.first_bin : self.first_bin + self.positions]

    def blocks(self, numbers: np.ndarray) -> Iterator[Batch]:
        """`read`, as many rows at a time as `block_bytes` allow."""
        size = max(1, self.block_bytes // (self.positions * self.width * 2))
        for start in range(0, len(numbers), size):
            yield self.read(numbers[start : start + size])

    def batches(
        self, numbers: np.ndarray, size: int, generator: np.random.Generator | None = None
    ) -> Iterator[Batch]:
        """Batches of `size` positions; in random order where there is a `generator`.

        Rows are drawn without replacement, and positions within the rows of a block.
        """
        for block in self.blocks(generator.permutation(numbers) if generator else numbers):
            places = np.arange(len(block.labels))
            if generator:
                generator.shuffle(places)
            for start in range(0, len(places), size):
                pick = places[start : start + size]
                yield Batch(block.features[pick], block.tissue[pick], block.labels[pick])


@dataclass(frozen=True)
class Standard:
    """Mean and spread (standard deviation; 1 for what is constant) of each column."""

    mean: np.ndarray
    spread: np.ndarray


@dataclass(frozen=True)
class Moments:
    """Count, sum and sum of squares by group, of features and of labels, in float64.

    A fold's standard is a sum over the groups that it trains on, so one pass serves all folds.
    """

    count: np.ndarray  # (groups,)
    features: np.ndarray  # (2, groups, width)
    labels: np.ndarray  # (2, groups, outputs)

    @classmethod
    def of(cls, examples: Examples, folds: Folds) -> "Moments":
        """One pass over all rows but the test rows, group by group, in the order of the places."""
        groups = len(folds.names)
        count = np.zeros(groups)
        features = np.zeros((2, groups, examples.width))
        labels = np.zeros((2, groups, examples.outputs))
        for group in range(groups):
            for block in examples.blocks(folds.order[folds.group[folds.order] == group]):
                count[group] += len(block.labels)
                for sums, values in ((features, block.features), (labels, block.labels)):
                    sums[0, group] += values.sum(axis=0, dtype=np.float64)
                    sums[1, group] += np.einsum("nd,nd->d", values, values, dtype=np.float64)
        return cls(count, features, labels)

    def standard(self, groups: np.ndarray) -> tuple[Standard, Standard]:
        """Of the features and of the labels of `groups` together."""
        features, labels = (self._standard(groups, sums) for sums in (self.features, self.labels))
        return features, labels

    def _standard(self, groups: np.ndarray, sums: np.ndarray) -> Standard:
        mean, square = sums[:, groups].sum(axis=1) / self.count[groups].sum()
        variance = square - mean**2
        # What is left of a constant column is rounding.
        constant = variance <= 1e-12 * square
        return Standard(mean, np.where(constant, 1.0, np.sqrt(np.where(constant, 1.0, variance))))
