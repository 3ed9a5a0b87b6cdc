"""Does an arm, chosen on development documents, beat the best published one on test documents?

On a dot-product checkpoint trained with RoPE (the case of every pretrained model) the reference at
a length is the best listed scheme with InfoScale. Against it stand the best arm of listed schemes,
with any rule, and the best arm of all, ours included. All three are chosen by their accuracy under
the protocol `selection`; only their difference under `fixed-target` is reported.
"""

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from longscale.attention.positions import POSITION_SCHEMES
from longscale.evaluation.compare import SeedDraws, difference
from longscale.evaluation.mlm_scores import MLMCell
from longscale.evaluation.mlm_table import BASELINE, Arm, Length, certainties, read_length

CHOICE_COLUMNS = [
    *("corpus", "model", "train_length", "length", "candidates", "scheme", "rule"),
    *("accuracy", "loss", "against_scheme", "against_rule", "against_accuracy", "against_loss"),
    *("seeds", "documents", "n", "delta", "delta_lo", "delta_hi", "verdict"),
    *("loss_delta", "loss_delta_lo", "loss_delta_hi", "loss_verdict"),
]
REFERENCE_RULE = "infoscale"


def build_choice_table(
    cells: Iterable[MLMCell],
    *,
    resamples: int = 2000,
    seed: int = 1,
    report: Callable[[str], None] = print,
) -> pd.DataFrame:
    """One row per corpus, model, training length, length and set of candidates (`listed`, `all`):
    the columns `CHOICE_COLUMNS`, from score files of both protocols.

    Lengths without both protocols, and the training length itself, have no row. Intervals and
    verdicts are those of `mlm_table.build_mlm_table`; a difference uses the seeds that both have.
    """
    of_dot = [
        cell
        for cell in cells
        if (cell.attention, cell.trained_scheme) == BASELINE[:2]
        and cell.length > cell.train_length
        and cell.protocol in ("selection", "fixed-target")
    ]
    place = lambda cell: (cell.corpus, cell.model, cell.train_length, cell.length)  # noqa: E731
    rows = []
    for where, group in groupby(sorted(of_dot, key=lambda c: (*place(c), c.seed)), key=place):
        by_protocol = {name: [] for name in ("selection", "fixed-target")}
        for cell in group:
            by_protocol[cell.protocol].append(cell)
        if not all(by_protocol.values()):
            continue
        chosen_on = read_length(by_protocol["selection"], None, resamples, seed)
        reported_on = read_length(by_protocol["fixed-target"], None, resamples, seed)
        draws = SeedDraws(resamples, seed, where[0], "fixed-target")
        shared = dict(zip(CHOICE_COLUMNS[:4], where, strict=True))
        found = _choose(chosen_on, reported_on, draws)
        rows += [shared | row for row in found]
        report(f"{' '.join(map(str, where))}: {len(found)} choices")
    return pd.DataFrame(rows, columns=CHOICE_COLUMNS)


def _choose(chosen_on: Length, reported_on: Length, draws: SeedDraws) -> list[dict[str, Any]]:
    known = [arm for arm in chosen_on.runs if arm in reported_on.runs]
    listed = [arm for arm in known if not POSITION_SCHEMES[arm[2]].ours]
    references = [arm for arm in listed if arm[3] == REFERENCE_RULE]
    if not references:
        return []
    against = _best(references, chosen_on)
    candidates = {"listed": listed, "all": known}
    return [
        {"candidates": name} | _compare(_best(arms, chosen_on), against, reported_on, draws)
        for name, arms in candidates.items()
    ]


def _best(arms: list[Arm], read: Length) -> Arm:
    """The arm of the highest accuracy; among equals that of the lowest loss."""
    accuracy = {arm: np.mean([run.value for run in read.runs[arm].values()]) for arm in arms}
    loss = {arm: np.mean([run.loss for run in read.runs[arm].values()]) for arm in arms}
    return max(sorted(arms), key=lambda arm: (accuracy[arm], -loss[arm]))


def _compare(arm: Arm, against: Arm, read: Length, draws: SeedDraws) -> dict[str, Any]:
    by_loss = difference(arm, against, certainties(read.runs, arm, against), draws)
    means = {
        f"{prefix}{name}": float(np.mean([getattr(r, key) for r in read.runs[of].values()]))
        for prefix, of in (("", arm), ("against_", against))
        for name, key in (("accuracy", "value"), ("loss", "loss"))
    }
    return means | {
        "scheme": arm[2],
        "rule": arm[3],
        "against_scheme": against[2],
        "against_rule": against[3],
        "seeds": len(read.runs[arm].keys() & read.runs[against].keys()),
        "documents": len(read.targets.documents),
        "n": len(read.targets.rows),
        **difference(arm, against, read.runs, draws),
        "loss_delta": 0.0 - by_loss["delta"],
        "loss_delta_lo": 0.0 - by_loss["delta_hi"],
        "loss_delta_hi": 0.0 - by_loss["delta_lo"],
        "loss_verdict": by_loss["verdict"],
    }
