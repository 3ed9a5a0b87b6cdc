"""The tasks that frozen embeddings are probed on: the Genomics Long-Range Benchmark's own.

The data are InstaDeepAI/genomics-long-range-benchmark on Hugging Face (cc-by-nc-sa-4.0); what its
files hold is told by its dataset card and its loading script. Adding a task is one row.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from longscale.tasks.lrb import LRB_TASKS, LrbTask

Kind = Literal["variant", "interval", "multilabel", "expression", "profile"]

SHARD_ROWS = 1000
"""Rows per `.npz` file of a profile task."""

CLASSIFICATION = ("auroc", "auprc", "accuracy")
REGRESSION_GENES = ("spearman_genes", "spearman_tissues", "r2")
REGRESSION_PROFILE = ("pearson_genes", "pearson_tissues", "r2")


@dataclass(frozen=True)
class ProbeTask:
    """One task: where its rows come from and what is read out of their embeddings.

    genome: hg38, hg19, or the name of a simulated one. files: our key -> path inside the dataset
    (`rows`: one line per example; `labels`: values, for `expression`; `names`: of the outputs;
    `shards`: the folder of a profile's `.npz` files). columns: our key -> column of `rows`.
    test_chromosomes: "all" where nothing is trained on, "random" where the benchmark's split does
    not go by chromosome. pool_bp: (upstream, downstream) of the anchor, in bp and in the direction
    of the strand: what is averaged; None: the row's own interval. hidden_layers: of the default
    probe; 0 where there is nothing to train on. log1p: whether labels are counts, of which a probe
    takes log(1 + x); else they are used as they stand. bins, bin_bp: of a profile. shard_rows:
    split -> rows, of a profile. rows, megabytes: (training, test) rows and the size of all files,
    about, to plan with before they are there.
    """

    name: str
    kind: Kind
    genome: str
    files: Mapping[str, str]
    columns: Mapping[str, str]
    test_chromosomes: tuple[str, ...] | Literal["all", "random"]
    outputs: int
    pool_bp: tuple[int, int] | None
    hidden_layers: int
    metrics: tuple[str, ...]
    rows: tuple[int, int]
    megabytes: float
    log1p: bool = False
    bins: int = 1
    bin_bp: int | None = None
    shard_rows: Mapping[str, int] = field(default_factory=dict)

    def downloads(self) -> Iterator[str]:
        """Paths inside the dataset of all files of the task."""
        yield from self.tables()
        yield from self.shards()

    def tables(self) -> Iterator[str]:
        """Those of its tables."""
        yield from (path for key, path in self.files.items() if key != "shards")

    def shards(self) -> Iterator[str]:
        """Those of a profile's `.npz` files."""
        for split, rows in self.shard_rows.items():
            yield from (f"{self.files['shards']}/{name}" for name in shard_names(split, rows))


def shard_names(split: str, rows: int, shard_rows: int = SHARD_ROWS) -> list[str]:
    """Names of the `.npz` files of a split of `rows` rows: the first and last row of each."""
    return [
        f"targets-{split}-{first}-{min(first + shard_rows, rows) - 1}.npz"
        for first in range(0, rows, shard_rows)
    ]


VARIANT_POOL_BP = (750, 750)
BIN_POOL_BP = (100, 100)
TSS_POOL_BP = (384, 256)
PROFILE_BINS, PROFILE_BIN_BP = 896, 128
EQTL_TSS_COLUMN = "distance_to_nearest_TSS"

EXPRESSION_COLUMNS = {
    "contig": "chrom",
    "pos": "CAGE_representative_TSS",
    "strand": "strand",
    "split": "split",
}
PROFILE_COLUMNS = {
    "contig": "chrom",
    "pos": "start",
    "stop": "stop",
    "split": "split",
    "shard_row": "npy_idx",
}
INTERVAL_COLUMNS = {
    "contig": "CHROM",
    "pos": "START",
    "stop": "STOP",
    "labels": "label",
    "split": "split",
}


def multilabel_columns(labels: str) -> dict[str, str]:
    """Columns of a table of bins whose lists of labels stand in the column `labels`."""
    return {"contig": "CHROM", "pos": "POS", "labels": labels, "split": "split"}


def _variant(lrb: LrbTask, **more: str) -> ProbeTask:
    """A variant task of the benchmark; its rows come by way of the accepted variants."""
    trains = lrb.rows[0] > 0
    return ProbeTask(
        lrb.name,
        "variant",
        lrb.genome,
        {"rows": lrb.filename},
        {**lrb.columns, **more},
        lrb.test_chromosomes,
        outputs=1,
        pool_bp=VARIANT_POOL_BP,
        hidden_layers=2 if trains else 0,
        metrics=CLASSIFICATION if trains else ("auroc", "auprc"),
        rows=lrb.rows,
        megabytes=lrb.megabytes,
    )


def _regulatory(element: str, rows: tuple[int, int], megabytes: float) -> ProbeTask:
    return ProbeTask(
        f"regulatory_element_{element}",
        "interval",
        "hg38",
        {"rows": f"regulatory_elements/{element}_dataset.csv"},
        INTERVAL_COLUMNS,
        ("chr8", "chr9"),
        outputs=1,
        pool_bp=None,
        hidden_layers=2,
        metrics=CLASSIFICATION[:2],
        rows=rows,
        megabytes=megabytes,
    )


def _chromatin(feature: str, labels: str) -> ProbeTask:
    return ProbeTask(
        f"chromatin_features_{feature}",
        "multilabel",
        "hg19",
        {"rows": "chromatin_features/histones_and_dnase.csv"},
        multilabel_columns(labels),
        ("chr8", "chr9"),
        outputs=20,
        pool_bp=BIN_POOL_BP,
        hidden_layers=2,
        metrics=CLASSIFICATION[:2],
        rows=(2_203_689, 227_456),
        megabytes=356.0,
    )


_BULK_RNA = ProbeTask(
    "bulk_rna_expression",
    "expression",
    "hg19",
    {
        "rows": "bulk_rna_expression/gene_coordinates.csv",
        "labels": "bulk_rna_expression/rna_expression_values.csv",
        "names": "bulk_rna_expression/label_mapping.csv",
    },
    EXPRESSION_COLUMNS,
    ("chr8",),
    outputs=218,
    pool_bp=TSS_POOL_BP,
    hidden_layers=1,
    metrics=REGRESSION_GENES,
    rows=(22_827, 990),
    megabytes=100.0,  # by its rows, as no size is published
    # The dataset card: log(1 + x) and standardised already, over all rows.
    log1p=False,
)

_CAGE = ProbeTask(
    "cage_prediction",
    "profile",
    "hg38",
    {
        "rows": "cage_prediction/sequences_coordinates.csv",
        "shards": "cage_prediction/targets_subset",
        "names": "cage_prediction/label_mapping.csv",
    },
    PROFILE_COLUMNS,
    "random",
    outputs=50,
    pool_bp=(PROFILE_BINS * PROFILE_BIN_BP // 2,) * 2,
    hidden_layers=2,
    metrics=REGRESSION_PROFILE,
    rows=(33_891 + 2_195, 1_922),
    megabytes=7_000.0,
    log1p=True,
    bins=PROFILE_BINS,
    bin_bp=PROFILE_BIN_BP,
    shard_rows={"train": 33_891, "valid": 2_195, "test": 1_922},
)

PROBE_TASKS = {
    task.name: task
    for task in (
        _variant(LRB_TASKS["variant_effect_causal_eqtl"], tss_distance=EQTL_TSS_COLUMN),
        _variant(LRB_TASKS["variant_effect_pathogenic_clinvar"]),
        _variant(LRB_TASKS["variant_effect_pathogenic_omim"]),
        _variant(LRB_TASKS["variant_effect_pathogenic_omim_subset"]),
        _CAGE,
        _BULK_RNA,
        _chromatin("histone_marks", "HISTONES"),
        _chromatin("dna_accessibility", "DNASE"),
        _regulatory("promoter", (953_376, 96_240), 33.0),
        _regulatory("enhancer", (1_914_575, 192_201), 67.0),
    )
}
