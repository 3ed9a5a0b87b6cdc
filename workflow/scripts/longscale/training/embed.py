"""Embeddings of the rows of a probe task, in shards that resume.

A folder holds `shard-00000.npy`, ... (rows, pieces, width) float16 and, written last, `index.json`.
A shard is there whole or not at all, so a job that was stopped goes on behind the last one.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from longscale.errors import LongscaleError
from longscale.files import atomic_path
from longscale.genome.sequence import Genome
from longscale.models.batches import token_batches
from longscale.models.encoders import Encoder, pool_states
from longscale.provenance import digest
from longscale.variants.windows import gather_windows, require_windows

SHARD_ROWS = 1024
REPORT_SECONDS = 10.0
COMPLEMENT = np.arange(256, dtype=np.uint8)
COMPLEMENT[np.frombuffer(b"ACGT", np.uint8)] = np.frombuffer(b"TGCA", np.uint8)


@dataclass(frozen=True)
class Layout:
    """What a folder of embeddings holds: `rows` of `pieces` vectors of `width` float16 each.

    alleles: 2 where each row is a variant (pieces: reference, alternative), else 1. bin_bp: pieces
    are bins of that size from `pool_start` on, those that the context covers: `bins`, [first,
    last); 0 and None where a row has one stretch per allele.
    """

    rows: int
    pieces: int
    width: int
    alleles: int = 1
    bin_bp: int = 0
    bins: tuple[int, int] | None = None
    shard_rows: int = SHARD_ROWS

    @property
    def bytes(self) -> int:
        """Size on disk, about."""
        return self.rows * self.pieces * self.width * np.dtype(np.float16).itemsize


def plan_layout(rows: pd.DataFrame, context_bp: int, width: int, bin_bp: int = 0) -> Layout:
    """The layout of the embeddings of `rows` (columns anchor, pool_start, pool_stop, ref, alt) for
    a context of `context_bp`; `bin_bp` for a profile.

    Of what is to be averaged, the part that lies in the context counts. Raises `LongscaleError`
    where it holds nothing of it in some row, or not one bin.
    """
    alleles = 2 if len(rows) and (rows["alt"] != "").all() else 1
    before = rows["anchor"] - context_bp // 2  # 0-based start of the context
    left = (rows["pool_start"] - before).to_numpy()
    right = (before + context_bp - rows["pool_stop"]).to_numpy()
    size = (rows["pool_stop"] - rows["pool_start"]).to_numpy()
    if not bin_bp:
        if (left >= context_bp).any() or (right >= context_bp).any():
            raise LongscaleError(
                f"context_bp is {context_bp:,}, which holds nothing of the {int(size.max()):,} bp "
                "whose states are averaged; it must be longer"
            )
        return Layout(len(rows), alleles, width, alleles)
    # Of a context that is shorter than the profile, the bins that lie in it in every row.
    first = -(-max(0, int(-left.min())) // bin_bp)
    last = int(size[0]) // bin_bp - -(-max(0, int(-right.min())) // bin_bp)
    if first >= last:
        raise LongscaleError(
            f"context_bp is {context_bp:,}, which does not hold one bin of {bin_bp} bp"
        )
    return Layout(len(rows), last - first, width, 1, bin_bp, (first, last))


def require_contexts(genome: Genome, rows: pd.DataFrame, context_bp: int) -> None:
    """Raise LongscaleError, naming the first row, unless all have their context in their contig."""
    words = {"what": "context", "rows": "rows", "key": "probe.context_bp"}
    require_windows(genome, _as_variants(rows), context_bp, **words)


def _as_variants(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows by the base that their context is centred on: contig, pos (1-based), ref, alt."""
    return rows[["contig", "ref", "alt"]].assign(pos=rows["anchor"] + 1)


def reverse_complement(windows: np.ndarray) -> np.ndarray:
    """Windows (rows, bp) as the other strand reads them."""
    return COMPLEMENT[windows[:, ::-1]]


def context_windows(genome: Genome, rows: pd.DataFrame, context_bp: int, allele: str) -> np.ndarray:
    """The context of each row, (rows, context_bp) uint8 ASCII; "-" rows reverse-complemented.

    `rows` has contig, anchor (0-based), strand, ref, alt; `allele` is `ref` or `alt`. Outside the
    contig there is N.
    """
    windows = gather_windows(genome, _as_variants(rows), context_bp, allele)
    minus = (rows["strand"] == "-").to_numpy()
    windows[minus] = reverse_complement(windows[minus])
    return windows


def piece_edges(rows: pd.DataFrame, context_bp: int, layout: Layout) -> np.ndarray:
    """What each piece averages, in bp of its window, 0-based, half-open: (rows, pieces, 2).

    The pieces of one allele; those of a "-" row run along its own strand.
    """
    before = (rows["anchor"] - context_bp // 2).to_numpy()
    start = rows["pool_start"].to_numpy() - before
    stop = rows["pool_stop"].to_numpy() - before
    if layout.bins:
        bins = np.arange(*layout.bins) * layout.bin_bp
        edges = start[:, None, None] + np.stack([bins, bins + layout.bin_bp], axis=1)
    else:
        edges = np.stack([start, stop], axis=1)[:, None, :].clip(0, context_bp)
    minus = (rows["strand"] == "-").to_numpy()
    mirrored = context_bp - edges[minus][:, :, ::-1]
    edges[minus] = mirrored[:, ::-1] if layout.bins else mirrored
    return edges


@torch.inference_mode()
def embed_rows(
    encoder: Encoder,
    genome: Genome,
    rows: pd.DataFrame,
    context_bp: int,
    layout: Layout,
    batch_tokens: int,
) -> np.ndarray:
    """The embeddings of some rows: float16 (rows, pieces, width)."""
    edges = piece_edges(rows, context_bp, layout)
    per_allele = edges.shape[1]
    result = np.empty((len(rows), layout.pieces, layout.width), np.float16)
    device = next(encoder.model.parameters()).device
    for number, allele in enumerate(("ref", "alt")[: layout.alleles]):
        tokens = encoder.tokenise(context_windows(genome, rows, context_bp, allele))
        pieces = slice(number * per_allele, (number + 1) * per_allele)
        for batch in token_batches(tokens.lengths, batch_tokens):
            ids, mask = tokens.pad(batch, encoder.pad_id)
            hidden = encoder.hidden(
                torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)
            )
            for row, states in zip(batch, hidden, strict=True):
                own = slice(tokens.offsets[row], tokens.offsets[row + 1])
                pooled = pool_states(
                    states[: own.stop - own.start],
                    tokens.starts[own],
                    tokens.stops[own],
                    edges[row],
                )
                result[row, pieces] = pooled.cpu().numpy()
    if not np.isfinite(result).all():
        raise LongscaleError(
            "an embedding is not finite in float16: the model's states are too large, or it is "
            "broken"
        )
    return result


def embed_task(
    encoder: Encoder,
    genome: Genome,
    rows: pd.DataFrame,
    context_bp: int,
    folder: str | Path,
    *,
    layout: Layout,
    batch_tokens: int,
    settings: dict,
    report: Callable[[str], None] = print,
) -> None:
    """Write the embeddings of `rows` to `folder`, shard by shard; those that are there stay.

    `settings` is everything that the numbers depend on, what this function is given aside: shards
    of other settings are made again. `index.json` is written last: the layout, context_bp and
    `settings`.
    """
    folder = Path(folder)
    index = {**asdict(layout), "context_bp": context_bp, **settings}
    _keep_or_clear(folder, digest(index))
    started, told, done_here = time.monotonic(), 0.0, 0
    for path, part in shards(folder, layout):
        if path.exists():
            continue
        chunk = rows.iloc[part].reset_index(drop=True)
        embedded = embed_rows(encoder, genome, chunk, context_bp, layout, batch_tokens)
        with atomic_path(path) as new, new.open("wb") as handle:
            np.save(handle, embedded)
        done_here += len(chunk)
        seconds = time.monotonic() - started
        if seconds - told > REPORT_SECONDS or part.stop == layout.rows:
            told = seconds
            left = seconds / done_here * (layout.rows - part.stop) / 60
            report(f"{part.stop:,}/{layout.rows:,} rows at {context_bp:,} bp, {left:.1f} min left")
    with atomic_path(folder / "index.json") as new:
        new.write_text(json.dumps(index, indent=1) + "\n")


def shards(folder: Path, layout: Layout) -> Iterator[tuple[Path, slice]]:
    """The file and the rows of each shard, in order."""
    for number, first in enumerate(range(0, layout.rows, layout.shard_rows)):
        rows = slice(first, min(first + layout.shard_rows, layout.rows))
        yield folder / f"shard-{number:05}.npy", rows


def _keep_or_clear(folder: Path, settings: str) -> None:
    """Remove what was made with other settings."""
    folder.mkdir(parents=True, exist_ok=True)
    stamp = folder / "settings.sha256"
    if not (stamp.exists() and stamp.read_text() == settings):
        for path in [*folder.glob("shard-*.npy"), folder / "index.json"]:
            path.unlink(missing_ok=True)
        stamp.write_text(settings)
