"""Dilution, or the distance from the variant to the readout?

    python benchmarks/readout_distance.py results/released

Checkpoints of a study (config/released.yaml) score the test variants of `sim_near` in windows in
which the number of tokens and the distance from [CLS] to the variant vary one without the other:
`window_bp` long, with `left_bp` on the left of the variant. All that decides the label lies within
76 bp of it, so nothing of it is ever cut. Writes tables/readout_distance.tsv: AUROC, mean over
seeds, with 95% intervals over genomic blocks and seeds, and `delta`, the paired difference to the
windows that the checkpoints were trained on.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "workflow/scripts"))

import numpy as np
import pandas as pd
from tokenizers import Tokenizer

from longscale.evaluation.compare import SeedDraws, write_table
from longscale.evaluation.intervals import (
    block_ids,
    draw_blocks,
    draw_generator,
    percentile_interval,
    weighted_auroc,
    win_counts,
)
from longscale.evaluation.scoring import score_examples
from longscale.genome.sequence import Genome
from longscale.models.checkpoint import load_checkpoint
from longscale.models.tokenizer import encode_windows, load_tokenizer
from longscale.threads import use_threads
from longscale.training.protocols import PROTOCOLS, AllelePairs, labels_of, one_hot
from longscale.variants.windows import READOUT_FLANK_BP, gather_windows, has_window

TASK, GENOME, MODEL, TRAIN_BP, ATTENTION = "sim_near", "simgenome", "dnabert2-small", 160, "dot"
RULES = ["none", "infoscale"]
TRAINED = (TRAIN_BP, TRAIN_BP // 2)
WINDOWS = [
    (window_bp, left_bp)
    for window_bp in (160, 320, 640, 1280)
    for left_bp in (80, 160, 240, 320, 560, 640, 1200)
    if left_bp + TRAIN_BP // 2 <= window_bp
]
WIDEST_BP = max(window for window, _ in WINDOWS)  # on either side
BLOCK_BP, RESAMPLES, BATCH_TOKENS = 100_000, 2000, 16_384


def off_centre(
    examples: type[AllelePairs],
    genome: Genome,
    tokenizer: Tokenizer,
    variants: pd.DataFrame,
    window_bp: int,
    left_bp: int,
) -> AllelePairs:
    """As `AllelePairs.encode`, with the allele at 0-based index `left_bp` of its window."""
    around = slice(WIDEST_BP - left_bp, WIDEST_BP - left_bp + window_bp)
    encoded = []
    for allele in examples.alleles:
        windows = gather_windows(genome, variants, 2 * WIDEST_BP, allele)[:, around]
        allele_bp = variants[allele].str.len().to_numpy()
        starts = np.full(len(variants), left_bp - READOUT_FLANK_BP)
        spans = None if examples.at_cls else (starts, left_bp + allele_bp + READOUT_FLANK_BP)
        encoded.append(encode_windows(tokenizer, np.ascontiguousarray(windows), spans))
    return examples(labels_of(variants), *encoded, one_hot(variants["tissue"], []))


def score_grid(
    results: Path, protocol: str, genome: Genome, tokenizer: Tokenizer, variants: pd.DataFrame
) -> Iterator[tuple[int, tuple[int, int], np.ndarray]]:
    """Seed, window and scores (rows, rules) of every checkpoint of the protocol."""
    run = results / f"finetune/{TASK}/{protocol}/{MODEL}/{TRAIN_BP}/{ATTENTION}"
    row = PROTOCOLS[protocol]
    models = {
        int(folder.name.removeprefix("seed")): load_checkpoint(row.model, folder, complete=True)
        for folder in sorted(run.glob("seed*"))
    }
    for window in WINDOWS:
        examples = off_centre(row.examples, genome, tokenizer, variants, *window)
        for seed, model in models.items():
            yield seed, window, score_examples(model, examples, RULES, BATCH_TOKENS)
        print(f"{protocol}: {window[0]:,} bp, {window[1]:,} of them on the left", flush=True)


def compare(variants: pd.DataFrame, scores: dict[tuple[int, int], dict[int, np.ndarray]]):  # noqa: ANN201
    """A row per window and rule; `scores`: window -> seed -> (rows, rules)."""
    labels = variants["label"].to_numpy()
    blocks = block_ids(variants["contig"], variants["pos"], BLOCK_BP)
    draws = draw_blocks(blocks, labels, RESAMPLES, draw_generator(1, TASK, "blocks"))
    seeds = sorted(scores[TRAINED])
    shares = SeedDraws(RESAMPLES, 1, TASK).of(seeds)
    weights = np.vstack([np.ones(draws.weights.shape[1]), draws.weights])

    def auroc(window: tuple[int, int], rule: int) -> tuple[float, np.ndarray]:
        values = np.stack(
            [
                weighted_auroc(win_counts(scores[window][seed][:, rule], labels, blocks), weights)
                for seed in seeds
            ]
        )
        return values[:, 0].mean(), (values[:, 1:] * shares).sum(axis=0)

    trained = auroc(TRAINED, RULES.index("none"))
    for window in scores:
        for number, rule in enumerate(RULES):
            value, drawn = auroc(window, number)
            low, high = percentile_interval(drawn)
            delta_low, delta_high = percentile_interval(drawn - trained[1])
            yield {
                **{"window_bp": window[0], "left_bp": window[1], "rule": rule},
                **{"seeds": len(seeds), "n": len(variants)},
                **{"auroc": value, "auroc_lo": low, "auroc_hi": high},
                **{"delta": value - trained[0], "delta_lo": delta_low, "delta_hi": delta_high},
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    results = parser.parse_args().results
    use_threads(os.cpu_count() or 1)
    genome = Genome(results / f"genome/{GENOME}.fa")
    tokenizer = load_tokenizer(results / f"tokenizers/{GENOME}/{MODEL}")
    rows = []
    for protocol in ("at-cls", "paired"):  # the readout at [CLS], and at the variant
        variants = pd.read_parquet(results / f"splits/{TASK}/{protocol}.parquet")
        variants = variants[variants["split"] == "test"]
        inside = has_window(genome, variants, 2 * WIDEST_BP)
        variants = variants[inside].reset_index(drop=True)
        scores: dict[tuple[int, int], dict[int, np.ndarray]] = {}
        for seed, window, scored in score_grid(results, protocol, genome, tokenizer, variants):
            scores.setdefault(window, {})[seed] = scored
        rows += [{"protocol": protocol} | row for row in compare(variants, scores)]
    write_table(pd.DataFrame(rows), results / "tables/readout_distance.tsv")


if __name__ == "__main__":
    main()
