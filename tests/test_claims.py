"""Claims: of two processes that would write the same files, the later one goes on alone."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from conftest import ROOT

from longscale import claims
from longscale.claims import LOST, claim
from longscale.runs import process_started

HOLD = """
import signal, sys, time
from longscale import claims
claims.LOOK_S, claims.END_S, claims.WAIT_S = 0.1, 0.5, 1.0
if sys.argv[3] == "stubborn":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
with claims.claim(sys.argv[1], print):
    for number in range(600):
        with open(sys.argv[2], "a") as out:
            out.write(sys.argv[3] + "\\n")
        time.sleep(0.05)
"""


@pytest.fixture
def quick(monkeypatch):
    """Waits of tenths of seconds."""
    for name, seconds in {"LOOK_S": 0.1, "END_S": 0.5, "WAIT_S": 1.0}.items():
        monkeypatch.setattr(claims, name, seconds)


@pytest.fixture
def holder(tmp_path):
    """Start a process that holds the claim and writes."""
    started = []

    def start(kind):
        command = [sys.executable, "-c", HOLD, tmp_path / "a.claim", tmp_path / "out", kind]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow/scripts")}
        started.append(subprocess.Popen(list(map(str, command)), env=environment))
        wait_for(lambda: (tmp_path / "out").exists())
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_for(condition):
    """Until it is true."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_claim_is_there_while_it_is_held(tmp_path):
    path = tmp_path / "logs" / "a.claim"
    with claim(path, print):
        found = json.loads(path.read_text())
        assert found["pid"] == os.getpid()
        assert found["started"] == process_started(os.getpid())
    assert not path.exists()


@pytest.mark.parametrize("kind", ["willing", "stubborn"])
def test_the_earlier_process_ends_before_the_later_one_writes(tmp_path, holder, quick, kind):
    process, said = holder(kind), []
    with claim(tmp_path / "a.claim", said.append):
        lines = len((tmp_path / "out").read_text().splitlines())
        code = process.wait(timeout=10)
        assert code in (LOST, -signal.SIGINT, 1) if kind == "willing" else code == LOST
        time.sleep(0.2)
        assert len((tmp_path / "out").read_text().splitlines()) == lines
    assert said == [
        f"process {process.pid} on {socket.gethostname()} may still write here: waiting"
    ]
    assert not (tmp_path / "a.claim").exists()


def test_a_process_that_slept_while_its_successor_came_and_went_ends(tmp_path, holder):
    process = holder("willing")
    process.send_signal(signal.SIGSTOP)
    (tmp_path / "a.claim").unlink()  # what the successor does at its end
    process.send_signal(signal.SIGCONT)
    assert process.wait(timeout=10) in (LOST, -signal.SIGINT, 1)
    assert not (tmp_path / "a.claim").exists()


def test_a_process_goes_on_where_a_user_clears_the_logs_away(tmp_path, quick):
    path = tmp_path / "logs" / "a.claim"
    with claim(path, print):
        path.unlink()
        path.parent.rmdir()
        time.sleep(0.5)


def test_nobody_waits_for_the_dead(tmp_path, holder):
    process, said = holder("willing"), []
    process.kill()
    process.wait()
    assert (tmp_path / "a.claim").exists()
    with claim(tmp_path / "a.claim", said.append):
        pass
    assert said == []


def test_of_another_machine_nobody_knows(tmp_path, quick):
    other = {"mark": "x", "host": "elsewhere", "pid": 1, "started": 1}
    (tmp_path / "a.claim").write_text(json.dumps(other))
    said, started = [], time.monotonic()
    with claim(tmp_path / "a.claim", said.append):
        assert time.monotonic() - started >= claims.WAIT_S
    assert said == ["process 1 on elsewhere may still write here: waiting"]


@pytest.mark.parametrize("left", ["", "half {", "[]", '{"mark": "x"}'])
def test_a_claim_that_cannot_be_read_is_none(tmp_path, left):
    (tmp_path / "a.claim").write_text(left)
    with claim(tmp_path / "a.claim", print):
        pass
