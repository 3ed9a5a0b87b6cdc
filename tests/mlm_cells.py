"""Score files of the masked-LM branch with made-up losses and guesses."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from longscale.evaluation.mlm_scores import MLMCell, write_mlm_scores


def targets(documents=15, seed=0):
    """Between 4 and 12 targets in each document."""
    numbers = np.random.default_rng(seed)
    rows = [
        (f"document {document}", int(target), int(numbers.integers(5, 99)))
        for document in range(documents)
        for target in np.sort(numbers.choice(5000, numbers.integers(4, 13), replace=False))
    ]
    return pd.DataFrame(rows, columns=["document", "target", "token"])


def arm(frame, accuracy, seed):
    """Losses and guesses of one arm, right with probability `accuracy`."""
    numbers = np.random.default_rng(seed)
    loss = numbers.exponential(1 - math.log(accuracy), len(frame)).astype("float32")
    return frame.assign(loss=loss, correct=numbers.random(len(frame)) < accuracy)


def cell_writer(root: Path) -> Callable[..., MLMCell]:
    """study({(scheme, rule): frame of `arm`}, ...) writes one score file and gives its cell."""

    def write(
        arms,
        *,
        corpus="c",
        model="m",
        train_length=64,
        attention="dot",
        trained_scheme="rope",
        seed=1,
        protocol="fixed-target",
        length=64,
        **provenance,
    ):
        folder = root / f"{corpus}/{model}/{train_length}/{attention}/{trained_scheme}"
        path = folder / f"seed{seed}/{protocol}/{length}.parquet"
        parts = [rows.assign(scheme=scheme, rule=rule) for (scheme, rule), rows in arms.items()]
        defaults = {"flags": [], "arm_flags": {}, "not_run": {}}
        empty = targets(1).iloc[:0].assign(scheme="", rule="", loss=0.0, correct=False)
        write_mlm_scores(pd.concat(parts or [empty]), path, defaults | provenance)
        return MLMCell.from_path(path)

    return write
