"""Train the probes of a task's folds on embeddings, or on features of another program."""

from pathlib import Path

import numpy as np
import pandas as pd

from job import model_job

with model_job(snakemake, snakemake.params.options["threads"]) as report:
    from longscale.files import read_json
    from longscale.provenance import collect_provenance, digest
    from longscale.training.probe import ProbeSettings, run_probe
    from longscale.training.probe_data import Shards
    from longscale.training.probe_features import read_features

    rows = pd.read_parquet(snakemake.input.rows)
    facts = read_json(snakemake.input.facts, "names", "log1p")
    settings = {key: v for key, v in snakemake.params.options.items() if key != "threads"}
    first_bin = 0
    if snakemake.input.get("features"):
        leave_out = snakemake.params.leave_out_missing
        source = read_features(snakemake.input.features, rows, leave_out_missing=leave_out)
        rows = rows[source.matched[rows["row"]]]
        if source.unmatched:
            report(source.unmatched)
    else:
        source = Shards(Path(snakemake.input.embeddings).parent)
        first_bin = source.bins[0] if source.bins else 0
    run_probe(
        rows,
        source,
        np.load(snakemake.input.labels, mmap_mode="r", allow_pickle=False),
        Path(snakemake.output.folds).parent,
        kind=snakemake.params.kind,
        outputs=facts["names"],
        context_bp=int(snakemake.wildcards.get("context_bp", 0)),
        log1p=facts["log1p"],
        settings=ProbeSettings(**settings),
        first_bin=first_bin,
        provenance={"config_sha256": digest(dict(snakemake.config)), **collect_provenance()},
        report=report,
    )
