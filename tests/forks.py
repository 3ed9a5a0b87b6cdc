"""Real processes without the seconds that imports cost: forks of the test's own."""

import multiprocessing
import os
import socket

from accelerate.state import AcceleratorState, GradientState


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def as_rank(rank, count, port, function):
    """What torchrun tells a process; what accelerate knew of this one is forgotten."""
    if count > 1:
        places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
        os.environ.update({key: str(value) for key, value in (places | meeting).items()})
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
    function()


def run_forked(function, count=1):
    """Call `function()` in `count` processes that can train together; their exit codes."""
    context, port = multiprocessing.get_context("fork"), free_port()
    ranks = [
        context.Process(target=as_rank, args=(rank, count, port, function)) for rank in range(count)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
    return [process.exitcode for process in ranks]
