"""Score a task's test variants with one checkpoint at one length, under every rule."""

from pathlib import Path

import pandas as pd

from job import model_job

with model_job(snakemake, snakemake.params.threads) as report:
    import torch

    from longscale.evaluation.multipliers import ALIBI, MATCHED_RULE, read_measured
    from longscale.evaluation.scores import write_scores
    from longscale.evaluation.scoring import score_variants
    from longscale.files import checksum, read_json
    from longscale.genome.sequence import Genome
    from longscale.models.checkpoint import load_checkpoint
    from longscale.models.tokenizer import load_tokenizer
    from longscale.provenance import collect_provenance, digest
    from longscale.training.protocols import PROTOCOLS
    from longscale.variants.windows import require_windows

    protocol = snakemake.wildcards.protocol
    folder = Path(snakemake.input.model[0]).parent
    training = read_json(folder / "training.json", "flags", "n_train", "seed")
    genome = Genome(snakemake.input.fasta)
    variants = pd.read_parquet(snakemake.input.variants)
    variants = variants[variants["split"] == "test"]
    window_bp = int(snakemake.wildcards.eval_bp)
    if snakemake.params.edge == "drop":
        require_windows(genome, variants, window_bp)
    model = load_checkpoint(PROTOCOLS[protocol].model, folder, complete=True)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    measured, rule_flags = None, {}
    if snakemake.input.get("measured"):
        measured, flags = read_measured(snakemake.input.measured).at(ALIBI, window_bp)
        rule_flags = {MATCHED_RULE: flags}
    scores = score_variants(
        model,
        load_tokenizer(Path(snakemake.input.tokenizer).parent),
        genome,
        variants,
        window_bp,
        snakemake.params.rules,
        protocol=protocol,
        batch_tokens=snakemake.params.batch_tokens,
        measured=measured,
        report=report,
    )
    provenance = {
        "flags": training["flags"],
        "rule_flags": rule_flags,
        "n_train": training["n_train"],
        "seed": training["seed"],
        "config_sha256": digest(dict(snakemake.config)),
        "model_sha256": checksum(folder / "model.safetensors"),
        **read_json(snakemake.input.provenance),
        **collect_provenance(),
    }
    write_scores(scores, snakemake.output[0], provenance)
