"""Speed and peak memory of the NCBI-to-UCSC conversion: python benchmarks/convert_memory.py

Writes a gzipped FASTA of as many contigs of 100 Mb (one gzip member each, random bases) as
`--gigabases` asks for. Then, in turn and on the same file:

* convert: names, index and length check, the file written;
* zlib: decompressing alone, in pieces of the same size, into a file and into nothing;
* gzip: the same with Python's gzip module and `shutil.copyfileobj`, into a file.

Peak memory is that of a conversion in a process of its own.
"""

import argparse
import gzip
import shutil
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "workflow/scripts"))

import numpy as np
from side_by_side import alternate, describe_run

from longscale.genome.assembly import AssemblyReport
from longscale.genome.convert import BLOCK_BYTES, COMPRESSED_BYTES, convert_assembly

ROOT = Path(__file__).resolve().parents[1]
CONTIG_BP = 100_000_000
LINE_BP = 80
CONVERT = r"""
import re, sys
sys.path.insert(0, sys.argv[1])
from longscale.genome.assembly import AssemblyReport
from longscale.genome.convert import convert_assembly
contigs = convert_assembly(sys.argv[2], AssemblyReport.read(sys.argv[3]), sys.argv[4])
# Not getrusage: its figure begins with what the parent process held.
peak = int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) / 1024
total = sum(length for _, length in contigs)
print(f"{total:,} bp: peak memory {peak:.0f} MiB")
"""


def write_genome(folder: Path, contigs: int) -> tuple[Path, Path]:
    """A gzipped FASTA with GenBank-like accessions and its assembly report."""
    bases = np.frombuffer(b"ACGT", dtype=np.uint8)
    sequence = bases[np.random.default_rng(1).integers(0, 4, CONTIG_BP)].reshape(-1, LINE_BP)
    lines = np.pad(sequence, ((0, 0), (0, 1)), constant_values=ord("\n")).tobytes()
    member = gzip.compress(lines, compresslevel=1)
    fasta, report = folder / "genome.fna.gz", folder / "report.txt"
    rows = []
    with fasta.open("wb") as handle:
        for i in range(1, contigs + 1):
            accession = f"CM8{i:05d}.1"
            handle.write(gzip.compress(f">{accession} made up chromosome {i}\n".encode()) + member)
            cells = [i, "assembled-molecule", i, "Chromosome", accession, "=", f"NC_8{i:05d}.1"]
            cells += ["Primary Assembly", CONTIG_BP, f"chr{i}"]
            rows.append("\t".join(map(str, cells)) + "\n")
    report.write_text("# made up\n" + "".join(rows))
    return fasta, report


def inflate(fasta: Path, target: Path) -> None:
    """Decompress a file of several gzip members into `target`."""
    with fasta.open("rb") as source, target.open("wb") as sink:
        data = b""
        while data := data or source.read(COMPRESSED_BYTES):
            member = zlib.decompressobj(wbits=31)
            while not member.eof:
                sink.write(member.decompress(data, BLOCK_BYTES))
                data = member.unconsumed_tail or member.unused_data
                if not data and not member.eof:
                    data = source.read(COMPRESSED_BYTES)


def gunzip(fasta: Path, target: Path) -> None:
    """The same with the gzip module."""
    with gzip.open(fasta) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, BLOCK_BYTES)


def main() -> None:
    """Make, alternate, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabases", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="where to work (a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        fasta, report = write_genome(folder, round(options.gigabases * 1e9 / CONTIG_BP))
        assembly = AssemblyReport.read(report)
        sides = {
            "convert": lambda: convert_assembly(fasta, assembly, folder / "genome.fa"),
            "zlib, to a file": lambda: inflate(fasta, folder / "plain"),
            "zlib, to /dev/null": lambda: inflate(fasta, Path("/dev/null")),
            "gzip, to a file": lambda: gunzip(fasta, folder / "plain"),
        }
        times, _ = alternate(options.repeats, *sides.values())
        print(f"{describe_run()}\n{fasta.stat().st_size:,} bytes compressed, seconds:\n")
        print("| side | median (least to most) | convert / side |\n| --- | --- | --- |")
        for side, taken in zip(sides, times, strict=True):
            print(f"| {side} | {taken} | {times[0].median / taken.median:.2f} |")
        script = [sys.executable, "-c", CONVERT, ROOT / "workflow/scripts", fasta, report]
        subprocess.run([*map(str, script), str(folder / "genome.fa")], check=True)


if __name__ == "__main__":
    main()
