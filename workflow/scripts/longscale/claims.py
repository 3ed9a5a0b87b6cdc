"""One process at a time writes the results of a job.

A scheduler can give up a job that still runs: its node was cut off, its controller was killed and
the lock removed. Its successor would write the same files. So each job leaves a claim, a small file
with its own mark, and looks at it every few seconds: one that finds another's mark stops. A job
that finds the claim of one that may be alive waits until that one must have seen its mark.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from longscale.files import atomic_path
from longscale.runs import process_started

LOOK_S = 3.0  # between two looks at the claim
END_S = 5.0  # from an interrupt to the end at all costs
WAIT_S = LOOK_S + END_S + 2.0
LOST = 75  # exit status of a process that lost its claim


class Claim(NamedTuple):
    """Which process writes; `mark` is its own, whatever its id."""

    mark: str
    host: str
    pid: int
    started: int | None

    @property
    def may_be_alive(self) -> bool:
        """Whether the process may still run: of other machines nobody knows."""
        here = self.host == socket.gethostname()
        return not here or process_started(self.pid) == self.started


def read_claim(path: Path) -> Claim | None:
    """The claim, None where there is none or it cannot be read."""
    try:
        return Claim(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _is_gone(path: Path) -> bool:
    """Whether its folder is there and it is not."""
    try:
        return not path.exists() and path.parent.is_dir()
    except OSError:
        return False


def _keep(path: Path, mark: str, done: threading.Event) -> None:
    """End this process once the claim is another's, or gone: a successor that has ended took it
    away. Without a file system nothing is known.
    """
    gone = False
    while not done.wait(LOOK_S):
        found, was_gone, gone = read_claim(path), gone, _is_gone(path)
        anothers = found is not None and found.mark != mark
        if not anothers and not (gone and was_gone):
            continue
        print(f"{path}: another job took over; this one ends", file=sys.stderr, flush=True)
        # What the main thread has started ends with it.
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        done.wait(END_S)
        os._exit(LOST)


@contextmanager
def claim(path: str | Path, report: Callable[[str], None]) -> Iterator[None]:
    """Hold the claim `path` while the block runs.

    Waits `WAIT_S` where another process that may be alive holds it. If one takes it over later, the
    block gets a KeyboardInterrupt, and `END_S` later the process ends with status `LOST`.
    """
    path, done, pid = Path(path), threading.Event(), os.getpid()
    earlier = read_claim(path)
    mine = Claim(uuid.uuid4().hex, socket.gethostname(), pid, process_started(pid))
    with atomic_path(path) as part:
        part.write_text(json.dumps(mine._asdict()))
    threading.Thread(target=_keep, args=(path, mine.mark, done), daemon=True).start()
    try:
        if earlier and earlier.may_be_alive:
            report(f"process {earlier.pid} on {earlier.host} may still write here: waiting")
            time.sleep(WAIT_S)
        yield
    finally:
        done.set()
        found = read_claim(path)
        if found and found.mark == mine.mark:
            with suppress(OSError):
                path.unlink()
