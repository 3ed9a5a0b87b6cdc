"""What a task's entry in the configuration means: columns, test chromosomes."""

from collections.abc import Mapping
from typing import Any, Literal

from longscale.tasks.lrb import LRB_TASKS, PATHOGENIC_COLUMNS


def column_map(name: str, entry: Mapping[str, Any]) -> dict[str, str]:
    """What each column of the task's file holds: our key -> the file's column (or INFO key)."""
    if entry["source"] == "lrb":
        return dict(LRB_TASKS[name].columns)
    if entry["source"] == "simulated":
        return dict(PATHOGENIC_COLUMNS)  # a simulated task has the shape of these
    return {key: column for key, column in entry["columns"].items() if column is not None}


def test_chromosomes(
    name: str, entry: Mapping[str, Any], aliases: Mapping[str, str]
) -> list[str] | Literal["all"] | None:
    """Chromosomes (UCSC names) held out for testing; `all` where the task trains nothing."""
    if entry["train_task"]:
        return "all"
    if entry["source"] == "lrb":
        return list(LRB_TASKS[name].test_chromosomes)
    return [aliases.get(chromosome, chromosome) for chromosome in entry["test_chromosomes"]] or None
