"""Gene annotations, from which distances to the nearest TSS are computed."""

import gzip
from collections.abc import Callable
from pathlib import Path

from defects.harness import Defect, Told
from defects.probe_tables import INTERVALS, prepare

GENE = "chr1\tx\tgene\t{}\t{}\t.\t{}\t.\tgene_id g\n"
GOOD = "#!genome-build x\n" + GENE.format(101, 200, "+")
BED = "chr1\t100\t200\tg\t0\t{}\n"


def use(folder: Path, defect: Defect, capture: Callable[[], str]) -> Told:
    """What `prepare_probe_rows` does with good rows and the annotation; `of` is its name."""
    path = folder / (defect.of or "genes.gtf")
    content = defect.content
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return prepare(folder, "regulatory_element_promoter", INTERVALS, capture, genes=path)


def line(name: str, start: object, stop: object, strand: str, *says: str) -> Defect:
    """A GTF whose second gene has these fields."""
    return Defect(name, GOOD + GENE.format(start, stop, strand), ("genes.gtf, line 3", *says))


DEFECTS = [
    Defect("another suffix", GOOD, ("genes.txt", "suffix", r"\.gtf"), of="genes.txt"),
    Defect("nothing", "", ("genes.gtf", "no transcript and no gene", "at least one")),
    Defect("comments only", "# a\n# b\n", ("no transcript and no gene",)),
    Defect("exons only", GOOD.replace("gene\t", "exon\t"), ("no transcript and no gene",)),
    Defect("spaces for tabs", GOOD.replace("\t", " "), ("line 2", "tabs", "7")),
    Defect("commas for tabs", GOOD.replace("\t", ","), ("line 2", "tabs", "7")),
    Defect("a line cut short", GOOD + "chr1\tx\tgene\t5", ("line 3", "4 columns", "7")),
    Defect("a table of genes", "gene\tstart\tstop\n", ("line 1", "3 columns", "7")),
    line("no strand", 300, 400, ".", r"strand '\.'", "whole numbers"),
    line("a strand as a number", 300, 400, "1", "strand '1'"),
    line("a place in words", "many", 400, "+", "many", "whole numbers"),
    line("a place with a fraction", 300.5, 400, "+", r"300\.5", "whole numbers"),
    line("a place that is missing", "", 400, "+", "whole numbers"),
    line("a place that is no number", "nan", 400, "+", "nan", "whole numbers"),
    line("an infinite place", 300, "inf", "+", "inf", "whole numbers"),
    line("a place before the first", 0, 400, "+", "from 0", "1 or more"),
    line("a negative place", -5, 400, "+", "from -5", "1 or more"),
    line("an end before its start", 400, 300, "-", "from 400 to 300"),
    line("a place beyond all numbers", 300, "9" * 30, "-", "whole numbers"),
    Defect("a BED without a strand", "chr1\t1\t9\tg\n", ("line 1", "4 columns", "6"), of="g.bed"),
    Defect("a BED with a dot", BED.format("."), (r"strand '\.'",), of="g.bed"),
    Defect("a BED with a negative start", BED.format("+").replace("100", "-1"),
           ("from -1", "0 or more"), of="g.bed"),
    Defect("a GTF called BED", GOOD, ("line 2", "g.bed"), of="g.bed"),
    Defect("Latin-1", GOOD.encode() + b"# \xe9\n", ("genes.gtf", "cannot be read")),
    Defect("UTF-16", GOOD.encode("utf-16"), ("genes.gtf", "cannot be read")),
    Defect("text called gzip", GOOD, ("g.gtf.gz", "cannot be read"), of="g.gtf.gz"),
    Defect("gzip cut in half", gzip.compress(GOOD.encode() * 99)[:80], ("g.gtf.gz", "cannot be"),
           of="g.gtf.gz"),
    Defect("a damaged gzip", gzip.compress(GOOD.encode())[:-6] + b"xxxxxx",
           ("g.gtf.gz", "cannot be"), of="g.gtf.gz"),
    Defect("genes of another genome", GOOD.replace("chr1", "Chr1"), ("Chr1", "chr1", "contig")),
]  # fmt: skip
