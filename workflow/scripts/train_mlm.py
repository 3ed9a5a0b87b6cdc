"""Train a GAU-alpha by masked language modelling on a corpus (or take a checkpoint as it is)."""

from pathlib import Path

from job import model_job

with model_job(snakemake, snakemake.params.options["threads"]) as report:
    from longscale.files import read_json
    from longscale.models.characters import encode_texts, special_ids
    from longscale.models.gau_alpha import GAUAlphaConfig
    from longscale.models.tokenizer import check_vocabulary, read_tokenizer
    from longscale.provenance import collect_provenance
    from longscale.tasks.corpora import read_documents
    from longscale.training.mlm import train_mlm

    tokenizer = read_tokenizer(Path(snakemake.input.tokenizer).parent)
    corpus = Path(snakemake.input.documents).parent
    model, seed = snakemake.params.model, int(snakemake.wildcards.seed)
    train_length = int(snakemake.wildcards.train_length)
    shape = ("hidden_size", "num_hidden_layers", "intermediate_size", "attention_key_size")
    config = GAUAlphaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        normalization=model["normalization"],
        hidden_dropout_prob=model["hidden_dropout_prob"],
        attention_probs_dropout_prob=model["hidden_dropout_prob"],
        attention=snakemake.wildcards.attention,
        scheme=snakemake.wildcards.scheme,
        n_train=train_length,
        n_max=snakemake.params.longest,
        mask_token_id=special_ids(tokenizer).mask,
        **{key: model[key] for key in shape},
    )
    check_vocabulary(tokenizer, config.vocab_size, f"models.{snakemake.wildcards.model}")
    texts = {
        split: encode_texts(tokenizer, [d.text for d in read_documents(corpus, split)])
        for split in ("train", "dev")
    }
    published = snakemake.input.checkpoint
    train_mlm(
        texts["train"],
        texts["dev"],
        config,
        special_ids(tokenizer),
        Path(snakemake.output[0]).parent,
        options=snakemake.params.options,
        seed=seed,
        provenance={
            "corpus_sha256": read_json(corpus / "corpus.json", "sha256")["sha256"],
            **collect_provenance(),
        },
        initial=Path(published).parent if published else None,
        report=report,
    )
