"""The best possible predictions of a simulated task's test rows, given a context."""

import pandas as pd

from job import job
from longscale.files import atomic_path, read_json
from longscale.tasks.simulated_probe import Truth, ceiling_table

with job(snakemake) as report:
    table = ceiling_table(
        Truth.load(snakemake.input.truth),
        pd.read_parquet(snakemake.input.rows),
        read_json(snakemake.input.facts, "names")["names"],
        int(snakemake.wildcards.context_bp),
    )
    with atomic_path(snakemake.output[0]) as part:
        table.to_parquet(part, index=False)
