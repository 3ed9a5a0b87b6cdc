"""What became of every task's alleles, in one table."""

import json
from pathlib import Path

from job import job
from longscale.evaluation.compare import write_table
from longscale.report.tables import write_html_table
from longscale.variants.accept import REASONS
from longscale.variants.summary import outcomes_table, variants_table

with job(snakemake):
    facts = {
        task: json.loads(Path(path).read_text())
        for task, path in zip(snakemake.params.tasks, snakemake.input.summaries, strict=True)
    }
    write_table(variants_table(facts), snakemake.output.table)
    write_html_table(
        outcomes_table(facts),
        snakemake.output.page,
        title="What became of each task's alleles",
        flag_texts=REASONS,
    )
