"""Bring a published checkpoint (a folder or a Hugging Face repository) into the run, as
safetensors.
"""

from pathlib import Path

from job import job
from longscale.models.fetch import fetch_checkpoint

with job(snakemake, echo=True) as report:
    model = snakemake.params.model
    fetch_checkpoint(
        model["checkpoint"],
        Path(snakemake.output[0]).parent,
        revision=model["revision"],
        tokenizer=model["tokenizer"],
        report=report,
    )
