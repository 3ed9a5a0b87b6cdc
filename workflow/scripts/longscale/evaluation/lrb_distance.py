"""AUROC by tissue and by distance to the nearest transcription start site (TSS).

How far a variant lies from the next TSS decides how far a model must look to see what it acts on,
so one AUROC over all of them hides where a long context helps.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from longscale.evaluation.compare import SeedDraws, interval, join_flags, ordered_cells
from longscale.evaluation.lrb_table import (
    CELL_COLUMNS,
    LRB_FLAGS,
    REGRESSION,
    ProbeCell,
    TaskFiles,
    draw_task_blocks,
    read_parts,
    read_record,
)
from longscale.evaluation.probe_metrics import measure_auroc
from longscale.tasks.gene_starts import BUCKET_EDGES_BP, bucket_names, distance_buckets

ALL, UNKNOWN = "all", "unknown"
DISTANCE_COLUMNS = [
    *CELL_COLUMNS,
    *("metric", "tissue", "tss_distance", "folds", "n", "positives"),
    *("auroc", "auroc_lo", "auroc_hi", "flags"),
]


def build_distance_table(
    cells: Iterable[ProbeCell],
    tasks: Mapping[str, TaskFiles],
    *,
    edges: tuple[int, ...] = BUCKET_EDGES_BP,
    block_bp: int = 1_000_000,
    resamples: int = 2000,
    seed: int = 1,
    report: Callable[[str], None] = print,
) -> pd.DataFrame:
    """AUROC of each cell within each tissue, each bucket of distance to the nearest TSS, and both.

    Columns `DISTANCE_COLUMNS`. `tissue` and `tss_distance` (in bp, whatever its sign, e.g.
    `1000-2999`) are `all` where they do not matter; distances that nobody knows are `unknown`.
    Groups without a row are absent. `metric`, `folds` and the intervals are as in
    `lrb_table.build_lrb_table`; a group's interval draws the blocks in which it has rows. Cells of
    a regression or with several outputs have no rows.

    Args:
        cells: folders of probes, in any order.
        tasks: rows and labels of each of their tasks.
        edges: starts of the buckets in bp, rising from 0; the last one is open.
        block_bp: length of a block, in bp.
        resamples: number of draws.
        seed: seed of the draws.
        report: takes one line per cell.
    """
    found: list[dict[str, Any]] = []
    for cell in ordered_cells(cells, ProbeCell.place):
        files = tasks[cell.task]
        rows = pd.read_parquet(
            files.rows, columns=["row", "contig", "anchor", "split", "tissue", "tss_distance"]
        ).set_index("row", drop=False)
        place = dict(zip(CELL_COLUMNS, cell.place(), strict=True))
        for metric, numbers, labels, scores in _scored(cell, files):
            groups = _groups(rows.loc[numbers], edges)
            for names, inside in groups:
                own = rows.loc[numbers[inside]]
                draw = (cell.task, block_bp, resamples, seed)
                row = _measure(own, labels[inside], scores[:, inside], draw)
                folds = len(scores) if metric == "auroc" else 0
                found.append(place | {"metric": metric, **names, "folds": folds} | row)
            report(f"{cell.task} {cell.model}, {cell.context_bp:,} bp: {metric} by distance to TSS")
    return pd.DataFrame(found, columns=DISTANCE_COLUMNS)


def _scored(
    cell: ProbeCell, files: TaskFiles
) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Metric, numbers (rows,), labels (rows,) and scores (folds, rows) of a task of two classes."""
    if (cell.path / "folds.json").exists():
        record = read_record(cell)
        if record["kind"] not in REGRESSION and len(record["outputs"]) == 1:
            (part,) = read_parts(cell, files, record)
            yield "auroc", part.row, part.labels[:, 0], part.predictions[:, :, 0]
    if (cell.path / "zero_shot.parquet").exists():
        scores = pd.read_parquet(cell.path / "zero_shot.parquet")
        numbers = scores["row"].to_numpy()
        labels = np.load(files.labels, mmap_mode="r", allow_pickle=False)[numbers, 0]
        for name in scores.columns.drop("row"):
            yield f"auroc_{name}", numbers, labels, scores[[name]].to_numpy().T


def _groups(
    rows: pd.DataFrame, edges: tuple[int, ...]
) -> Iterator[tuple[dict[str, str], np.ndarray]]:
    """Names and rows (mask) of each group that has any."""
    tissue = rows["tissue"].to_numpy(str)
    bucket = distance_buckets(rows["tss_distance"].to_numpy(float), edges)
    bucket[bucket == ""] = UNKNOWN
    everything = np.ones(len(rows), bool)
    for tissue_name in (ALL, *sorted({*tissue} - {""})):
        of_tissue = everything if tissue_name == ALL else tissue == tissue_name
        for bucket_name in (ALL, *bucket_names(edges), UNKNOWN):
            inside = of_tissue & (everything if bucket_name == ALL else bucket == bucket_name)
            if inside.any():
                yield {"tissue": tissue_name, "tss_distance": bucket_name}, inside


def _measure(
    rows: pd.DataFrame, labels: np.ndarray, scores: np.ndarray, draw: tuple[str, int, int, int]
) -> dict[str, Any]:
    """The columns of a group: `rows` of the task, `labels` (rows,), `scores` (folds, rows)."""
    task, _, resamples, seed = draw
    numbers = rows["row"].to_numpy()
    drawn = draw_task_blocks(*draw, rows, numbers, labels)
    by_fold = {
        fold: measure_auroc(labels[:, None], of_fold[:, None], drawn.block[numbers], drawn.weights)
        for fold, of_fold in enumerate(scores)
    }
    low, high = interval(by_fold, None, SeedDraws(resamples, seed, task))
    return {
        "n": len(rows),
        "positives": int(labels.sum()),
        "auroc": float(np.mean([found.value for found in by_fold.values()])),
        "auroc_lo": low,
        "auroc_hi": high,
        "flags": join_flags(drawn.flags, LRB_FLAGS),
    }
