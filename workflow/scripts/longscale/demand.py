"""What a job asks of a cluster, before it has run: memory, time, GPUs.

Time is the estimate of `make plan` with its uncertainty; memory is counted from the model, the rows
and the window, generously: a job that asks for too little dies, one that asks for too much waits.
A job that died asks for as much again with each further attempt.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from longscale.calibration import Calibration, Device, estimate
from longscale.footprint import genome_bytes, prediction_bytes, weights_bytes
from longscale.probe_cells import genome_of_task
from longscale.workload import SAME_KIND, At, Load, Study, alleles, load_at, parameters

MB = 1e6
MARGIN = 1.3
IMPORTS_MB = {"cpu": 1000, "gpu": 4000}  # torch, transformers; with CUDA and its pinned buffers
SPARE_MINUTES = 10  # a start on a slow shared file system, an evaluation, a checkpoint
OPTIMISER_BYTES = 16  # of a parameter in training: weight, gradient, two moments
TRAINING_BYTES = 160  # of a token, per hidden unit and layer: activations kept for the gradient
SCORING_BYTES = 96  # of a token, per hidden unit: inference keeps one layer
TOKEN_BYTES = 8  # of a token that waits for its batch
BLOCK_MB = 2000  # of a probe: the embeddings it shuffles, as read, copied and in float32


class Cluster(NamedTuple):
    """What a profile says of a cluster: GPUs of a training process or scoring job (0: they use the
    CPU), memory of its largest node, the longest job it admits, and how many times slower than the
    calibration's its devices are.
    """

    gpus: int = 0
    memory_mb: int = 10**9
    minutes: int = 10**9
    slowness: float = 1.0


class Demand(NamedTuple):
    """What a job asks for; `seconds`: how long it is expected to take."""

    mem_mb: int
    minutes: int
    gpus: int
    seconds: float


class Small(NamedTuple):
    """A job without a model: MB and seconds, both also per row; copies of the genome in memory."""

    mb: float = 1000
    row_kb: float = 0
    row_ms: float = 0
    genomes: float = 0


# Those that are not here are small whatever the study.
SMALL = {
    "simulate_genome": Small(1000, genomes=10),
    "simulate_probe_genome": Small(1000, genomes=10),
    "convert_ncbi2ucsc": Small(500),
    "fold_genome": Small(500, genomes=1),
    "build_tokenizer": Small(1500, genomes=1),
    "prepare_variants": Small(row_kb=10, row_ms=2, genomes=1),
    "check_windows": Small(row_kb=4, genomes=1),
    "assign_splits": Small(row_kb=10, row_ms=1),
    "measure_leaks": Small(row_kb=4, row_ms=5, genomes=1),
    "audit_tokens": Small(1500, row_kb=4, row_ms=5, genomes=1),
    "export_windows": Small(row_kb=40, row_ms=1, genomes=1),
    "export_scores": Small(row_kb=4),
    "build_tables": Small(2000, row_kb=4, row_ms=2),
    "prepare_corpus": Small(2000, genomes=2),
    "build_mlm_tokenizer": Small(2000, genomes=1),
    "prepare_probe_rows": Small(1500, row_kb=1, row_ms=2, genomes=1),
    "compute_ceiling": Small(1500, row_kb=40, row_ms=1),
    "train_probe_on_features": Small(4000, row_kb=40, row_ms=100),
}


@dataclass(frozen=True)
class Demands:
    """The demands of a study's jobs on a cluster."""

    study: Study
    calibration: Calibration
    cluster: Cluster

    def of(self, rule: str, at: At, attempt: int = 1) -> Demand:
        """What the job of `rule` whose result has the parts `at` asks for; attempts from 1 on."""
        load = load_at(self.study, rule, at)
        gpus = load.processes * self.cluster.gpus if load else 0
        device: Device = "gpu" if gpus else "cpu"
        size = self.study.model(load.model)["hidden_size"] if load else None
        expected = estimate(self.calibration, rule, load, device, size)
        small = SMALL.get(rule, Small())
        rows = 0.0 if load else _rows(self.study, at)
        seconds = (expected.seconds + rows * small.row_ms / 1e3) * self.cluster.slowness
        sizes = self.calibration.bytes
        if load:
            mb = _model_mb(self.study, sizes, rule, load, at, device)
        else:
            mb = _small_mb(self.study, sizes, small, rows, at)
        minutes = SPARE_MINUTES + math.ceil(seconds * expected.factor / 60)
        return Demand(
            min(math.ceil(mb * MARGIN) * attempt, self.cluster.memory_mb),
            min(minutes * attempt, self.cluster.minutes),
            gpus,
            seconds,
        )


def _rows(study: Study, at: At) -> float:
    """Rows that a job without a model works on: its task's, or those of all tasks."""
    if "probe_task" in at:
        return study.probe_task(at["probe_task"]).rows
    tasks = [at["task"]] if "task" in at else list(study.config["tasks"])
    return sum(sum(study.rows(task, at.get("protocol", "paired"))) for task in tasks)


def _small_mb(study: Study, sizes: Mapping[str, float], small: Small, rows: float, at: At) -> float:
    genome = _genome_mb(study, sizes, at) if small.genomes else 0.0
    return small.mb + rows * small.row_kb / 1e3 + small.genomes * genome


def _genome_mb(study: Study, sizes: Mapping[str, float], at: At) -> float:
    """MB of the genome of a job, which maps it into memory; 0 without one."""
    if not study.genomes:
        return 0.0
    if "probe_task" in at:
        name = genome_of_task(study.config, at["probe_task"])
    else:
        name = at.get("genome", study.config["genome"]["name"])
    return genome_bytes(study, name, sizes) / MB


def _model_mb(
    study: Study, sizes: Mapping[str, float], rule: str, load: Load, at: At, device: Device
) -> float:
    """MB on a node of a job that computes with a model; what is on a GPU does not count."""
    model, weights = study.model(load.model), weights_bytes(study, load.model)
    if rule == "train_probe":
        return IMPORTS_MB[device] + BLOCK_MB + 2 * prediction_bytes(study, at) / MB
    if device == "gpu":
        computing = 2 * weights
    else:
        width = max(model["hidden_size"], model["intermediate_size"])
        layers = model["num_hidden_layers"] if load.trains else 1
        each = TRAINING_BYTES * layers if load.trains else SCORING_BYTES
        kept = OPTIMISER_BYTES * parameters(model) if load.trains else weights
        computing = kept + each * width * step_tokens(study, SAME_KIND.get(rule, rule), at)
    reads_windows = not at.keys().isdisjoint(("train_bp", "eval_bp", "context_bp"))
    mapped = _genome_mb(study, sizes, at) if reads_windows else 0.0
    waiting = _waiting_bytes(study, at) if rule == "finetune" else 0.0
    on_a_node = load.processes // study.config["finetune"]["nodes"] if rule == "finetune" else 1
    return mapped + on_a_node * (IMPORTS_MB[device] + (computing + waiting) / MB)


def _waiting_bytes(study: Study, at: At) -> float:
    """The tokens of all windows that a fine-tuning shows, and their text while it is read."""
    window_bp = int(at["train_bp"])
    rows = study.rows(at["task"], at["protocol"])
    each = TOKEN_BYTES * study.tokens(at["model"], window_bp) * alleles(at["protocol"]) + window_bp
    return (rows.train + rows.dev) * each


def step_tokens(study: Study, rule: str, at: At) -> float:
    """Tokens that a job of a kind has in memory at once."""
    config, model = study.config, at["model"]
    if rule == "pretrain":
        options = config["pretrain"]
        return options["batch_size"] * study.tokens(model, options["window_bp"])
    if rule == "finetune":
        shown = alleles(at["protocol"]) * study.tokens(model, int(at["train_bp"]))
        return config["finetune"]["batch_size"] * shown
    if rule in ("score_variants", "measure_entropy"):
        lengths = [at["eval_bp"]] if "eval_bp" in at else config["study"]["eval_bp"]
        longest = study.tokens(model, max(map(int, lengths)))
        return max(config["score"]["batch_tokens"], 2 * longest)
    if rule in ("embed_rows", "score_zero_shot"):
        one = study.encoder_tokens(model, int(at["context_bp"]))
        return max(config["probe"]["embed"]["batch_tokens"], one)
    mlm = config["mlm"]
    if rule == "train_mlm":
        return mlm["train"]["batch_size"] * mlm["train_length"]
    return max(mlm["evaluation"]["batch_tokens"], int(at.get("length", max(mlm["lengths"]))))
