"""The workflow itself, run as a user runs it."""

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from hub_server import serve_hub

from longscale.evaluation.compare import AUROC_COLUMNS
from longscale.evaluation.lrb_table import read_lrb_table
from longscale.evaluation.mlm_scores import read_mlm_scores
from longscale.evaluation.mlm_table import read_mlm_table
from longscale.evaluation.scores import read_scores
from longscale.models.dnabert2 import DNABERT2Config, DNABERT2ForMaskedLM
from longscale.models.gau_alpha import GAUAlphaConfig, GAUAlphaForMaskedLM

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "tests" / "configs"
HEADLINE = [
    *(
        "task",
        "protocol",
        "model",
        "train_bp",
        "attention",
        "rule",
        "eval_bp",
        "seeds",
        "n",
        "positives",
    ),
    *("auroc", "auroc_lo", "auroc_hi", "delta", "delta_lo", "delta_hi", "verdict"),
    *("auprc", "accuracy", "f1", "mcc", "precision", "recall", "ceiling", "flags"),
]
# Run in test_workflow_probe.py.
OF_THE_BENCHMARK = {
    *("download_probe_file", "download_probe_shards", "download_genes", "fetch_encoder"),
    "train_probe_on_features",
}
SCORE = "results/test/scores/sim_near/paired/dnabert2-tiny/256/dot/seed1/256.parquet"


def snakemake(
    folder, *arguments, configs=("config/test.yaml",), check=True, root=ROOT, **environment
):
    """Run Snakemake with `folder` as working directory; returns its output as one text."""
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--snakefile", root / "Snakefile"]
    command += ["--directory", folder, *arguments]
    command += ["--configfile", *[ROOT / path for path in configs]]
    done = subprocess.run(
        list(map(str, command)),
        env={**os.environ, **environment},
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if check and done.returncode:
        pytest.fail(done.stdout[-6000:])
    return done.stdout if check else (done.returncode, done.stdout)


def rules_run(output):
    """Names of the rules whose jobs an output tells of, with multiplicity."""
    return re.findall(r"^(?:local)?rule (\w+):", output, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a finished run of config/test.yaml, and the run's output."""
    folder = tmp_path_factory.mktemp("run")
    return folder, snakemake(folder)


def test_the_table_has_the_promised_columns_and_one_row_per_cell(finished):
    folder, _ = finished
    table = pd.read_csv(folder / "results/test/tables/auroc.tsv", sep="\t", keep_default_na=False)
    assert list(table.columns[: len(HEADLINE)]) == HEADLINE == AUROC_COLUMNS[: len(HEADLINE)]
    arms = table.groupby(["task", "attention", "rule", "eval_bp"]).size()
    assert len(arms) == 2 * 2 * 3 * 2
    assert (arms == 1).all()
    assert (table["seeds"] == 2).all()
    baseline = table[(table["attention"] == "dot") & (table["rule"] == "none")]
    assert (baseline["verdict"] == "baseline").all()
    assert (table["ceiling"].astype(float) > 0.8).all()


def test_rules_leave_the_scores_at_the_training_length_alone_and_move_them_beyond(finished):
    folder, _ = finished
    at_training, provenance = read_scores(folder / SCORE)
    beyond, _ = read_scores(folder / SCORE.replace("/256.parquet", "/512.parquet"))
    n_train = provenance["n_train"]
    moved = ~np.isclose(at_training["none"], at_training["infoscale"], atol=1e-6)
    # n_train is a median: windows with a few more tokens than it feel the rule a little.
    assert moved.mean() <= 0.75
    assert n_train > 20
    # Not all: what a rule does to this all but untrained model can vanish in single precision.
    assert (beyond["none"] != beyond["infoscale"]).mean() > 0.5


def test_score_files_carry_their_provenance(finished):
    folder, _ = finished
    _, provenance = read_scores(folder / SCORE)
    genome = json.loads((folder / "results/test/genome/simtest.json").read_text())
    assert provenance["genome_sha256"] == genome["genome_sha256"]
    assert provenance["seed"] == 1
    assert {"config_sha256", "code_sha256", "packages", "model_sha256"} <= set(provenance)


def test_leaks_and_tokens_are_told_for_every_length(finished):
    folder, _ = finished
    tables = folder / "results/test/tables"
    leaks = pd.read_csv(tables / "leaks.tsv", sep="\t", keep_default_na=False)
    cells = leaks.groupby(["task", "protocol", "pair", "window_bp"]).size()
    assert len(cells) == len(leaks) == 2 * 1 * 3 * 2
    assert (leaks["held_out_rows"] > 0).all()
    assert (leaks["overlapping_windows"] == 0).all()  # protocol paired
    tokens = pd.read_csv(tables / "tokens.tsv", sep="\t", keep_default_na=False)
    cells = tokens.groupby(["task", "model", "protocol", "window_bp", "allele"]).size()
    assert len(cells) == len(tokens) == 2 * 1 * 1 * 2 * 2
    assert (tokens["variant_kept_share"] == 1).all()
    assert (tokens["sampled"] == tokens["windows"]).all()
    assert (tables / "leaks.html").exists()
    assert (tables / "tokens.html").exists()


def test_every_allele_is_accepted_or_in_the_ledger(finished):
    folder, _ = finished
    variants = folder / "results/test/variants"
    for task in ("sim_near", "sim_far"):
        counts = json.loads((variants / f"{task}.summary.json").read_text())
        rejected = pd.read_csv(variants / f"{task}.rejected.tsv", sep="\t")
        assert counts["accepted"] + counts["rejected"] == counts["alleles"]
        assert counts["accepted"] == pq.read_metadata(variants / f"{task}.parquet").num_rows
        assert counts["rejected"] == len(rejected)
    assert set(rejected["reason"]) == {"cut_by_limit"}
    told = pd.read_csv(folder / "results/test/tables/variants.tsv", sep="\t")
    assert told["task"].tolist() == ["sim_near", "sim_far"]
    assert told.iloc[1]["cut_by_limit"] == len(rejected)
    assert (folder / "results/test/tables/variants.html").exists()


def test_a_simulated_probe_task_has_probe_zero_shot_scores_and_ceiling(finished):
    folder, _ = finished
    table = read_lrb_table(folder / "results/test/tables/lrb.tsv")
    assert set(table["task"]) == {"sim_eqtl"}
    assert set(table["rule"]) == {"infoscale"}
    table = table.set_index("metric")
    assert {"auroc", "auprc", "accuracy", "auroc_llr", "auroc_cosine"} <= set(table.index)
    assert table.loc["auroc", "folds"] == 2
    assert 0.8 < table.loc["auroc", "ceiling"] <= 1
    assert table.loc["auroc_llr", "folds"] == 0
    assert table["n"].eq(10 * 3).all()  # loci of the test chromosome, tissues


def test_a_second_run_does_nothing(finished):
    folder, _ = finished
    assert "Nothing to be done" in snakemake(folder)


def test_a_deleted_score_file_comes_back_the_same_and_nothing_else_is_touched(finished):
    folder, _ = finished
    before = (folder / SCORE).read_bytes()
    table = (folder / "results/test/tables/auroc.tsv").read_bytes()
    (folder / SCORE).unlink()
    ran = rules_run(snakemake(folder))
    assert sorted(ran) == ["all", "build_tables", "plot_auroc", "score_variants"]
    assert (folder / SCORE).read_bytes() == before
    assert (folder / "results/test/tables/auroc.tsv").read_bytes() == table


def test_the_same_seed_gives_the_same_scores_from_the_start(finished, tmp_path):
    folder, _ = finished
    snakemake(tmp_path, SCORE)
    again, _ = read_scores(tmp_path / SCORE)
    first, _ = read_scores(folder / SCORE)
    pd.testing.assert_frame_equal(again, first)


def test_a_target_that_no_config_lists_can_be_asked_for_by_its_path(finished):
    folder, _ = finished
    target = SCORE.replace("paired", "released").replace("/256.parquet", "/400.parquet")
    export = "results/test/windows/sim_near/100/test.csv"
    text = target.replace(".parquet", ".tsv")
    ran = rules_run(snakemake(folder, target, export, text))
    expected = ["assign_splits", "export_scores", "export_windows", "finetune", "score_variants"]
    assert sorted(ran) == sorted([*expected, "measure_entropy_at"])
    scores, _ = read_scores(folder / target)
    assert scores["none"].nunique() > 1
    lines = pd.read_csv(folder / text, sep="\t").set_index("line")["none"]
    accepted = pd.read_parquet(folder / "results/test/variants/sim_near.parquet")
    by_line = accepted.merge(scores, on=["contig", "pos", "ref", "alt"]).set_index("line")["none"]
    assert np.allclose(lines, by_line.loc[lines.index], rtol=1e-4)
    windows = pd.read_csv(folder / export)
    assert list(windows.columns) == ["sequence", "label"]
    assert (windows["sequence"].str.len() == 100).all()


def test_a_length_beyond_the_study_is_refused_in_one_sentence(finished):
    folder, _ = finished
    target = SCORE.replace("/256.parquet", "/100000.parquet")
    code, output = snakemake(folder, target, check=False)
    assert code != 0
    assert "has no window of 100,000 bp inside its contig" in output
    assert "Traceback" not in output
    assert not (folder / target).exists()


def test_the_report_carries_tables_and_figures(finished):
    folder, _ = finished
    snakemake(folder, "--report", "report.html")
    page = (folder / "report.html").read_text()
    assert "auroc.tsv" in page
    assert "leaks.tsv" in page
    assert "tokens.tsv" in page
    assert "sim_near" in page


def publish_tiny(folder, tokenizer):
    """A masked-LM checkpoint in the published form: pytorch_model.bin, config, tokenizer."""
    torch.manual_seed(0)
    config = DNABERT2Config(
        vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16,
    )  # fmt: skip
    model = DNABERT2ForMaskedLM(config)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    values = {key: value for key, value in config.to_dict().items() if key not in ("attention",)}
    (folder / "config.json").write_text(json.dumps(values))
    shutil.copyfile(tokenizer, folder / "tokenizer.json")


def publish_gau():
    """A GAU-alpha as the released training leaves one: original keys, vocab.txt, CosScale 16."""
    torch.manual_seed(0)
    shape = {
        "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 16,
        "attention_key_size": 8, "normalization": "softmax",
    }  # fmt: skip
    info = {
        "task": "train",
        "dataset": "WanJuan",
        "train_len": 32,
        "train_norm_method": {"name": "CosScale", "CosScale_value": 16},
        "train_normalization": {"name": "softmax"},
    }
    weights = io.BytesIO()
    torch.save(GAUAlphaForMaskedLM(GAUAlphaConfig(**shape)).state_dict(), weights)
    config = {"model_type": "gau_alpha", "max_position_embeddings": 32, **shape}
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz,."]
    return {
        "config.json": json.dumps(config | {"my_info_dict": info}).encode(),
        "pytorch_model.bin": weights.getvalue(),
        "vocab.txt": "\n".join(tokens + [f"[unused{i}]" for i in range(7)]).encode(),
    }


def wanjuan():
    """Both files of the paper's corpus, short: a JSON object with `text` per line."""
    rng = np.random.default_rng(1)
    lines = [
        json.dumps({"text": " ".join(rng.choice(list("abcdefghijk"), 300))}).encode()
        for _ in range(12)
    ]
    return {
        "WanJuan_deal.json": b"\n".join(lines[:6]),
        "WanJuan_deal_validation.json": b"\n".join(lines[6:]),
    }


def test_all_rules_run_with_a_task_and_a_checkpoint_from_a_hub(finished, tmp_path):
    folder, first_output = finished
    publish_tiny(tmp_path, folder / "results/test/tokenizers/simtest/dnabert2-tiny/tokenizer.json")
    eqtl = pd.read_csv(folder / "results/test/simulated/simtest/sim_near.csv")
    eqtl = eqtl.rename(columns={"INT_LABEL": "label"}).assign(
        tissue=["liver", "lung"] * (len(eqtl) // 2), distance_to_nearest_TSS=0
    )
    files = {
        "datasets/InstaDeepAI/genomics-long-range-benchmark": {
            "variant_effect_causal_eqtl/All_Tissues.csv": eqtl.to_csv(index=False).encode()
        },
        "someone/tiny": {path.name: path.read_bytes() for path in tmp_path.iterdir()},
        "someone/gau": publish_gau(),
        "datasets/HT-NEKO/WanJuan-Dataset_for_Information-Entropy-Invariance": wanjuan(),
    }
    with serve_hub(files) as address:
        output = snakemake(
            folder,
            configs=("config/test.yaml", "tests/configs/hub.yaml"),
            HF_ENDPOINT=address,
            HF_HOME=str(tmp_path / "hf"),
        )
    table = pd.read_csv(folder / "results/hub/tables/auroc.tsv", sep="\t", keep_default_na=False)
    assert set(table["model"]) == {"tiny-published"}
    assert set(table["rule"]) == {"none"}
    released = pd.read_csv(folder / "results/hub/tables/auroc_released.tsv", sep="\t")
    assert set(released["rule"]) == {"infoscale-released"}
    run = "variant_effect_causal_eqtl/paired/tiny-published/256/cos-matched/seed1"
    config = json.loads((folder / f"results/hub/finetune/{run}/config.json").read_text())
    assert config["tissues"] == ["liver", "lung"]
    masked = read_mlm_table(folder / "results/hub/tables/mlm.tsv")
    assert set(masked["attention"]) == {"cos16"}
    assert set(masked["documents"]) == {3}
    defects = read_mlm_table(folder / "results/hub/tables/mlm_released.tsv")
    assert set(defects["protocol"]) == {"fixed-target", "released"}
    assert set(defects["scheme"]) == {"rope", "yarn-released"}
    listed = subprocess.run(
        [sys.executable, "-m", "snakemake", "--list-rules", "--quiet", "all"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    ran = (
        set(rules_run(first_output))
        | set(rules_run(output))
        | {"export_windows", "export_scores", "measure_entropy_at", "measure_attention_at"}
        | OF_THE_BENCHMARK
    )
    assert set(listed) - ran == set()


def test_the_masked_lm_table_has_one_row_per_cell(finished):
    folder, _ = finished
    table = read_mlm_table(folder / "results/test/tables/mlm.tsv")
    arms = table.groupby(["attention", "scheme", "rule", "length"]).size()
    assert len(arms) == 1 * 2 * 2 * 2
    assert (arms == 1).all()
    assert set(table["documents"]) == {12}
    assert table["n"].nunique() == 1
    at_training = table[table["length"] == 32]
    of_rope = at_training[at_training["scheme"] == "rope"]
    assert (of_rope["delta"] == 0).all()  # a rule is 1 at the training length
    assert set(table["trained"] == (table["scheme"] == "rope")) == {True}
    run = folder / "results/test/mlm/cpython-docs/gau-alpha-tiny/32/dot/rope/seed1"
    matched = json.loads((run / "entropy_matched.json").read_text())
    assert set(matched["schemes"]) == {"rope", "windowed-recall"}
    corpus = json.loads((folder / "results/test/corpora/cpython-docs/corpus.json").read_text())
    assert corpus["leak"]["share_after"] == 0
    assert len(corpus["sha256"]) == 64
    training = json.loads((run / "training.json").read_text())
    assert training["corpus_sha256"] == corpus["sha256"]
    figures = {path.parent.name for path in (folder / "results/test/figures/mlm").rglob("*.svg")}
    assert figures == {"lengths", "schemes", "rules", "histories", "entropies", "maps"}


def test_a_deleted_masked_lm_score_file_comes_back_the_same(finished):
    folder, _ = finished
    path = "results/test/mlm/cpython-docs/gau-alpha-tiny/32/dot/rope/seed1/fixed-target/64.parquet"
    before, _ = read_mlm_scores(folder / path)
    (folder / path).unlink()
    output = snakemake(folder, path)
    assert rules_run(output) == ["score_mlm_longest"]
    pd.testing.assert_frame_equal(read_mlm_scores(folder / path)[0], before)
    snakemake(folder)


def test_a_masked_lm_length_that_no_config_lists_can_be_asked_for_by_its_path(finished):
    folder, _ = finished
    path = "results/test/mlm/cpython-docs/gau-alpha-tiny/32/dot/rope/seed1/fixed-target/48.parquet"
    output = snakemake(folder, path)
    assert rules_run(output) == ["measure_attention_at", "score_mlm"]
    scores, provenance = read_mlm_scores(folder / path)
    assert set(scores["rule"]) == {"none", "entropy-matched"}
    assert provenance["not_run"] == {}


def test_a_genome_as_text(tmp_path):
    output = snakemake(tmp_path, configs=("tests/configs/genome_text.yaml",))
    assert "finetune" not in rules_run(output)
    table = read_mlm_table(tmp_path / "results/genome_text/tables/mlm.tsv")
    assert set(table["corpus"]) == {"bases", "pairs"}
    assert set(table["trained_scheme"]) == {"pose"}
    assert table["n"].gt(50).all()
    documents = pd.read_parquet(tmp_path / "results/genome_text/corpora/bases/documents.parquet")
    test = documents[documents["split"] == "test"]["document"]
    assert test.str.startswith("chr7:").all()


@pytest.fixture
def further(tmp_path):
    """A configuration with a genome in UCSC's layout and the simulated one of the probe tasks."""
    bases = "".join(np.random.default_rng(1).choice(list("ACGTacgtN"), 430))
    lines = [bases[i : i + 50] for i in range(0, 430, 50)]
    text = "\n".join([">chr1", *lines, ">chrM", *lines[:3], ""])
    packed = gzip.compress(text.encode(), mtime=0)
    (tmp_path / "hg19.fa.gz").write_bytes(packed)
    md5 = hashlib.md5(packed).hexdigest()
    (tmp_path / "md5sum.txt").write_text(f"{'0' * 32}  hg19.2bit\n{md5}  hg19.fa.gz\n")
    config = yaml.safe_load((ROOT / "config/test.yaml").read_text())
    url = tmp_path.as_uri()
    small = {"chromosomes": 3, "test_chromosomes": 1, "loci_per_chromosome": 4}
    config["genomes"] = {
        "hg19": {"fasta": f"{url}/hg19.fa.gz", "md5checksums": f"{url}/md5sum.txt"},
        "sim2": {"simulate": "resources/simulated_probe.yaml", "assembly": small},
    }
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(config))
    return path, text, packed


def test_further_genomes_stand_beside_the_first(further, tmp_path):
    path, text, packed = further
    folder = tmp_path / "results/test/genome"
    targets = [f"results/test/genome/{name}.bases" for name in ("hg19", "sim2")]
    run = rules_run(snakemake(tmp_path, *targets, configs=(path,)))
    assert {name: run.count(name) for name in run} == {
        **{"simulate_probe_genome": 1, "download_md5checksums": 2, "download_genome_file": 2},
        **{"download_assembly_report": 1, "convert_ncbi2ucsc": 2, "fold_genome": 2},
    }
    assert (folder / "hg19.fa").read_text() == text
    assert (folder / "hg19.fa.fai").read_text() == "chr1\t430\t6\t50\t51\nchrM\t150\t451\t50\t51\n"
    assert (folder / "hg19.aliases.tsv").read_text() == (
        "alias\tcontig\nchr1\tchr1\n1\tchr1\nchrM\tchrM\nM\tchrM\n"
    )
    assert json.loads((folder / "hg19.json").read_text()) == {
        "source": (tmp_path / "hg19.fa.gz").as_uri(),
        "source_md5": hashlib.md5(packed).hexdigest(),
        "genome_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "contigs": 2,
        "bp": 580,
    }
    bases = (folder / "hg19.bases").read_bytes()
    assert "".join(text.split("\n")[1:10]).upper().encode() in bases
    simulated = tmp_path / "results/test/simulated/sim2"
    recipe = yaml.safe_load((ROOT / "resources/simulated_probe.yaml").read_text())
    for task in recipe["tasks"]:
        assert (simulated / task / "rows.csv").stat().st_size
        assert (simulated / f"{task}.truth.npz").stat().st_size
    assert json.loads((folder / "sim2.json").read_text())["contigs"] == 5
    code, planned = plan(tmp_path, path)
    assert code == 0
    dry_run = snakemake(tmp_path, "--dry-run", "--quiet", "rules", configs=(path,))
    assert counted(planned) == counted(dry_run)
    assert counted(planned)["convert_ncbi2ucsc"] == 1  # the first genome's


def test_further_genomes_are_planned_and_checked(further, tmp_path):
    path, _, packed = further
    code, planned = plan(tmp_path, path)
    assert code == 0
    assert counted(planned)["convert_ncbi2ucsc"] == 3
    assert f"0 kB  {(tmp_path / 'hg19.fa.gz').as_uri()}" in planned
    (tmp_path / "hg19.fa.gz").write_bytes(packed[:-1] + b"?")
    target = "results/test/genome/hg19.fa"
    code, output = snakemake(tmp_path, target, configs=(path,), check=False)
    assert code != 0
    assert "MD5" in output
    assert "Traceback" not in output
    assert not (tmp_path / "results/test/downloads/hg19.fna.gz").exists()
    assert not (tmp_path / target).exists()


def test_an_own_genome_keeps_its_names_and_is_read_again_where_it_changes(tmp_path):
    def write(bases):
        (tmp_path / "mine.fa.gz").write_bytes(gzip.compress(f">chrA\n{bases}\n".encode()))

    write("ACGTTGCA" * 500)
    config = yaml.safe_load((ROOT / "config/own_variants.yaml").read_text())
    config["genome"] = {"name": "mine", "fasta": "mine.fa.gz"}
    config["tasks"] = {"t": {"source": "file", "path": "v.csv"}}
    config["study"] |= {"tasks": ["t"]}
    (tmp_path / "v.csv").write_text("CHROM,POS,REF,ALT,INT_LABEL\nchrA,1001,A,C,1\n")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    given = {"configs": (tmp_path / "mine.yaml",)}
    fasta = "results/own_variants/genome/mine.fa"
    snakemake(tmp_path, fasta, **given)
    assert (tmp_path / fasta).read_text().startswith(">chrA\nACGTTGCA")
    assert not (tmp_path / "results/own_variants/downloads/mine.assembly_report.txt").exists()
    assert rules_run(snakemake(tmp_path, fasta, **given)) == []
    write("TTGCACGT" * 500)
    rerun = rules_run(snakemake(tmp_path, fasta, **given))
    assert rerun == ["download_genome_file", "convert_ncbi2ucsc"]
    assert (tmp_path / fasta).read_text().startswith(">chrA\nTTGCACGT")


def test_an_own_annotation_is_read_again_where_it_changes(tmp_path):
    genes = tmp_path / "mine.gtf"
    genes.write_text("first\n")
    (tmp_path / "genes.yaml").write_text("genomes: {simprobe: {genes: mine.gtf}}\n")
    given = {"configs": ("config/test.yaml", tmp_path / "genes.yaml")}
    copy = "results/test/downloads/simprobe.genes.gtf"
    for text, rerun in [
        ("first\n", ["download_genes"]),
        ("first\n", []),
        ("2\n", ["download_genes"]),
    ]:
        genes.write_text(text)
        assert rules_run(snakemake(tmp_path, copy, **given)) == rerun
        assert (tmp_path / copy).read_text() == text


def test_own_text_as_documented_is_read_again_where_it_changes(tmp_path):
    page = (ROOT / "docs/mlm.md").read_text()
    whole = re.search(r"^A whole configuration.*?```yaml\n(.*?)```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "own.yaml").write_text(whole[1])
    rng = np.random.default_rng(1)
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(10):
        (texts / f"{number}.txt").write_text("".join(rng.choice(list("abcdefgh \n"), 700)))
    corpus = "results/my_text/corpora/my_text/documents.parquet"
    own = (tmp_path / "own.yaml",)
    assert rules_run(snakemake(tmp_path, corpus, configs=own)) == ["prepare_corpus"]
    assert rules_run(snakemake(tmp_path, corpus, configs=own)) == []
    (texts / "10.txt").write_text("".join(rng.choice(list("abcdefgh \n"), 900)))
    assert rules_run(snakemake(tmp_path, corpus, configs=own)) == ["prepare_corpus"]
    assert len(pd.read_parquet(tmp_path / corpus)) == 11
    assert "train_mlm" in rules_run(snakemake(tmp_path, "--dry-run", configs=own))


def test_the_masked_lm_study_is_planned_without_a_genome(tmp_path):
    output = snakemake(tmp_path, "--dry-run", configs=("config/mlm.yaml",))
    counts = dict(re.findall(r"^(\w+) +(\d+)$", output, flags=re.MULTILINE))
    assert int(counts["train_mlm"]) == 2 * (3 * 3 + 1 + 3) + 3
    assert "simulate_genome" not in counts


def test_the_full_study_is_planned_without_a_network(tmp_path):
    output = snakemake(tmp_path, "--dry-run", configs=("config/grch38.yaml",))
    counts = dict(re.findall(r"^(\w+) +(\d+)$", output, flags=re.MULTILINE))
    assert int(counts["finetune"]) == 2 * 4 * 3 * 3  # tasks with training rows
    assert int(counts["score_variants"]) == 3 * 4 * 3 * 3 * 4
    assert counts["download_task"] == "3"
    assert "pretrain" not in counts


def test_real_variants_on_real_sequence(shared, tmp_path):
    run = tmp_path / "work" / "run"
    run.mkdir(parents=True)
    (tmp_path / "work" / "shared").symlink_to(shared)
    snakemake(run, configs=("config/chrm.yaml", "tests/configs/chrm_short.yaml"))
    counts = json.loads((run / "results/chrm/variants/clinvar_chrm.summary.json").read_text())
    assert counts["alleles"] == 1686
    assert counts["accepted"] + counts["rejected"] == 1686
    assert counts["accepted"] >= 1680
    table = pd.read_csv(run / "results/chrm/tables/auroc.tsv", sep="\t", keep_default_na=False)
    assert set(table["eval_bp"]) == {500, 1000}
    assert table["flags"].str.contains("single_chromosome").all()
    assert (table["n"].astype(int) > 100).all()


def test_the_example_vcf_fits_the_simulated_genome(tmp_path):
    target = "results/own_variants/variants/my_variants.rejected.tsv"
    splits = "results/own_variants/splits/my_variants/paired.json"
    snakemake(tmp_path, target, splits, configs=("config/own_variants.yaml",))
    rejected = pd.read_csv(tmp_path / target, sep="\t")
    counts = json.loads((tmp_path / target.replace("rejected.tsv", "summary.json")).read_text())
    assert list(rejected["reason"]) == ["symbolic_allele", "unknown_contig"]
    assert counts["accepted"] == 253
    summary = json.loads((tmp_path / splits).read_text())
    assert (summary["test"], summary["overlap_with_train_task"]) == (253, 0)


SPLITS = [f"results/test/splits/{task}/paired.parquet" for task in ("sim_near", "sim_far")]
RERUN = ("--config", "on_code_change=rerun")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A finished run up to the splits, of a copy of the workflow."""
    folder, root = tmp_path_factory.mktemp("prepared"), tmp_path_factory.mktemp("copy")
    copy_workflow(root)
    snakemake(folder, *SPLITS, root=root)
    return folder, root


@pytest.fixture
def edited(prepared, tmp_path):
    """A copy of that run, `edit(module, text)` for the workflow's copy, `snakemake` over both."""
    finished, root = prepared
    folder, scripts = tmp_path / "run", root / "workflow" / "scripts"
    shutil.copytree(finished, folder)
    shutil.copytree(scripts, tmp_path / "scripts")

    def edit(name, text):
        (scripts / name).write_text((scripts / name).read_text() + text)

    def run(*arguments, **options):
        return snakemake(folder, *SPLITS, *arguments, root=root, **options)

    yield folder, edit, run
    shutil.rmtree(scripts)
    shutil.copytree(tmp_path / "scripts", scripts)


def copy_workflow(root):
    """What Snakemake needs of the repository."""
    shutil.copyfile(ROOT / "Snakefile", root / "Snakefile")
    for name in ("rules", "workflow", "config", "profiles", "resources", "envs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, root / name, ignore=ignored)


def content(folder):
    """Every result and its content."""
    files = [path for path in (folder / "results").rglob("*") if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_words_and_touched_files_rerun_nothing(edited):
    folder, edit, run = edited
    edit("longscale/variants/windows.py", '\n# a comment\n"""A string that nothing reads."""\n')
    edit("check_windows.py", "\n# a comment\n")
    edit("longscale/__init__.py", '\n__version__ = "9.9.9"\n')
    before = content(folder)
    output = run(*RERUN)
    assert "Nothing to be done" in output
    assert "the code has changed" not in output
    assert content(folder) == before


def test_edited_code_reruns_nothing_unless_asked_to_and_is_told(edited):
    folder, edit, run = edited
    edit("longscale/variants/windows.py", "\nEXTRA = 1\n")
    before = content(folder)
    for arguments in [(), ("--dry-run",), ()]:
        output = run(*arguments)
        assert "Nothing to be done" in output
        told = [line for line in output.splitlines() if "the code has changed" in line]
        assert len(told) == 1
        assert "longscale.variants.windows" in told[0]
        assert re.search(r"rules .*assign_splits.* check_windows", told[0])
        assert "prepare_variants" not in told[0]
        assert content(folder) == before


def test_asked_to_exactly_the_rules_that_use_it_run_again(edited):
    folder, edit, run = edited
    edit("longscale/variants/windows.py", "\nEXTRA = 1\n")
    before = content(folder)
    planned = rules_run(run("--dry-run", *RERUN))
    assert content(folder) == before
    assert "Nothing to be done" in run()
    ran = rules_run(run(*RERUN))
    assert sorted(ran) == sorted(planned)
    assert sorted(planned) == ["assign_splits"] * 2 + ["check_windows"] * 2
    assert "Nothing to be done" in run()
    assert "Nothing to be done" in run(*RERUN)


@pytest.mark.parametrize(
    ("module", "rules"),
    [
        (
            "longscale/training/pretrain.py",
            "pretrain finetune measure_entropy score_variants build_tables plot_auroc"
            " embed_rows train_probe score_zero_shot build_lrb_table plot_lrb",
        ),
        (
            "longscale/training/mlm.py",
            "train_mlm measure_attention score_mlm score_mlm_longest build_mlm_table plot_mlm",
        ),
        ("longscale/training/probe.py", "train_probe score_zero_shot build_lrb_table plot_lrb"),
        ("longscale/report/plots.py", "plot_auroc plot_documents plot_mlm plot_lrb"),
        ("longscale/config.py", ""),
    ],
)
def test_an_edit_of_a_module_concerns_the_rules_that_use_it_and_no_others(
    finished, prepared, tmp_path, module, rules
):
    """Of a finished run of everything: the rules that use the module, and what reads from them."""
    folder, (_, root) = tmp_path / "run", prepared
    shutil.copytree(finished[0], folder)
    # The copy of the workflow reads the recipes that the run was made with.
    recipe = {
        "genome": {"simulate": str(ROOT / "resources/simulated.yaml")},
        "genomes": {"simprobe": {"simulate": str(ROOT / "resources/simulated_probe.yaml")}},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    configs = ("config/test.yaml", tmp_path / "recipe.yaml")
    path, dry_run = root / "workflow/scripts" / module, ("--dry-run", *RERUN)
    text = path.read_text()
    assert "Nothing to be done" in snakemake(folder, *dry_run, configs=configs, root=root)
    path.write_text(text + "\nEXTRA = 1\n")
    try:
        found = rules_run(snakemake(folder, *dry_run, configs=configs, root=root))
    finally:
        path.write_text(text)
    assert set(found) - {"all"} == set(rules.split())


def test_what_is_asked_for_but_cut_short_is_done_by_the_next_run(edited):
    _, edit, run = edited
    edit("longscale/variants/windows.py", "\nEXTRA = 1\n")
    assert set(rules_run(run("--until", "check_windows", *RERUN))) == {"check_windows"}
    output = run()
    assert set(rules_run(output)) == {"assign_splits"}
    assert "the code has changed" not in output
    assert "Nothing to be done" in run()


def test_accepted_code_is_not_told_again(edited):
    _, edit, run = edited
    edit("longscale/variants/windows.py", "\nEXTRA = 1\n")
    run("--dry-run", "--config", "on_code_change=accept")
    assert "the code has changed" in run("--dry-run")
    assert "Nothing to be done" in run("--config", "on_code_change=accept")
    output = run(*RERUN)
    assert "Nothing to be done" in output
    assert "the code has changed" not in output


def test_results_without_a_record_of_their_code_stay_and_are_followed_from_then_on(edited):
    folder, edit, run = edited
    (folder / "results/test/code.json").unlink()
    edit("longscale/variants/windows.py", "\nEXTRA = 1\n")
    assert "Nothing to be done" in run("--dry-run", *RERUN)
    assert not (folder / "results/test/code.json").exists()
    assert "Nothing to be done" in run(*RERUN)
    edit("longscale/variants/windows.py", "\nMORE = 1\n")
    ran = rules_run(run("--dry-run", *RERUN))
    assert set(ran) == {"check_windows", "assign_splits"}


def test_a_broken_record_of_the_code_is_one_sentence(edited):
    folder, _, run = edited
    (folder / "results/test/code.json").write_text("{")
    code, output = run(check=False)
    assert code != 0
    assert "code.json: not readable as the record of the code" in output
    assert "Traceback" not in output


def plan(folder, config, *arguments, root=ROOT):
    """What `make plan` prints in `folder`, and its exit code."""
    command = [sys.executable, root / "workflow/scripts/plan.py", config, *arguments]
    done = subprocess.run(
        list(map(str, command)), cwd=folder, text=True, capture_output=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def counted(output):
    """Jobs of each rule in a plan or a dry run, those of `all` left out."""
    rule = r"(?P<rule>(?!all|total)[a-z]+_\w+|pretrain|finetune)"
    in_dry_run, in_plan = rf"^{rule} +(?P<n>\d+)$", rf"(?<=[ ,] )(?P<n>\d+) {rule}(?=,|$)"
    found = [m for form in (in_dry_run, in_plan) for m in re.finditer(form, output, re.MULTILINE)]
    return {match["rule"]: int(match["n"]) for match in found}


@pytest.mark.parametrize("config", ["config/grch38.yaml", "config/mlm.yaml"])
def test_a_study_is_planned_before_it_begins(tmp_path, config):
    code, text = plan(tmp_path, ROOT / config)
    assert code == 0
    dry_run = snakemake(tmp_path, "--dry-run", "--quiet", "rules", configs=(config,))
    assert counted(text) == counted(dry_run)
    total = sum(counted(dry_run).values())
    assert f"{total} jobs to do, 0 finished" in text
    assert "With GPUs: about" in text
    assert not (tmp_path / "results").exists()


def test_a_plan_counts_what_is_left_and_learns_from_what_is_done(prepared, tmp_path):
    folder, root = prepared
    before = content(folder)
    saved = tmp_path / "calibration.json"
    code, text = plan(folder, root / "config/test.yaml", "--save", saved, root=root)
    assert code == 0
    dry_run = snakemake(folder, "--dry-run", "--quiet", "rules", root=root)
    assert counted(text) == counted(dry_run)
    assert "assign_splits" not in text
    assert content(folder) == before
    taught = {row["rule"] for row in json.loads(saved.read_text())["corrections"]}
    assert {"prepare_variants", "assign_splits", "simulate_genome"} <= taught


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "mine.yaml: no such configuration"),
        ("a: [", "mine.yaml: not YAML"),
        ("models: {}", "mine.yaml: models"),
        ("- 1", "mine.yaml: not a configuration"),
    ],
)
def test_a_plan_of_no_configuration_is_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "mine.yaml"
    if text is not None:
        path.write_text(text)
    code, output = plan(tmp_path, path)
    assert code == 1
    assert output.startswith("error: ")
    assert sentence in output
    assert len(output.splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"study": {"sedes": [1]}}, "unknown key 'sedes' in study; did you mean 'seeds'?"),
        ({"study": {"rules": ["infoscal"]}}, "study.rules: .*'infoscal' is not a length rule"),
        ({"finetune": {"epochs": "many"}}, "finetune.epochs is 'many', but must be of type number"),
        ({"study": {"tasks": ["sim_naer"]}}, "did you mean 'sim_near'?"),
    ],
)
def test_a_mistake_in_the_config_is_one_sentence(tmp_path, change, sentence):
    config = yaml.safe_load((ROOT / "config/test.yaml").read_text())
    for section, values in change.items():
        config[section] |= values
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(config))
    code, output = snakemake(tmp_path, "--dry-run", configs=(path,), check=False)
    assert code != 0
    assert re.search(sentence, output), output
    assert str(path) in output
    assert "Traceback" not in output
