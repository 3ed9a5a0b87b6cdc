"""Nothing is lost, nothing wrong gets through, and normal forms are those of bcftools."""

import gzip
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
    summarise,
)
from longscale.variants.readers import RawVariant, read_variants

RANDOM_VARIANTS = 600
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

    result = accept_variants(records, genome, ALIASES, repair_swapped=True)
    check_books(result, 7)
    assert result.accepted.drop(columns=["split", "tissue"]).to_numpy().tolist() == [
        ["chr1", 2, "C", "T", 1, 2, True],
        ["chr1", 3, "G", "A", 1, 4, False],
        ["chr1", 6, "CG", "T", 0, 5, True],
        ["chrTiny", 7, "A", "T", 1, 7, True],
    ]
    assert result.rejected["line"].tolist() == [3, 6, 8]
    assert "REF and ALT exchanged: 3, marked" in summarise(*result)


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


def random_variants(count):
    """SNVs, MNVs, insertions and deletions, most of them in repeats, many at contig ends."""
    rows = []
    while len(rows) < count:
        contig = str(RNG.choice(["chr1", "chr2", "chr3"]))
        text = CONTIGS[contig].upper()
        ref_bp = int(RNG.choice([1, 1, 2, 3, 4, 8, 30]))
        near_start = RNG.random() < 0.2
        start = int(RNG.integers(0, 12 if near_start else len(text)))
        if RNG.random() < 0.1:
            start = len(text) - ref_bp - int(RNG.integers(0, 4))
        ref = text[start : start + ref_bp]
        kind = RNG.choice(["random", "same", "copy", "shorter"])
        alt = {
            "random": random_bases(RNG.integers(1, 6)),
            "same": random_bases(len(ref)),
            "copy": ref + text[start : start + int(RNG.integers(1, 9))],
            "shorter": ref[: int(RNG.integers(1, len(ref) + 1))] if ref else "",
        }[kind]
        if ref and alt != ref:
            rows.append((contig, start + 1, ref, alt))
    return rows


def test_normal_forms_are_those_of_bcftools(genome, fasta, tmp_path, tool):
    rows = random_variants(RANDOM_VARIANTS)
    header = "##fileformat=VCFv4.2\n" + "".join(
        f"##contig=<ID={name},length={len(text)}>\n" for name, text in CONTIGS.items()
    )
    body = "".join(
        f"{contig}\t{pos}\t{number}\t{ref}\t{alt}\t.\t.\t.\n"
        for number, (contig, pos, ref, alt) in enumerate(rows)
    )
    path = tmp_path / "v.vcf"
    path.write_text(header + "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n" + body)
    out = subprocess.run(
        [tool("bcftools"), "norm", "-f", fasta, "-c", "e", path],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    told = {}
    for line in out.splitlines():
        if not line.startswith("#"):
            contig, pos, number, ref, alt = line.split("\t")[:5]
            told[int(number)] = (contig, int(pos), ref.upper(), alt.upper())
    ours = {n: (row[0], *normalise(genome, *row)) for n, row in enumerate(rows)}
    assert ours == told
    assert sum(ours[n] != row for n, row in enumerate(rows)) > RANDOM_VARIANTS / 4

    # and the same through the door
    records = [
        raw(n + 1, contig, str(pos), ref, [alt], tissue=str(n))
        for n, (contig, pos, ref, alt) in enumerate(rows)
    ]
    accepted = accept_variants(records, genome, {}).accepted
    columns = ["contig", "pos", "ref", "alt"]
    assert list(map(tuple, accepted[columns].to_numpy())) == [told[n] for n in range(len(rows))]


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


def test_summary_for_a_person(genome):
    records = [raw(2), raw(3, label="0", pos="5", split="test"), raw(4, pos="2"), raw(5, "zz")]
    told = summarise(*accept_variants(records, genome, {})).splitlines()
    assert told[0] == "4 rows, 4 alleles: 2 accepted, 2 rejected"
    assert told[1] == "  no split: 1 variants, 1 with label 1, 0 with label 0"
    assert told[2] == "  test: 1 variants, 0 with label 1, 1 with label 0"
    assert told[3].startswith("  reference_mismatch: 1, e.g. line 4: REF is A but the genome has C")
    assert told[4].startswith("  unknown_contig: 1, e.g. line 5: contig 'zz'")
    assert len(told) == 5


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
