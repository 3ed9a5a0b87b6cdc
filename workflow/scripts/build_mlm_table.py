"""Compare all arms of the masked-LM branch: its table, long and wide."""

from job import job
from longscale.evaluation.compare import write_table
from longscale.evaluation.mlm_choice import build_choice_table
from longscale.evaluation.mlm_scores import MLMCell
from longscale.evaluation.mlm_table import (
    MLM_FLAGS,
    MLM_TABLE_COLUMNS,
    build_mlm_table,
    build_mlm_wide_table,
    is_released,
)
from longscale.report.tables import summarise_mlm, write_html_table

with job(snakemake, echo=True) as report:
    options = snakemake.params.options
    cells = [MLMCell.from_path(path) for path in snakemake.input.scores]
    table = build_mlm_table(
        cells,
        resamples=options["resamples"],
        seed=options["seed"],
        report=report,
    )
    # Defects of the released code never stand in the main table.
    released = is_released(table)
    write_table(table[released], snakemake.output.released)
    table = table[~released]
    # Nor does what arms were chosen by: it is not what they are reported on.
    selection = table["protocol"] == "selection"
    write_table(table[selection], snakemake.output.selection)
    table = table[~selection]
    write_table(table, snakemake.output.table)
    write_table(build_mlm_wide_table(table), snakemake.output.wide)
    choice = build_choice_table(
        cells, resamples=options["resamples"], seed=options["seed"], report=report
    )
    write_table(choice, snakemake.output.choice)
    # What should be read before the accuracy stands before it in the page.
    first = [
        *MLM_TABLE_COLUMNS[: MLM_TABLE_COLUMNS.index("seeds")],
        *("trained_scheme", "trained", "flags", "verdict", "rule_verdict"),
    ]
    page = table[[*first, *(name for name in table.columns if name not in first)]]
    write_html_table(
        page,
        snakemake.output.page,
        title="Masked tokens, all arms and lengths; training-free schemes first",
        flag_texts=MLM_FLAGS,
    )
    for line in summarise_mlm(table).splitlines():
        report(line)
