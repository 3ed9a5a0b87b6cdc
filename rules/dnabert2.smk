# DNABERT-2: tokenizer, pretraining (without a published checkpoint), fine-tuning, scoring.
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
    conda:
        CONDA_ENV
    resources:
        **NEEDS,
    params:
        model=lambda wildcards: config["models"][wildcards.model],
        exclude=config["pretrain"]["exclude_contigs"],
    script:
        "../workflow/scripts/build_tokenizer.py"


rule audit_tokens:
    input:
        **genome_files(),
        splits=split_files(STUDY["tasks"]),
        tokenizers=expand(
            results("tokenizers/{genome}/{model}/tokenizer.json"),
            genome=GENOME["name"],
            model=STUDY["models"],
        ),
    output:
        table=report(
            results("tables/tokens.tsv"),
            category="Checks",
            caption="../resources/captions/tokens.rst",
        ),
        page=report(
            results("tables/tokens.html"),
            category="Checks",
            caption="../resources/captions/tokens.rst",
        ),
    log:
        logs("audit_tokens"),
    conda:
        CONDA_ENV
    threads: config["score"]["threads"]
    resources:
        **NEEDS,
    params:
        lengths=LENGTHS_BP,
        threads=config["score"]["threads"],
    script:
        "../workflow/scripts/audit_tokens.py"


rule pretrain:
    input:
        **genome_files(),
        provenance=results("genome/{genome}.json"),
        tokenizer=tokenizer_file,
    output:
        checkpoint_files(results("pretrain/{genome}/{model}/{attention}/seed{seed}")),
    log:
        logs("pretrain/{genome}/{model}/{attention}/seed{seed}"),
    wildcard_constraints:
        genome=one_of([GENOME["name"]]),
    group:
        grouped("pretrain", "pretrain")
    conda:
        CONDA_ENV
    threads: config["pretrain"]["threads"]
    resources:
        **GPU_NEEDS,
    params:
        model=lambda wildcards: config["models"][wildcards.model],
        options=config["pretrain"],
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
    # Before any scoring: what hangs on it is long, and cores would idle at the end.
    priority: 10
    group:
        grouped("finetune", None if SEVERAL_PROCESSES else "train")
    conda:
        CONDA_ENV
    threads: config["finetune"]["threads"] * PROCESSES_ON_A_NODE
    resources:
        **GPU_NEEDS,
        **SEVERAL_PROCESSES,
    params:
        options=finetune_options(),
    script:
        "../workflow/scripts/finetune.py"


rule measure_entropy:
    input:
        **genome_files(),
        variants=results("splits/{task}/{protocol}.parquet"),
        tokenizer=tokenizer_file,
        model=checkpoint_files(results(f"finetune/{RUN}")),
    output:
        results(f"finetune/{RUN}/entropy_matched.json"),
    log:
        logs(f"measure_entropy/{RUN}"),
    priority: 5
    group:
        grouped("measure_entropy", "measure")
    conda:
        CONDA_ENV
    threads: config["score"]["threads"]
    resources:
        **GPU_NEEDS,
    params:
        train_bp=lambda wildcards: int(wildcards.train_bp),
        eval_bp=STUDY["eval_bp"],
        edge=config["windows"]["edge"],
        threads=config["score"]["threads"],
    script:
        "../workflow/scripts/measure_entropy.py"


use rule measure_entropy as measure_entropy_at with:
    output:
        results(f"finetune/{RUN}/entropy_matched.{{eval_bp}}.json"),
    log:
        logs(f"measure_entropy/{RUN}/{{eval_bp}}"),
    params:
        train_bp=lambda wildcards: int(wildcards.train_bp),
        eval_bp=lambda wildcards: [int(wildcards.eval_bp)],
        edge=config["windows"]["edge"],
        threads=config["score"]["threads"],


rule export_scores:
    input:
        scores=results(f"scores/{RUN}/{{eval_bp}}.parquet"),
        variants=results("variants/{task}.parquet"),
    output:
        results(f"scores/{RUN}/{{eval_bp}}.tsv"),
    log:
        logs(f"export_scores/{RUN}/{{eval_bp}}"),
    conda:
        CONDA_ENV
    resources:
        **NEEDS,
    script:
        "../workflow/scripts/export_scores.py"


rule score_variants:
    input:
        **genome_files(),
        provenance=results(f"genome/{GENOME['name']}.json"),
        variants=results("splits/{task}/{protocol}.parquet"),
        tokenizer=tokenizer_file,
        model=scoring_model,
        measured=measured_multipliers,
    output:
        results(f"scores/{RUN}/{{eval_bp}}.parquet"),
    log:
        logs(f"score_variants/{RUN}/{{eval_bp}}"),
    group:
        grouped("score_variants", "score")
    conda:
        CONDA_ENV
    threads: config["score"]["threads"]
    resources:
        **GPU_NEEDS,
    params:
        rules=STUDY["rules"],
        edge=config["windows"]["edge"],
        batch_tokens=config["score"]["batch_tokens"],
        threads=config["score"]["threads"],
    script:
        "../workflow/scripts/score_variants.py"
