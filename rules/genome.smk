# From NCBI's files (or a simulation in their shape) to a FASTA with UCSC names.
ACCESSION = "GCA_900000001.1_LongscaleSim1"
SIMULATED = results(f"simulated/{GENOME['name']}")
SIMULATED_TASKS = [name for name, task in config["tasks"].items() if task["source"] == "simulated"]


def genome_source(key):
    """Where a file of the assembly comes from: a URL, a path, or None."""
    if GENOME["simulate"] is None:
        return GENOME[key]
    names = {
        "fasta": f"{ACCESSION}_genomic.fna.gz",
        "assembly_report": f"{ACCESSION}_assembly_report.txt",
        "md5checksums": "md5checksums.txt",
    }
    return Path(SIMULATED, names[key]).absolute().as_uri()


def simulated_input(key):
    """The simulated file behind a file:// source, so that it is made before it is fetched."""
    return [] if GENOME["simulate"] is None else [f"{SIMULATED}/{Path(genome_source(key)).name}"]


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
        params:
            overrides=GENOME["assembly"],
        resources:
            mem_mb=more_each_attempt(2000),
            runtime=more_each_attempt(30),
        conda:
            CONDA_ENV
        script:
            "../workflow/scripts/simulate_genome.py"


rule download_md5checksums:
    input:
        simulated_input("md5checksums"),
    output:
        results("downloads/{genome}.md5checksums.txt"),
    log:
        logs("download_md5checksums/{genome}"),
    params:
        url=genome_source("md5checksums"),
    resources:
        mem_mb=more_each_attempt(500),
        runtime=more_each_attempt(10),
    conda:
        CONDA_ENV
    script:
        "../workflow/scripts/download_file.py"


rule download_genome_file:
    input:
        simulated_input("fasta"),
        md5checksums=(
            results("downloads/{genome}.md5checksums.txt") if genome_source("md5checksums") else []
        ),
    output:
        results("downloads/{genome}.{kind}.gz"),
    log:
        logs("download_genome_file/{genome}.{kind}"),
    wildcard_constraints:
        kind="fna",
    params:
        url=genome_source("fasta"),
    resources:
        mem_mb=more_each_attempt(500),
        runtime=more_each_attempt(240),
    conda:
        CONDA_ENV
    script:
        "../workflow/scripts/download_file.py"


use rule download_genome_file as download_assembly_report with:
    output:
        results("downloads/{genome}.{kind}.txt"),
    log:
        logs("download_assembly_report/{genome}.{kind}"),
    wildcard_constraints:
        kind="assembly_report",
    params:
        url=genome_source("assembly_report"),


rule convert_ncbi2ucsc:
    input:
        fasta=results("downloads/{genome}.fna.gz"),
        report=results("downloads/{genome}.assembly_report.txt"),
    output:
        fasta=results("genome/{genome}.fa"),
        fai=results("genome/{genome}.fa.fai"),
        aliases=results("genome/{genome}.aliases.tsv"),
        provenance=results("genome/{genome}.json"),
    log:
        logs("convert_ncbi2ucsc/{genome}"),
    params:
        truncated=GENOME["truncated"],
        url=genome_source("fasta"),
    resources:
        mem_mb=more_each_attempt(1000),
        runtime=more_each_attempt(60),
    conda:
        CONDA_ENV
    script:
        "../workflow/scripts/convert_ncbi2ucsc.py"
