"""Simulated tasks of every kind of the probe stage, whose best possible prediction is known.

An assembly of their own (the `sim` tasks' stays as it is) carries loci of five tasks in the shapes
of the benchmark's files. Around each locus are slots, which hold one of a few elements, or
background, independently of each other. Labels follow from the elements: a variant has an effect in
a tissue if it hits its site and the tissue's element is there; expression is a linear function of
counts; a profile has signal where elements are, decaying over neighbouring bins. A context shows a
slot or it does not, so what can at best be predicted from it is known: `best_prediction`.

Places are 0-based in this module, 1-based in the CSV files.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from longscale.errors import LongscaleError
from longscale.files import atomic_folder
from longscale.tasks.gene_starts import distance_to_nearest
from longscale.tasks.probe_tasks import (
    CLASSIFICATION,
    EQTL_TSS_COLUMN,
    EXPRESSION_COLUMNS,
    INTERVAL_COLUMNS,
    PROBE_TASKS,
    PROFILE_COLUMNS,
    REGRESSION_GENES,
    REGRESSION_PROFILE,
    ProbeTask,
    multilabel_columns,
    shard_names,
)
from longscale.tasks.simulated import (
    Contig,
    draw_alleles,
    draw_background,
    list_contigs,
    write_assembly,
    write_element,
)

ACCESSION = "GCA_900000002.1_LongscaleSim2"
GENOME = "sim2"
ANNOTATION = "genes.gtf"
KINDS = ("variant", "interval", "multilabel", "expression", "profile")
SLOT_BP = 32
BIN_BP = 128
HALF_INTERVAL_BP = 100
VARIANT_POOL_BP = 128
VALID_SHARE, TEST_SHARE = 0.1, 0.2
"""Of a profile's rows, whose split is random, as the benchmark's."""

_COMPLEMENT = str.maketrans("ACGT", "TGCA")
_EMPTY = -1


@dataclass(frozen=True)
class TaskRecipe:
    """How one task draws its loci (see resources/simulated_probe.yaml)."""

    kind: str
    slots_bp: tuple[int, int]
    rates: dict[str, float]
    outputs: dict[str, str] = field(default_factory=dict)
    clear_bp: int = 0
    hits: float = 1.0
    penetrance: float = 1.0
    tissues: int = 0
    noise: float = 0.0
    decay: float = 0.0

    def offsets(self, element_bp: int) -> np.ndarray:
        """First base of each slot's element, in bp from the locus along the strand."""
        first, stop = self.slots_bp
        starts = np.arange(first, stop - element_bp + 1, SLOT_BP)
        ends = starts + element_bp
        return starts[(ends <= -self.clear_bp) | (starts >= self.clear_bp)]

    @property
    def is_regression(self) -> bool:
        return self.kind in ("expression", "profile")

    @property
    def bins(self) -> int:
        return (self.slots_bp[1] - self.slots_bp[0]) // BIN_BP if self.kind == "profile" else 1

    def output_names(self) -> list[str]:
        """Of the labels; a variant's outputs are tissues, each a row of its own."""
        if self.is_regression:
            return [f"tissue_{i}" for i in range(self.tissues)]
        return ["label"] if self.kind == "variant" else list(self.outputs)

    def faults(self, elements: Mapping[str, str]) -> Iterator[str]:
        """What cannot be drawn from, in words that begin with the key."""
        if self.kind not in KINDS:
            yield f"kind is {self.kind!r}, but must be one of {', '.join(KINDS)}"
        if list(self.rates) != list(elements):
            yield f"rates name {', '.join(self.rates)}, but must name {', '.join(elements)}"
        if not set(self.outputs.values()) <= set(elements):
            yield f"outputs name elements other than {', '.join(elements)}"
        if bool(self.tissues) != self.is_regression or bool(self.outputs) == self.is_regression:
            yield f"kind is {self.kind}: expression and profile have tissues, others outputs"
        if min(self.rates.values()) < 0 or sum(self.rates.values()) > 1:
            yield f"rates are {list(self.rates.values())}, but must be shares of 1"
        if not (0 <= self.hits <= 1 and 0 <= self.penetrance <= 1):
            yield "hits or penetrance is not from 0 to 1"
        if self.kind == "profile" and (self.slots_bp[1] - self.slots_bp[0]) % (2 * BIN_BP):
            yield f"slots_bp must span a multiple of {2 * BIN_BP} bp, in bins of {BIN_BP}"


@dataclass(frozen=True)
class ProbeRecipe:
    """The whole simulation: an assembly, elements, and the tasks written on it."""

    seed: int
    assembly: dict[str, Any]
    site: str
    elements: dict[str, str]
    tasks: dict[str, TaskRecipe]

    @classmethod
    def read(cls, path: str | Path, overrides: dict | None = None) -> "ProbeRecipe":
        """Read a recipe; `overrides` replaces keys of its `assembly` section. Raises LongscaleError
        naming the file and the key.
        """
        try:
            raw = yaml.safe_load(Path(path).read_text())
            tasks = {name: TaskRecipe(**row) for name, row in raw.pop("tasks").items()}
            recipe = cls(tasks=tasks, **raw)
        except (yaml.YAMLError, OSError, TypeError, KeyError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise LongscaleError(f"{path}: not a recipe of a simulation: {reason}") from error
        unknown = set(overrides or {}) - set(recipe.assembly)
        if unknown:
            raise LongscaleError(f"{path}: `assembly` has no key {sorted(unknown)[0]!r}")
        recipe.assembly.update(overrides or {})
        for fault in recipe.faults():
            raise LongscaleError(f"{path}: {fault}")
        return recipe

    @property
    def element_bp(self) -> int:
        return len(next(iter(self.elements.values())))

    def faults(self) -> Iterator[str]:
        """What would make the best prediction wrong, in words."""
        if len({len(element) for element in self.elements.values()}) != 1:
            yield "elements differ in length, but must not"
        for name, task in self.tasks.items():
            yield from (f"tasks.{name}.{fault}" for fault in task.faults(self.elements))
        reach = max(max(map(abs, task.slots_bp)) for task in self.tasks.values())
        if self.assembly["locus_bp"] < 2 * reach + SLOT_BP:
            yield (
                f"assembly.locus_bp is {self.assembly['locus_bp']}, but slots reach so far that it"
                f" must be at least {2 * reach + SLOT_BP}"
            )


@dataclass(frozen=True)
class Truth:
    """What a task's generator knows, row by row of its file; saved without pickle.

    slots (rows, slots): index of the element, -1 where there is none. offsets (slots,): first base
    of a slot, in bp from the anchor, in the direction of the strand. minus (rows,): on that strand.
    rates (elements,). weights (elements, outputs): what an element adds to each output; of a
    classification, 1 for the element that decides it. kernel (slots, bins): to which bins. hit
    (rows,): whether a variant changes its site (1 elsewhere). tissue (rows,): which output a row of
    a variant task is about, -1 elsewhere. base, scale (outputs,): of a regression, whose labels are
    (signal - base) / scale. penetrance: 0 marks a regression.
    """

    slots: np.ndarray
    offsets: np.ndarray
    minus: np.ndarray
    rates: np.ndarray
    weights: np.ndarray
    kernel: np.ndarray
    hit: np.ndarray
    tissue: np.ndarray
    base: np.ndarray
    scale: np.ndarray
    penetrance: np.ndarray
    element_bp: np.ndarray

    def save(self, path: str | Path) -> None:
        np.savez(path, **vars(self))

    @classmethod
    def load(cls, path: str | Path) -> "Truth":
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**dict(arrays))

    def visible(self, context_bp: int) -> np.ndarray:
        """Whether a context of that length shows each slot whole, bool (rows, slots)."""
        starts = np.where(
            self.minus[:, None], 1 - self.offsets - self.element_bp, self.offsets
        )  # from the anchor, on the genome
        left = context_bp // 2
        return (starts >= -left) & (starts + self.element_bp <= context_bp - left)


def best_prediction(truth: Truth, context_bp: int, *, with_tissue: bool = True) -> np.ndarray:
    """The expected label of each row given its context: float64 (rows, bins, outputs).

    For a classification it is the generator's posterior of label 1, and its AUROC the ceiling of
    any model; `with_tissue=False` is that of a model that is not told a variant's tissue. For a
    regression it is the noiseless signal, in the units of what a probe is trained on (counts as
    log(1 + x)); its correlations with the labels are the attainable ones. What a slot that the
    context does not show holds is unknown: its expectation is taken.
    """
    seen = truth.visible(context_bp)
    if not truth.penetrance:
        return _signal(truth, seen)
    hidden = (~seen).sum(axis=1)[:, None]  # rows, 1
    is_there = _one_hot(truth.slots, len(truth.rates)) & seen[:, :, None]  # rows, slots, elements
    absent = np.where(is_there.any(axis=1), 0.0, (1 - truth.rates) ** hidden)  # rows, elements
    effect = (1 - absent) @ truth.weights * truth.hit[:, None]  # rows, outputs
    chance = effect * truth.penetrance + (1 - effect) * (1 - truth.penetrance)
    if (truth.tissue >= 0).all():
        own = chance[np.arange(len(chance)), truth.tissue]
        chance = (own if with_tissue else chance.mean(axis=1))[:, None]
    return chance[:, None, :]


def _signal(truth: Truth, seen: np.ndarray) -> np.ndarray:
    """The noiseless signal where `seen` (rows, slots) tells which slots are known."""
    held = np.where(seen[:, :, None], _one_hot(truth.slots, len(truth.rates)), truth.rates)
    signal = np.einsum("nse,eo,sb->nbo", held, truth.weights, truth.kernel, optimize=True)
    return (signal - truth.base) / truth.scale


def _one_hot(slots: np.ndarray, elements: int) -> np.ndarray:
    return slots[:, :, None] == np.arange(elements)


# --- drawing ------------------------------------------------------------------------------------


@dataclass
class Loci:
    """The loci of one task, in the order of its file: a row each."""

    contig: np.ndarray
    anchor: np.ndarray
    minus: np.ndarray
    split: np.ndarray
    slots: np.ndarray
    hit: np.ndarray
    alleles: list[tuple[str, str]]


def draw_slots(rng: np.random.Generator, task: TaskRecipe, count: int, slots: int) -> np.ndarray:
    """What `count` loci hold: index of the element or -1, int8 (count, slots)."""
    rates = np.array(list(task.rates.values()))
    shares = [1 - rates.sum(), *rates]
    drawn = rng.choice(np.arange(_EMPTY, len(rates)), size=(count, slots), p=shares)
    return drawn.astype(np.int8)


def simulate(recipe: ProbeRecipe) -> tuple[list[tuple[Contig, np.ndarray]], dict[str, Loci]]:
    """Draw the whole assembly and the loci of every task."""
    shape, assembly = recipe.assembly, []
    drawn = {name: [] for name in recipe.tasks}
    for index, contig in enumerate(list_contigs(shape["chromosomes"], ACCESSION)):
        rng = np.random.default_rng([recipe.seed, index])
        if index >= shape["chromosomes"]:
            length = shape["mitochondrion_bp" if contig.ucsc == "chrM" else "unplaced_bp"]
            assembly.append((contig, draw_background(rng, length, shape["gc"])))
            continue
        loci_count = shape["loci_per_chromosome"] * len(recipe.tasks)
        sequence = draw_background(rng, shape["locus_bp"] * (loci_count + 1), shape["gc"])
        is_test = index >= shape["chromosomes"] - shape["test_chromosomes"]
        for number, (name, task) in enumerate(recipe.tasks.items()):
            steps = np.arange(number, loci_count, len(recipe.tasks)) + 1
            anchors = steps * shape["locus_bp"]
            loci = plant(rng, recipe, task, contig.ucsc, sequence, anchors)
            loci.split[:] = "test" if is_test else "train"
            drawn[name].append(loci)
        assembly.append((contig, sequence))
    return assembly, {name: _joined(parts) for name, parts in drawn.items()}


def _joined(parts: list[Loci]) -> Loci:
    columns = {key: [vars(part)[key] for part in parts] for key in vars(parts[0])}
    alleles = [pair for part in columns.pop("alleles") for pair in part]
    return Loci(alleles=alleles, **{key: np.concatenate(c) for key, c in columns.items()})


def plant(
    rng: np.random.Generator,
    recipe: ProbeRecipe,
    task: TaskRecipe,
    contig: str,
    sequence: np.ndarray,
    anchors: np.ndarray,
) -> Loci:
    """Write the elements of a task's loci on one chromosome around their 0-based `anchors`."""
    count, offsets = len(anchors), task.offsets(recipe.element_bp)
    slots = draw_slots(rng, task, count, len(offsets))
    minus = (rng.random(count) < 0.5) & (task.kind == "expression")
    hit = (rng.random(count) < task.hits) | (task.kind != "variant")
    alleles = []
    for row, anchor in enumerate(anchors):
        if task.kind == "variant":
            # In the middle of the site, or 4 bp before it: both see the site.
            write_element(
                sequence, anchor - (len(recipe.site) // 2 if hit[row] else -4), recipe.site
            )
        for offset, held in zip(offsets, slots[row], strict=True):
            if held != _EMPTY:
                element = list(recipe.elements.values())[held]
                write_on_strand(sequence, anchor, offset, element, minus[row])
        alleles.append(draw_alleles(rng, sequence, anchor, {"snv": 1.0}))
    contigs = np.full(count, contig, dtype=object)
    return Loci(contigs, anchors, minus, np.full(count, "", object), slots, hit, alleles)


def write_on_strand(
    sequence: np.ndarray, anchor: int, offset: int, element: str, minus: bool
) -> None:
    """Write an element `offset` bp from the anchor in the direction of the strand."""
    if minus:
        element = element.translate(_COMPLEMENT)[::-1]
        offset = 1 - offset - len(element)
    write_element(sequence, anchor + offset, element)


# --- truth and labels ---------------------------------------------------------------------------


def draw_truth(
    rng: np.random.Generator, task: TaskRecipe, loci: Loci, element_bp: int
) -> tuple[Truth, np.ndarray]:
    """The truth of a task and its labels, float64 (rows, bins, outputs), as a probe sees them.

    A variant task has a row for each locus and tissue, in that order.
    """
    offsets = task.offsets(element_bp)
    count, elements = len(loci.anchor), list(task.rates)
    tissue = np.full(count, -1)
    rows = np.arange(count)
    if task.kind == "variant":
        rows, tissue = np.divmod(np.arange(count * len(task.outputs)), len(task.outputs))
    outputs = task.tissues or len(task.outputs)
    if task.is_regression:
        weights = rng.normal(size=(len(elements), outputs))
        weights = np.abs(weights) if task.kind == "profile" else weights
    else:
        decides = np.array([elements.index(element) for element in task.outputs.values()])
        weights = (np.arange(len(elements))[:, None] == decides).astype(float)
    truth = Truth(
        loci.slots[rows], offsets, loci.minus[rows], np.array(list(task.rates.values())), weights,
        _kernel(task, offsets), loci.hit[rows], tissue, np.zeros(outputs), np.ones(outputs),
        np.array(0.0 if task.is_regression else task.penetrance), np.array(element_bp),
    )  # fmt: skip
    if task.is_regression:
        return _draw_values(rng, task, truth)
    # The truth of a context that shows every slot, without the noise of the labels.
    shown = Truth(**{**vars(truth), "penetrance": np.array(1.0)})
    effect = best_prediction(shown, 4 * max(map(abs, task.slots_bp))) > 0.5
    flipped = rng.random(effect.shape) >= task.penetrance
    return truth, (effect ^ flipped).astype(float)


def _kernel(task: TaskRecipe, offsets: np.ndarray) -> np.ndarray:
    """(slots, bins): decay to the power of the distance in bins; 1 where there is one bin."""
    if task.kind != "profile":
        return np.ones((len(offsets), 1))
    of_slot = (offsets - task.slots_bp[0]) // BIN_BP
    return task.decay ** np.abs(of_slot[:, None] - np.arange(task.bins))


def _draw_values(
    rng: np.random.Generator, task: TaskRecipe, truth: Truth
) -> tuple[Truth, np.ndarray]:
    """Signal and noise; expression is standardised, as the benchmark's file is, and a profile
    lifted above 0, so that it can be written as counts."""
    signal = _signal(truth, np.ones(truth.slots.shape, bool))  # rows, bins, outputs
    spread = signal.std(axis=(0, 1))
    values = signal + task.noise * spread * rng.normal(size=signal.shape)
    if task.kind == "profile":
        base, scale = np.minimum(values.min(axis=(0, 1)), 0), np.ones_like(spread)
    else:
        base, scale = values.mean(axis=(0, 1)), values.std(axis=(0, 1))
    truth = Truth(**{**vars(truth), "base": base, "scale": scale})
    return truth, (values - base) / scale


# --- the files ----------------------------------------------------------------------------------


def probe_tasks(recipe: ProbeRecipe) -> dict[str, ProbeTask]:
    """The simulated tasks as rows like those of `PROBE_TASKS`."""
    return {name: _probe_task(recipe, name, task) for name, task in recipe.tasks.items()}


def find_task(
    name: str, recipe: str | Path | None = None, overrides: dict | None = None
) -> ProbeTask:
    """The benchmark's task of that name, or that of a recipe (a file; `overrides` as in
    `ProbeRecipe.read`).
    """
    return PROBE_TASKS.get(name) or probe_tasks(ProbeRecipe.read(recipe, overrides))[name]


def ceiling_table(
    truth: Truth, rows: pd.DataFrame, names: list[str], context_bp: int
) -> pd.DataFrame:
    """`best_prediction` for the test rows of a task: columns `row`, in a profile `bin`, and one per
    output (`names`).

    `rows`: the task's (columns `row`, `line`, `split`); lines count from 1, a header included.
    """
    test = rows[rows["split"] == "test"]
    best = best_prediction(truth, context_bp)[test["line"].to_numpy() - 2]  # rows bins outputs
    bins = best.shape[1]
    places = {"row": test["row"].to_numpy().repeat(bins)}
    if truth.kernel.shape[1] > 1:
        places["bin"] = np.tile(np.arange(bins), len(test))
    values = pd.DataFrame(best.reshape(-1, len(names)), columns=names)
    return pd.concat([pd.DataFrame(places), values], axis=1)


def _probe_task(recipe: ProbeRecipe, name: str, task: TaskRecipe) -> ProbeTask:
    shape = recipe.assembly
    trained = shape["chromosomes"] - shape["test_chromosomes"]
    rows = [shape["loci_per_chromosome"] * n for n in (trained, shape["test_chromosomes"])]
    if task.kind == "variant":
        rows = [len(task.outputs) * count for count in rows]
    half = task.slots_bp[1]
    splits = _profile_split_sizes(sum(rows)) if task.kind == "profile" else {}
    columns = {
        "variant": PROBE_TASKS["variant_effect_causal_eqtl"].columns,
        "interval": INTERVAL_COLUMNS,
        "multilabel": multilabel_columns("HISTONES"),
        "expression": EXPRESSION_COLUMNS,
        "profile": PROFILE_COLUMNS,
    }[task.kind]
    pools = {"variant": (VARIANT_POOL_BP,) * 2, "interval": None,
             "multilabel": (HALF_INTERVAL_BP,) * 2,
             "expression": (-task.slots_bp[0], task.slots_bp[1]),
             "profile": (half,) * 2}  # fmt: skip
    metrics = {"expression": REGRESSION_GENES, "profile": REGRESSION_PROFILE}
    files = {"rows": f"{name}/rows.csv"}
    if task.is_regression:
        files["names"] = f"{name}/label_mapping.csv"
        files |= (
            {"shards": f"{name}/targets_subset"} if splits else {"labels": f"{name}/values.csv"}
        )
    tests = range(trained + 1, shape["chromosomes"] + 1)
    if splits:
        rows = [splits["train"] + splits["valid"], splits["test"]]
    return ProbeTask(
        name, task.kind, GENOME, files, columns,
        "random" if splits else tuple(f"chr{i}" for i in tests),
        outputs=len(task.output_names()), pool_bp=pools[task.kind],
        hidden_layers=1 if task.kind == "expression" else 2,
        metrics=metrics.get(task.kind, CLASSIFICATION), rows=tuple(rows), megabytes=1.0,
        log1p=task.kind == "profile", bins=task.bins, bin_bp=BIN_BP if splits else None,
        shard_rows=splits,
    )  # fmt: skip


def _profile_split_sizes(rows: int) -> dict[str, int]:
    valid, test = round(VALID_SHARE * rows), round(TEST_SHARE * rows)
    return {"train": rows - valid - test, "valid": valid, "test": test}


def write_simulation(recipe: ProbeRecipe, folder: str | Path) -> None:
    """Write the assembly in NCBI's layout, its genes (`genes.gtf`), and of each task a folder with
    its files and `{task}.truth.npz` beside it; whole or not at all.
    """
    assembly, all_loci = simulate(recipe)
    tasks = probe_tasks(recipe)
    starts = _gene_starts(recipe, all_loci)
    with atomic_folder(folder) as part:
        write_assembly(assembly, part, ACCESSION)
        _write_annotation(part / ANNOTATION, starts)
        for number, (name, loci) in enumerate(all_loci.items()):
            (part / name).mkdir()
            rng = np.random.default_rng([recipe.seed, 1_000 + number])
            truth, labels = draw_truth(rng, recipe.tasks[name], loci, recipe.element_bp)
            truth.save(part / f"{name}.truth.npz")
            _write_task(rng, recipe.tasks[name], tasks[name], loci, labels, starts, part)


def _gene_starts(recipe: ProbeRecipe, all_loci: Mapping[str, Loci]) -> pd.DataFrame:
    """contig, anchor, minus of all genes of the expression tasks."""
    names = [name for name, task in recipe.tasks.items() if task.kind == "expression"]
    keys = ("contig", "anchor", "minus")
    return pd.concat(
        [pd.DataFrame({key: vars(all_loci[name])[key] for key in keys}) for name in names]
    )


def _write_annotation(path: Path, starts: pd.DataFrame) -> None:
    """Transcripts of 100 bp as GTF."""
    lines = ["##description: genes of LongscaleSim2\n"]
    for number, row in enumerate(starts.itertuples()):
        first = row.anchor - 99 if row.minus else row.anchor
        cells = [row.contig, "longscale", "transcript", first + 1, first + 100, ".",
                 "-" if row.minus else "+", ".", f'gene_id "SIMG{number:05d}";']  # fmt: skip
        lines.append("\t".join(map(str, cells)) + "\n")
    path.write_text("".join(lines))


def _write_task(
    rng: np.random.Generator,
    task: TaskRecipe,
    probe: ProbeTask,
    loci: Loci,
    labels: np.ndarray,
    starts: pd.DataFrame,
    folder: Path,
) -> None:
    """A task's files, in the benchmark's shapes."""
    table = pd.DataFrame({"chrom": loci.contig, "split": loci.split})
    if task.kind == "variant":
        table = _variant_table(task, loci, labels, starts)
    elif task.kind == "interval":
        first = loci.anchor - HALF_INTERVAL_BP + 1
        table = table.rename(columns={"chrom": "CHROM"}).assign(
            START=first, STOP=first + 2 * HALF_INTERVAL_BP, label=labels[:, 0, 0].astype(int)
        )
    elif task.kind == "multilabel":
        lists = [str(row) for row in labels[:, 0].astype(int).tolist()]
        table = table.rename(columns={"chrom": "CHROM"}).assign(POS=loci.anchor + 1, HISTONES=lists)
    elif task.kind == "expression":
        strand = np.where(loci.minus, "-", "+")
        table = table.assign(strand=strand, CAGE_representative_TSS=loci.anchor + 1)
        values = pd.DataFrame(labels[:, 0], columns=task.output_names())
        values.to_csv(folder / probe.files["labels"], index=False)
    else:
        table = _write_profile(rng, probe, table.assign(middle=loci.anchor), labels, folder)
    if task.is_regression:
        names = pd.DataFrame({"index": range(task.tissues), "tissue": task.output_names()})
        names.to_csv(folder / probe.files["names"], index=False)
    table.to_csv(folder / probe.files["rows"], index=False)


def _variant_table(
    task: TaskRecipe, loci: Loci, labels: np.ndarray, starts: pd.DataFrame
) -> pd.DataFrame:
    """One row per variant and tissue, as `All_Tissues.csv`."""
    known = {str(name): np.sort(rows["anchor"]) for name, rows in starts.groupby("contig")}
    distances = distance_to_nearest(pd.Series(loci.contig), loci.anchor, known)
    loci_table = pd.DataFrame(
        {
            "CHROM": loci.contig,
            "POS": loci.anchor + 1,
            "REF": [ref for ref, _ in loci.alleles],
            "ALT": [alt for _, alt in loci.alleles],
            "split": loci.split,
            EQTL_TSS_COLUMN: distances.astype(int),
        }
    )
    table = loci_table.loc[loci_table.index.repeat(len(task.outputs))]
    return table.assign(
        tissue=list(task.outputs) * len(loci.anchor), label=labels[:, 0, 0].astype(int)
    )


def _write_profile(
    rng: np.random.Generator,
    probe: ProbeTask,
    table: pd.DataFrame,
    labels: np.ndarray,
    folder: Path,
) -> pd.DataFrame:
    """Write the shards; the split is random, as the benchmark's."""
    half = probe.pool_bp[0]
    names = list(probe.shard_rows)
    split = rng.permutation(np.repeat(names, list(probe.shard_rows.values())))
    number = pd.Series(split).groupby(split).cumcount().to_numpy()
    counts = np.expm1(labels).astype(np.float32)
    (folder / probe.files["shards"]).mkdir()
    for name in names:
        rows = np.flatnonzero(split == name)
        for shard in shard_names(name, len(rows)):
            first, last = map(int, shard.removesuffix(".npz").split("-")[2:])
            arrays = {
                f"target-{name}-{i}.npy": counts[rows[i]][None] for i in range(first, last + 1)
            }
            np.savez(folder / probe.files["shards"] / shard, **arrays)
    starts = table["middle"] - half + 1
    return table[["chrom"]].assign(
        start=starts, stop=starts + 2 * half, split=split, npy_idx=number
    )
