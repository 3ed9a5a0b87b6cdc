"""The benchmark's table: every probe and zero-shot score, and the published numbers."""

from pathlib import Path

from job import job
from longscale.evaluation.compare import write_table
from longscale.evaluation.lrb_table import LRB_FLAGS, ProbeCell, TaskFiles, build_lrb_table
from longscale.report.tables import write_html_table

with job(snakemake, echo=True) as report:
    folder, tasks = Path(snakemake.params.folder), snakemake.params.tasks
    files = {
        task: TaskFiles(
            folder / f"rows/{task}.parquet",
            folder / f"rows/{task}.labels.npy",
            {bp: folder / f"ceilings/{task}/{bp}.parquet" for bp in lengths},
        )
        for task, lengths in tasks.items()
    }
    cells = dict.fromkeys(snakemake.params.cells)  # a cell may have a probe and zero-shot scores
    table = build_lrb_table(
        [ProbeCell.from_path(folder / cell) for cell in cells],
        files,
        published=snakemake.input.published or None,
        **snakemake.params.options,
        report=report,
    )
    table = table[table["task"].isin(tasks)]  # of the published ones, those of tasks that were run
    write_table(table, snakemake.output.table)
    write_html_table(
        table, snakemake.output.page, title="Probes on frozen embeddings", flag_texts=LRB_FLAGS
    )
