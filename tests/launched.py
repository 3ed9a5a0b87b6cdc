"""What test_training_launch.py has torchrun call."""

import os
import time
from pathlib import Path

import torch

from longscale.errors import LongscaleError


def tell(report, folder, words):
    """Each process leaves what it is; the first is heard."""
    rank = os.environ["RANK"]
    (Path(folder) / rank).write_text(f"{os.environ['WORLD_SIZE']} {torch.get_num_threads()}")
    report(f"{rank} says {words['text']}")


def err(report, kind):
    """A mistake of the user, or one of the code, in the second process alone."""
    report("begun")
    if os.environ["RANK"] == "1":
        raise LongscaleError("no such row") if kind == "user" else KeyError("no such row")
    time.sleep(60)


def go_on(report, folder):
    """Until nobody listens."""
    (Path(folder) / os.environ["RANK"]).write_text(str(os.getpid()))
    while True:
        report("still here")
        time.sleep(0.1)
