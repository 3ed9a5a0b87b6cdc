"""Score the test variants of a task without any training."""

from pathlib import Path

import pandas as pd

from job import model_job

with model_job(snakemake, snakemake.params.options["threads"]) as report:
    import torch

    from longscale.evaluation.zero_shot import log_likelihood_ratios
    from longscale.genome.sequence import Genome
    from longscale.models.encoders import has_masked_lm, open_encoder, set_extension
    from longscale.training.probe import write_zero_shot, zero_shot_scores
    from longscale.training.probe_data import Shards

    params, wildcards = snakemake.params, snakemake.wildcards
    rows = pd.read_parquet(snakemake.input.rows)
    rows = rows[rows["split"] == "test"]
    source = Shards(Path(snakemake.input.embeddings).parent)
    scores = zero_shot_scores(source, rows["row"].to_numpy())
    files = snakemake.input.encoder
    if params.log_likelihood and has_masked_lm(params.architecture, files):
        device = "cuda" if torch.cuda.is_available() else "cpu"
        encoder = open_encoder(params.architecture, files, logits=True, device=device)
        context_bp = int(wildcards.context_bp)
        encoder.set_rule(wildcards.length_rule)
        set_extension(encoder, wildcards.extension, context_bp)
        scores["llr"] = log_likelihood_ratios(
            encoder,
            Genome(snakemake.input.fasta),
            rows,
            context_bp,
            batch_tokens=params.options["batch_tokens"],
            both_strands=params.both_strands,
            report=report,
        )
    write_zero_shot(scores, snakemake.output[0])
