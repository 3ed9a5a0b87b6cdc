"""Figures of the benchmark's table: each task's metric against context length."""

from job import job
from longscale.evaluation.lrb_table import read_lrb_table
from longscale.report.leaderboard_plots import write_leaderboard_plots

with job(snakemake) as report:
    written = write_leaderboard_plots(read_lrb_table(snakemake.input[0]), snakemake.output[0])
    report(f"{len(written)} files")
