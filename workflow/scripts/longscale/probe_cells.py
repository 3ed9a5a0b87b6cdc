"""Which cells the probe stage has, and what of its tasks and models is known before anything runs.

Read by every job and by `make plan`: it imports nothing heavy.
"""

from collections.abc import Mapping
from itertools import product
from typing import Any, NamedTuple

from longscale.tasks.probe_tasks import PROBE_TASKS

WITH_RULES = ("dnabert2", "gau-alpha", "nucleotide-transformer")
WITH_ROTARY = ("gau-alpha", "nucleotide-transformer")
MADE_IN_THE_RUN = ("dnabert2", "gau-alpha")

AS_TRAINED = {
    "rules": ["none"],
    "extensions": ["none"],
    "tasks": None,
    "models": None,
    "context_bp": None,
}
"""The arm of a section `probe` that names none."""

FEATURES_BP = 0
"""Context of a features file: nobody knows it."""


class Place(NamedTuple):
    """One cell of the table, in the order of its path."""

    task: str
    model: str
    context_bp: int
    rule: str
    extension: str

    @property
    def path(self) -> str:
        """Below the folders of embeddings and of probes."""
        return "/".join(map(str, self))


def probe_cells(probe: Mapping[str, Any]) -> list[Place]:
    """The cells that the section `probe` asks for, features files apart; each once."""
    keys = ("tasks", "models", "context_bp")
    places = [
        Place(*place)
        for arm in probe["arms"] or [AS_TRAINED]
        for place in product(
            *(arm[key] or probe[key] for key in keys), arm["rules"], arm["extensions"]
        )
    ]
    return list(dict.fromkeys(places))


def feature_cells(probe: Mapping[str, Any]) -> list[Place]:
    """The cells of features files."""
    return [
        Place(task, name, FEATURES_BP, "none", "none")
        for name, files in probe["features"].items()
        for task in files
    ]


def longest_context(probe: Mapping[str, Any], task: str) -> int:
    """The longest context of a task in bp: its rows are those that have it."""
    lengths = [cell.context_bp for cell in probe_cells(probe) if cell.task == task]
    return max(lengths, default=FEATURES_BP)


def simulated_genome(config: Mapping[str, Any]) -> str | None:
    """Name of the further genome that carries simulated tasks."""
    return next((name for name, row in config["genomes"].items() if row["simulate"]), None)


def genome_of_task(config: Mapping[str, Any], task: str) -> str | None:
    """Name of the genome that a task's places are on; None where the run has none for it."""
    if task not in PROBE_TASKS:
        return simulated_genome(config)
    name = config["probe"]["genomes"][PROBE_TASKS[task].genome]
    return config["genome"]["name"] if name is None else name


def kind_of_task(task: str, recipe_tasks: Mapping[str, Mapping]) -> str:
    """Kind of a task of the benchmark or of a recipe (its section `tasks`)."""
    return PROBE_TASKS[task].kind if task in PROBE_TASKS else recipe_tasks[task]["kind"]


def is_trained(task: str) -> bool:
    """Whether a task has training rows."""
    return task not in PROBE_TASKS or PROBE_TASKS[task].rows[0] > 0
