"""Nothing is lost, nothing wrong gets through, and normal forms are those of bcftools."""

import gzip
import itertools
import random
import subprocess

import numpy as np
import pandas as pd
import pysam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longscale.genome.sequence import Genome
from longscale.variants import accept
from longscale.variants.accept import (
    ACCEPTED_COLUMNS,
    IDENTITY,
    REASONS,
    REJECTED_COLUMNS,
    accept_variants,
    normalise,
)
from longscale.variants.readers import RawVariant, read_variants

RANDOM_VARIANTS = 20_000
"""Number of random variants that are held against bcftools norm."""

RNG = np.random.default_rng(11)


def random_bases(length, bases="ACGT"):
    return "".join(RNG.choice(list(bases), length))


def repetitive_contig():
    """Repeats of short units, in places longer than a normaliser's chunk, partly soft-masked."""
    pieces = ["CAAAAAAAA"]
    for _ in range(60):
        unit = random_bases(RNG.integers(1, 5))
        piece = unit * int(RNG.integers(2, 14)) + random_bases(RNG.integers(0, 6), "AC")
        pieces.append(piece.lower() if RNG.random() < 0.3 else piece)
    pieces += ["GT" * 400, "A" * 700, random_bases(40)]
    return "".join(pieces)


CONTIGS = {
    "chr1": "ACGTACGTAC" * 12,
    "chr2": "ACACACACACACACACACAC" + repetitive_contig() + "TTTTTTTTTT",
    "chr3": "AAAAAAAAAAAAAAAA" + random_bases(300, "AC") + "CTCTCTCTCT",
    "chrGap": random_bases(100) + "N" * 100 + random_bases(100),
    "chrTiny": "GATTACA",
}
ALIASES = {"1": "chr1", "CM000001.1": "chr1", "7": "chr7"}


@pytest.fixture(scope="module")
def fasta(tmp_path_factory):
    path = tmp_path_factory.mktemp("genome") / "genome.fa"
    path.write_text("".join(f">{name}\n{text}\n" for name, text in CONTIGS.items()))
    pysam.faidx(str(path))
    return path


@pytest.fixture(scope="module")
def genome(fasta):
    return Genome(fasta)


def raw(line, contig="chr1", pos="1", ref="A", alts=("C",), label="1", **others):
    return RawVariant(line, contig, pos, ref, tuple(alts), label, **others)


def check_books(result, row_count):
    """What must hold of every result."""
    accepted, rejected, counts = result
    assert accepted.columns.tolist() == ACCEPTED_COLUMNS
    assert rejected.columns.tolist() == REJECTED_COLUMNS
    assert counts["rows"] == row_count
    assert counts["accepted"] == len(accepted)
    assert counts["rejected"] == len(rejected)
    assert counts["alleles"] == counts["accepted"] + counts["rejected"]
    assert set(rejected["reason"]) <= set(REASONS)
    assert (rejected["sentence"].str.len() > 10).all()
    assert not accepted.duplicated(IDENTITY).any()
    assert accepted["label"].dtype == np.int8
    assert accepted["pos"].dtype == accepted["line"].dtype == np.int64
    assert accepted["line"].is_monotonic_increasing


def test_swapped_alleles_are_repaired_where_they_can_be_told(genome):
    records = [
        raw(2, pos="2", ref="T", alts=["C"]),  # C stands there: swapped
        raw(3, pos="2", ref="T", alts=["G"]),  # neither does
        raw(4, pos="3", ref="G", alts=["A"]),  # as it should be
        raw(5, pos="5", ref="AT", alts=["ACG"], label="0"),  # ACG stands there
        raw(6, pos="6", ref="CT", alts=["C"]),  # a swapped insertion? Any C would say so
        raw(7, "chrTiny", "7", ref="T", alts=["A"]),
        raw(8, "chrTiny", "7", ref="T", alts=["AA"]),  # beyond the end
    ]
    rejected = accept_variants(records, genome, ALIASES).rejected
    assert rejected["line"].tolist() == [2, 3, 5, 6, 7, 8]
    assert rejected["sentence"].str.contains("`swapped: repair` mends").tolist() == [
        *(True, False, True, False, True, False)
    ]
    assert rejected["sentence"].str.contains("an indel shares with the genome").tolist() == [
        *(False, False, False, True, False, False)
    ]

    result = accept_variants(records, genome, ALIASES, repair_swapped=True)
    check_books(result, 7)
    assert result.accepted.drop(columns=["split", "tissue"]).to_numpy().tolist() == [
        ["chr1", 2, "C", "T", 1, 2, True],
        ["chr1", 3, "G", "A", 1, 4, False],
        ["chr1", 6, "CG", "T", 0, 5, True],
        ["chrTiny", 7, "A", "T", 1, 7, True],
    ]
    assert result.rejected["line"].tolist() == [3, 6, 8]


@given(seed=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_a_file_with_swapped_substitutions_gives_the_same_variants(genome, seed):
    rng = np.random.default_rng(seed)
    text = CONTIGS["chr1"]
    records, truth = [], []
    for line, start in enumerate(rng.choice(100, 12, replace=False), 2):
        ref = text[start : start + rng.integers(1, 4)]
        alt = "".join({"A": "G", "C": "T", "G": "C", "T": "A"}[base] for base in ref)
        truth.append(raw(line, pos=str(start + 1), ref=ref, alts=[alt]))
        records.append(truth[-1])
        if rng.random() < 0.5:
            records[-1] = raw(line, pos=str(start + 1), ref=alt, alts=[ref])
    repaired = accept_variants(records, genome, {}, repair_swapped=True)
    expected = accept_variants(truth, genome, {}).accepted
    pd.testing.assert_frame_equal(
        repaired.accepted.drop(columns="swapped"), expected.drop(columns="swapped")
    )


def test_a_plain_row_is_accepted_and_its_contig_resolved(genome):
    records = [
        raw(2, "1", "2", "c", ["t"], "0.0", split="Train", tissue="Liver"),
        raw(3, "CM000001.1", "3.0", "G", ["A", "T"], "True"),
        raw(4, " chr1 ", "4", "T", ["A", "G"], "0,1"),
    ]
    result = accept_variants(records, genome, ALIASES)
    check_books(result, 3)
    assert result.accepted.to_numpy().tolist() == [
        ["chr1", 2, "C", "T", 0, "train", "Liver", 2, False],
        ["chr1", 3, "G", "A", 1, "", "", 3, False],
        ["chr1", 3, "G", "T", 1, "", "", 3, False],
        ["chr1", 4, "T", "A", 0, "", "", 4, False],
        ["chr1", 4, "T", "G", 1, "", "", 4, False],
    ]


@pytest.mark.parametrize(
    ("record", "reason", "sentence"),
    [
        (raw(2, problem="the row has 3 fields"), "unparseable", "the row has 3 fields"),
        (raw(2, pos="1e3"), "unparseable", "POS is '1e3', which is not a whole number"),
        (raw(2, pos="-4"), "unparseable", "POS is '-4'"),
        (raw(2, pos=""), "unparseable", "POS is ''"),
        (raw(2, label="Benign"), "unparseable", "the label is 'Benign': it must be 0 or 1"),
        (raw(2, label="2"), "unparseable", "the label is '2'"),
        (raw(2, label=""), "no_label", "the row has no label"),
        (raw(2, "chr_1"), "unknown_contig", "'chr_1' is neither .* nearest known name is 'chr1'"),
        (raw(2, "7"), "unknown_contig", "'7' is chr7, which the genome file does not hold"),
        (raw(2, alts=()), "no_alternative", "ALT is missing"),
        (raw(2, alts=["."]), "no_alternative", "ALT is missing"),
        (raw(2, alts=["a"]), "no_alternative", "ALT equals REF"),
        (raw(2, alts=["<DEL>"]), "symbolic_allele", "ALT is a symbol"),
        (raw(2, alts=["*"]), "star_allele", "ALT is \\*"),
        (raw(2, alts=["A[chr2:3["]), "breakend", "ALT is a breakend"),
        (raw(2, alts=["]chr2:3]A"]), "breakend", "ALT is a breakend"),
        (raw(2, alts=[".A"]), "breakend", "ALT is a breakend"),
        (raw(2, alts=["R"]), "invalid_allele", "ALT is 'R': only A, C, G and T"),
        (raw(2, alts=["-"]), "invalid_allele", "ALT is '-'"),
        (raw(2, ref="N"), "invalid_allele", "REF is 'N'"),
        (raw(2, ref=""), "invalid_allele", "REF is ''"),
        (raw(2, pos="0"), "out_of_bounds", "outside chr1, which has positions 1 to 120"),
        (raw(2, pos="121"), "out_of_bounds", "outside chr1"),
        (raw(2, pos="118", ref="CGTA"), "out_of_bounds", "outside chr1"),
        (raw(2, pos="2"), "reference_mismatch", "the genome has C at chr1:2, where ALT stands"),
        (raw(2, pos="3"), "reference_mismatch", "^REF is A but the genome has G at chr1:3$"),
        (raw(2, "chrGap", "101"), "reference_mismatch", "the genome has N at chrGap:101$"),
        (raw(2, pos="1", ref="A" * 30), "reference_mismatch", r"REF is A{24}\.\.\. \(30 bp\) but"),
    ],
)
def test_each_reason_has_its_sentence(genome, record, reason, sentence):
    result = accept_variants([raw(1, pos="5"), record], genome, ALIASES)
    check_books(result, 2)
    assert result.accepted["line"].tolist() == [1]
    assert result.rejected["reason"].tolist() == [reason]
    assert result.rejected["line"].tolist() == [2]
    assert result.rejected["sentence"].str.contains(sentence).all(), result.rejected["sentence"][0]
    assert "\n" not in result.rejected["sentence"][0]


def test_the_ledger_shows_what_the_input_said(genome):
    records = [raw(9, "1", "3.0", "a", ["c", "<X>"]), raw(10, "nowhere", "x", "a", ["c"])]
    rejected = accept_variants(records, genome, ALIASES).rejected
    assert rejected["line"].tolist() == [9, 9, 10]
    assert rejected["contig"].tolist() == ["chr1", "chr1", "nowhere"]
    assert rejected["pos"].tolist() == ["3", "3", "x"]
    assert sorted(rejected["alt"]) == ["<X>", "C", "c"]


def test_variants_in_an_assembly_gap_but_not_at_a_contig_end(genome):
    def snv(line, contig, pos):
        ref = CONTIGS[contig][pos - 1].upper()
        return raw(line, contig, str(pos), ref, ["A" if ref != "A" else "C"])

    records = [
        *(snv(line, "chrGap", pos) for line, pos in enumerate((90, 100, 201, 211), start=1)),
        snv(5, "chrGap", 1),
        snv(6, "chrGap", 300),
        snv(7, "chrTiny", 4),
    ]
    islet = [raw(8, "chrGap", "150")]
    result = accept_variants(records + islet, genome, {})
    check_books(result, 8)
    assert result.accepted["line"].tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_too_many_ns(tmp_path):
    path = tmp_path / "g.fa"
    path.write_text(
        ">c\n" + "N" * 60 + "ACGT" + "N" * 60 + "ACGT" * 30 + "\n"
        ">d\nACGTACGT" + "N" * 60 + "\n"  # at a contig's end, half of what is there counts
    )
    pysam.faidx(str(path))
    records = [raw(1, "c", "61"), raw(2, "c", "125"), raw(3, "c", "129"), raw(4, "d", "5")]
    result = accept_variants(records, Genome(path), {})
    check_books(result, 4)
    assert result.rejected["line"].tolist() == [1, 4]
    assert set(result.rejected["reason"]) == {"too_many_ns"}


def test_repeats_and_contradictions(genome):
    records = [
        raw(1, pos="1", label="1"),
        raw(2, pos="1", label="1"),
        raw(3, pos="5", label="1"),
        raw(4, pos="5", label="0"),
        raw(5, pos="5", label="0"),
        raw(6, pos="9", label="1", tissue="Liver"),
        raw(7, pos="9", label="0", tissue="Lung"),
        raw(8, pos="15", split="train"),
        raw(9, pos="15", split="test"),
        # one deletion, written in two ways
        raw(10, "chr2", "1", "ACAC", ["AC"]),
        raw(11, "chr2", "3", "ACA", ["A"]),
    ]
    result = accept_variants(records, genome, {})
    check_books(result, 11)
    assert result.accepted["line"].tolist() == [1, 6, 7, 9, 10]
    ledger = result.rejected.set_index("line")
    assert ledger["reason"].to_dict() == {
        2: "duplicate",
        3: "contradictory_label",
        4: "contradictory_label",
        5: "contradictory_label",
        8: "duplicate",
        11: "duplicate",
    }
    assert ledger.loc[2, "sentence"] == "the same variant as line 1"
    assert ledger.loc[8, "sentence"] == "the same variant as line 9"
    assert ledger.loc[4, "sentence"] == "lines 3 to 5 give this variant both labels"


def many(genome):
    """SNVs at every position of chr3, labels and splits alternating."""
    records = []
    for pos in range(1, genome.lengths["chr3"] + 1):
        ref = CONTIGS["chr3"][pos - 1].upper()
        split = ("train", "test", "")[pos % 3]
        records.append(raw(pos, "chr3", str(pos), ref, ["G"], str(pos % 2), split=split))
    return records


def test_limit_keeps_that_many_of_each_class_and_split_whatever_the_order(genome):
    records = many(genome)
    limited = accept_variants(records, genome, {}, limit=10)
    check_books(limited, len(records))
    assert limited.accepted.groupby(["split", "label"]).size().tolist() == [10] * 6
    assert set(limited.rejected["reason"]) == {"cut_by_limit"}

    shuffled = accept_variants(records[::-1], genome, {}, limit=10)
    assert set(shuffled.accepted["pos"]) == set(limited.accepted["pos"])
    other_seed = accept_variants(records, genome, {}, limit=10, seed=2)
    assert set(other_seed.accepted["pos"]) != set(limited.accepted["pos"])
    assert accept_variants(records, genome, {}, limit=1000).counts["rejected"] == 0


def test_batches_change_nothing(genome, monkeypatch):
    records = [*many(genome), raw(900, "chr3", "2", "A", ["G"], "0"), raw(901, "?"), raw(902)]
    whole = accept_variants(records, genome, {}, limit=40)
    monkeypatch.setattr(accept, "_BATCH_ROWS", 7)
    parts = accept_variants(iter(records), genome, {}, limit=40)
    assert parts.counts == whole.counts
    pd.testing.assert_frame_equal(parts.accepted, whole.accepted)
    pd.testing.assert_frame_equal(parts.rejected, whole.rejected)


def test_nothing_in_nothing_out(genome):
    check_books(accept_variants([], genome, {}), 0)
    check_books(accept_variants([raw(1, "?")], genome, {}, limit=3), 1)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
wild_records = st.lists(
    st.builds(
        RawVariant,
        line=st.just(0),
        contig=st.sampled_from(["chr1", "1", "chr2", "chrGap", "chrTiny", "MT"]) | texts,
        pos=st.integers(-1, 130).map(str) | texts,
        ref=st.text("ACGTN", max_size=3) | texts,
        alts=st.lists(st.text("ACGTacgt*.<>[]", max_size=3) | texts, max_size=3).map(tuple),
        label=st.sampled_from(["0", "1", "0,1", "", "x"]),
        split=st.sampled_from(["train", "test", ""]),
        tissue=texts,
        problem=st.sampled_from(["", "", "", "a row that is broken"]),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(records=wild_records, limit=st.none() | st.integers(0, 3))
def test_every_allele_ends_in_exactly_one_place(genome, records, limit):
    records = [record._replace(line=line) for line, record in enumerate(records, start=2)]
    result = accept_variants(records, genome, ALIASES, limit=limit)
    check_books(result, len(records))
    lines = sorted([*result.accepted["line"], *result.rejected["line"]])
    assert lines == sorted(r.line for r in records for _ in range(max(1, len(r.alts))))
    for row in result.accepted.itertuples():
        assert CONTIGS[row.contig].upper()[row.pos - 1 :].startswith(row.ref)


# Each place, at most a few dozen bases, takes every edit: gaps on either side, both contig ends,
# soft-masked repeats of one, two and three bases.
EDGES = {
    "gaps": "NNNNNNNNACACACAGTNNNNNAAAAACGTTTTNNNN",
    "bare": "AAAAAAAACGT",
    "soft": "acgacgacgacgTTTTttt",
}
SATELLITE = "NNNNN" + (random_bases(171) * 4).replace("CA", "ca") + "NNNNN"  # longer than a chunk


def every_edit(contigs):
    """Every place and some lengths of REF against all ALTs of 1 to 3 bases, and repeats of REF."""
    alts = {"".join(bases) for n in (1, 2, 3) for bases in itertools.product("ACGT", repeat=n)}
    for contig, text in contigs.items():
        for start, length in itertools.product(range(len(text)), (1, 2, 3, 4, 5, 8)):
            ref = text[start : start + length].upper()
            if len(ref) == length and "N" not in ref:
                own = {ref * 2, ref * 3, ref + ref[0], ref[0], ref[1:], ref[:-1]}
                for alt in sorted((alts | own) - {ref, ""}):
                    yield contig, start + 1, ref, alt


def random_variants(count, contigs, rng):
    """SNVs, MNVs, insertions and deletions, most of them in repeats, many at contig ends."""
    names = sorted(contigs)
    while count:
        contig = rng.choice(names)
        text = contigs[contig].upper()
        ref_bp = rng.choice([1, 1, 2, 3, 4, 8, 30, 171])
        start = rng.randrange(len(text))
        if rng.random() < 0.3:
            start = rng.choice([rng.randrange(12), len(text) - ref_bp - rng.randrange(4)])
        ref = text[max(start, 0) : max(start, 0) + ref_bp]
        alt = random_alt(rng, text, start, ref)
        if set(ref + alt) <= set("ACGT") and ref and alt not in ("", ref):
            count -= 1
            yield contig, max(start, 0) + 1, ref, alt


def random_alt(rng, text, start, ref):
    """Another allele: random, a copy of what follows (a step of a repeat), or a part of REF."""
    kind = rng.choice(["random", "same length", "copy", "shorter", "within"])
    if kind == "copy":
        return ref + text[start : start + rng.choice([1, 2, 3, 4, 8, 171])]
    if kind == "shorter":
        return ref[: rng.randint(1, len(ref))] if ref else ""
    if kind == "within":
        return ref[:1] + ref[rng.randint(1, len(ref)) :] if ref else ""
    return "".join(rng.choices("ACGT", k=len(ref) if kind == "same length" else rng.randint(1, 5)))


def bcftools_norm(bcftools, fasta, path, *options):
    """[(ID, contig, pos, ref, alt)] of what `bcftools norm` makes of a VCF."""
    told = subprocess.run(
        [bcftools, "norm", "-f", fasta, "-c", "e", *options, path],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    fields = [line.split("\t")[:5] for line in told.splitlines() if not line.startswith("#")]
    return [(int(n), contig, int(pos), ref, alt) for contig, pos, n, ref, alt in fields]


def write_vcf(path, contigs, rows):
    """A VCF of (contig, pos, ref, alt) with the row's number as ID, tissue and label's parity."""
    lines = [
        "##fileformat=VCFv4.2",
        '##INFO=<ID=n,Number=1,Type=String,Description="number of the row">',
        '##INFO=<ID=y,Number=A,Type=Integer,Description="label">',
        *(f"##contig=<ID={name},length={len(text)}>" for name, text in contigs.items()),
        "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO",
    ]
    for number, (contig, pos, ref, alt) in enumerate(rows):
        labels = ",".join(str(len(one) % 2) for one in alt.split(","))
        info = f"n={number};y={labels}"
        lines.append(f"{contig}\t{pos}\t{number}\t{ref}\t{alt}\t.\t.\t{info}")
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A genome of all repeats, ends and gaps."""
    contigs = {**CONTIGS, **EDGES, "satellite": SATELLITE}
    path = tmp_path_factory.mktemp("places") / "genome.fa"
    path.write_text("".join(f">{name}\n{text}\n" for name, text in contigs.items()))
    pysam.faidx(str(path))
    return contigs, path


def test_normal_forms_are_those_of_bcftools(places, tmp_path, tool):
    contigs, fasta = places
    rows = [*every_edit(EDGES), *random_variants(RANDOM_VARIANTS, contigs, random.Random(3))]
    assert len(rows) > 35_000
    write_vcf(tmp_path / "v.vcf", contigs, rows)
    told = bcftools_norm(tool("bcftools"), fasta, tmp_path / "v.vcf")
    genome = Genome(fasta)
    ours = [(n, row[0], *normalise(genome, *row)) for n, row in enumerate(rows)]
    assert ours == sorted((*row[:3], row[3].upper(), row[4].upper()) for row in told)
    assert sum(mine[1:] != row for mine, row in zip(ours, rows, strict=True)) > len(rows) / 4
    assert sum("N" in mine[3] for mine in ours) > 100  # the base before an insertion is a gap's


def test_rows_with_several_alleles_are_split_as_bcftools_does(places, tmp_path, tool):
    """And through the door: from the file to the accepted variants."""
    contigs, fasta = places
    rng = random.Random(4)
    rows = []
    for contig, pos, ref, alt in random_variants(3_000, contigs, rng):
        text = contigs[contig].upper()
        others = {random_alt(rng, text, pos - 1, ref) for _ in range(rng.randrange(4))}
        alts = sorted({alt, *others} - {ref, ""})
        rows.append((contig, pos, ref, ",".join(one for one in alts if "N" not in one)))
    path = tmp_path / "v.vcf"
    write_vcf(path, contigs, rows)
    told = bcftools_norm(tool("bcftools"), fasta, path, "-m-")
    assert len(told) > 1.5 * len(rows)
    result = accept_variants(read_variants(path, {"label": "y", "tissue": "n"}), Genome(fasta), {})
    check_books(result, len(rows))
    in_a_gap = result.rejected
    assert set(in_a_gap["reason"]) <= {"too_many_ns"}
    both = [
        (int(row.line) - len(contigs) - 5, row.contig, int(row.pos), row.ref, row.alt)
        for part in (result.accepted, in_a_gap)
        for row in part.itertuples()
    ]
    assert sorted(both) == sorted((*row[:3], row[3].upper(), row[4].upper()) for row in told)
    lengths = {
        (int(row.tissue), row.ref, row.alt): row.label for row in result.accepted.itertuples()
    }
    split = {
        (n, *normalise(Genome(fasta), *row[:3], alt)[1:]): len(alt) % 2
        for n, row in enumerate(rows)
        for alt in row[3].split(",")
    }
    assert lengths.items() <= split.items()  # each allele keeps its own label


@st.composite
def edits(draw):
    contig = draw(st.sampled_from(["chr2", "chr3"]))
    start = draw(st.integers(0, 40) | st.integers(0, len(CONTIGS[contig]) - 12))
    ref = CONTIGS[contig][start : start + draw(st.integers(1, 10))].upper()
    alt = draw(st.text("ACGT", min_size=1, max_size=10).filter(lambda alt: alt != ref))
    return contig, start + 1, ref, alt


def apply(contig, pos, ref, alt):
    text = CONTIGS[contig].upper()
    assert text[pos - 1 :].startswith(ref)
    return text[: pos - 1] + alt + text[pos - 1 + len(ref) :]


@settings(deadline=None)
@given(edit=edits(), left=st.integers(0, 6), right=st.integers(0, 6))
def test_normal_form_keeps_the_haplotype_and_forgets_the_spelling(genome, edit, left, right):
    contig, pos, ref, alt = edit
    normal = normalise(genome, contig, pos, ref, alt)
    assert apply(contig, *normal) == apply(contig, pos, ref, alt)
    assert normalise(genome, contig, *normal) == normal
    text = CONTIGS[contig].upper()
    left = min(left, pos - 1)
    before = text[pos - 1 - left : pos - 1]
    after = text[pos - 1 + len(ref) :][:right]
    longer = (pos - left, before + ref + after, before + alt + after)
    assert normalise(genome, contig, *longer) == normal


# (contig, POS, REF, ALT, label) and what becomes of each allele; "" is accepted.
ROWS = [
    (("chr1", 1, "A", "C", "1"), [""]),
    (("chr1", 1, "A", "C", "1"), ["duplicate"]),
    (("chr1", 2, "C", "T", "0.7"), ["unparseable"]),
    (("chr1", 2, "C", "T", "pathogenic"), ["unparseable"]),
    (("chr1", 2, "C", "T", ""), ["no_label"]),
    (("chr1", 2, "C", "T,G", "1,0.7"), ["", "unparseable"]),
    (("chr1", 5, "A", "G", "1"), ["contradictory_label"]),
    (("chr1", 5, "A", "G", "0"), ["contradictory_label"]),
    (
        ("chr1", 9, "A", "C,<DEL>,*,A[chr1:9[", "1,0,0,1"),
        ["", "symbolic_allele", "star_allele", "breakend"],
    ),
    (("chr1", 11, "A", ".", "1"), ["no_alternative"]),
    (("chr1", 11, "A", "R", "1"), ["invalid_allele"]),
    (("chr1", 12, "A", "C", "1"), ["reference_mismatch"]),
    *((("chr1", pos, "A", "C", "0"), ["zero"]) for pos in (21, 31, 41, 51)),
    (("chr1", 121, "A", "C", "1"), ["out_of_bounds"]),
    (("chrGap", 150, "A", "C", "1"), ["too_many_ns"]),
    (("nowhere", 5, "A", "C", "1"), ["unknown_contig"]),
]
NAMES = {
    "ucsc": {"chr1": "chr1", "chrGap": "chrGap"},
    "plain": {"chr1": "1", "chrGap": "Gap"},
    "accessions": {"chr1": "CM000001.1", "chrGap": "CM000002.1"},
}
FORMS = ("csv", "tsv.gz", "parquet", "vcf", "gzip", "bgzip", "tabix", "stale", "bcf", "bcf.raw")


@pytest.fixture(scope="module")
def islet(tmp_path_factory):
    """chr1 and, in a gap, four bases."""
    path = tmp_path_factory.mktemp("islet") / "genome.fa"
    path.write_text(f">chr1\n{CONTIGS['chr1']}\n>chrGap\n{'N' * 149}ACGT{'N' * 149}\n")
    pysam.faidx(str(path))
    return Genome(path)


def write_rows(folder, form, names, contig_lines, bcftools):
    """ROWS as a file of that form: its path, its column map, the line of its first row."""
    rows = [(names.get(row[0], row[0]), *row[1:]) for row, _ in ROWS]
    if form in ("csv", "tsv.gz", "parquet"):
        table = pd.DataFrame(rows, columns=["CHROM", "POS", "REF", "ALT", "y"])
        columns = dict(zip(("contig", "pos", "ref", "alt", "label"), table.columns, strict=True))
        path = folder / f"v.{form}"
        if form == "parquet":
            table.to_parquet(path)
        else:
            table.to_csv(path, sep="," if form == "csv" else "\t", index=False)
        return path, columns, 1 if form == "parquet" else 2
    contigs = [*names.values(), "nowhere"] if contig_lines else []
    header = [
        "##fileformat=VCFv4.2",
        '##INFO=<ID=y,Number=.,Type=String,Description="label">',
        *(f"##contig=<ID={name}>" for name in contigs),
        "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO",
    ]
    lines = [
        f"{contig}\t{pos}\t.\t{ref}\t{alt}\t.\t.\t{f'y={label}' if label else '.'}"
        for contig, pos, ref, alt, label in rows
    ]
    plain = folder / "v.vcf"
    plain.write_text("\n".join([*header, *lines]) + "\n")
    return pack(plain, form, bcftools), {"label": "y"}, 1 if "bcf" in form else len(header) + 1


def pack(plain, form, bcftools):
    """A VCF in another form."""
    packed = plain.with_suffix(".bcf" if "bcf" in form else ".vcf.gz")
    if form == "vcf":
        return plain
    if form == "gzip":
        packed.write_bytes(gzip.compress(plain.read_bytes()))
        return packed
    kind = {"bcf": "b", "bcf.raw": "u"}.get(form, "z")
    subprocess.run([bcftools, "view", f"-O{kind}", "-o", packed, plain], check=True)
    if form in ("bgzip", "tabix", "stale"):  # bcftools would change the header
        pysam.tabix_compress(str(plain), str(packed), force=True)
    if form == "tabix":
        subprocess.run([bcftools, "index", packed], check=True)
    if form == "stale":
        packed.with_name(packed.name + ".tbi").write_bytes(b"no index")
    return packed


@pytest.mark.parametrize(
    ("form", "naming"),
    [
        *((form, "ucsc") for form in FORMS),
        *((form, naming) for form in ("csv", "vcf", "bcf") for naming in ("plain", "accessions")),
    ],
)
def test_every_form_of_a_file_gives_the_same_variants_and_the_same_ledger(
    islet, tmp_path, tool, form, naming
):
    names = NAMES[naming]
    aliases = {alias: contig for contig, alias in names.items()}
    for contig_lines in (True, False) if form in ("vcf", "gzip", "bgzip") else (True,):
        path, columns, first = write_rows(tmp_path, form, names, contig_lines, tool("bcftools"))
        result = accept_variants(read_variants(path, columns), islet, aliases, limit=3)
        check_books(result, len(ROWS))
        found = [(row.line, "") for row in result.accepted.itertuples()]
        found += [(row.line, row.reason) for row in result.rejected.itertuples()]
        zeros = [number for number, row in enumerate(ROWS, first) if row[1] == ["zero"]]
        expected = [
            (number, reason)
            for number, (_, reasons) in enumerate(ROWS, first)
            for reason in reasons
            if reason != "zero"
        ]
        assert sorted(pair for pair in found if pair[0] not in zeros) == sorted(expected)
        assert sorted(reason for line, reason in found if line in zeros) == [
            "",
            "",
            "",
            "cut_by_limit",
        ]
        assert {reason for _, reason in found} == {"", *REASONS}
        ledger = result.rejected.set_index("reason")["sentence"]
        assert ledger["duplicate"] == f"the same variant as line {first}"
        assert (
            ledger["contradictory_label"] == f"lines {first + 6} and {first + 7} give this variant "
            "both labels"
        ).all()
        assert ledger["unparseable"].tolist() == [
            f"the label is '{label}': it must be 0 or 1" for label in ("0.7", "pathogenic", "0.7")
        ]


@pytest.mark.parametrize("kind", ["Integer", "Float", "String", "Flag"])
@pytest.mark.parametrize("form", ["vcf", "bcf"])
def test_a_label_is_taken_as_it_stands_whatever_type_it_is_declared_as(
    islet, tmp_path, tool, kind, form
):
    """A BCF holds numbers where they are declared: what made it has read the text, not we."""
    labels = {
        "0": 0,
        "1": 1,
        "0.7": "unparseable",
        "1abc": "unparseable",
        "0x1": "unparseable",
        "2": "unparseable",
        "-1": "unparseable",
        "pathogenic": "unparseable",
        ".": "no_label",
        "": 1 if kind == "Flag" else "no_label",
        None: 0 if kind == "Flag" else "no_label",
    }
    if form == "bcf":
        held = {"Integer": ["0", "1", "2", "-1", ".", None], "Flag": ["", None]}
        held["Float"] = [*held["Integer"], "0.7"]
        labels = {text: labels[text] for text in held.get(kind, labels)}
    places = [pos for pos in range(1, 121) if CONTIGS["chr1"][pos - 1] == "A"]
    header = (
        "##fileformat=VCFv4.2\n##contig=<ID=chr1>\n"
        f'##INFO=<ID=y,Number={int(kind != "Flag")},Type={kind},Description="label">\n'
        "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    )
    plain = tmp_path / "v.vcf"
    info = {text: "." if text is None else f"y={text}" if text else "y" for text in labels}
    plain.write_text(
        header
        + "".join(
            f"chr1\t{pos}\t.\tA\tC\t.\t.\t{info[text]}\n"
            for pos, text in zip(places, labels, strict=False)
        )
    )
    path = pack(plain, form, tool("bcftools"))
    result = accept_variants(read_variants(path, {"label": "y"}), islet, {})
    found = dict(zip(result.accepted["pos"], result.accepted["label"], strict=True))
    found |= dict(zip(result.rejected["pos"].astype(int), result.rejected["reason"], strict=True))
    assert found == dict(zip(places, labels.values(), strict=False))
    if "0.7" in labels:
        assert "the label is '0.7': it must be 0 or 1" in result.rejected["sentence"].tolist()


def test_a_broken_row_of_a_table_goes_to_the_ledger(islet, tmp_path):
    """In a VCF it ends the reading, with its line (test_variants_readers.py)."""
    path = tmp_path / "v.csv"
    path.write_text("CHROM,POS,REF,ALT,y\nchr1,1,A,C,1\nchr1,5,A\nchr1,x,A,C,1\nchr1,9,A,C,0\n")
    columns = {"contig": "CHROM", "pos": "POS", "ref": "REF", "alt": "ALT", "label": "y"}
    result = accept_variants(read_variants(path, columns), islet, {})
    assert result.accepted["line"].tolist() == [2, 5]
    assert result.rejected[["line", "reason"]].to_numpy().tolist() == [
        [3, "unparseable"],
        [4, "unparseable"],
    ]


def test_real_variants(shared, tmp_path):
    """Real REF alleles agree with the real chrM, and their bases with what the table says."""
    fasta_gz = shared / "data" / "mini_GCA_000001405.15_GRCh38_genomic.fna.gz"
    text = gzip.decompress(fasta_gz.read_bytes()).decode()
    path = tmp_path / "chrM.fa"
    path.write_text(">chrM\n" + text.split(">J01415.2")[1].split("\n", 1)[1])
    pysam.faidx(str(path))
    columns = {"contig": "CHROM", "pos": "POS", "ref": "REF", "alt": "ALT", "label": "INT_LABEL"}
    records = read_variants(shared / "data" / "chrM_clinvar_labelled.csv", columns)
    result = accept_variants(records, Genome(path), {"MT": "chrM"})
    check_books(result, 1686)
    assert result.rejected[["line", "reason"]].to_numpy().tolist() == [[77, "no_alternative"]]
    assert result.accepted["label"].sum() == 255
