"""Bring a published encoder (a folder or a Hugging Face repository) into the run."""

from job import job
from longscale.models.fetch import fetch_encoder

with job(snakemake, echo=True) as report:
    model = snakemake.params.model
    fetch_encoder(
        model["checkpoint"],
        snakemake.output[0],
        model["architecture"],
        revision=model["revision"],
        report=report,
    )
