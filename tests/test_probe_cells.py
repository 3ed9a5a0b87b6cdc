"""Which cells the probe stage has: every combination that is asked for, each once."""

from itertools import product

import pytest

from longscale.probe_cells import (
    AS_TRAINED,
    Place,
    feature_cells,
    genome_of_task,
    is_trained,
    kind_of_task,
    longest_context,
    probe_cells,
    simulated_genome,
)
from longscale.tasks.probe_tasks import PROBE_TASKS

PROBE = {
    "tasks": ["sim_eqtl", "bulk_rna_expression"],
    "models": ["a", "b"],
    "context_bp": [256, 512],
    "arms": [],
    "features": {},
    "genomes": {"hg38": None, "hg19": "hg19"},
}
CONFIG = {
    "genome": {"name": "g"},
    "genomes": {"hg19": {"simulate": None}, "s": {"simulate": "recipe.yaml"}},
    "probe": PROBE,
}


def arm(**changes):
    return AS_TRAINED | changes


def test_without_arms_every_model_is_run_as_it_was_trained():
    expected = product(PROBE["tasks"], PROBE["models"], PROBE["context_bp"], ["none"], ["none"])
    assert probe_cells(PROBE) == [Place(*place) for place in expected]


def test_arms_are_added_up_and_no_cell_stands_twice():
    arms = [
        arm(models=["a"], context_bp=[256]),
        arm(models=["a"], tasks=["sim_eqtl"], rules=["none", "logn"], extensions=["none", "ntk"]),
    ]
    cells = probe_cells(PROBE | {"arms": arms})
    assert len(cells) == len(set(cells)) == 2 + 2 * 2 * 2 - 1
    assert {cell.model for cell in cells} == {"a"}
    assert Place("sim_eqtl", "a", 512, "logn", "ntk") in cells
    assert Place("bulk_rna_expression", "a", 512, "none", "none") not in cells
    assert cells[0].path == "sim_eqtl/a/256/none/none"


def test_rows_are_those_of_a_tasks_own_longest_context():
    probe = PROBE | {"arms": [arm(context_bp=[256]), arm(tasks=["sim_eqtl"])]}
    assert longest_context(probe, "sim_eqtl") == 512
    assert longest_context(probe, "bulk_rna_expression") == 256
    assert longest_context(probe, "another") == 0


def test_features_have_no_context():
    probe = PROBE | {"features": {"evo": {"sim_eqtl": "f.parquet"}}}
    assert feature_cells(probe) == [Place("sim_eqtl", "evo", 0, "none", "none")]
    assert feature_cells(PROBE) == []


@pytest.mark.parametrize(
    ("task", "genome"),
    [("sim_eqtl", "s"), ("bulk_rna_expression", "hg19"), ("cage_prediction", "g")],
)
def test_a_task_lies_on_its_genome(task, genome):
    assert genome_of_task(CONFIG, task) == genome
    assert simulated_genome(CONFIG) == "s"
    named = CONFIG | {"probe": PROBE | {"genomes": {"hg38": "other", "hg19": "old"}}}
    others = {"bulk_rna_expression": "old", "cage_prediction": "other"}
    assert genome_of_task(named, task) == others.get(task, "s")


def test_kinds_and_who_has_training_rows():
    assert kind_of_task("sim_x", {"sim_x": {"kind": "profile"}}) == "profile"
    for name, task in PROBE_TASKS.items():
        assert kind_of_task(name, {}) == task.kind
        assert is_trained(name) == (task.hidden_layers > 0) == ("omim" not in name)
    assert is_trained("sim_x")
