"""One checkpoint's scores at one length as a TSV, with each variant's line in the input file."""

import pandas as pd

from job import job
from longscale.evaluation.scores import ROW_KEY, read_scores
from longscale.files import atomic_path

with job(snakemake) as report:
    scores, _ = read_scores(snakemake.input.scores)
    lines = pd.read_parquet(snakemake.input.variants, columns=[*ROW_KEY, "line"])
    table = lines.merge(scores, on=ROW_KEY, how="right")
    with atomic_path(snakemake.output[0]) as part:
        table.sort_values("line").to_csv(part, sep="\t", index=False, float_format="%.6g")
    report(f"{len(table):,} variants, log-odds of label 1 per rule")
