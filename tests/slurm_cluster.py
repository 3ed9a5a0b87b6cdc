"""A real Slurm on this one machine, for tests: two nodes with two made-up GPUs each.

Needs root (Slurm's daemons run jobs as other users) and Debian's packages slurm-wlm and munge. The
configuration lies at /etc/slurm, because Slurm's clients look there once a job's environment is
stripped; one that is not from here is never touched. Every daemon is a child of this process and
is ended by its id.
"""

import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

NODES = ("longscale1", "longscale2")
GPUS = 2  # of each node
CPUS = 4  # of each node, whatever the machine has
MEMORY_MB = 8000  # of each node, likewise
PORT = 17100
TOOLS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scancel", "scontrol")
SYSTEM = Path("/etc/slurm")
PR_SET_PDEATHSIG = 1  # linux/prctl.h
MARK = "# Made by longscale's tests; removed when they end."

CONFIGURATION = """{mark}
ClusterName=longscale
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool.%n
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdLogFile={folder}/slurmd.%n.log
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog={folder}/prolog.sh
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=2,bf_interval=2
MpiDefault=none
MinJobAge=43200
JobRequeue={requeue}
ReturnToService=2
KillWait=2
SlurmdTimeout=3600
MessageTimeout=60
GresTypes=gpu
{nodes}
PartitionName=all Nodes={names} MaxTime=UNLIMITED State=UP
PartitionName=gpu Nodes={names} Default=YES MaxTime=UNLIMITED State=UP
"""
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus}"
    " RealMemory={memory} Gres=gpu:fake:{gpus} State=UNKNOWN"
)
# What every job step sees before it begins, one JSON object a line.
PROLOG = """#!/bin/bash
printf '{{"job": "%s", "step": "%s", "node": "%s", "visible": "%s", "granted": "%s"}}\\n' \\
    "$SLURM_JOB_ID" "$SLURM_STEP_ID" "$SLURMD_NODENAME" "${{CUDA_VISIBLE_DEVICES-unset}}" \\
    "${{SLURM_JOB_GPUS-${{SLURM_STEP_GPUS-}}}}" >> {folder}/steps.jsonl
"""


class SlurmError(Exception):
    """Slurm cannot be had here, or does not do what it should."""


def missing() -> str | None:
    """Why no cluster can be brought up here; None where it can."""
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    if os.geteuid() != 0:
        return "not root"
    if absent:
        return f"{', '.join(absent)} not found (Debian: apt-get install slurm-wlm munge)"
    file = SYSTEM / "slurm.conf"
    if file.exists() and MARK not in file.read_text():
        return f"{file} belongs to another cluster"
    with socket.socket() as controller:
        if controller.connect_ex(("127.0.0.1", PORT)) == 0:
            return f"the cluster of another test is at work (port {PORT})"
    return None


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60) -> object:
    """The first true value of `condition`; raises SlurmError where there is none in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise SlurmError(f"waited {seconds:g} s in vain: {what}")
        time.sleep(0.2)
    return value


def ask(*command: str) -> str:
    """What a client of Slurm prints; they hang where the controller is gone."""
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


def _end_with_parent() -> None:
    """In a daemon before it begins: where the tests are killed, it is ended, too."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass
class Cluster:
    """Daemons in `folder`, by name: munged, slurmctld and one per node."""

    folder: Path
    requeue: bool = True
    daemons: dict[str, subprocess.Popen] = field(default_factory=dict)

    def write_configuration(self) -> None:
        """The folder and /etc/slurm."""
        host = socket.gethostname().split(".")[0]
        for name in ("state", "dev", *(f"spool.{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True)
        for index in range(GPUS):
            os.mknod(self.folder / f"dev/gpu{index}", 0o20666, os.makedev(1, 3))
        nodes = [
            NODE.format(name=name, host=host, port=PORT + 1 + index, cpus=CPUS,
                        memory=MEMORY_MB, gpus=GPUS)
            for index, name in enumerate(NODES)
        ]  # fmt: skip
        SYSTEM.mkdir(exist_ok=True)
        names = ",".join(NODES)
        text = CONFIGURATION.format(
            mark=MARK,
            host=host,
            port=PORT,
            folder=self.folder,
            requeue=int(self.requeue),
            nodes="\n".join(nodes),
            names=names,
        )
        (SYSTEM / "slurm.conf").write_text(text)
        devices = f"{self.folder}/dev/gpu[0-{GPUS - 1}]"
        gres = f"NodeName={names} Name=gpu Type=fake File={devices}"
        (SYSTEM / "gres.conf").write_text(f"{MARK}\n{gres}\n")
        (SYSTEM / "cgroup.conf").write_text(f"{MARK}\nCgroupAutomount=no\n")
        prolog = self.folder / "prolog.sh"
        prolog.write_text(PROLOG.format(folder=self.folder))
        prolog.chmod(0o755)
        (self.folder / "munge.key").write_bytes(os.urandom(1024))
        (self.folder / "munge.key").chmod(0o400)

    def start(self) -> None:
        """All daemons, until both nodes are idle."""
        self.write_configuration()
        files = {
            "key-file": "munge.key", "socket": "munge.socket", "pid-file": "munge.pid",
            "log-file": "munge.log", "seed-file": "munge.seed",
        }  # fmt: skip
        options = [f"--{option}={self.folder / name}" for option, name in files.items()]
        self._spawn("munged", "munged", "--foreground", "--force", *options)
        wait_for((self.folder / "munge.socket").exists, "munged has no socket")
        self._spawn("slurmctld", "slurmctld", "-D", "-i")
        for node in NODES:
            self.start_node(node)
        wait_for(lambda: self._states() == {"idle"}, "the nodes are not idle")

    def _spawn(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("a") as out:
            self.daemons[name] = subprocess.Popen(
                command, stdout=out, stderr=out, preexec_fn=_end_with_parent
            )

    def _states(self) -> set[str]:
        try:
            return set(ask("sinfo", "--noheader", "--Node", "--format=%T").split())
        except subprocess.SubprocessError:
            return set()

    def start_node(self, node: str) -> None:
        """The daemon of a node."""
        self._spawn(node, "slurmd", "-D", "-N", node)

    def kill_node(self, node: str) -> None:
        """As if it were cut off: the daemon dies, Slurm is told, its jobs' processes go on."""
        self.daemons[node].kill()
        self.daemons[node].wait()
        ask("scontrol", "update", f"nodename={node}", "state=down", "reason=test")

    def revive_node(self, node: str) -> None:
        """Bring a killed node back."""
        self.start_node(node)
        wait_for(lambda: "down" not in self.state_of(node), f"{node} does not come back")

    def state_of(self, node: str) -> str:
        """State of a node, as sinfo says it."""
        return ask("sinfo", "--noheader", "--nodes", node, "--format=%T").splitlines()[0]

    def jobs(self) -> dict[str, dict[str, str]]:
        """All jobs that there have been, by id: what `scontrol show job` tells, field by field."""
        text = ask("scontrol", "show", "job", "--details", "--oneliner")
        rows = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in text.splitlines()]
        return {row["JobId"]: row for row in rows if "JobId" in row}

    def steps(self) -> list[dict[str, str]]:
        """What each job step saw when it began."""
        path = self.folder / "steps.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def stop(self) -> None:
        """Cancel what is left, end each daemon by its id, and take the configuration away."""
        try:
            ask("scancel", "--user=root", "--signal=KILL")
            wait_for(lambda: not ask("squeue", "--noheader"), "jobs do not end", 20)
        except (subprocess.SubprocessError, SlurmError):
            pass  # a controller that a test has broken: what the daemons leave is ended below
        for daemon in reversed(self.daemons.values()):
            daemon.send_signal(signal.SIGTERM)
        for daemon in self.daemons.values():
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for name in ("slurm.conf", "gres.conf", "cgroup.conf"):
            (SYSTEM / name).unlink(missing_ok=True)


@contextmanager
def cluster(folder: Path, *, requeue: bool = True) -> Iterator[Cluster]:
    """A running cluster whose files lie in `folder` (absent or empty); gone at the end.

    `requeue`: it starts jobs of a lost node again by itself, minutes later, as most clusters do.
    """
    reason = missing()
    if reason:
        raise SlurmError(reason)
    folder.mkdir(parents=True, exist_ok=True)
    made = Cluster(folder, requeue)
    try:
        made.start()
        yield made
    finally:
        made.stop()
