"""Give every variant its split: train, dev, test, or gap (left out)."""

import json
from pathlib import Path

import pandas as pd

from job import job
from longscale.files import atomic_path
from longscale.genome.assembly import read_aliases
from longscale.tasks.sources import test_chromosomes
from longscale.tasks.splits import assign_splits

with job(snakemake) as report:
    task, options = snakemake.params.task, snakemake.params.options
    variants, summary = assign_splits(
        pd.read_parquet(snakemake.input.variants),
        protocol=snakemake.wildcards.protocol,
        max_window_bp=snakemake.params.longest_bp,
        test_chromosomes=test_chromosomes(
            snakemake.wildcards.task, task, read_aliases(snakemake.input.aliases)
        ),
        dev_fraction=options["dev_fraction"],
        test_fraction=options["test_fraction"],
    )
    text = json.dumps(summary, indent=1)
    report(text)
    with atomic_path(snakemake.output.summary) as part:
        Path(part).write_text(text + "\n")
    with atomic_path(snakemake.output.splits) as part:
        variants.to_parquet(part, index=False)
