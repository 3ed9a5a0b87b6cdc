# Runs in every job: it stays small and imports nothing heavy.
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, f"{workflow.basedir}/workflow/scripts")

from longscale.config import check_config, check_recipe, locate_files, read_schema
from longscale.errors import LongscaleError

CONDA_ENV = "../envs/longscale.yaml"
CHECKPOINT_FILES = ["config.json", "model.safetensors", "training.json"]

try:
    files = workflow.config_settings.configfiles
    source = ", ".join(map(str, files)) or "config/config.yaml"
    schema = read_schema(f"{workflow.basedir}/config/schema.yaml")
    config.update(check_config(config, schema, source))
    locate_files(config, source, workflow.basedir)
    check_recipe(config, source)
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
    train_length="[0-9]+",
    length="[0-9]+",
    train_bp="[0-9]+",
    eval_bp="[0-9]+",
    window_bp="[0-9]+",
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


def more_each_attempt(amount):
    """A resource that grows with every retry."""
    return lambda wildcards, attempt: int(amount * attempt)


def final_targets():
    """What a plain `snakemake` makes."""
    targets = (auroc_targets() if STUDY else []) + (mlm_targets() if MLM else [])
    return targets + (lrb_targets() if PROBE else []) + (further_genomes() if GENOME else [])
