"""Gather a corpus's documents and split them."""

from pathlib import Path

from job import job
from longscale.tasks.corpora import prepare_corpus

with job(snakemake, echo=True) as report:
    prepare_corpus(
        snakemake.params.corpus,
        Path(snakemake.output.documents).parent,
        train_length=snakemake.params.train_length,
        longest=snakemake.params.longest,
        fasta=snakemake.input.fasta or None,
        report=report,
    )
