"""What a task's entry in the configuration means for its file and its test variants."""

import pytest
from conftest import ROOT

from longscale.config import check_config, read_schema
from longscale.tasks import sources
from longscale.tasks.lrb import LRB_TASKS

CLINVAR, OMIM = "variant_effect_pathogenic_clinvar", "variant_effect_pathogenic_omim"
EQTL = "variant_effect_causal_eqtl"


def entries(**tasks):
    """The entries as the workflow has them: defaults filled in."""
    config = {
        "genome": {"name": "g", "simulate": "resources/simulated.yaml"},
        "tasks": tasks,
        "models": {"tiny": {}},
        "study": {"tasks": list(tasks), "models": ["tiny"], "train_bp": [256], "eval_bp": [256]},
    }
    return check_config(config, read_schema(ROOT / "config" / "schema.yaml"), "c")["tasks"]


def test_columns_of_an_own_file_are_those_named_and_the_defaults():
    columns = {"contig": "chromosome", "tissue": "organ"}
    own = entries(own={"source": "file", "path": "v.csv", "columns": columns})["own"]
    assert sources.column_map("own", own) == {
        "contig": "chromosome",
        "pos": "POS",
        "ref": "REF",
        "alt": "ALT",
        "label": "INT_LABEL",
        "tissue": "organ",
    }


def test_columns_of_the_benchmark_are_its_own():
    entry = entries(**{EQTL: {"source": "lrb"}})[EQTL]
    assert sources.column_map(EQTL, entry) == dict(LRB_TASKS[EQTL].columns)
    assert sources.column_map(EQTL, entry)["tissue"] == "tissue"


def test_a_simulated_task_has_the_columns_of_the_pathogenic_tasks():
    entry = entries(sim={"source": "simulated"})["sim"]
    columns = sources.column_map("sim", entry)
    assert columns == LRB_TASKS[CLINVAR].columns
    columns.clear()  # a copy, not the table
    assert sources.column_map("sim", entry) == LRB_TASKS[CLINVAR].columns


@pytest.mark.parametrize(
    ("task", "entry", "expected"),
    [
        ("own", {"source": "file", "path": "v.csv"}, None),
        (
            "own",
            {"source": "file", "path": "v.csv", "test_chromosomes": ["9", "chrX", "CM1.1"]},
            ["chr9", "chrX", "chr1"],
        ),
        ("sim", {"source": "simulated"}, None),
        (CLINVAR, {"source": "lrb"}, ["chr8"]),
        (EQTL, {"source": "lrb"}, ["chr9", "chr10"]),
        (OMIM, {"source": "lrb"}, "all"),
    ],
)
def test_test_chromosomes(task, entry, expected):
    tasks = {task: entry} | ({CLINVAR: {"source": "lrb"}} if task == OMIM else {})
    aliases = {"9": "chr9", "chr9": "chr9", "CM1.1": "chr1"}
    assert sources.test_chromosomes(task, entries(**tasks)[task], aliases) == expected


def test_a_task_scored_by_another_ones_checkpoints_is_all_test():
    tasks = entries(
        a={"source": "file", "path": "a.csv"},
        b={"source": "file", "path": "b.csv", "train_task": "a", "test_chromosomes": ["chr9"]},
    )
    assert sources.test_chromosomes("b", tasks["b"], {}) == "all"
