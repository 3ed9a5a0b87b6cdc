"""Tables of probe tasks: intervals, lists of labels, expression values and their names."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from defects.harness import Defect, Told, told_by
from defects.variants import genome
from longscale.tasks.probe_tasks import PROBE_TASKS

PROMOTERS, MARKS = "regulatory_element_promoter", "chromatin_features_histone_marks"
RNA = "bulk_rna_expression"
OUTPUTS = PROBE_TASKS[RNA].outputs
INTERVALS = {"rows": "CHROM,START,STOP,label,split\nchr1,901,1101,1,train\nchr1,1501,1701,0,test\n"}
ONES = "[1, 0" + ", 0" * 18 + "]"
BINS = {"rows": f'CHROM,POS,HISTONES,split\nchr1,901,"{ONES}",train\nchr1,1501,"{ONES}",test\n'}
GENES = {
    "rows": "chrom,CAGE_representative_TSS,strand,split\nchr1,1001,+,train\nchr1,1501,-,test\n",
    "labels": "\n".join(
        [",".join(f"v{i}" for i in range(OUTPUTS)), *[",".join(["0.5"] * OUTPUTS)] * 2, ""]
    ),
    "names": "\n".join(["index,name", *[f"{i},tissue {i}" for i in range(OUTPUTS)], ""]),
}
GOOD = {PROMOTERS: INTERVALS, MARKS: BINS, RNA: GENES}


def prepare(
    folder: Path,
    task: str,
    files: Mapping[str, str | bytes],
    capture: Callable[[], str],
    genes: Path | None = None,
) -> Told:
    """What `prepare_probe_rows` does with the files of a task of the benchmark."""
    for key, content in files.items():
        path = folder / PROBE_TASKS[task].files[key]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    fasta = genome(folder.parent)
    names = {"rows": ".parquet", "labels": ".labels.npy", "facts": ".labels.json",
             "rejected": ".rejected.tsv"}  # fmt: skip
    outputs = {key: folder / "out" / f"{task}{name}" for key, name in names.items()}
    told = told_by(
        "prepare_probe_rows",
        capture,
        outputs,
        inputs={
            "fasta": str(fasta),
            "aliases": str(fasta.with_name("aliases.tsv")),
            "genes": str(genes or ""),
        },
        params={"folder": str(folder), "simulated": None, "context_bp": 0},
        wildcards={"probe_task": task},
    )
    if told.code == 0:
        ledger = pd.read_csv(outputs["rejected"], sep="\t", keep_default_na=False)
        told.ledger = ledger.to_dict("records")
    return told


def use(folder: Path, defect: Defect, capture: Callable[[], str]) -> Told:
    """A task's good files, one of them replaced; `of`: task and key of the file."""
    task, key = defect.of.split()
    return prepare(folder, task, {**GOOD[task], key: defect.content}, capture)


def row(name: str, text: str, reason: str, *says: str, task: str = PROMOTERS) -> Defect:
    """A row that ends in the ledger, in place of the second of the task's table."""
    header, first, _ = GOOD[task]["rows"].splitlines()
    content = "\n".join([header, first, text, ""])
    return Defect(name, content, says, 3, reason, of=f"{task} rows")


def table(name: str, content: str | bytes, *says: str, of: str = f"{PROMOTERS} rows") -> Defect:
    """A file that cannot be used."""
    return Defect(name, content, says, of=of)


VALUES, NAMES = GENES["labels"], GENES["names"]
DEFECTS = [
    table("an empty table", "", "promoter_dataset.csv", "empty|no"),
    table("a header alone", "CHROM,START,STOP,label,split\n", "holds no row", "at least one"),
    table("a missing column", INTERVALS["rows"].replace("STOP", "END"), "STOP", "END"),
    table("tabs for commas", INTERVALS["rows"].replace(",", "\t"), "promoter_dataset.csv"),
    table("an HTML page", "<!DOCTYPE html>\n<html></html>\n", "promoter_dataset.csv"),
    table("UTF-16", INTERVALS["rows"].encode("utf-16"), "promoter_dataset.csv"),
    table("NUL bytes", b"\0" * 100, "promoter_dataset.csv"),
    row("a place in words", "chr1,x,1101,1,train", "unparseable", "START", "'x'"),
    row("a place with a fraction", "chr1,901.5,1101,1,train", "unparseable", r"901\.5"),
    row("a negative place", "chr1,-5,195,1,train", "unparseable", "START", "-5"),
    row("a place beyond the end", "chr1,2901,3101,1,train", "out_of_bounds", "chr1 has 1 to 3000"),
    row("an end before its start", "chr1,1101,901,1,train", "unparseable", "901", "not after"),
    row("an empty interval", "chr1,901,901,1,train", "unparseable", "not after its start"),
    row("an unknown contig", "chr7,901,1101,1,train", "unknown_contig", "chr7"),
    row("no label", "chr1,901,1101,,train", "no_label", "no label"),
    row("label 2", "chr1,901,1101,2,train", "unparseable", "'2'", "0 or 1"),
    row("label NA", "chr1,901,1101,NA,train", "unparseable", "'NA'", "0 or 1"),
    row("another split", "chr1,901,1101,1,dev2", "unparseable", "'dev2'", "train, valid or test"),
    row("a cell too few", "chr1,901,1101,1", "unparseable", "4|5"),
    row("a cell too many", "chr1,901,1101,1,train,x", "unparseable", "5|6"),
    row("19 labels", f'chr1,901,"{ONES[:-4]}]",train', "unparseable", "19 labels", task=MARKS),
    row("21 labels", f'chr1,901,"{ONES[:-1]}, 0]",train', "unparseable", "21 labels", task=MARKS),
    row("a label of 2", f'chr1,901,"{ONES.replace("1", "2")}",train', "unparseable", "20 zeros",
        task=MARKS),
    row("code for labels", 'chr1,901,"__import__(""os"")",train', "unparseable", "20 zeros",
        task=MARKS),
    row("no strand", "chr1,1001,.,train", "unparseable", "'.'", r"\+ or -", task=RNA),
    row("a pool beyond the start", "chr1,100,+,train", "out_of_bounds", "chr1", task=RNA),
    table("a column of values too few", "\n".join(s.rpartition(",")[0] for s in VALUES.split("\n")),
          "217 columns", "218", of=f"{RNA} labels"),
    table("a row of values too few", VALUES.rpartition("0.5,")[0].rpartition("\n")[0] + "\n",
          "1 rows", "2", of=f"{RNA} labels"),
    table("no values", "", "cannot be read as a table", of=f"{RNA} labels"),
    table("a name too few", NAMES.rpartition("217,")[0], "217 rows", "218", of=f"{RNA} names"),
    table("numbers for names", NAMES.replace("tissue ", ""), "0 columns of names",
          of=f"{RNA} names"),
]  # fmt: skip
