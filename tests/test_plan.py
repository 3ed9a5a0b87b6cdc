"""The plan: counts, sums, words."""

from pathlib import Path

import pytest
from test_footprint import read_study

from longscale.calibration import read_calibration
from longscale.demand import Cluster, Demand, Demands
from longscale.errors import LongscaleError
from longscale.plan import (
    HEADER,
    STAGES,
    bytes_text,
    hours_text,
    learned,
    make_plan,
    plan_for_cluster,
    read_summary,
    render,
    stage_of,
)
from longscale.workload import KINDS, SAME_KIND

ROOT = Path(__file__).resolve().parents[1]
CALIBRATION = read_calibration(ROOT / "resources/calibration.json")
PROBE_ROWS = (".parquet", ".labels.npy", ".labels.json", ".rejected.tsv")
CELL = "sim_eqtl/nt-v2-50m/12000/none/none"
RUN = "variant_effect_causal_eqtl/paired/dnabert2-117m/{}/dot/seed1"


def summary(*rows):
    """What snakemake --summary prints; rows: (path, rule, log, whether to do)."""
    lines = [
        f"r/{path}\t-\t{rule}\t{log}\tmissing\t{'update pending' if to_do else 'no update'}"
        for path, rule, log, to_do in rows
    ]
    return "\n".join(["Building DAG of jobs...", HEADER, *lines])


def outputs(rule, *paths, log="-", to_do=True):
    return [(path, rule, log, to_do) for path in paths]


def score(train_bp, bp, **options):
    return outputs("score_variants", f"scores/{RUN.format(train_bp)}/{bp}.parquet", **options)


def training(train_bp, **options):
    folder = f"finetune/{RUN.format(train_bp)}"
    names = ("config.json", "model.safetensors", "training.json")
    return outputs("finetune", *(f"{folder}/{name}" for name in names), **options)


@pytest.fixture
def full(tmp_path):
    return read_study("grch38.yaml", tmp_path)


def plan_of(study, *rows, calibration=CALIBRATION):
    return make_plan(study, read_summary(summary(*rows), "r"), calibration)


def test_outputs_of_one_job_are_one_job():
    text = summary(
        *outputs("convert_ncbi2ucsc", "genome/G.1.fa", "genome/G.1.fa.fai", "genome/G.1.json"),
        *outputs("prepare_variants", "variants/a.x.parquet", "variants/a.x.rejected.tsv"),
        *outputs("prepare_variants", "variants/a.y.parquet", "variants/a.y.summary.json"),
        *outputs("assign_splits", *(f"splits/a.x/paired.{e}" for e in ("json", "left_out.tsv"))),
        *outputs("simulate_probe_genome", "simulated/s/genes.gtf", "simulated/s/task"),
        *outputs("prepare_probe_rows", *(f"probe/rows/t.1{e}" for e in PROBE_ROWS)),
        *outputs("prepare_probe_rows", *(f"probe/rows/t.2{e}" for e in PROBE_ROWS)),
        *outputs("train_probe", f"probe/{CELL}/predictions.parquet", f"probe/{CELL}/folds.json"),
        *outputs("score_zero_shot", f"probe/{CELL}/zero_shot.parquet"),
        *training(1000),
        *training(2000),
        *outputs("build_tables", "tables/auroc.tsv", "tables/auroc.html"),
        *score(1000, 1000),
        *score(1000, 2000, to_do=False),
    )  # fmt: skip
    jobs = read_summary(text, "r")
    assert [job.rule for job in jobs] == [
        "convert_ncbi2ucsc", "prepare_variants", "prepare_variants", "assign_splits",
        "simulate_probe_genome", "prepare_probe_rows", "prepare_probe_rows", "train_probe",
        "score_zero_shot", "finetune", "finetune", "build_tables",
        "score_variants", "score_variants",
    ]  # fmt: skip
    assert [job.to_do for job in jobs] == [True] * 13 + [False]
    with pytest.raises(LongscaleError, match="no summary"):
        read_summary("nothing", "r")


def test_the_disk_that_embeddings_take_is_told(tmp_path):
    study = read_study("lrb.yaml", tmp_path)
    cell = "bulk_rna_expression/nt-v2-50m/12000/none/none"
    plan = plan_of(
        study,
        *outputs("embed_rows", f"embeddings/{cell}/index.json"),
        *outputs("train_probe", f"probe/{cell}/predictions.parquet", f"probe/{cell}/folds.json"),
    )
    assert plan.embedded == (22_827 + 990) * 512 * 2
    assert plan.stored == plan.embedded + 990 * 218 * 5 * 4
    assert plan.parts["embeddings"].gpu_h > 0
    assert "24 MB of it embeddings" in render(plan, CALIBRATION, "Plan", 0)


def test_what_is_finished_is_not_counted(full):
    plan = plan_of(full, *training(1000), *score(1000, 2000))
    half = plan_of(full, *training(1000, to_do=False), *score(1000, 2000))
    assert (len(plan.jobs), len(half.jobs)) == (2, 1)
    assert list(half.parts) == ["scoring"]
    assert half.parts["scoring"] == plan.parts["scoring"]
    assert half.stored < plan.stored
    assert half.running == 0 < plan.running


def test_hours_add_up_and_follow_from_the_work(full):
    one = plan_of(full, *score(1000, 1000)).parts["scoring"]
    two = plan_of(full, *score(1000, 1000), *score(2000, 1000)).parts["scoring"]
    assert two.gpu_h == pytest.approx(2 * one.gpu_h)
    assert two.cpu_h == pytest.approx(2 * one.cpu_h)
    assert two.low["gpu"] == pytest.approx(two.gpu_h / 3)
    assert two.high["gpu"] == pytest.approx(two.gpu_h * 3)
    full.config["finetune"]["epochs"] *= 2
    short = plan_of(full, *training(1000)).parts["training"].gpu_h
    full.config["finetune"]["epochs"] *= 2
    long = plan_of(full, *training(1000)).parts["training"].gpu_h
    assert long == pytest.approx(2 * short, 0.05)
    full.config["finetune"]["processes"] = 4  # GPUs for a quarter of the time each
    assert plan_of(full, *training(1000)).parts["training"].gpu_h == pytest.approx(long, 0.05)


def test_a_gpu_hour_follows_from_operations_and_the_stated_speed(full):
    # 8,846 rows, two alleles, seven rules; 12 layers of matrices and attention over n tokens.
    n = full.tokens("dnabert2-117m", 1000)
    operations = 8_846 * 2 * 7 * n * (226.5e6 + 36_864 * n)
    expected = (operations / 10e12 + 8) / 3600
    assert plan_of(full, *score(1000, 1000)).parts["scoring"].gpu_h == pytest.approx(expected, 1e-3)


def test_finished_jobs_refine_the_rest(full, tmp_path):
    log = "r/logs/one.log"
    (tmp_path / "r/logs").mkdir(parents=True)
    (tmp_path / log).write_text("10:00:00 done in 36000.0 s on NVIDIA H100\n")
    rows = [*score(1000, 1000, log=log, to_do=False), *score(2000, 1000)]
    jobs = read_summary(summary(*rows), "r")
    calibration = learned(full, jobs, CALIBRATION, tmp_path)
    plan = make_plan(full, jobs, calibration)
    assert plan.parts["scoring"].gpu_h == pytest.approx(10, rel=0.01)
    text = render(plan, calibration, "Plan", 1)
    assert (
        "GPU, score_variants: 1 finished jobs (in results/grch38), within a factor of 2.0" in text
    )
    assert "CPU: not measured" in text


def test_the_text_says_what_a_person_asks(full):
    rows = [
        *outputs("download_genome_file", "downloads/GRCh38.fna.gz"),
        *outputs("fetch_checkpoint", "checkpoints/dnabert2-117m/config.json"),
        *training(1000),
        *score(1000, 1000),
    ]
    plan = plan_of(full, *rows)
    text = render(plan, CALIBRATION, "Plan of x.yaml", 3)
    assert text.startswith("Plan of x.yaml: 4 jobs to do, 3 finished")
    for words in (
        "938 MB  https://",
        "zhihan1996/DNABERT-2-117M",
        "1 finetune",
        "With GPUs: about",
        "Without:   about",
        "for each training while it runs",
        "not measured; operations counted",
        "within a factor of 3",
        "97,563 rows",
        "early stopping",
    ):
        assert words in text
    assert render(plan_of(full), CALIBRATION, "Plan", 9).endswith(
        "nothing to be done, 9 jobs are finished"
    )


def test_every_rule_with_a_model_has_a_stage():
    assert {stage_of(rule) for rule in [*KINDS, *SAME_KIND]} <= set(STAGES)


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "size not known"), (3e3, "3 kB"), (7e6, "7.0 MB"), (938e6, "938 MB"), (4e10, "40 GB")],
)
def test_sizes_as_words(size, text):
    assert bytes_text(size) == text


@pytest.mark.parametrize(
    ("hours", "text"),
    [(0.001, "1 min"), (0.5, "30 min"), (1.26, "1.3 h"), (47.3, "47 h"), (3234, "3,200 h")],
)
def test_hours_as_words(hours, text):
    assert hours_text(hours) == text


def test_a_plan_for_a_cluster_counts_submissions_and_names_what_takes_too_long(full):
    rows = [*score(1000, 1000), *score(1000, 2000)]
    jobs = read_summary(summary(*rows), "r")
    demanded = [Demand(1, 1, 1, seconds) for seconds in (3600.0, 3 * 3600.0)]
    asked = list(zip(jobs, demanded, strict=True))
    demands = Demands(full, CALIBRATION, Cluster(gpus=1, minutes=120))
    text = plan_for_cluster(demands, jobs, asked, 1)
    assert "Slurm: 2 jobs in 1 submissions; 0 run beside Snakemake" in text
    assert "1 of them are expected to take more than the 2 hours" in text
    assert f"3 h  {jobs[1].path}" in text
    assert jobs[0].path not in text
    assert "expected" not in plan_for_cluster(demands, jobs, asked[:1], 1)


def test_the_disk_of_the_stages_adds_up(full):
    plan = plan_of(full, *training(1000), *score(1000, 2000))
    assert {stage: part.stored > 0 for stage, part in plan.parts.items()} == {
        "training": True, "scoring": True,
    }  # fmt: skip
    assert sum(part.stored for part in plan.parts.values()) == plan.stored
