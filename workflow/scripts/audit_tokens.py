"""Audit what tokenisation and truncation leave of the windows of every task, for every model."""

from pathlib import Path

import pandas as pd

from job import model_job

with model_job(snakemake, snakemake.params.threads) as report:
    from longscale.evaluation.compare import write_table
    from longscale.genome.sequence import Genome
    from longscale.models.tokenizer import load_tokenizer
    from longscale.report.tables import write_html_table
    from longscale.training.token_audit import (
        AUDIT_FLAGS,
        SEED,
        audit_sentences,
        audit_tokens,
        sample_variants,
    )

    genome = Genome(snakemake.input.fasta)
    # tokenizers/{genome}/{model}/tokenizer.json
    tokenizers = {
        Path(path).parent.name: load_tokenizer(Path(path).parent)
        for path in snakemake.input.tokenizers
    }
    parts = []
    for path in map(Path, snakemake.input.splits):  # splits/{task}/{protocol}.parquet
        task, protocol = path.parent.name, path.stem
        variants, count = sample_variants(pd.read_parquet(path))
        sample = {"variants": count, "sampled": len(variants), "seed": SEED}
        for model, tokenizer in tokenizers.items():
            for window_bp in snakemake.params.lengths:
                part = audit_tokens(
                    genome, tokenizer, variants, protocol=protocol, window_bp=window_bp
                ).assign(**sample)
                part.insert(0, "task", task)
                part.insert(1, "model", model)
                for sentence in audit_sentences(part):
                    report(sentence)
                parts.append(part)
        report(f"{task}, {protocol}: {len(variants):,} of {count:,} variants audited")
    table = pd.concat(parts, ignore_index=True)
    write_table(table, snakemake.output.table)
    first = ["task", "model", "protocol", "window_bp", "allele", "flags"]
    page = table[[*first, *(name for name in table.columns if name not in first)]]
    write_html_table(
        page, snakemake.output.page, title="Tokens of the windows", flag_texts=AUDIT_FLAGS
    )
