"""Figures of the AUROC table."""

from job import job
from longscale.evaluation.compare import read_auroc_table
from longscale.files import atomic_folder
from longscale.report.plots import write_auroc_plots

with job(snakemake) as report:
    with atomic_folder(snakemake.output[0]) as part:
        written = write_auroc_plots(read_auroc_table(snakemake.input[0]), part)
    report(f"{len(written)} files")
