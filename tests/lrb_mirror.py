"""A local mirror of the benchmark's files: their names and columns, a few rows each, made up.

`python tests/lrb_mirror.py FOLDER ROWS` writes a genome and the OMIM table with that many rows.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

BASES = np.frombuffer(b"ACGT", dtype=np.uint8)
LINE_BP = 60
SHARD_ROWS = {"train": 5, "valid": 2, "test": 3}
"""Rows per split of the mirror's profile task, in shards of 4."""
SHARD_SIZE = 4
BINS, TRACKS = 6, 3
"""Smaller than the benchmark's 896 and 50."""


def write_genome(path: Path, contigs: dict[str, int], seed: int = 1) -> None:
    """Random bases as an indexed FASTA file."""
    rng = np.random.default_rng(seed)
    index = []
    with path.open("wb") as handle:
        for name, length in contigs.items():
            handle.write(f">{name}\n".encode())
            index.append(f"{name}\t{length}\t{handle.tell()}\t{LINE_BP}\t{LINE_BP + 1}\n")
            bases = BASES[rng.integers(0, 4, length, dtype=np.uint8)]
            whole = length // LINE_BP * LINE_BP
            lines = np.pad(bases[:whole].reshape(-1, LINE_BP), ((0, 0), (0, 1)), constant_values=10)
            handle.write(lines.tobytes() + bases[whole:].tobytes() + b"\n")
    Path(f"{path}.fai").write_text("".join(index))


def draw_snvs(bases_of, contigs: dict[str, int], rows: int, seed: int = 2) -> pd.DataFrame:
    """CHROM, POS (1-based, rising within a contig, each once), REF, ALT: SNVs, and 2% insertions.

    `bases_of`: contig -> uint8 bases.
    """
    rng = np.random.default_rng(seed)
    frames = []
    for i, (name, length) in enumerate(contigs.items()):
        count = (i + 1) * rows // len(contigs) - i * rows // len(contigs)
        step = (length - 20_000) / count  # 10 kb from either end: windows lie inside
        places = (10_000 + np.arange(count) * step).astype(np.int64)
        ref = bases_of(name)[places]
        code = np.searchsorted(BASES, ref)
        alt = BASES[(code + rng.integers(1, 4, count)) % 4]
        alts = alt.view("S1").astype(str).astype(object)
        long = rng.random(count) < 0.02
        refs = ref.view("S1").astype(str)
        alts[long] = refs[long].astype(object) + alts[long]
        frames.append(pd.DataFrame({"CHROM": name, "POS": places + 1, "REF": refs, "ALT": alts}))
    return pd.concat(frames, ignore_index=True)


def write_omim(path: Path, bases_of, contigs: dict[str, int], rows: int) -> None:
    """`vep_pathogenic_non_coding.csv`: about 160 bytes a row, as the real one."""
    table = draw_snvs(bases_of, contigs, rows)
    rng = np.random.default_rng(3)
    table["INT_LABEL"] = (rng.random(len(table)) < 0.001).astype(int)
    table["split"] = "test"
    table["consequence"] = "non_coding_transcript_exon_variant"
    table["annotation"] = "x" * 106
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)


def write_variants(folder: Path, bases_of, contigs: dict[str, int], rows: int = 40) -> None:
    """The eQTL, ClinVar and OMIM tables, with columns in another order and an extra one."""
    variants = draw_snvs(bases_of, contigs, rows)
    rng = np.random.default_rng(4)
    label = rng.integers(0, 2, len(variants))
    split = np.where(variants["CHROM"].isin(["chr9"]), "test", "train")
    eqtl = pd.DataFrame(
        {
            "tissue": rng.choice(["Liver", "Whole_Blood"], len(variants)),
            **variants,
            "extra": 7,
            "label": label,
            "distance_to_nearest_TSS": rng.integers(-200_000, 200_000, len(variants)),
            "split": split,
        }
    )
    (folder / "variant_effect_causal_eqtl").mkdir(parents=True)
    eqtl.to_csv(folder / "variant_effect_causal_eqtl/All_Tissues.csv", index=False)
    (folder / "variant_effect_pathogenic").mkdir()
    clinvar = variants.assign(
        INT_LABEL=label, split=np.where(variants["CHROM"] == "chr8", "test", "train")
    )
    clinvar.to_csv(folder / "variant_effect_pathogenic/vep_pathogenic_coding.csv", index=False)
    for name in ("vep_pathogenic_non_coding", "vep_pathogenic_non_coding_subset"):
        table = variants.assign(INT_LABEL=label, split="test")
        table.to_csv(folder / f"variant_effect_pathogenic/{name}.csv", index=False)


def write_intervals(folder: Path, contigs: dict[str, int]) -> None:
    """Promoters, enhancers and chromatin features."""
    rng = np.random.default_rng(5)
    places = [(name, start) for name in contigs for start in range(2_001, 4_001, 200)]
    contig, start = zip(*places, strict=True)
    split = np.where(np.isin(contig, ["chr8", "chr9"]), "test", "train")
    table = pd.DataFrame({"label": rng.integers(0, 2, len(start)), "STOP": np.add(start, 200),
                          "START": start, "CHROM": contig, "split": split})  # fmt: skip
    lists = [
        [str(list(map(int, row))) for row in rng.integers(0, 2, (len(start), 20))] for _ in "ab"
    ]
    bins = pd.DataFrame({"CHROM": contig, "POS": np.add(start, 100), "HISTONES": lists[0],
                         "DNASE": lists[1], "split": split})  # fmt: skip
    for group, names in {
        "regulatory_elements": ("promoter_dataset", "enhancer_dataset"),
        "chromatin_features": ("histones_and_dnase",),
    }.items():
        (folder / group).mkdir()
        for name in names:
            for suffix in ("", "_subset"):
                frame = bins if group == "chromatin_features" else table
                frame.to_csv(folder / group / f"{name}{suffix}.csv", index=False)


def write_expression(folder: Path, contigs: dict[str, int], outputs: int = 218) -> None:
    """Genes on both strands, their values, and the names of the tissues."""
    rng = np.random.default_rng(6)
    folder = folder / "bulk_rna_expression"
    folder.mkdir()
    genes = [(name, int(tss)) for name in contigs for tss in rng.integers(3_000, 9_000, 4)]
    pd.DataFrame(
        {
            "id": [f"ENSG{i:011d}" for i in range(len(genes))],
            "strand": ["+-"[i % 2] for i in range(len(genes))],
            "chrom": [name for name, _ in genes],
            "CAGE_representative_TSS": [tss for _, tss in genes],
            "split": ["test" if name == "chr8" else "train" for name, _ in genes],
        }
    ).to_csv(folder / "gene_coordinates.csv", index=False)
    values = pd.DataFrame(rng.normal(size=(len(genes), outputs)))
    names = [f"tissue {i}" for i in range(outputs)]
    values.set_axis(names, axis=1).to_csv(folder / "rna_expression_values.csv", index=False)
    mapping = pd.DataFrame({"index": range(outputs), "tissue": names})
    mapping.to_csv(folder / "label_mapping.csv", index=False)


def write_cage(folder: Path, contigs: dict[str, int]) -> None:
    """A small profile task: shards of SHARD_SIZE rows, each array (1, BINS, TRACKS)."""
    rng = np.random.default_rng(7)
    folder = folder / "cage_prediction"
    (folder / "targets_subset").mkdir(parents=True)
    rows = []
    for split, count in SHARD_ROWS.items():
        for first in range(0, count, SHARD_SIZE):
            last = min(first + SHARD_SIZE, count) - 1
            arrays = {
                f"target-{split}-{i}.npy": rng.gamma(1, 9, (1, BINS, TRACKS)).astype(np.float32)
                for i in range(first, last + 1)
            }
            np.savez(folder / "targets_subset" / f"targets-{split}-{first}-{last}.npz", **arrays)
        for i in rng.permutation(count):
            start = int(rng.integers(2_000, 5_000))
            rows.append(
                {
                    "chrom": rng.choice(list(contigs)),
                    "start": start,
                    "stop": start + BINS * 128,
                    "split": "validation" if split == "valid" else split,
                    "npy_idx": i,
                }
            )
    order = rng.permutation(len(rows))
    pd.DataFrame(rows).iloc[order].to_csv(folder / "sequences_coordinates.csv", index=False)
    names = pd.DataFrame({"description": [f"CAGE:{i}" for i in range(TRACKS)]})
    names.to_csv(folder / "label_mapping.csv")


def write_whole_cage(folder: Path, contigs: dict[str, int], task) -> None:
    """The profile `task` (a row of PROBE_TASKS) with its own shape and names of files; of the rows
    of each split the first SHARD_ROWS are there."""
    rng = np.random.default_rng(8)
    (folder / task.files["shards"]).mkdir(parents=True)
    shape, span = (1, task.bins, task.outputs), task.bins * task.bin_bp
    rows = []
    for path in task.shards():
        split, first, last = Path(path).stem.split("-")[1:]
        present = range(int(first), min(int(last) + 1, SHARD_ROWS[split]))
        arrays = {
            f"target-{split}-{i}.npy": rng.gamma(1, 9, shape).astype(np.float32) for i in present
        }
        np.savez(folder / path, **arrays)
        for i in present:
            start = int(rng.integers(2_000, 5_000))
            rows.append({"chrom": rng.choice(list(contigs)), "start": start, "stop": start + span,
                         "split": split, "npy_idx": i})  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / task.files["rows"], index=False)
    names = pd.DataFrame({"description": [f"CAGE:{i}" for i in range(task.outputs)]})
    names.to_csv(folder / task.files["names"])


def write_mirror(folder: Path, bases_of, contigs: dict[str, int]) -> None:
    """All tasks, few rows."""
    write_variants(folder, bases_of, contigs)
    write_intervals(folder, contigs)
    write_expression(folder, contigs)
    write_cage(folder, contigs)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1] / "workflow/scripts"))
    from longscale.genome.sequence import Genome

    target, count = Path(sys.argv[1]), int(sys.argv[2])
    lengths = {f"chr{i}": max(100_000, count * 2) for i in (*range(1, 23), "X", "Y")}
    write_genome(target / "genome.fa", lengths)
    genome = Genome(target / "genome.fa")
    write_omim(
        target / "omim.csv", lambda name: genome.fetch(name, 0, lengths[name]), lengths, count
    )
