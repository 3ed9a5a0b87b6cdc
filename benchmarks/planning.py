"""How long a dry run for a cluster takes, by number of jobs: python benchmarks/planning.py

The full study (config/grch38.yaml) with more seeds, from an empty folder, as a user plans it.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
JOBS_A_SEED = 168  # 24 trainings and 144 score files


def plan(folder: Path, seeds: int) -> tuple[int, float]:
    """Jobs and seconds of a dry run with so many seeds."""
    config = yaml.safe_load((ROOT / "config" / "grch38.yaml").read_text())
    config["study"]["seeds"] = list(range(1, seeds + 1))
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "-n", "--quiet", "rules", "progress"]
    command += ["--snakefile", ROOT / "Snakefile", "--directory", folder, "--configfile", path]
    command += ["--workflow-profile", ROOT / "profiles" / "slurm"]
    started = time.perf_counter()
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return int(re.search(r"cluster: ([\d,]+) jobs to do", done.stdout)[1].replace(",", "")), seconds


def main() -> None:
    """One line for each number of jobs: median, least and most."""
    parser = argparse.ArgumentParser(description="Time of a dry run, by number of jobs.")
    parser.add_argument("--jobs", type=int, nargs="+", default=[500, 2_000, 10_000])
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    for wanted in asked.jobs:
        taken = []
        for _ in range(asked.repeats):
            with tempfile.TemporaryDirectory() as folder:
                jobs, seconds = plan(Path(folder), -(-wanted // JOBS_A_SEED))
                taken.append(seconds)
        middle, ends = statistics.median(taken), f"{min(taken):.1f} to {max(taken):.1f}"
        print(f"{jobs:>7,} jobs  {middle:6.1f} s ({ends})", flush=True)


if __name__ == "__main__":
    main()
