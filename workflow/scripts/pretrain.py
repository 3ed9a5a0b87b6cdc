"""Pretrain a small model by masked language modelling on the run's genome."""

from pathlib import Path

from job import model_job

with model_job(snakemake, snakemake.params.options["threads"]) as report:
    from longscale.files import read_json
    from longscale.genome.sequence import Genome
    from longscale.models.dnabert2 import DNABERT2Config
    from longscale.models.tokenizer import check_vocabulary, load_tokenizer
    from longscale.provenance import collect_provenance
    from longscale.training.pretrain import pretrain

    tokenizer = load_tokenizer(Path(snakemake.input.tokenizer).parent)
    shape = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    config = DNABERT2Config(
        vocab_size=tokenizer.get_vocab_size(),
        attention=snakemake.wildcards.attention,
        hidden_dropout_prob=snakemake.params.model["hidden_dropout_prob"],
        **{key: snakemake.params.model[key] for key in shape},
    )
    check_vocabulary(tokenizer, config.vocab_size, f"models.{snakemake.wildcards.model}")
    genome_provenance = read_json(snakemake.input.provenance, "genome_sha256")
    pretrain(
        Genome(snakemake.input.fasta),
        tokenizer,
        config,
        Path(snakemake.output[0]).parent,
        options=snakemake.params.options,
        seed=int(snakemake.wildcards.seed),
        provenance={
            "genome_sha256": genome_provenance["genome_sha256"],
            **collect_provenance(),
        },
        report=report,
    )
