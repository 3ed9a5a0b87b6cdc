"""Peak memory and speed of the NCBI-to-UCSC conversion on a genome of a given size.

    python benchmarks/convert_memory.py --gigabases 3 --folder /path/with/room

Writes a gzipped FASTA of as many contigs of 100 Mb (one gzip member each, random bases), converts
it in a process of its own and prints that process's peak memory, its time, and the time that
decompressing the same file alone takes.
"""

import argparse
import gzip
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
CONTIG_BP = 100_000_000
LINE_BP = 80
CONVERT = r"""
import re, sys, time
sys.path.insert(0, sys.argv[1])
from longscale.genome.assembly import AssemblyReport
from longscale.genome.convert import convert_assembly
started = time.monotonic()
contigs = convert_assembly(sys.argv[2], AssemblyReport.read(sys.argv[3]), sys.argv[4])
# Not getrusage: its figure begins with what the parent process held.
peak = int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) / 1024
total = sum(length for _, length in contigs)
print(f"converted {total:,} bp in {time.monotonic() - started:.1f} s, peak memory {peak:.0f} MiB")
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


def main() -> None:
    """Make, convert, decompress, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabases", type=float, default=3.0)
    parser.add_argument(
        "--folder", type=Path, default=None, help="where to work (default: temporary)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        fasta, report = write_genome(folder, round(options.gigabases * 1e9 / CONTIG_BP))
        script = [sys.executable, "-c", CONVERT, ROOT / "workflow/scripts", fasta, report]
        subprocess.run([*map(str, script), str(folder / "genome.fa")], check=True)
        started = time.monotonic()
        with gzip.open(fasta) as source, Path("/dev/null").open("wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
        print(f"decompressing alone (Python's gzip): {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()
