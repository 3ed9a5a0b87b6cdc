# Frozen embeddings and small networks on them: rows, embeddings in shards, probes, one table.
localrules:
    download_probe_file,
    download_probe_shards,
    download_genes,
    fetch_encoder,
    build_lrb_table,
    plot_lrb,


rule download_probe_file:
    output:
        results("downloads/probe/{lrb_file}"),
    log:
        logs("download_probe_file/{lrb_file}"),
    conda:
        CONDA_ENV
    resources:
        **NEEDS,
    params:
        files=lambda wildcards: [wildcards.lrb_file],
        folder=lambda wildcards: results("downloads/probe"),
        revision=PROBE["revision"],
    script:
        "../workflow/scripts/download_probe_files.py"


use rule download_probe_file as download_probe_shards with:
    output:
        directory(results("downloads/probe/{lrb_folder}")),
    log:
        logs("download_probe_shards/{lrb_folder}"),
    params:
        files=lambda wildcards: LRB_SHARDS[wildcards.lrb_folder],
        folder=lambda wildcards: results("downloads/probe"),
        revision=PROBE["revision"],


rule download_genes:
    input:
        source=source_file("genes"),
    output:
        results("downloads/{genome}.genes{suffix}"),
    log:
        logs("download_genes/{genome}{suffix}"),
    wildcard_constraints:
        suffix=r"\.[a-z0-9.]+",
    conda:
        CONDA_ENV
    resources:
        **NEEDS,
    params:
        url=genome_key("genes"),
    script:
        "../workflow/scripts/download_file.py"


rule prepare_probe_rows:
    input:
        fasta=task_genome(".fa"),
        fai=task_genome(".fa.fai"),
        aliases=task_genome(".aliases.tsv"),
        files=task_files,
        genes=gene_annotation,
    output:
        multiext(
            results("probe/rows/{probe_task}"),
            rows=PROBE_ROWS[0],
            labels=PROBE_ROWS[1],
            facts=PROBE_ROWS[2],
            rejected=PROBE_ROWS[3],
        ),
    log:
        logs("prepare_probe_rows/{probe_task}"),
    conda:
        CONDA_ENV
    resources:
        **NEEDS,
    params:
        folder=task_folder,
        simulated=probe_recipe,
        context_bp=lambda wildcards: (
            longest_context(PROBE, wildcards.probe_task)
            if config["windows"]["edge"] == "drop"
            else 0
        ),
    script:
        "../workflow/scripts/prepare_probe_rows.py"


rule fetch_encoder:
    output:
        directory(results("encoders/{model}")),
    log:
        logs("fetch_encoder/{model}"),
    conda:
        CONDA_ENV
    resources:
        **NEEDS,
    params:
        model=lambda wildcards: config["models"][wildcards.model],
    script:
        "../workflow/scripts/fetch_encoder.py"


# The shards are no outputs that Snakemake knows of: it would delete them with a job that was
# stopped, and the next one could not go on behind them. The index is written last.
rule embed_rows:
    input:
        fasta=task_genome(".fa"),
        fai=task_genome(".fa.fai"),
        provenance=task_genome(".json"),
        rows=results("probe/rows/{probe_task}.parquet"),
        facts=results("probe/rows/{probe_task}.labels.json"),
        encoder=encoder_inputs,
    output:
        results(f"embeddings/{PLACE}/index.json"),
    log:
        logs(f"embed_rows/{PLACE}"),
    priority: 5
    group:
        grouped("embed_rows", "embed")
    conda:
        CONDA_ENV
    threads: PROBE["embed"]["threads"]
    resources:
        **GPU_NEEDS,
    params:
        architecture=lambda wildcards: config["models"][wildcards.model]["architecture"],
        edge=config["windows"]["edge"],
        options=PROBE["embed"],
    script:
        "../workflow/scripts/embed_rows.py"


rule train_probe:
    input:
        rows=results("probe/rows/{probe_task}.parquet"),
        labels=results("probe/rows/{probe_task}.labels.npy"),
        facts=results("probe/rows/{probe_task}.labels.json"),
        embeddings=results(f"embeddings/{PLACE}/index.json"),
    output:
        predictions=results(f"probe/{PLACE}/predictions.parquet"),
        folds=results(f"probe/{PLACE}/folds.json"),
    log:
        logs(f"train_probe/{PLACE}"),
    group:
        grouped("train_probe", "probe")
    conda:
        CONDA_ENV
    threads: PROBE["train"]["threads"]
    resources:
        **GPU_NEEDS,
    params:
        kind=lambda wildcards: kind_of_task(wildcards.probe_task, PROBE_RECIPE),
        options=PROBE["train"],
    script:
        "../workflow/scripts/train_probe.py"


use rule train_probe as train_probe_on_features with:
    input:
        rows=results("probe/rows/{probe_task}.parquet"),
        labels=results("probe/rows/{probe_task}.labels.npy"),
        facts=results("probe/rows/{probe_task}.labels.json"),
        features=lambda wildcards: PROBE["features"][wildcards.features][wildcards.probe_task],
    output:
        predictions=results("probe/{probe_task}/{features}/0/none/none/predictions.parquet"),
        folds=results("probe/{probe_task}/{features}/0/none/none/folds.json"),
    log:
        logs("train_probe/{probe_task}/{features}"),
    group:
        grouped("train_probe_on_features", "probe")
    resources:
        **NEEDS,
    params:
        kind=lambda wildcards: kind_of_task(wildcards.probe_task, PROBE_RECIPE),
        options=PROBE["train"],
        leave_out_missing=PROBE["leave_out_missing"],


rule score_zero_shot:
    input:
        fasta=task_genome(".fa"),
        fai=task_genome(".fa.fai"),
        rows=results("probe/rows/{probe_task}.parquet"),
        embeddings=results(f"embeddings/{PLACE}/index.json"),
        encoder=encoder_inputs,
    output:
        results(f"probe/{PLACE}/zero_shot.parquet"),
    log:
        logs(f"score_zero_shot/{PLACE}"),
    group:
        grouped("score_zero_shot", "score")
    conda:
        CONDA_ENV
    threads: PROBE["embed"]["threads"]
    resources:
        **GPU_NEEDS,
    params:
        architecture=lambda wildcards: config["models"][wildcards.model]["architecture"],
        log_likelihood=PROBE["zero_shot"]["log_likelihood"],
        both_strands=PROBE["zero_shot"]["both_strands"],
        options=PROBE["embed"],
    script:
        "../workflow/scripts/score_zero_shot.py"


if PROBE_GENOME is not None:

    rule compute_ceiling:
        input:
            truth=f"{SIMULATED_PROBE}/{{probe_task}}.truth.npz",
            rows=results("probe/rows/{probe_task}.parquet"),
            facts=results("probe/rows/{probe_task}.labels.json"),
        output:
            results("probe/ceilings/{probe_task}/{context_bp}.parquet"),
        log:
            logs("compute_ceiling/{probe_task}/{context_bp}"),
        conda:
            CONDA_ENV
        resources:
            **NEEDS,
        script:
            "../workflow/scripts/compute_ceiling.py"


rule build_lrb_table:
    input:
        predictions=cell_files(probed_cells(), ["predictions.parquet"]),
        folds=cell_files(probed_cells(), ["folds.json"]),
        zero_shot=cell_files(zero_shot_cells(), ["zero_shot.parquet"]),
        rows=[path for task in PROBE["tasks"] for path in row_files(task)],
        ceilings=ceiling_files(),
        published=published_numbers(),
    output:
        table=report(
            results("tables/lrb.tsv"),
            category="Probes",
            caption="../resources/captions/lrb.rst",
        ),
        page=report(
            results("tables/lrb.html"),
            category="Probes",
            caption="../resources/captions/lrb.rst",
        ),
        extension=report(
            results("tables/lrb_extension.tsv"),
            category="Probes",
            caption="../resources/captions/lrb_extension.rst",
        ),
        table_2=report(
            results("tables/table_2.tsv"),
            category="Probes",
            caption="../resources/captions/lrb_extension.rst",
        ),
        distances=report(
            results("tables/lrb_by_distance.tsv"),
            category="Probes",
            caption="../resources/captions/lrb_by_distance.rst",
        ),
        outputs=report(
            results("tables/lrb_by_output.tsv"),
            category="Probes",
            caption="../resources/captions/lrb_by_output.rst",
        ),
    log:
        logs("build_lrb_table"),
    conda:
        CONDA_ENV
    resources:
        **NEEDS,
    params:
        options=config["evaluation"],
        further_trained=PROBE["further_trained"],
        kinds={task: row["kind"] for task, row in PROBE_RECIPE.items()},
        tasks={task: ceiling_lengths(task) for task in PROBE["tasks"]},
        cells=[cell.path for cell in probed_cells() + zero_shot_cells()],
        folder=lambda wildcards: results("probe"),
    script:
        "../workflow/scripts/build_lrb_table.py"


rule plot_lrb:
    input:
        results("tables/lrb.tsv"),
    output:
        report(
            directory(results("figures/lrb")),
            patterns=["{name}.svg"],
            category="Probes",
            caption="../resources/captions/lrb_figure.rst",
        ),
    log:
        logs("plot_lrb"),
    conda:
        CONDA_ENV
    resources:
        **NEEDS,
    script:
        "../workflow/scripts/plot_lrb.py"
