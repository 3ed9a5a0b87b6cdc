"""Compare all arms: the AUROC table, long and wide."""

from job import job
from longscale.evaluation.compare import (
    AUROC_COLUMNS,
    build_auroc_table,
    build_wide_table,
    is_released_arm,
    write_table,
)
from longscale.evaluation.scores import Cell
from longscale.report.tables import write_html_table

with job(snakemake, echo=True) as report:
    options = snakemake.params.options
    table = build_auroc_table(
        [Cell.from_path(path) for path in snakemake.input.scores],
        truths=dict(zip(snakemake.params.truths, snakemake.input.truths, strict=True)),
        block_bp=options["block_bp"],
        resamples=options["resamples"],
        seed=options["seed"],
        report=report,
    )
    # Defects of the released code never stand in the main table.
    released = is_released_arm(table)
    write_table(table[released], snakemake.output.released)
    table = table[~released]
    write_table(table, snakemake.output.auroc)
    write_table(build_wide_table(table), snakemake.output.wide)
    # What should be read before the AUROC stands before it in the page.
    first = [*AUROC_COLUMNS[: AUROC_COLUMNS.index("seeds")], "flags", "verdict", "rule_verdict"]
    page = table[[*first, *(name for name in table.columns if name not in first)]]
    write_html_table(page, snakemake.output.page, title="AUROC, all arms and lengths")
