"""Tables of variants: files that cannot be used, and rows that end in the ledger."""

import functools
import gzip
import io
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pysam

from defects.harness import Defect, Told, told_by
from longscale.genome.assembly import write_aliases

LENGTH = 3_000
CONTIG = ("ACGTTGCAAC" * (LENGTH // 10))[:LENGTH]
BIG = 1_000_000  # bp of an allele that no window holds
COLUMNS = {
    "contig": "CHROM",
    "pos": "POS",
    "ref": "REF",
    "alt": "ALT",
    "label": "INT_LABEL",
    "split": "split",
}
HEADER = "CHROM,POS,REF,ALT,INT_LABEL,split\n"
GOOD = "chr1,1001,A,C,1,train\nchr1,1003,G,C,0,train\n"
VCF = (
    "##fileformat=VCFv4.2\n"
    '##INFO=<ID=INT_LABEL,Number=.,Type=Integer,Description="label">\n'
    "##contig=<ID=chr1>\n"
    "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
)
GOOD_VCF = "chr1\t1001\t.\tA\tC\t.\t.\tINT_LABEL=1\nchr1\t1003\t.\tG\tC\t.\t.\tINT_LABEL=0\n"


@functools.cache
def genome(folder: Path) -> Path:
    """A genome of one contig with everything that a task needs of it, made once."""
    fasta = folder / "genome.fa"
    fasta.write_text(f">chr1\n{CONTIG}\n>chrLong\n{'A' * (BIG + 2_000)}\n")
    pysam.faidx(str(fasta))
    write_aliases({"1": "chr1", "chr1": "chr1"}, folder / "aliases.tsv")
    return fasta


def use(folder: Path, defect: Defect, capture: Callable[[], str]) -> Told:
    """What `prepare_variants` does with the file; `of` is its name."""
    path = folder / (defect.of or "v.csv")
    content = defect.content() if callable(defect.content) else defect.content
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    fasta = genome(folder.parent)
    names = {"accepted": "v.parquet", "rejected": "v.rejected.tsv", "summary": "v.json"}
    outputs = {key: folder / "out" / name for key, name in names.items()}
    vcf = any(part in path.name for part in (".vcf", ".bcf"))
    told = told_by(
        "prepare_variants",
        capture,
        outputs,
        inputs={
            "variants": str(path),
            "fasta": str(fasta),
            "aliases": str(fasta.with_name("aliases.tsv")),
        },
        params={
            "task": {
                "source": "file",
                "columns": {"label": "INT_LABEL"} if vcf else COLUMNS,
                "swapped": "reject",
                "limit": None,
            }
        },
        wildcards={"task": "v"},
    )
    if told.code == 0:
        ledger = pd.read_csv(outputs["rejected"], sep="\t", keep_default_na=False)
        told.ledger = ledger.to_dict("records")
    return told


def parquet(**columns: list) -> Callable[[], bytes]:
    """A Parquet file of the good rows with some columns replaced."""

    def write() -> bytes:
        table = pd.read_csv(io.StringIO(HEADER + GOOD)).assign(**columns)
        content = io.BytesIO()
        table.to_parquet(content)
        return content.getvalue()

    return write


def bgzipped(text: str) -> Callable[[], bytes]:
    """The text as bgzip packs it."""

    def pack() -> bytes:
        path = Path(f"/tmp/{id(text)}.gz")
        with pysam.BGZFile(str(path), "w") as handle:
            handle.write(text.encode())
        content = path.read_bytes()
        path.unlink()
        return content

    return pack


def file(name: str, content, *says: str, of: str = "") -> Defect:
    """A file that cannot be used."""
    return Defect(name, content, says, of=of)


def row(name: str, text: str, reason: str, *says: str) -> Defect:
    """A row of a CSV file between good ones; it is in the ledger, line 4, and they are accepted."""
    return Defect(name, f"{HEADER}{GOOD}{text}\nchr1,1004,T,C,0,test\n", says, 4, reason)


def record(name: str, text: str, reason: str, *says: str) -> Defect:
    """The same of a VCF, line 7."""
    return Defect(name, f"{VCF}{GOOD_VCF}{text}\n{GOOD_VCF}", says, 7, reason, of="v.vcf")


LONG_ALLELE = CONTIG[:3] + "C" * BIG

DEFECTS = [
    # --- whole files
    file("nothing", "", "v.csv", "empty", "header line"),
    file("a header alone", HEADER, "v.csv", "no variant", "at least one row"),
    file(
        "semicolons",
        (HEADER + GOOD).replace(",", ";"),
        "v.csv",
        "'CHROM' .for contig. is missing",
        "present: CHROM;POS",
    ),
    file(
        "tabs in a .csv",
        (HEADER + GOOD).replace(",", "\t"),
        "v.csv",
        "'CHROM' .for contig. is missing",
        "present",
    ),
    file(
        "commas in a .tsv",
        HEADER + GOOD,
        "v.tsv",
        "'CHROM' .for contig. is missing",
        "present: CHROM,POS",
        of="v.tsv",
    ),
    file("no header", GOOD, "v.csv", "'CHROM' .for contig. is missing", "nearest|present"),
    file(
        "no label column",
        (HEADER + GOOD).replace("INT_LABEL", "y"),
        "v.csv",
        "'INT_LABEL' .for label. is missing",
        "present|nearest",
    ),
    file(
        "no split column",
        (HEADER + GOOD).replace("split", "fold"),
        "v.csv",
        "'split' .for split. is missing",
        "present|nearest",
    ),
    file(
        "a column twice",
        (HEADER + GOOD).replace("split", "POS"),
        "v.csv",
        "'POS' .for pos. occurs 2 times",
        "once",
    ),
    file(
        "another case",
        (HEADER + GOOD).replace("CHROM", "chrom"),
        "v.csv",
        "'CHROM' .for contig. is missing",
        "nearest: 'chrom'",
    ),
    file(
        "Latin-1",
        (HEADER + "chr1,5,A,C,1,\xe9\n").encode("latin-1"),
        "v.csv",
        "line 2",
        "not UTF-8",
    ),
    file("UTF-16", (HEADER + GOOD).encode("utf-16"), "v.csv", "line 1", "not UTF-8"),
    file("a spreadsheet", b"PK\x03\x04" + bytes(range(200)), "v.csv", "line 2", "UTF-8"),
    file("a spreadsheet by name", b"PK\x03\x04", "v.xlsx", "no known format", ".csv", of="v.xlsx"),
    file(
        "a quotation mark that stays open",
        f'{HEADER}chr1,5,"A,C,1,train\n{"x" * (1 << 24)}',
        "v.csv",
        "line 2",
        "field larger",
    ),
    file("gzip by name alone", HEADER + GOOD, "v.csv.gz", "line 1", "Not a gzipped", of="v.csv.gz"),
    file(
        "gzip cut",
        gzip.compress((HEADER + GOOD * 99).encode())[:-12],
        "v.csv.gz",
        "line",
        "cannot be read",
        of="v.csv.gz",
    ),
    file(
        "Parquet that is none",
        HEADER + GOOD,
        "v.parquet",
        "not a readable Parquet",
        "",
        of="v.parquet",
    ),
    file(
        "Parquet cut",
        lambda: parquet()()[:-30],
        "v.parquet",
        "not a readable Parquet",
        "",
        of="v.parquet",
    ),
    file(
        "Parquet without labels",
        lambda: parquet(split="train")().replace(b"INT_LABEL", b"INT_LABEK"),
        "v.parquet",
        "INT_LABEL|readable",
        "",
        of="v.parquet",
    ),
    file(
        "Parquet with lists",
        parquet(POS=[[1], [2]]),
        "v.parquet",
        "not a readable Parquet",
        "cast|list",
        of="v.parquet",
    ),
    file("VCF that is none", HEADER + GOOD, "v.vcf", "cannot be read", "no VCF", of="v.vcf"),
    file("VCF without rows", VCF, "v.vcf", "no variant", "at least one row", of="v.vcf"),
    file(
        "VCF without its key",
        (VCF + GOOD_VCF).replace("INT_LABEL", "LABEL"),
        "v.vcf",
        "'INT_LABEL' .for label. is missing",
        "nearest: 'LABEL'",
        of="v.vcf",
    ),
    file(
        "VCF with spaces",
        (VCF + GOOD_VCF).replace("\t", " "),
        "v.vcf",
        "cannot be read",
        "between tabs",
        of="v.vcf",
    ),
    file(
        "VCF with a broken row",
        f"{VCF}{GOOD_VCF}chr1\t10\n{GOOD_VCF}",
        "v.vcf",
        "line 7",
        "cannot be read",
        of="v.vcf",
    ),
    file(
        "VCF with a position in words",
        f"{VCF}{GOOD_VCF}chr1\tten\t.\tA\tC\t.\t.\t.\n",
        "v.vcf",
        "line 7",
        "cannot be read",
        of="v.vcf",
    ),
    file(
        "VCF with a position below zero",
        f"{VCF}chr1\t-7\t.\tA\tC\t.\t.\tINT_LABEL=1\n",
        "v.vcf",
        "line 5",
        "cannot be read",
        of="v.vcf",
    ),
    file(
        "VCF in Latin-1",
        (VCF + GOOD_VCF.replace("chr1", "chr\xe9")).encode("latin-1"),
        "v.vcf",
        "line 5",
        "cannot be read",
        of="v.vcf",
    ),
    file(
        "bgzip cut",
        lambda: bgzipped(VCF + GOOD_VCF * 9)()[:-30],
        "v.vcf.gz",
        "cannot be read",
        "cut off",
        of="v.vcf.gz",
    ),
    file(
        "BCF that is none",
        b"BCF\x02\x02" + bytes(40),
        "v.bcf",
        "cannot be read",
        "no VCF",
        of="v.bcf",
    ),
    # --- rows of a table
    row("POS 0", "chr1,0,A,C,1,train", "out_of_bounds", "outside chr1", "1 to 3000"),
    row("POS below zero", "chr1,-5,A,C,1,train", "unparseable", "POS is '-5'", "whole number"),
    row(
        "POS with a point", "chr1,10.5,A,C,1,train", "unparseable", "POS is '10.5'", "whole number"
    ),
    row("POS as a power", "chr1,1e3,A,C,1,train", "unparseable", "POS is '1e3'", "whole number"),
    row(
        "POS with a comma",
        'chr1,"1,001",A,C,1,train',
        "unparseable",
        "POS is '1,001'",
        "whole number",
    ),
    row("POS in words", "chr1,ten,A,C,1,train", "unparseable", "POS is 'ten'", "whole number"),
    row("POS missing", "chr1,,A,C,1,train", "unparseable", "POS is ''", "whole number"),
    row("POS nan", "chr1,nan,A,C,1,train", "unparseable", "POS is 'nan'", "whole number"),
    row(
        "POS of 30 digits",
        f"chr1,{'9' * 30},A,C,1,train",
        "unparseable",
        "POS is '999",
        "12 digits",
    ),
    row(
        "POS in other digits",
        "chr1,\u0661\u0662,A,C,1,train",
        "unparseable",
        "POS is '\u0661",
        "whole number",
    ),
    row(
        "POS just beyond the end",
        "chr1,3001,A,C,1,train",
        "out_of_bounds",
        "outside chr1",
        "1 to 3000",
    ),
    row("REF over the end", "chr1,3000,CA,C,1,train", "out_of_bounds", "outside chr1", "1 to 3000"),
    row("a field too few", "chr1,1001,A,C,1", "unparseable", "5 fields", "header has 6"),
    row("a field too many", "chr1,1001,A,C,1,train,x", "unparseable", "7 fields", "header has 6"),
    row("no contig", ",1001,A,C,1,train", "unknown_contig", "contig ''", "alias"),
    row(
        "an unknown contig",
        "chr7,1001,A,C,1,train",
        "unknown_contig",
        "'chr7'",
        "nearest known name is 'chr1'",
    ),
    row(
        "a contig with a line end",
        '"chr\n1",1001,A,C,1,train',
        "unknown_contig",
        "'chr 1'",
        "alias",
    ),
    row("no REF", "chr1,1001,,C,1,train", "invalid_allele", "REF is ''", "A, C, G and T"),
    row("REF in IUPAC", "chr1,1001,R,C,1,train", "invalid_allele", "REF is 'R'", "A, C, G and T"),
    row("ALT in IUPAC", "chr1,1001,A,Y,1,train", "invalid_allele", "ALT is 'Y'", "A, C, G and T"),
    row("ALT a dash", "chr1,1001,A,-,1,train", "invalid_allele", "ALT is '-'", "A, C, G and T"),
    row("ALT missing", "chr1,1001,A,,1,train", "no_alternative", "ALT is missing", ""),
    row("ALT equals REF", "chr1,1001,A,a,1,train", "no_alternative", "ALT equals REF", ""),
    row("ALT symbolic", "chr1,1001,A,<DEL>,1,train", "symbolic_allele", "symbol", "sequence"),
    row("ALT a star", "chr1,1001,A,*,1,train", "star_allele", "deletes", ""),
    row("ALT a breakend", "chr1,1001,A,A[chr1:5[,1,train", "breakend", "breakend", "sequence"),
    row(
        "the reference is another",
        "chr1,1001,T,C,1,train",
        "reference_mismatch",
        "REF is T but the genome has A",
        "chr1:1001",
    ),
    row(
        "REF and ALT swapped",
        "chr1,1001,C,A,1,train",
        "reference_mismatch",
        "where ALT stands",
        "swapped: repair",
    ),
    row(
        "one of two ALT is symbolic",
        'chr1,1001,A,"G,<DUP>",1,train',
        "symbolic_allele",
        "symbol",
        "sequence",
    ),
    row(
        "fewer labels than ALT",
        'chr1,1001,A,"C,G,T","1,0",train',
        "unparseable",
        "label is '1,0'",
        "for all alternative alleles or for each",
    ),
    row("label NA", "chr1,1001,A,C,NA,train", "unparseable", "label is 'NA'", "0 or 1"),
    row("label 2", "chr1,1001,A,C,2,train", "unparseable", "label is '2'", "0 or 1"),
    row("label -1", "chr1,1001,A,C,-1,train", "unparseable", "label is '-1'", "0 or 1"),
    row("label 0.7", "chr1,1001,A,C,0.7,train", "unparseable", "label is '0.7'", "0 or 1"),
    row(
        "label in words",
        "chr1,1001,A,C,Pathogenic,train",
        "unparseable",
        "label is 'Pathogenic'",
        "0 or 1",
    ),
    row("label missing", "chr1,1001,A,C,,train", "no_label", "no label", ""),
    row(
        "both labels",
        "chr1,1001,A,C,0,train",
        "contradictory_label",
        "lines 2 and 4",
        "both labels",
    ),
    row("there before", "1,1001,a,c,1,train", "duplicate", "line 2", "same variant"),
    row(
        "ALT of a million bases, wrong",
        f"chr1,1,AAA,{LONG_ALLELE},1,train",
        "reference_mismatch",
        "REF is AAA but the genome has ACG",
        "",
    ),
    row(
        "REF of a million bases",
        f"chr1,1,{LONG_ALLELE},A,1,train",
        "out_of_bounds",
        "outside chr1",
        "1 to 3000",
    ),
    row(
        "a contig of a million letters",
        f"{'c' * BIG},1,A,C,1,train",
        "unknown_contig",
        r"cc\.\.\. \(1,000,000 characters\)",
        "alias",
    ),
    row(
        "a label of a million letters",
        f"chr1,1001,A,C,{'1' * BIG},train",
        "unparseable",
        r"11\.\.\. \(1,000,000 characters\)",
        "0 or 1",
    ),
    # --- mixed types
    Defect(
        "numbers and words in one column",
        parquet(POS=["1001", "x7"]),
        ("POS is 'x7'", "whole number"),
        2,
        "unparseable",
        of="v.parquet",
    ),
    Defect(
        "labels with gaps",
        parquet(INT_LABEL=[1.0, None]),
        ("no label|label is 'nan'", ""),
        2,
        "no_label",
        of="v.parquet",
    ),
    Defect(
        "dates as positions",
        parquet(POS=list(pd.to_datetime(["2024-01-01"] * 2))),
        ("POS is '2024", "whole number"),
        2,
        "unparseable",
        of="v.parquet",
    ),
    # --- records of a VCF
    record(
        "VCF with POS 0",
        "chr1\t0\t.\tA\tC\t.\t.\tINT_LABEL=1",
        "out_of_bounds",
        "outside chr1",
        "1 to 3000",
    ),
    record(
        "VCF beyond the end",
        "chr1\t4000\t.\tA\tC\t.\t.\tINT_LABEL=1",
        "out_of_bounds",
        "outside chr1",
        "1 to 3000",
    ),
    record(
        "VCF with label 2",
        "chr1\t1004\t.\tT\tC\t.\t.\tINT_LABEL=2",
        "unparseable",
        "label is '2'",
        "0 or 1",
    ),
    record(
        "VCF with label 1abc",
        "chr1\t1004\t.\tT\tC\t.\t.\tINT_LABEL=1abc",
        "unparseable",
        "label is '1abc'",
        "0 or 1",
    ),
    record("VCF without a label", "chr1\t1004\t.\tT\tC\t.\t.\t.", "no_label", "no label", ""),
    record(
        "VCF without ALT",
        "chr1\t1004\t.\tT\t.\t.\t.\tINT_LABEL=1",
        "no_alternative",
        "ALT is missing",
        "",
    ),
    record(
        "VCF with a symbol",
        "chr1\t1004\t.\tT\t<INS>\t.\t.\tINT_LABEL=1",
        "symbolic_allele",
        "symbol",
        "sequence",
    ),
    record(
        "VCF with a contig of its own",
        "chrUn\t1004\t.\tT\tC\t.\t.\tINT_LABEL=1",
        "unknown_contig",
        "'chrUn'",
        "alias",
    ),
    record(
        "VCF with an allele of a million bases",
        f"chr1\t1\t.\tTTT\t{LONG_ALLELE}\t.\t.\tINT_LABEL=1",
        "reference_mismatch",
        "REF is TTT",
        "",
    ),
]
