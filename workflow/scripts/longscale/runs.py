"""Runs that gave jobs to Slurm, and what is left of those that were killed.

A run leaves a record below its results before its first job is submitted, and takes it away when it
ends. One that was killed cannot: its jobs go on in Slurm and would write the same files as those of
the next run, which therefore refuses to start until `recover` has cancelled them.
"""

import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from longscale.errors import LongscaleError
from longscale.files import atomic_path

CLIENT_SECONDS = 60  # Slurm's clients hang where its controller is gone
RECOVERING = "LONGSCALE_RECOVERING"  # in the environment of what `recover` starts


def process_started(pid: int) -> int | None:
    """When a process of this machine began, in ticks since the machine's; None: there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state == "Z" else int(fields[18])


@dataclass(frozen=True)
class Run:
    """One run: the name of its Slurm jobs, the process that controls it, how it was started.

    `ended`: it ended by itself, and its jobs are gone or were cancelled.
    """

    name: str
    host: str
    pid: int
    started: int | None
    folder: str
    command: list[str]
    ended: bool = False

    @classmethod
    def present(cls, name: str, folder: str, command: Sequence[str]) -> Self:
        """This process, started in `folder` with `command`."""
        pid, host = os.getpid(), socket.gethostname()
        return cls(name, host, pid, process_started(pid), folder, list(command))

    @property
    def elsewhere(self) -> bool:
        """Whether it was started on another machine, and nothing says that it ended."""
        return self.host != socket.gethostname() and not self.ended

    @property
    def at_work(self) -> bool:
        """Whether its process is alive on this machine."""
        here = self.host == socket.gethostname()
        return here and self.started is not None and process_started(self.pid) == self.started


def records(results: str | Path) -> Path:
    """The folder of the records."""
    return Path(results) / "runs"


def write_run(results: str | Path, run: Run) -> None:
    """Leave or renew the record of a run."""
    with atomic_path(records(results) / f"{run.name}.json") as part:
        part.write_text(json.dumps(asdict(run), indent=1) + "\n")


def forget_run(results: str | Path, name: str) -> None:
    """Take a record away."""
    (records(results) / f"{name}.json").unlink(missing_ok=True)


def end_run(results: str | Path, run: Run) -> None:
    """At the end of a run: its record goes, or says that it ended while jobs are still ending."""
    with suppress(OSError):
        try:
            left = queued_jobs([run])
        except LongscaleError:
            left = ["not known"]
        if left:
            write_run(results, replace(run, ended=True))
        else:
            forget_run(results, run.name)


def read_runs(results: str | Path) -> list[Run]:
    """All records; raises LongscaleError where one cannot be read."""
    found = []
    for path in sorted(records(results).glob("*.json")):
        try:
            found.append(Run(**json.loads(path.read_text())))
        except (ValueError, TypeError) as error:
            raise LongscaleError(f"{path}: not the record of a run: {error}") from error
    return found


def ask_slurm(*command: str) -> str:
    """What a client of Slurm prints; raises LongscaleError where it fails or hangs."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=CLIENT_SECONDS
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or error
        raise LongscaleError(
            f"Slurm cannot be asked about jobs of an earlier run ({command[0]}:"
            f" {' '.join(str(said).split())}); try again where {command[0]} works"
        ) from error
    return done.stdout


def queued_jobs(runs: Sequence[Run]) -> list[str]:
    """Ids of the runs' jobs that wait, run or are about to end."""
    if not runs:
        return []
    names = ",".join(run.name for run in runs)
    return ask_slurm("squeue", "--noheader", "--format=%i", f"--name={names}").split()


def check_runs(results: str | Path) -> None:
    """Before a run: raises LongscaleError where an earlier one was killed or has jobs left.

    Records of runs that ended and have no jobs are taken away; runs that are at work on this
    machine are Snakemake's business, which locks what they write.
    """
    if os.environ.get(RECOVERING):
        return
    for run in read_runs(results):
        if run.at_work:
            continue
        jobs = queued_jobs([run])
        if run.ended and not jobs:
            forget_run(results, run.name)
            continue
        state = "is at work there or did" if run.elsewhere else "did"
        left = f"Slurm still has {len(jobs)} of its jobs" if jobs else "Slurm has none of its jobs"
        raise LongscaleError(
            f"{results}: an earlier run (process {run.pid} on {run.host}) {state} not end properly,"
            f" and {left}; `make recover RESULTS={shlex.quote(str(Path(results).absolute()))}`"
            f" {'cancels them, ' if jobs else ''}unlocks the folder and goes on with that run"
        )


def recover(
    results: str | Path,
    report: Callable[[str], None],
    *,
    elsewhere: bool = False,
    patience_s: float = 300,
) -> Run | None:
    """Cancel the jobs of killed runs and wait until they are gone; the run to go on with.

    None: there was nothing to recover. Raises LongscaleError where a run is still at work, was
    started on another machine (unless `elsewhere` says that it is dead there), or where a job does
    not end within `patience_s`. Records stay, for the caller to take away.
    """
    runs = read_runs(results)
    for run in runs:
        if run.elsewhere and not elsewhere:
            raise LongscaleError(
                f"{results}: a run was started on {run.host} (process {run.pid}) and may be at work"
                " there; recover it there, or with --elsewhere if it is dead for certain"
            )
        if run.at_work:
            raise LongscaleError(
                f"{results}: a run is at work (process {run.pid}); let it end, or end it with"
                f" `kill -INT {run.pid}`, which cancels its jobs, too"
            )
    jobs = queued_jobs(runs)
    if jobs:
        report(f"cancelling {len(jobs)} jobs: {' '.join(jobs)}")
        ask_slurm("scancel", *jobs)
    deadline = time.monotonic() + patience_s
    while jobs := queued_jobs(runs):
        if time.monotonic() > deadline:
            raise LongscaleError(
                f"{results}: Slurm has not ended {' '.join(jobs)} in {patience_s:g} s (squeue tells"
                " their state); start this command again when they are gone"
            )
        time.sleep(1)
    report(f"no job of {len(runs)} killed runs is left")
    return max(runs, key=lambda run: run.started or 0) if runs else None


def started_in(arguments: Sequence[str]) -> str:
    """The folder that a command line was given in, from within the folder that it changed to."""
    moves = any(text in ("-d", "--directory") or text.startswith("--directory=")
                for text in arguments)  # fmt: skip
    return os.environ.get("PWD", str(Path.cwd())) if moves else str(Path.cwd())


def command_line(arguments: Sequence[str]) -> list[str]:
    """How to start what has these arguments (`sys.argv`) again, with this Python."""
    return [sys.executable, "-m", "snakemake", *arguments[1:]]
