"""Peak memory of a variant task of the probe stage, from its file to its windows.

`python benchmarks/omim_memory.py` makes up the benchmark's OMIM table (2.3 million rows, about 160
bytes each) and a genome for it. Each step then runs in a process of its own, which ends with its
peak memory:

* rows: the table read, normalised, checked and written as rows with labels and a ledger;
* windows: the windows of both alleles of every row, a batch at a time, as an encoder gets them.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "workflow/scripts"), str(ROOT / "tests")]

TASK = "variant_effect_pathogenic_omim"
BATCH_BP = 4_000_000
LIMIT_MIB = 2_000
STEPS = ("rows", "windows")


def rows(folder: Path, context_bp: int) -> str:
    """Rows, labels and ledger, as `prepare_probe_rows.py` makes them."""
    from longscale.genome.sequence import Genome
    from longscale.tasks.probe_rows import read_variant_rows, write_rows
    from longscale.tasks.probe_tasks import PROBE_TASKS

    task, genome = PROBE_TASKS[TASK], Genome(folder / "genome.fa")
    found = read_variant_rows(task, folder / "omim.csv", genome, {}, context_bp=context_bp)
    write_rows(task, found, folder / "rows")
    return f"{found.counts['accepted']:,} of {found.counts['rows']:,} rows accepted"


def windows(folder: Path, context_bp: int) -> str:
    """Both windows of every row."""
    import pandas as pd

    from longscale.genome.sequence import Genome
    from longscale.variants.windows import gather_windows

    table = pd.read_parquet(folder / "rows" / f"{TASK}.parquet")
    variants = table[["contig", "ref", "alt"]].assign(pos=table["anchor"] + 1)
    genome = Genome(folder / "genome.fa")
    per_batch = BATCH_BP // context_bp
    for first in range(0, len(variants), per_batch):
        batch = variants.iloc[first : first + per_batch]
        ref = gather_windows(genome, batch, context_bp, "ref")
        alt = gather_windows(genome, batch, context_bp, "alt")
        if not (ref != alt).any(axis=1).all():
            raise SystemExit("two alleles have the same window")
    return f"{2 * len(variants):,} windows of {context_bp:,} bp"


def peak_mib() -> float:
    """Of this process (not getrusage: its figure begins with what the parent process held)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def make(folder: Path, rows: int) -> None:
    """The table and its genome."""
    mirror = [sys.executable, str(ROOT / "tests/lrb_mirror.py"), str(folder), str(rows)]
    subprocess.run(mirror, check=True)


def measure(folder: Path, context_bp: int) -> dict[str, float]:
    """Run each step in a process of its own: step -> peak memory in MiB."""
    peaks = {}
    for step in STEPS:
        command = [sys.executable, __file__, "--step", step, "--folder", str(folder)]
        command += ["--context-bp", str(context_bp)]
        started = time.perf_counter()
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        told, peak = run.stdout.strip().rsplit("\t", 1)
        peaks[step] = float(peak)
        print(f"| {step} | {told} | {float(peak):,.0f} | {time.perf_counter() - started:.0f} |")
    return peaks


def main() -> None:
    """Make, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_321_473)
    parser.add_argument("--context-bp", type=int, default=12_000)
    parser.add_argument("--folder", type=Path, default=None, help="where to work (a temporary one)")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        told = {"rows": rows, "windows": windows}[options.step](options.folder, options.context_bp)
        print(told, f"{peak_mib():.1f}", sep="\t")
        return
    from side_by_side import describe_run

    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        make(folder, options.rows)
        size = (folder / "omim.csv").stat().st_size / 1e6
        print(f"{describe_run()}\na table of {size:,.0f} MB\n")
        print("| step | what | peak memory, MiB | seconds |\n| --- | --- | --- | --- |")
        peaks = measure(folder, options.context_bp)
    if max(peaks.values()) > LIMIT_MIB:
        raise SystemExit(f"more than {LIMIT_MIB:,} MiB")


if __name__ == "__main__":
    main()
