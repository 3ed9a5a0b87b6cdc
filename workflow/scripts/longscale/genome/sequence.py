"""Random access to an indexed FASTA file, memory-mapped and vectorised over many intervals.

Its plain bases (`folded.py`) are read where they lie beside it; the bases are the same.

Coordinates are 0-based and half-open. Base p of a contig lies at byte
offset + (p // linebases) * linewidth + p % linebases (`.fai`, see samtools faidx).
"""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import as_strided, sliding_window_view

from longscale.errors import LongscaleError
from longscale.genome.folded import open_folded, write_folded

BASES = b"ACGT"
ANY_BASE = ord("N")
# Upper case, and N for everything but ACGT, as a table for bytes.translate.
FOLD = bytes(code if code in BASES else ANY_BASE for code in bytes(range(256)).upper())
LINE_ENDS = b"\r\n"
CHUNK_BYTES = 1 << 19  # one chunk of `gather` and its masks stay in the processor's cache
COPY_BYTES = 1 << 22  # of windows copied at a time from plain bases: about the second-level cache
COPY_THREADS = 2  # one core stores no more than 10 GB/s; NumPy copies without the GIL
STRETCH_BP = 1 << 24  # of a contig, at a time, where all of it is read


@dataclass(frozen=True)
class FaiRecord:
    """One line of a `.fai`: length in bp, offset in bytes, bases and bytes per line."""

    name: str
    length: int
    offset: int
    linebases: int
    linewidth: int

    def byte(self, position: int) -> int:
        """Offset in the file of the base at the 0-based `position`."""
        line, column = divmod(position, self.linebases)
        return self.offset + line * self.linewidth + column


def read_fai(path: str | Path) -> list[FaiRecord]:
    """Read a `.fai` file; LongscaleError with file and line where it is malformed."""
    path = Path(path)
    try:
        lines = path.read_text("utf-8", errors="replace").splitlines()
    except OSError as error:
        raise LongscaleError(
            f"{path}: the index of the FASTA file cannot be read ({error.strerror}); "
            "write one with `samtools faidx`."
        ) from error
    records: dict[str, FaiRecord] = {}
    for number, line in enumerate(lines, start=1):
        name, *fields = line.split("\t")
        if len(fields) != 4 or not all(re.fullmatch("[0-9]{1,18}", field) for field in fields):
            raise LongscaleError(
                f"{path}, line {number}: expected a name and four integers separated by tabs, "
                f"found {line[:80]!r}."
            )
        record = FaiRecord(name, *map(int, fields))
        if name in records or (record.length and not 0 < record.linebases <= record.linewidth):
            raise LongscaleError(
                f"{path}, line {number}: {name!r} occurs twice or has impossible line lengths; "
                "write the index again with `samtools faidx`."
            )
        records[name] = record
    return list(records.values())


class Genome:
    """The sequences of an indexed FASTA file (`fasta` and `fasta + ".fai"`).

    The file is mapped on first use and again after unpickling, so that an instance is cheap to
    send to a worker. `lengths` gives the length of each contig in bp, in the file's order. With
    `folded` the plain bases beside the file are read, where there are any.

    Raises LongscaleError where the FASTA file or its index is absent, malformed or of another file.
    """

    def __init__(self, fasta: str | Path, *, folded: bool = True) -> None:
        self.fasta = Path(fasta)
        self._records = {record.name: record for record in read_fai(f"{self.fasta}.fai")}
        self.lengths = {name: record.length for name, record in self._records.items()}
        begins = accumulate(self.lengths.values(), initial=0)
        self._begins = dict(zip(self.lengths, begins, strict=False))  # in the plain bases
        self._reads_folded = folded

    def __getstate__(self) -> dict:
        mapped = ("_folded", "_bytes")
        return {name: value for name, value in self.__dict__.items() if name not in mapped}

    def fetch(self, contig: str, start: int, end: int) -> np.ndarray:
        """Bases [start, end) of `contig` as ASCII codes: uint8 (end - start,).

        Upper case; anything but ACGT is `N`. Raises LongscaleError for an unknown contig and for
        an interval that is not inside it.
        """
        record = self._record(contig)
        if not 0 <= start <= end <= record.length:
            raise LongscaleError(
                f"{self.fasta}: the interval {contig}:[{start}, {end}) is not inside the contig, "
                f"which is [0, {record.length})."
            )
        return self._bases(record, start, end)

    def stretches(self) -> Iterator[np.ndarray]:
        """All bases, as `fetch` gives them, in the file's order and in stretches of 16 Mb."""
        for contig, length in self.lengths.items():
            for start in range(0, length, STRETCH_BP):
                yield self.fetch(contig, start, min(start + STRETCH_BP, length))

    def gather(
        self, contigs: Sequence[str], starts: np.ndarray, width: int, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Bases [start, start + width) of many intervals: uint8 (rows, width).

        As `fetch`, except that positions outside the contig are `N`. `contigs` holds one name per
        row; `out` is filled and returned, if given. Raises LongscaleError for an unknown contig.
        """
        starts = np.asarray(starts, np.int64)
        if not isinstance(contigs, pd.api.extensions.ExtensionArray):
            contigs = np.asarray(contigs, object)
        codes, names = pd.factorize(contigs, use_na_sentinel=False)
        if codes.shape != starts.shape or width < 1:
            raise ValueError("gather needs one contig and one start per row, and width >= 1")
        windows = np.empty((len(starts), width), np.uint8) if out is None else out
        if windows.shape != (len(starts), width) or windows.dtype != np.uint8:
            raise ValueError(f"out must be uint8, {len(starts)} rows of {width}")
        records = [self._record(name) for name in names]
        lengths = np.array([record.length for record in records], np.int64)[codes]
        inside = (starts >= 0) & (starts + width <= lengths)
        if self._folded is not None:
            begins = np.array([self._begins[name] for name in names], np.int64)[codes] + starts
            regular = inside
            if inside.any():
                _copy_windows(self._folded, begins, windows)
        else:
            regular = self._cut_lines(records, codes, starts, inside, windows)
        for row in np.flatnonzero(~regular):
            record, start = records[codes[row]], int(starts[row])
            left = min(max(-start, 0), width)
            right = max(min(record.length - start, width), left)
            windows[row] = ANY_BASE
            windows[row, left:right] = self._bases(record, start + left, start + right)
        return windows

    def _cut_lines(
        self,
        records: list[FaiRecord],
        codes: np.ndarray,
        starts: np.ndarray,
        inside: np.ndarray,
        windows: np.ndarray,
    ) -> np.ndarray:
        """Fill those of the windows `inside` their contigs that span lines; which, bool (rows,).

        `codes` tells the record of each row.
        """
        width = windows.shape[1]
        offsets = np.array([record.offset for record in records], np.int64)[codes]
        shapes = np.array([(r.linebases, r.linewidth) for r in records], np.int64)[codes]
        regular = np.zeros(len(starts), bool)
        for linebases, linewidth in {(r.linebases, r.linewidth) for r in records}:
            if not 0 < linebases <= width:
                continue  # whole lines would be longer than the window
            lines_at = self._lines_at(linebases, linewidth, width)
            first_byte = offsets + starts // linebases * linewidth
            alike = (shapes == (linebases, linewidth)).all(axis=1)
            rows = np.flatnonzero(inside & alike & (first_byte < len(lines_at)))
            _cut_windows(lines_at, first_byte[rows], starts[rows] % linebases, windows, rows)
            regular[rows] = True
        return regular

    def _lines_at(self, linebases: int, linewidth: int, width: int) -> np.ndarray:
        """A view (bytes, lines, linebases) of the whole lines from each byte of the file on.

        There are as many lines as a window of `width` can touch, and a place in the view for every
        byte from which they lie inside the file. Line ends fall into the gaps between the strides.
        """
        n_lines = (width + linebases - 2) // linebases + 1
        n_places = len(self._bytes) - (n_lines - 1) * linewidth - linebases + 1
        shape = (max(n_places, 0), n_lines, linebases)
        return as_strided(self._bytes, shape, (1, linewidth, 1), writeable=False)

    def _bases(self, record: FaiRecord, start: int, end: int) -> np.ndarray:
        if start == end:
            return np.empty(0, np.uint8)
        if self._folded is not None:
            begin = self._begins[record.name]
            return self._folded[begin + start : begin + end].copy()
        stretch = self._bytes[record.byte(start) : record.byte(end - 1) + 1].tobytes()
        return np.frombuffer(bytearray(stretch.translate(FOLD, LINE_ENDS)), np.uint8)

    def _record(self, contig: str) -> FaiRecord:
        record = self._records.get(contig)
        if record is None:
            near = get_close_matches(str(contig), self._records, n=3, cutoff=0.4)
            known = ", ".join(near or list(self._records)[:3])
            raise LongscaleError(
                f"{self.fasta}: has no contig {str(contig)!r}; the closest names are {known}."
            )
        return record

    @cached_property
    def _folded(self) -> np.ndarray | None:
        """The plain bases of all contigs, if they are to be read and can be."""
        return open_folded(self.fasta, sum(self.lengths.values())) if self._reads_folded else None

    @cached_property
    def _bytes(self) -> np.ndarray:
        """The file, mapped; at both ends of each record, its index has been found to fit."""
        try:
            mapped = np.memmap(self.fasta, np.uint8, mode="r").view(np.ndarray)
        except (OSError, ValueError) as error:
            raise LongscaleError(
                f"{self.fasta}: cannot be read as a FASTA file: {error}."
            ) from error
        for record in self._records.values():
            if record.length == 0:
                continue
            last = record.byte(record.length - 1)
            fits = last < len(mapped) and record.offset > 0
            fits = fits and mapped[record.offset - 1] == ord("\n")
            if not fits or (last + 1 < len(mapped) and mapped[last + 1] not in LINE_ENDS):
                raise LongscaleError(
                    f"{self.fasta}: its index {self.fasta.name}.fai was made for another file "
                    f"({record.name} does not end where it says); write it again with "
                    "`samtools faidx`."
                )
        return mapped


def fold_genome(fasta: str | Path) -> None:
    """Write the plain bases of an indexed FASTA file beside it; memory does not grow with it.

    Raises LongscaleError as `Genome` does.
    """
    write_folded(fasta, Genome(fasta, folded=False).stretches())


def _copy_windows(bases: np.ndarray, begins: np.ndarray, windows: np.ndarray) -> None:
    """Fill `windows` from `bases`, which is at least as long as one of them, from `begins` on.

    A window that leaves `bases` is filled from within, for the caller to write over. Each chunk is
    gathered in the cache and then copied as a whole.
    """
    windows_at = sliding_window_view(bases, windows.shape[1])
    begins = begins.clip(0, len(windows_at) - 1)
    per_chunk = max(1, COPY_BYTES // windows.shape[1])

    def copy(first: int) -> None:
        chunk = slice(first, first + per_chunk)
        windows[chunk] = windows_at[begins[chunk]]

    with ThreadPoolExecutor(COPY_THREADS) as pool:
        list(pool.map(copy, range(0, len(windows), per_chunk)))


def _cut_windows(
    lines_at: np.ndarray,
    first_byte: np.ndarray,
    column: np.ndarray,
    windows: np.ndarray,
    rows: np.ndarray,
) -> None:
    """Fill `windows[rows]`, chunk by chunk, from the lines that the windows touch.

    `first_byte` is where the line of each window's first base begins, `column` the place of that
    base in its line. Lines are copied whole, folded, and the window is cut out at its column: one
    copy per line and one per window, where an index per base would cost ten times more.
    """
    _, n_lines, linebases = lines_at.shape
    span = n_lines * linebases
    per_chunk = max(1, CHUNK_BYTES // span)
    for begin in range(0, len(rows), per_chunk):
        chunk = slice(begin, begin + per_chunk)
        bases = lines_at[first_byte[chunk]].reshape(-1)  # rows in the chunk * span
        _fold(bases)
        begins = np.arange(len(rows[chunk])) * span + column[chunk]
        windows[rows[chunk]] = sliding_window_view(bases, windows.shape[1])[begins]


def _fold(bases: np.ndarray) -> None:
    """Upper case, and N for everything but ACGT, in place: `FOLD` at the speed of SIMD."""
    np.bitwise_and(bases, 0xDF, out=bases)  # clears the bit that makes an ASCII letter lower case
    known = bases == ANY_BASE
    for base in BASES:
        known |= bases == base
    if not known.all():
        bases[~known] = ANY_BASE
