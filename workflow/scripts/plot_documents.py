"""Draw a corpus's documents in spectral coordinates, the chosen ones ringed."""

from pathlib import Path

from job import job
from longscale.report.documents import write_documents_plot
from longscale.tasks.corpora import read_test_documents

with job(snakemake):
    folder = Path(snakemake.input[0]).parent
    write_documents_plot(read_test_documents(folder), snakemake.output[0])
