# From a variant table to accepted variants with windows and splits; every loss is listed.
# These run beside Snakemake, never on a cluster's node.
localrules:
    download_task,
    tabulate_variants,


rule download_task:
    output:
        results("downloads/lrb/{task}.csv"),
    log:
        logs("download_task/{task}"),
    conda:
        CONDA_ENV
    resources:
        **NEEDS,
    params:
        revision=lambda wildcards: config["tasks"][wildcards.task]["revision"],
    script:
        "../workflow/scripts/download_task.py"


rule prepare_variants:
    input:
        **genome_files(),
        variants=task_source,
        aliases=results(f"genome/{GENOME['name']}.aliases.tsv"),
    output:
        accepted=results("variants/{task}.parquet"),
        rejected=results("variants/{task}.rejected.tsv"),
        summary=results("variants/{task}.summary.json"),
    log:
        logs("prepare_variants/{task}"),
    conda:
        CONDA_ENV
    resources:
        **NEEDS,
    params:
        task=lambda wildcards: config["tasks"][wildcards.task],
    script:
        "../workflow/scripts/prepare_variants.py"


rule tabulate_variants:
    input:
        summaries=expand(results("variants/{task}.summary.json"), task=variant_tasks()),
    output:
        table=report(
            results("tables/variants.tsv"),
            category="Checks",
            caption="../resources/captions/variants.rst",
        ),
        page=report(
            results("tables/variants.html"),
            category="Checks",
            caption="../resources/captions/variants.rst",
        ),
    log:
        logs("tabulate_variants"),
    conda:
        CONDA_ENV
    resources:
        **NEEDS,
    params:
        tasks=variant_tasks(),
    script:
        "../workflow/scripts/tabulate_variants.py"


rule check_windows:
    input:
        **genome_files(),
        variants=results("variants/{task}.parquet"),
    output:
        kept=results("windows/{task}.parquet"),
        dropped=results("windows/{task}.dropped.tsv"),
    log:
        logs("check_windows/{task}"),
    conda:
        CONDA_ENV
    resources:
        **NEEDS,
    params:
        longest_bp=LONGEST_BP,
        edge=config["windows"]["edge"],
    script:
        "../workflow/scripts/check_windows.py"


rule assign_splits:
    input:
        fai=results(f"genome/{GENOME['name']}.fa.fai"),
        aliases=results(f"genome/{GENOME['name']}.aliases.tsv"),
        variants=results("windows/{task}.parquet"),
        trained=trained_splits,
    output:
        splits=results("splits/{task}/{protocol}.parquet"),
        summary=results("splits/{task}/{protocol}.json"),
        left_out=results("splits/{task}/{protocol}.left_out.tsv"),
    log:
        logs("assign_splits/{task}.{protocol}"),
    conda:
        CONDA_ENV
    resources:
        **NEEDS,
    params:
        task=lambda wildcards: config["tasks"][wildcards.task],
        options=config["splits"],
        longest_bp=LONGEST_BP,
    script:
        "../workflow/scripts/assign_splits.py"


rule export_windows:
    input:
        **genome_files(),
        variants=results("splits/{task}/paired.parquet"),
    output:
        results("windows/{task}/{window_bp}/{split}.csv"),
    log:
        logs("export_windows/{task}.{window_bp}.{split}"),
    conda:
        CONDA_ENV
    resources:
        **NEEDS,
    params:
        edge=config["windows"]["edge"],
    script:
        "../workflow/scripts/export_windows.py"


rule measure_leaks:
    input:
        **genome_files(),
        splits=split_files(variant_tasks()),
    output:
        table=report(
            results("tables/leaks.tsv"),
            category="Checks",
            caption="../resources/captions/leaks.rst",
        ),
        page=report(
            results("tables/leaks.html"),
            category="Checks",
            caption="../resources/captions/leaks.rst",
        ),
    log:
        logs("measure_leaks"),
    conda:
        CONDA_ENV
    resources:
        **NEEDS,
    params:
        train_tasks={task: train_task(task) for task in STUDY["tasks"]},
        protocols=STUDY["protocols"],
        lengths=LENGTHS_BP,
    script:
        "../workflow/scripts/measure_leaks.py"
