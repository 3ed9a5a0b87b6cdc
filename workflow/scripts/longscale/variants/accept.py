"""From raw rows to variants that can be trusted, and a ledger of all that cannot.

`pos` is 1-based throughout (as in VCF). A variant's identity is (contig, pos, ref, alt, tissue).
Every allele of every row ends either among the accepted variants or in the ledger, never in both.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

import numpy as np
import pandas as pd

from longscale.genome.sequence import Genome
from longscale.variants.readers import RawVariant

ACCEPTED_COLUMNS = ["contig", "pos", "ref", "alt", "label", "split", "tissue", "line", "swapped"]
REJECTED_COLUMNS = ["line", "contig", "pos", "ref", "alt", "reason", "sentence"]
IDENTITY = ["contig", "pos", "ref", "alt", "tissue"]

REASONS = {
    "unparseable": "the row, its position or its label cannot be read",
    "no_label": "the row has no label",
    "unknown_contig": "the genome has no contig of this name, under any alias",
    "no_alternative": "ALT is missing or equals REF",
    "symbolic_allele": "ALT is a symbol such as <DEL>",
    "star_allele": "ALT is *, an allele that another variant deletes",
    "breakend": "ALT is a breakend",
    "invalid_allele": "REF or ALT has other letters than A, C, G and T",
    "out_of_bounds": "REF lies outside its contig",
    "reference_mismatch": "REF is not what the genome has there",
    "too_many_ns": "the genome around the variant is mostly N",
    "contradictory_label": "the same variant is there with both labels",
    "duplicate": "the same variant is there before, with the same label",
    "cut_by_limit": "the configuration's `limit` keeps fewer",
}
"""Why an allele is not accepted, in the order in which the questions are asked."""

N_FLANK_BP = 32
"""`too_many_ns`: more than half of the bases within this distance of the variant are N."""

SWAPPED_HINT = "REF and ALT may be swapped, which `swapped: repair` mends"
SHARED_HINT = (
    "ALT stands there, but as the bases that an indel shares with the genome, which tells nothing"
)

_BATCH_ROWS = 50_000
_CHUNK_BP = 256
_SHOWN_BP = 24
_SHOWN_CHARACTERS = 60
_MOST_HINTS = 20  # a search for the nearest name costs milliseconds; a wrong column has many names
LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}


class Accepted(NamedTuple):
    """What `accept_variants` returns.

    accepted: columns contig, pos, ref, alt, label (int8), split, tissue (lower case and "" where
    the task has none), line, swapped (bool: REF and ALT were exchanged); in the order of the input.
    rejected: the ledger, columns line, contig,
    pos, ref, alt (resolved and normalised as far as the allele came; all text but line), reason
    (one of REASONS), sentence. counts: rows, alleles, accepted, rejected, with
    alleles == accepted + rejected.
    """

    accepted: pd.DataFrame
    rejected: pd.DataFrame
    counts: dict[str, int]


class Ledger:
    """Collects rejected rows, a frame at a time."""

    def __init__(self) -> None:
        self._frames: list[pd.DataFrame] = []

    def reject(
        self, rows: pd.DataFrame, mask: np.ndarray, reason: str, sentences: pd.Series | str
    ) -> pd.DataFrame:
        """Enter the rows under `mask` (their `sentences` in the same order); return the others."""
        if not mask.any():
            return rows
        entry = rows.loc[mask, ["line", "contig", "pos", "ref", "alt"]]
        entry = entry.assign(pos=entry["pos"].astype(str), reason=reason, sentence=sentences)
        self._frames.append(entry)
        return rows[~mask]

    def frame(self) -> pd.DataFrame:
        """All entries, in the order of the input lines."""
        if not self._frames:
            return pd.DataFrame(columns=REJECTED_COLUMNS).astype({"line": np.int64})
        entries = pd.concat(self._frames, ignore_index=True)
        # What stood in a quoted field with line ends is still told in one line.
        entries["sentence"] = entries["sentence"].str.replace(r"\s+", " ", regex=True)
        return entries.sort_values("line", kind="stable", ignore_index=True)


def accept_variants(
    records: Iterable[RawVariant],
    genome: Genome,
    aliases: Mapping[str, str],
    *,
    repair_swapped: bool = False,
    limit: int | None = None,
    seed: int = 1,
) -> Accepted:
    """Accept what can be scored; put everything else into the ledger with a reason.

    Multi-allelic rows are split (a label list as long as the ALT list is split along), contig names
    resolved through the genome and `aliases`, REF held against the genome, alleles trimmed and
    left-aligned (`normalise`). Of several rows with one identity and one label the first is kept (a
    test row before others, so that training never takes a test variant); with several labels, none.
    With `repair_swapped` alleles whose ALT stands in the genome, and whose REF does not, are
    exchanged (the label stays) and marked. `limit` keeps that many variants per class and split,
    chosen by `seed` and by the variants alone, not by their order. Rows are taken in batches:
    memory grows with the result only.
    """
    ledger = Ledger()
    rows = alleles = 0
    batches = []
    for row_count, batch in _batches(records):
        rows += row_count
        alleles += len(batch)
        batches.append(_accept_batch(batch, genome, aliases, ledger, repair_swapped))
    accepted = pd.concat(batches, ignore_index=True) if batches else _empty_batch()
    accepted = accepted[ACCEPTED_COLUMNS].astype(
        {"pos": np.int64, "label": np.int8, "line": np.int64, "swapped": np.bool_}
    )
    accepted = _reject_repeats(accepted, ledger)
    if limit is not None:
        accepted = _reject_beyond_limit(accepted, ledger, limit, seed)
    accepted = accepted.reset_index(drop=True)
    rejected = ledger.frame()
    counts = {
        "rows": rows,
        "alleles": alleles,
        "accepted": len(accepted),
        "rejected": len(rejected),
    }
    return Accepted(accepted, rejected, counts)


def normalise(genome: Genome, contig: str, pos: int, ref: str, alt: str) -> tuple[int, str, str]:
    """The parsimonious, left-aligned form of a variant (Tan et al. 2015, Bioinformatics 31:2202).

    `ref` must agree with the genome and differ from `alt`; both upper case, not empty. Returns
    (pos, ref, alt), `pos` 1-based, the same as `bcftools norm`: shortest alleles that both keep at
    least one base, shifted to the left as far as the sequence allows.
    """
    pos, ref, alt = _trim_right_and_shift(genome, contig, pos, ref, alt)
    shared = 0
    while shared < min(len(ref), len(alt)) - 1 and ref[shared] == alt[shared]:
        shared += 1
    return pos + shared, ref[shared:], alt[shared:]


def _trim_right_and_shift(
    genome: Genome, contig: str, pos: int, ref: str, alt: str
) -> tuple[int, str, str]:
    """Drop equal last bases; when an allele runs empty, put the left flank before both."""
    while shared := _shared_end(ref, alt):
        if pos == 1:  # nothing stands before the first base of a contig
            shared = min(shared, len(ref) - 1, len(alt) - 1)
            if not shared:
                break
        ref, alt = ref[:-shared], alt[:-shared]
        if not ref or not alt:
            start = max(pos - 1 - _CHUNK_BP, 0)
            flank = genome.fetch(contig, start, pos - 1).tobytes().decode("ascii")
            pos, ref, alt = start + 1, flank + ref, flank + alt
    return pos, ref, alt


def _shared_end(a: str, b: str) -> int:
    """Number of last letters that two texts share."""
    shared, most = 0, min(len(a), len(b))
    while shared < most and a[-1 - shared] == b[-1 - shared]:
        shared += 1
    return shared


def _batches(records: Iterable[RawVariant]) -> Iterator[tuple[int, pd.DataFrame]]:
    """Rows in batches, one frame row per allele, everything but the line still text."""
    records = iter(records)
    while rows := list(islice(records, _BATCH_ROWS)):
        alleles = [
            (row.line, row.contig, row.pos, row.ref, alt, label, row.split, row.tissue, row.problem)
            for row in rows
            for alt, label in _alleles(row)
        ]
        batch = pd.DataFrame(
            alleles,
            columns=[
                *("line", "contig", "pos", "ref", "alt"),
                *("label", "split", "tissue", "problem"),
            ],
        )
        texts = batch.columns.drop("line")
        batch[texts] = batch[texts].astype("str").apply(lambda column: column.str.strip())
        yield len(rows), batch


def _alleles(row: RawVariant) -> Iterator[tuple[str, str]]:
    """(ALT, label) of each allele of a row; a row without ALT still counts as one."""
    if len(row.alts) < 2:
        return iter([(row.alts[0] if row.alts else "", row.label)])
    labels = row.label.split(",")
    if len(labels) != len(row.alts):
        labels = [row.label] * len(row.alts)
    return zip(row.alts, labels, strict=True)


def _empty_batch() -> pd.DataFrame:
    return pd.DataFrame({column: pd.Series(dtype="str") for column in ACCEPTED_COLUMNS})


def _accept_batch(
    batch: pd.DataFrame,
    genome: Genome,
    aliases: Mapping[str, str],
    ledger: Ledger,
    repair_swapped: bool,
) -> pd.DataFrame:
    """All questions that a variant can be asked without knowing the others."""
    batch = _parse(batch, ledger)
    batch = resolve_contigs(batch, genome, aliases, ledger)
    batch = _check_alleles(batch, ledger)
    batch = _check_reference(batch, genome, ledger, repair_swapped)
    batch = _normalise_batch(batch, genome)
    return _check_ns(batch, genome, ledger)


def _parse(batch: pd.DataFrame, ledger: Ledger) -> pd.DataFrame:
    """Positions and labels as numbers."""
    broken = batch["problem"] != ""
    batch = ledger.reject(batch, broken.to_numpy(), "unparseable", batch.loc[broken, "problem"])

    batch = parse_whole(batch, "pos", "POS", ledger)

    bad = (batch["label"] == "").to_numpy()
    batch = ledger.reject(batch, bad, "no_label", "the row has no label")

    labels = batch["label"].str.lower().map(LABELS)
    bad = labels.isna().to_numpy()
    shown = batch.loc[bad, "label"].map(_shown)
    several = np.where(shown.str.contains(","), ", for all alternative alleles or for each", "")
    sentences = "the label is '" + shown + "': it must be 0 or 1" + several
    batch = ledger.reject(batch, bad, "unparseable", sentences)
    return batch.assign(
        label=labels[~bad].astype(np.int8),
        split=batch["split"].str.lower(),
    )


def parse_whole(batch: pd.DataFrame, column: str, shown: str, ledger: Ledger) -> pd.DataFrame:
    """A column of text as int64; rows where it is no whole number go to the ledger.

    `shown`: what the file calls the column.
    """
    bad = ~batch[column].str.fullmatch(r"[0-9]{1,12}(\.0+)?").to_numpy(dtype=bool)
    found = batch.loc[bad, column].map(_shown)
    sentences = f"{shown} is '" + found + "', which is not a whole number of at most 12 digits"
    batch = ledger.reject(batch, bad, "unparseable", sentences)
    # Exact: at most 12 digits.
    return batch.assign(**{column: batch[column].astype(np.float64).astype(np.int64)})


def resolve_contigs(
    batch: pd.DataFrame, genome: Genome, aliases: Mapping[str, str], ledger: Ledger
) -> pd.DataFrame:
    """The genome's own name of each contig."""
    names = batch["contig"].unique()
    resolved = {name: name if name in genome.lengths else aliases.get(name, "") for name in names}
    not_there = [name for name, contig in resolved.items() if contig not in genome.lengths]
    sentence = {
        name: _unknown_contig(name, resolved[name], genome, aliases, hint=number < _MOST_HINTS)
        for number, name in enumerate(not_there)
    }
    unknown = batch["contig"].isin(list(sentence)).to_numpy()
    sentences = batch.loc[unknown, "contig"].map(sentence)
    batch = ledger.reject(batch, unknown, "unknown_contig", sentences)
    return batch.assign(contig=batch["contig"].map(resolved).astype("str"))


def _unknown_contig(
    name: str, contig: str, genome: Genome, aliases: Mapping[str, str], *, hint: bool
) -> str:
    if contig:
        return f"contig '{name}' is {contig}, which the genome file does not hold"
    known = [*genome.lengths, *aliases] if hint else []
    near = difflib.get_close_matches(name[:_SHOWN_CHARACTERS], known, n=1)
    nearest = f"; the nearest known name is '{near[0]}'" if near else ""
    return f"contig '{_shown(name)}' is neither in the genome nor a known alias{nearest}"


def _check_alleles(batch: pd.DataFrame, ledger: Ledger) -> pd.DataFrame:
    """Keep alleles that are spelt out in A, C, G and T."""
    batch = batch.assign(ref=batch["ref"].str.upper(), alt=batch["alt"].str.upper())
    shapes = {
        "no_alternative": (r"\.?", "ALT is missing"),
        "symbolic_allele": (r"<.*>", "ALT is a symbol, not a sequence"),
        "star_allele": (r"\*", "ALT is *, an allele that another variant deletes"),
        "breakend": (r".*[\[\]].*|\..+|.+\.", "ALT is a breakend, not a sequence"),
    }
    for reason, (pattern, sentence) in shapes.items():
        mask = batch["alt"].str.fullmatch(pattern).to_numpy(dtype=bool)
        batch = ledger.reject(batch, mask, reason, sentence)
    for column in ("ref", "alt"):
        bad = ~batch[column].str.fullmatch("[ACGT]+").to_numpy(dtype=bool)
        shown = batch.loc[bad, column].map(shorten)
        sentences = column.upper() + " is '" + shown + "': only A, C, G and T can be used"
        batch = ledger.reject(batch, bad, "invalid_allele", sentences)
    same = (batch["ref"] == batch["alt"]).to_numpy()
    return ledger.reject(batch, same, "no_alternative", "ALT equals REF")


def _shown(text: str) -> str:
    """What stands in a field, as it is shown to a person."""
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    return f"{text[:_SHOWN_CHARACTERS]}... ({len(text):,} characters)"


def shorten(allele: str) -> str:
    """An allele as it is shown to a person."""
    if len(allele) <= _SHOWN_BP:
        return allele
    return f"{allele[:_SHOWN_BP]}... ({len(allele)} bp)"


def _check_reference(
    batch: pd.DataFrame, genome: Genome, ledger: Ledger, repair_swapped: bool
) -> pd.DataFrame:
    """Keep alleles whose REF stands in the genome; with `repair_swapped` mend those that can be."""
    end = batch["pos"] - 1 + batch["ref"].str.len()
    lengths = batch["contig"].map(genome.lengths).astype(np.int64)
    outside = ((batch["pos"] < 1) | (end > lengths)).to_numpy()
    contig, length = batch.loc[outside, "contig"], lengths[outside].astype(str)
    sentences = "REF lies outside " + contig + ", which has positions 1 to " + length
    batch = ledger.reject(batch, outside, "out_of_bounds", sentences)

    found = bases_at(genome, batch, batch["ref"])
    mismatch = (batch["ref"].to_numpy(dtype=object) != found).astype(bool)
    is_swapped = np.zeros(len(batch), dtype=bool)
    is_swapped[mismatch] = _are_swapped(genome, batch[mismatch])
    if repair_swapped:
        batch = batch.assign(
            ref=batch["ref"].where(~is_swapped, batch["alt"]),
            alt=batch["alt"].where(~is_swapped, batch["ref"]),
        )
        mismatch &= ~is_swapped
    sentences = [
        f"REF is {shorten(row.ref)} but the genome has {shorten(bases)} at {row.contig}:{row.pos}"
        + _swapped_hint(row.ref, row.alt, bases, swapped)
        for row, bases, swapped in zip(
            batch[mismatch].itertuples(), found[mismatch], is_swapped[mismatch], strict=True
        )
    ]
    batch = batch.assign(swapped=is_swapped)
    return ledger.reject(batch, mismatch, "reference_mismatch", sentences)


def _swapped_hint(ref: str, alt: str, found: str, swapped: bool) -> str:
    """What to add to a mismatch where ALT is what the genome has."""
    if swapped:
        return f", where ALT stands: {SWAPPED_HINT}"
    return f"; {SHARED_HINT}" if ref.startswith(alt) and found.startswith(alt) else ""


def _are_swapped(genome: Genome, wrong: pd.DataFrame) -> np.ndarray:
    """Whether ALT stands where REF should, bool (rows,).

    Not where all of ALT is a prefix of REF (AC to A): nearly any genome has the base that indels
    share, so that says nothing.
    """
    stands = bases_at(genome, wrong, wrong["alt"]) == wrong["alt"].to_numpy(dtype=object)
    pairs = zip(wrong["ref"], wrong["alt"], strict=True)
    return stands.astype(bool) & ~np.array([ref.startswith(alt) for ref, alt in pairs], dtype=bool)


def bases_at(genome: Genome, variants: pd.DataFrame, alleles: pd.Series) -> np.ndarray:
    """What the genome has where each allele would stand (N outside the contig), as str objects."""
    contigs = variants["contig"].array
    starts = variants["pos"].to_numpy() - 1
    lengths = alleles.str.len().to_numpy(dtype=np.int64)
    found = np.empty(len(variants), dtype=object)
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        bases = genome.gather(contigs[rows], starts[rows], length)
        found[rows] = bases.view(f"S{length}")[:, 0].astype(str)
    return found


def _normalise_batch(batch: pd.DataFrame, genome: Genome) -> pd.DataFrame:
    """`normalise` on all that is not a single-base substitution (those are normal already)."""
    longer = ((batch["ref"].str.len() > 1) | (batch["alt"].str.len() > 1)).to_numpy()
    if not longer.any():
        return batch
    variants = batch.loc[longer, ["contig", "pos", "ref", "alt"]].itertuples(index=False)
    normal = pd.DataFrame(
        [normalise(genome, *variant) for variant in variants],
        columns=["pos", "ref", "alt"],
        index=batch.index[longer],
    )
    batch.loc[longer, ["pos", "ref", "alt"]] = normal
    return batch


def _check_ns(batch: pd.DataFrame, genome: Genome, ledger: Ledger) -> pd.DataFrame:
    """Leave out variants that stand in a gap of the assembly (a contig's end is no gap)."""
    if batch.empty:
        return batch
    starts = batch["pos"].to_numpy() - 1 - N_FLANK_BP
    width = 2 * N_FLANK_BP + 1
    lengths = batch["contig"].map(genome.lengths).to_numpy()
    around = genome.gather(batch["contig"].array, starts, width)  # rows, width
    outside = np.maximum(-starts, 0) + np.maximum(starts + width - lengths, 0)
    ns = (around == ord("N")).sum(axis=1) - outside
    mask = 2 * ns > width - outside
    sentence = f"more than half of the genome within {N_FLANK_BP} bp of the variant is N"
    return ledger.reject(batch, mask, "too_many_ns", sentence)


def _reject_repeats(accepted: pd.DataFrame, ledger: Ledger) -> pd.DataFrame:
    """One row per identity: contradicting labels cancel each other, repeats go."""
    repeated = accepted.duplicated(IDENTITY, keep=False)
    if not repeated.any():
        return accepted
    rows = accepted[repeated]
    rows = rows.iloc[np.argsort(rows["split"] != "test", kind="stable")]
    groups = rows.groupby(IDENTITY, sort=False)
    first_line = groups["line"].transform("first")
    last_line = groups["line"].transform("max")
    contradicting = groups["label"].transform("nunique") > 1
    later = rows.duplicated(IDENTITY)

    mask = accepted.index.isin(rows.index[contradicting])
    lines = groups["line"].transform("min").astype(str), last_line.astype(str)
    joined = np.where(groups["line"].transform("nunique") > 2, " to ", " and ")
    sentences = "lines " + lines[0] + joined + lines[1] + " give this variant both labels"
    accepted = ledger.reject(accepted, mask, "contradictory_label", sentences[contradicting])
    mask = accepted.index.isin(rows.index[later])
    sentences = "the same variant as line " + first_line.astype(str)
    return ledger.reject(accepted, mask, "duplicate", sentences[later])


def _reject_beyond_limit(
    accepted: pd.DataFrame, ledger: Ledger, limit: int, seed: int
) -> pd.DataFrame:
    """Keep, of each class and split, the `limit` variants with the smallest seeded hash."""
    draw = pd.util.hash_pandas_object(accepted[IDENTITY], index=False, hash_key=f"{seed:016d}")
    rank = draw.groupby([accepted["label"], accepted["split"]]).rank(method="first")
    sentence = f"limit: {limit} keeps that many variants of each class and split"
    return ledger.reject(accepted, (rank > limit).to_numpy(), "cut_by_limit", sentence)
