# Published checkpoints, for both branches.
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
        mem_mb=more_each_attempt(4000),
        runtime=more_each_attempt(60),
    params:
        model=lambda wildcards: config["models"][wildcards.model],
    script:
        "../workflow/scripts/fetch_checkpoint.py"
