"""Fetch the variant file of a task of the Genomics Long-Range Benchmark."""

from job import job
from longscale.tasks.lrb import LRB_TASKS, download_lrb

with job(snakemake, echo=True) as report:
    task = LRB_TASKS[snakemake.wildcards.task]
    report(f"{task.filename} at revision {snakemake.params.revision}")
    download_lrb(task.filename, snakemake.output[0], revision=snakemake.params.revision)
