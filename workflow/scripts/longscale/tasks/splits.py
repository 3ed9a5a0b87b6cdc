"""Which variants train, which stop the training early, which are the test.

Protocol `paired`: no genomic sequence is shared between train, dev and test, whatever the window
length. Protocols `released` and `random-dev`: what the released scripts do, a random dev set. The
other protocols that differ from `paired` in one choice split as it does.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from longscale.errors import LongscaleError
from longscale.variants.windows import check_window_bp, window_span

RANDOM_DEV = ("released", "random-dev")
PROTOCOLS = ("paired", "alternative-only", "at-cls", "alternative-at-cls", *RANDOM_DEV)

SPLIT_NAMES = {
    "train": "train",
    "dev": "dev",
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "test": "test",
    "": "",
}
"""Names found in files, folded to lower case -> ours."""

GAP = "gap"
"""Split of rows that are left out: their windows overlap those of a held-out row, or they lie on a
test chromosome without being test rows."""

RELEASED_DEV_FRACTION = 0.2
RELEASED_SEED = 42
MIN_CHROMOSOMES = 3
"""With fewer training chromosomes the dev set is cut out in blocks."""

_CHROMOSOME_DRAWS = 100


def assign_splits(
    variants: pd.DataFrame,
    *,
    protocol: str,
    max_window_bp: int,
    test_chromosomes: Sequence[str] | Literal["all"] | None = None,
    dev_chromosomes: Sequence[str] | None = None,
    dev_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 1,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Give every variant its split: train, dev, test or gap (left out).

    `variants` has the columns contig, pos (1-based), ref, alt, label, line and split, the last as
    in the file (SPLIT_NAMES, "" where the file has none). Test rows are, in this order: all rows
    (`test_chromosomes="all"`), the file's, those on `test_chromosomes`, or, on one or two
    chromosomes, the last `test_fraction` of each. What the file calls test is never trained on, and
    neither is anything on `test_chromosomes`.

    `paired`: dev rows are those on `dev_chromosomes`, the file's, whole chromosomes (drawn with
    `seed`, together close to `dev_fraction` of the training rows, both classes in them), or, below
    three training chromosomes, the last `dev_fraction` of each. A row whose windows of
    `max_window_bp` overlap those of a dev or test row becomes `gap`. `RANDOM_DEV`: a random fifth
    of the training rows is dev, stratified by label, seed 42, with no gaps.

    Returns a copy with the final `split` (same rows, same order), and a summary that can be written
    as JSON: counts (split -> label -> rows), how dev and test were chosen, dev_chromosomes (those
    held out as a whole) and spans (split -> contig -> [first, last] pos). The result does not
    depend on the order of the rows. Raises LongscaleError on bad arguments, on an unknown split
    name, and where nothing, or one class only, is left to train or to stop on.
    """
    _check_arguments(protocol, max_window_bp, dev_fraction, test_fraction)
    given = _given_splits(variants["split"])
    window_starts, window_ends = window_span(variants, max_window_bp)
    windows = WindowSpans(variants["contig"], window_starts, window_ends)

    is_test, test_from = _test_rows(variants, given, test_chromosomes, test_fraction)
    split = np.where(is_test, "test", GAP).astype(object)
    trainable = ~is_test
    if test_chromosomes and test_chromosomes != "all":
        trainable &= ~variants["contig"].isin(test_chromosomes).to_numpy()

    dev_from = "none"
    if (~is_test).any():
        if protocol in RANDOM_DEV:
            is_dev, dev_from = _random_dev_rows(variants, trainable), "random"
        else:
            trainable &= ~windows.overlap(is_test)
            is_dev, dev_from = _dev_rows(
                variants, trainable, given, dev_chromosomes, dev_fraction, seed
            )
            trainable &= is_dev | ~windows.overlap(is_dev)
        split[trainable] = "train"
        split[is_dev] = "dev"
        _check_classes(variants["label"].to_numpy(), split)
    result = variants.assign(split=pd.array(split, dtype="str"))
    return result, summarise_splits(result, protocol, test_from, dev_from)


def leave_out_overlaps(
    variants: pd.DataFrame, trained: pd.DataFrame, max_window_bp: int
) -> tuple[pd.DataFrame, int]:
    """Take from the test what a checkpoint of another task has seen, or nearly.

    `trained` is the other task's table of splits. A test row whose window of `max_window_bp`
    overlaps that of a train or dev row of `trained` becomes `gap`. Returns a copy of `variants` and
    the number of such rows; raises LongscaleError where no test row is left.
    """
    columns = ["contig", "pos", "ref", "alt", "split"]
    seen = trained.loc[trained["split"].isin(["train", "dev"]), columns]
    both = pd.concat([variants[columns], seen], ignore_index=True)
    is_seen = np.arange(len(both)) >= len(variants)
    windows = WindowSpans(both["contig"], *window_span(both, max_window_bp))
    overlaps = windows.overlap(is_seen)[: len(variants)] & (variants["split"] == "test").to_numpy()
    result = variants.assign(split=variants["split"].mask(overlaps, GAP))
    if not (result["split"] == "test").any():
        raise LongscaleError(
            "no variant is left to test: every one lies within "
            f"{max_window_bp:,} bp of a variant that the train_task's checkpoints were trained on"
        )
    return result, int(overlaps.sum())


def list_left_out(
    variants: pd.DataFrame, max_window_bp: int, train_task: str | None
) -> pd.DataFrame:
    """A ledger of the rows that no split has: line of the input, the variant and a sentence."""
    reason = (
        f"its window of {max_window_bp:,} bp overlaps one that {train_task} was trained on"
        if train_task
        else f"its window of {max_window_bp:,} bp overlaps that of a dev or test row, or it lies on"
        " a test chromosome without being a test row"
    )
    rows = variants.loc[variants["split"] == GAP, ["line", "contig", "pos", "ref", "alt", "tissue"]]
    return rows.assign(sentence=reason).sort_values("line", kind="stable")


class WindowSpans:
    """Windows of all rows, asked which of them overlap those of some rows.

    `contigs`: a name per row; `starts`, `ends`: (rows,) int64, 0-based, half-open.
    """

    def __init__(self, contigs: pd.Series, starts: np.ndarray, ends: np.ndarray) -> None:
        self.contigs, self.starts, self.ends = pd.factorize(contigs)[0], starts, ends

    def overlap(self, chosen: np.ndarray) -> np.ndarray:
        """bool, shape (rows,): whether a row's window overlaps the window of any chosen row."""
        result = np.zeros(len(chosen), dtype=bool)
        for contig in np.unique(self.contigs[chosen]):
            here = self.contigs == contig
            order = np.argsort(self.starts[here & chosen])
            starts = self.starts[here & chosen][order]
            reached = np.maximum.accumulate(self.ends[here & chosen][order])
            # The furthest end among all chosen windows that begin before this one ends.
            last = np.searchsorted(starts, self.ends[here], side="left") - 1
            result[here] = (last >= 0) & (reached[last] > self.starts[here])
        return result


def _check_arguments(
    protocol: str, max_window_bp: int, dev_fraction: float, test_fraction: float
) -> None:
    if protocol not in PROTOCOLS:
        raise LongscaleError(f"protocol is '{protocol}': it must be one of {', '.join(PROTOCOLS)}")
    check_window_bp(max_window_bp)
    for key, value in (("dev_fraction", dev_fraction), ("test_fraction", test_fraction)):
        if not 0 < value < 1:
            raise LongscaleError(f"{key} is {value}: it must lie between 0 and 1")


def _given_splits(split: pd.Series) -> np.ndarray:
    """The file's splits in our names."""
    names = split.unique()
    known = {name: SPLIT_NAMES.get(name.strip().lower()) for name in names}
    for name, ours in known.items():
        if ours is None:
            allowed = ", ".join(filter(None, SPLIT_NAMES))
            raise LongscaleError(f"split is '{name}': it must be one of {allowed} or empty")
    return split.map(known).to_numpy(dtype=object)


def _test_rows(
    variants: pd.DataFrame,
    given: np.ndarray,
    test_chromosomes: Sequence[str] | Literal["all"] | None,
    test_fraction: float,
) -> tuple[np.ndarray, str]:
    if test_chromosomes == "all":
        return np.ones(len(variants), dtype=bool), "all"
    if (given == "test").any():
        return given == "test", "file"
    everything = np.ones(len(variants), dtype=bool)
    if test_chromosomes:
        return _on_chromosomes(variants, everything, "test_chromosomes", test_chromosomes)
    count = variants["contig"].nunique()
    if count >= MIN_CHROMOSOMES:
        raise LongscaleError(
            f"test_chromosomes: the variants lie on {count} chromosomes and their file marks no "
            "test rows, so this key must name the chromosomes to test on"
        )
    return _last_blocks(variants, everything, test_fraction), "blocks"


def _dev_rows(
    variants: pd.DataFrame,
    trainable: np.ndarray,
    given: np.ndarray,
    dev_chromosomes: Sequence[str] | None,
    dev_fraction: float,
    seed: int,
) -> tuple[np.ndarray, str]:
    if dev_chromosomes:
        return _on_chromosomes(variants, trainable, "dev_chromosomes", dev_chromosomes)
    in_file = trainable & (given == "dev")
    if in_file.any():
        return in_file, "file"
    drawn = _draw_chromosomes(variants[trainable], dev_fraction, seed)
    if drawn:
        return _on_chromosomes(variants, trainable, "dev_chromosomes", drawn)
    return _last_blocks(variants, trainable, dev_fraction), "blocks"


def _on_chromosomes(
    variants: pd.DataFrame, among: np.ndarray, key: str, chromosomes: Iterable[str]
) -> tuple[np.ndarray, str]:
    """Rows on the named chromosomes, each of which must have some."""
    present = variants.loc[among, "contig"].unique()
    for chromosome in chromosomes:
        if chromosome not in present:
            raise LongscaleError(
                f"{key}: no variant for it lies on '{chromosome}'; there are variants on "
                f"{', '.join(sorted(present)) or 'no chromosome'}"
            )
    return among & variants["contig"].isin(list(chromosomes)).to_numpy(), "chromosomes"


def _draw_chromosomes(training: pd.DataFrame, dev_fraction: float, seed: int) -> list[str]:
    """Chromosomes that together hold about `dev_fraction` of the rows; none where blocks must do.

    Of many seeded draws the closest one is taken in which both dev and train have both classes.
    """
    rows = pd.crosstab(training["contig"], training["label"]).sort_index()
    if len(rows) < MIN_CHROMOSOMES or rows.shape[1] < 2:
        return []
    total = rows.sum()
    target = dev_fraction * total.sum()
    generator = np.random.default_rng(seed)
    best: list[str] = []
    smallest = np.inf
    for _ in range(_CHROMOSOME_DRAWS):
        order = generator.permutation(len(rows))
        held_out = rows.iloc[order].cumsum().iloc[:-1]
        usable = ((held_out > 0) & (held_out < total)).all(axis=1)
        distance = (held_out.sum(axis=1) - target).abs().where(usable, np.inf)
        first = int(np.argmin(distance))
        if distance.iloc[first] < smallest:
            smallest = distance.iloc[first]
            best = sorted(rows.index[order[: first + 1]])
    return best


def _last_blocks(variants: pd.DataFrame, among: np.ndarray, fraction: float) -> np.ndarray:
    """The last `fraction` of the rows of each chromosome; rows of one position stay together."""
    chosen = np.zeros(len(variants), dtype=bool)
    positions = variants["pos"].to_numpy()
    for chromosome in variants.loc[among, "contig"].unique():
        here = among & (variants["contig"] == chromosome).to_numpy()
        count = round(fraction * here.sum())
        if count:
            first = np.sort(positions[here])[-count]
            chosen |= here & (positions >= first)
    return chosen


def _random_dev_rows(variants: pd.DataFrame, trainable: np.ndarray) -> np.ndarray:
    """The released scripts' dev set (train_test_split in the order of the file, seed 42)."""
    from sklearn.model_selection import train_test_split  # a second to import, needed here only

    labels = variants["label"].to_numpy()
    rows = np.flatnonzero(trainable)
    rows = rows[np.argsort(variants["line"].to_numpy()[rows], kind="stable")]
    if np.unique(labels[rows], return_counts=True)[1].min(initial=len(rows)) < 2:
        raise LongscaleError(
            "protocol: a random dev set needs at least two training variants of each class"
        )
    _, dev = train_test_split(
        rows,
        test_size=RELEASED_DEV_FRACTION,
        random_state=RELEASED_SEED,
        stratify=labels[rows],
    )
    return np.isin(np.arange(len(variants)), dev)


def _check_classes(labels: np.ndarray, split: np.ndarray) -> None:
    """Training and early stopping need both classes."""
    for name in ("train", "dev"):
        for label in (0, 1):
            if not ((split == name) & (labels == label)).any():
                raise LongscaleError(
                    f"split: no {name} variant with label {label} is left "
                    f"({(split == GAP).sum()} rows overlap held-out windows or lie on "
                    "test chromosomes); shorter windows, other dev_chromosomes or another "
                    "dev_fraction would leave some"
                )


def summarise_splits(
    variants: pd.DataFrame, protocol: str, test_from: str, dev_from: str
) -> dict[str, Any]:
    """The summary of `assign_splits` for a table of final splits."""
    counts = {
        name: {str(label): int((rows == label).sum()) for label in (0, 1)}
        for name, rows in variants.groupby("split")["label"]
    }
    spans: dict[str, dict[str, list[int]]] = {}
    for (name, contig), pos in variants.groupby(["split", "contig"])["pos"]:
        spans.setdefault(name, {})[contig] = [int(pos.min()), int(pos.max())]
    in_training = spans.get("train", {})
    return {
        "protocol": protocol,
        "test_from": test_from,
        "dev_from": dev_from,
        "counts": counts,
        "dev_chromosomes": [name for name in spans.get("dev", {}) if name not in in_training],
        "spans": spans,
    }
