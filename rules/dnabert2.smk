# Tokenizer, pretraining (where there is no published checkpoint), fine-tuning, scoring.
CHECKPOINT_FILES = ["config.json", "model.safetensors", "training.json"]
RUN = "{task}/{protocol}/{model}/{train_bp}/{attention}/seed{seed}"


def checkpoint_files(folder, names=CHECKPOINT_FILES):
    """The files that make a checkpoint."""
    return [f"{folder}/{name}" for name in names]


def pretrained_attention(attention):
    """The attention of the pretraining that a fine-tuning starts from.

    cos-matched measures a dot-product model; the released defect was put on one too.
    """
    return "dot" if attention == "cos-matched" or attention.endswith("-released") else attention


def pretrained_model(wildcards):
    """The weights that a fine-tuning starts from."""
    if config["models"][wildcards.model]["checkpoint"]:
        return results(f"checkpoints/{wildcards.model}/model.safetensors")
    attention = pretrained_attention(wildcards.attention)
    folder = f"pretrain/{GENOME['name']}/{wildcards.model}/{attention}/seed{wildcards.seed}"
    return results(f"{folder}/model.safetensors")


def tokenizer_file(wildcards):
    """The tokenizer of a model."""
    return results(f"tokenizers/{GENOME['name']}/{wildcards.model}/tokenizer.json")


def scoring_model(wildcards):
    """The fine-tuned weights that score a task (another task's, where it has no training rows)."""
    run = RUN.format(**{**wildcards, "task": train_task(wildcards.task)})
    return checkpoint_files(results(f"finetune/{run}"))


rule fetch_checkpoint:
    output:
        checkpoint_files(
            results("checkpoints/{model}"), ["config.json", "model.safetensors", "tokenizer.json"]
        ),
    log:
        logs("fetch_checkpoint/{model}"),
    params:
        model=lambda wildcards: config["models"][wildcards.model],
    resources:
        mem_mb=more_each_attempt(4000),
        runtime=more_each_attempt(60),
    conda:
        CONDA_ENV
    script:
        "../workflow/scripts/fetch_checkpoint.py"


rule build_tokenizer:
    input:
        **genome_files(),
        checkpoint=lambda wildcards: (
            results(f"checkpoints/{wildcards.model}/tokenizer.json")
            if config["models"][wildcards.model]["checkpoint"]
            else []
        ),
    output:
        results(f"tokenizers/{GENOME['name']}/{{model}}/tokenizer.json"),
    log:
        logs("build_tokenizer/{model}"),
    params:
        model=lambda wildcards: config["models"][wildcards.model],
        exclude=config["pretrain"]["exclude_contigs"],
    resources:
        mem_mb=more_each_attempt(4000),
        runtime=more_each_attempt(60),
    conda:
        CONDA_ENV
    script:
        "../workflow/scripts/build_tokenizer.py"


rule pretrain:
    input:
        **genome_files(),
        provenance=results("genome/{genome}.json"),
        tokenizer=tokenizer_file,
    output:
        checkpoint_files(results("pretrain/{genome}/{model}/{attention}/seed{seed}")),
    log:
        logs("pretrain/{genome}/{model}/{attention}/seed{seed}"),
    params:
        model=lambda wildcards: config["models"][wildcards.model],
        options=config["pretrain"],
    threads: config["pretrain"]["threads"]
    resources:
        mem_mb=more_each_attempt(8000),
        runtime=more_each_attempt(24 * 60),
    conda:
        CONDA_ENV
    script:
        "../workflow/scripts/pretrain.py"


rule finetune:
    input:
        **genome_files(),
        provenance=results(f"genome/{GENOME['name']}.json"),
        variants=results("splits/{task}/{protocol}.parquet"),
        tokenizer=tokenizer_file,
        pretrained=pretrained_model,
    output:
        checkpoint_files(results(f"finetune/{RUN}")),
    log:
        logs(f"finetune/{RUN}"),
    params:
        options=config["finetune"],
    threads: config["finetune"]["threads"]
    resources:
        mem_mb=more_each_attempt(16000),
        runtime=more_each_attempt(24 * 60),
    conda:
        CONDA_ENV
    script:
        "../workflow/scripts/finetune.py"


rule score_variants:
    input:
        **genome_files(),
        provenance=results(f"genome/{GENOME['name']}.json"),
        variants=results("splits/{task}/{protocol}.parquet"),
        tokenizer=tokenizer_file,
        model=scoring_model,
    output:
        results(f"scores/{RUN}/{{eval_bp}}.parquet"),
    log:
        logs(f"score_variants/{RUN}/{{eval_bp}}"),
    params:
        rules=STUDY["rules"],
        edge=config["windows"]["edge"],
        batch_tokens=config["score"]["batch_tokens"],
        threads=config["score"]["threads"],
    threads: config["score"]["threads"]
    resources:
        mem_mb=more_each_attempt(16000),
        runtime=more_each_attempt(8 * 60),
    conda:
        CONDA_ENV
    script:
        "../workflow/scripts/score_variants.py"
