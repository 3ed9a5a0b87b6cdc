# Tables and figures, always from the score files.
# These run beside Snakemake, never on a cluster's node.
localrules:
    build_tables,
    plot_auroc,


if GENOME["simulate"] is not None:

    rule compute_posterior:
        input:
            f"{SIMULATED}/{{task}}.truth.parquet",
        output:
            results("truths/{task}.parquet"),
        log:
            logs("compute_posterior/{task}"),
        conda:
            CONDA_ENV
        resources:
            **NEEDS,
        params:
            eval_bp=STUDY["eval_bp"],
        script:
            "../workflow/scripts/compute_posterior.py"


rule build_tables:
    input:
        scores=score_files(),
        truths=expand(results("truths/{task}.parquet"), task=TRUTHS),
    output:
        auroc=report(
            results("tables/auroc.tsv"),
            category="AUROC",
            caption="../resources/captions/auroc.rst",
        ),
        wide=report(
            results("tables/auroc_wide.tsv"),
            category="AUROC",
            caption="../resources/captions/auroc_wide.rst",
        ),
        released=results("tables/auroc_released.tsv"),
        page=report(
            results("tables/auroc.html"),
            category="AUROC",
            caption="../resources/captions/auroc.rst",
        ),
    log:
        logs("build_tables"),
    conda:
        CONDA_ENV
    resources:
        **NEEDS,
    params:
        options=config["evaluation"],
        truths=TRUTHS,
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
    conda:
        CONDA_ENV
    resources:
        **NEEDS,
    script:
        "../workflow/scripts/plot_auroc.py"
