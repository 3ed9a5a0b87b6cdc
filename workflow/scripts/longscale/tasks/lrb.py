"""The variant tasks of the Genomics Long-Range Benchmark (LRB), fetched file by file.

The data are InstaDeepAI/genomics-long-range-benchmark on Hugging Face (cc-by-nc-sa-4.0). Positions
in its CSV files are 1-based; columns are read by name and others tolerated.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from longscale.files import atomic_path
from longscale.genome.hub import hub_file

LRB_REPOSITORY = "InstaDeepAI/genomics-long-range-benchmark"


@dataclass(frozen=True)
class LrbTask:
    """One variant task: where its rows come from and how they are used.

    filename: path inside the dataset repository. columns: our key -> the file's column.
    test_chromosomes: never trained on; "all" where every row is a test row. train_task: the task
    whose checkpoints score this one, where it has no training rows of its own. rows, megabytes:
    training and test rows and the file's size, about, to plan with before it is there.
    """

    name: str
    filename: str
    columns: Mapping[str, str]
    test_chromosomes: tuple[str, ...] | Literal["all"]
    rows: tuple[int, int]
    megabytes: float
    train_task: str | None = None
    genome: str = "hg38"


_EQTL_COLUMNS = {
    "contig": "CHROM",
    "pos": "POS",
    "ref": "REF",
    "alt": "ALT",
    "label": "label",
    "split": "split",
    "tissue": "tissue",
}
PATHOGENIC_COLUMNS = {
    "contig": "CHROM",
    "pos": "POS",
    "ref": "REF",
    "alt": "ALT",
    "label": "INT_LABEL",
    "split": "split",
}

LRB_TASKS = {
    task.name: task
    for task in (
        LrbTask(
            "variant_effect_causal_eqtl",
            "variant_effect_causal_eqtl/All_Tissues.csv",
            _EQTL_COLUMNS,
            ("chr9", "chr10"),
            (88_717, 8_846),
            7.0,
        ),
        LrbTask(
            "variant_effect_pathogenic_clinvar",
            "variant_effect_pathogenic/vep_pathogenic_coding.csv",
            PATHOGENIC_COLUMNS,
            ("chr8",),
            (38_634, 1_018),
            6.6,
        ),
        LrbTask(
            "variant_effect_pathogenic_omim",
            "variant_effect_pathogenic/vep_pathogenic_non_coding.csv",
            PATHOGENIC_COLUMNS,
            "all",
            (0, 2_321_473),
            369.0,
            train_task="variant_effect_pathogenic_clinvar",
        ),
        LrbTask(
            "variant_effect_pathogenic_omim_subset",
            "variant_effect_pathogenic/vep_pathogenic_non_coding_subset.csv",
            PATHOGENIC_COLUMNS,
            "all",
            (0, 208_000),  # by its size, as no count is published
            33.0,
            train_task="variant_effect_pathogenic_clinvar",
        ),
    )
}


def download_lrb(
    filename: str, target: str | Path, *, revision: str, repo: str = LRB_REPOSITORY
) -> Path:
    """Fetch one file of a Hugging Face dataset to `target`, through the Hugging Face cache.

    HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN and HF_HOME are respected. `revision`: branch, tag or
    commit. The file appears whole or not at all; raises LongscaleError naming file and reason.
    """
    cached = hub_file(repo, filename, revision=revision, repo_type="dataset")
    target = Path(target)
    with atomic_path(target) as part:
        shutil.copyfile(cached, part)
    return target
