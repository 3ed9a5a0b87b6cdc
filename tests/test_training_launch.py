"""One function in several processes: the real torchrun, and what becomes of mistakes and kills."""

import os
import signal
import subprocess
import time

import launched
import pytest
from conftest import ROOT
from forks import run_forked

from longscale.errors import LongscaleError
from longscale.training.launch import _on_each, _torchrun, launch

TWO = {"processes": 2, "threads": 1}


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """`launched`, in the processes of torchrun."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))


def test_one_process_is_this_one():
    heard = []
    launch(
        lambda report, value: report(value),
        {"value": heard},
        processes=1,
        threads=1,
        report=lambda value: value.append(os.getpid()),
    )
    assert heard == [os.getpid()]


def test_the_environment_can_name_a_meeting_point_of_several_nodes(monkeypatch, tmp_path):
    assert "--standalone" in _torchrun(4, tmp_path)
    monkeypatch.setenv("PET_RDZV_ENDPOINT", "node1:29500")
    assert "--standalone" not in _torchrun(4, tmp_path)
    assert "--nproc-per-node=4" in _torchrun(4, tmp_path)


def test_on_several_nodes_srun_starts_torchrun_on_each(tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    command = _torchrun(8, tmp_path, nodes=2)
    assert {"--nnodes=2", "--nproc-per-node=4", "--rdzv-backend=c10d"} <= set(command)
    assert "--standalone" not in command
    assert _on_each(1) == []
    with pytest.raises(LongscaleError, match=r"nodes is 2, but this is no job of Slurm"):
        _on_each(2)
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    assert {"srun", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1"} <= set(_on_each(2))
    with pytest.raises(LongscaleError, match="3 processes cannot be spread evenly over 2 nodes"):
        launch(launched.tell, {}, processes=3, threads=1, nodes=2, report=print)


@pytest.mark.e2e
def test_all_are_called_and_the_first_is_heard(tmp_path):
    lines = []
    arguments = {"folder": str(tmp_path), "words": {"text": "ä b"}}
    launch(launched.tell, arguments, processes=2, threads=3, report=lines.append)
    assert lines == ["0 says ä b"]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"0": "2 3", "1": "2 3"}


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("kind", "error"),
    [("user", pytest.raises(LongscaleError, match=r"^no such row$")),
     ("code", pytest.raises(subprocess.CalledProcessError))],
    ids=["user", "code"],
)  # fmt: skip
def test_a_mistake_in_one_process_ends_all_and_is_told_here(kind, error):
    lines, started = [], time.monotonic()
    with error:
        launch(launched.err, {"kind": kind}, **TWO, report=lines.append)
    assert time.monotonic() - started < 55  # the first one would have slept for longer
    assert lines == ["begun"]


@pytest.mark.e2e
def test_processes_end_when_the_one_that_started_them_was_killed(tmp_path):
    """Else a second start would write into the same folder as they do."""

    def listen_once():
        die = lambda line: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
        launch(launched.go_on, {"folder": str(tmp_path)}, **TWO, report=die)

    assert run_forked(listen_once) == [-signal.SIGKILL]
    deadline = time.monotonic() + 60
    while any(is_running(int(path.read_text())) for path in tmp_path.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert "0" in {path.name for path in tmp_path.iterdir()}


def is_running(pid):
    """Whether there is such a process that is not merely waiting to be counted."""
    try:
        with open(f"/proc/{pid}/stat") as handle:  # noqa: PTH123
            return handle.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
