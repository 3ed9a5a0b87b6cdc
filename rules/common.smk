# Runs in every job: it stays small and imports nothing heavy.
import gc
import re
import sys
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError

# A graph of thousands of jobs is no garbage: looking for some in it all the time slows planning down.
gc.set_threshold(200_000, 20, 100)

sys.path.insert(0, f"{workflow.basedir}/workflow/scripts")

from longscale.calibration import read_calibration
from longscale.config import check_config, check_recipe, locate_files, read_schema
from longscale.demand import Cluster, Demands
from longscale.errors import LongscaleError
from longscale.slurm_block import Block
from longscale.workload import Study

CONDA_ENV = "../envs/longscale.yaml"
CHECKPOINT_FILES = ["config.json", "model.safetensors", "training.json"]

try:
    files = workflow.config_settings.configfiles
    source = ", ".join(map(str, files)) or "config/config.yaml"
    schema = read_schema(f"{workflow.basedir}/config/schema.yaml")
    config.update(check_config(config, schema, source))
    locate_files(config, source, workflow.basedir)
    check_recipe(config, source)
    CALIBRATION = read_calibration(f"{workflow.basedir}/resources/calibration.json")
    # What the block at the top of profiles/slurm says; without that profile nothing.
    DEFAULTS = workflow.resource_settings._parsed_default_resources
    BLOCK = Block.read(DEFAULTS["longscale"].raw) if "longscale" in DEFAULTS else None
except LongscaleError as error:
    raise WorkflowError(str(error)) from None

# Not a setting of any result: their provenance does not name it.
ON_CODE_CHANGE = config.pop("on_code_change")

# Each may be absent: a run has the variant branch, the masked-LM branch, the probe stage, or several.
STUDY, GENOME, MLM, PROBE = (config[key] for key in ("study", "genome", "mlm", "probe"))

# All genomes of the run by name: GENOME, which both branches use, and further ones.
GENOMES = {GENOME["name"]: GENOME, **config["genomes"]} if GENOME else {}


def one_of(names):
    """Regular expression that matches exactly the given names (none: nothing)."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    genome=one_of(GENOMES),
    task=one_of(config["tasks"]),
    corpus=one_of(config["corpora"]),
    model=one_of(config["models"]),
    protocol=one_of(schema["$defs"]["study"]["properties"]["protocols"]["items"]["enum"]),
    attention=r"dot|cos-matched|cos[0-9]+(\.[0-9]+)?(-released)?",
    scheme="[a-z-]+",
    seed="[0-9]+",
    train_length="[1-9][0-9]*",
    length="[1-9][0-9]*",
    train_bp="[1-9][0-9]*",
    eval_bp="[1-9][0-9]*",
    window_bp="[1-9][0-9]*",
    mlm_protocol="fixed-target|selection|released",
    split="train|dev|test",


def results(path):
    """A path below the folder of results."""
    return f"{config['results']}/{path}"


def logs(path):
    """A path below the folder of logs."""
    return f"{config['results']}/logs/{path}.log"


def checkpoint_files(folder, names=CHECKPOINT_FILES):
    """The files that make a checkpoint."""
    return [f"{folder}/{name}" for name in names]


CLUSTER, GPU_PLACE = (BLOCK.cluster, BLOCK.gpu_place) if BLOCK else (Cluster(), {})
DEMANDS = Demands(Study(config, Path(config["results"])), CALIBRATION, CLUSTER)
SHORT_SECONDS = 60


@cache
def demand_of(rule, wildcards, attempt):
    """What a job asks a cluster for; `wildcards`: names and values."""
    parts = dict(wildcards)
    if "mlm_protocol" in parts:
        parts["protocol"] = parts["mlm_protocol"]
    elif "task" in parts and parts.get("seed", "1") != "1":  # seeds ask for the same
        return demand_of(rule, tuple((parts | {"seed": "1"}).items()), attempt)
    if "probe_task" in parts:
        parts["task"] = parts["probe_task"]
    return DEMANDS.of(rule, parts, attempt)


def asked(what):
    """A resource that follows from a job's work, and grows with every attempt."""
    return lambda wildcards, attempt, rulename: getattr(
        demand_of(rulename, tuple(wildcards.items()), attempt), what
    )


def grouped(rule, group):
    """The group of jobs too short for Slurm to start them one by one; None for longer ones."""
    return lambda wildcards: (
        group
        if BLOCK and demand_of(rule, tuple(wildcards.items()), 1).seconds < SHORT_SECONDS
        else None
    )


NEEDS = {"mem_mb": asked("mem_mb"), "runtime": asked("minutes")}
# The jobs of a group that compute with a model take turns.
GPU_NEEDS = {**NEEDS, "gpu": asked("gpus"), "turn": 1, **GPU_PLACE}


def final_targets():
    """What a plain `snakemake` makes."""
    targets = (auroc_targets() if STUDY else []) + (mlm_targets() if MLM else [])
    return targets + (lrb_targets() if PROBE else []) + (further_genomes() if GENOME else [])
