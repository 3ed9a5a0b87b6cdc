"""Files of probes, small and made up, for tests of the benchmark's tables."""

import json

import numpy as np
import pandas as pd

from longscale.evaluation.lrb_table import ProbeCell, TaskFiles

N, FOLDS = 120, 2
RNG = np.random.default_rng


def write_task(folder, name, labels, truth):
    """Rows on two test chromosomes and a training one; every third is a training row."""
    rng = RNG(1)
    number = np.arange(N)
    contig = np.where(number % 3 == 0, "chr1", np.where(number % 2, "chr9", "chr10"))
    rows = pd.DataFrame(
        {
            "row": number,
            "contig": contig,
            "anchor": rng.integers(0, 40_000_000, N),
            "tissue": rng.choice(["liver", "lung"], N),
            "split": np.where(contig == "chr1", "train", "test"),
            "tss_distance": np.where(number % 10 == 1, np.nan, rng.uniform(-2e5, 2e5, N)),
        }
    )
    folder.mkdir(exist_ok=True)
    rows.to_parquet(folder / f"{name}.parquet")
    np.save(folder / f"{name}.labels.npy", labels)
    ceilings = {1000: folder / f"{name}.ceiling.parquet"}
    truth.to_parquet(ceilings[1000])
    return rows, TaskFiles(folder / f"{name}.parquet", folder / f"{name}.labels.npy", ceilings)


def write_cell(
    folder,
    frame,
    kind,
    outputs,
    *,
    context=1000,
    model="m",
    task="t",
    flags=(),
    rule="none",
    extension="none",
):
    place = task, model, context, rule, extension
    cell = ProbeCell(folder.joinpath(*map(str, place)), *place)
    cell.path.mkdir(parents=True)
    frame.to_parquet(cell.path / "predictions.parquet", index=False)
    scale = {"label_mean": [0.5] * len(outputs), "label_spread": [2.0, 1.0, 0.5][: len(outputs)]}
    record = {
        "kind": kind,
        "outputs": outputs,
        "log1p": kind != "variant",
        "folds": [{**scale, "flags": list(flags)} for _ in range(FOLDS)],
    }
    (cell.path / "folds.json").write_text(json.dumps(record))
    return cell
