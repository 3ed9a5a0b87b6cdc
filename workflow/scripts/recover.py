"""Go on with a run whose controlling process was killed while its jobs were in Slurm.

python workflow/scripts/recover.py RESULTS [--elsewhere] [-- arguments of snakemake]
"""

import argparse
import os
import subprocess
import sys

from longscale.errors import LongscaleError
from longscale.runs import RECOVERING, forget_run, read_runs, recover


def main() -> None:
    """Cancel its jobs, wait until they are gone, unlock, start it again."""
    parser = argparse.ArgumentParser(description="Go on with a run that was killed.")
    parser.add_argument("results", help="folder of its results, as in `results:` of the config")
    parser.add_argument(
        "--elsewhere", action="store_true", help="a run of another machine is dead for certain"
    )
    parser.add_argument(
        "arguments", nargs="*", help="after --: of snakemake, in place of those it was started with"
    )
    asked = parser.parse_args()
    say = lambda line: print(f"recover: {line}", file=sys.stderr, flush=True)  # noqa: E731
    run = recover(asked.results, say, elsewhere=asked.elsewhere)
    if run is None:
        raise LongscaleError(
            f"{asked.results}: no record of a killed run on Slurm; start snakemake as usual"
        )
    command = run.command
    if asked.arguments:
        command = [sys.executable, "-m", "snakemake", *asked.arguments]
    folder = os.getcwd() if asked.arguments else run.folder  # noqa: PTH109
    unlock = subprocess.run(
        [*command, "--unlock"], cwd=folder, env=os.environ | {RECOVERING: "1"}, check=False
    )
    if unlock.returncode:
        raise LongscaleError(f"{asked.results}: snakemake --unlock failed, see above")
    for left in read_runs(asked.results):
        forget_run(asked.results, left.name)
    say(f"going on in {folder}: {' '.join(command)}")
    os.chdir(folder)
    os.execv(command[0], command)


if __name__ == "__main__":
    try:
        main()
    except LongscaleError as error:
        sys.exit(f"error: {error}")
