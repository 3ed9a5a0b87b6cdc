"""What became of every task's alleles, in one table."""

from job import job
from longscale.evaluation.compare import write_table
from longscale.files import read_json
from longscale.report.tables import write_html_table
from longscale.variants.accept import REASONS
from longscale.variants.summary import outcomes_table, variants_table

with job(snakemake):
    facts = {
        task: read_json(path)
        for task, path in zip(snakemake.params.tasks, snakemake.input.summaries, strict=True)
    }
    write_table(variants_table(facts), snakemake.output.table)
    write_html_table(
        outcomes_table(facts),
        snakemake.output.page,
        title="What became of each task's alleles",
        flag_texts=REASONS,
    )
