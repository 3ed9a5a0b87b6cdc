import pytest

from longscale.errors import LongscaleError
from longscale.genome.assembly import AssemblyReport, fasta_aliases, read_aliases, write_aliases

COMMENT = "# Assembly name: toy\n# Sequence-Name\tSequence-Role\n"
ROWS = """\
1 assembled-molecule 1 Chromosome CM000663.2 = NC_000001.11 Primary 1000 chr1
MT assembled-molecule MT Mitochondrion J01415.2 = NC_012920.1 non-nuclear 160 chrM
S1 unlocalized-scaffold 1 Chromosome KI27.1 = NT_18.1 Primary 50 chr1_KI27v1_random
S2 unplaced-scaffold na na KI28.1 <> na Primary 60 na
"""
CHR1, CHR_M, RANDOM, NO_UCSC = (row.split() for row in ROWS.splitlines())


def write_report(folder, *rows, end="\n"):
    path = folder / "report.txt"
    text = COMMENT + "".join("\t".join(row) + "\n" for row in rows)
    path.write_bytes(text.replace("\n", end).encode())
    return path


def changed(row, column, value):
    return [*row[:column], value, *row[column + 1 :]]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_fields_and_missing_values(tmp_path, end):
    report = AssemblyReport.read(write_report(tmp_path, CHR1, NO_UCSC, end=end))
    first, second = report.sequences
    assert (first.name, first.role, first.molecule) == ("1", "assembled-molecule", "1")
    assert (first.genbank, first.refseq) == ("CM000663.2", "NC_000001.11")
    assert (first.length, first.ucsc, first.contig) == (1000, "chr1", "chr1")
    assert (second.molecule, second.refseq, second.ucsc) == (None, None, None)
    assert second.contig == "KI28.1"


def test_aliases_are_exactly_these(tmp_path):
    aliases = AssemblyReport.read(write_report(tmp_path, CHR1, CHR_M, RANDOM, NO_UCSC)).aliases()
    names = {
        "chr1": "1 chr1 CM000663.2 CM000663 NC_000001.11 NC_000001",
        "chrM": "MT chrMT M chrM J01415.2 J01415 NC_012920.1 NC_012920",
        "chr1_KI27v1_random": "S1 chr1_KI27v1_random KI27.1 KI27 NT_18.1 NT_18",
        "KI28.1": "S2 KI28.1 KI28",
    }
    assert aliases == {name: contig for contig, row in names.items() for name in row.split()}


def test_an_alias_of_two_contigs_is_left_out(tmp_path):
    other_version = changed(changed(RANDOM, 4, "CM000663.1"), 0, "1")
    aliases = AssemblyReport.read(write_report(tmp_path, CHR1, other_version)).aliases()
    assert "CM000663" not in aliases
    assert "1" not in aliases
    assert aliases["CM000663.1"] == "chr1_KI27v1_random"
    assert aliases["CM000663.2"] == "chr1"


def test_a_contig_always_stands_for_itself(tmp_path):
    named_like_a_contig = changed(RANDOM, 0, "chr1")
    aliases = AssemblyReport.read(write_report(tmp_path, named_like_a_contig, CHR1)).aliases()
    assert aliases["chr1"] == "chr1"


def test_aliases_without_a_report_are_the_names_with_and_without_chr():
    aliases = fasta_aliases(["chr1", "chrM", "GL1", "chr", "2", "chr2"])
    assert aliases == {
        **{"chr1": "chr1", "1": "chr1", "chrM": "chrM", "M": "chrM"},
        **{"GL1": "GL1", "chrGL1": "GL1", "chr": "chr", "chrchr": "chr"},
        **{"2": "2", "chr2": "chr2"},  # each its own, none the other's
    }


def test_the_order_of_aliases_is_that_of_the_report(tmp_path):
    aliases = AssemblyReport.read(write_report(tmp_path, CHR1, NO_UCSC)).aliases()
    assert [*aliases] == [
        *("chr1", "1", "CM000663.2", "CM000663", "NC_000001.11", "NC_000001"),
        *("KI28.1", "S2", "KI28"),
    ]


@pytest.mark.parametrize(
    ("rows", "line", "part"),
    [
        ([CHR1, RANDOM[:9]], 4, "found 9"),
        ([CHR1, [*RANDOM, "x"]], 4, "found 11"),
        ([changed(CHR1, 8, "1,000")], 3, "'1,000'"),
        ([changed(CHR1, 8, "na")], 3, "length"),
        ([changed(CHR1, 8, "0")], 3, "length"),
        ([changed(changed(CHR1, 4, "na"), 6, "na")], 3, "accession"),
        ([CHR1, changed(CHR_M, 4, "CM000663.2")], 4, "'CM000663.2' already stands in line 3"),
        ([CHR1, changed(CHR_M, 6, "NC_000001.11")], 4, "'NC_000001.11' already"),
        ([CHR1, RANDOM, changed(CHR_M, 9, "chr1")], 5, "'chr1' already stands in line 3"),
    ],
)
def test_bad_rows_are_named(tmp_path, rows, line, part):
    path = write_report(tmp_path, *rows)
    with pytest.raises(LongscaleError) as caught:
        AssemblyReport.read(path)
    assert f"{path}, line {line}:" in str(caught.value)
    assert part in str(caught.value)


def test_absent_or_empty_report(tmp_path):
    with pytest.raises(LongscaleError, match="lists no sequence"):
        AssemblyReport.read(write_report(tmp_path))
    with pytest.raises(LongscaleError, match=r"nowhere\.txt: cannot be read"):
        AssemblyReport.read(tmp_path / "nowhere.txt")


def test_alias_table_round_trip(tmp_path):
    aliases = AssemblyReport.read(write_report(tmp_path, CHR1, CHR_M, RANDOM)).aliases()
    write_aliases(aliases, tmp_path / "aliases.tsv")
    assert read_aliases(tmp_path / "aliases.tsv") == aliases
    assert (tmp_path / "aliases.tsv").read_text().splitlines()[0] == "alias\tcontig"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name\tcontig\n", 1),
        ("alias\tcontig\n1\tchr1\n2\n", 3),
        ("alias\tcontig\n1\t\n", 2),
        ("alias\tcontig\n1\tchr1\n1\tchr2\n", 3),
    ],
)
def test_bad_alias_tables(tmp_path, text, line):
    path = tmp_path / "aliases.tsv"
    path.write_text(text)
    with pytest.raises(LongscaleError, match=f"line {line}:"):
        read_aliases(path)


def test_grch38(shared):
    path = shared / "data" / "GCA_000001405.15_GRCh38_assembly_report.reconstructed.txt"
    report = AssemblyReport.read(path)
    aliases = report.aliases()
    assert len(report.sequences) == 455
    assert sum(sequence.length for sequence in report.sequences) == 3_209_286_105
    assert {aliases[name] for name in ("1", "chr1", "NC_000001.11", "CM000663.2")} == {"chr1"}
    assert {aliases[name] for name in ("MT", "M", "J01415.2", "NC_012920.1")} == {"chrM"}
    contigs = {sequence.contig for sequence in report.sequences}
    assert len(contigs) == 455
    assert set(aliases.values()) == contigs
    assert all(aliases[contig] == contig for contig in contigs)
