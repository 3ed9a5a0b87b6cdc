# Masked language modelling: corpus, training at one length, scoring at all.
# These run beside Snakemake, never on a cluster's node.
localrules:
    plot_documents,
    build_mlm_table,
    plot_mlm,


rule prepare_corpus:
    input:
        fasta=corpus_genome,
        texts=corpus_texts,
    output:
        documents=results("corpora/{corpus}/documents.parquet"),
        rejected=results("corpora/{corpus}/rejected.tsv"),
        chosen=results("corpora/{corpus}/test_documents.tsv"),
        summary=results("corpora/{corpus}/corpus.json"),
    log:
        logs("prepare_corpus/{corpus}"),
    conda:
        CONDA_ENV
    resources:
        **NEEDS,
    params:
        corpus=lambda wildcards: config["corpora"][wildcards.corpus],
        train_length=MLM["train_length"],
        longest=LONGEST,
    script:
        "../workflow/scripts/prepare_corpus.py"


rule plot_documents:
    input:
        results("corpora/{corpus}/test_documents.tsv"),
    output:
        report(
            results("figures/documents/{corpus}.svg"),
            category="Masked LM",
            caption="../resources/captions/documents.rst",
        ),
    log:
        logs("plot_documents/{corpus}"),
    conda:
        CONDA_ENV
    resources:
        **NEEDS,
    script:
        "../workflow/scripts/plot_documents.py"


rule build_mlm_tokenizer:
    input:
        documents=results("corpora/{corpus}/documents.parquet"),
        genome=corpus_genome,
        checkpoint=mlm_published_tokenizer,
    output:
        results("mlm/{corpus}/{model}/tokenizer.json"),
    log:
        logs("build_mlm_tokenizer/{corpus}/{model}"),
    conda:
        CONDA_ENV
    resources:
        **NEEDS,
    params:
        model=lambda wildcards: config["models"][wildcards.model],
        corpus=lambda wildcards: config["corpora"][wildcards.corpus],
    script:
        "../workflow/scripts/build_mlm_tokenizer.py"


rule train_mlm:
    input:
        documents=results("corpora/{corpus}/documents.parquet"),
        tokenizer=results("mlm/{corpus}/{model}/tokenizer.json"),
        checkpoint=mlm_published,
    output:
        checkpoint_files(results(f"mlm/{TRAINED}")),
    log:
        logs(f"train_mlm/{TRAINED}"),
    # Before any scoring: what hangs on it is long, and cores would idle at the end.
    priority: 10
    group:
        grouped("train_mlm", "train")
    conda:
        CONDA_ENV
    threads: MLM["train"]["threads"]
    resources:
        **GPU_NEEDS,
    params:
        model=lambda wildcards: config["models"][wildcards.model],
        options=MLM["train"],
        longest=LONGEST,
    script:
        "../workflow/scripts/train_mlm.py"


rule measure_attention:
    input:
        corpus=results("corpora/{corpus}/documents.parquet"),
        tokenizer=results("mlm/{corpus}/{model}/tokenizer.json"),
        model=checkpoint_files(results(f"mlm/{TRAINED}")),
    output:
        matched=results(f"mlm/{TRAINED}/entropy_matched.json"),
        entropy=results(f"mlm/{TRAINED}/entropy.tsv"),
        cosine=results(f"mlm/{TRAINED}/cosine.tsv"),
        maps=results(f"mlm/{TRAINED}/maps.npz"),
    log:
        logs(f"measure_attention/{TRAINED}"),
    priority: 5
    group:
        grouped("measure_attention", "measure")
    conda:
        CONDA_ENV
    threads: MLM["evaluation"]["threads"]
    resources:
        **GPU_NEEDS,
    params:
        lengths=MLM["lengths"],
        rules=lambda wildcards: asked_rules(wildcards.attention, wildcards.scheme),
        schemes=lambda wildcards: matched_schemes(wildcards.attention, wildcards.scheme),
        train_length=MLM["train_length"],
        threads=MLM["evaluation"]["threads"],
    script:
        "../workflow/scripts/measure_attention.py"


use rule measure_attention as measure_attention_at with:
    output:
        matched=results(f"mlm/{TRAINED}/entropy_matched.{{length}}.json"),
    log:
        logs(f"measure_attention/{TRAINED}/{{length}}"),
    params:
        lengths=lambda wildcards: [int(wildcards.length)],
        rules=[],
        schemes=lambda wildcards: matched_schemes(wildcards.attention, wildcards.scheme),
        train_length=MLM["train_length"],
        threads=MLM["evaluation"]["threads"],


rule score_mlm:
    input:
        documents=results("corpora/{corpus}/documents.parquet"),
        tokenizer=results("mlm/{corpus}/{model}/tokenizer.json"),
        model=checkpoint_files(results(f"mlm/{TRAINED}")),
        measured=matched_entropy,
    output:
        results(f"mlm/{TRAINED}/{{mlm_protocol}}/{{length}}.parquet"),
    log:
        logs(f"score_mlm/{TRAINED}/{{mlm_protocol}}/{{length}}"),
    group:
        grouped("score_mlm", "score")
    conda:
        CONDA_ENV
    threads: MLM["evaluation"]["threads"]
    resources:
        **GPU_NEEDS,
    params:
        arms=cell_arms,
        options=MLM["evaluation"],
        longest=LONGEST,
    script:
        "../workflow/scripts/score_mlm.py"


# The longest jobs first, so that no core idles at the end.
use rule score_mlm as score_mlm_longest with:
    output:
        results(f"mlm/{TRAINED}/{{mlm_protocol}}/{{length}}.parquet"),
    wildcard_constraints:
        length=str(LONGEST),
    priority: 5


ruleorder: score_mlm_longest > score_mlm


rule build_mlm_table:
    input:
        scores=mlm_score_files(),
    output:
        table=report(
            results("tables/mlm.tsv"),
            category="Masked LM",
            caption="../resources/captions/mlm.rst",
        ),
        wide=report(
            results("tables/mlm_wide.tsv"),
            category="Masked LM",
            caption="../resources/captions/mlm_wide.rst",
        ),
        selection=results("tables/mlm_selection.tsv"),
        choice=results("tables/mlm_choice.tsv"),
        released=results("tables/mlm_released.tsv"),
        page=report(
            results("tables/mlm.html"),
            category="Masked LM",
            caption="../resources/captions/mlm.rst",
        ),
    log:
        logs("build_mlm_table"),
    conda:
        CONDA_ENV
    resources:
        **NEEDS,
    params:
        options=config["evaluation"],
    script:
        "../workflow/scripts/build_mlm_table.py"


rule plot_mlm:
    input:
        table=results("tables/mlm.tsv"),
        histories=trained_files("training.json"),
        entropies=trained_files("entropy.tsv"),
        cosines=trained_files("cosine.tsv"),
        maps=trained_files("maps.npz", seed=FIRST_SEED),
    output:
        report(
            directory(results("figures/mlm")),
            patterns=["{kind}/{name}.svg"],
            category="Masked LM",
            subcategory="{kind}",
            caption="../resources/captions/mlm_figure.rst",
        ),
    log:
        logs("plot_mlm"),
    conda:
        CONDA_ENV
    resources:
        **NEEDS,
    script:
        "../workflow/scripts/plot_mlm.py"
