# What the rules of the probe stage read, and what of it is asked for.
from longscale.probe_cells import (
    MADE_IN_THE_RUN,
    feature_cells,
    genome_of_task,
    is_trained,
    kind_of_task,
    longest_context,
    probe_cells,
)
from longscale.tasks.probe_tasks import PROBE_TASKS as LRB_PROBE_TASKS

PLACE = "{probe_task}/{model}/{context_bp}/{length_rule}/{extension}"
PROBE_ROWS = [".parquet", ".labels.npy", ".labels.json", ".rejected.tsv"]
PROBE_CELLS = probe_cells(PROBE)
FEATURE_CELLS = feature_cells(PROBE)
PROBE_RECIPE = recipe_tasks(GENOMES[PROBE_GENOME]["simulate"]) if PROBE_GENOME else {}
LRB_FILES = {path for task in LRB_PROBE_TASKS.values() for path in task.tables()}
LRB_SHARDS = {
    task.files["shards"]: list(task.shards())
    for task in LRB_PROBE_TASKS.values()
    if "shards" in task.files
}


wildcard_constraints:
    probe_task=one_of([*LRB_PROBE_TASKS, *PROBE_RECIPE]),
    features=one_of(PROBE["features"]),
    context_bp="[1-9][0-9]*",
    length_rule="[a-z-]+",
    extension="none|ntk",
    lrb_file=one_of(LRB_FILES),
    lrb_folder=one_of(LRB_SHARDS),


def task_genome(ending):
    """A file of the genome that a task's places are on."""
    return lambda wildcards: results(
        f"genome/{genome_of_task(config, wildcards.probe_task)}{ending}"
    )


def task_files(wildcards):
    """What a task's rows are read from."""
    task = LRB_PROBE_TASKS.get(wildcards.probe_task)
    if task is None:
        return f"{SIMULATED_PROBE}/{wildcards.probe_task}"
    return expand(results("downloads/probe/{path}"), path=task.files.values())


def task_folder(wildcards):
    """The folder in which a task's files have the paths of the benchmark."""
    is_lrb = wildcards.probe_task in LRB_PROBE_TASKS
    return results("downloads/probe") if is_lrb else SIMULATED_PROBE


def gene_annotation(wildcards):
    """The genes of the task's genome, where there is an annotation."""
    name = genome_of_task(config, wildcards.probe_task)
    url = GENOMES[name]["genes"]
    if name == PROBE_GENOME and not url:
        return f"{SIMULATED_PROBE}/genes.gtf"
    return results(f"downloads/{name}.genes{annotation_suffix(url)}") if url else []


def annotation_suffix(url):
    """The suffix by which an annotation is read: .gtf, .gtf.gz, ..."""
    match = re.search(r"\.(gtf|gff3?|bed)(\.gz)?$", url.lower())
    return match[0] if match else Path(url).suffix


def probe_recipe(wildcards):
    """Recipe and overrides of a simulated task."""
    if wildcards.probe_task in LRB_PROBE_TASKS:
        return None
    genome = GENOMES[PROBE_GENOME]
    return {"recipe": genome["simulate"], "overrides": genome["assembly"]}


def encoder_inputs(wildcards):
    """The files of a frozen model: published, or made in this run."""
    name, model = wildcards.model, config["models"][wildcards.model]
    if model["architecture"] not in MADE_IN_THE_RUN:
        return [results(f"encoders/{name}")]
    weights = ["config.json", "model.safetensors"]
    if model["checkpoint"]:
        return checkpoint_files(results(f"checkpoints/{name}"), [*weights, "tokenizer.json"])
    if model["architecture"] == "dnabert2":
        folder, tokenizers = f"pretrain/{GENOME['name']}/{name}", f"tokenizers/{GENOME['name']}"
        trained = results(f"{folder}/dot/seed{config['probe']['train']['seed']}")
        return [*checkpoint_files(trained, weights), results(f"{tokenizers}/{name}/tokenizer.json")]
    folder = results(f"mlm/{PROBE['corpus']}/{name}")
    trained = f"{folder}/{MLM['train_length']}/dot/rope/seed{config['probe']['train']['seed']}"
    return [*checkpoint_files(trained, weights), f"{folder}/tokenizer.json"]


def row_files(task):
    """Rows and labels of a task."""
    return multiext(results(f"probe/rows/{task}"), *PROBE_ROWS[:3])


def probed_cells():
    """The cells with a probe: embeddings of tasks that have training rows, and features."""
    return [cell for cell in PROBE_CELLS if is_trained(cell.task)] + FEATURE_CELLS


def zero_shot_cells():
    """The cells that are scored without training."""
    asked = PROBE["zero_shot"]["tasks"]
    return [cell for cell in PROBE_CELLS if cell.task in asked or not is_trained(cell.task)]


def cell_files(cells, names):
    """Files of some cells."""
    return [results(f"probe/{cell.path}/{name}") for cell in cells for name in names]


def ceiling_lengths(task):
    """The contexts of a simulated task that has a probe."""
    cells = [cell for cell in PROBE_CELLS if cell.task == task]
    return sorted({cell.context_bp for cell in cells} if task in PROBE_RECIPE else [])


def ceiling_files():
    """The best possible predictions of the simulated tasks."""
    return [
        results(f"probe/ceilings/{task}/{context_bp}.parquet")
        for task in PROBE["tasks"]
        for context_bp in ceiling_lengths(task)
    ]


def published_numbers():
    """The numbers of the benchmark's paper, where they are wanted and one of its tasks is run."""
    wanted = PROBE["published"] and not LRB_PROBE_TASKS.keys().isdisjoint(PROBE["tasks"])
    return f"{workflow.basedir}/resources/lrb_published.tsv" if wanted else []


def lrb_targets():
    """What the probe stage makes."""
    return [
        results("tables/lrb.tsv"),
        results("tables/lrb.html"),
        results("figures/lrb"),
        *cell_files(probed_cells(), ["folds.json", "predictions.parquet"]),
        *cell_files(zero_shot_cells(), ["zero_shot.parquet"]),
    ]
