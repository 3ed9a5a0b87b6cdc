"""Measure what train, dev and test of every task share, and warn of each leak."""

from pathlib import Path

import pandas as pd

from job import job
from longscale.evaluation.compare import write_table
from longscale.genome.sequence import Genome
from longscale.report.tables import write_html_table
from longscale.tasks.split_leaks import LEAK_FLAGS, leak_sentences, measure_leaks, split_sides

with job(snakemake) as report:
    genome = Genome(snakemake.input.fasta)
    # splits/{task}/{protocol}.parquet
    paths = {(Path(path).parent.name, Path(path).stem): path for path in snakemake.input.splits}
    parts = []
    for task, train_task in snakemake.params.train_tasks.items():
        protocols = {
            protocol: split_sides(
                pd.read_parquet(paths[task, protocol]),
                pd.read_parquet(paths[train_task, protocol]),
            )
            for protocol in snakemake.params.protocols
        }
        part = measure_leaks(genome, protocols, snakemake.params.lengths)
        part.insert(0, "task", task)
        part.insert(1, "train_task", train_task)
        for sentence in leak_sentences(part) or [f"{task}: no leak"]:
            report(sentence)
        parts.append(part)
    table = pd.concat(parts, ignore_index=True)
    write_table(table, snakemake.output.table)
    first = ["task", "protocol", "pair", "window_bp", "flags"]
    page = table[[*first, *(name for name in table.columns if name not in first)]]
    write_html_table(
        page, snakemake.output.page, title="What train, dev and test share", flag_texts=LEAK_FLAGS
    )
