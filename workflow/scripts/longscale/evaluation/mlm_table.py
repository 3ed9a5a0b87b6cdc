"""From masked-LM score files to their table: every arm at every length, with paired differences.

An arm is attention x position scheme x length rule, and the scheme its checkpoint was trained
with. A row of the table is one arm of one corpus, model, training length and protocol at one
length; its baseline is dot-product attention trained with RoPE, read with RoPE and without a rule.

Targets of one document share its text, so single targets are never resampled: a draw takes whole
documents with replacement, and seeds with replacement (a hierarchical bootstrap, Davison and
Hinkley 1997, section 3.8). Accuracy is then a ratio of sums, so that a document weighs as many
targets as it has.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from longscale.errors import LongscaleError
from longscale.evaluation.compare import (
    SeedDraws,
    difference,
    interval,
    interval_text,
    is_released_arm,
    join_flags,
    natural_order,
    ordered_cells,
    read_table,
)
from longscale.evaluation.intervals import draw_generator, percentile_interval
from longscale.evaluation.mlm_scores import (
    NON_FINITE_LOSS,
    AlignedArms,
    MLMCell,
    read_aligned_arms,
)

ROPE = "rope"
NOT_LEARNED = "not_learned"
Arm = tuple[str, str, str, str]  # attention, trained_scheme, scheme, rule
BASELINE: Arm = ("dot", ROPE, ROPE, "none")
_PLACE_COLUMNS = ["corpus", "model", "train_length", "protocol"]
MLM_ARM_COLUMNS = [*_PLACE_COLUMNS, "attention", "scheme", "rule"]
RETAINED = ("retained", "retained_lo", "retained_hi")
MLM_TABLE_COLUMNS = [
    *MLM_ARM_COLUMNS,
    *("length", "seeds", "documents", "n", "accuracy", "accuracy_lo", "accuracy_hi"),
    *("loss", "perplexity", "delta", "delta_lo", "delta_hi", "verdict", "trained", "flags"),
    *RETAINED,
    *("rule_delta", "rule_delta_lo", "rule_delta_hi", "rule_verdict"),
    *("loss_delta", "loss_delta_lo", "loss_delta_hi", "loss_verdict"),
    "trained_scheme",
]
_TEXT_COLUMNS = {
    *("corpus", "model", "protocol", "attention", "scheme", "rule"),
    *("verdict", "trained", "flags", "rule_verdict", "loss_verdict", "trained_scheme"),
}
_NO_NUMBERS = {
    name: math.nan
    for name in MLM_TABLE_COLUMNS
    if name.startswith(("accuracy", "loss", "perplexity", "delta", "retained", "rule_delta"))
    and name not in _TEXT_COLUMNS
}

# What the flags mean stands in one place, because the report prints it.
MLM_ARM_FLAGS = {
    "not_converged": "training of a seed did not converge",
    NOT_LEARNED: "the development loss of a seed never fell below that of no context",
    NON_FINITE_LOSS: "a loss of a seed, in training or at a target, was not finite",
    "unmatched": "no multiplier in [0.5, 4] restores the entropy of some layer",
    "cannot_run": "the arm cannot run at this length, or one of its seeds could not",
}
MLM_FLAGS = MLM_ARM_FLAGS | {
    "single_seed": "compared with another training on one seed each: the interval of the "
    "difference does not hold what training varies by",
    "few_documents": "fewer than 12 documents: the interval is rough",
}
FEW_DOCUMENTS = 12
# Of fewer, even an advantage in every single one happens by chance more often than once in 20.
LEAST_FOR_VERDICT = 6
VERDICTS = ("verdict", "rule_verdict", "loss_verdict")


@dataclass(frozen=True)
class _Targets:
    """What score files that are compared share: the targets in one order, the draws of documents.

    rows: `AlignedArms.targets`, sorted by document. starts, sizes: (documents,) first row
    and number of rows of each document.
    weights: (resamples, documents) how often each draw takes each document; None for a single
    document, which gives no interval.
    """

    path: Path
    rows: pd.DataFrame
    documents: tuple[str, ...]
    starts: np.ndarray
    sizes: np.ndarray
    weights: np.ndarray | None


@dataclass(frozen=True)
class _Run:
    """One seed of one arm at one length; its value is the accuracy, `resampled` the draws'."""

    value: float
    loss: float
    resampled: np.ndarray | None  # (resamples,)
    resampled_loss: np.ndarray | None  # (resamples,)
    flags: frozenset[str]

    @property
    def certainty(self) -> "_Run":
        """The same run with minus the loss as its value: more is better, as in accuracy."""
        losses = self.resampled_loss
        minus = None if losses is None else -losses
        return replace(self, value=-self.loss, resampled=minus)

    @property
    def usable(self) -> bool:
        return self.resampled is not None


@dataclass(frozen=True)
class Length:
    """All arms of a group at one length.

    targets: None where nothing could run. runs: arm -> seed -> run. not_run: arm -> flags, of the
    arms that could not run, and reasons: why -> their schemes.
    """

    targets: _Targets | None
    runs: dict[Arm, dict[int, _Run]]
    not_run: dict[Arm, frozenset[str]]
    reasons: dict[str, set[str]]


def build_mlm_table(
    cells: Iterable[MLMCell],
    *,
    resamples: int = 2000,
    seed: int = 1,
    report: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Compare all arms of all corpora: the table `mlm.tsv`, columns `MLM_TABLE_COLUMNS`.

    Accuracy and loss (nats) are means over seeds of means over targets; `perplexity` is the
    exponential of that loss. Intervals (95%) resample seeds and documents; a difference uses the
    seeds that both arms have and the same draws for both. With one seed only documents are
    resampled. The draws are a function of `seed`, the corpus and the protocol, so all arms share
    them. What learned nothing (`not_learned`) is given neither a share retained nor a verdict.

    `delta` is the difference of accuracy to `BASELINE` at the same corpus, model, training
    length, protocol and length, `loss_delta` that of the loss (below zero is better; paired losses
    tell more than paired hits), `rule_delta` that to the same checkpoint and scheme without a rule.
    The verdicts read as in `compare.build_auroc_table`. `retained` is the
    share that is left of what the same checkpoint reaches at its training length, with its
    trained scheme and without a rule; NaN where that was not measured. `trained` is true where
    the scheme is the one that the checkpoint was trained with.

    An arm that cannot run at a length has a row with n = 0 and the flag `cannot_run`.

    Args:
        cells: the score files, in any order, one per checkpoint, protocol and length.
        resamples: number of draws.
        seed: seed of the draws.
        report: takes one line per group of comparable arms, and one per reason why some cannot run.

    Raises:
        LongscaleError: no cell, two cells for one place, or two files that must hold the same
            targets and do not: those of one group and length, except at `released` of all lengths.
    """
    ordered = ordered_cells(cells, _place)
    rows: list[dict[str, Any]] = []
    for place, group in groupby(ordered, key=_group):
        shared = dict(zip(_PLACE_COLUMNS, place, strict=True))
        rows += [shared | row for row in _compare_group(list(group), resamples, seed, report)]
    return sort_mlm_arms(pd.DataFrame(rows)[MLM_TABLE_COLUMNS])


def build_mlm_wide_table(table: pd.DataFrame) -> pd.DataFrame:
    """Lengths side by side: one row per arm, one text column per length (named by the number).

    A cell reads `0.912 [0.901, 0.923]`, with ` *` behind it where the long table has flags. Arms
    of the released code are left out.
    """
    main = table[~is_released(table)]
    texts = [interval_text(row, "accuracy") for _, row in main.iterrows()]
    wide = (
        main.assign(text=pd.Series(texts, index=main.index, dtype=object))
        .pivot(
            index=[*MLM_ARM_COLUMNS, "trained", "trained_scheme"], columns="length", values="text"
        )
        .fillna("")
        .sort_index(axis=1)
        .rename(columns=str)
        .rename_axis(columns=None)
    )
    return sort_mlm_arms(wide.reset_index())


def is_released(table: pd.DataFrame) -> pd.Series:
    """Whether each row is of the released protocol, or a defect of the released code."""
    names = ("attention", "trained_scheme", "scheme", "rule")
    return (table["protocol"] == "released") | is_released_arm(table, names)


def sort_mlm_arms(table: pd.DataFrame) -> pd.DataFrame:
    """Sort rows by corpus, model, train_length and protocol, then training-free before trained in.

    RoPE, which all training-free schemes stand on, opens their group. Within it: attention (`dot`
    first), scheme (`rope` first), rule (`none` first) and, where there is one, length.
    """

    def key(column: pd.Series) -> pd.Series:
        if column.name in ("attention", "trained_scheme", "scheme", "rule"):
            return column.map(lambda name: natural_order(name, BASELINE))
        return column

    by = [*_PLACE_COLUMNS, "is_trained_in", "attention", "trained_scheme", "scheme", "rule"]
    by += ["length"] if "length" in table.columns else []
    marked = table.assign(is_trained_in=is_trained_in(table))
    ordered = marked.sort_values(by, key=key, kind="stable", ignore_index=True)
    return ordered.drop(columns="is_trained_in")


def is_trained_in(table: pd.DataFrame) -> pd.Series:
    """Whether each row's checkpoint was trained with another scheme than RoPE."""
    return table["trained_scheme"] != ROPE


def read_mlm_table(path: str | Path) -> pd.DataFrame:
    """Read what `compare.write_table` made of a table of `build_mlm_table`.

    Raises:
        LongscaleError: a column of `MLM_TABLE_COLUMNS` is missing.
    """
    table = read_table(path, MLM_TABLE_COLUMNS, _TEXT_COLUMNS, kind="masked-language-model")
    return table.assign(trained=table["trained"] == "True")


def _group(cell: MLMCell) -> tuple[Any, ...]:
    """What arms that are compared have in common, besides the length."""
    return cell.corpus, cell.model, cell.train_length, cell.protocol


def _place(cell: MLMCell) -> tuple[Any, ...]:
    return *_group(cell), cell.length, cell.attention, cell.trained_scheme, cell.seed


# ------------------------------------------------------------------------- reading score files


def read_length(
    cells: list[MLMCell], targets: _Targets | None, resamples: int, seed: int
) -> Length:
    """Read the files of a group at one length; they must hold `targets` where these are given."""
    runs: dict[Arm, dict[int, _Run]] = {}
    not_run: dict[Arm, frozenset[str]] = {}
    reasons: dict[str, set[str]] = {}
    for cell in cells:
        aligned, provenance = read_aligned_arms(cell.path)
        if not aligned.arms and not provenance["not_run"]:
            raise LongscaleError(f"{cell.path}: no rows, a score file has one per target and arm")
        if aligned.arms and targets is None:
            targets = _index_targets(cell, aligned.targets, resamples, seed)
        for (scheme, rule), run in _read_runs(cell, aligned, provenance, targets).items():
            arm = (cell.attention, cell.trained_scheme, scheme, rule)
            runs.setdefault(arm, {})[cell.seed] = run
        for name, reason in provenance["not_run"].items():
            scheme, rule = name.split("/")
            arm = (cell.attention, cell.trained_scheme, scheme, rule)
            flags = {"cannot_run", *_flags_of(provenance, name)}
            not_run[arm] = not_run.get(arm, frozenset()) | flags
            reasons.setdefault(reason, set()).add(scheme)
    return Length(targets, runs, not_run, reasons)


def _index_targets(cell: MLMCell, rows: pd.DataFrame, resamples: int, seed: int) -> _Targets:
    numbers, documents = pd.factorize(rows["document"])
    count = len(documents)
    weights = None
    if count > 1:
        generator = draw_generator(seed, cell.corpus, cell.protocol, "documents")
        weights = generator.multinomial(count, np.full(count, 1 / count), resamples).astype(float)
    starts = np.searchsorted(numbers, np.arange(count))
    return _Targets(cell.path, rows, tuple(documents), starts, np.bincount(numbers), weights)


def _read_runs(
    cell: MLMCell, aligned: AlignedArms, provenance: Mapping[str, Any], targets: _Targets | None
) -> dict[tuple[str, str], _Run]:
    """(scheme, rule) -> run of one file."""
    if not aligned.arms or targets is None:
        return {}
    if not aligned.targets.equals(targets.rows):
        raise LongscaleError(
            f"{cell.path} and {targets.path}: the score files of a corpus, model, training length "
            "and protocol must hold the same targets"
            f"{'' if cell.protocol != 'released' else ' at each length'}, these differ"
        )
    correct = np.add.reduceat(aligned.correct.astype(float), targets.starts, axis=1)
    losses = np.add.reduceat(aligned.loss.astype(float), targets.starts, axis=1)
    drawn = drawn_loss = [None] * len(aligned.arms)
    if targets.weights is not None:  # sums are whole numbers: exact in any order of summation
        hits, sizes = targets.weights @ correct.T, targets.weights @ targets.sizes
        drawn = list(np.ascontiguousarray((hits / sizes[:, None]).T))
        drawn_loss = list((targets.weights @ losses.T / sizes[:, None]).T)
    accuracy = aligned.correct.mean(axis=1)
    loss = aligned.loss.mean(axis=1, dtype=np.float64)
    return {
        arm: _Run(
            float(accuracy[index]),
            float(loss[index]) if aligned.finite[index] else math.nan,
            drawn[index] if aligned.finite[index] else None,
            drawn_loss[index] if aligned.finite[index] else None,
            _flags_of(provenance, "/".join(arm)),
        )
        for index, arm in enumerate(aligned.arms)
    }


def _flags_of(provenance: Mapping[str, Any], arm: str) -> frozenset[str]:
    return frozenset({*provenance["flags"], *provenance["arm_flags"].get(arm, [])})


# ------------------------------------------------------------------------------- comparing arms


def _compare_group(
    cells: list[MLMCell], resamples: int, seed: int, report: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Rows of one corpus, model, training length and protocol."""
    corpus, model, train_length, protocol = _group(cells[0])
    seed_draws = SeedDraws(resamples, seed, corpus, protocol)
    # The training length first: what the arms retain refers to it.
    in_order = sorted(cells, key=lambda cell: (cell.length != train_length, cell.length))
    targets = at_training = None
    rows = []
    for length, of_length in groupby(in_order, key=lambda cell: cell.length):
        known = targets if protocol != "released" else None
        read = read_length(list(of_length), known, resamples, seed)
        targets = read.targets
        if length == train_length:
            at_training = read
        arms = sorted(read.runs.keys() | read.not_run.keys())
        rows += [
            {"length": length} | _compare_arm(arm, read, at_training, seed_draws) for arm in arms
        ]
        report(
            f"{corpus} {model} {protocol}: trained at {train_length:,} tokens, read at {length:,}, "
            f"{len(arms) - len(read.not_run)} arms compared, {len(read.not_run)} cannot run"
        )
        for reason, schemes in sorted(read.reasons.items()):
            report(f"cannot run at {length:,}: {', '.join(sorted(schemes))}: {reason}")
    return rows


def _compare_arm(
    arm: Arm, read: Length, at_training: Length | None, seed_draws: SeedDraws
) -> dict[str, Any]:
    """The columns of one row that depend on the arm."""
    attention, trained_scheme, scheme, rule = arm
    row = {
        "attention": attention,
        "trained_scheme": trained_scheme,
        "scheme": scheme,
        "rule": rule,
        "trained": scheme == trained_scheme,
    }
    own = read.runs.get(arm, {})
    flags = read.not_run.get(arm, frozenset()).union(*(run.flags for run in own.values()))
    if not own or read.targets is None:
        empty = {"seeds": 0, "documents": 0, "n": 0, "flags": join_flags(flags, MLM_FLAGS)}
        return row | _NO_NUMBERS | empty | dict.fromkeys(VERDICTS, "unresolved")
    by_rule = difference(arm, (attention, trained_scheme, scheme, "none"), read.runs, seed_draws)
    by_loss = difference(arm, BASELINE, certainties(read.runs, arm, BASELINE), seed_draws)
    low, high = interval(own, None, seed_draws)
    loss = float(np.mean([run.loss for run in own.values()]))
    flags |= _comparison_flags(arm, read)
    row |= {
        "seeds": len(own),
        "documents": len(read.targets.documents),
        "n": len(read.targets.rows),
        "accuracy": float(np.mean([run.value for run in own.values()])),
        "accuracy_lo": low,
        "accuracy_hi": high,
        "loss": loss,
        "perplexity": float(np.exp(loss)),
        **difference(arm, BASELINE, read.runs, seed_draws),
        **_retained(arm, read, at_training, seed_draws),
        **{f"rule_{name}": value for name, value in by_rule.items()},
        # The difference of the loss itself: below zero is better.
        "loss_delta": 0.0 - by_loss["delta"],
        "loss_delta_lo": 0.0 - by_loss["delta_hi"],
        "loss_delta_hi": 0.0 - by_loss["delta_lo"],
        "loss_verdict": by_loss["verdict"],
        "flags": join_flags(flags, MLM_FLAGS),
    }
    learned = NOT_LEARNED not in flags
    if not learned:
        row |= dict.fromkeys(RETAINED, math.nan)  # a constant answer keeps all of nothing
    if not learned or len(read.targets.documents) < LEAST_FOR_VERDICT:
        row |= {name: "unresolved" for name in VERDICTS if row[name] in ("better", "worse")}
    return row


def certainties(runs: Mapping[Arm, Mapping[int, _Run]], *arms: Arm) -> dict[Arm, dict[int, _Run]]:
    """The runs of `arms`, as far as there are any, by their loss."""
    return {
        key: {seed: run.certainty for seed, run in runs[key].items()} for key in arms if key in runs
    }


def _comparison_flags(arm: Arm, read: Length) -> set[str]:
    """Flags of what the arm is compared on: its seeds and the documents."""
    own, baseline = read.runs[arm], read.runs.get(BASELINE, {})
    compared = len(own.keys() & baseline.keys()) or len(own)
    flags = {
        "single_seed": compared == 1 and arm[:2] != BASELINE[:2],
        "few_documents": len(read.targets.documents) < FEW_DOCUMENTS,
    }
    return {flag for flag, is_so in flags.items() if is_so}


def _retained(
    arm: Arm, read: Length, at_training: Length | None, seed_draws: SeedDraws
) -> dict[str, float]:
    """`retained` and its interval, over the seeds that were also read at the training length."""
    attention, trained_scheme, _, _ = arm
    as_trained = (attention, trained_scheme, trained_scheme, "none")
    reference = at_training.runs.get(as_trained, {}) if at_training else {}
    seeds = sorted(read.runs[arm].keys() & reference.keys())
    own, reference = [read.runs[arm][s] for s in seeds], [reference[s] for s in seeds]
    whole = sum(run.value for run in reference)
    if not whole:
        return dict.fromkeys(RETAINED, math.nan)
    low = high = math.nan
    # A draw is a choice of documents: it is the same for both only if they have the same.
    same_documents = read.targets.documents == at_training.targets.documents
    if same_documents and all(run.usable for run in [*own, *reference]):
        shares = seed_draws.of(seeds)
        left, of = (
            (np.stack([run.resampled for run in runs]) * shares).sum(axis=0)
            for runs in (own, reference)
        )
        if of.all():
            low, high = percentile_interval(left / of)
    return dict(zip(RETAINED, (sum(run.value for run in own) / whole, low, high), strict=True))
