"""Runs that are killed, starved of disk, doubled or started from odd places, and what they lose.

The short form is part of the end-to-end tests; `make test-faults` is the long one:
LONGSCALE_KILLS: how often a run is killed (3), LONGSCALE_ROWS: rows of a large table (300,000).
"""

import gzip
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml
from test_workflow import copy_workflow

from longscale.training.loop import is_whole

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[1]
KILLS = int(os.environ.get("LONGSCALE_KILLS", "3"))
ROWS = int(os.environ.get("LONGSCALE_ROWS", "300000"))
LONG = KILLS > 3
ODD = "ein Ordner – é 中 $(touch ran); '&"
RESULTS = "results/test"
TRAINING = f"{RESULTS}/mlm/cpython-docs/gau-alpha-tiny/32/dot/rope/seed1"
FORCED = ("--forcerun", "measure_leaks")
# Made without a training, in half a minute.
SHORT = [f"{RESULTS}/tables/{name}.tsv" for name in ("leaks", "variants", "tokens")]


def command(folder, *arguments, config=ROOT / "config/test.yaml", root=ROOT):
    words = [sys.executable, "-m", "snakemake", "--cores", "2", "--snakefile", root / "Snakefile"]
    words += ["--directory", folder, *arguments, "--configfile", config]
    return list(map(str, words))


def start(folder, *arguments, cwd=ROOT, **options):
    """A run in a process group of its own; its output goes to `{folder}.log`."""
    with Path(f"{cwd / folder}.log").open("a") as log:
        return subprocess.Popen(
            command(folder, *arguments, **options),
            cwd=cwd,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def kill(process):
    """The whole group at once, as the kernel does; nobody can clean up."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run(folder, *arguments, check=True, cwd=ROOT, **options):
    """Exit code and output of a run; `check`: it must succeed."""
    done = subprocess.run(
        command(folder, *arguments, **options),
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if check and done.returncode:
        pytest.fail(done.stdout[-6000:])
    return done.returncode, done.stdout


def tables(folder):
    """Every table and page, byte by byte."""
    found = sorted((folder / RESULTS / "tables").iterdir())
    return {path.name: path.read_bytes() for path in found}


def content(folder):
    files = [path for path in (folder / "results").rglob("*") if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A finished run in an oddly named folder, given by a relative path; its seconds; and what a
    second run in the same folder said while it ran.
    """
    parent = tmp_path_factory.mktemp("undisturbed")
    began = time.monotonic()
    process = start(Path(ODD), cwd=parent)
    locks = parent / ODD / ".snakemake" / "locks"
    while not (locks.is_dir() and list(locks.iterdir())) and process.poll() is None:
        time.sleep(0.1)
    second = run(Path(ODD), check=False, cwd=parent)
    assert process.wait() == 0, Path(f"{parent / ODD}.log").read_text()[-6000:]
    return parent / ODD, time.monotonic() - began, second


# --- places -----------------------------------------------------------------------------------


def test_a_second_run_in_the_same_folder_is_refused_and_disturbs_nothing(undisturbed):
    _, _, (code, output) = undisturbed
    assert code != 0
    assert "--unlock" in output
    assert "Traceback" not in output


def test_a_run_goes_on_from_wherever_its_folder_is_named(undisturbed, tmp_path):
    folder, _, _ = undisturbed
    (tmp_path / "link").symlink_to(folder)
    for name, cwd in [
        (folder, tmp_path),
        (Path(os.path.relpath(folder, tmp_path)), tmp_path),
        (Path(), folder),
    ]:
        assert "Nothing to be done" in run(name, "--dry-run", cwd=cwd)[1]
    assert [path.name for path in folder.parent.iterdir() if path.name == "ran"] == []


def test_the_workflow_itself_may_lie_in_an_odd_place(tmp_path):
    root = tmp_path / ODD
    root.mkdir()
    copy_workflow(root)
    target = f"{RESULTS}/downloads/simtest.md5checksums.txt"
    run(tmp_path / "run", target, root=root, cwd=tmp_path)
    assert (tmp_path / "run" / target).exists()
    assert not list(tmp_path.rglob("ran"))


def test_values_that_a_shell_would_run_are_names_and_no_more(tmp_path):
    """In the folder of results, in sources with and without a scheme, in the data themselves."""
    shell = "$(touch ran) `touch ran`; touch ran & 'x\""
    source = tmp_path / f"in {shell}"
    source.mkdir()
    bases = "".join(np.random.default_rng(1).choice(list("ACGT"), 3000))
    (source / "g.fna.gz").write_bytes(gzip.compress(f">CM1.1\n{bases}\n".encode()))
    row = ["1", "assembled-molecule", "1", "C", "CM1.1", "=", "na", "P", "3000", "chr1"]
    (source / "report.txt").write_text("\t".join(row) + "\n")
    last = f"{shell} <script>,1"  # a row too short
    rows = [f"chr1,{i},{bases[i - 1]},{'A' if bases[i - 1] != 'A' else 'C'},1" for i in (900, 999)]
    (source / "v.csv").write_text("\n".join(["CHROM,POS,REF,ALT,INT_LABEL", *rows, last]))
    config = yaml.safe_load((ROOT / "config/test.yaml").read_text())
    config["results"] = f"out {shell}"
    config["genome"] = {
        "name": "g",
        "fasta": str(source / "g.fna.gz"),
        "assembly_report": (source / "report.txt").as_uri(),
    }
    config["tasks"] = {"t": {"source": "file", "path": str(source / "v.csv")}}
    config["study"] |= {"tasks": ["t"]}
    del config["mlm"], config["corpora"]
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    target = f"out {shell}/tables/variants.html"
    folder = tmp_path / "run"
    run(folder, target, config=tmp_path / "c.yaml", cwd=tmp_path)
    assert "<script" not in (folder / target).read_text()
    assert not [path for path in tmp_path.rglob("*") if path.name == "ran"]


def test_what_snakemake_itself_refuses_touches_no_results(undisturbed, tmp_path):
    folder, _, _ = undisturbed
    before = content(folder)
    (tmp_path / "broken.yaml").write_text("study: [")
    for arguments, config, word in [
        ((), tmp_path / "nope.yaml", "nope.yaml"),
        ((), tmp_path / "broken.yaml", "not valid JSON or YAML"),
        ((f"{RESULTS}/tables/aurok.tsv",), ROOT / "config/test.yaml", "aurok.tsv"),
    ]:
        code, output = run(folder, *arguments, config=config, check=False)
        assert code != 0
        assert word in output
    assert content(folder) == before


# --- kills ------------------------------------------------------------------------------------


def trainings(folder):
    """Folder of each training -> the step of its newest whole checkpoint."""
    steps = {}
    for path in (folder / RESULTS).rglob("checkpoint-*"):
        if path.parent.name == "checkpoints" and is_whole(path):
            owner = path.parents[1]
            steps[owner] = max(steps.get(owner, 0), int(path.name.rsplit("-", 1)[1]))
    return steps


def log_of(folder, training):
    """The log of the training that writes to a folder of results."""
    stage, *names = training.relative_to(folder / RESULTS).parts
    rule = {"mlm": "train_mlm"}.get(stage, stage)
    found = (folder / RESULTS / "logs" / rule).rglob("*.log")
    return next((p for p in found if all(name in str(p) for name in names)), None)


def assert_resumed(folder, before, since):
    """No training that had a checkpoint has begun anew since then."""
    for training, step in before.items():
        log = log_of(folder, training)
        if log is None or log.stat().st_mtime < since:
            continue
        text = log.read_text()
        if re.search(r"^\S+ (step|kept)", text, re.MULTILINE):
            resumed = re.search(r"resumed at step (\d+)", text)
            assert resumed, f"{log} began anew:\n{text}"
            assert int(resumed[1]) >= step


def test_a_run_killed_at_random_moments_ends_with_the_same_tables(undisturbed, tmp_path):
    whole, seconds, _ = undisturbed
    rng = random.Random(os.environ.get("LONGSCALE_FAULT_SEED", "1"))
    folder, killed = tmp_path / "run", 0
    while killed < KILLS:
        before, since = trainings(folder), time.time()
        process = start(folder)
        try:
            # Long enough to get on, short enough for the last kill to find something to kill.
            process.wait(timeout=rng.uniform(1, 8 + 2 * seconds / KILLS))
        except subprocess.TimeoutExpired:
            kill(process)
            killed += 1
            assert_resumed(folder, before, since)
            run(folder, "--unlock")
            continue
        assert process.returncode == 0
        assert tables(folder) == tables(whole)
        shutil.rmtree(folder)  # and once more from the start
    run(folder)
    assert tables(folder) == tables(whole)
    assert not list((folder / RESULTS).rglob("*.part"))
    assert "Nothing to be done" in run(folder)[1]


@pytest.fixture(scope="module")
def long_training(tmp_path_factory):
    """A configuration whose masked-LM training has many checkpoints."""
    config = yaml.safe_load((ROOT / "config/test.yaml").read_text())
    config["mlm"]["train"] = {"steps": 300, "batch_size": 64, "checkpoint_steps": 20}
    path = tmp_path_factory.mktemp("config") / "long.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_a_training_goes_on_from_its_last_whole_checkpoint(long_training, tmp_path):
    """Killed, and then its newest checkpoint cut in half, as a power failure might leave it."""
    target = f"{TRAINING}/model.safetensors"
    run(tmp_path / "whole", target, config=long_training)
    folder = tmp_path / "killed"
    process = start(folder, target, config=long_training)
    training = folder / TRAINING
    while trainings(folder).get(training, 0) < 60 and process.poll() is None:
        time.sleep(0.02)
    kill(process)
    newest = trainings(folder)[training]
    cut = training / "checkpoints" / f"checkpoint-{newest}" / "model.safetensors"
    with cut.open("r+b") as handle:
        handle.truncate(cut.stat().st_size // 2)
    last = trainings(folder)[training]
    assert 0 < last < newest
    run(folder, "--unlock")
    run(folder, target, config=long_training)
    log = log_of(folder, training).read_text()
    assert f"checkpoint-{newest} is not whole any more" in log
    assert f"resumed at step {last} of 300" in log
    assert (folder / target).read_bytes() == (tmp_path / "whole" / target).read_bytes()


# --- disks ------------------------------------------------------------------------------------


@contextmanager
def small_disk(folder, size):
    """A file system of its own at `folder`; yields `change(options)`, a remount."""
    folder.mkdir(parents=True)
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "longscale-test", folder],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield lambda options: subprocess.run(
            ["mount", "-o", f"remount,{options}", folder], check=True
        )
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_disk_that_is_full_or_read_only_is_told_and_the_run_goes_on_later(undisturbed, tmp_path):
    whole, _, _ = undisturbed
    folder, targets = tmp_path / "run", [] if LONG else SHORT
    kilobytes, told = 256, []
    with small_disk(folder / "results", f"{kilobytes}k") as remount:
        while True:
            code, output = run(folder, *targets, check=False)
            if code == 0:
                break
            told.append(output)
            assert kilobytes < 512_000, output[-6000:]
            kilobytes *= 4
            remount(f"size={kilobytes}k")
        assert len(told) > 1
        for output in told:
            assert "No space left on device" in output
            assert "Traceback" not in output
        for path in (folder / SHORT[1]).parent.glob("variants.*"):  # all that one job makes
            path.unlink()
        before = content(folder)
        remount("ro")
        for arguments, words in [((), "Read-only file system"), (FORCED, "Write-protected output")]:
            code, output = run(folder, *targets, *arguments, check=False)
            assert code != 0
            assert words in output
            assert "Traceback" not in output
        assert content(folder) == before
        remount("rw")
        run(folder, *targets)
        found, expected = tables(folder), tables(whole)
        assert found == {name: expected[name] for name in found}
        assert {Path(path).name for path in SHORT} <= set(found)


# --- size -------------------------------------------------------------------------------------


def test_one_broken_row_of_a_large_table_is_found_and_the_others_are_kept(tmp_path):
    """In a process of its own, whose peak memory is told; the long form has ten million rows."""
    fasta, path = tmp_path / "g.fa", tmp_path / "v.csv"
    length, broken = max(4_000_000, ROWS // 3 + 10), ROWS // 2
    bases = np.random.default_rng(1).choice(np.frombuffer(b"ACGT", np.uint8), length)
    fasta.write_bytes(b">chr1\n" + bases.tobytes() + b"\n")
    Path(f"{fasta}.fai").write_text(f"chr1\t{length}\t6\t{length}\t{length + 1}\n")
    others = {ord("A"): "CGT", ord("C"): "AGT", ord("G"): "ACT", ord("T"): "ACG"}
    with path.open("w") as handle:
        handle.write("CHROM,POS,REF,ALT,y\n")
        for i in range(ROWS):
            base = bases[i // 3]
            row = f"chr1,{i // 3 + 1},{chr(base)},{others[base][i % 3]},{i % 2}\n"
            handle.write(row if i != broken else row.replace("chr1,", "chr1,x"))
    code = f"""
import json, resource, sys
sys.path.insert(0, {str(ROOT / "workflow/scripts")!r})
from longscale.genome.sequence import Genome
from longscale.variants.accept import accept_variants
from longscale.variants.readers import read_variants
columns = dict(contig="CHROM", pos="POS", ref="REF", alt="ALT", label="y")
found = accept_variants(read_variants({str(path)!r}, columns), Genome({str(fasta)!r}), {{}})
print(json.dumps([found.rejected.to_dict("records"), found.counts]))
"""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"\n{ROWS:,} rows: {seconds:.0f} s, at most {peak:,.0f} MiB")
    (row,), counts = json.loads(done.stdout)
    assert (row["line"], row["reason"]) == (broken + 2, "unparseable")
    assert counts == {"rows": ROWS, "alleles": ROWS, "accepted": ROWS - 1, "rejected": 1}
