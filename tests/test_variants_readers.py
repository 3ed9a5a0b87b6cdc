"""Every format gives the same rows; line numbers are those of an editor."""

import gzip
import subprocess

import pandas as pd
import pysam
import pytest

from longscale.errors import LongscaleError
from longscale.variants.readers import RawVariant, read_variants

COLUMNS = {
    "contig": "CHROM",
    "pos": "POS",
    "ref": "REF",
    "alt": "ALT",
    "label": "y",
    "split": "split",
    "tissue": "tissue",
}
NO_SPLIT = {key: COLUMNS[key] for key in ("contig", "pos", "ref", "alt", "label")}
TABLE = pd.DataFrame(
    {
        "extra": [0.5, 0.25, 1.0],
        "POS": [10, 20, 30],
        "CHROM": ["chr1", "1", "chrX"],
        "REF": ["A", "AC", "g"],
        "ALT": ["C", "A,AT", "<DEL>"],
        "y": [1, 0, 1],
        "split": ["train", "test", "dev"],
        "tissue": ["Whole Blood", "Brain, cortex", "Liver"],
    }
)
EXPECTED = [
    ("chr1", "10", "A", ("C",), "1", "train", "Whole Blood"),
    ("1", "20", "AC", ("A", "AT"), "0", "test", "Brain, cortex"),
    ("chrX", "30", "g", ("<DEL>",), "1", "dev", "Liver"),
]
VCF_HEADER = """\
##fileformat=VCFv4.2
##INFO=<ID=y,Number=1,Type=Integer,Description="label">
##INFO=<ID=ya,Number=A,Type=Integer,Description="label per allele">
##INFO=<ID=FLAG,Number=0,Type=Flag,Description="label by presence">
##INFO=<ID=split,Number=1,Type=String,Description="split">
##INFO=<ID=tissue,Number=1,Type=String,Description="tissue">
"""
VCF_COLUMNS = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
VCF_ROWS = """\
chr1\t10\t.\tA\tC\t.\tPASS\ty=1;split=train;tissue=Whole_Blood;ya=1;FLAG
1\t20\trs1\tAC\tA,AT\t3\tq10\ty=0;split=test;tissue=Brain,_cortex;ya=0,1
chrX\t30\t.\tg\t<DEL>\t.\t.\tsplit=dev
chrX\t31\t.\tT\t.\t.\t.\ty=0
"""
CONTIG_LINES = "".join(f"##contig=<ID={name},length=100>\n" for name in ("chr1", "1", "chrX"))


def rows_of(path, columns):
    return list(read_variants(path, columns))


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".parquet"])
def test_tables_give_the_same_rows(tmp_path, suffix):
    path = tmp_path / f"variants.v1{suffix}"
    if suffix == ".parquet":
        TABLE.to_parquet(path)
    else:
        TABLE.to_csv(path, sep="," if ".csv" in suffix else "\t", index=False)
    rows = rows_of(path, COLUMNS)
    assert [row[1:8] for row in rows] == EXPECTED
    first = 1 if suffix == ".parquet" else 2
    assert [row.line for row in rows] == [first, first + 1, first + 2]
    assert {row.problem for row in rows} == {""}
    assert [(row.split, row.tissue) for row in rows_of(path, NO_SPLIT)] == [("", "")] * 3


def test_line_numbers_with_blank_lines_quoted_breaks_and_bad_rows(tmp_path):
    path = tmp_path / "v.csv"
    path.write_bytes(
        b"\xef\xbb\xbfCHROM,POS,REF,ALT,y,note\r\n"
        b"chr1,10,A,C,1,plain\r\n"
        b"\r\n"
        b'chr1,11,A,C,0,"two\r\nlines"\r\n'
        b"chr1,12,A,C,0\r\n"
        b"chr1,13,A,C,0,a,b\r\n"
        b"chr1,14,A,,0,last"
    )
    rows = rows_of(path, NO_SPLIT)
    assert [row.line for row in rows] == [2, 4, 6, 7, 8]
    assert [row.pos for row in rows] == ["10", "11", "", "", "14"]
    assert rows[2].problem == "the row has 5 fields where the header has 6"
    assert rows[3].problem == "the row has 7 fields where the header has 6"
    assert rows[4].alts == ()


def test_parquet_numbers_booleans_and_nulls_become_text(tmp_path):
    path = tmp_path / "v.parquet"
    table = pd.DataFrame(
        {
            "CHROM": pd.Categorical(["chr1", "chr1"]),
            "POS": [10.0, None],
            "REF": ["A", None],
            "ALT": ["C", "T"],
            "y": [True, False],
        }
    )
    table.to_parquet(path)
    first, second = rows_of(path, NO_SPLIT)
    assert first in [RawVariant(1, "chr1", pos, "A", ("C",), "true") for pos in ("10", "10.0")]
    assert second == RawVariant(2, "chr1", "", "", ("T",), "false")


@pytest.mark.parametrize("contig_lines", ["", CONTIG_LINES])
@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz"])
def test_vcf_rows_and_lines(tmp_path, suffix, contig_lines):
    path = tmp_path / f"v{suffix}"
    text = VCF_HEADER + contig_lines + VCF_COLUMNS + VCF_ROWS
    if suffix == ".vcf":
        path.write_text(text)
    else:
        with pysam.BGZFile(str(path), "w") as handle:
            handle.write(text.encode())
    rows = rows_of(path, {"label": "y", "split": "split", "tissue": "tissue"})
    assert [row[1:8] for row in rows] == [
        ("chr1", "10", "A", ("C",), "1", "train", "Whole_Blood"),
        ("1", "20", "AC", ("A", "AT"), "0", "test", "Brain,_cortex"),
        ("chrX", "30", "g", ("<DEL>",), "", "dev", ""),
        ("chrX", "31", "T", (), "0", "", ""),
    ]
    lines = text.splitlines()
    assert [lines[row.line - 1].split("\t")[1] for row in rows] == [row.pos for row in rows]


def test_vcf_labels_per_allele_and_by_flag(tmp_path):
    path = tmp_path / "v.vcf"
    path.write_text(VCF_HEADER + VCF_COLUMNS + VCF_ROWS)
    assert [row.label for row in rows_of(path, {"label": "ya"})] == ["1", "0,1", "", ""]
    assert [row.label for row in rows_of(path, {"label": "FLAG"})] == ["1", "0", "0", "0"]


def test_bcf_equals_vcf_and_bcftools(tmp_path, tool):
    bcftools = tool("bcftools")
    path, binary = tmp_path / "v.vcf", tmp_path / "v.bcf"
    path.write_text(VCF_HEADER + CONTIG_LINES + VCF_COLUMNS + VCF_ROWS.replace("q10", "PASS"))
    subprocess.run([bcftools, "view", "-Ob", "-o", binary, path], check=True)
    rows = rows_of(path, {"label": "y", "tissue": "tissue"})
    assert [row[1:] for row in rows_of(binary, {"label": "y", "tissue": "tissue"})] == [
        row[1:] for row in rows
    ]
    assert [row.line for row in rows_of(binary, {"label": "y"})] == [1, 2, 3, 4]
    query = "%CHROM\t%POS\t%REF\t%ALT\t%INFO/y\t%INFO/tissue\n"
    told = subprocess.run(
        [bcftools, "query", "-f", query, binary], check=True, capture_output=True, text=True
    ).stdout
    ours = [
        [
            row.contig,
            row.pos,
            row.ref,
            ",".join(row.alts) or ".",
            row.label or ".",
            row.tissue or ".",
        ]
        for row in rows
    ]
    assert ours == [line.split("\t") for line in told.splitlines()]


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


HEADER = "CHROM,POS,REF,ALT,y\n"


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("v.csv", "", "the file is empty; a header line"),
        ("v.csv", HEADER, "holds no variant; at least one row"),
        ("v.csv", "Chrom,POS,REF,ALT,y\n", "'CHROM' .for contig. is missing; nearest: 'Chrom'"),
        ("v.csv", "CHROM,POS,REF,ALT,y,y\n", "'y' .for label. occurs 2 times"),
        ("v.csv", "a;b\n1;2\n", "'CHROM' .for contig. is missing; present: a;b"),
        ("v.csv", HEADER.encode() + b"chr1,1,A,\xff,0\n", "not UTF-8 text"),
        ("v.csv", HEADER + '"' + "x" * ((1 << 24) + 1), "line 2 cannot be read: field larger"),
        ("v.csv.gz", gzip.compress(HEADER.encode() * 50, mtime=0)[:-9], "cannot be read"),
        ("v.csv.gz", gzip.compress(b"", mtime=0)[:10] + b"\xff" * 40, "line 1 cannot be read"),
        ("v.csv.gz", HEADER, "cannot be read: Not a gzipped file"),
        ("v.parquet", "PAR1 nothing", "not a readable Parquet file"),
        ("v.vcf", "", "cannot be read"),
        ("v.vcf", VCF_HEADER + VCF_COLUMNS, "holds no variant"),
        (
            "v.vcf",
            VCF_HEADER + VCF_COLUMNS + "chr1\tten\t.\tA\tC\t.\t.\ty=1\n",
            "line 8 cannot be read",
        ),
        ("v.vcf", VCF_HEADER + VCF_COLUMNS + "chr1\t10\n", "line 8 cannot be read"),
        ("v.vcf.gz", b"\x1f\x8b broken", "cannot be read"),
        ("v.xlsx", "x", "the suffix names no known format"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence(tmp_path, capfd, name, content, sentence):
    path = write(tmp_path, name, content)
    columns = {"label": "y"} if ".vcf" in name else NO_SPLIT
    with pytest.raises(LongscaleError, match=sentence) as told:
        rows_of(path, columns)
    assert str(told.value).startswith(f"{path}: ")
    assert "\n" not in str(told.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("lost", [28, 60])
def test_a_bgzipped_file_that_was_cut_is_told(tmp_path, lost):
    """Even where the cut falls between two blocks, and all that is left can be read."""
    path = tmp_path / "v.vcf.gz"
    with pysam.BGZFile(str(path), "w") as handle:
        handle.write((VCF_HEADER + VCF_COLUMNS + VCF_ROWS).encode())
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(LongscaleError, match=r"v\.vcf\.gz: .*cannot be read.*it is cut off"):
        rows_of(path, {"label": "y"})


@pytest.mark.parametrize("bad", ["chr1\tten\t.\tA\tC\t.\t.\ty=1", "chr1\t10", "", "#more"])
def test_a_broken_row_of_a_vcf_is_told_with_its_line(tmp_path, bad):
    path = write(tmp_path, "v.vcf", f"{VCF_HEADER}{VCF_COLUMNS}{VCF_ROWS}{bad}\n{VCF_ROWS}")
    with pytest.raises(LongscaleError, match=r"v\.vcf: line 12 cannot be read"):
        rows_of(path, {"label": "y"})


@pytest.mark.parametrize("name", ["v.vcf", "v.vcf.gz", "v.vcf.bgz", "v.bcf"])
@pytest.mark.parametrize("packed", [True, False])
def test_the_content_and_not_the_suffix_says_how_a_vcf_is_packed(tmp_path, name, packed):
    text = (VCF_HEADER + VCF_COLUMNS + VCF_ROWS).encode()
    path = write(tmp_path, name, gzip.compress(text) if packed else text)
    assert [row.line for row in rows_of(path, {"label": "y"})] == [8, 9, 10, 11]


def test_an_info_key_that_is_not_declared_is_named(tmp_path):
    path = write(tmp_path, "v.vcf", VCF_HEADER + VCF_COLUMNS + VCF_ROWS)
    with pytest.raises(LongscaleError, match=r"INFO key 'Split' .for split.* nearest: 'split'"):
        rows_of(path, {"label": "y", "split": "Split"})


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({**NO_SPLIT, "label": ""}, "does not say where 'label' stands; variants without a label"),
        ({"contig": "CHROM", "label": "y"}, "does not say where 'pos' stands"),
        ({**NO_SPLIT, "chrom": "CHROM"}, "unknown key 'chrom'; known are contig, pos"),
    ],
)
def test_a_bad_column_map_is_one_sentence(tmp_path, columns, sentence):
    path = write(tmp_path, "v.csv", HEADER + "chr1,1,A,C,0\n")
    with pytest.raises(LongscaleError, match=sentence):
        read_variants(path, columns)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(LongscaleError, match=r"none\.csv: this file does not exist"):
        read_variants(tmp_path / "none.csv", NO_SPLIT)


def test_real_clinvar_table(shared):
    path = shared / "data" / "chrM_clinvar_labelled.csv"
    columns = {"contig": "CHROM", "pos": "POS", "ref": "REF", "alt": "ALT", "label": "INT_LABEL"}
    rows = rows_of(path, columns)
    table = pd.read_csv(path, dtype=str)
    assert [row.line for row in rows] == list(range(2, len(table) + 2))
    assert [row.pos for row in rows] == table["POS"].tolist()
    assert [row.label for row in rows] == table["INT_LABEL"].tolist()
