"""What a run still has to do: downloads, jobs, disk, hours; for a person, before it starts."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from longscale.calibration import (
    Calibration,
    Correction,
    Device,
    Estimate,
    Finished,
    estimate,
    learn,
    logged,
)
from longscale.demand import Demand, Demands
from longscale.errors import LongscaleError
from longscale.footprint import (
    Source,
    embedding_bytes,
    running_bytes,
    source_of,
    stored_bytes,
)
from longscale.workload import Load, Study, load_of

STAGES = {
    "download": ("download_md5checksums", "download_genome_file", "download_assembly_report",
                 "download_task", "download_probe_file", "download_probe_shards",
                 "download_genes", "fetch_checkpoint", "fetch_encoder"),
    "genome": ("simulate_genome", "simulate_probe_genome", "convert_ncbi2ucsc", "fold_genome"),
    "variants": ("prepare_variants", "tabulate_variants", "check_windows", "assign_splits",
                 "export_windows", "measure_leaks", "audit_tokens", "compute_posterior"),
    "text": ("prepare_corpus", "build_mlm_tokenizer"),
    "pretraining": ("build_tokenizer", "pretrain"),
    "training": ("finetune", "train_mlm"),
    "entropies": ("measure_entropy", "measure_entropy_at", "measure_attention",
                  "measure_attention_at"),
    "scoring": ("score_variants", "score_mlm", "score_mlm_longest", "export_scores"),
    "embeddings": ("prepare_probe_rows", "embed_rows"),
    "probes": ("train_probe", "train_probe_on_features", "score_zero_shot", "compute_ceiling"),
}  # fmt: skip
LAST_STAGE = "tables, figures"
MOST_SHOWN = 10  # of the jobs that are too long for a cluster
HEADER = "output_file\tdate\trule\tlog-file(s)\tstatus\tplan"


class Job(NamedTuple):
    """One job: its rule, its first output and its log below the results, whether it is to run."""

    rule: str
    path: str
    log: str
    to_do: bool


def read_summary(text: str, results: str) -> list[Job]:
    """The jobs in the output of `snakemake --summary`; `results`: the folder, as configured.

    Outputs of one job follow each other; which belong together, the log or the rule's name says.
    Raises LongscaleError where there is no summary in it.
    """
    lines = text.splitlines()
    if HEADER not in lines:
        raise LongscaleError("snakemake gave no summary of the jobs")
    jobs: dict[str, Job] = {}
    for line in lines[lines.index(HEADER) + 1 :]:
        path, _, rule, log, _, plan = line.split("\t")
        below = path.removeprefix(f"{results}/")
        key = f"{rule} {job_key(rule, below)}"
        jobs.setdefault(key, Job(rule, below, log, plan != "no update"))
    return list(jobs.values())


# Rules with several outputs, and what of the path they have in common.
_BY_FOLDER = {"pretrain", "finetune", "train_mlm", "fetch_checkpoint", "prepare_corpus",
              "measure_attention", "train_probe", "train_probe_on_features"}  # fmt: skip
_BY_RULE = {"simulate_genome", "simulate_probe_genome", "build_tables", "build_mlm_table",
            "build_lrb_table", "tabulate_variants", "measure_leaks", "audit_tokens"}  # fmt: skip
_BY_STEM = {"convert_ncbi2ucsc", "prepare_variants", "check_windows", "assign_splits",
            "prepare_probe_rows"}  # fmt: skip
_ENDING = re.compile(
    r"(\.rejected|\.summary|\.dropped|\.left_out|\.aliases|\.fa|\.labels)?\.[a-z]+$"
)


def job_key(rule: str, path: str) -> str:
    """What the outputs of one job of a rule have in common."""
    if rule in _BY_RULE:
        return ""
    if rule in _BY_FOLDER:
        return path.rpartition("/")[0]
    if rule in _BY_STEM:
        return _ENDING.sub("", path)
    return path


def stage_of(rule: str) -> str:
    """The stage of a rule, for a person."""
    return next((stage for stage, rules in STAGES.items() if rule in rules), LAST_STAGE)


def model_size(study: Study, load: Load | None) -> int | None:
    """Hidden size of the model of a job."""
    return study.model(load.model)["hidden_size"] if load else None


def finished_jobs(study: Study, jobs: Iterable[Job], root: Path) -> list[Finished]:
    """What the logs of finished jobs tell; `root`: the folder that log paths start from."""
    found = []
    for job in jobs:
        took = None if job.to_do or job.log == "-" else logged(root / job.log.split(",")[0])
        if took:
            load = load_of(study, job.rule, job.path)
            found.append(Finished(job.rule, load, model_size(study, load), *took))
    return found


@dataclass
class Part:
    """A stage of the plan: its jobs, the hours they take, the bytes they leave."""

    jobs: Counter = field(default_factory=Counter)
    gpu_h: float = 0.0
    cpu_h: float = 0.0
    other_h: float = 0.0  # CPU-hours that no GPU shortens
    stored: float = 0.0
    low: dict[Device, float] = field(default_factory=lambda: {"gpu": 0.0, "cpu": 0.0})
    high: dict[Device, float] = field(default_factory=lambda: {"gpu": 0.0, "cpu": 0.0})


@dataclass
class Plan:
    """All that a run still has to do. Sizes in bytes."""

    jobs: list[Job]
    parts: dict[str, Part]
    sources: list[Source]
    stored: float
    running: float
    embedded: float
    bases: dict[Device, set[Correction | None]]
    guesses: list[str]


def make_plan(study: Study, jobs: Sequence[Job], calibration: Calibration) -> Plan:
    """Count and add up the jobs that are to do."""
    stages = [*STAGES, LAST_STAGE]
    parts: dict[str, Part] = {stage: Part() for stage in stages}
    bases: dict[Device, set[Correction | None]] = {"gpu": set(), "cpu": set()}
    to_do = [job for job in jobs if job.to_do]
    known = calibration.bytes
    for job in to_do:
        load = load_of(study, job.rule, job.path)
        size = model_size(study, load)
        part = parts[stage_of(job.rule)]
        part.jobs[job.rule] += 1
        part.stored += stored_bytes(study, job.rule, job.path, known)
        cpu = estimate(calibration, job.rule, load, "cpu", size)
        threads = load.threads if load else 1
        add_hours(part, "cpu", cpu, threads)
        if load is None:
            part.other_h += cpu.seconds / 3600
            continue
        bases["cpu"].add(cpu.measured)
        gpu = estimate(calibration, job.rule, load, "gpu", size)
        bases["gpu"].add(gpu.measured)
        add_hours(part, "gpu", gpu, load.processes)
    sources = [source_of(study, job.rule, job.path, known) for job in to_do]
    return Plan(
        to_do,
        {stage: part for stage, part in parts.items() if part.jobs},
        [source for source in dict.fromkeys(sources) if source],
        sum(part.stored for part in parts.values()),
        max((running_bytes(study, job.rule, job.path) for job in to_do), default=0.0),
        sum(embedding_bytes(study, job.path) for job in to_do if job.rule == "embed_rows"),
        bases,
        list(study.guesses),
    )


def add_hours(part: Part, device: Device, one: Estimate, units: int) -> None:
    """Add a job's hours, of `units` GPUs or CPU cores each, and their range."""
    hours = one.seconds * units / 3600
    if device == "gpu":
        part.gpu_h += hours
    else:
        part.cpu_h += hours
    part.low[device] += hours / one.factor
    part.high[device] += hours * one.factor


# -------------------------------------------------------------------------------- for a person


def bytes_text(size: float | None) -> str:
    """1.2 GB, 938 MB, 4 kB, size not known."""
    if size is None:
        return "size not known"
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return (
                f"{size / unit:,.1f} {name}" if size < 10 * unit else f"{size / unit:,.0f} {name}"
            )
    return f"{size / 1e3:,.0f} kB"


def hours_text(hours: float) -> str:
    """Two digits: 0.02 h becomes 1 min."""
    if hours < 1:
        return f"{max(1, round(hours * 60))} min"
    digits = 1 if hours < 10 else 0 if hours < 100 else -len(str(int(hours))) + 2
    return f"{round(hours, digits):,g} h" if digits > 0 else f"{int(round(hours, digits)):,} h"


def render(plan: Plan, calibration: Calibration, title: str, done: int) -> str:
    """The plan as text."""
    if not plan.jobs:
        return f"{title}: nothing to be done, {done} jobs are finished"
    lines = [f"{title}: {len(plan.jobs)} jobs to do, {done} finished", ""]
    lines += [*_downloads(plan), "", *_jobs(plan), "", *_disk(plan), ""]
    return "\n".join([*lines, *_basis(plan, calibration)])


def _downloads(plan: Plan) -> list[str]:
    if not plan.sources:
        return ["Downloads: none"]
    known = sum(source.size or 0.0 for source in plan.sources)
    hours = known * 8 / 100e6 / 3600
    rows = [f"  {bytes_text(source.size):>15}  {source.name}" for source in plan.sources]
    return [
        f"Downloads: about {bytes_text(known)} ({hours_text(hours)} at 100 Mbit/s)",
        *rows,
    ]


def _jobs(plan: Plan) -> list[str]:
    rows = [("stage", "jobs", "with GPUs", "without", "disk", "")]
    for stage, part in plan.parts.items():
        rules = ", ".join(f"{count} {rule}" for rule, count in part.jobs.items())
        gpu = hours_text(part.gpu_h) if part.gpu_h else "-"
        disk = bytes_text(part.stored) if part.stored else "-"
        rows.append((stage, f"{part.jobs.total()}", gpu, hours_text(part.cpu_h), disk, rules))
    return [
        "Jobs, in GPU-hours where a GPU helps, and in CPU core-hours without one",
        *(f"  {a:<16}{b:>6}{c:>12}{d:>12}{e:>9}  {f}".rstrip() for a, b, c, d, e, f in rows),
        *_totals(plan),
    ]


def _totals(plan: Plan) -> Iterable[str]:
    parts = plan.parts.values()

    def spread(device: Device) -> str:
        low, high = (sum(getattr(p, end)[device] for p in parts) for end in ("low", "high"))
        return f"{hours_text(low)} to {hours_text(high)}"

    gpu, cpu = sum(p.gpu_h for p in parts), sum(p.cpu_h for p in parts)
    other = sum(p.other_h for p in parts)
    if gpu:
        yield (
            f"  With GPUs: about {hours_text(gpu)} of one GPU ({spread('gpu')}) and"
            f" {hours_text(other)} of one core"
        )
    yield f"  Without:   about {hours_text(cpu)} of one core ({spread('cpu')})"


def _disk(plan: Plan) -> list[str]:
    line = f"Disk: about {bytes_text(plan.stored)} more" if plan.stored else "Disk: little more"
    if plan.embedded:
        line += f", {bytes_text(plan.embedded)} of it embeddings"
    if plan.running:
        line += f", and {bytes_text(plan.running)} for each training while it runs"
    return [line]


def _basis(plan: Plan, calibration: Calibration) -> list[str]:
    lines = ["What this rests on"]
    for device in ("gpu", "cpu"):
        rows = plan.bases[device]
        for row in sorted(filter(None, rows), key=lambda row: row.rule):
            lines.append(
                f"  {device.upper()}, {row.rule}: {row.jobs} finished jobs ({row.machine}), within"
                f" a factor of {row.factor:.1f}"
            )
        if None in rows:
            others = ", all other models" if rows != {None} else ""
            lines.append(
                f"  {device.upper()}{others}: not measured; operations counted, speed assumed"
                f" ({calibration.machines[device]}), within a factor of {calibration.factor:g}"
            )
    lines += [f"  {guess}" for guess in plan.guesses]
    if "finetune" in plan.parts.get("training", Part()).jobs:
        lines.append("  Trainings are counted in full: early stopping makes them shorter")
    return lines


def learned(study: Study, jobs: Sequence[Job], calibration: Calibration, root: Path) -> Calibration:
    """`calibration`, corrected by the finished jobs of this study."""
    machine = f"in {study.config['results']}"
    return learn(calibration, finished_jobs(study, jobs, root), machine)


def plan_for_cluster(
    demands: Demands, jobs: Sequence[Job], asked: Sequence[tuple[Job, Demand]], submissions: int
) -> str:
    """The plan of a run on a cluster: `asked` by its jobs that are submitted, in that many pieces.

    Says which ask for more than the cluster admits.
    """
    plan = make_plan(demands.study, jobs, demands.calibration)
    local = len(jobs) - len(asked)
    lines = [
        render(plan, demands.calibration, "Plan for the cluster", 0),
        "",
        f"Slurm: {len(asked)} jobs in {submissions} submissions; {local} run beside Snakemake",
    ]
    minutes = demands.cluster.minutes
    late = [(d.seconds / 3600, job.path) for job, d in asked if d.seconds > 60 * minutes]
    if late:
        lines.append(
            f"  {len(late)} of them are expected to take more than the {minutes / 60:g} hours that"
            " the profile admits; trainings and embeddings go on where they were at each retry, all"
            " others need fewer rules or rows for a job, or a partition with more time:"
        )
        longest = sorted(late, reverse=True)
        lines += [f"  {hours_text(hours):>10}  {path}" for hours, path in longest[:MOST_SHOWN]]
        if len(late) > MOST_SHOWN:
            lines.append(f"  {'...':>10}")
    return "\n".join(lines)
