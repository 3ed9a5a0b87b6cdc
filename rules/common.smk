# Runs in every job: it stays small and imports nothing heavy.
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, f"{workflow.basedir}/workflow/scripts")

from longscale.config import check_config, digest, read_schema
from longscale.errors import LongscaleError

CONDA_ENV = "../envs/longscale.yaml"

try:
    names = [str(path) for path in workflow.config_settings.configfiles]
    config.update(
        check_config(
            config,
            read_schema(f"{workflow.basedir}/config/schema.yaml"),
            ", ".join(names) or "config/config.yaml",
        )
    )
except LongscaleError as error:
    raise WorkflowError(str(error)) from None

STUDY, GENOME = config["study"], config["genome"]
LONGEST_BP = max(STUDY["train_bp"] + STUDY["eval_bp"])


def one_of(names):
    """Regular expression that matches exactly the given names."""
    return "|".join(map(re.escape, names))


wildcard_constraints:
    genome=re.escape(GENOME["name"]),
    task=one_of(config["tasks"]),
    model=one_of(config["models"]),
    protocol="paired|released",
    attention=r"dot|cos-matched|cos[0-9]+(\.[0-9]+)?(-released)?",
    seed="[0-9]+",
    train_bp="[0-9]+",
    eval_bp="[0-9]+",
    window_bp="[0-9]+",
    split="train|dev|test",


def results(path):
    """A path below the folder of results."""
    return f"{config['results']}/{path}"


def logs(path):
    """A path below the folder of logs."""
    return f"{config['results']}/logs/{path}.log"


def more_each_attempt(amount):
    """A resource that grows with every retry."""
    return lambda wildcards, attempt: int(amount * attempt)


def genome_files():
    """The genome as every later stage needs it."""
    return {
        "fasta": results(f"genome/{GENOME['name']}.fa"),
        "fai": results(f"genome/{GENOME['name']}.fa.fai"),
    }


def train_task(task):
    """The task whose checkpoints score `task`."""
    return config["tasks"][task]["train_task"] or task


def score_files(task=None):
    """Every score file of the study (of one task)."""
    return expand(
        results(
            "scores/{task}/{protocol}/{model}/{train_bp}/{attention}/seed{seed}/{eval_bp}.parquet"
        ),
        task=[task] if task else STUDY["tasks"],
        protocol=STUDY["protocols"],
        model=STUDY["models"],
        train_bp=STUDY["train_bp"],
        attention=STUDY["attentions"],
        seed=STUDY["seeds"],
        eval_bp=STUDY["eval_bp"],
    )


def final_targets():
    """What a plain `snakemake` makes."""
    per_task = expand(
        [results("windows/{task}.dropped.tsv"), results("variants/{task}.rejected.tsv")],
        task=STUDY["tasks"],
    )
    return [
        results("tables/auroc.tsv"),
        results("tables/auroc_wide.tsv"),
        results("figures/auroc"),
        *per_task,
    ]
