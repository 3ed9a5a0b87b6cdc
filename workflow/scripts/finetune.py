"""Fine-tune a pretrained encoder on a task at one window length."""

from pathlib import Path

from job import model_job

options = dict(snakemake.config["finetune"])
nodes = options.pop("nodes")  # no setting of the result

with model_job(snakemake, options["threads"]) as report:
    from longscale.files import checksum, read_json
    from longscale.provenance import collect_provenance
    from longscale.training.finetune import finetune_files
    from longscale.training.launch import launch

    genome_provenance = read_json(snakemake.input.provenance, "genome_sha256")
    launch(
        finetune_files,
        {
            "fasta": snakemake.input.fasta,
            "tokenizer": str(Path(snakemake.input.tokenizer).parent),
            "variants": snakemake.input.variants,
            "pretrained": str(Path(snakemake.input.pretrained).parent),
            "folder": str(Path(snakemake.output[0]).parent),
            "protocol": snakemake.wildcards.protocol,
            "attention": snakemake.wildcards.attention,
            "window_bp": int(snakemake.wildcards.train_bp),
            "options": options,
            "seed": int(snakemake.wildcards.seed),
            "provenance": {
                "genome_sha256": genome_provenance["genome_sha256"],
                "variants_sha256": checksum(snakemake.input.variants),
                "pretrained_sha256": checksum(snakemake.input.pretrained),
                **collect_provenance(),
            },
        },
        processes=options["processes"],
        threads=options["threads"],
        report=report,
        nodes=nodes,
        shared=Path(snakemake.output[0]).parent,
    )
