"""Cutting windows against the obvious loop: python benchmarks/windows.py

On a made-up genome (one contig of random bases, a third of it soft-masked, runs of N) with SNVs at
random places, sorted as in a VCF file (`--shuffled`: in random order), at each window length:

* ours: the plain bases beside the FASTA file (made first; the time is printed), REF of all variants
  held against them, alternative windows cut into an array, in two threads (`--threads`);
* obvious: `iterrows`, a slice of pyfaidx, REF held against it, ALT put in, a row of the same array.

Both open the genome anew each time. Then, on fewer variants, up to the tensors of one batch:

* ours: windows, tokens and padding in memory, as protocol `released` makes them;
* through files: windows by the loop above into a CSV file (sequence,label), which is read back;
  each sequence tokenised by transformers, cut at the same limit, all padded to the longest.

The sides alternate in one process on the same inputs and are held equal; the ratio is that of the
medians. Tokens come from `--tokenizer` (a folder with a tokenizer.json, as DNABERT-2's), else from
one trained on the genome. `--fasta-lines` leaves the plain bases away.
"""

import argparse
import csv
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one thread on either side
sys.path.insert(0, str(Path(__file__).parent.parent / "workflow/scripts"))

import numpy as np
import pandas as pd
import pyfaidx
import torch
from side_by_side import Seconds, alternate, describe_run
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

import longscale.genome.sequence as genome_sequence
from longscale.genome.sequence import BASES, Genome, fold_genome
from longscale.models.tokenizer import SPECIAL_TOKENS, load_tokenizer, train_tokenizer
from longscale.training.protocols import AlternativeAlleles
from longscale.variants.accept import bases_at
from longscale.variants.windows import gather_windows

CONTIG = "chr1"
VOCABULARY = 4096  # DNABERT-2's
LETTERS = np.frombuffer(BASES, np.uint8)


def write_genome(fasta: Path, bp: int, linebases: int, rng: np.random.Generator) -> np.ndarray:
    """Write an indexed FASTA file; returns its bases in upper case, uint8 (bp,)."""
    upper = LETTERS[rng.integers(0, 4, bp, dtype=np.uint8)]
    for start in rng.integers(0, bp, bp // 5_000_000 + 1):
        upper[start : start + 50_000] = ord("N")
    written = upper.copy()
    for start in rng.integers(0, bp, bp // 5_000):
        written[start : start + rng.integers(100, 4_000)] |= 0x20
    header = f">{CONTIG}\n"
    with fasta.open("wb") as handle:
        handle.write(header.encode())
        whole = bp // linebases * linebases
        lines = written[:whole].reshape(-1, linebases)
        handle.write(np.pad(lines, ((0, 0), (0, 1)), constant_values=ord("\n")).tobytes())
        if whole < bp:
            handle.write(written[whole:].tobytes() + b"\n")
    index = (CONTIG, bp, len(header), linebases, linebases + 1)
    Path(f"{fasta}.fai").write_text("\t".join(map(str, index)) + "\n")
    return upper


def draw_variants(
    upper: np.ndarray, rows: int, longest_bp: int, shuffled: bool, rng: np.random.Generator
) -> pd.DataFrame:
    """SNVs whose longest window lies inside the contig, at random places that are no N."""
    places = rng.integers(longest_bp, len(upper) - longest_bp, 2 * rows)
    places = places[upper[places] != ord("N")][:rows]
    places = places if shuffled else np.sort(places)
    codes = np.searchsorted(LETTERS, upper[places])
    other = (codes + rng.integers(1, 4, len(places))) % 4
    letters = np.array(list(BASES.decode()), dtype=object)
    return pd.DataFrame(
        {
            "contig": CONTIG,
            "pos": places + 1,
            "ref": letters[codes],
            "alt": letters[other],
            "label": rng.integers(0, 2, len(places)),
        }
    ).astype({"contig": "str", "ref": "str", "alt": "str"})


def obvious_sequence(genome: pyfaidx.Fasta, row: pd.Series, window_bp: int) -> str:
    """The alternative window of one SNV as text."""
    centre = window_bp // 2
    start = row["pos"] - 1 - centre
    sequence = genome[row["contig"]][start : start + window_bp]
    if sequence[centre] != row["ref"]:
        raise ValueError(f"REF is not in the genome at {row['pos']}")
    return sequence[:centre] + row["alt"] + sequence[centre + 1 :]


def obvious_windows(fasta: Path, variants: pd.DataFrame, out: np.ndarray) -> None:
    """Fill `out` (rows, window_bp) one variant at a time."""
    with pyfaidx.Fasta(str(fasta), as_raw=True, sequence_always_upper=True) as genome:
        for i, (_, row) in enumerate(variants.iterrows()):
            sequence = obvious_sequence(genome, row, out.shape[1])
            out[i] = np.frombuffer(sequence.encode(), np.uint8)


def our_windows(fasta: Path, variants: pd.DataFrame, out: np.ndarray, folded: bool) -> None:
    """Fill `out` (rows, window_bp), all variants at once."""
    genome = Genome(fasta, folded=folded)
    if (bases_at(genome, variants, variants["ref"]) != variants["ref"].to_numpy(object)).any():
        raise ValueError("some REF is not in the genome")
    gather_windows(genome, variants, out.shape[1], "alt", out)


def batch_through_files(
    fasta: Path, variants: pd.DataFrame, window_bp: int, tokenizer: PreTrainedTokenizerFast
) -> list[torch.Tensor]:
    """Token ids and attention mask, by way of a CSV file and one sequence at a time."""
    path = fasta.with_name("windows.csv")
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["sequence", "label"])
        with pyfaidx.Fasta(str(fasta), as_raw=True, sequence_always_upper=True) as genome:
            for _, row in variants.iterrows():
                writer.writerow([obvious_sequence(genome, row, window_bp), row["label"]])
    with path.open(newline="") as handle:
        sequences = [row["sequence"] for row in csv.DictReader(handle)]
    limit = AlternativeAlleles.token_limit(tokenizer.backend_tokenizer, window_bp)
    encoded = [tokenizer(text, truncation=True, max_length=limit) for text in sequences]
    batch = tokenizer.pad(encoded, padding="longest", return_tensors="pt")
    return [batch["input_ids"], batch["attention_mask"]]


def our_batch(
    fasta: Path, variants: pd.DataFrame, window_bp: int, tokenizer: Tokenizer
) -> list[torch.Tensor]:
    """The same, in memory."""
    examples = AlternativeAlleles.encode(Genome(fasta), tokenizer, variants, window_bp, [])
    batch = examples.batch(np.arange(len(examples)))
    return [batch["input_ids"], batch["attention_mask"]]


def print_row(what: str, window_bp: int, rows: int, times: list[Seconds]) -> None:
    """One row of the table."""
    ours, other = times
    ratio = other.median / ours.median
    print(f"| {what} | {window_bp:,} | {rows:,} | {ours} | {other} | {ratio:.1f} |", flush=True)


def compare_windows(fasta: Path, variants: pd.DataFrame, options: argparse.Namespace) -> None:
    """Cut windows both ways at each length."""
    for window_bp in options.lengths:
        ours, obvious = (np.zeros((len(variants), window_bp), np.uint8) for _ in range(2))
        times, _ = alternate(
            options.repeats,
            lambda out=ours: our_windows(fasta, variants, out, not options.fasta_lines),
            lambda out=obvious: obvious_windows(fasta, variants, out),
        )
        np.testing.assert_array_equal(ours, obvious)
        print_row("windows", window_bp, len(variants), times)


def compare_batches(fasta: Path, variants: pd.DataFrame, options: argparse.Namespace) -> None:
    """Make batches both ways at each length."""
    folder = options.tokenizer or fasta.parent
    if options.tokenizer is None:
        path = folder / "tokenizer.json"
        train_tokenizer(Genome(fasta), path, vocab_size=VOCABULARY, seed=1)
    tokenizer = load_tokenizer(folder)
    unk, cls, sep, pad, mask = SPECIAL_TOKENS
    released = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        **{"unk_token": unk, "cls_token": cls, "sep_token": sep, "pad_token": pad},
        mask_token=mask,
    )
    for window_bp in options.lengths:
        times, (ours, theirs) = alternate(
            options.batch_repeats,
            lambda bp=window_bp: our_batch(fasta, variants, bp, tokenizer),
            lambda bp=window_bp: batch_through_files(fasta, variants, bp, released),
        )
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
        print_row("batch", window_bp, len(variants), times)


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabases", type=float, default=100, help="of the genome")
    parser.add_argument("--line-bases", type=int, default=60, help="of the FASTA file")
    parser.add_argument("--variants", type=int, default=20_000)
    parser.add_argument("--batch-variants", type=int, default=500)
    parser.add_argument("--shuffled", action="store_true", help="variants in random order")
    parser.add_argument("--lengths", type=int, nargs="+", default=[1_000, 5_000, 10_000])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batch-repeats", type=int, default=3)
    parser.add_argument(
        "--threads", type=int, default=genome_sequence.COPY_THREADS, help="of our copying"
    )
    parser.add_argument("--tokenizer", type=Path, default=None)
    parser.add_argument("--fasta-lines", action="store_true", help="without the plain bases")
    parser.add_argument("--folder", type=Path, default=None, help="where to work (a temporary one)")
    return parser.parse_args()


def main() -> None:
    """Make a genome, alternate the sides, print."""
    options = read_options()
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    genome_sequence.COPY_THREADS = options.threads
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        fasta = Path(name) / "genome.fa"
        upper = write_genome(fasta, int(options.megabases * 1e6), options.line_bases, rng)
        variants = draw_variants(
            upper, options.variants, max(options.lengths), options.shuffled, rng
        )
        print(describe_run())
        started = time.perf_counter()
        fold_genome(fasta)
        print(f"plain bases made in {time.perf_counter() - started:.2f} s\n")
        print("| what | bp | variants | ours, s | obvious or through files, s | ratio |")
        print("| --- | --- | --- | --- | --- | --- |")
        compare_windows(fasta, variants, options)
        compare_batches(fasta, variants.head(options.batch_variants), options)
        print(f"\nload at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
