"""Export windows as the CSV `sequence,label` of the released scripts (alternative allele)."""

import pandas as pd

from job import job
from longscale.genome.sequence import Genome
from longscale.variants.windows import export_windows, require_windows

with job(snakemake) as report:
    genome = Genome(snakemake.input.fasta)
    variants = pd.read_parquet(snakemake.input.variants)
    variants = variants[variants["split"] == snakemake.wildcards.split]
    window_bp = int(snakemake.wildcards.window_bp)
    if snakemake.params.edge == "drop":
        require_windows(genome, variants, window_bp)
    export_windows(genome, variants, window_bp, snakemake.output[0])
    report(f"{len(variants):,} windows of {window_bp:,} bp")
