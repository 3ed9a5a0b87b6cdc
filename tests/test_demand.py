"""What jobs ask a cluster for: more for more work and at each attempt, never more than there is."""

import re

import pytest
import yaml
from conftest import ROOT
from test_footprint import read_study
from test_plan import CALIBRATION
from test_workload import changed

from longscale.demand import SPARE_MINUTES, Cluster, Demands, step_tokens
from longscale.workload import KINDS

AT = {
    "task": "variant_effect_causal_eqtl", "protocol": "paired", "model": "dnabert2-117m",
    "train_bp": "1000", "eval_bp": "1000", "attention": "dot", "seed": "1",
}  # fmt: skip
OMIM = {"task": "variant_effect_pathogenic_omim_subset", "eval_bp": "10000"}
GPU = Cluster(gpus=1)
GENOME_MB = 4 * 938


@pytest.fixture
def full(tmp_path):
    return read_study("grch38.yaml", tmp_path)


def demands(study, **cluster):
    return Demands(study, CALIBRATION, Cluster(**cluster))


def test_time_is_the_estimate_with_its_uncertainty_and_some_to_spare(full):
    asked = demands(full, gpus=1).of("score_variants", AT)
    # As test_plan has it: 8,846 rows, two alleles, seven rules, operations at the stated speed.
    n = full.tokens("dnabert2-117m", 1000)
    seconds = 8_846 * 2 * 7 * n * (226.5e6 + 36_864 * n) / 10e12 + 8
    assert asked.seconds == pytest.approx(seconds, rel=1e-3)
    assert asked.minutes == pytest.approx(SPARE_MINUTES + 3 * seconds / 60, abs=1)
    assert asked.gpus == 1


def test_scoring_the_largest_task_asks_for_more_than_a_day(full):
    asked = demands(full, gpus=1).of("score_variants", AT | OMIM)
    assert asked.minutes > 24 * 60
    assert asked.minutes * 60 >= asked.seconds


@pytest.mark.parametrize(
    ("rule", "more"),
    [
        ("score_variants", {"eval_bp": "10000"}),
        ("score_variants", {"task": OMIM["task"]}),
        ("finetune", {"train_bp": "10000"}),
        ("finetune", {"task": "variant_effect_causal_eqtl"}),
    ],
)
@pytest.mark.parametrize("gpus", [0, 1])
def test_more_work_asks_for_more_time(full, rule, more, gpus):
    least = AT | {"task": "variant_effect_pathogenic_clinvar"}
    one, two = (demands(full, gpus=gpus).of(rule, at) for at in (least, least | more))
    assert two.seconds > 1.5 * one.seconds
    assert two.minutes > one.minutes


def test_without_a_gpu_time_and_memory_are_those_of_the_cpu(full):
    gpu, cpu = (demands(full, gpus=n).of("finetune", AT | {"train_bp": "10000"}) for n in (1, 0))
    assert (gpu.gpus, cpu.gpus) == (1, 0)
    assert cpu.minutes > 5 * gpu.minutes
    assert cpu.mem_mb > gpu.mem_mb


def test_memory_holds_the_genome_and_on_a_cpu_the_activations(full):
    assert demands(full, gpus=1).of("score_variants", AT).mem_mb > GENOME_MB
    # benchmarks/activation_memory.py: 4 windows of 500 tokens keep 2,123 MiB.
    tokens = step_tokens(full, "finetune", AT)
    assert tokens == 2 * 32 * full.tokens("dnabert2-117m", 1000)
    assert demands(full).of("finetune", AT).mem_mb > GENOME_MB + 2123 * tokens / 2000


def test_each_attempt_asks_for_as_much_again_up_to_what_there_is(full):
    free = demands(full, gpus=1)
    one, two, three = (free.of("finetune", AT, attempt) for attempt in (1, 2, 3))
    assert (two.mem_mb, three.mem_mb) == (2 * one.mem_mb, 3 * one.mem_mb)
    assert (two.minutes, three.minutes) == (2 * one.minutes, 3 * one.minutes)
    tight = demands(full, gpus=1, memory_mb=one.mem_mb + 1, minutes=one.minutes + 1)
    most = tight.of("finetune", AT, 3)
    assert (most.mem_mb, most.minutes) == (one.mem_mb + 1, one.minutes + 1)


def test_processes_want_a_gpu_each_and_nodes_share_them(full):
    four = changed(full, "finetune", "processes", value=4)
    one, all_four = (demands(study, gpus=1).of("finetune", AT) for study in (full, four))
    assert all_four.gpus == 4
    assert all_four.mem_mb > 2 * one.mem_mb
    spread = demands(changed(four, "finetune", "nodes", value=2), gpus=1).of("finetune", AT)
    assert spread.gpus == 4
    assert spread.mem_mb < 0.7 * all_four.mem_mb  # Slurm counts memory by node


def test_slower_devices_take_longer(full):
    usual, slow = (demands(full, gpus=1, slowness=n).of("finetune", AT) for n in (1, 3))
    assert slow.seconds == pytest.approx(3 * usual.seconds)


def test_every_kind_of_job_has_a_demand(tmp_path):
    study = read_study("test.yaml", tmp_path)
    at = {
        "task": "sim_near", "protocol": "paired", "model": "dnabert2-tiny", "train_bp": "256",
        "attention": "dot", "seed": "1", "eval_bp": "512",
    }  # fmt: skip
    mlm = {
        "corpus": "cpython-docs", "model": "gau-alpha-tiny", "train_length": "32",
        "attention": "dot", "scheme": "rope", "seed": "1", "protocol": "fixed-target",
        "length": "64",
    }  # fmt: skip
    probe = {
        "task": "sim_eqtl", "probe_task": "sim_eqtl", "model": "dnabert2-tiny",
        "context_bp": "256", "rule": "none", "extension": "none",
    }  # fmt: skip
    for rule, kind in KINDS.items():
        parts = {"mlm": mlm, "probe": probe}.get(kind.section[0], at)
        asked = demands(study).of(rule, parts)
        assert 1000 < asked.mem_mb < 4000, rule  # tiny models: imports, and the blocks of a probe
        assert SPARE_MINUTES < asked.minutes < 2 * SPARE_MINUTES, rule
    small = demands(study).of("prepare_variants", {"task": "sim_near"})
    assert small.gpus == 0


RULE = re.compile(r"^( *)rule (\w+):\n(.*?)(?=^\1(?:use )?rule |^\S|\Z)", re.MULTILINE | re.DOTALL)


def rules():
    """Name -> body of every rule that runs a script."""
    text = "\n".join(path.read_text() for path in sorted((ROOT / "rules").glob("*.smk")))
    return {name: body for _, name, body in RULE.findall(text) if "script:" in body}


def test_every_rule_states_what_it_needs():
    found = rules()
    assert {"finetune", "simulate_genome", "build_mlm_table", "compute_posterior"} <= set(found)
    for name, body in found.items():
        assert "**GPU_NEEDS" in body if name in KINDS else "**NEEDS" in body, name
        assert ("grouped(" in body) == (name in KINDS), name
        assert "threads:" in body or name not in KINDS, name


def test_the_profile_groups_rules_that_there_are():
    text = (ROOT / "profiles/slurm/config.yaml").read_text()
    groups = yaml.safe_load(text.split("\ngroups:\n")[1].split("\ngroup-components:")[0])
    assert set(groups) <= set(rules()) - set(KINDS)
    sized = set(re.findall(r'"(\w+)"', text.split("\ngroup-components:")[1]))
    assert sized == {*groups.values(), "pretrain", "train", "measure", "score", "embed", "probe"}


LRB = {
    "task": "bulk_rna_expression", "probe_task": "bulk_rna_expression", "model": "nt-v2-50m",
    "context_bp": "12000", "rule": "none", "extension": "none",
}  # fmt: skip


def place(task, **parts):
    return LRB | {"task": task, "probe_task": task} | parts


@pytest.fixture
def lrb(tmp_path):
    return read_study("lrb.yaml", tmp_path)


@pytest.mark.parametrize("rule", ["embed_rows", "train_probe"])
def test_probes_of_more_rows_ask_for_more_time(lrb, rule):
    few, many = "bulk_rna_expression", "regulatory_element_enhancer"
    one, two = (demands(lrb, gpus=1).of(rule, place(task)) for task in (few, many))
    assert two.seconds > 2 * one.seconds
    assert (one.gpus, two.gpus) == (1, 1)


def test_embedding_holds_the_genome_of_its_task(lrb):
    hg19, grch38 = "bulk_rna_expression", "regulatory_element_promoter"
    one, two = (
        demands(lrb, gpus=1).of("embed_rows", place(task)).mem_mb for task in (hg19, grch38)
    )
    assert one - two == pytest.approx(1.3 * 4 * (949 - 938), abs=2)


def test_embedding_on_a_cpu_holds_a_batch_or_one_long_context(lrb):
    short, long = (
        step_tokens(lrb, "embed_rows", place("x", context_bp=n)) for n in ("600", "960000")
    )
    assert short == lrb.config["probe"]["embed"]["batch_tokens"]
    assert long == 960_000 / 6 + 1


def test_a_profile_probe_holds_its_predictions(lrb):
    rows = lrb.probe_task("cage_prediction").test
    values = rows * (12_000 // 128) * 50 * 5 * 4  # test rows, bins, tracks, folds, bytes
    asked = demands(lrb, gpus=1).of("train_probe", place("cage_prediction")).mem_mb
    assert asked == pytest.approx(1.3 * (4000 + 2000 + 2 * values / 1e6), abs=2)


def test_rows_are_read_without_a_gpu(lrb):
    few, many = "bulk_rna_expression", "variant_effect_pathogenic_omim"
    one, two = (
        demands(lrb, gpus=1).of("prepare_probe_rows", {"probe_task": t}) for t in (few, many)
    )
    assert two.mem_mb > one.mem_mb + 2000
    assert (one.gpus, two.gpus) == (0, 0)
