"""Small networks on frozen embeddings, trained in folds.

What is measured is the embedding, so the probe is that of the Genomics Long-Range Benchmark: a
multilayer perceptron, Adam, a fixed number of epochs, of which the one with the lowest validation
loss is kept. Whatever is fitted (standardisation of embeddings and labels, the list of tissues) is
fitted on the training rows of the fold.
"""

import copy
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from torch import nn

from longscale.errors import LongscaleError
from longscale.files import atomic_path
from longscale.training.probe_data import Batch, Examples, Moments, Source, Standard
from longscale.training.probe_folds import (
    FOLDS,
    Folds,
    chromosome_folds,
    count_overlaps,
    random_folds,
)

PREDICTED_POSITIONS = 16_384

NON_FINITE_LOSS, NOT_CONVERGED = "non_finite_loss", "not_converged"


@dataclass(frozen=True)
class ProbeKind:
    """What a kind of task is probed with.

    hidden_layers: of twice the embedding's width each. regression: squared error on standardised
    labels instead of cross-entropy on logits. profile: one prediction per bin, and random
    tenths instead of chromosomes to validate on. batch: positions of a step.
    """

    hidden_layers: int = 2
    regression: bool = False
    profile: bool = False
    batch: int = 256


PROBE_KINDS = {
    "variant": ProbeKind(),
    "interval": ProbeKind(),
    "multilabel": ProbeKind(batch=1024),
    "expression": ProbeKind(hidden_layers=1, regression=True),
    "profile": ProbeKind(regression=True, profile=True, batch=4096),
}


@dataclass(frozen=True)
class ProbeSettings:
    """How probes are trained. `batch`: positions of a step, None for that of the kind."""

    epochs: int = 20
    learning_rate: float = 1e-3
    batch: int | None = None
    folds: int = FOLDS
    seed: int = 1
    block_bytes: int = 256 << 20


class Probe(nn.Module):
    """A multilayer perceptron on standardised features and a one-hot tissue; carries both
    standards, so it takes features as they are stored. Gives logits, or standardised labels."""

    def __init__(
        self,
        features: Standard,
        labels: Standard | None,
        *,
        known_tissues: np.ndarray,
        hidden: Sequence[int],
        outputs: int,
    ) -> None:
        """`labels`: the standard that labels are brought to; None leaves them as they are.
        `known_tissues`: (tissues,) which of them there are in training; the others are zeros, too.
        """
        super().__init__()
        labels = labels or Standard(np.zeros(outputs), np.ones(outputs))
        for name, standard in (("feature", features), ("label", labels)):
            self.register_buffer(f"{name}_mean", torch.tensor(standard.mean).float())
            self.register_buffer(f"{name}_spread", torch.tensor(standard.spread).float())
        self.register_buffer("known_tissues", torch.tensor(known_tissues).float())
        layers: list[nn.Module] = []
        width = len(features.mean) + len(known_tissues)
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU()]
            width = size
        self.layers = nn.Sequential(*layers, nn.Linear(width, outputs))

    def forward(self, features: torch.Tensor, tissue: torch.Tensor) -> torch.Tensor:
        """(n, outputs) of `features` (n, d) and `tissue` (n,) codes; no tissue is all zeros."""
        standard = (features.float() - self.feature_mean) / self.feature_spread
        one_hot = F.one_hot(tissue + 1, len(self.known_tissues) + 1)[:, 1:] * self.known_tissues
        return self.layers(torch.cat([standard, one_hot], dim=1))

    def targets(self, labels: torch.Tensor) -> torch.Tensor:
        """Labels (n, outputs) as this probe learns them."""
        return (labels - self.label_mean) / self.label_spread

    def on_device(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Features, tissue and targets of a batch."""
        device = self.label_mean.device
        features, tissue, labels = (
            torch.from_numpy(values).to(device)
            for values in (batch.features, batch.tissue, batch.labels)
        )
        return features, tissue, self.targets(labels)


@dataclass(frozen=True)
class Trained:
    """A fold's probe at its best epoch (1-based), and the losses of all epochs."""

    probe: Probe
    best_epoch: int
    train_losses: list[float]
    valid_losses: list[float]

    @property
    def flags(self) -> list[str]:
        """`non_finite_loss`, or `not_converged` where the last epoch was the best."""
        if not all(map(math.isfinite, self.train_losses + self.valid_losses)):
            return [NON_FINITE_LOSS]
        return [NOT_CONVERGED] if self.best_epoch == len(self.valid_losses) else []


def train_fold(
    examples: Examples,
    folds: Folds,
    fold: int,
    moments: Moments,
    kind: ProbeKind,
    settings: ProbeSettings,
) -> Trained:
    """Train the probe of one fold; a function of places, embeddings, labels and the seed alone.

    `moments` of the whole task; only those of the fold's training groups are used.
    """
    probe = _new_probe(examples, folds, fold, moments, kind, settings)
    optimiser = torch.optim.Adam(probe.parameters(), lr=settings.learning_rate)
    generator = np.random.default_rng([settings.seed, fold])
    train, valid = folds.train_rows(fold), folds.valid_rows(fold)
    size = settings.batch or kind.batch
    losses: tuple[list[float], list[float]] = ([], [])
    best, best_state = math.inf, copy.deepcopy(probe.state_dict())
    for _ in range(settings.epochs):
        shuffled = examples.batches(train, size, generator)
        losses[0].append(_train_epoch(probe, optimiser, shuffled, kind))
        losses[1].append(_mean_loss(probe, examples.batches(valid, size), kind))
        if losses[1][-1] < best:
            best, best_state = losses[1][-1], copy.deepcopy(probe.state_dict())
        if not math.isfinite(losses[0][-1]):
            break
    probe.load_state_dict(best_state)
    best_epoch = losses[1].index(best) + 1 if math.isfinite(best) else 0
    return Trained(probe.eval(), best_epoch, *losses)


def _new_probe(
    examples: Examples,
    folds: Folds,
    fold: int,
    moments: Moments,
    kind: ProbeKind,
    settings: ProbeSettings,
) -> Probe:
    features, labels = moments.standard(folds.train_groups(fold))
    seen = np.unique(examples.tissue[folds.train_rows(fold)])
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.default_rng([settings.seed, fold]).integers(2**62)))
        probe = Probe(
            features,
            labels if kind.regression else None,
            known_tissues=np.isin(np.arange(examples.tissues), seen),
            hidden=[2 * examples.source.width] * kind.hidden_layers,
            outputs=examples.outputs,
        )
    return probe.to("cuda" if torch.cuda.is_available() else "cpu")


def _loss(probe: Probe, batch: Batch, kind: ProbeKind) -> torch.Tensor:
    features, tissue, targets = probe.on_device(batch)
    loss = F.mse_loss if kind.regression else F.binary_cross_entropy_with_logits
    return loss(probe(features, tissue), targets)


def _train_epoch(
    probe: Probe, optimiser: torch.optim.Optimizer, batches: Iterable[Batch], kind: ProbeKind
) -> float:
    """One pass; the mean loss of its steps, by position."""
    probe.train()
    total, positions = 0.0, 0
    for batch in batches:
        loss = _loss(probe, batch, kind)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total = total + loss.detach().double() * len(batch.labels)
        positions += len(batch.labels)
    return float(total) / positions


@torch.inference_mode()
def _mean_loss(probe: Probe, batches: Iterable[Batch], kind: ProbeKind) -> float:
    probe.eval()
    total, positions = 0.0, 0
    for batch in batches:
        total = total + _loss(probe, batch, kind).double() * len(batch.labels)
        positions += len(batch.labels)
    return float(total) / positions


# ------------------------------------------------------------------------- a task's cell


def make_examples(
    rows: pd.DataFrame, source: Source, labels: np.ndarray, kind: ProbeKind, **options: Any
) -> Examples:
    """`rows` (columns `row`, `tissue`, `split`), embeddings and labels of a task together.

    The tissues are those of the rows that are no test rows. `options`: `first_bin`, `log_labels`
    and `block_bytes` of `Examples`.

    Raises:
        LongscaleError: there are not as many embeddings as labels, or a class is not 0 or 1.
    """
    if source.rows != len(labels) or rows["row"].max() >= source.rows:
        raise LongscaleError(
            f"{source.rows:,} embeddings, {len(labels):,} labels and rows up to number "
            f"{rows['row'].max():,}: a task has one of each per row"
        )
    if not kind.regression and not np.isin(labels, [0, 1]).all():
        raise LongscaleError("a label of a classification task is neither 0 nor 1")
    known = sorted(set(rows["tissue"][rows["split"] != "test"]) - {""})
    tissue = np.full(len(labels), -1)
    tissue[rows["row"]] = pd.Index(known).get_indexer(rows["tissue"]) if known else -1
    return Examples(
        source,
        tissue,
        len(known),
        labels,
        profile=kind.profile,
        **options,
    )


def run_probe(
    rows: pd.DataFrame,
    source: Source,
    labels: np.ndarray,
    folder: str | Path,
    *,
    kind: str,
    outputs: Sequence[str],
    context_bp: int,
    log1p: bool = False,
    settings: ProbeSettings = ProbeSettings(),
    first_bin: int = 0,
    provenance: Mapping[str, Any] | None = None,
    report: Callable[[str], None] = print,
) -> None:
    """Train the probes of all folds and write `predictions.parquet`, then `folds.json`.

    Args:
        rows: the task's rows, or those of them that have an embedding.
        source: their embeddings, by row number.
        labels: (rows, outputs), of a profile (rows, bins, outputs); may be memory-mapped.
        folder: where both files go.
        kind: a key of `PROBE_KINDS`.
        outputs: names of the labels.
        context_bp: the model's context, for the count of overlapping contexts.
        log1p: whether a label x is learned as log(1 + x).
        settings: of the training.
        first_bin: the profile's bin of the first embedding.
        provenance: goes into `folds.json`.
        report: takes a line per fold.

    Raises:
        LongscaleError: rows, embeddings and labels do not fit, or there is nothing to train or
            to test on.
    """
    probe_kind = PROBE_KINDS[kind]
    make_folds = random_folds if probe_kind.profile else chromosome_folds
    folds = make_folds(rows, folds=settings.folds, seed=settings.seed)
    if not len(folds.test()):
        raise LongscaleError("column 'split' of the rows is nowhere 'test': nothing to score")
    examples = make_examples(
        rows,
        source,
        labels,
        probe_kind,
        first_bin=first_bin,
        log_labels=log1p,
        block_bytes=settings.block_bytes,
    )
    moments = Moments.of(examples, folds)
    trained = []
    for fold in range(settings.folds):
        trained.append(train_fold(examples, folds, fold, moments, probe_kind, settings))
        report(_fold_line(fold, folds, trained[-1]))
    folder = Path(folder)
    _write_predictions(folder / "predictions.parquet", examples, folds, trained, outputs)
    record = {
        "kind": kind,
        "outputs": list(outputs),
        "log1p": log1p,
        "settings": asdict(settings),
        "bins": [first_bin, first_bin + examples.positions] if probe_kind.profile else None,
        "folds": [
            _fold_record(rows, folds, fold, one, context_bp) for fold, one in enumerate(trained)
        ],
        "provenance": dict(provenance or {}),
    }
    with atomic_path(folder / "folds.json") as part:
        part.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")


def _fold_line(fold: int, folds: Folds, trained: Trained) -> str:
    lowest = min(trained.valid_losses)
    return (
        f"fold {fold + 1}/{len(folds.valid)}, validated on {folds.names[folds.valid[fold]]}: "
        f"loss {lowest:.4f} at epoch {trained.best_epoch} of {len(trained.valid_losses)}"
    )


def _fold_record(
    rows: pd.DataFrame, folds: Folds, fold: int, trained: Trained, context_bp: int
) -> dict[str, Any]:
    """What `folds.json` tells of a fold; a loss that is not finite is null."""
    parts = {"train": folds.train_rows(fold), "valid": folds.valid_rows(fold), "test": folds.test()}
    finite = [loss if math.isfinite(loss) else None for loss in trained.valid_losses]
    return {
        "validation": folds.names[folds.valid[fold]],
        "rows": {name: len(part) for name, part in parts.items()},
        "overlapping_train": {
            name: count_overlaps(rows, parts[name], parts["train"], context_bp)
            for name in ("valid", "test")
        },
        "epochs": len(trained.valid_losses),
        "best_epoch": trained.best_epoch,
        "best_valid_loss": finite[trained.best_epoch - 1] if trained.best_epoch else None,
        "valid_losses": finite,
        "flags": trained.flags,
        "label_mean": trained.probe.label_mean.tolist(),
        "label_spread": trained.probe.label_spread.tolist(),
    }


@torch.inference_mode()
def _write_predictions(
    path: Path, examples: Examples, folds: Folds, trained: list[Trained], outputs: Sequence[str]
) -> None:
    """Stream the test rows, by number, through the probes of all folds.

    Columns `row`, in a profile `bin`, and `fold{fold}:{output}` float32: the logit of label 1, or
    the label (its log(1 + x)) on the scale of the fold's training rows, which `label_mean` and
    `label_spread` tell.
    """
    names = [f"fold{fold}:{output}" for fold in range(len(trained)) for output in outputs]
    places = ["row", "bin"] if examples.profile else ["row"]
    schema = pa.schema(
        [(name, pa.int64()) for name in places] + [(name, pa.float32()) for name in names]
    )
    test = np.sort(folds.test())
    done = 0
    with atomic_path(path) as part, pq.ParquetWriter(part, schema) as writer:
        for block in examples.batches(test, PREDICTED_POSITIONS):
            row, position = np.divmod(done + np.arange(len(block.labels)), examples.positions)
            done += len(block.labels)
            columns = [test[row], examples.first_bin + position][: len(places)]
            for one in trained:
                features, tissue, _ = one.probe.on_device(block)
                columns.extend(one.probe(features, tissue).cpu().numpy().T.copy())
            writer.write_table(pa.table(columns, schema=schema))


# ------------------------------------------------------------------------- without training


def zero_shot_scores(
    source: Source, numbers: np.ndarray, *, block_rows: int = 4096
) -> pd.DataFrame:
    """How far the embeddings of both alleles are apart: columns `row`, `cosine`, `l2`.

    `source` has two pieces, reference and alternative. `cosine` is 1 minus the cosine, `l2` the
    Euclidean distance; both are larger where the alleles differ more. The cosine of a zero vector
    is NaN. Raises `LongscaleError` without two pieces, and where there is no row to score.
    """
    if source.pieces != 2:
        raise LongscaleError(
            f"the embeddings have {source.pieces} pieces a row; the distance between alleles needs "
            "two, reference and alternative"
        )
    if not len(numbers):
        raise LongscaleError("column 'split' of the rows is nowhere 'test': nothing to score")
    parts = []
    for start in range(0, len(numbers), block_rows):
        rows = numbers[start : start + block_rows]
        ref, alt = source.read(rows).astype(np.float64).swapaxes(0, 1)
        lengths = np.linalg.norm(ref, axis=1) * np.linalg.norm(alt, axis=1)
        with np.errstate(invalid="ignore"):
            cosine = 1 - np.einsum("nd,nd->n", ref, alt) / lengths
        l2 = np.linalg.norm(alt - ref, axis=1)
        parts.append(pd.DataFrame({"row": rows, "cosine": cosine, "l2": l2}))
    return pd.concat(parts, ignore_index=True)


def write_zero_shot(scores: pd.DataFrame, path: str | Path) -> None:
    """Write `zero_shot.parquet`: `row` and one column per score, larger where label 1 is likelier.

    Raises:
        LongscaleError: a row stands twice, or there is no score.
    """
    if scores["row"].duplicated().any() or scores.shape[1] < 2:
        raise LongscaleError(f"{path}: zero-shot scores have each row once and a column per score")
    with atomic_path(path) as part:
        scores.to_parquet(part, index=False)
