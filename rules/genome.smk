# From NCBI's files (or a simulation in their shape), or UCSC's, to a FASTA with UCSC names. Rules serve
# every genome of the run (GENOMES) by its name.
# The downloads run beside Snakemake, never on a cluster's node.
localrules:
    download_md5checksums,
    download_genome_file,
    download_assembly_report,


if GENOME["simulate"] is not None:

    rule simulate_genome:
        input:
            recipe=GENOME["simulate"],
        output:
            multiext(
                f"{SIMULATED}/{ACCESSION}",
                fasta="_genomic.fna.gz",
                report="_assembly_report.txt",
            ),
            md5checksums=f"{SIMULATED}/md5checksums.txt",
            tasks=expand(f"{SIMULATED}/{{task}}.csv", task=SIMULATED_TASKS),
            truths=expand(f"{SIMULATED}/{{task}}.truth.parquet", task=SIMULATED_TASKS),
        log:
            logs("simulate_genome"),
        conda:
            CONDA_ENV
        resources:
            **NEEDS,
        params:
            overrides=GENOME["assembly"],
        script:
            "../workflow/scripts/simulate_genome.py"


if PROBE_GENOME is not None:

    rule simulate_probe_genome:
        input:
            recipe=GENOMES[PROBE_GENOME]["simulate"],
        output:
            multiext(
                f"{SIMULATED_PROBE}/{PROBE_ACCESSION}",
                fasta="_genomic.fna.gz",
                report="_assembly_report.txt",
            ),
            md5checksums=f"{SIMULATED_PROBE}/md5checksums.txt",
            genes=f"{SIMULATED_PROBE}/genes.gtf",
            tasks=directory(expand(f"{SIMULATED_PROBE}/{{task}}", task=PROBE_TASKS)),
            truths=expand(f"{SIMULATED_PROBE}/{{task}}.truth.npz", task=PROBE_TASKS),
        log:
            logs("simulate_probe_genome"),
        conda:
            CONDA_ENV
        resources:
            **NEEDS,
        params:
            overrides=GENOMES[PROBE_GENOME]["assembly"],
        script:
            "../workflow/scripts/simulate_probe_genome.py"


rule download_md5checksums:
    input:
        source=source_file("md5checksums"),
    output:
        results("downloads/{genome}.md5checksums.txt"),
    log:
        logs("download_md5checksums/{genome}"),
    wildcard_constraints:
        genome=one_of(genomes_with("md5checksums")),
    conda:
        CONDA_ENV
    resources:
        **NEEDS,
    params:
        url=genome_key("md5checksums"),
    script:
        "../workflow/scripts/download_file.py"


rule download_genome_file:
    input:
        source=source_file("fasta"),
        md5checksums=md5checksums,
    output:
        results("downloads/{genome}.{kind}.gz"),
    log:
        logs("download_genome_file/{genome}.{kind}"),
    wildcard_constraints:
        kind="fna",
    conda:
        CONDA_ENV
    resources:
        **NEEDS,
    params:
        url=genome_key("fasta"),
    script:
        "../workflow/scripts/download_file.py"


use rule download_genome_file as download_assembly_report with:
    input:
        source=source_file("assembly_report"),
        md5checksums=md5checksums,
    output:
        results("downloads/{genome}.{kind}.txt"),
    log:
        logs("download_assembly_report/{genome}.{kind}"),
    wildcard_constraints:
        genome=one_of(genomes_with("assembly_report")),
        kind="assembly_report",
    params:
        url=genome_key("assembly_report"),


rule convert_ncbi2ucsc:
    input:
        fasta=results("downloads/{genome}.fna.gz"),
        report=assembly_report,
    output:
        fasta=results("genome/{genome}.fa"),
        fai=results("genome/{genome}.fa.fai"),
        aliases=results("genome/{genome}.aliases.tsv"),
        provenance=results("genome/{genome}.json"),
    log:
        logs("convert_ncbi2ucsc/{genome}"),
    conda:
        CONDA_ENV
    resources:
        **NEEDS,
    params:
        truncated=genome_key("truncated"),
        url=genome_key("fasta"),
    script:
        "../workflow/scripts/convert_ncbi2ucsc.py"


# No input of any rule: jobs read the FASTA file where this is absent, with the same result.
rule fold_genome:
    input:
        fasta=results("genome/{genome}.fa"),
        fai=results("genome/{genome}.fa.fai"),
    output:
        results("genome/{genome}.bases"),
    log:
        logs("fold_genome/{genome}"),
    priority: 1
    conda:
        CONDA_ENV
    resources:
        **NEEDS,
    script:
        "../workflow/scripts/fold_genome.py"
