"""From score files to the headline table: every arm at every length, with paired differences.

An arm is attention x length rule. A row of the table is one arm of one task, protocol, model and
training length at one evaluation length; its baseline is `dot` + `none` of the same. What the
released code does otherwise is compared once more, with the same cell done right.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from longscale.attention.positions import POSITION_SCHEMES
from longscale.attention.released import RELEASED_CHOICE
from longscale.attention.rules import LENGTH_RULES
from longscale.errors import LongscaleError
from longscale.evaluation import metrics
from longscale.evaluation.intervals import (
    BlockDraws,
    block_ids,
    draw_blocks,
    draw_generator,
    draw_seeds,
    percentile_interval,
    weighted_auroc,
    win_counts,
)
from longscale.evaluation.scores import (
    ROW_COLUMNS,
    ROW_KEY,
    VARIANT_KEY,
    Cell,
    read_scores,
    rule_columns,
)
from longscale.files import atomic_path

BASELINE = ("dot", "none")
STANDARD_PROTOCOL = "paired"
ARM_COLUMNS = ["task", "protocol", "model", "train_bp", "attention", "rule"]
METRIC_COLUMNS = ["auprc", "accuracy", "f1", "mcc", "precision", "recall"]
AUROC_COLUMNS = [
    *ARM_COLUMNS,
    *("eval_bp", "seeds", "n", "positives", "auroc", "auroc_lo", "auroc_hi"),
    *("delta", "delta_lo", "delta_hi", "verdict"),
    *METRIC_COLUMNS,
    *("ceiling", "flags"),
    *("blocks", "redrawn"),
    *("rule_delta", "rule_delta_lo", "rule_delta_hi", "rule_verdict"),
    *("choice_delta", "choice_delta_lo", "choice_delta_hi", "choice_verdict"),
]

# What the flags mean stands in one place, because the report prints it.
ARM_FLAGS = {
    "constant_prediction": "a seed gives (nearly) the same score to every variant",
    "non_finite_score": "a seed gives a score that is not a finite number",
    "not_converged": "training of a seed did not converge",
    "non_finite_loss": "the training loss of a seed was not finite",
    "unmatched": "no multiplier in [0.5, 4] restores the attention entropy of some head of a seed",
    "not_learned": "the development loss of a seed never fell below that of a constant answer",
}
COMPARISON_FLAGS = {
    "single_seed": "compared with another training on one seed each: the interval of the "
    "difference does not hold what training varies by",
}
TASK_FLAGS = {
    "few_of_class": "fewer than 30 positives or negatives",
    "few_blocks": "fewer than 20 genomic blocks: the interval is rough",
    "single_chromosome": "all variants lie on one chromosome",
}
FLAGS = ARM_FLAGS | COMPARISON_FLAGS | TASK_FLAGS
CONSTANT_STD = 1e-4  # log-odds; moves a probability by 2.5e-5 at most
FEW_OF_CLASS = 30
FEW_BLOCKS = 20


@dataclass(frozen=True)
class _TestSet:
    """What all score files of a task share: the rows in one order, and the draws of its blocks."""

    path: Path
    rows: pd.DataFrame
    labels: np.ndarray
    blocks: np.ndarray
    draws: BlockDraws | None  # None: one class or one block only, so there is no interval
    flags: frozenset[str]

    @property
    def n_blocks(self) -> int:
        return int(self.blocks.max()) + 1


class Run(Protocol):
    """One seed of one arm at one length: its value, and the same in every draw."""

    @property
    def value(self) -> float: ...

    @property
    def resampled(self) -> np.ndarray | None: ...  # (resamples,)

    @property
    def usable(self) -> bool: ...  # whether a verdict may rest on it


@dataclass(frozen=True)
class _Run:
    """One score column; its value is the AUROC."""

    value: float
    resampled: np.ndarray | None  # (resamples,)
    metrics: dict[str, float]
    flags: frozenset[str]

    @property
    def usable(self) -> bool:
        return self.resampled is not None and not self.flags & {
            "constant_prediction",
            "non_finite_score",
        }


Arm = tuple[str, str, str]  # protocol, attention, rule
Runs = Mapping[int, Run]  # by seed
_Runs = dict[int, _Run]


def build_auroc_table(
    cells: Iterable[Cell],
    *,
    truths: Mapping[str, str | Path] | None = None,
    block_bp: int = 1_000_000,
    resamples: int = 2000,
    seed: int = 1,
    report: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Compare all arms of all tasks: the table `auroc.tsv`, columns `AUROC_COLUMNS`.

    Metrics are means over seeds. Intervals (95%) resample seeds and blocks of `block_bp` bp; a
    difference to the baseline uses the seeds that both have and the same draws for both. With
    one seed only blocks are resampled. The draws are a function of `seed` and the task's name
    (of the set of seeds too, where arms differ in theirs), so all arms of a task share them.
    `rule_...` compares with the same attention without a rule, `choice_...` with the same cell
    without what is the released code's: protocol `paired`, attention and rule by their own formula.

    `verdict` is `baseline` for the baseline itself, `better` or `worse` where the interval of the
    difference excludes zero, else `unresolved`: so too where there is no baseline, no interval,
    or where either arm predicts a constant or a number that is not finite. It is not corrected
    for the number of rows. An interval that would be meaningless is NaN.

    Args:
        cells: the score files, in any order, one per (task, protocol, model, train_bp,
            attention, seed, eval_bp).
        truths: task -> parquet with `contig, pos, ref, alt` and `posterior_<window_bp>`, the
            generator's posterior of label 1 given that window; its AUROC on the task's rows is
            `ceiling`, which is NaN for other tasks.
        block_bp: length of a block, in bp, along each contig from its start.
        resamples: number of draws.
        seed: seed of the draws.
        report: takes one line per group of comparable arms.

    Raises:
        LongscaleError: no cell, two cells for one place, other variants or labels in two files
            of a task, or a truth that lacks a variant or a window length.
    """
    ordered = ordered_cells(cells, _place)
    rows: list[dict[str, Any]] = []
    for task, of_task in groupby(ordered, key=lambda cell: cell.task):
        task_cells = list(of_task)
        test_set = _read_test_set(task_cells[0], block_bp, resamples, seed)
        ceilings = _Ceilings(test_set, (truths or {}).get(task))
        seed_draws = SeedDraws(resamples, seed, task)
        for place, group in groupby(task_cells, key=lambda cell: _place(cell)[:4]):
            _, model, train_bp, eval_bp = place
            runs = _read_group(list(group), test_set)
            shared = {
                "task": task,
                "model": model,
                "train_bp": train_bp,
                "eval_bp": eval_bp,
                "n": test_set.labels.size,
                "positives": int(test_set.labels.sum()),
                "ceiling": ceilings.at(eval_bp),
                "blocks": test_set.n_blocks,
                "redrawn": test_set.draws.redrawn if test_set.draws else 0,
            }
            rows.extend(
                shared
                | dict(zip(("protocol", "attention", "rule"), arm, strict=True))
                | _compare(arm, runs, test_set.flags, seed_draws)
                for arm in runs
            )
            report(
                f"{task} {model}: trained at {train_bp} bp, scored at {eval_bp} bp, "
                f"{len(runs)} arms compared"
            )
    return sort_arms(pd.DataFrame(rows)[AUROC_COLUMNS])


def build_wide_table(table: pd.DataFrame) -> pd.DataFrame:
    """Lengths side by side: one row per arm, one text column per eval_bp (named by the number).

    A cell reads `0.912 [0.901, 0.923]`, with ` *` behind it where the long table has flags. Arms
    of the released code are left out.
    """
    main = table[~is_released(table)]
    wide = (
        main.assign(text=main.apply(interval_text, axis=1))
        .pivot(index=ARM_COLUMNS, columns="eval_bp", values="text")
        .fillna("")
        .sort_index(axis=1)
        .rename(columns=str)
        .rename_axis(columns=None)
    )
    return sort_arms(wide.reset_index())


def is_released_arm(
    table: pd.DataFrame, columns: Sequence[str] = ("attention", "rule")
) -> pd.Series:
    """Whether one of the names of each row's arm is a defect of the released code."""
    arm = table[list(columns)].apply(lambda names: names.str.contains(RELEASED_CHOICE))
    return arm.any(axis="columns")


def is_released(table: pd.DataFrame) -> pd.Series:
    """Whether each row of an AUROC table has something of the released code: another protocol than
    `paired`, or a released arm."""
    return (table["protocol"] != STANDARD_PROTOCOL) | is_released_arm(table)


def sort_arms(table: pd.DataFrame) -> pd.DataFrame:
    """Sort rows by task, protocol, model, train_bp, attention (`dot` first), rule (`none` first)
    and, where it has one, eval_bp."""

    def key(column: pd.Series) -> pd.Series:
        return column.map(natural_order) if column.name in ("attention", "rule") else column

    by = [name for name in [*ARM_COLUMNS, "eval_bp"] if name in table.columns]
    return table.sort_values(by, key=key, kind="stable", ignore_index=True)


def write_table(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table as TSV with six decimals; NaN is empty. Whole or not at all."""
    with atomic_path(path) as part:
        table.to_csv(part, sep="\t", index=False, float_format="%.6f", lineterminator="\n")


def read_auroc_table(path: str | Path) -> pd.DataFrame:
    """Read what `write_table` made of an AUROC table, texts as they are (no `NA` becomes NaN).

    Raises:
        LongscaleError: a column of `AUROC_COLUMNS` is missing.
    """
    texts = {"task", "protocol", "model", "attention", "rule", "flags"}
    texts |= {name for name in AUROC_COLUMNS if name.endswith("verdict")}
    return read_table(path, AUROC_COLUMNS, texts, kind="AUROC")


def read_table(
    path: str | Path, columns: Sequence[str], texts: Iterable[str], *, kind: str
) -> pd.DataFrame:
    """Read a TSV that `write_table` made: `texts` as they are, the others of `columns` as numbers.

    Raises:
        LongscaleError: one of `columns` is missing; the sentence calls the table by its `kind`.
    """
    table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise LongscaleError(f"{path}: column {missing[0]!r} of the {kind} table is missing")
    numbers = [name for name in columns if name not in set(texts)]
    return table.assign(**{name: pd.to_numeric(table[name]) for name in numbers})


def _place(cell: Cell) -> tuple[Any, ...]:
    """What a cell is; the first four are what is compared with one another."""
    return (
        *(cell.task, cell.model, cell.train_bp, cell.eval_bp),
        *(cell.protocol, cell.attention, cell.seed),
    )


def ordered_cells(cells: Iterable[Any], place: Callable[[Any], tuple[Any, ...]]) -> list[Any]:
    """Cells of either branch in the order of their `place`.

    Raises `LongscaleError` where there is none, and for two score files of one place.
    """
    ordered = sorted(cells, key=place)
    if not ordered:
        raise LongscaleError("no score file to build a table from, at least one is needed")
    for one, other in pairwise(ordered):
        if place(one) == place(other):
            raise LongscaleError(f"{one.path} and {other.path}: two score files for the same cell")
    return ordered


def natural_order(name: str, first: Sequence[str] = BASELINE) -> str:
    """Sort key: the baseline first, then the order of the tables of rules and schemes, numbers by
    value (cos16 before cos128).
    """
    if name in first:
        return ""
    for known in (LENGTH_RULES, POSITION_SCHEMES):
        if name in known:
            return f"{list(known).index(name):09}"
    return re.sub(r"\d+", lambda digits: digits.group().zfill(9), name)


def interval_text(row: pd.Series, metric: str = "auroc") -> str:
    """A cell of a wide table: `metric` with its interval, and a star where the row has flags."""
    value, low, high = row[metric], row[f"{metric}_lo"], row[f"{metric}_hi"]
    if math.isnan(value):
        text = ""
    elif math.isnan(low):
        text = f"{value:.3f}"
    else:
        text = f"{value:.3f} [{low:.3f}, {high:.3f}]"
    return f"{text} *".lstrip() if row["flags"] else text


# ------------------------------------------------------------------- reading a task's cells


def _read_sorted(cell: Cell) -> tuple[pd.DataFrame, dict[str, Any]]:
    frame, provenance = read_scores(cell.path)
    return frame.sort_values(ROW_KEY, ignore_index=True), provenance


def _read_test_set(cell: Cell, block_bp: int, resamples: int, seed: int) -> _TestSet:
    frame, _ = _read_sorted(cell)
    if frame.empty:
        raise LongscaleError(f"{cell.path}: no rows, a score file has one per test variant")
    labels = frame["label"].to_numpy()
    blocks = block_ids(frame["contig"], frame["pos"], block_bp)
    n_blocks = int(blocks.max()) + 1
    smaller_class = min(labels.sum(), (1 - labels).sum())
    draws = None
    if smaller_class > 0 and n_blocks > 1:
        draws = draw_blocks(blocks, labels, resamples, draw_generator(seed, cell.task, "blocks"))
    flags = {
        "few_of_class": smaller_class < FEW_OF_CLASS,
        "few_blocks": n_blocks < FEW_BLOCKS,
        "single_chromosome": frame["contig"].nunique() == 1,
    }
    rows = frame[ROW_COLUMNS]
    holds = frozenset(flag for flag, is_so in flags.items() if is_so)
    return _TestSet(cell.path, rows, labels, blocks, draws, holds)


def _read_group(cells: list[Cell], test_set: _TestSet) -> dict[Arm, _Runs]:
    """Read the score files that differ in protocol, attention and seed: arm -> seed -> run."""
    runs: dict[Arm, _Runs] = {}
    for cell in cells:
        frame, provenance = _read_sorted(cell)
        rows = frame[ROW_COLUMNS]
        if len(rows) != len(test_set.rows) or not (rows == test_set.rows).to_numpy().all():
            raise LongscaleError(
                f"{cell.path} and {test_set.path}: the score files of a task must hold the same "
                "variants with the same labels, these differ"
            )
        # Up to the training length all rules give the same scores.
        known: dict[tuple[bytes, frozenset[str]], _Run] = {}
        for rule in rule_columns(frame):
            scores = frame[rule].to_numpy()
            of_rule = provenance.get("rule_flags", {}).get(rule, [])
            flags = frozenset([*provenance["flags"], *of_rule])
            key = scores.tobytes(), flags
            if key not in known:
                known[key] = _evaluate(scores, flags, test_set)
            arm = (cell.protocol, cell.attention, rule)
            runs.setdefault(arm, {})[cell.seed] = known[key]
    return runs


def _evaluate(scores: np.ndarray, flags: frozenset[str], test_set: _TestSet) -> _Run:
    labels = test_set.labels
    values = metrics.classification_metrics(labels, scores)
    if not np.isfinite(scores).all():
        return _Run(math.nan, None, values, flags | {"non_finite_score"})
    if scores.std(dtype=np.float64) < CONSTANT_STD:
        flags = flags | {"constant_prediction"}
    wins = win_counts(scores, labels, test_set.blocks)
    auroc = weighted_auroc(wins, np.ones((1, test_set.n_blocks)))[0]
    resampled = None
    if test_set.draws is not None:
        resampled = weighted_auroc(wins, test_set.draws.weights)
    return _Run(float(auroc), resampled, values, flags)


class _Ceilings:
    """The best AUROC that a task allows at each window length, from the generator's posterior."""

    def __init__(self, test_set: _TestSet, path: str | Path | None) -> None:
        self._test_set = test_set
        self._path = path
        self._known: dict[int, float] = {}

    def at(self, eval_bp: int) -> float:
        if self._path is None:
            return math.nan
        if eval_bp not in self._known:
            self._known[eval_bp] = self._compute(f"posterior_{eval_bp}")
        return self._known[eval_bp]

    def _compute(self, column: str) -> float:
        try:
            truth = pq.read_table(self._path, columns=[*VARIANT_KEY, column]).to_pandas()
        except (OSError, pa.ArrowInvalid) as error:
            raise LongscaleError(
                f"{self._path}: cannot read the columns contig, pos, ref, alt and {column!r} of "
                f"the task's truth ({error})"
            ) from error
        if truth.duplicated(VARIANT_KEY).any():
            raise LongscaleError(
                f"{self._path}: a variant stands more than once, a truth has one row for each"
            )
        rows = self._test_set.rows[VARIANT_KEY]
        posterior = rows.merge(truth, how="left", on=VARIANT_KEY)
        missing = posterior[column].isna()
        if missing.any():
            contig, pos, ref, alt = rows[missing].iloc[0]
            raise LongscaleError(
                f"{self._path}: no {column} for {contig}:{pos} {ref}>{alt} of "
                f"{self._test_set.path}, the truth must cover every test variant"
            )
        return metrics.auroc(self._test_set.labels, posterior[column].to_numpy())


# ------------------------------------------------------------------------- comparing arms


class SeedDraws:
    """Shares of each seed in each draw, the same for all arms that have the same seeds.

    `names` say what is compared: the task of an AUROC table.
    """

    def __init__(self, resamples: int, seed: int, *names: str) -> None:
        self._resamples = resamples
        self._seed = seed
        self._names = names

    def of(self, seeds: list[int]) -> np.ndarray:
        """(seeds, resamples), each column sums to 1."""
        generator = draw_generator(self._seed, *self._names, "seeds", *map(str, seeds))
        return draw_seeds(len(seeds), self._resamples, generator)


def without_released_choices(arm: Arm) -> Arm:
    """The arm that does right what `arm` has of the released code."""
    attention, rule = (RELEASED_CHOICE.sub("", name) for name in arm[1:])
    return STANDARD_PROTOCOL, attention, rule


def _compare(
    arm: Arm,
    runs: dict[Arm, _Runs],
    task_flags: frozenset[str],
    seed_draws: SeedDraws,
) -> dict[str, Any]:
    """The columns of one row that depend on the arm."""
    own = runs[arm]
    flags = task_flags.union(*(run.flags for run in own.values()))
    protocol, attention, _ = arm
    if len(own) == 1 and attention != BASELINE[0]:
        flags = flags | {"single_seed"}
    by_rule = difference(arm, (protocol, attention, BASELINE[1]), runs, seed_draws)
    by_choice = difference(arm, without_released_choices(arm), runs, seed_draws)
    low, high = interval(own, None, seed_draws)
    means = {
        name: float(np.mean([run.metrics[name] for run in own.values()])) for name in METRIC_COLUMNS
    }
    return {
        "seeds": len(own),
        "auroc": float(np.mean([run.value for run in own.values()])),
        "auroc_lo": low,
        "auroc_hi": high,
        **difference(arm, (protocol, *BASELINE), runs, seed_draws),
        **{f"rule_{name}": value for name, value in by_rule.items()},
        **{f"choice_{name}": value for name, value in by_choice.items()},
        **means,
        "flags": join_flags(flags, FLAGS),
    }


def difference(
    arm: tuple[str, ...],
    against: tuple[str, ...],
    runs: Mapping[tuple[str, ...], Runs],
    seed_draws: SeedDraws,
) -> dict[str, Any]:
    """`delta, delta_lo, delta_hi, verdict` of an arm against another arm of its group.

    Only the seeds that both have count; `runs` may lack `against`.
    """
    baseline = runs.get(against, {})
    shared = sorted(runs[arm].keys() & baseline.keys())
    own = {seed: runs[arm][seed] for seed in shared}
    delta = low = high = math.nan
    if shared:
        delta = float(np.mean([own[seed].value - baseline[seed].value for seed in shared]))
        low, high = interval(own, baseline, seed_draws)
    verdict = "better" if low > 0 else "worse" if high < 0 else "unresolved"
    if arm == against:
        verdict = "baseline"
    return {"delta": delta, "delta_lo": low, "delta_hi": high, "verdict": verdict}


def interval(own: Runs, baseline: Runs | None, seed_draws: SeedDraws) -> tuple[float, float]:
    """95% interval of the mean value over the seeds of `own`, or of its excess over `baseline`."""
    seeds = sorted(own)
    involved = [own[seed] for seed in seeds]
    if baseline is not None:
        involved += [baseline[seed] for seed in seeds]
    if not all(run.usable for run in involved):
        return math.nan, math.nan
    values = np.stack([run.resampled for run in involved[: len(seeds)]])  # seeds, resamples
    if baseline is not None:
        values = values - np.stack([run.resampled for run in involved[len(seeds) :]])
    return percentile_interval((values * seed_draws.of(seeds)).sum(axis=0))


def join_flags(flags: Iterable[str], known: Iterable[str]) -> str:
    """The column `flags`: in the order of `known`, others behind them by name."""
    order = {flag: index for index, flag in enumerate(known)}
    return ";".join(sorted(flags, key=lambda flag: (order.get(flag, len(order)), flag)))
