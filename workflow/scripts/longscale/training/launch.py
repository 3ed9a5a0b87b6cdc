"""One function in several processes that train together, started by torchrun.

Where nothing else is said, the processes are on this machine. Those of a Slurm job can be on
several nodes: srun starts torchrun on each. Without Slurm, torchrun takes each of its options from
the environment, too (PET_NNODES, PET_RDZV_BACKEND, PET_RDZV_ENDPOINT, ...): with these set, and the
same call on each node, they are on several.
"""

import importlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from longscale.errors import LongscaleError
from longscale.files import atomic_path
from longscale.threads import use_threads

ON_SEVERAL_NODES = "PET_RDZV_ENDPOINT"


def launch(
    function: Callable[..., None],
    arguments: dict,
    *,
    processes: int,
    threads: int,
    report: Callable[[str], None],
    nodes: int = 1,
    shared: str | Path | None = None,
) -> None:
    """`function(**arguments, report=report)` in `processes` processes of `threads` threads each; in
    this one where it is one.

    They are spread evenly over `nodes` nodes of the Slurm job that this process is in; `shared` is
    then a folder that all of them see. `arguments` are what JSON can hold; `function` can be
    imported by its name. What the first process reports is passed on as it comes. A
    `LongscaleError` of a process is raised here, and any other failure as
    `subprocess.CalledProcessError`, its traceback on stderr. Processes whose parent is gone end at
    the next line that they report.
    """
    if processes == 1 and ON_SEVERAL_NODES not in os.environ:
        function(**arguments, report=report)
        return
    if processes % nodes:
        raise LongscaleError(
            f"{processes} processes cannot be spread evenly over {nodes} nodes (finetune.processes,"
            " finetune.nodes)"
        )
    if nodes > 1 and shared:
        Path(shared).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=shared if nodes > 1 else None) as folder:
        job = Path(folder) / "job.json"
        name = [function.__module__, function.__qualname__]
        job.write_text(json.dumps({"function": name, "threads": threads, "arguments": arguments}))
        try:
            _run([*_on_each(nodes), *_torchrun(processes, job, nodes)], report)
        except subprocess.CalledProcessError:
            if _mistake(job).exists():
                raise LongscaleError(_mistake(job).read_text()) from None
            raise
    if torch.cuda.is_available():
        torch.zeros(1, device="cuda")  # a log's last line names the device of its own process


def _torchrun(processes: int, job: Path, nodes: int = 1) -> list[str]:
    if nodes > 1:
        meeting = f"{socket.gethostname()}:{_free_port()}"
        where = [f"--nnodes={nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={meeting}"]
    else:
        where = [] if ON_SEVERAL_NODES in os.environ else ["--standalone"]
    command = [sys.executable, "-m", "torch.distributed.run", *where]
    return [*command, f"--nproc-per-node={processes // nodes}", "--module", __name__, str(job)]


def _on_each(nodes: int) -> list[str]:
    """What runs a command once on each node of this Slurm job, beside this step of it."""
    if nodes == 1:
        return []
    if "SLURM_JOB_ID" not in os.environ:
        raise LongscaleError(
            f"finetune.nodes is {nodes}, but this is no job of Slurm (docs/slurm.md); set it to 1"
        )
    return ["srun", "--overlap", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1",
            "--kill-on-bad-exit=1"]  # fmt: skip


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("", 0))
        return listening.getsockname()[1]


def _run(command: list[str], report: Callable[[str], None]) -> None:
    """Run to the end, each line of stdout reported; what interrupts this ends the command, too."""
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as running:
        try:
            for line in running.stdout:
                report(line.rstrip("\n"))
        except BaseException:
            running.terminate()
            raise
    if running.returncode:
        raise subprocess.CalledProcessError(running.returncode, command)


def _mistake(job: Path) -> Path:
    """Where a process leaves the sentence of its LongscaleError."""
    return job.with_name("mistake.txt")


def _work(job: Path) -> None:
    """What each process does with the call that `launch` has written down."""
    call = json.loads(job.read_text())
    use_threads(call["threads"])
    module, name = call["function"]
    is_first = os.environ["RANK"] == "0"
    try:
        getattr(importlib.import_module(module), name)(
            **call["arguments"],
            report=lambda line: print(line, flush=True) if is_first else None,
        )
    except LongscaleError as error:
        with atomic_path(_mistake(job)) as part:
            part.write_text(str(error))
        sys.exit(1)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    _work(Path(sys.argv[1]))
