"""The plain bases of a FASTA file, beside it: windows are cut faster from them."""

from job import job
from longscale.genome.sequence import fold_genome

with job(snakemake):
    fold_genome(snakemake.input.fasta)
