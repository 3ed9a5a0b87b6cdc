"""What a masked-LM training leaves beside its checkpoint: its loss curve and measurements.

Every reader takes the place of the training from the file's path (see `MLMTraining`), and its
frames start with the columns `PLACE`; `scheme` is the trained one.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import astuple
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from longscale.errors import LongscaleError
from longscale.evaluation.mlm_scores import MLMTraining

PLACE = ["corpus", "model", "train_length", "attention", "scheme", "seed"]
ENTROPY_COLUMNS = ["layer", "length", "rule", "entropy"]
COSINE_COLUMNS = [
    *("alpha", "layer", "peak", "weighted_peak", "weighted_mean", "theory_mode", "theory_mean")
]


def read_histories(paths: Iterable[str | Path]) -> pd.DataFrame:
    """Read the loss curves of `training.json` files: columns `PLACE`, step, loss, dev_loss (nats).

    A row holds the loss of training or that on development text; the other is NaN.

    Raises:
        LongscaleError: a file is not JSON with a list `history` of rows with `step`.
    """
    rows = []
    for path in paths:
        place = astuple(MLMTraining.from_path(path))
        try:
            history = json.loads(Path(path).read_text())["history"]
            curve = [
                (
                    row["step"],
                    float(row.get("loss", math.nan)),
                    float(row.get("eval_loss", math.nan)),
                )
                for row in history
                if "loss" in row or "eval_loss" in row
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LongscaleError(
                f"{path}: 'history' must be a list of rows with step and loss, as a training "
                f"writes it ({type(error).__name__}: {error})"
            ) from error
        rows += [(*place, *point) for point in curve]
    return pd.DataFrame(rows, columns=[*PLACE, "step", "loss", "dev_loss"])


def read_measurements(paths: Iterable[str | Path], columns: Sequence[str]) -> pd.DataFrame:
    """Read TSV files of measurements on checkpoints: columns `PLACE`, then `columns`.

    Raises:
        LongscaleError: a file lacks one of `columns`, or is no TSV.
    """
    parts = [pd.DataFrame(columns=[*PLACE, *columns])]
    for path in paths:
        place = dict(zip(PLACE, astuple(MLMTraining.from_path(path)), strict=True))
        try:
            part = pd.read_csv(path, sep="\t", keep_default_na=False, na_values=["", "nan"])
        except (OSError, ValueError) as error:
            raise LongscaleError(f"{path}: not a readable TSV ({error})") from error
        missing = [name for name in columns if name not in part.columns]
        if missing:
            raise LongscaleError(
                f"{path}: column {missing[0]!r} is missing, it must have {', '.join(columns)}"
            )
        parts.append(part[list(columns)].assign(**place)[[*PLACE, *columns]])
    return pd.concat(parts[1:] or parts, ignore_index=True)


def read_maps(path: str | Path) -> dict[str, np.ndarray]:
    """Read the query-key maps of a checkpoint: `before` and `after` RoPE, (layers, n, n) each.

    Raises:
        LongscaleError: the file is not an npz of these two arrays with equal shapes.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            maps = {name: stored[name] for name in ("before", "after")}
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise LongscaleError(
            f"{path}: not a readable npz with the arrays before and after ({error})"
        ) from error
    before, after = maps["before"], maps["after"]
    if before.ndim != 3 or before.shape != after.shape or before.shape[1] != before.shape[2]:
        raise LongscaleError(
            f"{path}: before {before.shape} and after {after.shape} must both be (layers, n, n)"
        )
    return maps
