"""Measure the multipliers of `entropy-matched` on a fine-tuned DNABERT-2, at every length."""

from pathlib import Path

import pandas as pd

from job import model_job

with model_job(snakemake, snakemake.params.threads) as report:
    import torch

    from longscale.evaluation.multipliers import ALIBI, digest_tokens, write_measured
    from longscale.evaluation.variant_entropy import (
        choose_variants,
        match_variants,
        reference_encoder,
    )
    from longscale.genome.sequence import Genome
    from longscale.models.checkpoint import load_checkpoint
    from longscale.models.tokenizer import load_tokenizer
    from longscale.training.protocols import PROTOCOLS
    from longscale.variants.windows import require_windows

    protocol, genome = snakemake.wildcards.protocol, Genome(snakemake.input.fasta)
    variants = pd.read_parquet(snakemake.input.variants)
    if snakemake.params.edge == "drop":  # what cannot be scored is not measured either
        test = variants[variants["split"] == "test"]
        require_windows(genome, test, max(snakemake.params.eval_bp))
    model = load_checkpoint(
        PROTOCOLS[protocol].model, Path(snakemake.input.model[0]).parent, complete=True
    )
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = load_tokenizer(Path(snakemake.input.tokenizer).parent)
    variants = choose_variants(variants)
    train_bp = int(snakemake.params.train_bp)
    encode = reference_encoder(genome, tokenizer, protocol)
    matches = match_variants(
        model, variants, encode, train_bp=train_bp, eval_bp=snakemake.params.eval_bp, report=report
    )
    training_windows = encode(variants, train_bp)
    write_measured(
        {ALIBI: matches},
        snakemake.output[0],
        n_train=model.config.n_train,
        unit="bp",
        facts={
            "train_bp": train_bp,
            "windows": len(variants),
            "sha256": digest_tokens(map(training_windows.window, range(len(variants)))),
        },
    )
