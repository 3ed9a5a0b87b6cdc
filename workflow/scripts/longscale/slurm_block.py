"""The block at the top of profiles/slurm: what it says, and whether the cluster has that.

Slurm tells of a job that it refuses when the job is submitted, hours into a run, and Snakemake does
not pass on why for jobs in groups. So the block is held against `sinfo` before the first job.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, Self

from longscale.config import nearest
from longscale.demand import Cluster
from longscale.errors import LongscaleError
from longscale.runs import ask_slurm

TOP = "at the top of the Slurm profile"
# How each number is read, the least and the most that make sense, what it is.
NUMBERS: Mapping[str, tuple[Callable[[str], float], float, float, str]] = {
    "gpus": (int, 0, 1000, "a whole number (0 for none)"),
    "memory_mb": (int, 1, 10**9, "a whole number of megabytes"),
    "cores": (int, 1, 10**5, "a whole number from 1 on"),
    "hours": (float, 0.1, 10**4, "a number of hours (two days: 48)"),
    "slower": (float, 1e-3, 1e3, "a number (1 for GPUs of an A100's class)"),
}
TEXTS = ("cpu_partition", "gpu_partition", "gpu_type")
SINFO = ("sinfo", "--noheader", "--exact", "--format=%P|%m|%c|%l|%G")


class Block(NamedTuple):
    """The entries that are about the cluster; `gpu_partition`, `gpu_type`, `cpu_partition` may be
    empty: that of the other jobs, any, the default one.
    """

    gpus: int
    memory_mb: int
    cores: int
    hours: float
    slower: float
    cpu_partition: str
    gpu_partition: str
    gpu_type: str

    @classmethod
    def read(cls, text: str) -> Self:
        """From a profile's `longscale`: `'gpus=1|memory_mb=180000|...'`.

        Raises LongscaleError naming the entry that is missing or no such number.
        """
        said = dict(part.partition("=")[::2] for part in text.strip("'").split("|"))
        missing = [name for name in cls._fields if name not in said]
        if missing:
            raise LongscaleError(
                f"the Slurm profile's default resource `longscale` does not say {missing[0]}; take"
                " that line from this version's profiles/slurm/config.yaml, and edit the block at"
                " its top"
            )
        numbers = {name: _number(name, said[name]) for name in NUMBERS}
        return cls(**numbers, **{name: said[name] for name in TEXTS})

    @property
    def cluster(self) -> Cluster:
        """What jobs may ask for."""
        return Cluster(self.gpus, self.memory_mb, int(60 * self.hours), self.slower)

    @property
    def gpu_place(self) -> dict[str, str]:
        """Snakemake's resources that say where a job with a GPU goes."""
        place = {"slurm_partition": self.gpu_partition, "gpu_model": self.gpu_type}
        return {name: value for name, value in place.items() if value and self.gpus}


def _number(name: str, text: str) -> float:
    read, least, most, what = NUMBERS[name]
    try:
        number = read(text)
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        raise LongscaleError(f"{name} {TOP} is '{text}'; {what} is expected")
    return number


def check_extra(extra: str, reserved: Mapping[str, str]) -> None:
    """Raises LongscaleError for an option of sbatch (pattern -> what it is) that is not to be given
    in `extra`; Snakemake's plugin would wait for ever.
    """
    for pattern, what in reserved.items():
        if re.search(pattern, f"{extra} "):
            raise LongscaleError(
                f"extra {TOP} is '{extra}', but Snakemake itself tells Slurm the {what}; the"
                " block's other entries, or --set-resources, say it"
            )


class Nodes(NamedTuple):
    """Nodes of one kind in a partition; `minutes`: the longest job there; `gpus` of each type."""

    partition: str
    memory_mb: int
    cores: int
    minutes: float
    gpus: dict[str, int]


def ask_sinfo() -> str:
    """What it prints; "" where there is none, or none that answers."""
    try:
        return ask_slurm(*SINFO)
    except LongscaleError:
        return ""


def read_nodes(sinfo: str) -> tuple[list[Nodes], str]:
    """What `SINFO` prints: nodes of each kind, and the name of the default partition ("": none)."""
    nodes, default = [], ""
    for line in sinfo.splitlines():
        name, memory, cores, limit, gres = line.strip().split("|", 4)
        if name.endswith("*"):
            default = name = name.removesuffix("*")
        gpus: dict[str, int] = {}
        for kind, count in re.findall(r"\bgpu:(?:([^:,(]+):)?(\d+)", gres):
            gpus[kind] = gpus.get(kind, 0) + int(count)
        whole = [int(re.match(r"\d+", text)[0]) for text in (memory, cores)]
        nodes.append(Nodes(name, *whole, _minutes(limit), gpus))
    return nodes, default


def _minutes(limit: str) -> float:
    """Slurm's `days-hours:minutes:seconds`, of which the first parts may be absent, in minutes."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", limit)
    if not found:
        return math.inf  # infinite, n/a
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return (days * 24 + hours) * 60 + minutes + seconds / 60


def check_block(block: Block, sinfo: str) -> None:
    """Raises LongscaleError for the first entry that asks for more than the cluster has."""
    nodes, default = read_nodes(sinfo)
    has = list(dict.fromkeys(row.partition for row in nodes))
    parts = {"cpu_partition": block.cpu_partition or default}
    if block.gpus:
        parts["gpu_partition"] = block.gpu_partition or parts["cpu_partition"]
    for key, name in parts.items():
        if not name:
            raise LongscaleError(f"{key} {TOP} is empty, but the cluster has no default partition")
        if name not in has:
            raise LongscaleError(
                f"{key} {TOP} is '{name}', which the cluster does not have (it has:"
                f" {', '.join(has)}){nearest(name, has)}"
            )
        rows = [row for row in nodes if row.partition == name]
        for entry, asked, there in (
            ("memory_mb", block.memory_mb, max(row.memory_mb for row in rows)),
            ("cores", block.cores, max(row.cores for row in rows)),
            ("hours", block.hours, max(row.minutes for row in rows) / 60),
        ):
            if asked > there:
                raise LongscaleError(
                    f"{entry} {TOP} is {asked:g}, but partition '{name}' has at most {there:g};"
                    " Slurm would refuse jobs that ask for more"
                )
    if block.gpus:
        _check_gpus(block, [row for row in nodes if row.partition == parts["gpu_partition"]])


def _check_gpus(block: Block, nodes: list[Nodes]) -> None:
    types = {kind for row in nodes for kind in row.gpus}
    counts = [
        row.gpus.get(block.gpu_type, 0) if block.gpu_type else sum(row.gpus.values())
        for row in nodes
    ]
    where = f"partition '{nodes[0].partition}'"
    if not types:
        raise LongscaleError(
            f"gpus {TOP} is {block.gpus}, but {where} has none; give another gpu_partition, or"
            " gpus: 0 to compute on CPUs"
        )
    if block.gpu_type and block.gpu_type not in types:
        known = ", ".join(sorted(filter(None, types))) or "GPUs without a type"
        raise LongscaleError(
            f"gpu_type {TOP} is '{block.gpu_type}', which {where} does not have (it has: {known})"
        )
    if block.gpus > max(counts):
        raise LongscaleError(
            f"gpus {TOP} is {block.gpus}, but a node of {where} has at most {max(counts)}"
        )
