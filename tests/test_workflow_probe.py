"""The probe stage, run as a user runs it: simulated tasks, and the benchmark's own files."""

import gzip
import hashlib
import json
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import lrb_mirror
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from hub_server import serve_hub
from test_workflow import ROOT, counted, plan, rules_run, snakemake

from longscale.evaluation.lrb_table import LRB_COLUMNS, read_lrb_table
from longscale.genome.sequence import Genome
from longscale.models.nucleotide_transformer import (
    NucleotideTransformerConfig,
    NucleotideTransformerForMaskedLM,
)
from longscale.tasks.lrb import LRB_REPOSITORY
from longscale.tasks.probe_tasks import PROBE_TASKS

pytestmark = pytest.mark.e2e

CONTIGS = {"chr1": 130_000, "chr2": 128_000, "chr8": 126_000, "chr9": 125_000}
REPORT = "\t".join(["{name}", "assembled-molecule", "{n}", "Chromosome", "{accession}", "=", "na",
                    "Primary Assembly", "{length}", "{name}"])  # fmt: skip
CELL = "variant_effect_pathogenic_clinvar/tiny-nt/1024/none/none"


@contextmanager
def serve_folder(folder):
    """A plain web server; its address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def publish_genomes(folder):
    """The same bases as NCBI has them (accessions, a report) and as UCSC has hg19 (an MD5 list)."""
    lrb_mirror.write_genome(folder / "plain.fa", CONTIGS)
    text = (folder / "plain.fa").read_text()
    packed = gzip.compress(text.encode(), mtime=0)
    (folder / "hg19.fa.gz").write_bytes(packed)
    (folder / "md5sum.txt").write_text(f"{hashlib.md5(packed).hexdigest()}  hg19.fa.gz\n")
    lines = ["# Assembly name:  Test", "# Sequence-Name\tSequence-Role"]
    for n, (name, length) in enumerate(CONTIGS.items(), start=1):
        text = text.replace(f">{name}\n", f">CM00000{n}.1 Homo sapiens {name}\n")
        lines.append(REPORT.format(name=name, n=n, accession=f"CM00000{n}.1", length=length))
    (folder / "genomic.fna.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    (folder / "report.txt").write_text("\n".join(lines) + "\n")
    genes = [f"{name}\tx\ttranscript\t9000\t9100\t.\t+\t.\tgene_id 1" for name in CONTIGS]
    (folder / "genes.gtf.gz").write_bytes(gzip.compress("\n".join(genes).encode()))


def publish_model(folder):
    """A Nucleotide Transformer as the hub has it: no tokenizer.json."""
    torch.manual_seed(0)
    config = NucleotideTransformerConfig(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=130,
    )  # fmt: skip
    NucleotideTransformerForMaskedLM(config).save_pretrained(folder)
    stored = json.loads((folder / "config.json").read_text())
    stored.pop("n_train", None)
    (folder / "config.json").write_text(json.dumps(stored))


def write_features(path, genome):
    """Made-up features of another program for the variants of the ClinVar table."""
    table = lrb_mirror.draw_snvs(lambda name: genome.fetch(name, 0, CONTIGS[name]), CONTIGS, 40)
    table = table.set_axis(["contig", "pos", "ref", "alt"], axis=1)
    rng = np.random.default_rng(9)
    table.assign(one=rng.normal(size=len(table)), two=1.0).to_parquet(path, index=False)


def configuration(address, folder):
    """All tasks of the benchmark on both genomes, one model, one arm of context extension."""
    small = {name: name for name in PROBE_TASKS if not name.endswith("_omim")}
    return {
        "results": "results",
        "genome": {
            "name": "GRCh38", "fasta": f"{address}/genomic.fna.gz",
            "assembly_report": f"{address}/report.txt", "genes": f"{address}/genes.gtf.gz",
        },
        "genomes": {
            "hg19": {"fasta": f"{address}/hg19.fa.gz", "md5checksums": f"{address}/md5sum.txt"}
        },
        "models": {
            "tiny-nt": {"architecture": "nucleotide-transformer", "checkpoint": "lab/tiny-nt"}
        },
        "probe": {
            "tasks": list(small),
            "models": ["tiny-nt"],
            "context_bp": [1024],
            "arms": [
                {},
                {
                    "tasks": ["variant_effect_causal_eqtl"], "extensions": ["ntk"],
                    "rules": ["infoscale"],
                },
            ],
            "features": {
                "other": {"variant_effect_pathogenic_clinvar": str(folder / "features.parquet")}
            },
            "zero_shot": {"both_strands": True},
            "train": {"folds": 2, "epochs": 2},
        },
        "evaluation": {"block_bp": 10_000, "resamples": 100},
    }  # fmt: skip


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    """A folder with a finished run of the whole benchmark from local servers, and its output."""
    folder, run = tmp_path_factory.mktemp("mirror"), tmp_path_factory.mktemp("run")
    publish_genomes(folder)
    genome, data = Genome(folder / "plain.fa"), folder / "lrb"
    fetch = lambda name: genome.fetch(name, 0, CONTIGS[name])  # noqa: E731
    lrb_mirror.write_variants(data, fetch, CONTIGS)
    lrb_mirror.write_intervals(data, CONTIGS)
    lrb_mirror.write_expression(data, CONTIGS)
    lrb_mirror.write_whole_cage(data, CONTIGS, PROBE_TASKS["cage_prediction"])
    (folder / "model").mkdir()
    publish_model(folder / "model")
    write_features(folder / "features.parquet", genome)
    files = {
        f"datasets/{LRB_REPOSITORY}": {
            path.relative_to(data).as_posix(): path.read_bytes()
            for path in data.rglob("*")
            if path.is_file()
        },
        "lab/tiny-nt": {path.name: path.read_bytes() for path in (folder / "model").iterdir()},
    }
    with serve_folder(folder) as address, serve_hub(files) as hub:
        config = run / "own.yaml"
        config.write_text(yaml.safe_dump(configuration(address, folder)))
        output = snakemake(
            run, configs=(config,), HF_ENDPOINT=hub, HF_HOME=str(folder / "hf"), OMP_NUM_THREADS="1"
        )
        planned = plan(run, config)
    return run, output, planned


def test_every_task_of_the_benchmark_is_in_the_table(benchmark):
    run, output, _ = benchmark
    table = read_lrb_table(run / "results/tables/lrb.tsv")
    assert list(table.columns) == LRB_COLUMNS
    ours = table[table["published"] == 0]
    assert set(ours["task"]) == {name for name in PROBE_TASKS if not name.endswith("_omim")}
    for name, task in PROBE_TASKS.items():
        if name in set(ours["task"]) and task.hidden_layers:
            own = ours[(ours["task"] == name) & (ours["model"] == "tiny-nt")]
            assert set(task.metrics) <= set(own["metric"]), name
            assert own[own["metric"] == task.metrics[0]]["folds"].eq(2).all()
    omim = ours[ours["task"] == "variant_effect_pathogenic_omim_subset"]
    assert set(omim["metric"]) == {
        f"{m}_{s}" for m in ("auroc", "auprc") for s in ("cosine", "l2", "llr")
    }
    assert (omim["folds"] == 0).all()
    published = table[(table["published"] == 1) & (table["metric"] == "auroc")]
    assert set(published["task"]) == {"variant_effect_causal_eqtl"}
    assert {"NT-50M", "Enformer"} <= set(published["model"])
    assert rules_run(output).count("train_probe_on_features") == 1
    assert set(ours["model"]) == {"tiny-nt", "other"}


def test_tasks_lie_on_their_genomes_and_every_row_is_kept_or_in_the_ledger(benchmark):
    run, _, _ = benchmark
    for name, task in PROBE_TASKS.items():
        if name.endswith("_omim"):
            continue
        rows = pd.read_parquet(run / f"results/probe/rows/{name}.parquet")
        facts = json.loads((run / f"results/probe/rows/{name}.labels.json").read_text())
        rejected = pd.read_csv(run / f"results/probe/rows/{name}.rejected.tsv", sep="\t")
        assert facts["accepted"] == len(rows) > 5
        assert facts["rejected"] == len(rejected) == facts["rows"] - len(rows)
        index = json.loads(
            (run / f"results/embeddings/{name}/tiny-nt/1024/none/none/index.json").read_text()
        )
        genome = {"hg38": "GRCh38", "hg19": "hg19"}[task.genome]
        genome = json.loads((run / f"results/genome/{genome}.json").read_text())
        assert index["genome_sha256"] == genome["genome_sha256"]
        assert (index["rows"], index["width"]) == (len(rows), 24)
        pieces = {"variant": 2, "profile": 8}.get(task.kind, 1)  # 1,024 bp are 8 bins of 128
        assert index["pieces"] == pieces


def test_distances_are_the_files_own_or_those_of_the_annotation(benchmark):
    run, _, _ = benchmark
    rows = pd.read_parquet(run / "results/probe/rows/variant_effect_pathogenic_clinvar.parquet")
    assert (rows["tss_distance"] == (rows["anchor"] - 8_999).abs()).all()
    own = pd.read_parquet(run / "results/probe/rows/variant_effect_causal_eqtl.parquet")
    assert (own["tss_distance"] != (own["anchor"] - 8_999).abs()).any()
    elsewhere = pd.read_parquet(run / "results/probe/rows/bulk_rna_expression.parquet")
    assert elsewhere["tss_distance"].isna().all()  # hg19 was given no annotation


def test_nothing_is_left_and_an_interrupted_embedding_goes_on(benchmark):
    run, _, (code, planned) = benchmark
    config = (run / "own.yaml",)
    assert code == 0
    assert "nothing to be done" in planned
    folder = run / f"results/embeddings/{CELL}"
    before = (folder / "shard-00000.npy").stat()
    index = (folder / "index.json").read_text()
    (folder / "index.json").unlink()
    target = f"results/embeddings/{CELL}/index.json"
    assert rules_run(snakemake(run, target, configs=config)) == ["embed_rows"]
    assert (folder / "index.json").read_text() == index
    after = (folder / "shard-00000.npy").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_context_that_no_config_lists_can_be_asked_for_by_its_path(benchmark):
    run, _, _ = benchmark
    target = f"results/probe/{CELL.replace('1024', '900')}/folds.json"
    output = snakemake(run, target, configs=(run / "own.yaml",))
    assert sorted(rules_run(output)) == ["embed_rows", "train_probe"]
    record = json.loads((run / target).read_text())
    assert len(record["folds"]) == 2
    predictions = pq.read_table(run / target.replace("folds.json", "predictions.parquet"))
    assert predictions.num_rows == record["folds"][0]["rows"]["test"]


def test_the_whole_benchmark_is_planned_without_a_network(tmp_path):
    code, planned = plan(tmp_path, ROOT / "config/lrb.yaml")
    assert code == 0, planned
    dry_run = snakemake(tmp_path, "--dry-run", "--quiet", "rules", configs=("config/lrb.yaml",))
    assert counted(planned) == counted(dry_run)
    assert counted(planned)["embed_rows"] == 9 * (7 + 1) + 4 * 3 * 2
    assert counted(planned)["score_zero_shot"] == 7 + 1
    assert "of it embeddings" in planned
    assert not Path(tmp_path, "results").exists()
