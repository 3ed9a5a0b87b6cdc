"""Records of runs on Slurm, with clients of Slurm that say what the test wants."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace

import pytest

from longscale.errors import LongscaleError
from longscale.runs import (
    RECOVERING,
    Run,
    check_runs,
    end_run,
    process_started,
    read_runs,
    records,
    recover,
    started_in,
    write_run,
)

COMMAND = ["python", "-m", "snakemake", "--jobs", "2"]


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder: `queue` holds lines of name and id; `broken` makes every client fail."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    (folder / "queue").touch()
    squeue = f"""
        [ -e {folder}/broken ] && {{ echo no controller >&2; exit 1; }}
        for option; do case $option in --name=*) names=${{option#--name=}};; esac; done
        grep -E "^(${{names//,/|}}) " {folder}/queue | cut -d' ' -f2
        exit 0"""
    scancel = f'for id; do echo $id >> {folder}/cancelled; sed -i "/ $id$/d" {folder}/queue; done'
    for name, text in {"squeue": squeue, "scancel": scancel}.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.fixture
def killed():
    """The record of a run whose process is gone."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        run = Run(
            "one", socket.gethostname(), process.pid, process_started(process.pid), "/x", COMMAND
        )
        assert run.at_work
        process.kill()
    assert not run.at_work
    return run


def test_a_run_at_work_is_left_alone(slurm, tmp_path):
    run = Run.present("one", "/x", COMMAND)
    write_run(tmp_path, run)
    (slurm / "queue").write_text("one 7\n")
    assert read_runs(tmp_path) == [run]
    check_runs(tmp_path)
    with pytest.raises(LongscaleError, match=f"a run is at work .process {os.getpid()}.*kill -INT"):
        recover(tmp_path, print)
    assert not (slurm / "cancelled").exists()


def test_after_a_killed_run_a_start_is_refused_whether_jobs_are_left_or_not(
    slurm, killed, tmp_path, monkeypatch
):
    write_run(tmp_path, killed)
    (slurm / "queue").write_text("one 7\nother 8\none 9_2\n")
    with pytest.raises(
        LongscaleError, match="Slurm still has 2 of its jobs; `make recover RESULTS="
    ):
        check_runs(tmp_path)
    (slurm / "queue").write_text("other 8\n")
    with pytest.raises(LongscaleError, match="Slurm has none of its jobs; `make recover RESULTS="):
        check_runs(tmp_path)
    monkeypatch.setenv(RECOVERING, "1")
    check_runs(tmp_path)


def test_a_process_with_the_same_id_is_another_one(killed):
    reused = replace(killed, pid=os.getpid())
    assert not reused.at_work
    assert not replace(Run.present("a", "/x", COMMAND), host="elsewhere").at_work


def test_a_run_that_ended_leaves_nothing_once_its_jobs_are_gone(slurm, killed, tmp_path):
    write_run(tmp_path, killed)
    (slurm / "queue").write_text("one 7\n")
    end_run(tmp_path, killed)
    assert read_runs(tmp_path) == [replace(killed, ended=True)]
    with pytest.raises(LongscaleError, match="Slurm still has 1 of its jobs"):
        check_runs(tmp_path)
    (slurm / "queue").write_text("")
    check_runs(tmp_path)
    assert not read_runs(tmp_path)
    write_run(tmp_path, killed)
    end_run(tmp_path, killed)
    assert not read_runs(tmp_path)


def test_recovering_cancels_the_jobs_of_all_killed_runs_and_no_others(slurm, killed, tmp_path):
    write_run(tmp_path, killed)
    write_run(tmp_path, replace(killed, name="two", started=killed.started + 1))
    (slurm / "queue").write_text("one 7\ntwo 8\nother 9\n")
    said = []
    assert recover(tmp_path, said.append).name == "two"
    assert (slurm / "cancelled").read_text().split() == ["7", "8"]
    assert (slurm / "queue").read_text() == "other 9\n"
    assert said[0] == "cancelling 2 jobs: 7 8"
    assert len(read_runs(tmp_path)) == 2  # until the caller has unlocked
    assert recover(tmp_path / "empty", said.append) is None


def test_of_another_machine_nobody_knows(slurm, killed, tmp_path):
    write_run(tmp_path, replace(killed, host="login2"))
    (slurm / "queue").write_text("one 7\n")
    with pytest.raises(
        LongscaleError, match=r"on login2. is at work there or did not end properly"
    ):
        check_runs(tmp_path)
    with pytest.raises(LongscaleError, match="may be at work there; recover it there"):
        recover(tmp_path, print)
    assert not (slurm / "cancelled").exists()
    assert recover(tmp_path, print, elsewhere=True).host == "login2"
    assert (slurm / "cancelled").read_text().split() == ["7"]


def test_a_job_that_does_not_end_is_told(slurm, killed, tmp_path):
    write_run(tmp_path, killed)
    (slurm / "queue").write_text("one 7\n")
    (slurm / "scancel").write_text("#!/bin/bash\n")
    with pytest.raises(LongscaleError, match="Slurm has not ended 7 in 0 s"):
        recover(tmp_path, print, patience_s=0)


def test_where_slurm_does_not_answer_nothing_starts(slurm, killed, tmp_path):
    check_runs(tmp_path)
    write_run(tmp_path, killed)
    (slurm / "broken").touch()
    with pytest.raises(LongscaleError, match=r"cannot be asked .*squeue: no controller"):
        check_runs(tmp_path)
    end_run(tmp_path, killed)
    assert read_runs(tmp_path)[0].ended


def test_a_record_that_cannot_be_read_is_named(tmp_path):
    records(tmp_path).mkdir()
    (records(tmp_path) / "a.json").write_text(json.dumps({"name": "a"}))
    with pytest.raises(LongscaleError, match=r"runs/a\.json: not the record of a run"):
        read_runs(tmp_path)


def test_where_a_command_line_was_given(tmp_path, monkeypatch):
    monkeypatch.setenv("PWD", "/somewhere")
    monkeypatch.chdir(tmp_path)
    assert started_in(["snakemake", "--jobs", "2"]) == str(tmp_path)
    for moved in (["-d", "x"], ["--directory", "x"], ["--directory=x"]):
        assert started_in(["snakemake", *moved]) == "/somewhere"
