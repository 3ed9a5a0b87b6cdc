"""What train, dev and test of a task share: variants, overlapping windows, windows that read alike.

Counted in the tables of splits themselves, whatever made them. Windows that do not overlap can read
alike where the genome repeats itself; no rule of splitting sees that.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from longscale.genome.sequence import Genome
from longscale.tasks.splits import WindowSpans
from longscale.variants.windows import gather_windows, window_span

VARIANT_KEY = ["contig", "pos", "ref", "alt"]
PAIRS = (("train", "test"), ("train", "dev"), ("dev", "test"))
"""One side, and the side that should be new to who has seen it (held out)."""

LEAKS = {
    "shared_variants": "are of a variant that {other} has too",
    "overlapping_windows": "have a window that overlaps one of {other}",
    "identical_sequences": "have a window that reads like one of {other}",
    "reverse_complements": "have a window that reads like one of {other} on the other strand",
}
"""Column and flag of the table -> what the held-out rows do, as a sentence of the log tells it."""

LEAK_FLAGS = {
    "shared_variants": "held-out rows are of a variant that the other side has too",
    "overlapping_windows": "held-out rows have a window that overlaps one of the other side",
    "identical_sequences": "held-out rows have a window (of either allele) that is, letter for"
    " letter, one of the other side",
    "reverse_complements": "held-out rows have a window whose reverse complement is one of the"
    " other side",
}

LEAK_COLUMNS = [
    *("protocol", "window_bp", "pair", "rows", "held_out_rows"),
    *("shared_variants", "overlapping_windows", "identical_ref", "identical_alt"),
    *("reverse_ref", "reverse_alt", "identical_sequences", "reverse_complements"),
    *(f"{leak}_share" for leak in LEAKS),
    "flags",
]

Sides = Mapping[str, pd.DataFrame]

_BATCH_BP = 16_000_000
_DIGEST_BYTES = 8  # a false match among a million windows: once in 40 million tables
_COMPLEMENT = np.full(256, ord("N"), dtype=np.uint8)
_COMPLEMENT[list(b"ACGT")] = list(b"TGCA")


def split_sides(own: pd.DataFrame, trained: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of train, dev and test: what `trained` trains and stops on, what `own` tests on.

    Both are tables of splits; they differ for a task that another task's checkpoints score.
    """
    sides = {side: trained[trained["split"] == side] for side in ("train", "dev")}
    return sides | {"test": own[own["split"] == "test"]}


def measure_leaks(
    genome: Genome, protocols: Mapping[str, Sides], lengths: Iterable[int]
) -> pd.DataFrame:
    """One row per protocol, pair of sides and window length (bp), with LEAK_COLUMNS.

    `protocols`: protocol -> side (train, dev, test) -> rows with the columns contig, pos (1-based),
    ref, alt. All counts are of rows of the held-out side, the second of the pair (a variant has a
    row per tissue); shares are of `held_out_rows`, NaN where there is none. `identical_ref` and
    `reverse_ref` are of its reference windows, `_alt` of its alternative ones, each held against
    the windows of both alleles of the other side; `identical_sequences` and `reverse_complements`
    count the rows of which either allele does. Reverse complements leave aside the first base of
    a window of even length (see `Digests`). Raises LongscaleError for a contig that the genome
    does not have, and for a window length below 16 bp.
    """
    variants, numbers = _number_variants(protocols)
    rows = []
    for window_bp in sorted(set(lengths)):
        spans = WindowSpans(variants["contig"], *window_span(variants, window_bp))
        digests = digest_windows(genome, variants, window_bp)
        for protocol, sides in numbers.items():
            for other, held_out in PAIRS:
                row = {"protocol": protocol, "window_bp": window_bp, "pair": f"{other}-{held_out}"}
                counts = _count_leaks(sides[other], sides[held_out], spans, digests)
                rows.append({**row, **counts})
    table = pd.DataFrame(rows)
    for leak in LEAKS:
        table[f"{leak}_share"] = table[leak] / table["held_out_rows"].replace(0, np.nan)
    table["flags"] = [
        ";".join(leak for leak in LEAKS if row[leak]) for row in table.to_dict("records")
    ]
    order = table["pair"].map({f"{a}-{b}": rank for rank, (a, b) in enumerate(PAIRS)})
    table = table.assign(order=order).sort_values(["protocol", "order", "window_bp"])
    return table[LEAK_COLUMNS].reset_index(drop=True)


@dataclass(frozen=True)
class Digests:
    """64 bits of BLAKE2b of windows, each (variants, 2) uint64, the reference allele first.

    whole: of the window as it reads; core: of its bases that lie as far to the left as to the right
    of the centre base, which is all but the first one of an even length; turned: of the reverse
    complement of the core. A variant in an inverted copy of the other's sequence has the other's
    core turned round, but not its window: that is cut one base further to the left.
    """

    whole: np.ndarray
    core: np.ndarray
    turned: np.ndarray


def digest_windows(genome: Genome, variants: pd.DataFrame, window_bp: int) -> Digests:
    """Digests of the windows of both alleles; equal texts have equal ones.

    `variants` has the columns contig, pos (1-based), ref, alt. Windows are held in memory a batch
    at a time.
    """
    digests = Digests(*(np.empty((len(variants), 2), dtype=np.uint64) for _ in range(3)))
    batch = max(1, _BATCH_BP // window_bp)
    for first in range(0, len(variants), batch):
        rows = slice(first, first + batch)
        for column, allele in enumerate(("ref", "alt")):
            windows = gather_windows(genome, variants.iloc[rows], window_bp, allele)  # rows, bp
            core = windows[:, 1 - window_bp % 2 :]
            digests.whole[rows, column] = _digest(windows)
            digests.core[rows, column] = _digest(core)
            digests.turned[rows, column] = _digest(_COMPLEMENT[core][:, ::-1])
    return digests


def leak_sentences(table: pd.DataFrame) -> list[str]:
    """One sentence per leak, with its numbers; `table` also has the column task."""
    sentences = []
    for row in table.to_dict("records"):
        other, held_out = row["pair"].split("-")
        for leak, text in LEAKS.items():
            # Whose variants are shared does not depend on the length: told once.
            at = "" if leak == "shared_variants" else f", {row['window_bp']:,} bp"
            if row[leak]:
                sentences.append(
                    f"warning: {row['task']}, {row['protocol']}{at}: {row[leak]:,} of"
                    f" {row['held_out_rows']:,} {held_out} rows ({row[f'{leak}_share']:.2%})"
                    f" {text.format(other=other)}"
                )
    return list(dict.fromkeys(sentences))


def _number_variants(
    protocols: Mapping[str, Sides],
) -> tuple[pd.DataFrame, dict[str, dict[str, np.ndarray]]]:
    """The distinct variants of all sides, and the sides' rows as numbers of these.

    What protocols and tissues share is cut and read once.
    """
    frames = {
        (protocol, side): rows[VARIANT_KEY]
        for protocol, sides in protocols.items()
        for side, rows in sides.items()
    }
    both = pd.concat(frames.values(), ignore_index=True)
    numbers = both.groupby(VARIANT_KEY, sort=False).ngroup().to_numpy()
    ends = np.cumsum([len(frame) for frame in frames.values()])
    result: dict[str, dict[str, np.ndarray]] = {protocol: {} for protocol in protocols}
    for (protocol, side), part in zip(frames, np.split(numbers, ends[:-1]), strict=True):
        result[protocol][side] = part
    return both.drop_duplicates(VARIANT_KEY, ignore_index=True), result


def _count_leaks(
    other: np.ndarray, held_out: np.ndarray, spans: WindowSpans, digests: Digests
) -> dict[str, int]:
    """The counts of one row; `other`, `held_out`: numbers of variants, one per row of the side."""
    is_other = np.zeros(len(digests.whole), dtype=bool)
    is_other[other] = True
    identical = np.isin(digests.whole[held_out], digests.whole[is_other])  # rows, alleles
    turned = np.isin(digests.turned[held_out], digests.core[is_other])
    return {
        "rows": len(other),
        "held_out_rows": len(held_out),
        "shared_variants": int(is_other[held_out].sum()),
        "overlapping_windows": int(spans.overlap(is_other)[held_out].sum()),
        "identical_ref": int(identical[:, 0].sum()),
        "identical_alt": int(identical[:, 1].sum()),
        "reverse_ref": int(turned[:, 0].sum()),
        "reverse_alt": int(turned[:, 1].sum()),
        "identical_sequences": int(identical.any(axis=1).sum()),
        "reverse_complements": int(turned.any(axis=1).sum()),
    }


def _digest(texts: np.ndarray) -> np.ndarray:
    """Of each row (rows, bp) uint8: (rows,) uint64."""
    rows = np.ascontiguousarray(texts)
    digests = (hashlib.blake2b(row, digest_size=_DIGEST_BYTES).digest() for row in rows)
    return np.frombuffer(b"".join(digests), dtype="<u8")
