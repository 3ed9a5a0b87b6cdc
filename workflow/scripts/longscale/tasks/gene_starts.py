"""Distances to the nearest transcription start site (TSS), from a gene annotation, and buckets.

GTF and GFF3 are 1-based and closed, BED is 0-based and half-open; here all is 0-based. A TSS is the
first base of a transcript in the direction of its strand: on "-" the last one on the genome.
"""

import gzip
import zlib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from longscale.errors import LongscaleError

BUCKET_EDGES_BP = (0, 1_000, 3_000, 10_000, 30_000, 100_000)
"""Distance d is in bucket i if edges[i] <= d < edges[i + 1]; the last bucket is open."""

TRANSCRIPT_FEATURES = ("transcript", "mRNA")
GENE_FEATURES = ("gene",)

_LAST_BASE = 2**40  # no contig is that long

_GTF_FIELDS = {"contig": 0, "feature": 2, "start": 3, "stop": 4, "strand": 6}
_BED_FIELDS = {"contig": 0, "start": 1, "stop": 2, "strand": 5}


def read_gene_starts(
    path: str | Path, aliases: Mapping[str, str] | None = None
) -> dict[str, np.ndarray]:
    """TSS of each contig: name -> 0-based places, int64, rising, each once.

    `path`: GTF, GFF3 or BED (six columns), also `.gz`. Of a GTF or GFF3 the transcripts (`mRNA` or
    `transcript`) count, or, where it has none, the genes; of a BED all lines. Names of contigs are
    resolved through `aliases`, where they have the name. LongscaleError where the file cannot be
    read, a line has no places or no strand, there is no TSS in it, or none on a contig of
    `aliases`.
    """
    path = Path(path)
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix not in (".gtf", ".gff", ".gff3", ".bed"):
        raise LongscaleError(
            f"{path}: the suffix names no gene annotation; .gtf, .gff, .gff3 or .bed (also .gz)"
            " is expected"
        )
    is_bed = suffix == ".bed"
    table = _read_annotation(path, _BED_FIELDS if is_bed else _GTF_FIELDS)
    if not is_bed and table["feature"].isin(TRANSCRIPT_FEATURES).any():
        table = table[table["feature"].isin(TRANSCRIPT_FEATURES)]
    if table.empty:
        raise LongscaleError(f"{path}: holds no transcript and no gene; at least one is expected")
    starts = _starts(path, table, first_base=0 if is_bed else 1)
    names = table["contig"].map(lambda name: (aliases or {}).get(name, name))
    if aliases and not names.isin(set(aliases.values())).any():
        given, known = table["contig"].iloc[0], next(iter(aliases.values()))
        raise LongscaleError(
            f"{path}: none of its genes is on a contig of the genome: it has {given!r}, the genome"
            f" {known!r}; the annotation of the same assembly is expected"
        )
    return {str(name): np.unique(places) for name, places in starts.groupby(names.to_numpy())}


def _read_annotation(path: Path, fields: Mapping[str, int]) -> pd.DataFrame:
    """The lines that can hold a TSS: `fields` (name -> place in the line) as text, and `line`."""
    wanted = {*TRANSCRIPT_FEATURES, *GENE_FEATURES}
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    last, feature, rows = max(fields.values()), fields.get("feature"), []
    try:
        with opener(path, "rt", encoding="utf-8-sig") as handle:
            for number, line in enumerate(handle, start=1):
                if line.startswith(("#", "track", "browser")) or not line.strip():
                    continue
                cells = line.rstrip("\r\n").split("\t", last + 1)
                if len(cells) <= last:
                    raise LongscaleError(
                        f"{path}, line {number}: {len(cells)} columns separated by tabs; at least"
                        f" {last + 1} are expected, with the strand in the last of them"
                    )
                if feature is None or cells[feature] in wanted:
                    rows.append([*(cells[place] for place in fields.values()), number])
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise LongscaleError(f"{path}: cannot be read as a gene annotation: {reason}") from error
    return pd.DataFrame(rows, columns=[*fields, "line"])


def _starts(path: Path, table: pd.DataFrame, first_base: int) -> pd.Series:
    """0-based TSS of each line; `first_base` is the number of a contig's first base."""
    first, stop = (pd.to_numeric(table[name], errors="coerce") for name in ("start", "stop"))
    # BED ends are half-open, so there, too, a gene of one base ends after it starts.
    longer = stop - first >= 1 - first_base
    good = (
        (first >= first_base) & longer & (stop <= _LAST_BASE) & (first % 1 == 0) & (stop % 1 == 0)
    )
    bad = (~good | ~table["strand"].isin(["+", "-"])).to_numpy()
    if bad.any():
        row = table[bad].iloc[0]
        raise LongscaleError(
            f"{path}, line {row['line']}: from {row['start']} to {row['stop']} on the strand"
            f" {row['strand']!r}; two rising whole numbers of {first_base} or more, and the strand"
            " + or -, are expected"
        )
    # Closed ends in GTF; in BED the last base stands one before the end.
    places = first.where(table["strand"] == "+", stop - 1 + first_base)
    return (places - first_base).astype(np.int64)


def distance_to_nearest(
    contigs: pd.Series, places: np.ndarray, starts: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Distance in bp from each 0-based place to the nearest TSS of its contig, float64 (rows,).

    NaN where the contig has none. `starts` as `read_gene_starts` gives it.
    """
    places = np.asarray(places, dtype=np.int64)
    distances = np.full(len(places), np.nan)
    codes, names = pd.factorize(contigs)
    for code, name in enumerate(names):
        here = starts.get(name)
        if here is None or not len(here):
            continue
        rows = np.flatnonzero(codes == code)
        after = np.searchsorted(here, places[rows])
        left = here[np.maximum(after - 1, 0)]
        right = here[np.minimum(after, len(here) - 1)]
        distances[rows] = np.minimum(np.abs(places[rows] - left), np.abs(places[rows] - right))
    return distances


def bucket_names(edges: tuple[int, ...] = BUCKET_EDGES_BP) -> list[str]:
    """Names of the buckets, e.g. `0-999`, `1000-2999`, ..., `100000-`."""
    closed = [f"{low}-{high - 1}" for low, high in pairwise(edges)]
    return [*closed, f"{edges[-1]}-"]


def distance_buckets(distances: np.ndarray, edges: tuple[int, ...] = BUCKET_EDGES_BP) -> np.ndarray:
    """Name of each distance's bucket, str objects (rows,); "" where the distance is unknown.

    Distances are in bp; their sign (upstream or downstream) does not count. The buckets neither
    overlap nor leave gaps: edges rise strictly from 0 and the last bucket is open.
    """
    if edges[0] != 0 or any(b <= a for a, b in pairwise(edges)):
        raise LongscaleError(f"buckets begin at {list(edges)}: they must rise from 0")
    distances = np.abs(np.asarray(distances, dtype=np.float64))
    known = ~np.isnan(distances)
    names = np.full(len(distances), "", dtype=object)
    indices = np.searchsorted(edges, distances[known], side="right") - 1
    names[known] = np.array(bucket_names(edges), dtype=object)[indices]
    return names
