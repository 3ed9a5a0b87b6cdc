# What the rules of the variant branch read: names of files as functions of the configuration and of
# wildcards.
from longscale.config import recipe_tasks
from longscale.attention.rules import LENGTH_RULES

LENGTHS_BP = sorted({*STUDY["train_bp"], *STUDY["eval_bp"]}) if STUDY else []
LONGEST_BP = max(LENGTHS_BP, default=0)
ACCESSION = "GCA_900000001.1_LongscaleSim1"
SIMULATED = results(f"simulated/{GENOME['name']}")
SIMULATED_TASKS = [name for name, task in config["tasks"].items() if task["source"] == "simulated"]
PROBE_ACCESSION = "GCA_900000002.1_LongscaleSim2"
PROBE_GENOME = next((name for name, row in config["genomes"].items() if row["simulate"]), None)
PROBE_TASKS = list(recipe_tasks(GENOMES[PROBE_GENOME]["simulate"])) if PROBE_GENOME else []
SIMULATED_PROBE = results(f"simulated/{PROBE_GENOME}")
TRUTHS = [name for name in STUDY["tasks"] if name in SIMULATED_TASKS] if STUDY else []
RUN = "{task}/{protocol}/{model}/{train_bp}/{attention}/seed{seed}"

# Keys that `finetune` has not always had. At their defaults they are no settings of a result: those
# from before stay valid.
LATER_OPTIONS = {"gradient_checkpointing": False, "processes": 1, "lora": None}

# How the plugin for Slurm asks for several processes: one task, or one on each of several nodes, whose
# job then calls srun itself.
NODES = config["finetune"]["nodes"]
PROCESSES_ON_A_NODE = -(-config["finetune"]["processes"] // NODES)
SEVERAL_PROCESSES = {
    **({"nodes": NODES, "tasks_per_gpu": 0} if config["finetune"]["processes"] > 1 else {}),
    **({"tasks": NODES, "mpi": "srun"} if NODES > 1 else {}),
}


def finetune_options():
    """What a fine-tuning depends on; the script reads the whole section."""
    options = {key: value for key, value in config["finetune"].items() if key != "nodes"}
    return {key: value for key, value in options.items() if LATER_OPTIONS.get(key, ...) != value}


def genome_key(key):
    """What the configuration says of the genome of a job."""
    return lambda wildcards: GENOMES[wildcards.genome][key]


def source_file(key):
    """The file that a source of a genome is: given by its path (none for an address), or simulated."""

    def source(wildcards):
        genome = GENOMES[wildcards.genome]
        if genome[key]:
            return [genome[key]] if "://" not in genome[key] else []
        if genome["simulate"] is None:
            return []
        accession = PROBE_ACCESSION if wildcards.genome == PROBE_GENOME else ACCESSION
        names = {
            "fasta": f"{accession}_genomic.fna.gz",
            "assembly_report": f"{accession}_assembly_report.txt",
            "md5checksums": "md5checksums.txt",
        }
        return [results(f"simulated/{wildcards.genome}/{names[key]}")]

    return source


def genomes_with(key):
    """The genomes that have a source `key`: simulated, or named in the configuration."""
    return [name for name, genome in GENOMES.items() if genome["simulate"] or genome[key]]


def md5checksums(wildcards):
    """The published MD5 sums of an assembly, where there are any."""
    has_sums = wildcards.genome in genomes_with("md5checksums")
    return results(f"downloads/{wildcards.genome}.md5checksums.txt") if has_sums else []


def assembly_report(wildcards):
    """The assembly report, for all but genomes that keep the names in their FASTA."""
    has_report = wildcards.genome in genomes_with("assembly_report")
    return results(f"downloads/{wildcards.genome}.assembly_report.txt") if has_report else []


def genome_files():
    """The genome as every later stage needs it."""
    return {
        "fasta": results(f"genome/{GENOME['name']}.fa"),
        "fai": results(f"genome/{GENOME['name']}.fa.fai"),
    }


def further_genomes():
    """The genomes beside the one of both branches, ready to be read."""
    return expand(results("genome/{genome}.bases"), genome=config["genomes"])


def train_task(task):
    """The task whose checkpoints score `task`."""
    return config["tasks"][task]["train_task"] or task


def variant_tasks():
    """The tasks of the study and those whose checkpoints score them, each once."""
    tasks = STUDY["tasks"]
    return list(dict.fromkeys([*tasks, *map(train_task, tasks)]))


def trained_splits(wildcards):
    """What the checkpoints of a task without training variants of its own have seen."""
    other = config["tasks"][wildcards.task]["train_task"]
    return results(f"splits/{other}/{wildcards.protocol}.parquet") if other else []


def split_files(tasks):
    """The tables of splits of some tasks, each once, under every protocol of the study."""
    return expand(
        results("splits/{task}/{protocol}.parquet"),
        task=dict.fromkeys(tasks).keys(),
        protocol=STUDY["protocols"],
    )


def task_source(wildcards):
    """The file that a task's variants are read from."""
    task = config["tasks"][wildcards.task]
    return {
        "simulated": f"{SIMULATED}/{wildcards.task}.csv",
        "lrb": results(f"downloads/lrb/{wildcards.task}.csv"),
        "file": task["path"],
    }[task["source"]]


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


def measured_multipliers(wildcards):
    """The measured multipliers of that run, where a rule of the study needs them."""
    if not any(LENGTH_RULES[name].measured for name in STUDY["rules"]):
        return []
    run = RUN.format(**{**wildcards, "task": train_task(wildcards.task)})
    listed = int(wildcards.eval_bp) in STUDY["eval_bp"]
    name = "entropy_matched" if listed else f"entropy_matched.{wildcards.eval_bp}"
    return results(f"finetune/{run}/{name}.json")


def score_files():
    """Every score file of the study."""
    return [
        path
        for protocol in STUDY["protocols"]
        for path in expand(
            results(f"scores/{RUN}/{{eval_bp}}.parquet"),
            task=STUDY["tasks"],
            protocol=protocol,
            model=STUDY["models"],
            train_bp=STUDY["train_bp"],
            attention=STUDY["protocol_attentions"].get(protocol, STUDY["attentions"]),
            seed=STUDY["seeds"],
            eval_bp=STUDY["eval_bp"],
        )
    ]


def auroc_targets():
    """What the variant branch makes."""
    per_task = expand(
        [
            results("windows/{task}.dropped.tsv"),
            results("variants/{task}.rejected.tsv"),
        ],
        task=STUDY["tasks"],
    )
    return [
        results("tables/auroc.tsv"),
        results("tables/auroc_wide.tsv"),
        results("tables/auroc.html"),
        results("figures/auroc"),
        results("tables/variants.tsv"),
        results("tables/leaks.tsv"),
        results("tables/tokens.tsv"),
        results(f"genome/{GENOME['name']}.bases"),
        *per_task,
        # Named here although the table needs them anyway: a score file that is deleted comes back.
        *score_files(),
    ]
