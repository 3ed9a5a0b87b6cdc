"""Context extension: input length x model context, the form of the benchmark paper's Table 2.

A model reads inputs beyond the length that it was trained on as it is, with NTK-aware rescaling of
its rotary base, or after further training on a longer context; each of these with every length
rule. The question that the table answers: does a rule help where rescaling alone does not?
"""

import math
import re
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from longscale.evaluation.compare import SeedDraws, difference, interval_text
from longscale.evaluation.lrb_table import (
    CELL_COLUMNS,
    HEADLINES,
    ProbeCell,
    TaskFiles,
    draw_task_blocks,
    measure_probe,
    predicted_rows,
    read_record,
    single_labels,
)
from longscale.evaluation.probe_metrics import Measured

PRETRAINED = "pretrained"
EXTENSION_COLUMNS = [
    *("task", "metric", "model", "model_context", "scaling", "rule", "context_bp"),
    *("folds", "value", "value_lo", "value_hi"),
    *("rule_delta", "rule_delta_lo", "rule_delta_hi", "rule_verdict"),
    *("published", "ceiling", "n", "flags"),
]
NO_DIFFERENCE = dict.fromkeys(("delta", "delta_lo", "delta_hi"), math.nan) | {"verdict": ""}


class FurtherTrained(NamedTuple):
    """Of which model a model is a further training, and on what context, in bp."""

    model: str
    context_bp: int


def build_extension_table(
    table: pd.DataFrame,
    cells: Iterable[ProbeCell] = (),
    tasks: Mapping[str, TaskFiles] | None = None,
    *,
    further_trained: Mapping[str, FurtherTrained] | None = None,
    block_bp: int = 1_000_000,
    resamples: int = 2000,
    seed: int = 1,
) -> pd.DataFrame:
    """The rows of the LRB table that tell of context extension: columns `EXTENSION_COLUMNS`.

    Rows are the headline metrics at a known input length (`context_bp`) of the models that have an
    arm with a rule, with a scaling, or with further training. `model_context` is `pretrained`, or
    `extended-{bp}` where the model was trained further on that context; `scaling` is `none` or
    `ntk` (at lengths up to the trained one both are the same). Published numbers are those of NTK
    scaling.

    `rule_delta` is the paired difference to the rule `none` of the same model, context, scaling and
    input length, on the same test rows and folds, with its 95% interval (bootstrap over folds and
    genomic blocks); `rule_verdict` is `better`, `worse` or `unresolved`, of `none` itself
    `baseline`, and empty where there is nothing to compare with.

    Args:
        table: what `build_lrb_table` made, or `read_lrb_table` read.
        cells: the probes that it was made of, for the differences; without them there are none.
        tasks: rows and labels of their tasks.
        further_trained: model -> what it is a further training of. Such a model stands under the
            other's name.
        block_bp: as `build_lrb_table` had it.
        resamples: the same.
        seed: the same.
    """
    further_trained = further_trained or {}
    known = table["context_bp"].fillna(0) > 0
    rows = table[table["metric"].isin(HEADLINES) & known].copy()
    deltas = _rule_deltas(cells, tasks or {}, block_bp, resamples, seed)
    places = rows[CELL_COLUMNS].itertuples(index=False, name=None)
    found = [deltas.get(place, NO_DIFFERENCE) for place in places]
    for name in NO_DIFFERENCE:
        rows[f"rule_{name}"] = [of_row[name] for of_row in found]
    contexts = [
        model_context(*pair, further_trained)
        for pair in zip(rows["model"], rows["extension"], strict=True)
    ]
    rows[["model", "model_context", "scaling"]] = np.array(contexts, object).reshape(-1, 3)
    arm = (
        (rows["model_context"] != PRETRAINED)
        | (rows["scaling"] != "none")
        | (rows["rule"] != "none")
    )
    concerned = arm.groupby([rows["task"], rows["model"]]).transform("any")
    order = {"context": rows["model_context"].map(_context_order), "other": rows["rule"] != "none"}
    by = ["task", "metric", "published", "model", "context", "scaling", "context_bp", "other"]
    ordered = rows.assign(**order)[concerned].sort_values(by, kind="stable", ignore_index=True)
    return ordered[EXTENSION_COLUMNS]


def build_table_2(extension: pd.DataFrame) -> pd.DataFrame:
    """Input length x model context, as text: `0.730 [0.721, 0.739]`, with ` *` where there are
    flags.

    `extension` is what `build_extension_table` made. A row per task, metric, model, scaling, rule
    and `context_bp` (the input length), and a column per model context: `pretrained`, then
    `extended-{bp}` from the shortest to the longest. Published rows have `published` 1.
    """
    by = ["task", "metric", "published", "model", "scaling", "rule", "context_bp"]
    if extension.empty:
        return pd.DataFrame(columns=[*by, PRETRAINED])
    wide = (
        extension.assign(text=extension.apply(interval_text, axis=1, metric="value"))
        .set_index([*by, "model_context"])["text"]
        .unstack("model_context", fill_value="")
        .rename_axis(columns=None)
    )
    return wide[sorted(wide.columns, key=_context_order)].reset_index()


def model_context(
    model: str, extension: str, further_trained: Mapping[str, FurtherTrained]
) -> tuple[str, str, str]:
    """Model, model context and scaling of a cell of `model` with `extension`.

    An extension `extended-{bp}`, as published rows have it, is further training with NTK scaling.
    """
    if re.fullmatch(r"extended-\d+", extension):
        return model, extension, "ntk"
    if model in further_trained:
        base, context_bp = further_trained[model]
        return base, f"extended-{context_bp}", extension
    return model, PRETRAINED, extension


def _context_order(name: str) -> int:
    """`pretrained` before the lengths, as numbers."""
    return 0 if name == PRETRAINED else int(name.removeprefix("extended-"))


# ------------------------------------------------------------------------- differences of rules


def _rule_deltas(
    cells: Iterable[ProbeCell],
    tasks: Mapping[str, TaskFiles],
    block_bp: int,
    resamples: int,
    seed: int,
) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Place of a cell -> its columns; groups of one rule alone are not measured."""

    def group(cell: ProbeCell) -> tuple[Any, ...]:
        return cell.task, cell.model, cell.context_bp, cell.extension

    with_probe = [cell for cell in cells if (cell.path / "folds.json").exists()]
    found = {}
    for _, same in groupby(sorted(with_probe, key=group), group):
        by_rule = {cell.rule: cell for cell in same}
        if len(by_rule) > 1 and "none" in by_rule:
            found |= _deltas_of_group(by_rule, tasks, block_bp, resamples, seed)
    return found


def _deltas_of_group(
    by_rule: Mapping[str, ProbeCell],
    tasks: Mapping[str, TaskFiles],
    block_bp: int,
    resamples: int,
    seed: int,
) -> dict[tuple[Any, ...], dict[str, Any]]:
    task = by_rule["none"].task
    seed_draws = SeedDraws(resamples, seed, task)
    runs: dict[tuple[str], dict[int, Measured]] = {}
    rows: dict[str, np.ndarray] = {}
    for rule, cell in by_rule.items():
        rows[rule], runs[(rule,)] = _headline_runs(cell, tasks[task], block_bp, resamples, seed)
    return {
        cell.place(): difference((rule,), ("none",), runs, seed_draws)
        for rule, cell in by_rule.items()
        if np.array_equal(rows[rule], rows["none"])
    }


def _headline_runs(
    cell: ProbeCell, files: TaskFiles, block_bp: int, resamples: int, seed: int
) -> tuple[np.ndarray, dict[int, Measured]]:
    """Test rows of a cell, and its headline metric by fold."""
    record = read_record(cell)
    numbers = predicted_rows(cell)
    task_rows = pd.read_parquet(files.rows, columns=["row", "contig", "anchor", "split"])
    labels = single_labels(files, record, numbers)
    draw = (cell.task, block_bp, resamples, seed)
    draws = draw_task_blocks(*draw, task_rows, numbers, labels)
    runs, _ = measure_probe(cell, files, record, draws)
    return numbers, next(runs[metric] for metric in HEADLINES if metric in runs)
