"""Rows, labels and ledger of a probe task."""

from pathlib import Path

from job import job
from longscale.genome.assembly import read_aliases
from longscale.genome.sequence import Genome
from longscale.tasks.gene_starts import read_gene_starts
from longscale.tasks.probe_rows import read_rows, read_variant_rows, write_rows
from longscale.tasks.simulated_probe import find_task

with job(snakemake, echo=True) as report:
    task = find_task(snakemake.wildcards.probe_task, **(snakemake.params.simulated or {}))
    files = {key: Path(snakemake.params.folder, path) for key, path in task.files.items()}
    aliases = read_aliases(snakemake.input.aliases)
    genes = snakemake.input.genes
    places = {
        "genome": Genome(snakemake.input.fasta),
        "aliases": aliases,
        "context_bp": snakemake.params.context_bp,
        "gene_starts": read_gene_starts(genes, aliases) if genes else None,
    }
    if task.kind == "variant":
        found = read_variant_rows(task, files["rows"], **places)
    else:
        found = read_rows(task, files, **places)
    splits = found.rows["split"].value_counts().to_dict()
    report(f"{task.name}: {found.counts['accepted']:,} of {found.counts['rows']:,} rows, {splits}")
    write_rows(task, found, Path(snakemake.output.rows).parent, files.get("shards"))
