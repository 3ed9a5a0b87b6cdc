"""The benchmark's tables: every probe and zero-shot score, and the published numbers."""

from pathlib import Path

from job import job
from longscale.evaluation.compare import write_table
from longscale.evaluation.lrb_distance import build_distance_table
from longscale.evaluation.lrb_extension import (
    FurtherTrained,
    build_extension_table,
    build_table_2,
)
from longscale.evaluation.lrb_table import (
    ProbeCell,
    TaskFiles,
    build_detail_table,
    build_lrb_table,
)
from longscale.report.leaderboard import write_leaderboard

with job(snakemake, echo=True) as report:
    folder, params = Path(snakemake.params.folder), snakemake.params
    files = {
        task: TaskFiles(
            folder / f"rows/{task}.parquet",
            folder / f"rows/{task}.labels.npy",
            {bp: folder / f"ceilings/{task}/{bp}.parquet" for bp in lengths},
        )
        for task, lengths in params.tasks.items()
    }
    # A cell may have both a probe and zero-shot scores.
    cells = [ProbeCell.from_path(folder / cell) for cell in dict.fromkeys(params.cells)]
    table = build_lrb_table(
        cells,
        files,
        published=snakemake.input.published or None,
        **params.options,
        report=report,
    )
    table = table[table["task"].isin(files)]  # of the published ones, those of tasks that were run
    write_table(table, snakemake.output.table)
    trained = {name: FurtherTrained(**row) for name, row in params.further_trained.items()}
    extension = build_extension_table(
        table, cells, files, further_trained=trained, **params.options
    )
    write_table(extension, snakemake.output.extension)
    write_table(build_table_2(extension), snakemake.output.table_2)
    distances = build_distance_table(cells, files, **params.options, report=report)
    write_table(distances, snakemake.output.distances)
    write_table(build_detail_table(cells, files), snakemake.output.outputs)
    write_leaderboard(table, snakemake.output.page, kinds=params.kinds, extension=extension)
