"""Read, normalise and check a task's variants; what cannot be used goes to the ledger."""

import json
from pathlib import Path

from job import job
from longscale.files import atomic_path
from longscale.genome.assembly import read_aliases
from longscale.genome.sequence import Genome
from longscale.tasks.sources import column_map
from longscale.variants.accept import accept_variants
from longscale.variants.readers import read_variants
from longscale.variants.summary import summarise, summary_facts

with job(snakemake, echo=True) as report:
    task = snakemake.params.task
    records = read_variants(snakemake.input.variants, column_map(snakemake.wildcards.task, task))
    found = accept_variants(
        records,
        Genome(snakemake.input.fasta),
        read_aliases(snakemake.input.aliases),
        repair_swapped=task["swapped"] == "repair",
        limit=task["limit"],
    )
    report(f"{snakemake.wildcards.task}: {summarise(found)}")
    with atomic_path(snakemake.output.rejected) as part:
        found.rejected.to_csv(part, sep="\t", index=False)
    with atomic_path(snakemake.output.summary) as part:
        Path(part).write_text(json.dumps(summary_facts(found), indent=1) + "\n")
    with atomic_path(snakemake.output.accepted) as part:
        found.accepted.to_parquet(part, index=False)
