"""The generator's posterior of each simulated variant at every window length."""

import pandas as pd

from job import job
from longscale.files import atomic_path
from longscale.tasks.simulated import posterior

with job(snakemake) as report:
    truth = pd.read_parquet(snakemake.input[0])
    table = truth[["contig", "pos", "ref", "alt"]].copy()
    for window_bp in snakemake.params.eval_bp:
        table[f"posterior_{window_bp}"] = posterior(truth, window_bp)
    with atomic_path(snakemake.output[0]) as part:
        table.to_parquet(part, index=False)
    report(f"{len(table):,} variants at {len(snakemake.params.eval_bp)} lengths")
