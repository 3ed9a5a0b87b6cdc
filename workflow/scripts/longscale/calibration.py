"""How long work takes: speeds of devices, and corrections that finished jobs have taught.

A job takes `start + work / speed`, times a correction for its rule, device and size of model. The
file resources/calibration.json has speeds and what was measured where; jobs that are finished in a
folder of results say in their logs how long they took, and correct it for the rest.
"""

import json
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from longscale.errors import LongscaleError
from longscale.files import atomic_path
from longscale.workload import SAME_KIND, Load

Device = Literal["cpu", "gpu"]

TERA = 1e12
# Models of other sizes reach other speeds: a correction is not carried further than that.
SAME_SIZE_WITHIN = 4
LEAST_FACTOR = 1.3
# The last line that workflow/scripts/job.py writes into a log.
DONE = re.compile(r"^\d\d:\d\d:\d\d done in ([0-9.]+) s on (.+)$")
THE_CPU = "the CPU"
RESUMED = re.compile(r"^\d\d:\d\d:\d\d resumed at step ")


@dataclass(frozen=True)
class Correction:
    """What finished jobs of a rule took over what the speeds say.

    `size`: hidden size of their model, None without one. `factor`: about nine in ten lie within
    ratio / factor and ratio * factor. `machine`: where, for a person.
    """

    rule: str
    device: Device
    ratio: float
    factor: float
    jobs: int
    machine: str
    size: int | None = None


@dataclass(frozen=True)
class Calibration:
    """Speeds and corrections.

    `tflops`: device -> train or score -> linear or attention -> 10^12 operations a second, on the
    CPU per thread. `full_size`: device -> hidden size from which on a model reaches that speed; a
    smaller one reaches as much less of it as it is smaller. `start_s`: seconds before a job begins,
    with a model and without. `jobs_s`: seconds of jobs without a model. `factor`: how far off an
    estimate without a correction may be. `machines`: what the devices are. `bytes`: sizes of known
    downloads.
    """

    tflops: Mapping[str, Mapping[str, Mapping[str, float]]]
    full_size: Mapping[str, int]
    start_s: Mapping[str, float]
    jobs_s: Mapping[str, float]
    factor: float
    machines: Mapping[str, str]
    bytes: Mapping[str, float]
    corrections: tuple[Correction, ...] = ()


class Estimate(NamedTuple):
    """Seconds of one job, the factor that they may be off by, and whether jobs were measured."""

    seconds: float
    factor: float
    measured: Correction | None


def read_calibration(path: str | Path) -> Calibration:
    """A calibration file; raises LongscaleError where it is none."""
    try:
        values = json.loads(Path(path).read_text())
        corrections = tuple(Correction(**row) for row in values.pop("corrections", []))
        return Calibration(**values, corrections=corrections)
    except OSError as error:
        raise LongscaleError(f"{path}: no such calibration file ({error.strerror})") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise LongscaleError(f"{path}: not a calibration file: {error}") from error


def write_calibration(calibration: Calibration, path: str | Path) -> None:
    """The file that `read_calibration` reads."""
    values = vars(calibration) | {"corrections": [vars(row) for row in calibration.corrections]}
    with atomic_path(path) as part:
        part.write_text(json.dumps(values, indent=1) + "\n")


def _pure_seconds(
    calibration: Calibration, rule: str, load: Load | None, device: Device, size: int | None
) -> float:
    """Seconds of a job's work, without its start and uncorrected."""
    if load is None or size is None:
        return calibration.jobs_s.get(rule, calibration.jobs_s["default"])
    speed = calibration.tflops[device]["train" if load.trains else "score"]
    work = load.work
    seconds = work.linear / speed["linear"] / TERA + work.attention / speed["attention"] / TERA
    filled = min(1.0, size / calibration.full_size[device])
    return seconds / filled / (load.threads if device == "cpu" else load.processes)


def correction_for(
    calibration: Calibration, rule: str, device: Device, size: int | None
) -> Correction | None:
    """The first correction that fits; those of the folder stand before those of the file."""
    rule = SAME_KIND.get(rule, rule)
    for row in calibration.corrections:
        if (SAME_KIND.get(row.rule, row.rule), row.device) != (rule, device):
            continue
        if (row.size is None) != (size is None):
            continue
        if (
            size is None
            or row.size is None
            or (max(size, row.size) <= SAME_SIZE_WITHIN * min(size, row.size))
        ):
            return row
    return None


def estimate(
    calibration: Calibration, rule: str, load: Load | None, device: Device, size: int | None
) -> Estimate:
    """Seconds of one job of `rule`; `size`: hidden size of its model, None without one."""
    row = correction_for(calibration, rule, device, size)
    seconds = _pure_seconds(calibration, rule, load, device, size) * (row.ratio if row else 1.0)
    start = calibration.start_s["model" if load else "other"]
    return Estimate(start + seconds, row.factor if row else calibration.factor, row)


class Finished(NamedTuple):
    """A finished job: what it was, and how long it took where."""

    rule: str
    load: Load | None
    size: int | None
    seconds: float
    device: str


def logged(path: str | Path) -> tuple[float, str] | None:
    """Seconds and device of a finished job, from its log; None where it does not say.

    A training that was resumed says how long its last part took, which teaches nothing.
    """
    try:
        lines = Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return None
    match = DONE.match(lines[-1]) if lines else None
    if not match or any(map(RESUMED.match, lines)):
        return None
    return float(match[1]), match[2]


def learn(calibration: Calibration, finished: Iterable[Finished], machine: str) -> Calibration:
    """`calibration` with corrections from finished jobs before its own.

    The ratio is the geometric mean over jobs of a rule, device and size of model; the factor covers
    about nine jobs in ten.
    """
    groups: dict[tuple[str, Device, int | None], list[float]] = {}
    for job in finished:
        device: Device = "cpu" if job.device == THE_CPU else "gpu"
        pure = _pure_seconds(calibration, job.rule, job.load, device, job.size)
        if pure > 0 and job.seconds > 0:
            key = (SAME_KIND.get(job.rule, job.rule), device, job.size)
            groups.setdefault(key, []).append(math.log(job.seconds / pure))
    learned = [
        Correction(rule, device, _mean(logs), _scatter(logs), len(logs), machine, size)
        for (rule, device, size), logs in groups.items()
    ]
    others = [
        row for row in calibration.corrections if (row.rule, row.device, row.size) not in groups
    ]
    return replace(calibration, corrections=(*learned, *others))


def _mean(logs: Sequence[float]) -> float:
    return round(math.exp(statistics.fmean(logs)), 3)


def _scatter(logs: Sequence[float]) -> float:
    """Factor that covers about nine in ten of values whose logarithms are `logs`."""
    if len(logs) < 3:  # too few to tell
        return 2.0
    return max(LEAST_FACTOR, round(math.exp(1.64 * statistics.stdev(logs)), 2))
