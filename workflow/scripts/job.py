"""What every script of the workflow shares: its log, its threads, errors in one sentence."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from longscale.claims import claim
from longscale.errors import LongscaleError, storage_sentence
from longscale.threads import use_threads


def device_used() -> str:
    """Where this process has computed: the GPU's name, or the CPU."""
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.get_device_name()
    return "the CPU"


@contextmanager
def job(snakemake: Any, *, echo: bool = False) -> Iterator[Callable[[str], None]]:
    """Run a script's body; yields `report`, which writes a timed line to the rule's log file.

    `echo` also shows the lines on the screen (for what a person waits for). The last line says how
    long it took and where: `make plan` reads it (longscale.calibration). A `LongscaleError`, and a
    disk that is full or cannot be written to, are told in the log and on the screen in one
    sentence, and the script exits with 1.
    """
    started = time.monotonic()
    path = Path(str(snakemake.log))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", buffering=1) as log:

            def report(text: str) -> None:
                line = f"{time.strftime('%H:%M:%S')} {text}"
                print(line, file=log)
                if echo:
                    print(f"{snakemake.rule}: {text}", file=sys.stderr, flush=True)

            with claim(path.with_name(f"{path.name}.claim"), report):
                yield report
            report(f"done in {time.monotonic() - started:.1f} s on {device_used()}")
    except Exception as error:
        sentence = str(error) if isinstance(error, LongscaleError) else storage_sentence(error)
        if sentence is None:
            raise
        # The log may stand on the disk that is full.
        with suppress(OSError), path.open("a") as log:
            print(f"error: {sentence}", file=log)
        print(f"\n{snakemake.rule}: error: {sentence}\n", file=sys.stderr, flush=True)
        sys.exit(1)


@contextmanager
def model_job(snakemake: Any, threads: int) -> Iterator[Callable[[str], None]]:
    """`job` for scripts that compute with torch: `threads` threads, whatever the machine has."""
    use_threads(threads)
    with job(snakemake) as report:
        yield report
