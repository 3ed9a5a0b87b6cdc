"""Fetch files of a task of the Genomics Long-Range Benchmark."""

from pathlib import Path

from job import job
from longscale.tasks.lrb import download_lrb

with job(snakemake, echo=True) as report:
    files, revision = snakemake.params.files, snakemake.params.revision
    for number, path in enumerate(files, start=1):
        report(f"{path} at revision {revision} ({number} of {len(files)})")
        download_lrb(path, Path(snakemake.params.folder, path), revision=revision)
