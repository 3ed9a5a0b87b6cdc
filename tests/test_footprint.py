"""What a job downloads and stores."""

import copy
from pathlib import Path

import pytest
import yaml

from longscale.config import check_config, read_schema
from longscale.footprint import Source, running_bytes, source_of, stored_bytes
from longscale.workload import Study, parameters

ROOT = Path(__file__).resolve().parents[1]
RUN = "variant_effect_causal_eqtl/paired/dnabert2-117m/1000/dot/seed1"
SIZES = {"GCA_000001405.15_GRCh38_genomic.fna.gz": 938e6}


def read_study(name, results):
    """A study of the repository, whose results are not there yet."""
    config = yaml.safe_load((ROOT / "config" / name).read_text())
    config = check_config(config, read_schema(ROOT / "config/schema.yaml"), name)
    if config["genome"]["simulate"]:
        config["genome"]["simulate"] = str(ROOT / "resources/simulated.yaml")
    for genome in config["genomes"].values():
        if genome["simulate"]:
            genome["simulate"] = str(ROOT / "resources/simulated_probe.yaml")
    return Study(config, results)


@pytest.fixture
def full(tmp_path):
    return read_study("grch38.yaml", tmp_path)


def test_downloads_are_named_with_what_is_known_of_their_size(full):
    fasta = source_of(full, "download_genome_file", "downloads/GRCh38.fna.gz", SIZES)
    assert fasta.name.startswith("https://")
    assert fasta.size == 938e6
    report = source_of(
        full, "download_assembly_report", "downloads/GRCh38.assembly_report.txt", SIZES
    )
    assert report == Source(full.config["genome"]["assembly_report"], None)
    csv = "downloads/lrb/variant_effect_causal_eqtl.csv"
    task = source_of(full, "download_task", csv, {})
    assert "genomics-long-range-benchmark (main): variant_effect_causal_eqtl/All" in task.name
    assert task.size == 7e6
    model = source_of(full, "fetch_checkpoint", "checkpoints/dnabert2-117m/config.json", {})
    assert "zhihan1996/DNABERT-2-117M" in model.name
    assert model.size == pytest.approx(468e6, rel=0.02)
    assert source_of(full, "finetune", f"finetune/{RUN}/config.json", {}) is None


def test_local_files_and_folders_are_no_downloads_of_unknown_size(full, tmp_path):
    config = copy.deepcopy(full.config)
    path = tmp_path / "mine.fna.gz"
    path.write_bytes(b"x" * 10)
    config["genome"]["fasta"] = f"file://{path}"
    config["models"]["dnabert2-117m"]["checkpoint"] = str(tmp_path)
    study = Study(config, tmp_path)
    assert source_of(study, "download_genome_file", "downloads/GRCh38.fna.gz", {}).size == 10
    model = source_of(study, "fetch_checkpoint", "checkpoints/dnabert2-117m/config.json", {})
    assert model.name == f"the folder {tmp_path} (copied)"


def test_a_simulated_genome_is_not_downloaded(tmp_path):
    demo = read_study("config.yaml", tmp_path)
    assert source_of(demo, "download_genome_file", "downloads/simgenome.fna.gz", {}) is None
    bp = 8 * 1010 * 1500
    assert stored_bytes(demo, "convert_ncbi2ucsc", "genome/simgenome.fa", {}) == bp
    assert stored_bytes(demo, "fold_genome", "genome/simgenome.bases", {}) == bp


def test_further_genomes_are_counted_by_their_own_sources(tmp_path):
    demo = read_study("config.yaml", tmp_path)
    probe = {"simulate": str(ROOT / "resources/simulated_probe.yaml"), "assembly": {}}
    url = "https://h/hg19.fa.gz"
    hg19 = {"simulate": None, "fasta": url, "assembly_report": None, "md5checksums": "https://h/m"}
    longer = hg19 | {"fasta": "https://h/longer.fa.gz"}
    further = {"hg19": hg19, "hg19.2": longer, "sim2": probe | {"fasta": None}}
    study = Study(demo.config | {"genomes": further}, tmp_path)
    sizes = {"hg19.fa.gz": 949e6, "longer.fa.gz": 1e9}
    fetched = source_of(study, "download_genome_file", "downloads/hg19.fna.gz", sizes)
    assert fetched == Source(url, 949e6)
    assert source_of(study, "download_md5checksums", "downloads/hg19.md5checksums.txt", {}) == (
        Source("https://h/m", None)
    )
    assert source_of(study, "download_genome_file", "downloads/sim2.fna.gz", sizes) is None
    assert source_of(study, "download_genome_file", "downloads/simgenome.fna.gz", sizes) is None
    for rule, ending in (("convert_ncbi2ucsc", "fa"), ("fold_genome", "bases")):
        stored = [
            stored_bytes(study, rule, f"genome/{name}.{ending}", sizes)
            for name in ("hg19", "hg19.2", "sim2", "simgenome")
        ]
        assert stored == [4 * 949e6, 4e9, 8 * 5 * 40 * 1600, 8 * 1010 * 1500]
    made = stored_bytes(study, "simulate_probe_genome", "simulated/sim2/genes.gtf", sizes)
    assert made == 8 * 5 * 40 * 1600 / 4


def test_what_is_stored_follows_from_models_and_rows(full):
    weights = 4 * parameters(full.model("dnabert2-117m"))
    path = f"finetune/{RUN}/config.json"
    assert stored_bytes(full, "finetune", path, {}) == weights
    assert running_bytes(full, "finetune", path) == 9 * weights
    full.config["finetune"]["lora"] = {"r": 8}
    assert running_bytes(full, "finetune", path) == 3 * weights
    scores = f"scores/{RUN}/2000.parquet"
    assert stored_bytes(full, "score_variants", scores, {}) == 8_846 * (12 + 4 * 7)
    assert running_bytes(full, "score_variants", scores) == 0
    checkpoint = "checkpoints/dnabert2-117m/config.json"
    assert stored_bytes(full, "fetch_checkpoint", checkpoint, {}) == 2 * weights  # in the cache too
    assert stored_bytes(full, "download_genome_file", "downloads/GRCh38.fna.gz", SIZES) == 938e6
    assert stored_bytes(full, "build_tables", "tables/auroc.tsv", SIZES) == 0


def test_the_benchmark_is_counted_file_by_file(tmp_path):
    study = read_study("lrb.yaml", tmp_path)
    path = "variant_effect_causal_eqtl/All_Tissues.csv"
    eqtl = source_of(study, "download_probe_file", f"downloads/probe/{path}", {})
    assert eqtl.name.endswith(f"genomics-long-range-benchmark (main): {path}")
    assert eqtl.size == 7e6
    rna = "downloads/probe/bulk_rna_expression/gene_coordinates.csv"
    assert source_of(study, "download_probe_file", rna, {}).size == pytest.approx(100e6 / 3)
    shards = "downloads/probe/cage_prediction/targets_subset"
    assert source_of(study, "download_probe_shards", shards, {}).size == 7e9
    table = "downloads/probe/cage_prediction/label_mapping.csv"
    assert source_of(study, "download_probe_file", table, {}).size == 0
    genes = source_of(study, "download_genes", "downloads/GRCh38.genes.gtf.gz", {"x": 1})
    assert genes == Source(study.config["genome"]["genes"], None)
    model = source_of(study, "fetch_encoder", "encoders/nt-v2-50m", {})
    assert "nucleotide-transformer-v2-50m" in model.name


def test_embeddings_labels_and_predictions_are_stored(tmp_path):
    study = read_study("lrb.yaml", tmp_path)
    cell = "nt-v2-50m/12000/none/none"
    eqtl = f"embeddings/variant_effect_causal_eqtl/{cell}/index.json"
    assert stored_bytes(study, "embed_rows", eqtl, {}) == (88_717 + 8_846) * 2 * 512 * 2
    cage = f"embeddings/cage_prediction/{cell}/index.json"
    rows = 33_891 + 2_195 + 1_922
    assert stored_bytes(study, "embed_rows", cage, {}) == rows * 93 * 512 * 2
    labels = "probe/rows/cage_prediction.labels.npy"
    assert stored_bytes(study, "prepare_probe_rows", labels, {}) == rows * 896 * 50 * 2
    predictions = f"probe/cage_prediction/{cell}/predictions.parquet"
    assert stored_bytes(study, "train_probe", predictions, {}) == 1_922 * 93 * 50 * 5 * 4
