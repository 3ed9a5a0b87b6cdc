# Tables and figures, always from the score files.
TRUTHS = [name for name in STUDY["tasks"] if name in SIMULATED_TASKS]


if GENOME["simulate"] is not None:

    rule compute_posterior:
        input:
            f"{SIMULATED}/{{task}}.truth.parquet",
        output:
            results("truths/{task}.parquet"),
        log:
            logs("compute_posterior/{task}"),
        params:
            eval_bp=STUDY["eval_bp"],
        resources:
            mem_mb=more_each_attempt(1000),
            runtime=more_each_attempt(10),
        conda:
            CONDA_ENV
        script:
            "../workflow/scripts/compute_posterior.py"


rule build_tables:
    input:
        scores=score_files(),
        truths=expand(results("truths/{task}.parquet"), task=TRUTHS),
    output:
        auroc=report(
            results("tables/auroc.tsv"), category="AUROC", caption="../resources/captions/auroc.rst"
        ),
        wide=report(
            results("tables/auroc_wide.tsv"),
            category="AUROC",
            caption="../resources/captions/auroc_wide.rst",
        ),
    log:
        logs("build_tables"),
    params:
        options=config["evaluation"],
        truths=TRUTHS,
    resources:
        mem_mb=more_each_attempt(4000),
        runtime=more_each_attempt(60),
    conda:
        CONDA_ENV
    script:
        "../workflow/scripts/build_tables.py"


rule plot_auroc:
    input:
        results("tables/auroc.tsv"),
    output:
        report(
            directory(results("figures/auroc")),
            patterns=["{task}.{protocol}.{model}.svg"],
            category="AUROC",
            caption="../resources/captions/auroc_figure.rst",
        ),
    log:
        logs("plot_auroc"),
    resources:
        mem_mb=more_each_attempt(2000),
        runtime=more_each_attempt(10),
    conda:
        CONDA_ENV
    script:
        "../workflow/scripts/plot_auroc.py"
