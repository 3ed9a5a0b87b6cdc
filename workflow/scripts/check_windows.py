"""Keep the variants that have a window at every requested length; list the others."""

import pandas as pd

from job import job
from longscale.errors import LongscaleError
from longscale.files import atomic_path
from longscale.genome.sequence import Genome
from longscale.variants.windows import has_window

with job(snakemake) as report:
    genome = Genome(snakemake.input.fasta)
    variants = pd.read_parquet(snakemake.input.variants)
    if variants.empty:
        raise LongscaleError(
            f"{snakemake.input.variants}: no variant was accepted; the .rejected.tsv beside it"
            " lists each with its reason, and at least one must be left"
        )
    longest_bp = snakemake.params.longest_bp
    inside = has_window(genome, variants, longest_bp)
    # The longest window holds all others; padded windows always exist.
    kept = inside | (snakemake.params.edge == "pad")
    report(
        f"{len(variants):,} variants: {int(kept.sum()):,} kept, {int((~kept).sum()):,} dropped;"
        f" {int((~inside).sum()):,} windows of {longest_bp:,} bp leave their contig"
    )
    if not kept.any():
        raise LongscaleError(
            f"{snakemake.input.variants}: no variant has a window of {longest_bp:,} bp inside its"
            " contig; shorter study.eval_bp or windows.edge: pad would keep some"
        )
    dropped = variants.loc[~kept].assign(reason=f"no_window_of_{longest_bp}_bp")
    with atomic_path(snakemake.output.dropped) as part:
        dropped.to_csv(part, sep="\t", index=False)
    with atomic_path(snakemake.output.kept) as part:
        variants.loc[kept].to_parquet(part, index=False)
