"""Write the simulated assembly and its variant tasks."""

from pathlib import Path

from job import job
from longscale.tasks.simulated import Recipe, write_simulation

with job(snakemake) as report:
    recipe = Recipe.read(snakemake.input.recipe, snakemake.params.overrides)
    write_simulation(recipe, Path(snakemake.output.fasta).parent)
    report(f"simulated {recipe.assembly['chromosomes']} chromosomes with {len(recipe.tasks)} tasks")
