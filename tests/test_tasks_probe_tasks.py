"""The table of probe tasks: what it says agrees with the benchmark's files."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT

from longscale.tasks.lrb import LRB_TASKS
from longscale.tasks.probe_tasks import PROBE_TASKS, shard_names

KINDS = {"variant", "interval", "multilabel", "expression", "profile"}


def test_every_kind_and_every_variant_task_is_there():
    assert {task.kind for task in PROBE_TASKS.values()} == KINDS
    for name, lrb in LRB_TASKS.items():
        task = PROBE_TASKS[name]
        assert (task.files["rows"], task.rows, task.genome) == (lrb.filename, lrb.rows, lrb.genome)
        assert task.test_chromosomes == lrb.test_chromosomes


@pytest.mark.parametrize("task", PROBE_TASKS.values(), ids=list(PROBE_TASKS))
def test_a_task_is_consistent(task):
    needed = {"variant": {"contig", "pos", "ref", "alt", "label"}, "interval": {"stop", "labels"},
              "multilabel": {"labels"}, "expression": {"strand"},
              "profile": {"stop", "shard_row"}}[task.kind]  # fmt: skip
    assert needed | {"contig", "pos", "split"} <= set(task.columns)
    assert (task.pool_bp is None) == (task.kind == "interval")
    assert (task.hidden_layers == 0) == (task.rows[0] == 0)
    if task.kind == "profile":
        assert sum(task.pool_bp) == task.bins * task.bin_bp
        assert sum(task.shard_rows.values()) == sum(task.rows)
    else:
        assert (task.bins, task.bin_bp) == (1, None)


def test_shards_are_named_by_their_first_and_last_row():
    """The last ones as the benchmark's loading script computes them."""
    assert shard_names("valid", 2195) == [
        "targets-valid-0-999.npz", "targets-valid-1000-1999.npz", "targets-valid-2000-2194.npz",
    ]  # fmt: skip
    assert shard_names("test", 2000)[-1] == "targets-test-1000-1999.npz"
    paths = list(PROBE_TASKS["cage_prediction"].downloads())
    assert len(paths) == len(set(paths)) == 2 + 34 + 3 + 2
    assert "cage_prediction/targets_subset/targets-train-33000-33890.npz" in paths
    assert "cage_prediction/targets_subset" not in paths


def test_the_table_is_light():
    """Every job of a workflow may read it."""
    code = "import json, sys, longscale.tasks.probe_tasks; print(json.dumps(list(sys.modules)))"
    folder = ROOT / "workflow" / "scripts"
    out = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, check=True)
    assert not {"numpy", "pandas", "huggingface_hub"} & set(json.loads(out.stdout))
