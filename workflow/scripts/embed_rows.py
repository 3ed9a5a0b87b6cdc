"""Embed the rows of a probe task with a frozen model, in shards that resume."""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from job import model_job

with model_job(snakemake, snakemake.params.options["threads"]) as report:
    import torch

    from longscale.files import checksum, read_json
    from longscale.genome.sequence import Genome
    from longscale.models.encoders import encoder_files, open_encoder, set_extension
    from longscale.training.embed import embed_task, plan_layout, require_contexts

    wildcards, options = snakemake.wildcards, snakemake.params.options
    context_bp = int(wildcards.context_bp)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder = open_encoder(snakemake.params.architecture, snakemake.input.encoder, device=device)
    encoder.set_rule(wildcards.length_rule)
    set_extension(encoder, wildcards.extension, context_bp)
    rows = pd.read_parquet(snakemake.input.rows)
    facts = read_json(snakemake.input.facts, "bin_bp")
    genome = Genome(snakemake.input.fasta)
    if snakemake.params.edge == "drop":
        require_contexts(genome, rows, context_bp)
    layout = plan_layout(rows, context_bp, encoder.width, facts["bin_bp"] or 0)
    layout = replace(layout, shard_rows=options["shard_rows"])
    report(
        f"{layout.rows:,} rows of {layout.pieces} x {layout.width}, {layout.bytes / 1e6:,.1f} MB"
    )
    embed_task(
        encoder,
        genome,
        rows,
        context_bp,
        Path(snakemake.output[0]).parent,
        layout=layout,
        batch_tokens=options["batch_tokens"],
        settings={
            "architecture": snakemake.params.architecture,
            "rule": wildcards.length_rule,
            "extension": wildcards.extension,
            "trained_tokens": encoder.trained_tokens,
            "encoder": {p.name: checksum(p) for p in encoder_files(snakemake.input.encoder)},
            "rows_sha256": checksum(snakemake.input.rows),
            **read_json(snakemake.input.provenance),
        },
        report=report,
    )
