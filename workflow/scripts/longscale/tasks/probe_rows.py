"""From the files of a probe task to rows that can be embedded, their labels, and a ledger.

Positions in the files are 1-based; places in the rows are 0-based and half-open. The rules are
those of the benchmark's loading script (InstaDeepAI/genomics-long-range-benchmark): a position p is
the base p - 1; an interval [START, STOP] is the bases [START - 1, STOP - 1).

A row's context of L bp is [anchor - L // 2, anchor - L // 2 + L); what is averaged is
[pool_start, pool_stop). Both are on the genome; "-" rows are reverse-complemented later.
"""

import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from longscale.errors import LongscaleError
from longscale.files import atomic_path
from longscale.genome.sequence import Genome
from longscale.tasks.gene_starts import distance_to_nearest
from longscale.tasks.probe_tasks import ProbeTask
from longscale.tasks.splits import SPLIT_NAMES
from longscale.variants.accept import (
    LABELS,
    REJECTED_COLUMNS,
    Ledger,
    accept_variants,
    parse_whole,
    resolve_contigs,
)
from longscale.variants.readers import DelimitedRow, read_delimited, read_variants
from longscale.variants.windows import has_window

ROW_COLUMNS = [
    *("row", "contig", "anchor", "strand", "pool_start", "pool_stop"),
    *("ref", "alt", "tissue", "split", "tss_distance", "line"),
]
LARGEST_LABEL = float(np.finfo(np.float16).max)

_BATCH_ROWS = 50_000
_TEXTS = ("contig", "strand", "ref", "alt", "tissue", "split")
_PLACES = ("anchor", "pool_start", "pool_stop", "line")
_SPLITS = {name: "valid" if split == "dev" else split for name, split in SPLIT_NAMES.items()}
# "[0, 1, 0]", also without commas or brackets and with 1.0 for 1.
_LABEL_LIST = r"^\s*\[?\s*[01](\.0*)?([,\s]\s*[01](\.0*)?)*\s*\]?\s*$"
_NAME_COLUMNS = ("name", "description", "label", "tissue", "track", "target", "identifier")


class ProbeRows(NamedTuple):
    """The rows of a task that can be used, and those that cannot.

    rows: ROW_COLUMNS, in the file's order. labels: float32 (rows, outputs); None for a `profile`,
    whose labels are streamed (`write_profile_labels`) from what `shard_rows` names: split and place
    of each row in the shards. names: of the outputs. rejected: the ledger, as in
    `variants.accept`. counts: rows, accepted, rejected, with rows == accepted + rejected.
    """

    rows: pd.DataFrame
    labels: np.ndarray | None
    names: list[str]
    rejected: pd.DataFrame
    counts: dict[str, int]
    shard_rows: pd.DataFrame | None = None


def read_rows(
    task: ProbeTask,
    files: Mapping[str, str | Path],
    genome: Genome,
    aliases: Mapping[str, str],
    *,
    context_bp: int = 0,
    gene_starts: Mapping[str, np.ndarray] | None = None,
) -> ProbeRows:
    """Read a task that is no `variant` one (those: `variant_rows`).

    `files`: the keys of `task.files` -> where they lie. Rows whose pool, or whose context of
    `context_bp` (the longest of a study, so that all lengths have the same rows), leaves its contig
    go to the ledger, and so does what cannot be read. `gene_starts` (`read_gene_starts`) gives the
    distances to the nearest TSS. Memory grows with the rows, not with the files. Raises
    LongscaleError where a file cannot be read, lacks a column or disagrees with another one.
    """
    ledger = Ledger()
    values = _Values.read(task, files["labels"]) if task.kind == "expression" else None
    count, frames, labels = 0, [], []
    lines = read_delimited(files["rows"], task.columns)
    while some := list(islice(lines, _BATCH_ROWS)):
        batch = _as_frame(some, task, first=count)
        count += len(batch)
        batch = _place(task, batch, genome, aliases, ledger, context_bp)
        batch, its_labels = _labels(task, batch, values, ledger)
        frames.append(_compact(batch, gene_starts))
        labels.append(its_labels)
    if not count:
        raise LongscaleError(f"{files['rows']}: the file holds no row; at least one is expected")
    if values is not None:
        values.require_rows(count, files["rows"])
    frame = pd.concat(frames, ignore_index=True)
    names = values.names if values else _output_names(task)
    if "names" in files:
        names = read_names(files["names"], task.outputs)
    is_profile = task.kind == "profile"
    shards = frame[["split", "shard_row"]] if is_profile else None
    labels = None if is_profile else np.concatenate(labels)
    return _found(frame, labels, names, ledger, count, shards)


def variant_rows(
    task: ProbeTask,
    accepted: pd.DataFrame,
    genome: Genome,
    *,
    context_bp: int = 0,
    tss_distances: pd.Series | None = None,
    gene_starts: Mapping[str, np.ndarray] | None = None,
) -> ProbeRows:
    """Accepted variants (`variants.accept`) as rows; the pool is centred on the variant.

    `tss_distances` (`read_tss_distances`: line -> bp) is used where given, else `gene_starts`.
    A variant whose pool or context of `context_bp` leaves its contig, for either allele, goes to
    the ledger. labels: (rows, 1).
    """
    ledger = Ledger()
    upstream, downstream = task.pool_bp
    needed_bp = max(context_bp, 2 * max(upstream, downstream))
    outside = ~has_window(genome, accepted, needed_bp)
    places = accepted.loc[outside, "contig"] + ":" + accepted.loc[outside, "pos"].astype("str")
    sentences = f"the window of {needed_bp:,} bp around " + places + " leaves the contig"
    inside = ledger.reject(accepted, outside, "out_of_bounds", sentences)
    inside = _check_splits(task, inside, ledger)
    anchor = inside["pos"] - 1
    frame = inside.assign(
        anchor=anchor,
        strand="",
        pool_start=anchor - upstream,
        pool_stop=anchor + downstream,
    )
    if tss_distances is not None:
        frame["tss_distance"] = inside["line"].map(tss_distances.abs()).astype(np.float64)
    labels = inside["label"].to_numpy(dtype=np.float32)[:, None]
    frame = _compact(frame, gene_starts).reset_index(drop=True)
    return _found(frame, labels, _output_names(task), ledger, len(accepted))


def read_variant_rows(
    task: ProbeTask,
    path: str | Path,
    genome: Genome,
    aliases: Mapping[str, str],
    *,
    context_bp: int = 0,
    gene_starts: Mapping[str, np.ndarray] | None = None,
) -> ProbeRows:
    """Read a `variant` task: its variants are accepted as those of any task, then made rows.

    The distance to the nearest TSS is the file's own where the task has a column for it. The ledger
    is that of both steps; counts are of alleles.
    """
    columns = dict(task.columns)
    distance = columns.pop("tss_distance", None)
    found = accept_variants(read_variants(path, columns), genome, aliases)
    own = read_tss_distances(path, distance) if distance else None
    rows = variant_rows(
        task,
        found.accepted,
        genome,
        context_bp=context_bp,
        tss_distances=own,
        gene_starts=gene_starts,
    )
    rejected = pd.concat([found.rejected, rows.rejected], ignore_index=True)
    counts = {
        "rows": len(rows.rows) + len(rejected),
        "accepted": len(rows.rows),
        "rejected": len(rejected),
    }
    return rows._replace(rejected=rejected, counts=counts)


def read_tss_distances(path: str | Path, column: str) -> pd.Series:
    """The column of a task's file that tells the distance to the nearest TSS: line -> bp.

    float64, NaN where it is no number. Raises LongscaleError as `read_delimited` does.
    """
    rows = [row for row in read_delimited(path, {"tss_distance": column}) if not row.problem]
    texts = pd.Series([row.values[0] for row in rows], dtype="str")
    return pd.Series(
        pd.to_numeric(texts, errors="coerce").to_numpy(np.float64), [row.line for row in rows]
    )


def _found(
    frame: pd.DataFrame,
    labels: np.ndarray | None,
    names: list[str],
    ledger: Ledger,
    count: int,
    shard_rows: pd.DataFrame | None = None,
) -> ProbeRows:
    rejected = ledger.frame()[REJECTED_COLUMNS]
    rows = frame.assign(row=np.arange(len(frame), dtype=np.int64))[ROW_COLUMNS]
    counts = {"rows": count, "accepted": len(rows), "rejected": len(rejected)}
    return ProbeRows(rows, labels, names, rejected, counts, shard_rows)


def _output_names(task: ProbeTask) -> list[str]:
    column = task.columns.get("labels", task.columns.get("label", "label"))
    return [column] if task.outputs == 1 else [f"{column}_{i}" for i in range(task.outputs)]


def _as_frame(lines: list[DelimitedRow], task: ProbeTask, first: int) -> pd.DataFrame:
    """Rows as text, with `line`, `problem`, `index` (place in the file, from `first` on) and the
    columns that only variants have, empty."""
    blank = ("",) * len(task.columns)
    batch = pd.DataFrame(
        [row.values or blank for row in lines], columns=list(task.columns), dtype="str"
    ).apply(lambda column: column.str.strip())
    return batch.assign(
        line=[row.line for row in lines],
        problem=pd.array([row.problem for row in lines], dtype="str"),
        index=np.arange(first, first + len(batch)),
        **dict.fromkeys(("ref", "alt", "tissue"), ""),
    )


def _place(
    task: ProbeTask,
    batch: pd.DataFrame,
    genome: Genome,
    aliases: Mapping[str, str],
    ledger: Ledger,
    context_bp: int,
) -> pd.DataFrame:
    """Contig, anchor, strand, pool and split of each row; what has none goes to the ledger."""
    broken = (batch["problem"] != "").to_numpy()
    batch = ledger.reject(batch, broken, "unparseable", batch.loc[broken, "problem"])
    for column in ("pos", "stop", "shard_row"):
        if column in task.columns:
            batch = parse_whole(batch, column, task.columns[column], ledger)
    batch = resolve_contigs(batch, genome, aliases, ledger)
    if "strand" in task.columns:
        bad = ~batch["strand"].isin(["+", "-"]).to_numpy()
        sentences = "the strand is '" + batch.loc[bad, "strand"] + "': it must be + or -"
        batch = ledger.reject(batch, bad, "unparseable", sentences)
    else:
        batch = batch.assign(strand="")
    batch = _check_splits(task, batch, ledger)
    if "stop" in task.columns:
        bad = (batch["stop"] <= batch["pos"]).to_numpy()
        ends = batch.loc[bad, ["pos", "stop"]].astype("str")
        sentences = "the interval ends at " + ends["stop"] + ", not after its start " + ends["pos"]
        batch = ledger.reject(batch, bad, "unparseable", sentences)
    return _check_bounds(batch.assign(**_spans(task, batch)), genome, ledger, context_bp)


def _check_splits(task: ProbeTask, batch: pd.DataFrame, ledger: Ledger) -> pd.DataFrame:
    """Our names of the splits; rows with another one go to the ledger."""
    split = _known_splits(task, batch)
    bad = (split == "").to_numpy()
    sentences = "the split is '" + batch.loc[bad, "split"] + "': it must be train, valid or test"
    return ledger.reject(batch, bad, "unparseable", sentences).assign(split=split[~bad])


def _known_splits(task: ProbeTask, rows: pd.DataFrame) -> pd.Series:
    """train, valid or test; where the file says nothing, by chromosome; "" where unknown."""
    given = rows["split"].str.strip().str.lower()
    split = given.map(_SPLITS).fillna("").astype("str")
    if task.test_chromosomes == "all":
        return split.mask(given == "", "test")
    if task.test_chromosomes == "random":
        return split
    is_test = rows["contig"].isin(task.test_chromosomes)
    return split.mask((given == "") & is_test, "test").mask((given == "") & ~is_test, "train")


def _spans(task: ProbeTask, batch: pd.DataFrame) -> dict[str, pd.Series]:
    """anchor, pool_start, pool_stop of each row."""
    first = batch["pos"] - 1
    if "stop" not in task.columns:
        return {"anchor": first, **_pool(task, first, batch["strand"])}
    anchor = first + (batch["stop"] - batch["pos"]) // 2
    if task.pool_bp is None:
        return {"anchor": anchor, "pool_start": first, "pool_stop": batch["stop"] - 1}
    return {"anchor": anchor, **_pool(task, anchor, batch["strand"])}


def _pool(task: ProbeTask, anchor: pd.Series, strand: pd.Series) -> dict[str, pd.Series]:
    """`task.pool_bp` around the anchor, mirrored on "-": its base stays the first downstream."""
    upstream, downstream = task.pool_bp
    is_minus = strand == "-"
    return {
        "pool_start": (anchor - upstream).mask(is_minus, anchor - downstream + 1),
        "pool_stop": (anchor + downstream).mask(is_minus, anchor + upstream + 1),
    }


def _check_bounds(
    batch: pd.DataFrame, genome: Genome, ledger: Ledger, context_bp: int
) -> pd.DataFrame:
    """Leave out rows whose pool or context is not inside their contig."""
    lengths = batch["contig"].map(genome.lengths).astype(np.int64)
    context = batch["anchor"] - context_bp // 2
    starts = batch["pool_start"].where(batch["pool_start"] < context, context)
    stops = batch["pool_stop"].where(
        batch["pool_stop"] > context + context_bp, context + context_bp
    )
    outside = ((starts < 0) | (stops > lengths)).to_numpy()
    contig, length = batch.loc[outside, "contig"], lengths[outside].astype("str")
    span = (starts[outside] + 1).astype("str") + " to " + stops[outside].astype("str")
    sentences = "positions " + span + " are needed, but " + contig + " has 1 to " + length
    return ledger.reject(batch, outside, "out_of_bounds", sentences)


def _compact(batch: pd.DataFrame, gene_starts: Mapping[str, np.ndarray] | None) -> pd.DataFrame:
    """The columns that stay, in the types of the contract."""
    if "tss_distance" not in batch:
        nearest = np.full(len(batch), np.nan)
        if gene_starts is not None:
            nearest = distance_to_nearest(batch["contig"], batch["anchor"], gene_starts)
        batch = batch.assign(tss_distance=nearest)
    kept = [column for column in (*ROW_COLUMNS[1:], "shard_row") if column in batch]
    types = {**dict.fromkeys(_TEXTS, "str"), **dict.fromkeys(_PLACES, np.int64)}
    return batch[kept].astype(types)


# --- labels -----------------------------------------------------------------------------------


def _labels(
    task: ProbeTask, batch: pd.DataFrame, values: "_Values | None", ledger: Ledger
) -> tuple[pd.DataFrame, np.ndarray]:
    """Labels float32 (rows, outputs); rows without good ones go to the ledger."""
    if task.kind == "profile":
        return batch, np.empty((len(batch), 0), np.float32)
    if values is not None:
        return values.of(batch, ledger)
    bad = (batch["labels"] == "").to_numpy()
    batch = ledger.reject(batch, bad, "no_label", "the row has no label")
    if task.kind == "multilabel":
        labels, sentences = parse_label_lists(batch["labels"], task.outputs)
        bad = sentences != ""
    else:
        mapped = batch["labels"].str.lower().map(LABELS)
        bad = mapped.isna().to_numpy()
        sentences = ("the label is '" + batch["labels"] + "': it must be 0 or 1").to_numpy()
        labels = mapped[~bad].to_numpy(np.float32)[:, None]
    return ledger.reject(batch, bad, "unparseable", sentences[bad]), labels


def parse_label_lists(texts: pd.Series, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Lists of 0 and 1 written as text, e.g. "[0, 1, 0]", a whole column at a time.

    Returns labels float32 (good rows, outputs), and for every row "" or a sentence that says why
    it is none of `outputs` zeros and ones; str objects (rows,).
    """
    array = pa.array(texts, pa.large_string())
    is_list = pc.match_substring_regex(array, _LABEL_LIST).to_numpy(zero_copy_only=False)
    digits = pc.replace_substring_regex(array, r"\.0*|[^01]", "")
    counts = pc.utf8_length(digits).to_numpy(zero_copy_only=False)
    good = is_list & (counts == outputs)
    sentences = np.full(len(texts), "", dtype=object)
    for i in np.flatnonzero(~good):
        found = f"{counts[i]} labels" if is_list[i] else f"'{texts.iloc[i][:40]}'"
        sentences[i] = f"found {found}: a list of {outputs} zeros and ones is expected"
    joined = "".join(digits.filter(pa.array(good)).to_pylist()).encode("ascii")
    labels = np.frombuffer(joined, np.uint8).reshape(-1, outputs) - ord("0")
    return labels.astype(np.float32), sentences


class _Values(NamedTuple):
    """The values of an `expression` task: row k belongs to row k of the coordinates."""

    path: Path
    names: list[str]
    values: np.ndarray  # rows, outputs; float32, NaN where a cell is no number

    @classmethod
    def read(cls, task: ProbeTask, path: str | Path) -> "_Values":
        """Columns without any number (an id), and nameless ones, are passed over."""
        path = Path(path)
        try:
            table = pd.read_csv(path, encoding="utf-8-sig", index_col=False, low_memory=False)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise LongscaleError(f"{path}: cannot be read as a table: {reason}") from error
        named = [name for name in table if name.strip() and not name.startswith("Unnamed: ")]
        columns = {name: pd.to_numeric(table[name], errors="coerce") for name in named}
        columns = {name: column for name, column in columns.items() if column.notna().any()}
        if len(columns) != task.outputs:
            raise LongscaleError(
                f"{path}: {len(columns)} columns of numbers; {task.name} has {task.outputs}"
            )
        return cls(path, list(columns), pd.DataFrame(columns).to_numpy(np.float32))

    def require_rows(self, count: int, coordinates: str | Path) -> None:
        if len(self.values) != count:
            raise LongscaleError(
                f"{self.path}: {len(self.values):,} rows, but {coordinates} has {count:,}; row for"
                " row they must belong together"
            )

    def of(self, batch: pd.DataFrame, ledger: Ledger) -> tuple[pd.DataFrame, np.ndarray]:
        index = batch["index"].to_numpy()
        here = index < len(self.values)  # else `require_rows` raises at the end
        batch, labels = batch[here], self.values[index[here]]
        bad = ~np.isfinite(labels).all(axis=1)
        first = np.argmax(~np.isfinite(labels[bad]), axis=1)
        sentences = [f"the value of {self.names[i]} is no finite number" for i in first]
        return ledger.reject(batch, bad, "unparseable", sentences), labels[~bad]


def read_names(path: str | Path, outputs: int) -> list[str]:
    """Names of the outputs from `label_mapping.csv`, in the order of the outputs.

    The column called name, description, label, tissue, track, target or identifier counts, else the
    first that is not a number; rows are taken in the order of a column that numbers them from 0 or
    1, else of the file. LongscaleError unless there are `outputs` of them.
    """
    path = Path(path)
    try:
        table = pd.read_csv(path, dtype="str", encoding="utf-8-sig", keep_default_na=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise LongscaleError(f"{path}: cannot be read as a table: {reason}") from error
    texts = [name for name in table if not table[name].str.fullmatch(r"[\d.]*").all()]
    known = [name for name in texts if name.strip().lower() in _NAME_COLUMNS]
    if len(table) != outputs or not texts:
        raise LongscaleError(
            f"{path}: {len(table)} rows and {len(texts)} columns of names;"
            f" names of {outputs} outputs are expected"
        )
    numbered = np.arange(outputs)
    for name in table:
        numbers = pd.to_numeric(table[name], errors="coerce")
        if any(sorted(numbers) == list(range(base, base + outputs)) for base in (0, 1)):
            numbered = np.argsort(numbers.to_numpy(), kind="stable")
            break
    return table[(known or texts)[0]].iloc[numbered].tolist()


# --- profiles ---------------------------------------------------------------------------------


def write_profile_labels(
    task: ProbeTask, shard_rows: pd.DataFrame, folder: str | Path, path: str | Path
) -> None:
    """Stream a profile's labels from its shards into `path`: float16 (rows, bins, tracks), .npy.

    `shard_rows`: columns split, shard_row, in the order of the rows. The shards are
    `targets-{split}-{first}-{last}.npz` in `folder`, with an array `target-{split}-{row}.npy` of
    (1, bins, tracks) per row; they are read one row at a time and without pickle. Values are
    counts, stored as they stand. Raises LongscaleError where a shard is missing, lacks a row, or
    has one of another shape or with values outside 0 to 65,504; nothing is then left behind.
    """
    shape = (len(shard_rows), task.bins, task.outputs)
    with atomic_path(path) as part:
        np.lib.format.open_memmap(part, "w+", np.float16, shape).flush()
        for split, rows in shard_rows.groupby("split", sort=False):
            for shard, its_rows in _by_shard(Path(folder), str(split), rows["shard_row"]):
                # Mapped anew for each shard, so that written pages are let go.
                labels = np.lib.format.open_memmap(part, "r+")
                _copy_shard(task, shard, str(split), its_rows, labels)
                labels.flush()


def _by_shard(folder: Path, split: str, rows: pd.Series) -> Iterator[tuple[Path, pd.Series]]:
    """Each shard of a split that is needed, and the rows that lie in it."""
    shards = {}
    for shard in folder.glob(f"targets-{split}-*-*.npz"):
        if match := re.fullmatch(rf"targets-{split}-(\d+)-(\d+)\.npz", shard.name):
            shards[int(match[1])] = (int(match[2]), shard)
    firsts = np.array(sorted(shards), dtype=np.int64)
    places = np.searchsorted(firsts, rows.to_numpy(), side="right") - 1
    for place in np.unique(places):
        its_rows = rows[places == place]
        last, shard = shards[int(firsts[place])] if place >= 0 else (-1, folder)
        if its_rows.max() > last:
            missing = int(its_rows[its_rows > last].iloc[0])
            raise LongscaleError(
                f"{folder}: no shard targets-{split}-A-B.npz holds row {missing:,}"
                f" (A <= {missing} <= B); {len(shards)} shards of this split are there"
            )
        yield shard, its_rows


def _copy_shard(
    task: ProbeTask, shard: Path, split: str, rows: pd.Series, labels: np.ndarray
) -> None:
    """Copy `rows` (place in `labels` -> row of the split) out of one shard."""
    expected = (1, task.bins, task.outputs)
    try:
        with np.load(shard, allow_pickle=False) as arrays:
            for place, row in rows.items():
                key = f"target-{split}-{row}.npy"
                if key not in arrays and key.removesuffix(".npy") not in arrays:
                    raise LongscaleError(f"{shard}: the array {key} is missing: it is cut short")
                values = arrays[key]
                if values.shape != expected or values.dtype.kind not in "fiu":
                    raise LongscaleError(
                        f"{shard}: {key} is {values.dtype} {values.shape};"
                        f" numbers of the shape {expected} are expected"
                    )
                if not (values.min() >= 0 and values.max() <= LARGEST_LABEL):  # also where NaN
                    raise LongscaleError(
                        f"{shard}: {key} has values outside 0 to {LARGEST_LABEL:,.0f};"
                        " counts are expected"
                    )
                labels[place] = values[0]
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise LongscaleError(f"{shard}: cannot be read as an .npz file: {reason}") from error


# --- files ------------------------------------------------------------------------------------


def write_rows(
    task: ProbeTask, found: ProbeRows, folder: str | Path, shards: str | Path | None = None
) -> None:
    """Write `{task}.labels.npy`, `.labels.json`, `.rejected.tsv` and, last, `.parquet`.

    `shards`: the folder of a profile's shards. Each file appears whole or not at all. Raises
    LongscaleError where no row can be used.
    """
    if found.rows.empty:
        first = found.rejected.iloc[0]
        raise LongscaleError(
            f"{task.name}: none of its {found.counts['rows']:,} rows can be used; line"
            f" {first['line']}: {first['sentence']}"
        )
    stem = Path(folder) / task.name
    if task.kind == "profile":
        write_profile_labels(task, found.shard_rows, shards, f"{stem}.labels.npy")
    else:
        with atomic_path(f"{stem}.labels.npy") as part, part.open("wb") as handle:
            np.save(handle, found.labels, allow_pickle=False)
    facts = {"names": found.names, "bin_bp": task.bin_bp, "log1p": task.log1p, **found.counts}
    with atomic_path(f"{stem}.labels.json") as part:
        part.write_text(json.dumps(facts, indent=1) + "\n")
    with atomic_path(f"{stem}.rejected.tsv") as part:
        found.rejected.to_csv(part, sep="\t", index=False)
    with atomic_path(f"{stem}.parquet") as part:
        found.rows.to_parquet(part, index=False)
