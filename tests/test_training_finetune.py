"""Fine-tuning learns what is planted, writes what is promised, and is a function of its seed."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from tiny_study import make_variants, quiet, save_pretrained, write_genome, write_tokenizer

from longscale.errors import LongscaleError
from longscale.evaluation.scoring import score_variants
from longscale.files import checksum
from longscale.models.checkpoint import load_checkpoint
from longscale.models.dnabert2 import DNABERT2Model
from longscale.training.finetune import (
    MATCH_ROWS,
    finetune,
    finetune_arguments,
    finetune_files,
)
from longscale.training.launch import launch
from longscale.training.protocols import PROTOCOLS
from longscale.variants.windows import gather_windows

WINDOW_BP = 64
FILES = {"config.json", "model.safetensors", "training.json"}
OPTIONS = {
    "epochs": 2,
    "batch_size": 16,
    "accumulation_steps": 1,
    "gradient_checkpointing": False,
    "processes": 1,
    "lora": None,
    "learning_rate": 0.003,
    "warmup_fraction": 0.1,
    "weight_decay": 0.01,
    "evaluations_per_epoch": 2,
    "patience": 3,
    "precision": "fp32",
    "threads": 1,
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """(genome, tokenizer, variants, folder of the pretrained model)."""
    folder = tmp_path_factory.mktemp("study")
    genome = write_genome(folder)
    tokenizer = write_tokenizer(genome, folder)
    variants = pd.concat(
        [
            make_variants(genome, "chr1", 160, split="train", tissues=["b", "a"]),
            make_variants(genome, "chr2", 40, split="dev", tissues=["a"], seed=1),
            make_variants(genome, "chr3", 60, split="test", tissues=["a", "b"], seed=2),
        ],
        ignore_index=True,
    )
    return genome, tokenizer, variants, save_pretrained(tokenizer, folder / "pretrained")


def run(study, folder, *, variants=None, report=quiet, **changes):
    genome, tokenizer, rows, pretrained = study
    arguments = {
        "protocol": "paired",
        "attention": "dot",
        "window_bp": WINDOW_BP,
        "options": OPTIONS,
        "seed": 1,
        "provenance": {"genome_sha256": "abc"},
    } | changes
    rows = rows if variants is None else variants
    finetune(genome, tokenizer, rows, pretrained, folder, report=report, **arguments)
    return folder


@pytest.fixture(scope="module")
def finished(study, tmp_path_factory):
    return run(study, tmp_path_factory.mktemp("runs") / "model")


def outcome_of(folder):
    return json.loads((folder / "training.json").read_text())


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def test_a_planted_signal_is_learned(study, tmp_path):
    """The label is the alternative base; held-out variants on another chromosome are ranked."""
    genome, tokenizer, variants, _ = study
    options = OPTIONS | {"epochs": 8, "learning_rate": 0.02, "patience": 20}
    folder = run(study, tmp_path / "model", options=options)
    model = load_checkpoint(PROTOCOLS["paired"].model, folder, complete=True)
    test = variants[variants["split"] == "test"]
    scores = score_variants(
        model, tokenizer, genome, test, WINDOW_BP, ["none"],
        protocol="paired", batch_tokens=4096, report=quiet,
    )  # fmt: skip
    assert roc_auc_score(scores["label"], scores["none"]) > 0.95


def test_half_precision_trains_to_finite_weights_near_those_of_single(study, tmp_path, finished):
    folder = run(study, tmp_path / "model", options=OPTIONS | {"precision": "bf16"})
    assert set(outcome_of(folder)["flags"]) <= {"not_converged", "not_learned"}
    losses = [
        [row["eval_loss"] for row in outcome_of(path)["history"] if "eval_loss" in row]
        for path in (folder, finished)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=0.02)
    assert losses[0] != losses[1]


def test_what_is_written(study, finished):
    assert {path.name for path in finished.iterdir()} == FILES
    assert [path.name for path in finished.parent.iterdir()] == ["model"]
    config, outcome = config_of(finished), outcome_of(finished)
    assert (config["attention"], config["tissues"]) == ("dot", ["a", "b"])
    assert config["n_train"] == outcome["n_train"]
    assert (outcome["seed"], outcome["genome_sha256"], outcome["steps"]) == (1, "abc", 20)
    assert set(outcome["flags"]) <= {"not_converged", "not_learned"}
    assert [row["step"] for row in outcome["history"] if "eval_loss" in row] == [5, 10, 15, 20]


def test_n_train_is_the_median_number_of_tokens_of_the_training_windows(study, finished):
    genome, tokenizer, variants, _ = study
    train = variants[variants["split"] == "train"]
    windows = [w for allele in ("ref", "alt") for w in gather_windows(genome, train, 64, allele)]
    lengths = [len(tokenizer.encode(w.tobytes().decode()).ids) for w in windows]
    assert len(set(lengths)) > 5
    assert config_of(finished)["n_train"] == int(np.median(lengths))


def test_the_same_seed_gives_the_same_weights_and_another_others(study, finished, tmp_path):
    for seed in (1, 2):
        folder = run(study, tmp_path / str(seed), seed=seed)
        same = checksum(folder / "model.safetensors") == checksum(finished / "model.safetensors")
        assert same == (seed == 1)


def test_activations_computed_again_change_nothing(study, finished, tmp_path):
    folder = run(study, tmp_path / "model", options=OPTIONS | {"gradient_checkpointing": True})
    assert checksum(folder / "model.safetensors") == checksum(finished / "model.safetensors")


LORA = {"r": 2, "alpha": 4, "dropout": 0.1, "target_modules": ["Wqkv", "dense"]}


def test_adapters_are_merged_into_what_is_written(study, tmp_path):
    """A whole checkpoint, in which only the layers with adapters, head and alpha are new."""
    options = OPTIONS | {"lora": LORA, "learning_rate": 0.02}
    folder = run(study, tmp_path / "model", attention="cos-matched", options=options)
    model = load_checkpoint(PROTOCOLS["paired"].model, folder, complete=True)
    start = load_checkpoint(DNABERT2Model, study[3]).state_dict()
    trained = model.bert.state_dict()
    changed = {name for name in start.keys() & trained if not start[name].equal(trained[name])}
    assert changed == {
        "encoder.layer.0.attention.self.Wqkv.weight",
        "encoder.layer.0.attention.output.dense.weight",
    }
    alpha = model.bert.encoder.layer[0].attention.self.alpha
    assert not np.allclose(alpha.tolist(), norms_product(study), rtol=1e-3)


@pytest.mark.e2e
def test_two_processes_of_torchrun_are_one_with_the_same_batch(study, tmp_path):
    """From the files on; dropout 0."""
    genome, tokenizer, variants, _ = study
    pretrained = save_pretrained(tokenizer, tmp_path / "pretrained", hidden_dropout_prob=0.0)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    variants.to_parquet(tmp_path / "variants.parquet")
    files = {
        "fasta": str(genome.fasta),
        "tokenizer": str(tmp_path),
        "variants": str(tmp_path / "variants.parquet"),
        "pretrained": str(pretrained),
    }
    losses, weights = [], []
    for processes in (1, 2):
        folder, lines = tmp_path / f"of {processes}", []
        options = OPTIONS | {"processes": processes, "batch_size": 24 // processes}
        settings = {"protocol": "paired", "attention": "dot", "window_bp": WINDOW_BP, "seed": 1}
        call = {**files, **settings, "folder": str(folder), "options": options, "provenance": {}}
        launch(finetune_files, call, processes=processes, threads=1, report=lines.append)
        assert len([line for line in lines if line.endswith("min left")]) == 4
        losses.append(
            [row.get("loss", row.get("eval_loss")) for row in outcome_of(folder)["history"]]
        )
        weights.append(load_checkpoint(PROTOCOLS["paired"].model, folder).state_dict())
        assert {path.name for path in folder.iterdir()} == FILES
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=1e-3, atol=1e-3)


class KilledError(BaseException):
    """Stands for the end of the process."""


def killed(study, folder, at="step 15/20  loss", **changes):
    def report(line):
        if line.startswith(at):
            raise KilledError

    with pytest.raises(KilledError):
        run(study, folder, report=report, **changes)


def test_a_killed_run_goes_on_to_the_same_weights(study, finished, tmp_path):
    folder, lines = tmp_path / "model", []
    killed(study, folder)
    assert [path.name for path in folder.iterdir()] == ["checkpoints"]
    run(study, folder, report=lines.append)
    assert "resumed at step 10 of 20" in lines
    assert checksum(folder / "model.safetensors") == checksum(finished / "model.safetensors")
    assert outcome_of(folder) | {"seconds": 0} == outcome_of(finished) | {"seconds": 0}


@pytest.mark.parametrize(
    "changes",
    [
        {"window_bp": 65},
        {"attention": "cos16"},
        {"provenance": {"genome_sha256": "abd"}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_run_of_other_settings_is_not_resumed(study, tmp_path, monkeypatch, changes):
    """Even where n_train, which is in the model's config, is the same."""
    monkeypatch.setattr("longscale.training.finetune.median_tokens", lambda examples: 30)
    killed(study, tmp_path / "model")
    lines = []
    run(study, tmp_path / "model", report=lines.append, **changes)
    assert not any(line.startswith("resumed") for line in lines)
    assert (tmp_path / "model" / "model.safetensors").exists()


def test_released_reads_the_alternative_allele_and_knows_no_tissue(study, tmp_path):
    folder = run(study, tmp_path / "model", protocol="released")
    assert config_of(folder)["tissues"] == []
    assert config_of(folder)["n_train"] == 16  # what the released scripts cut 64 bp to
    load_checkpoint(PROTOCOLS["released"].model, folder, complete=True)


# --- cos-matched ------------------------------------------------------------------------------


def norms_product(study):
    """Mean |q||k| / sqrt(d) per head of the pretrained model, one pair of tokens at a time."""
    genome, tokenizer, variants, pretrained = study
    model = load_checkpoint(DNABERT2Model, pretrained)
    block = model.encoder.layer[0].attention.self
    train = variants[variants["split"] == "train"][:MATCH_ROWS]
    products = [[], []]
    for window in gather_windows(genome, train, WINDOW_BP, "ref"):
        ids = torch.tensor(tokenizer.encode(window.tobytes().decode()).ids)
        with torch.no_grad():  # one layer: its input is the embedding
            q, k, _ = block.Wqkv(model.embeddings(ids, None)).view(len(ids), 3, 2, 8).unbind(1)
        for head in range(2):
            for query in q[:, head].norm(dim=1).tolist():
                products[head] += [query * key for key in k[:, head].norm(dim=1).tolist()]
    return [np.mean(values) / math.sqrt(8) for values in products]


def test_alpha_starts_at_the_mean_length_of_queries_and_keys(study, tmp_path):
    """With a learning rate of next to nothing, what is written is what was matched."""
    options = OPTIONS | {"learning_rate": 1e-12, "weight_decay": 0, "epochs": 1}
    folder = run(study, tmp_path / "model", attention="cos-matched", options=options)
    model = load_checkpoint(PROTOCOLS["paired"].model, folder, complete=True)
    alpha = model.bert.encoder.layer[0].attention.self.alpha
    expected = norms_product(study)
    assert alpha.tolist() == pytest.approx(expected, rel=1e-4)
    assert abs(expected[0] - math.sqrt(8)) > 0.1  # not the value that it has unmatched
    assert config_of(folder)["attention"] == "cos-matched"


def test_alpha_is_learned_afterwards(study, tmp_path):
    options = OPTIONS | {"learning_rate": 0.01}
    folder = run(study, tmp_path / "model", attention="cos-matched", options=options)
    model = load_checkpoint(PROTOCOLS["paired"].model, folder, complete=True)
    alpha = model.bert.encoder.layer[0].attention.self.alpha
    assert not np.allclose(alpha.tolist(), norms_product(study), rtol=1e-3)


# --- mistakes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "dev"])
@pytest.mark.parametrize("label", [0, 1, None])
def test_a_split_needs_both_classes(study, tmp_path, split, label):
    variants = study[2]
    other = variants[(variants["split"] != split) | (variants["label"] == label)]
    rows = int(((variants["split"] == split) & (variants["label"] == label)).sum())
    sentence = f"the {split} variants have {rows} rows and {int(rows > 0)} classes; both classes"
    with pytest.raises(LongscaleError, match=sentence):
        run(study, tmp_path / "model", variants=other)
    assert list(tmp_path.iterdir()) == []


def test_a_tissue_of_the_development_set_alone_is_one_sentence(study, tmp_path):
    other = study[2].copy()
    other.loc[other["split"] == "dev", "tissue"] = "c"
    with pytest.raises(LongscaleError, match="tissue 'c' has no training variants; known: a, b"):
        run(study, tmp_path / "model", variants=other)


# --- arguments --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "accumulation", "evaluations", "every"),
    [
        (160, 1, 1, 10),
        (161, 1, 1, 11),
        (160, 3, 1, 4),
        (160, 1, 4, 2),
        (160, 1, 99, 1),
        (1, 1, 1, 1),
    ],
)
def test_evaluations_per_epoch_become_steps(rows, accumulation, evaluations, every):
    options = OPTIONS | {
        "accumulation_steps": accumulation,
        "evaluations_per_epoch": evaluations,
    }
    arguments = finetune_arguments(options, rows, seed=3)
    assert {arguments[key] for key in ("eval_steps", "save_steps", "logging_steps")} == {every}
    assert arguments["gradient_accumulation_steps"] == accumulation
    assert arguments["seed"] == 3
