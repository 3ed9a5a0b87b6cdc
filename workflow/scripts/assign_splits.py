"""Give every variant its split: train, dev, test, or gap (left out)."""

import json
from pathlib import Path

import pandas as pd

from job import job
from longscale.errors import LongscaleError
from longscale.files import atomic_path
from longscale.genome.assembly import read_aliases
from longscale.tasks.sources import test_chromosomes
from longscale.tasks.splits import (
    assign_splits,
    leave_out_overlaps,
    list_left_out,
    summarise_splits,
)

with job(snakemake, echo=True) as report:
    task, options = snakemake.params.task, snakemake.params.options
    try:
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
    except LongscaleError as error:
        raise LongscaleError(f"tasks.{snakemake.wildcards.task}: {error}") from error
    if snakemake.input.trained:
        trained = pd.read_parquet(snakemake.input.trained)
        variants, overlapping = leave_out_overlaps(variants, trained, snakemake.params.longest_bp)
        left = int((variants["split"] == "test").sum())
        report(
            f"{snakemake.wildcards.task}: {overlapping:,} variants lie where {task['train_task']}"
            f" was trained and are left out of the test; {left:,} are left"
        )
        origin = {key: summary[key] for key in ("protocol", "test_from", "dev_from")}
        # Counts and spans of what is left, not of what was there before.
        summary = summarise_splits(variants, **origin)
        summary |= {"overlap_with_train_task": overlapping, "test": left}
    text = json.dumps(summary, indent=1)
    report(f"{snakemake.wildcards.task}, {snakemake.wildcards.protocol}: {summary['counts']}")
    with atomic_path(snakemake.output.summary) as part:
        Path(part).write_text(text + "\n")
    with atomic_path(snakemake.output.left_out) as part:
        left_out = list_left_out(variants, snakemake.params.longest_bp, task["train_task"])
        left_out.to_csv(part, sep="\t", index=False)
    with atomic_path(snakemake.output.splits) as part:
        variants.to_parquet(part, index=False)
