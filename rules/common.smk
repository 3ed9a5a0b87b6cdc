# Runs in every job: it stays small and imports nothing heavy.
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, f"{workflow.basedir}/workflow/scripts")

from longscale.config import check_config, check_recipe, locate_files, read_schema
from longscale.errors import LongscaleError

CONDA_ENV = "../envs/longscale.yaml"

try:
    files = workflow.config_settings.configfiles
    source = ", ".join(map(str, files)) or "config/config.yaml"
    schema = read_schema(f"{workflow.basedir}/config/schema.yaml")
    config.update(check_config(config, schema, source))
    locate_files(config, source, workflow.basedir)
    check_recipe(config, source)
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


def score_files():
    """Every score file of the study."""
    return expand(
        results(
            "scores/{task}/{protocol}/{model}/{train_bp}/{attention}/seed{seed}/{eval_bp}.parquet"
        ),
        task=STUDY["tasks"],
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
        [
            results("windows/{task}.dropped.tsv"),
            results("variants/{task}.rejected.tsv"),
        ],
        task=STUDY["tasks"],
    )
    return [
        results("tables/auroc.tsv"),
        results("tables/auroc_wide.tsv"),
        results("tables/auroc.html"),
        results("figures/auroc"),
        *per_task,
        # Named here although the table needs them anyway: a score file that is deleted comes back.
        *score_files(),
    ]
