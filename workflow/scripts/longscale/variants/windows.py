"""Windows around variants: plain sequence for the reference allele, edited for the alternative.

`pos` is 1-based (as in VCF); windows are 0-based, half-open intervals of `window_bp` base pairs.
The rule is that of the Genomics Long-Range Benchmark (InstaDeepAI/genomics-long-range-benchmark):
a window begins at `pos - 1 - window_bp // 2`, so the allele begins at index `window_bp // 2`.

A worked case, at toy size: in ACGTACGT the variant at pos 5, A>TG has the windows of 4 bp GTAC
(reference, from index 2 on) and GTTG (alternative: left flank GT, then TG, cut to 4 bp).
"""

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from longscale.errors import LongscaleError
from longscale.files import atomic_path
from longscale.genome.sequence import Genome

Allele = Literal["ref", "alt"]

READOUT_FLANK_BP = 8
MIN_WINDOW_BP = 2 * READOUT_FLANK_BP
"""A shorter window would not even hold what the readout looks at."""

_EXPORT_CHUNK_BP = 16_000_000


def check_window_bp(window_bp: int) -> int:
    """`window_bp` as an int; raises LongscaleError unless it is an integer of at least 16 bp."""
    is_integer = isinstance(window_bp, (int, np.integer)) and not isinstance(window_bp, bool)
    if not is_integer or window_bp < MIN_WINDOW_BP:
        raise LongscaleError(
            f"window_bp is {window_bp!r}: it must be an integer of at least {MIN_WINDOW_BP} bp"
        )
    return int(window_bp)


def window_start(pos: int | np.ndarray, window_bp: int) -> int | np.ndarray:
    """0-based first position of the window around 1-based `pos`; negative if outside the contig."""
    return pos - 1 - window_bp // 2


def window_span(variants: pd.DataFrame, window_bp: int) -> tuple[np.ndarray, np.ndarray]:
    """The stretch of the genome from which both windows of each variant are made.

    `variants` has the columns pos (1-based), ref, alt. Returns (starts, ends), 0-based, half-open,
    int64, shape (rows,). It is `window_bp` long, but for a deletion, whose alternative window is
    filled up from further right, longer by what is deleted.
    """
    pos = variants["pos"].to_numpy(dtype=np.int64)
    ref_bp, alt_bp = _allele_lengths(variants)
    refilled_bp = np.maximum(window_bp - window_bp // 2 - alt_bp, 0)
    starts = window_start(pos, window_bp)
    return starts, np.maximum(starts + window_bp, pos - 1 + ref_bp + refilled_bp)


def has_window(genome: Genome, variants: pd.DataFrame, window_bp: int) -> np.ndarray:
    """Whether the windows of both alleles (`window_span`) lie inside the variant's contig.

    `variants` has the columns contig, pos (1-based), ref, alt. Returns bool, shape (rows,).
    """
    starts, ends = window_span(variants, check_window_bp(window_bp))
    lengths = variants["contig"].map(genome.lengths).to_numpy()
    return (starts >= 0) & (ends <= lengths)


def require_windows(
    genome: Genome,
    variants: pd.DataFrame,
    window_bp: int,
    *,
    what: str = "window",
    rows: str = "variants",
    key: str = "study.eval_bp",
) -> None:
    """Raise LongscaleError, naming the first variant, unless all have their windows inside.

    `what` and `rows`: what the sentence calls windows and variants; `key`: where lengths stand.
    """
    outside = ~has_window(genome, variants, window_bp)
    if outside.any():
        first = variants[outside].iloc[0]
        alleles = f" {first.ref}>{first.alt}" if first.ref else ""
        raise LongscaleError(
            f"{first.contig}:{first.pos}{alleles} has no {what} of {window_bp:,} bp inside its"
            f" contig ({int(outside.sum()):,} such {rows}): a length beyond those of the study must"
            f" be added to {key}, which leaves such {rows} out everywhere"
        )


def gather_windows(
    genome: Genome,
    variants: pd.DataFrame,
    window_bp: int,
    allele: Allele,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """The windows of one allele of every variant, ASCII, positions outside the contig are N.

    `variants` has the columns contig, pos (1-based), ref, alt (upper case). The reference window is
    plain genome. The alternative window keeps the left flank, then has ALT, then what follows REF
    in the genome; it is cut so that the length stays. Returns uint8, shape (rows, window_bp),
    which is `out` where that is given. Raises LongscaleError on a bad `window_bp` or an unknown
    `allele`.
    """
    window_bp = check_window_bp(window_bp)
    if allele not in ("ref", "alt"):
        raise LongscaleError(f"allele is {allele!r}: it must be 'ref' or 'alt'")
    contigs = variants["contig"].array
    pos = variants["pos"].to_numpy()
    windows = genome.gather(contigs, window_start(pos, window_bp), window_bp, out)
    if allele == "alt" and len(windows):
        _write_alternative(genome, variants, contigs, windows)
    return windows


def readout_span(
    allele_lengths: np.ndarray, window_bp: int, flank_bp: int = READOUT_FLANK_BP
) -> tuple[np.ndarray, np.ndarray]:
    """What the readout looks at: an allele of the given length (bp) and `flank_bp` on either side.

    Returns (starts, stops) in window coordinates (bp, 0-based, half-open), int64, shape (rows,),
    clipped to the window.
    """
    allele_lengths = np.asarray(allele_lengths, dtype=np.int64)
    centre = window_bp // 2
    starts = np.full_like(allele_lengths, max(centre - flank_bp, 0))
    return starts, np.minimum(centre + allele_lengths + flank_bp, window_bp)


def export_windows(
    genome: Genome, variants: pd.DataFrame, window_bp: int, path: str | Path
) -> None:
    """Write the alternative windows as the CSV `sequence,label` that the released scripts read.

    `variants` also has the column label (0 or 1). The file appears whole or not at all.
    """
    window_bp = check_window_bp(window_bp)
    rows_per_chunk = max(1, _EXPORT_CHUNK_BP // window_bp)
    with atomic_path(path) as part, part.open("wb") as handle:
        handle.write(b"sequence,label\n")
        for first in range(0, len(variants), rows_per_chunk):
            chunk = variants.iloc[first : first + rows_per_chunk]
            lines = np.empty((len(chunk), window_bp + 3), dtype=np.uint8)
            lines[:, :window_bp] = gather_windows(genome, chunk, window_bp, "alt")
            lines[:, window_bp] = ord(",")
            lines[:, window_bp + 1] = ord("0") + chunk["label"].to_numpy()
            lines[:, window_bp + 2] = ord("\n")
            handle.write(lines.data)


def _allele_lengths(variants: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Lengths of REF and ALT in bp, int64, shape (rows,) each."""
    ref_bp = variants["ref"].str.len().to_numpy(dtype=np.int64)
    return ref_bp, variants["alt"].str.len().to_numpy(dtype=np.int64)


def _write_alternative(
    genome: Genome,
    variants: pd.DataFrame,
    contigs: pd.api.extensions.ExtensionArray,
    windows: np.ndarray,
) -> None:
    """Turn reference windows into alternative ones, in place; one pass per length of ALT."""
    window_bp = windows.shape[1]
    centre = window_bp // 2
    after_ref = variants["pos"].to_numpy() - 1
    alts = variants["alt"].to_numpy(dtype=object)
    ref_bp, alt_bp = _allele_lengths(variants)
    after_ref = after_ref + ref_bp
    for length in np.unique(alt_bp):
        rows = np.flatnonzero(alt_bp == length)
        written_bp = min(length, window_bp - centre)
        text = "".join(alts[rows]).encode("ascii")
        alleles = np.frombuffer(text, dtype=np.uint8).reshape(len(rows), length)
        columns = np.arange(centre, centre + written_bp)
        windows[rows[:, None], columns] = alleles[:, :written_bp]

        # Only where the lengths differ does the sequence after the allele move.
        moved = rows[ref_bp[rows] != length]
        refilled_bp = window_bp - centre - written_bp
        if len(moved) and refilled_bp:
            filling = genome.gather(contigs[moved], after_ref[moved], refilled_bp)
            windows[moved, centre + written_bp :] = filling
