# Published checkpoints, for both branches.
# These run beside Snakemake, never on a cluster's node.
localrules:
    fetch_checkpoint,


rule fetch_checkpoint:
    output:
        checkpoint_files(
            results("checkpoints/{model}"),
            ["config.json", "model.safetensors", "tokenizer.json"],
        ),
    log:
        logs("fetch_checkpoint/{model}"),
    conda:
        CONDA_ENV
    resources:
        **NEEDS,
    params:
        model=lambda wildcards: config["models"][wildcards.model],
    script:
        "../workflow/scripts/fetch_checkpoint.py"
