"""What a job downloads and what it stores, before it has run: sizes are estimates."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from longscale.tasks.lrb import LRB_REPOSITORY, LRB_TASKS
from longscale.tasks.probe_tasks import PROBE_TASKS
from longscale.workload import PLACE, At, Study, load_of, parameters

BYTES = 4  # of a stored number
HALF_BYTES = 2  # of a stored number of an embedding or of a profile
TRAINING_BYTES = 12  # of a parameter in a checkpoint to resume from: weights and both moments
KEPT_CHECKPOINTS = 3  # while a training runs: the two newest and the best
KEY_BYTES = 12  # of a row of a score file: which variant it is
PACKED = 4  # bases of a gzipped FASTA in one byte, about
REMOTE = ("https://", "http://")


class Source(NamedTuple):
    """One thing to fetch: a URL, or what of which repository. `size` in bytes; None: not known."""

    name: str
    size: float | None


def weights_bytes(study: Study, model: str) -> float:
    """Size of a model's weights."""
    return BYTES * parameters(study.model(model))


def _url(url: str, sizes: Mapping[str, float]) -> Source:
    local = Path(url.removeprefix("file://"))
    if not url.startswith(REMOTE) and local.is_file():
        return Source(url, local.stat().st_size)
    return Source(url, sizes.get(url.rsplit("/", 1)[-1]))


def _lrb(study: Study, task: str) -> Source:
    row, revision = LRB_TASKS[task], study.config["tasks"][task]["revision"]
    name = f"Hugging Face dataset {LRB_REPOSITORY} ({revision}): {row.filename}"
    return Source(name, row.megabytes * 1e6)


def _probe_file(study: Study, path: str) -> Source:
    """A file (or the folder of shards) of a probe task, which shares the task's size."""
    revision = study.config["probe"]["revision"]
    task = next(task for task in PROBE_TASKS.values() if path in task.files.values())
    size = task.megabytes * 1e6
    if task.shard_rows:  # next to which its tables are small
        size *= path == task.files["shards"]
    else:
        size /= len(task.files)
    return Source(f"Hugging Face dataset {LRB_REPOSITORY} ({revision}): {path}", size)


def _checkpoint(study: Study, model: str) -> Source:
    entry = study.config["models"][model]
    size = weights_bytes(study, model)
    if Path(entry["checkpoint"]).is_dir():
        return Source(f"the folder {entry['checkpoint']} (copied)", size)
    return Source(f"Hugging Face model {entry['checkpoint']} ({entry['revision']})", size)


def source_of(study: Study, rule: str, path: str, sizes: Mapping[str, float]) -> Source | None:
    """What the job of `rule` that makes `path` (below the results) fetches from elsewhere, if so.

    `sizes`: of known files, in bytes, by their names.
    """
    keys = {
        "download_md5checksums": "md5checksums",
        "download_genome_file": "fasta",
        "download_assembly_report": "assembly_report",
    }
    if rule in keys:
        url = study.genomes[study.genome_of(path)][keys[rule]]
        return _url(url, sizes) if url else None
    if rule == "download_task":
        return _lrb(study, Path(path).stem)
    if rule in ("download_probe_file", "download_probe_shards"):
        return _probe_file(study, path.removeprefix("downloads/probe/"))
    if rule == "download_genes":
        return _url(study.genomes[study.genome_of(path)]["genes"], sizes)
    if rule in ("fetch_checkpoint", "fetch_encoder"):
        return _checkpoint(study, path.split("/")[1])
    if rule == "prepare_corpus" and study.config["corpora"][path.split("/")[1]]["source"] == (
        "wanjuan"
    ):
        return Source("Hugging Face dataset of the corpus wanjuan", None)
    return None


def genome_bytes(study: Study, name: str, sizes: Mapping[str, float]) -> float:
    """Size of a genome as text."""
    genome = study.genomes[name]
    if genome["simulate"] is not None:
        recipe = study.recipe(name)
        return recipe["chromosomes"] * recipe["loci_per_chromosome"] * recipe["locus_bp"]
    return PACKED * (_url(genome["fasta"], sizes).size or 0.0)


def _place(path: str) -> At:
    """The parts of the path of embeddings or of a probe."""
    return re.match(f"(embeddings|probe)/{PLACE}", path).groupdict()  # type: ignore[union-attr]


def embedding_bytes(study: Study, path: str) -> float:
    """Embeddings of a task: of each row its pieces, as float16."""
    at = _place(path)
    size, width = study.probe_task(at["task"]), study.model(at["model"])["hidden_size"]
    return size.rows * size.pieces(int(at["context_bp"])) * width * HALF_BYTES


def _label_bytes(study: Study, path: str) -> float:
    size = study.probe_task(path.split("/")[2].partition(".")[0])
    each = HALF_BYTES if size.bin_bp else BYTES
    return size.rows * size.bins * size.outputs * each


def prediction_bytes(study: Study, at: At) -> float:
    """What a probe writes: of each test row and output, the predictions of all folds."""
    size = study.probe_task(at["task"])
    positions = size.pieces(int(at["context_bp"])) if size.bin_bp else 1
    return size.test * positions * size.outputs * study.config["probe"]["train"]["folds"] * BYTES


PROBE_BYTES = {
    "embed_rows": embedding_bytes,
    "prepare_probe_rows": _label_bytes,
    "train_probe": lambda study, path: prediction_bytes(study, _place(path)),
}


def stored_bytes(study: Study, rule: str, path: str, sizes: Mapping[str, float]) -> float:
    """What the finished job leaves on the disk; 0 for what is small whatever the study."""
    load = load_of(study, rule, path)
    if rule in ("convert_ncbi2ucsc", "fold_genome"):
        return genome_bytes(study, study.genome_of(path), sizes)
    if rule in ("simulate_genome", "simulate_probe_genome"):
        return genome_bytes(study, study.genome_of(path), sizes) / PACKED
    if rule == "score_variants":
        task, protocol = path.split("/")[1:3]
        row = KEY_BYTES + BYTES * len(study.config["study"]["rules"])
        return study.rows(task, protocol).test * row
    if rule in PROBE_BYTES:
        return PROBE_BYTES[rule](study, path)
    if load and load.trains:
        return weights_bytes(study, load.model)
    source = source_of(study, rule, path, sizes)
    if source is None:
        return 0.0
    # What comes from the hub lies in its cache, too.
    return (source.size or 0.0) * (2 if source.name.startswith("Hugging Face") else 1)


def running_bytes(study: Study, rule: str, path: str) -> float:
    """What a training needs beside, while it runs."""
    load = load_of(study, rule, path)
    if not (load and load.trains):
        return 0.0
    adapters = rule == "finetune" and study.config["finetune"]["lora"]  # their moments are few
    each = BYTES if adapters else TRAINING_BYTES
    return KEPT_CHECKPOINTS * each * parameters(study.model(load.model))
