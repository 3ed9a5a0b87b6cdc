"""Score a corpus's held-out documents with one checkpoint at one length, under every arm."""

from pathlib import Path

from job import model_job

with model_job(snakemake, snakemake.params.options["threads"]) as report:
    import torch

    from longscale.evaluation.mlm import arm_flags, encode_documents, passes_of, score_arms
    from longscale.evaluation.mlm_scores import write_mlm_scores
    from longscale.evaluation.multipliers import read_measured
    from longscale.files import checksum, read_json
    from longscale.models.characters import special_ids
    from longscale.models.checkpoint import load_checkpoint
    from longscale.models.gau_alpha import GAUAlphaForMaskedLM
    from longscale.models.tokenizer import read_tokenizer
    from longscale.provenance import collect_provenance, digest
    from longscale.tasks.corpora import read_documents

    folder = Path(snakemake.input.model[0]).parent
    corpus = Path(snakemake.input.documents).parent
    protocol, length = snakemake.wildcards.mlm_protocol, int(snakemake.wildcards.length)
    tokenizer = read_tokenizer(Path(snakemake.input.tokenizer).parent)
    special = special_ids(tokenizer)
    split = "dev" if protocol == "selection" else "test"
    documents = encode_documents(tokenizer, read_documents(corpus, split))
    model = load_checkpoint(GAUAlphaForMaskedLM, folder, complete=True)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    measured = read_measured(snakemake.input.measured) if snakemake.input.measured else None
    scores, not_run = score_arms(
        model,
        passes_of(
            protocol,
            documents,
            length,
            span=int(snakemake.wildcards.train_length),
            longest=snakemake.params.longest,
            special=special,
            options=snakemake.params.options,
        ),
        snakemake.params.arms,
        length,
        special.mask,
        measured=measured and measured.multipliers,
        report=report,
    )
    training = read_json(folder / "training.json", "flags", "n_train", "seed")
    provenance = {
        "flags": training["flags"],
        "arm_flags": arm_flags(scores, length, measured and measured.flags),
        "not_run": not_run,
        "n_train": training["n_train"],
        "seed": training["seed"],
        "config_sha256": digest(dict(snakemake.config)),
        "model_sha256": checksum(folder / "model.safetensors"),
        "corpus_sha256": read_json(corpus / "corpus.json", "sha256")["sha256"],
        **collect_provenance(),
    }
    write_mlm_scores(scores, snakemake.output[0], provenance)
