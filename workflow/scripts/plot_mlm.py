"""Figures of the masked-LM branch, a folder per kind."""

from pathlib import Path

from job import job
from longscale.evaluation.mlm_records import (
    COSINE_COLUMNS,
    ENTROPY_COLUMNS,
    read_histories,
    read_maps,
    read_measurements,
)
from longscale.evaluation.mlm_scores import MLMTraining
from longscale.evaluation.mlm_table import read_mlm_table
from longscale.files import atomic_folder
from longscale.report import mlm_plots

STUDY = ["corpus", "model", "train_length"]


def given(kind: str) -> list[str]:
    """Input files of a kind; a study without such measurements has none."""
    return snakemake.input.get(kind, [])


def plot_histories(folder: Path) -> None:
    for names, rows in read_histories(given("histories")).groupby(STUDY):
        corpus, model, length = names
        heading = f"{corpus}: {model}, trained at {length:,} tokens"
        mlm_plots.plot_loss_curves(rows, folder / f"{corpus}.{model}.{length}.svg", heading)


def plot_entropies(folder: Path) -> None:
    entropies = read_measurements(given("entropies"), ENTROPY_COLUMNS)
    for names, rows in entropies.groupby([*STUDY, "attention", "scheme"]):
        corpus, model, length, attention, scheme = names
        heading = f"{corpus}: {model}, {attention}, trained with {scheme} at {length:,} tokens"
        path = folder / f"{corpus}.{model}.{length}.{attention}.{scheme}.svg"
        mlm_plots.plot_entropy(rows, path, length, heading)


def plot_cosines(folder: Path) -> None:
    cosines = read_measurements(given("cosines"), COSINE_COLUMNS).dropna(subset="alpha")
    for names, rows in cosines.groupby([*STUDY, "scheme"]):
        corpus, model, length, scheme = names
        heading = f"{corpus}: {model}, trained with {scheme} at {length:,} tokens"
        path = folder / f"{corpus}.{model}.{length}.{scheme}.svg"
        mlm_plots.plot_cosine_peaks(rows, path, heading)


def plot_maps(folder: Path) -> None:
    for path in given("maps"):
        of = MLMTraining.from_path(path)
        name = f"{of.corpus}.{of.model}.{of.train_length}.{of.attention}.{of.trained_scheme}"
        heading = (
            f"{of.corpus}: {of.model}, {of.attention},\n"
            f"trained with {of.trained_scheme} at {of.train_length:,} tokens, seed {of.seed}"
        )
        target = folder / f"{name}.seed{of.seed}.svg"
        mlm_plots.plot_attention_maps(read_maps(path), target, heading)


def plot_table(folder: Path) -> None:
    table = read_mlm_table(snakemake.input.table)
    mlm_plots.plot_length_curves(table, folder / "lengths")
    mlm_plots.plot_scheme_curves(table, folder / "schemes")
    mlm_plots.plot_rule_gain(table, folder / "rules")


with job(snakemake) as report, atomic_folder(snakemake.output[0]) as part:
    plot_table(part)
    plot_histories(part / "histories")
    plot_entropies(part / "entropies")
    plot_cosines(part / "cosines")
    plot_maps(part / "maps")
    for folder in sorted(part.iterdir()):
        report(f"{folder.name}: {len(list(folder.iterdir()))} files")
