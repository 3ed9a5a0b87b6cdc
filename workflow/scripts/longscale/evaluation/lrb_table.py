"""From the probes' predictions to `lrb.tsv`: every model, context and metric of the benchmark.

A row is one metric of one cell (task, model, context, rule, extension); its value is the mean over
folds on the test rows. Numbers of the benchmark's paper stand in the same columns, with `published`
1. A simulated task has a `ceiling`: the same metric of the generator's own prediction.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from longscale.errors import LongscaleError
from longscale.evaluation import probe_metrics
from longscale.evaluation.compare import (
    FEW_BLOCKS,
    FEW_OF_CLASS,
    TASK_FLAGS,
    SeedDraws,
    interval,
    join_flags,
    ordered_cells,
    read_table,
)
from longscale.evaluation.intervals import block_ids, draw_blocks, draw_generator
from longscale.evaluation.probe_metrics import BlockMeans, BlockMoments, Measured

CELL_COLUMNS = ["task", "model", "context_bp", "rule", "extension"]
LRB_COLUMNS = [
    *CELL_COLUMNS,
    *("metric", "folds", "value", "value_lo", "value_hi"),
    *("published", "ceiling", "n", "flags", "fold_sd"),
]
PUBLISHED_COLUMNS = ["task", "model", "context_bp", "extension", "metric", "value"]
WHOLE_NUMBERS = ["context_bp", "folds", "published", "n"]

CLASSIFICATION = {
    "auroc": probe_metrics.measure_auroc,
    "auprc": probe_metrics.measure_auprc,
    "accuracy": probe_metrics.measure_accuracy,
}
REGRESSION = ("expression", "profile")
HEADLINES = ("auroc", "spearman_genes", "pearson_genes")
"""What a leaderboard ranks by, in tasks of classes, genes and profiles."""

LRB_FLAGS = {
    "non_finite_loss": "the training loss of a fold was not finite",
    "not_converged": "the last epoch of a fold was its best",
    "undefined": "so many outputs (across genes) or rows (across tissues) are constant in labels "
    "or predictions and left out of the mean",
    "rows_left_out": "some test rows of the task have no prediction",
} | TASK_FLAGS

_BATCH_ROWS = 1 << 16


@dataclass(frozen=True)
class ProbeCell:
    """A folder with `predictions.parquet` and `folds.json`, or with `zero_shot.parquet`."""

    path: Path
    task: str
    model: str
    context_bp: int
    rule: str
    extension: str

    @classmethod
    def from_path(cls, path: str | Path) -> Self:
        """Read the place from `.../{task}/{model}/{context_bp}/{rule}/{extension}`, or from a file
        in that folder.

        Raises:
            LongscaleError: the path does not end like that.
        """
        folder = Path(path).parent if Path(path).suffix in (".parquet", ".json") else Path(path)
        match = re.search(r"([^/]+)/([^/]+)/(\d+)/([^/]+)/([^/]+)$", folder.as_posix())
        if match is None:
            raise LongscaleError(
                f"{path}: the folder of a probe must end in {{task}}/{{model}}/{{context_bp}}/"
                "{rule}/{extension}"
            )
        task, model, context_bp, rule, extension = match.groups()
        return cls(folder, task, model, int(context_bp), rule, extension)

    def place(self) -> tuple[Any, ...]:
        """The columns `CELL_COLUMNS`."""
        return self.task, self.model, self.context_bp, self.rule, self.extension


@dataclass(frozen=True)
class TaskFiles:
    """Rows (parquet) and labels (npy) of a task.

    ceilings: of a simulated task, context_bp -> the generator's predictions given that context, a
    parquet of `row`, in a profile `bin`, and one column per output: the posterior of label 1, or
    the label as a probe learns it (counts as log(1 + x)).
    """

    rows: Path
    labels: Path
    ceilings: Mapping[int, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """Some of a cell's test rows: `labels` (n, outputs), `predictions` (folds, n, outputs), `truth`
    (n, outputs) or None, `row` (n,) their numbers. Labels as a probe learns them."""

    row: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray
    truth: np.ndarray | None


@dataclass(frozen=True)
class Draws:
    """Blocks of all rows by row number, the draws of those with test rows, and the task's flags."""

    block: np.ndarray
    blocks: int
    weights: np.ndarray | None
    flags: frozenset[str]


def build_lrb_table(
    cells: Iterable[ProbeCell],
    tasks: Mapping[str, TaskFiles],
    *,
    published: str | Path | None = None,
    block_bp: int = 1_000_000,
    resamples: int = 2000,
    seed: int = 1,
    report: Callable[[str], None] = print,
) -> pd.DataFrame:
    """All metrics of all cells and the published numbers: columns `LRB_COLUMNS`.

    Metrics by kind of task: `auroc`, `auprc`, `accuracy` (means over outputs); `spearman_genes`,
    `spearman_tissues`, `r2`, `r2_flat` of expression; `pearson_genes`, `pearson_tissues`, `r2`,
    `r2_flat` of a profile (its genes are the bins of all rows, its tissues the tracks);
    `auroc_{score}`, `auprc_{score}` of zero-shot scores, which have 0 folds. Intervals (95%)
    resample folds and genomic blocks of `block_bp` bp; `fold_sd` is the standard deviation over
    folds alone; `auprc` has none, nor has what is undefined
    in a draw.

    Args:
        cells: folders of probes, in any order, one per place.
        tasks: rows, labels and ceiling of each of their tasks.
        published: a TSV with `PUBLISHED_COLUMNS`.
        block_bp: length of a block, in bp, along each contig from its start.
        resamples: number of draws.
        seed: seed of the draws, which are a function of it and of the task's name.
        report: takes one line per cell.

    Raises:
        LongscaleError: no cell, two cells for one place, or a file that is not what it must be.
    """
    rows: list[dict[str, Any]] = []
    for cell in ordered_cells(cells, ProbeCell.place):
        of_cell = list(_cell_rows(cell, tasks[cell.task], block_bp, resamples, seed))
        rows += [dict(zip(CELL_COLUMNS, cell.place(), strict=True)) | row for row in of_cell]
        first = of_cell[0]
        report(
            f"{cell.task} {cell.model}, {cell.context_bp:,} bp, {cell.rule}, {cell.extension}: "
            f"{first['metric']} {first['value']:.3f} on {first['n']:,} rows"
        )
    table = pd.DataFrame(rows).assign(published=0)
    if published is not None:
        table = pd.concat([table, read_published(published)], ignore_index=True)
    return _typed(table[LRB_COLUMNS])


def read_published(path: str | Path) -> pd.DataFrame:
    """The published numbers as rows of the table: no interval, rule `none`, `published` 1."""
    table = read_table(
        path, PUBLISHED_COLUMNS, ["task", "model", "extension", "metric"], kind="published"
    )
    unknown = ("folds", "value_lo", "value_hi", "ceiling", "n", "fold_sd")
    empty = dict.fromkeys(unknown, math.nan)
    return table.assign(**empty, rule="none", published=1, flags="")[LRB_COLUMNS]


def read_lrb_table(path: str | Path) -> pd.DataFrame:
    """Read what `compare.write_table` made of the table.

    Raises:
        LongscaleError: a column of `LRB_COLUMNS` is missing.
    """
    texts = ["task", "model", "rule", "extension", "metric", "flags"]
    return _typed(read_table(path, LRB_COLUMNS, texts, kind="LRB"))


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """Whole numbers as such, also beside missing ones."""
    return table.astype(dict.fromkeys(WHOLE_NUMBERS, "Int64"))


def build_detail_table(cells: Iterable[ProbeCell], tasks: Mapping[str, TaskFiles]) -> pd.DataFrame:
    """AUROC of each output of tasks of classes, and within each tissue where there is one output.

    Columns `CELL_COLUMNS`, `by` (`tissue`, `output`), `group, n, positives, auroc, auprc`; means
    over folds. Cells of a regression or without a probe have no rows. Intervals, and distances to
    the nearest TSS, are in `lrb_distance`.
    """
    columns = [*CELL_COLUMNS, "by", "group", "n", "positives", "auroc", "auprc"]
    parts = [pd.DataFrame(columns=columns)]
    for cell in ordered_cells(cells, ProbeCell.place):
        if (cell.path / "folds.json").exists():
            found = _cell_details(cell, tasks[cell.task])
            place = dict(zip(CELL_COLUMNS, cell.place(), strict=True))
            parts += [frame.assign(**place)[columns] for frame in found if len(frame)]
    return pd.concat(parts[1:] or parts, ignore_index=True)


def _cell_details(cell: ProbeCell, files: TaskFiles) -> Iterator[pd.DataFrame]:
    record = read_record(cell)
    if record["kind"] in REGRESSION:
        return
    (part,) = read_parts(cell, files, record)
    outputs = record["outputs"]
    for index, output in enumerate(outputs):
        groups = {"output": np.full(len(part.row), output)}
        if len(outputs) == 1:
            tissues = pd.read_parquet(files.rows, columns=["row", "tissue"]).set_index("row")
            groups["tissue"] = tissues.loc[part.row, "tissue"].to_numpy(str)
        for by, names in groups.items():
            found = probe_metrics.auroc_by_group(
                part.labels[:, index], part.predictions[:, :, index], names
            )
            yield found[found["group"] != ""].assign(by=by)


# ---------------------------------------------------------------------------- one cell


def _cell_rows(
    cell: ProbeCell, files: TaskFiles, block_bp: int, resamples: int, seed: int
) -> Iterator[dict[str, Any]]:
    """The rows of a cell, without its place."""
    rows = pd.read_parquet(files.rows, columns=["row", "contig", "anchor", "split"])
    draw = (cell.task, block_bp, resamples, seed)
    has_probe, has_scores = (
        (cell.path / name).exists() for name in ("folds.json", "zero_shot.parquet")
    )
    if not (has_probe or has_scores):
        raise LongscaleError(
            f"{cell.path}: neither folds.json nor zero_shot.parquet is there, a probe's folder has "
            "one of them"
        )
    if has_probe:
        record = read_record(cell)
        numbers = predicted_rows(cell)
        draws = draw_task_blocks(*draw, rows, numbers, single_labels(files, record, numbers))
        runs, ceilings = measure_probe(cell, files, record, draws)
        flags = draws.flags.union(*(fold["flags"] for fold in record["folds"]))
        seed_draws = SeedDraws(resamples, seed, cell.task)
        for metric, by_fold in runs.items():
            row = _table_row(metric, by_fold, flags, seed_draws, numbers.size)
            yield row | {"folds": len(by_fold), "ceiling": ceilings.get(metric, math.nan)}
    if has_scores:
        yield from _zero_shot_rows(cell, files, rows, draw)


def _zero_shot_rows(
    cell: ProbeCell, files: TaskFiles, rows: pd.DataFrame, draw: tuple[str, int, int, int]
) -> Iterator[dict[str, Any]]:
    """AUROC and AUPRC of each score, all rows of the file."""
    scores = pd.read_parquet(cell.path / "zero_shot.parquet")
    numbers = scores["row"].to_numpy()
    labels = np.load(files.labels, mmap_mode="r", allow_pickle=False)[numbers]
    draws = draw_task_blocks(*draw, rows, numbers, labels[:, 0])
    task, _, resamples, seed = draw
    for name in scores.columns.drop("row"):
        for metric in ("auroc", "auprc"):
            values = scores[[name]].to_numpy()
            found = CLASSIFICATION[metric](labels, values, draws.block[numbers], draws.weights)
            seed_draws = SeedDraws(resamples, seed, task)
            row = _table_row(f"{metric}_{name}", {0: found}, draws.flags, seed_draws, len(values))
            yield row | {"folds": 0, "ceiling": math.nan}


def _table_row(
    metric: str,
    by_fold: dict[int, Measured],
    flags: frozenset[str],
    seed_draws: SeedDraws,
    n: int,
) -> dict[str, Any]:
    low, high = interval(by_fold, None, seed_draws)
    undefined = max(found.undefined for found in by_fold.values())
    told = join_flags(flags, LRB_FLAGS)
    values = [found.value for found in by_fold.values()]
    return {
        "metric": metric,
        "value": float(np.mean(values)),
        "fold_sd": float(np.std(values, ddof=1)) if len(values) > 1 else math.nan,
        "value_lo": low,
        "value_hi": high,
        "n": n,
        "flags": ";".join(filter(None, [told, f"undefined:{undefined}" if undefined else ""])),
    }


def draw_task_blocks(
    task: str,
    block_bp: int,
    resamples: int,
    seed: int,
    rows: pd.DataFrame,
    numbers: np.ndarray,
    labels: np.ndarray | None,
) -> Draws:
    """Draw the blocks of the rows `numbers`; `labels` where a draw must hold two classes."""
    own = rows.set_index("row").loc[numbers]
    ids = block_ids(own["contig"], own["anchor"] + 1, block_bp)
    blocks = int(ids.max()) + 1
    block = np.full(int(rows["row"].max()) + 1, -1)
    block[numbers] = ids
    generator = draw_generator(seed, task, "blocks")
    smaller_class = None if labels is None else int(min(labels.sum(), (1 - labels).sum()))
    weights = None
    if blocks > 1 and smaller_class is None:
        weights = generator.multinomial(blocks, np.full(blocks, 1 / blocks), resamples).astype(
            float
        )
    elif blocks > 1 and smaller_class > 0:
        weights = draw_blocks(ids, labels, resamples, generator).weights
    holds = {
        "rows_left_out": numbers.size < (rows["split"] == "test").sum(),
        "few_of_class": smaller_class is not None and smaller_class < FEW_OF_CLASS,
        "few_blocks": blocks < FEW_BLOCKS,
        "single_chromosome": own["contig"].nunique() == 1,
    }
    return Draws(block, blocks, weights, frozenset(flag for flag, so in holds.items() if so))


def single_labels(
    files: TaskFiles, record: dict[str, Any], numbers: np.ndarray
) -> np.ndarray | None:
    """Labels of `numbers` where the task has two classes and one output."""
    if record["kind"] in REGRESSION or len(record["outputs"]) > 1:
        return None
    return np.load(files.labels, mmap_mode="r", allow_pickle=False)[numbers, 0]


class _RegressionTally:
    """Metrics of a regression whose rows come in parts: all but Spearman's across genes."""

    def __init__(self, kind: str, blocks: int, outputs: int) -> None:
        self.profile = kind == "profile"
        self.moments = BlockMoments(blocks, outputs)
        self.rows = BlockMeans(blocks)

    def add(self, labels: np.ndarray, predictions: np.ndarray, blocks: np.ndarray) -> None:
        across = probe_metrics.pearson_rows if self.profile else probe_metrics.spearman_rows
        self.moments.add(labels, predictions, blocks)
        self.rows.add(across(labels, predictions), blocks)

    def measured(self, weights: np.ndarray | None) -> dict[str, Measured]:
        tissues = self.rows.measured(weights)
        if self.profile:
            genes = self.moments.pearson(weights)
            across = {"pearson_genes": genes, "pearson_tissues": tissues}
        else:
            across = {"spearman_tissues": tissues}
        return across | {"r2": self.moments.r2(weights), "r2_flat": self.moments.r2_flat(weights)}


def measure_probe(
    cell: ProbeCell, files: TaskFiles, record: dict[str, Any], draws: Draws
) -> tuple[dict[str, dict[int, Measured]], dict[str, float]]:
    """Metric -> fold -> what it is, and metric -> ceiling; `draws` of the cell's test rows."""
    measure = _measure_regression if record["kind"] in REGRESSION else _measure_classification
    by_fold, of_truth = measure(cell, files, record, draws)
    runs = {
        metric: {fold: found[metric] for fold, found in enumerate(by_fold)} for metric in by_fold[0]
    }
    ceilings = {
        metric: float(np.mean([found[metric].value for found in of_truth]))
        for metric in (of_truth[0] if of_truth else ())
    }
    return runs, ceilings


_ByFold = list[dict[str, Measured]]


def _measure_classification(
    cell: ProbeCell, files: TaskFiles, record: dict[str, Any], draws: Draws
) -> tuple[_ByFold, _ByFold]:
    (part,) = read_parts(cell, files, record)
    block = draws.block[part.row]

    def measure(scores: np.ndarray, weights: np.ndarray | None) -> dict[str, Measured]:
        return {
            name: metric(part.labels, scores, block, weights)
            for name, metric in CLASSIFICATION.items()
        }

    # A posterior of 0 or 1 has no finite log-odds; this has their order and sign.
    truth = [] if part.truth is None else [measure(part.truth - 0.5, None)]
    return [measure(scores, draws.weights) for scores in part.predictions], truth


def _measure_regression(
    cell: ProbeCell, files: TaskFiles, record: dict[str, Any], draws: Draws
) -> tuple[_ByFold, _ByFold]:
    """Labels are brought to the scale of each fold's training rows: a correlation across tissues is
    one of what makes a gene differ from others in this tissue."""
    size = record["kind"], draws.blocks, len(record["outputs"])
    own, truth = ([_RegressionTally(*size) for _ in record["folds"]] for _ in range(2))
    for part in read_parts(cell, files, record):
        block = draws.block[part.row]
        for fold, scale in enumerate(record["folds"]):
            mean, spread = np.array(scale["label_mean"]), np.array(scale["label_spread"])
            labels = (part.labels - mean) / spread
            own[fold].add(labels, part.predictions[fold], block)
            if part.truth is not None:
                truth[fold].add(labels, (part.truth - mean) / spread, block)
    by_fold = [tally.measured(draws.weights) for tally in own]
    with_truth = part.truth is not None
    of_truth = [tally.measured(None) for tally in truth] if with_truth else []
    if record["kind"] == "expression":  # one part
        genes = probe_metrics.measure_spearman_genes
        found = genes(part.labels, part.predictions, block, draws.weights)
        by_fold = [{"spearman_genes": f, **rest} for f, rest in zip(found, by_fold, strict=True)]
        if with_truth:
            ceiling = genes(part.labels, part.truth[None], block, None)[0]
            of_truth = [{"spearman_genes": ceiling, **rest} for rest in of_truth]
    return by_fold, of_truth


# ---------------------------------------------------------------------------- reading


def read_record(cell: ProbeCell) -> dict[str, Any]:
    """`kind`, `outputs`, `log1p` and `folds` of a cell's `folds.json`."""
    path = cell.path / "folds.json"
    try:
        record = json.loads(path.read_text())
        return {key: record[key] for key in ("kind", "outputs", "log1p", "folds")}
    except (OSError, ValueError, KeyError) as error:
        raise LongscaleError(f"{path}: not the record of a probe's folds ({error!r})") from error


def predicted_rows(cell: ProbeCell) -> np.ndarray:
    """Numbers of the rows that a cell has predictions of, in the file's order."""
    path = cell.path / "predictions.parquet"
    try:
        return pd.unique(pq.read_table(path, columns=["row"])["row"].to_numpy())
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        raise LongscaleError(f"{path}: cannot read its column 'row' ({error})") from error


def read_parts(cell: ProbeCell, files: TaskFiles, record: dict[str, Any]) -> Iterator[Part]:
    """The test rows of a cell: a profile's in parts, others at once."""
    profile = record["kind"] == "profile"
    places = ["row", "bin"] if profile else ["row"]
    outputs = record["outputs"]
    labels = np.load(files.labels, mmap_mode="r", allow_pickle=False)
    ceiling = files.ceilings.get(cell.context_bp)
    truth = pd.read_parquet(ceiling).set_index(places) if ceiling else None
    path = cell.path / "predictions.parquet"
    with pq.ParquetFile(path) as parquet:
        for table in parquet.iter_batches(_BATCH_ROWS) if profile else [parquet.read()]:
            place = tuple(table[name].to_numpy() for name in places)
            folds = [
                np.stack([table[f"fold{fold}:{output}"].to_numpy() for output in outputs], axis=1)
                for fold in range(len(record["folds"]))
            ]
            own = np.asarray(labels[place], np.float64)
            yield Part(
                place[0],
                np.log1p(own) if record["log1p"] else own,
                np.stack(folds),
                None if truth is None else _truth_at(truth, place, outputs, ceiling),
            )


def _truth_at(
    truth: pd.DataFrame, place: tuple[np.ndarray, ...], outputs: list[str], path: Path | None
) -> np.ndarray:
    index = pd.Index(place[0]) if len(place) == 1 else pd.MultiIndex.from_arrays(place)
    found = truth.reindex(index).reindex(columns=outputs)
    if found.isna().to_numpy().any():
        row, column = np.argwhere(found.isna().to_numpy())[0]
        raise LongscaleError(
            f"{path}: no {outputs[column]!r} of row {place[0][row]}, the ceiling must "
            "cover every test row and output"
        )
    return found.to_numpy()
