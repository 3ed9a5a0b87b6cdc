"""Fine-tune a pretrained encoder on a task at one window length."""

import json
from pathlib import Path

import pandas as pd

from job import model_job

with model_job(snakemake, snakemake.params.options["threads"]) as report:
    from longscale.files import checksum
    from longscale.genome.sequence import Genome
    from longscale.models.tokenizer import load_tokenizer
    from longscale.provenance import collect_provenance
    from longscale.training.finetune import finetune

    genome_provenance = json.loads(Path(snakemake.input.provenance).read_text())
    finetune(
        Genome(snakemake.input.fasta),
        load_tokenizer(Path(snakemake.input.tokenizer).parent),
        pd.read_parquet(snakemake.input.variants),
        Path(snakemake.input.pretrained).parent,
        Path(snakemake.output[0]).parent,
        protocol=snakemake.wildcards.protocol,
        attention=snakemake.wildcards.attention,
        window_bp=int(snakemake.wildcards.train_bp),
        options=snakemake.params.options,
        seed=int(snakemake.wildcards.seed),
        provenance={
            "genome_sha256": genome_provenance["genome_sha256"],
            "variants_sha256": checksum(snakemake.input.variants),
            "pretrained_sha256": checksum(snakemake.input.pretrained),
            **collect_provenance(),
        },
        report=report,
    )
