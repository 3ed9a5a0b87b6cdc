"""How much work a job is: it must follow from the configuration, and agree with the models."""

import copy
import json
from pathlib import Path

import pytest
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from longscale.config import check_config, read_schema
from longscale.errors import LongscaleError
from longscale.models.dnabert2 import (
    DNABERT2Config,
    DNABERT2ForSequenceClassification,
    DNABERT2Model,
)
from longscale.models.gau_alpha import GAUAlphaConfig, GAUAlphaForMaskedLM
from longscale.tasks.simulated_probe import ProbeRecipe, probe_tasks
from longscale.training.lora import add_lora
from longscale.workload import (
    KINDS,
    NO_WORK,
    Rows,
    Study,
    Work,
    count_lines,
    dnabert2_forward,
    encoder_forward,
    finetune_step,
    gau_forward,
    load_of,
    parameters,
)

ROOT = Path(__file__).resolve().parents[1]
SHAPE = {
    "architecture": "dnabert2",
    "vocab_size": 4096,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "intermediate_size": 3072,
}
FINETUNE = "finetune/sim_near/paired/dnabert2-small/160/dot/seed1/config.json"
SCORE = "scores/sim_near/paired/dnabert2-small/160/dot/seed1/{}.parquet"
MLM = "mlm/cpython-docs/gau-alpha-small/64/dot/rope/seed1"
PROBE = "sim_eqtl/dnabert2-small/256/none/none"
EXAMPLES = {
    "pretrain": "pretrain/simgenome/dnabert2-small/dot/seed1/config.json",
    "finetune": FINETUNE,
    "measure_entropy": FINETUNE.replace("config", "entropy_matched"),
    "measure_entropy_at": FINETUNE.replace("config", "entropy_matched.320"),
    "score_variants": SCORE.format(640),
    "train_mlm": f"{MLM}/config.json",
    "measure_attention": f"{MLM}/entropy.tsv",
    "measure_attention_at": f"{MLM}/entropy_matched.96.json",
    "score_mlm": f"{MLM}/fixed-target/512.parquet",
    "embed_rows": f"embeddings/{PROBE}/index.json",
    "train_probe": f"probe/{PROBE}/predictions.parquet",
    "score_zero_shot": f"probe/{PROBE}/zero_shot.parquet",
}


def total(work):
    return work.linear + work.attention


@pytest.fixture
def study(tmp_path):
    """The demo, whose results are not there yet."""
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    config = check_config(config, read_schema(ROOT / "config/schema.yaml"), "demo")
    config["genome"]["simulate"] = str(ROOT / "resources/simulated.yaml")
    config["genomes"]["simprobe"]["simulate"] = str(ROOT / "resources/simulated_probe.yaml")
    return Study(config, tmp_path)


def changed(study, *keys, value):
    """The study with one key of its configuration changed."""
    config = copy.deepcopy(study.config)
    section = config
    for key in keys[:-1]:
        section = section[key]
    section[keys[-1]] = value
    return Study(config, study.results)


def test_the_published_model_has_the_known_size_and_cost():
    assert parameters(SHAPE) == pytest.approx(117e6, rel=0.02)
    work = dnabert2_forward(SHAPE, 1000)
    assert work.linear == pytest.approx(1000 * 226.5e6, rel=1e-3)
    assert work.attention == pytest.approx(1000 * 36_864 * 1000)


def test_dnabert2_is_counted_as_torch_counts_it():
    shape = {"vocab_size": 64, "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96}
    model = DNABERT2Model(DNABERT2Config(**shape, num_attention_heads=2)).eval()
    ids = torch.randint(5, 64, (1, 200))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(ids, attention_mask=torch.ones_like(ids))
    # The counter knows nothing of fused attention, two products of 200 x 200 x hidden size a layer.
    work = dnabert2_forward(shape, 200)
    assert counter.get_total_flops() == pytest.approx(work.linear, rel=0.01)
    assert work.attention == 2 * 2 * (2 * 200 * 200 * 64)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("lora", [None, {"r": 1, "alpha": 1, "dropout": 0}])
def test_a_step_of_fine_tuning_is_counted_as_torch_counts_it(again, lora):
    """Its matrices; the counter sees no fused attention."""
    shape = {"vocab_size": 64, "hidden_size": 64, "num_hidden_layers": 4, "intermediate_size": 96}
    model = DNABERT2ForSequenceClassification(DNABERT2Config(**shape, num_attention_heads=2))
    if lora:
        add_lora(model, **lora, target_modules=["Wqkv", "dense"])
    if again:
        model.activation_checkpointing_enable()
    ids = torch.randint(5, 64, (1, 200))
    with FlopCounterMode(display=False) as counter:
        model.train()(ids, torch.ones_like(ids), labels=torch.tensor([1])).loss.backward()
    options = {"gradient_checkpointing": again, "lora": lora}
    work = finetune_step(dnabert2_forward(shape, 200), options)
    assert counter.get_total_flops() == pytest.approx(work.linear, rel=0.06)
    assert work.attention == (3 + again) * dnabert2_forward(shape, 200).attention


@pytest.mark.parametrize("few", [True, False])
def test_gau_alpha_is_counted_as_torch_counts_it(few):
    shape = {"hidden_size": 32, "num_hidden_layers": 3, "intermediate_size": 48}
    config = GAUAlphaConfig(vocab_size=40, **shape, attention_key_size=16, n_train=64)
    model = GAUAlphaForMaskedLM(config).eval()
    ids = torch.randint(5, 40, (1, 256))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(ids, **({"rows": torch.tensor([3])} if few else {}))
    decoder = 2 * 256 * (32 * 32 + 32 * 40)
    found = total(gau_forward(shape | {"attention_key_size": 16}, 256, few_rows=few))
    assert counter.get_total_flops() == pytest.approx(found + (not few) * decoder, rel=0.02)


def test_every_kind_of_job_has_work(study):
    assert set(EXAMPLES) == set(KINDS)
    for rule, path in EXAMPLES.items():
        load = load_of(study, rule, path)
        assert total(load.work) > 1e6, rule
        assert load.threads == 1
        assert load.trains == (rule in ("pretrain", "finetune", "train_mlm"))
    assert load_of(study, "score_mlm_longest", EXAMPLES["score_mlm"]).model == "gau-alpha-small"
    assert load_of(study, "prepare_variants", "variants/sim_near.parquet") is None


@pytest.mark.parametrize(
    ("rule", "keys", "value"),
    [
        ("pretrain", ("pretrain", "steps"), 800),
        ("pretrain", ("pretrain", "batch_size"), 128),
        ("finetune", ("finetune", "epochs"), 8),
        ("train_mlm", ("mlm", "train", "steps"), 1400),
        ("train_mlm", ("mlm", "train", "batch_size"), 128),
        ("score_mlm", ("mlm", "evaluation", "groups"), 2),
        ("score_mlm", ("corpora", "cpython-docs", "test_documents"), 24),
        ("score_variants", ("study", "rules"), ["none"] * 8),
        ("measure_attention", ("corpora", "cpython-docs", "dev_documents"), 8),
        ("score_zero_shot", ("probe", "zero_shot", "both_strands"), True),
        ("train_probe", ("probe", "train", "folds"), 10),
    ],
)
def test_twice_the_work_is_twice_the_work(study, rule, keys, value):
    once = load_of(study, rule, EXAMPLES[rule]).work
    twice = load_of(changed(study, *keys, value=value), rule, EXAMPLES[rule]).work
    assert total(twice) == pytest.approx(2 * total(once))


def test_longer_windows_cost_more_than_in_proportion(study):
    short, long = (load_of(study, "score_variants", SCORE.format(bp)).work for bp in (320, 1280))
    assert long.attention / long.linear > 2 * short.attention / short.linear
    assert total(long) > 3.9 * total(short)


def test_released_shows_one_allele(study):
    path = EXAMPLES["score_variants"]
    paired = load_of(study, "score_variants", path).work
    released = load_of(study, "score_variants", path.replace("paired", "released")).work
    assert total(paired) == pytest.approx(2 * total(released))


def test_threads_are_those_of_the_section(study):
    study = changed(study, "finetune", "threads", value=8)
    assert load_of(study, "finetune", FINETUNE).threads == 8
    study = changed(study, "finetune", "processes", value=3)
    load = load_of(study, "finetune", FINETUNE)
    assert (load.threads, load.processes) == (24, 3)


def test_rows_are_estimated_until_they_are_counted(study):
    estimated = study.rows("sim_near", "paired")
    assert sum(estimated) == 8 * 1010 / 2
    folder = study.results / "splits" / "sim_near"
    folder.mkdir(parents=True)
    counts = {"train": {"0": 5, "1": 4}, "dev": {"0": 1, "1": 1}, "test": {"1": 7}}
    (folder / "paired.json").write_text(json.dumps({"counts": counts}))
    assert study.rows("sim_near", "paired") == Rows(9, 2, 7)
    assert study.rows("sim_near", "released") == estimated


@pytest.mark.parametrize(
    "text",
    ['{"counts"', "[]", "{}x", '{"count": 1}', '{"counts": 3}', '{"counts": {"dev": {"0": "x"}}}'],
)
def test_a_damaged_count_is_one_sentence(study, text):
    path = study.results / "splits/sim_near/paired.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    for ask in (lambda: study.rows("sim_near", "paired"), study.check_stored):
        with pytest.raises(LongscaleError, match=r"paired\.json: not the JSON that a job wrote"):
            ask()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("probe/rows/sim_eqtl.labels.json", '{"accepted": "many"}'),
        ("checkpoints/dnabert2/config.json", '{"hidden_size"'),
        ("encoders/nt/config.json", "[768]"),
    ],
)
def test_all_that_is_counted_is_read_before_the_first_job(study, path, text):
    study.check_stored()
    (study.results / path).parent.mkdir(parents=True)
    (study.results / path).write_text(text)
    with pytest.raises(LongscaleError, match=f"{path}: not the JSON that a job wrote"):
        study.check_stored()


def test_rows_of_the_benchmark_of_a_limit_and_of_a_file(study, tmp_path):
    lrb = changed(study, "tasks", "variant_effect_causal_eqtl", value=dict(
        study.config["tasks"]["sim_near"], source="lrb"
    ))  # fmt: skip
    assert sum(lrb.rows("variant_effect_causal_eqtl", "paired")) == 88_717 + 8_846
    assert "97,563 rows" in next(iter(lrb.guesses))
    few = changed(study, "tasks", "sim_near", "limit", value=10)
    assert few.rows("sim_near", "paired") == Rows(20, 20, 20)
    path = tmp_path / "mine.vcf"
    path.write_text("##x\n#CHROM\n" + "chr1\n" * 50)
    entry = dict(study.config["tasks"]["sim_near"], source="file", path=str(path))
    mine = changed(study, "tasks", "mine", value=entry)
    assert sum(mine.rows("mine", "paired")) == count_lines(path) == 50
    scored = changed(study, "tasks", "mine", value=entry | {"train_task": "sim_near"})
    assert scored.rows("mine", "paired") == Rows(0, 0, 50)


def test_a_published_model_is_guessed_until_its_config_is_there(study):
    study = changed(study, "models", "dnabert2-small", "checkpoint", value="someone/model")
    assert study.model("dnabert2-small")["hidden_size"] == 64
    assert "dnabert2-small is taken" in next(iter(study.guesses))
    folder = study.results / "checkpoints" / "dnabert2-small"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"hidden_size": 96, "other": 1}))
    assert study.model("dnabert2-small")["hidden_size"] == 96


def test_bases_in_a_token_of_dnabert2(study):
    study = changed(study, "models", "dnabert2-small", "vocab_size", value=4096)
    assert study.tokens("dnabert2-small", 10_000) == pytest.approx(1929, rel=0.05)


def test_work_adds_and_multiplies():
    assert sum([Work(1, 2), Work(3, 4)], NO_WORK) * 2 == Work(8, 12)


SIMULATED = probe_tasks(ProbeRecipe.read(ROOT / "resources/simulated_probe.yaml"))


@pytest.mark.parametrize("name", SIMULATED)
def test_a_simulated_probe_task_has_the_size_of_its_generator(study, name):
    task = SIMULATED[name]
    size = study.probe_task(name)
    if task.kind != "profile":  # whose split is random
        assert (size.rows - size.test, size.test) == task.rows
    assert size.rows == sum(task.rows)
    assert (size.bins, size.bin_bp or None) == (task.bins, task.bin_bp)
    assert (size.outputs, size.hidden_layers) == (task.outputs, task.hidden_layers)
    assert size.pieces(256) == {"variant": 2, "profile": 2}.get(task.kind, 1)


def test_probe_rows_are_estimated_until_they_are_counted(study):
    cage = study.probe_task("cage_prediction")
    assert cage.rows == 33_891 + 2_195 + 1_922
    assert (cage.pieces(12_000), cage.pieces(1 << 20)) == (93, 896)
    folder = study.results / "probe/rows"
    folder.mkdir(parents=True)
    (folder / "cage_prediction.labels.json").write_text(json.dumps({"accepted": cage.rows / 2}))
    counted = study.probe_task("cage_prediction")
    assert (counted.rows, counted.test) == (cage.rows / 2, cage.test / 2)


def test_tokens_of_a_context_follow_the_architecture(study):
    model = study.config["models"]["dnabert2-small"]
    expected = {"nucleotide-transformer": 2001, "hyenadna": 12_001, "enformer": 1536}
    for architecture, tokens in expected.items():
        other = model | {"architecture": architecture}
        found = changed(study, "models", "dnabert2-small", value=other)
        assert found.encoder_tokens("dnabert2-small", 12_000) == tokens
    assert study.encoder_tokens("gau-alpha-dna", 12_000) == 12_000
    assert encoder_forward(SHAPE | {"architecture": "hyenadna"}, 9).attention == 0
    assert encoder_forward(SHAPE, 9) == dnabert2_forward(SHAPE, 9)
