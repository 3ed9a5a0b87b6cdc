"""The workflow on a real Slurm of two nodes, as a user runs it, with faults on purpose."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, skip
from slurm_cluster import CPUS, GPUS, MEMORY_MB, NODES, Cluster, cluster, missing, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.slurm]

SMALLEST = "tests/configs/slurm.yaml"
CONFIG = {"short": SMALLEST, "demo": "config/config.yaml"}.get(
    os.environ.get("SLURM_TEST", ""), "config/test.yaml"
)
RESULTS = yaml.safe_load((ROOT / CONFIG).read_text()).get("results", "results")
LOCAL_RULES = {
    "all", "download_md5checksums", "download_genome_file", "download_assembly_report",
    "download_task", "fetch_checkpoint", "tabulate_variants", "build_tables", "plot_auroc",
    "plot_documents", "build_mlm_table", "plot_mlm", "download_probe_file",
    "download_probe_shards", "download_genes", "fetch_encoder", "build_lrb_table", "plot_lrb",
}  # fmt: skip
GPU_RULES = (
    r"pretrain|finetune|measure_entropy|score_variants|train_mlm|measure_attention|score_mlm"
    r"|embed_rows|train_probe|score_zero_shot"
)
BLOCK = {
    "cpu_partition": "all", "gpu_type": "fake", "extra": '"--nice=3"', "memory_mb": MEMORY_MB,
    "cores": CPUS, "hours": 2, "jobs": 16,
}  # fmt: skip
RUN = "sim_near/paired/dnabert2-tiny/256/dot/seed1"


def write_profile(folder: Path) -> Path:
    """profiles/slurm with the test cluster in its block, as a user edits it; checks jobs often."""
    text = (ROOT / "profiles/slurm/config.yaml").read_text()
    for name, value in BLOCK.items():
        text, found = re.subn(rf"^(  {name}:) *\S+", rf"\1 {value}", text, flags=re.MULTILINE)
        assert found == 1, name
    text = text.replace("status-checks: 10", "status-checks: 2\nslurm-keep-successful-logs: true")
    path = folder / "profile" / "config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path.parent


def start(*arguments: object, configs: tuple = (CONFIG,)) -> list[str]:
    """The command that runs Snakemake."""
    given = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile"]
    given += [*arguments, "--configfile", *[ROOT / config for config in configs]]
    return list(map(str, given))


def finish(folder: Path, command: list[str]) -> str:
    """Its output, as soon as it has succeeded."""
    done = subprocess.run(
        command,
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        pytest.fail(done.stdout[-8000:])
    return done.stdout


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A cluster for all tests here."""
    reason = missing()
    if reason:
        skip(f"no Slurm can be brought up: {reason}")
    folder = tmp_path_factory.mktemp("cluster")
    with cluster(folder, requeue=os.environ.get("SLURM_TEST") != "short") as running:
        yield running


@dataclass
class Fault:
    """Something done once to the first job of `rule` that has begun to work."""

    rule: str
    act: Callable[[Cluster, str, dict], None]
    job: str = ""
    claim: dict = field(default_factory=dict)


def working(jobs: dict[str, dict], rule: str, results: Path) -> tuple[str, dict] | None:
    """A running job of a rule and the claim that its process holds."""
    running = [
        i for i, job in jobs.items() if job["JobState"] == "RUNNING" and rule in job["Comment"]
    ]
    claims = [json.loads(path.read_text()) for path in (results / "logs" / rule).rglob("*.claim")]
    return (running[0], claims[0]) if running and claims else None


def cancel(slurm: Cluster, job: str, claim: dict) -> None:
    """Somebody cancels it."""
    subprocess.run(["scancel", job], check=True)


def hang(slurm: Cluster, job: str, claim: dict) -> None:
    """It does nothing more, until its time is over."""
    os.kill(claim["pid"], signal.SIGSTOP)


def cut_off(slurm: Cluster, job: str, claim: dict) -> None:
    """Its node is lost to Slurm, while it goes on."""
    slurm.kill_node(slurm.jobs()[job]["NodeList"])


@dataclass
class Finished:
    """A run through Slurm: its folder, output and faults, and all jobs as Slurm had them."""

    folder: Path
    output: str
    faults: dict[str, Fault]
    jobs: dict[str, dict]


@pytest.fixture(scope="module")
def finished(slurm, tmp_path_factory):
    """A run in which a job dies of memory, one hangs, one is cancelled and one loses its node."""
    folder = tmp_path_factory.mktemp("slurm")
    command = start(
        "--directory", folder.name, "--workflow-profile", write_profile(folder),
        # 150 MB are not enough for Python with pandas, and a minute not for a process that hangs.
        "--set-resources", "simulate_genome:mem_mb=150 * 4 ** (attempt - 1)",
        "pretrain:runtime=attempt ** 2",
    )  # fmt: skip
    faults = {
        "hang": Fault("pretrain", hang),
        "cancel": Fault("finetune", cancel),
        "cut_off": Fault("score_variants", cut_off),
    }
    with (folder / "output.txt").open("w") as out:
        running = subprocess.Popen(command, cwd=folder.parent, stdout=out, stderr=subprocess.STDOUT)
        try:
            waiting = list(faults.values())
            while running.poll() is None:
                jobs = slurm.jobs()
                for fault in list(waiting):
                    if found := working(jobs, fault.rule, folder / RESULTS):
                        fault.job, fault.claim = found
                        fault.act(slurm, *found)
                        waiting.remove(fault)
                time.sleep(0.3)
        finally:
            if running.poll() is None:
                running.send_signal(signal.SIGINT)
                running.wait(timeout=60)
    output = (folder / "output.txt").read_text()
    if running.returncode:
        pytest.fail(output[-8000:])
    for node in NODES:
        if slurm.daemons[node].poll() is not None:
            slurm.revive_node(node)
    return Finished(folder, output, faults, slurm.jobs())


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The same without Slurm and without faults."""
    folder = tmp_path_factory.mktemp("local")
    finish(folder, start("--cores", 2))
    return folder


def test_every_job_but_the_local_ones_went_through_slurm(finished):
    here = set(re.findall(r"^localrule (\w+):", finished.output, flags=re.MULTILINE))
    assert here <= LOCAL_RULES
    assert {"build_tables", "plot_auroc", "download_genome_file"} <= here
    summary = finish(finished.folder, start("--summary")).splitlines()
    rows = [line.split("\t") for line in summary if line.startswith(f"{RESULTS}/")]
    expected = {row[0] for row in rows if row[2] not in LOCAL_RULES}
    logs = (finished.folder / ".snakemake/slurm_logs").rglob("*.log")
    made = {
        path
        for log in logs
        for outputs in re.findall(r"^ +output: (.*)$", log.read_text(), flags=re.MULTILINE)
        for path in outputs.split(", ")
    }
    assert expected - made == set()
    assert {job["Nice"] for job in finished.jobs.values()} == {"3"}  # as the profile says


def test_jobs_with_a_gpu_see_that_one_and_others_none(slurm, finished):
    assert {step["node"] for step in slurm.steps()} == set(NODES)
    with_gpu = 0
    for step in slurm.steps():
        if step["job"] not in finished.jobs:
            continue
        if re.search(GPU_RULES, finished.jobs[step["job"]]["Comment"]):
            assert step["visible"] in map(str, range(GPUS))
            assert step["granted"] in ("", step["visible"])
            assert finished.jobs[step["job"]]["Partition"] == "gpu"
            with_gpu += 1
        else:
            assert step["visible"] == "unset"
            assert finished.jobs[step["job"]]["Partition"] == "all"
    assert with_gpu > 4


def test_nothing_is_left_of_a_run_that_has_ended(finished):
    """At most a word that it ended, where Slurm was still ending its last job."""
    for record in (finished.folder / RESULTS / "runs").iterdir():
        assert json.loads(record.read_text())["ended"]


def attempts(finished: Finished, word: str) -> list[dict]:
    """The Slurm jobs of a rule, in the order of their submission."""
    rows = [job for job in finished.jobs.values() if word in job["Comment"]]
    return sorted(rows, key=lambda job: int(job["JobId"]))


def test_a_job_that_died_of_memory_got_more(finished):
    first, *_, last = attempts(finished, "simulate_genome")
    assert first["JobState"] in ("OUT_OF_MEMORY", "CANCELLED", "FAILED")
    assert last["JobState"] == "COMPLETED"
    assert (first["MinMemoryNode"], last["MinMemoryNode"]) in (("150M", "600M"), ("150M", "2400M"))


def test_a_job_that_hung_until_its_time_was_over_got_more(finished):
    first, *_, last = attempts(finished, "pretrain")
    assert first["JobId"] == finished.faults["hang"].job
    assert first["JobState"] == "TIMEOUT"
    assert last["JobState"] == "COMPLETED"
    assert last["TimeLimit"] > first["TimeLimit"]


def later(finished: Finished, job: dict, rule: str) -> list[dict]:
    """Completed jobs of a rule that were submitted after `job`."""
    rows = attempts(finished, rule)
    after = [row for row in rows if int(row["JobId"]) > int(job["JobId"])]
    return [row for row in after if row["JobState"] == "COMPLETED"]


def test_a_cancelled_training_ran_again_with_more(finished):
    job = finished.jobs[finished.faults["cancel"].job]
    assert job["JobState"] == "CANCELLED"
    asked = {int(row["MinMemoryNode"][:-1]) for row in later(finished, job, "finetune")}
    assert min(2 * int(job["MinMemoryNode"][:-1]), MEMORY_MB) in asked


def test_a_job_whose_node_was_lost_ran_again_elsewhere(slurm, finished):
    fault = finished.faults["cut_off"]
    job = finished.jobs[fault.job]
    nodes = {step["node"] for step in slurm.steps() if step["job"] == fault.job}
    assert not Path(f"/proc/{fault.claim['pid']}").exists()
    if job["Restarts"] == "0":  # Snakemake submitted another one
        assert job["JobState"] == "NODE_FAIL"
        assert later(finished, job, "score_variants")
    else:  # Slurm started the same one again
        assert job["JobState"] == "COMPLETED"
        assert nodes == set(NODES)


def test_tables_are_those_of_a_run_without_slurm(finished, local):
    tables = sorted((local / RESULTS / "tables").glob("*.tsv"))
    assert len(tables) >= 5
    for table in tables:
        assert (finished.folder / table.relative_to(local)).read_bytes() == table.read_bytes(), (
            table
        )


@pytest.fixture(scope="module")
def small(request, tmp_path_factory):
    """A local run of the smallest study."""
    if CONFIG == SMALLEST:
        return request.getfixturevalue("local")
    folder = tmp_path_factory.mktemp("small")
    finish(folder, start("--cores", 2, configs=(SMALLEST,)))
    return folder


@pytest.fixture
def begun(small, tmp_path):
    """A copy of it without its trainings and scores."""
    folder = tmp_path / "begun"
    shutil.copytree(small, folder)
    for name in ("finetune", "scores", "tables", "logs"):
        shutil.rmtree(folder / "results/test" / name)
    return folder


def test_a_killed_controller_is_recovered_with_one_command(slurm, small, begun):
    target = f"results/test/scores/{RUN}/512.parquet"
    profile = write_profile(begun)
    command = start("--workflow-profile", profile, target, configs=(SMALLEST,))
    running = subprocess.Popen(
        command, cwd=begun, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )
    results = begun / "results/test"
    job, _ = wait_for(lambda: working(slurm.jobs(), "finetune", results), "no training runs", 300)
    running.kill()
    running.wait()
    again = subprocess.run(command, cwd=begun, capture_output=True, text=True, check=False)
    assert again.returncode
    assert "Slurm still has 1 of its jobs" in again.stderr
    assert f"make recover RESULTS={results}" in again.stderr
    assert "Traceback" not in again.stderr
    assert slurm.jobs()[job]["JobState"] == "RUNNING"
    recover = [sys.executable, ROOT / "workflow/scripts/recover.py", results]
    output = finish(ROOT, list(map(str, recover)))
    assert f"cancelling 1 jobs: {job}" in output
    assert slurm.jobs()[job]["JobState"] == "CANCELLED"
    assert (begun / target).read_bytes() == (small / target).read_bytes()
    assert not list((results / "runs").iterdir())


def test_training_on_two_nodes_is_that_of_two_processes_on_one(slurm, begun):
    target = f"results/test/finetune/{RUN}/model.safetensors"
    nodes = (SMALLEST, "tests/configs/slurm_nodes.yaml")
    finish(begun, start("--workflow-profile", write_profile(begun), target, configs=nodes))
    spread = (begun / target).read_bytes()
    last = list(slurm.jobs().values())[-1]
    assert last["NumNodes"] == "2"
    steps = [step for step in slurm.steps() if step["job"] == last["JobId"]]
    assert {step["node"] for step in steps} == set(NODES)
    shutil.rmtree((begun / target).parent)
    (begun / "one.yaml").write_text("finetune: {nodes: 1}\n")
    finish(begun, start("--cores", 2, target, configs=(*nodes, begun / "one.yaml")))
    assert (begun / target).read_bytes() == spread
