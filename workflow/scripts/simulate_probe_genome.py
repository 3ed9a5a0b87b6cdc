"""Write the simulated assembly of the probe tasks, its genes and the tasks' files."""

from pathlib import Path

from job import job
from longscale.tasks.simulated_probe import ProbeRecipe, write_simulation

with job(snakemake) as report:
    recipe = ProbeRecipe.read(snakemake.input.recipe, snakemake.params.overrides)
    write_simulation(recipe, Path(snakemake.output.fasta).parent)
    report(
        f"simulated {recipe.assembly['chromosomes']} chromosomes with {len(recipe.tasks)} probe"
        " tasks"
    )
