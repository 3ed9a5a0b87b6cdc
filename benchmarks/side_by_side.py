"""What benchmarks share: sides timed in turn, where they ran, what a side sets in each thread."""

import ctypes
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Seconds(NamedTuple):
    """Of one side, over its repeats."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.least:.3f} to {self.most:.3f})"


def alternate(repeats: int, *sides: Callable[[], object]) -> tuple[list[Seconds], list[object]]:
    """The times of each side, called in turn, and what each returned last."""
    times: list[list[float]] = [[] for _ in sides]
    results: list[object] = [None for _ in sides]
    for _ in range(repeats):
        for i, side in enumerate(sides):
            started = time.perf_counter()
            results[i] = side()
            times[i].append(time.perf_counter() - started)
    return [Seconds(statistics.median(taken), min(taken), max(taken)) for taken in times], results


def processor() -> str:
    """Name of the processor."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def describe_run() -> str:
    """Date, processor, load and command line."""
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    return f"{time.strftime('%Y-%m-%d')}, {processor()}, {load}: python {' '.join(sys.argv)}"


def flush_denormal(flush: bool) -> None:
    """`torch.set_flush_denormal` in this thread and in those of torch's pool that exist already.

    A job calls it before there are any, and they inherit it; two sides in one process cannot.
    """
    import torch  # not every benchmark computes with it

    (library,) = Path(torch.__file__).parent.glob("lib/libgomp*.so*")  # builds name it differently
    pool = ctypes.CDLL(str(library))
    set_it = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: torch.set_flush_denormal(flush))
    pool.GOMP_parallel(set_it, None, torch.get_num_threads(), 0)
