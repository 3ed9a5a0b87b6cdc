"""Assembly reports, FASTA files and lists of checksums: what NCBI (or a careless hand) can send."""

import gzip
import hashlib
from pathlib import Path
from typing import Any

from defects.harness import Defect, Told, told_by

ROWS = [
    ["1", "assembled-molecule", "1", "Chromosome", "CM1.1", "=", "NC_1.1", "Primary", "24", "chr1"],
    ["2", "assembled-molecule", "2", "Chromosome", "CM2.1", "=", "NC_2.1", "Primary", "12", "chr2"],
]
REPORT = "# Assembly name: test\n" + "".join("\t".join(row) + "\n" for row in ROWS)
FASTA = ">CM1.1 one\nACGTNRYacgtn\nACGTACGTACGT\n>CM2.1 two\nACGTACGTACGT\n"


def row(index: int, column: int, value: str) -> str:
    """The report with one field replaced (from 0 on, comment lines not counted)."""
    rows = [list(fields) for fields in ROWS]
    rows[index][column] = value
    return "# x\n" + "".join("\t".join(fields) + "\n" for fields in rows)


def use(folder: Path, defect: Defect, capture) -> Told:
    """What `convert_ncbi2ucsc`, or for sums `download_file`, does with the files."""
    given: dict[str, Any] = {"report": REPORT, "fasta": FASTA}
    given[defect.of] = defect.content
    paths = {name: folder / name for name in given}
    for name, content in given.items():
        paths[name].write_bytes(content if isinstance(content, bytes) else content.encode())
    out = folder / "out"
    if defect.of in ("sums", "download"):
        return use_sums(folder, given, capture)
    names = {"fasta": "g.fa", "fai": "g.fa.fai", "aliases": "a.tsv", "provenance": "g.json"}
    return told_by(
        "convert_ncbi2ucsc",
        capture,
        {key: out / name for key, name in names.items()},
        inputs={key: str(paths[key]) for key in ("fasta", "report")},
        params={"truncated": False, "url": None},
    )


def use_sums(folder: Path, given: dict, capture) -> Told:
    source = folder / "g.fna.gz"
    source.write_bytes(given.get("download", GOOD_GZIP))
    sums = folder / "md5checksums.txt"
    sums.write_text(given.get("sums", f"{hashlib.md5(GOOD_GZIP).hexdigest()}  ./g.fna.gz\n"))
    return told_by(
        "download_file",
        capture,
        {"file": folder / "out" / "g.fna.gz"},
        inputs={"source": [], "md5checksums": str(sums)},
        params={"url": str(source)},
    )


GOOD_GZIP = gzip.compress(FASTA.encode(), mtime=0)
FAR = gzip.compress(FASTA.encode() * 2000, mtime=0)
PAGE = b"<!DOCTYPE html><html><body>Please log in to the proxy</body></html>"

DEFECTS = [
    # --- the report
    Defect("an empty report", "", ("report", "lists no sequence", "10 tab"), of="report"),
    Defect("comments alone", "# a\n# b\n", ("report", "lists no sequence", "10 tab"), of="report"),
    Defect(
        "spaces for tabs",
        REPORT.replace("\t", " "),
        ("report, line 2", "found 1", "10 tab"),
        of="report",
    ),
    Defect(
        "commas for tabs",
        REPORT.replace("\t", ","),
        ("report, line 2", "found 1", "10 tab"),
        of="report",
    ),
    Defect(
        "a column too few",
        REPORT.replace("\tchr2", ""),
        ("report, line 3", "found 9", "10 tab"),
        of="report",
    ),
    Defect("an HTML page as report", PAGE, ("report, line 1", "found 1", "10 tab"), of="report"),
    Defect(
        "a report in UTF-16",
        REPORT.encode("utf-16"),
        ("report, line 1", "found", "10 tab"),
        of="report",
    ),
    Defect(
        "a length of na",
        row(0, 8, "na"),
        ("report, line 2", "'na'", "positive integer"),
        of="report",
    ),
    Defect(
        "a length below zero",
        row(0, 8, "-24"),
        ("report, line 2", "'-24'", "positive integer"),
        of="report",
    ),
    Defect(
        "a length with a point",
        row(1, 8, "12.0"),
        ("report, line 3", "'12.0'", "positive integer"),
        of="report",
    ),
    Defect(
        "a length in other digits",
        row(1, 8, "\u0661\u0662"),
        ("report, line 3", "\u0661", "positive integer"),
        of="report",
    ),
    Defect(
        "a length of 5,000 digits",
        row(1, 8, "9" * 5000),
        ("report, line 3", "9999", "positive integer"),
        of="report",
    ),
    Defect(
        "an accession twice",
        row(1, 4, "CM1.1"),
        ("report, line 3", "'CM1.1' already stands in line 2", "once"),
        of="report",
    ),
    Defect(
        "a UCSC name twice",
        row(1, 9, "chr1"),
        ("report, line 3", "'chr1' already stands in line 2", "once"),
        of="report",
    ),
    Defect(
        "a name with a space",
        row(1, 9, "chr 2"),
        ("report, line 3", "'chr 2' has a space", "one word"),
        of="report",
    ),
    Defect(
        "no role",
        row(1, 1, "na"),
        ("report, line 3", "needs a name, a role", "accession"),
        of="report",
    ),
    Defect(
        "the report of another assembly",
        REPORT.replace("CM", "CQ").replace("NC", "NQ"),
        ("fasta", "missing: chr1, chr2; unknown: 'CM1.1'", "report's contigs"),
        of="report",
    ),
    # --- the FASTA file
    Defect("an empty file", "", ("fasta", "holds no sequence", "'>'"), of="fasta"),
    Defect("blank lines alone", "\n\r\n\n", ("fasta", "holds no sequence", "'>'"), of="fasta"),
    Defect(
        "a table as FASTA",
        "CHROM,POS\nchr1,1\n",
        ("fasta", "CHROM,POS", "'>' and an accession"),
        of="fasta",
    ),
    Defect(
        "bases before a header",
        "ACGT\n" + FASTA,
        ("fasta", "ACGT", "'>' and an accession"),
        of="fasta",
    ),
    Defect("an HTML page as FASTA", PAGE, ("fasta", "DOCTYPE", "'>' and an accession"), of="fasta"),
    Defect(
        "a record twice",
        FASTA + ">CM2.1\nACGTACGTACGT\n",
        ("fasta", "twice: chr2", "report's contigs"),
        of="fasta",
    ),
    Defect(
        "a record under both its names",
        FASTA + ">NC_2.1\nACGTACGTACGT\n",
        ("fasta", "twice: chr2", "report's contigs"),
        of="fasta",
    ),
    Defect(
        "a record without bases",
        FASTA.replace("two\nACGTACGTACGT", "two"),
        ("fasta", r"chr2 \(0 bp for 12\)", "lengths"),
        of="fasta",
    ),
    Defect(
        "a header without a name",
        FASTA.replace(">CM2.1 two", ">"),
        ("fasta", "unknown: ''", "report's contigs"),
        of="fasta",
    ),
    Defect(
        "a base too many", FASTA + "A\n", ("fasta", r"chr2 \(13 bp for 12\)", "lengths"), of="fasta"
    ),
    Defect(
        "a base too few",
        FASTA.replace("GT\n", "G\n", 1),
        ("fasta", r"chr1 \(23 bp for 24\)", "lengths"),
        of="fasta",
    ),
    Defect(
        "a record that is missing",
        FASTA.split(">CM2")[0],
        ("fasta", "missing: chr2", "report's contigs"),
        of="fasta",
    ),
    Defect(
        "protein",
        FASTA.replace("ACGTNRYacgtn", "MKVLEEPQRSTV"),
        ("fasta", r"chr1 has b'L' at position 4", "IUPAC"),
        of="fasta",
    ),
    Defect(
        "digits among bases",
        FASTA.replace("two\nACGT", "two\nA1GT"),
        ("fasta", r"chr2 has b'1' at position 2", "IUPAC"),
        of="fasta",
    ),
    Defect(
        "spaces among bases",
        FASTA.replace("two\nACGT", "two\nAC T"),
        ("fasta", r"chr2 has b' ' at position 3", "IUPAC"),
        of="fasta",
    ),
    Defect(
        "gaps of an alignment",
        FASTA.replace("two\nACGT", "two\nA--T"),
        ("fasta", r"chr2 has b'-' at position 2", "IUPAC"),
        of="fasta",
    ),
    Defect(
        "a NUL among bases",
        FASTA.replace("ACGTACGTACGT\n>", "ACGTACGTACG\0\n>"),
        ("fasta", r"chr1 has b'\\x00' at position 24", "IUPAC"),
        of="fasta",
    ),
    Defect(
        "line ends of an old Macintosh",
        FASTA.replace("\n", "\r"),
        ("fasta", "0 bp for 24|missing", "contigs"),
        of="fasta",
    ),
    Defect(
        "gzip cut in its middle",
        FAR[: len(FAR) // 2],
        ("fasta", "ends too early", "fetched again"),
        of="fasta",
    ),
    Defect(
        "gzip without its last byte",
        GOOD_GZIP[:-1],
        ("fasta", "ends too early", "fetched again"),
        of="fasta",
    ),
    Defect(
        "gzip with its checksum off",
        GOOD_GZIP[:-8] + b"\0\0\0\0" + GOOD_GZIP[-4:],
        ("fasta", "damaged", "fetched again"),
        of="fasta",
    ),
    Defect(
        "gzip with bytes behind it",
        GOOD_GZIP + b"garbage",
        ("fasta", "damaged", "fetched again"),
        of="fasta",
    ),
    Defect(
        "zip for gzip",
        b"PK\x03\x04" + bytes(100),
        ("fasta", "PK", "'>' and an accession"),
        of="fasta",
    ),
    # --- the list of checksums, and what comes under it
    Defect(
        "a list without the file",
        f"{'0' * 32}  ./other.gz\n",
        ("md5checksums.txt", "no MD5 for g.fna.gz", "'<md5>  ./g.fna.gz'"),
        of="sums",
    ),
    Defect(
        "an HTML page as list",
        PAGE.decode(),
        ("md5checksums.txt", "no MD5 for g.fna.gz", "'<md5>"),
        of="sums",
    ),
    Defect(
        "an MD5 of 31 digits",
        f"{'0' * 31}  ./g.fna.gz\n",
        ("md5checksums.txt", "no MD5 for g.fna.gz", "'<md5>"),
        of="sums",
    ),
    Defect(
        "another file's MD5",
        f"{'0' * 32}  ./g.fna.gz\n",
        ("g.fna.gz", "the MD5 of what arrived", "expected 0000"),
        of="sums",
    ),
    Defect(
        "an HTML page as gzip",
        PAGE,
        ("g.fna.gz", "an HTML page", "in place of the file"),
        of="download",
    ),
    Defect(
        "a shorter file",
        GOOD_GZIP[:-5],
        ("g.fna.gz", "the MD5 of what arrived", "expected"),
        of="download",
    ),
    Defect(
        "a longer file",
        GOOD_GZIP + b"\0",
        ("g.fna.gz", "the MD5 of what arrived", "expected"),
        of="download",
    ),
]
