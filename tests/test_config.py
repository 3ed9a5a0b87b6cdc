"""The schema, the shipped configurations, and every mistake that a configuration can hold."""

import copy
import subprocess
import sys

import jsonschema
import pytest
import yaml
from conftest import ROOT

from longscale.config import (
    check_config,
    check_recipe,
    fill_defaults,
    locate_files,
    read_schema,
    resolve,
)
from longscale.errors import LongscaleError

SCHEMA = read_schema(ROOT / "config" / "schema.yaml")
SHIPPED = sorted(path for path in (ROOT / "config").glob("*.yaml") if path.stem != "schema")
SMALL = {
    "genome": {"name": "g", "simulate": "resources/simulated.yaml"},
    "tasks": {"sim_near": {"source": "simulated"}},
    "models": {"tiny": {}},
    "study": {"tasks": ["sim_near"], "models": ["tiny"], "train_bp": [256], "eval_bp": [512]},
}
# All branches, every section.
WHOLE = SMALL | {
    "genomes": {"h": {"simulate": "resources/simulated_probe.yaml"}},
    "models": {"tiny": {}, "gau": {"architecture": "gau-alpha"}},
    "corpora": {"docs": {"source": "cpython-docs"}},
    "finetune": {"lora": {}},
    "mlm": {
        "corpora": ["docs"],
        "models": ["gau"],
        "train_length": 64,
        "lengths": [64, 128],
        "trainings": [{"attentions": ["dot"]}],
        "arms": [{"schemes": ["rope"]}],
    },
    "probe": {"tasks": ["sim_eqtl"], "models": ["tiny"], "context_bp": [256]},
}
FREE = ("genome.simulate", "genomes.<name>.simulate", "models.<name>.architecture")  # given above


def keys_of(schema, path=""):
    """(path, schema, required) of every key of the schema, at every depth."""
    for key, raw in schema.get("properties", {}).items():
        sub = resolve(raw, SCHEMA)
        yield f"{path}{key}", sub, key in schema.get("required", [])
        yield from keys_of(sub, f"{path}{key}.")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from keys_of(resolve(schema["additionalProperties"], SCHEMA), f"{path}<name>.")


KEYS = {path: (schema, required) for path, schema, required in keys_of(SCHEMA)}


def changed(path, value):
    """SMALL with the key at a dotted path replaced (or removed: None)."""
    config = copy.deepcopy(SMALL)
    *parents, last = path.split(".")
    place = config
    for key in parents:
        place = place.setdefault(key, {})
    if value is None:
        del place[last]
    else:
        place[last] = value
    return config


def complaint(config):
    """The sentence that refuses a configuration."""
    with pytest.raises(LongscaleError) as told:
        check_config(config, SCHEMA, "own.yaml")
    sentence = str(told.value)
    assert sentence.startswith("own.yaml: ")
    assert "\n" not in sentence
    return sentence.removeprefix("own.yaml: ")


# --- the schema -------------------------------------------------------------------------------


def test_the_walk_over_the_schema_reaches_the_depths():
    deep = {
        "genome.fasta",
        "genomes.<name>.truncated",
        "tasks.<name>.columns.split",
        "models.<name>.vocab_size",
        "score.threads",
    }
    assert deep <= set(KEYS)


@pytest.mark.parametrize("path", KEYS)
def test_every_key_has_a_type_a_sentence_and_a_default_unless_required(path):
    schema, required = KEYS[path]
    assert ("type" in schema) != ("enum" in schema)
    assert schema["description"].endswith(".")
    assert ("default" in schema) != required
    if "default" in schema and schema["default"] != {}:
        jsonschema.validate(schema["default"], schema)


def test_every_section_refuses_unknown_keys():
    for path, (schema, _) in KEYS.items():
        # What replaces keys of a recipe, the recipe checks.
        if schema.get("type") == "object" and path.rpartition(".")[2] != "assembly":
            assert "additionalProperties" in schema, path


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_readme_is_what_the_schema_says():
    command = [sys.executable, ROOT / "workflow" / "scripts" / "describe_config.py"]
    environment = {"PYTHONPATH": str(ROOT / "workflow" / "scripts"), "PYTHONUTF8": "1"}
    page = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert page.stdout == (ROOT / "config" / "README.md").read_text()
    for path in KEYS:
        assert f"`{path}`" in page.stdout


# --- defaults ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_configurations_pass(path):
    config = check_config(yaml.safe_load(path.read_text()), SCHEMA, path.name)
    assert check_config(config, SCHEMA, path.name) == config  # filling again changes nothing
    assert f"`{path.name}`" in (ROOT / "config" / "README.md").read_text()


def test_the_shipped_configurations_are_found():
    assert {"config", "grch38", "chrm", "test"} <= {path.stem for path in SHIPPED}


def test_defaults_are_filled_at_every_depth():
    config = check_config(WHOLE, SCHEMA, "own.yaml")

    def value_at(place, parts):
        head, *rest = parts
        names = list(place) if head == "<name>" else [head]
        return [
            v for name in names for v in (value_at(place[name], rest) if rest else [place[name]])
        ]

    for path, (schema, required) in KEYS.items():
        if "object" not in schema.get("type", "") and not required and path not in FREE:
            found = value_at(config, path.split("."))
            assert found
            assert all(value == schema["default"] for value in found), path
    (training,) = config["mlm"]["trainings"]
    defaults = {"schemes": ["rope"], "seeds": [1], "corpora": None}
    assert training == {"attentions": ["dot"]} | defaults


def test_given_values_stay_and_nothing_is_shared():
    config = changed("splits.dev_fraction", 0.3)
    before, schema_before = copy.deepcopy(config), copy.deepcopy(SCHEMA)
    filled = check_config(config, SCHEMA, "own.yaml")
    assert filled["splits"] == {"dev_fraction": 0.3, "test_fraction": 0.2}
    filled["study"]["rules"].append("logn")
    filled["study"]["tasks"].append("another")
    filled["genome"]["assembly"]["chromosomes"] = 1
    assert config == before
    assert schema_before == SCHEMA


def test_fill_defaults_leaves_what_it_does_not_know():
    assert fill_defaults({"extra": {"a": [1]}}, {"type": "object"}, {}) == {"extra": {"a": [1]}}
    assert fill_defaults([{"a": 1}], SCHEMA, SCHEMA) == [{"a": 1}]


# --- mistakes that the schema sees ------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("studdy", {}, "unknown key 'studdy' in the top level; did you mean 'study'?"),
        ("pretrain.step", 3, "unknown key 'step' in pretrain; did you mean 'steps'?"),
        ("models.tiny.hiden_size", 8, "in models.tiny; did you mean 'hidden_size'?"),
        ("tasks.sim_near.columns", {"qqq": "A"}, "known keys: contig, pos, ref, alt, label, split"),
        ("pretrain.steps", "many", "pretrain.steps is 'many', but must be of type integer (Number"),
        ("pretrain.steps", 2.5, "pretrain.steps is 2.5, but must be of type integer"),
        ("pretrain.steps", True, "pretrain.steps is True, but must be of type integer"),
        ("study.train_bp", [256.0], "study.train_bp.0 is 256.0, but must be of type integer"),
        ("genome.fasta", 7, "genome.fasta is 7, but must be of type string or null"),
        ("pretrain.steps", 0, "pretrain.steps: 0 is less than the minimum of 1 (Number of"),
        ("splits.dev_fraction", 1, "splits.dev_fraction: 1 is greater than or equal to"),
        ("study.seeds", [1, 1], "study.seeds: [1, 1] has non-unique elements"),
        ("study.tasks", [], "study.tasks: [] should be non-empty"),
        ("pretrain.learning_rate", "1e-3", "; YAML takes 1e-3 for a text, write 0.001"),
        ("tasks.sim_near.test_chromosomes", [7], "must be of type string; write it in quotes: '7'"),
        ("study.protocols", ["pared"], "study.protocols.0 is 'pared'; did you mean 'paired'?"),
        ("finetune.precision", "q", "is 'q', but must be one of auto, fp32, bf16, fp16"),
        ("finetune.lora", {"rank": 8}, "unknown key 'rank' in finetune.lora"),
        (
            "finetune.lora",
            {"target_modules": ["q"]},
            "is 'q', but must be one of Wqkv",
        ),
        ("genome.name", "a/b", "genome.name is 'a/b', which does not have the form asked for"),
        ("genome", None, "key 'genome' is missing (`study` needs one)"),
        ("study", None, "there is neither `study` nor `mlm` nor `probe`; one of them must be"),
        ("genome.name", None, "key 'name' is missing in genome"),
        ("study.eval_bp", None, "key 'eval_bp' is missing in study"),
        ("tasks.sim_near", {}, "key 'source' is missing in tasks.sim_near"),
        ("tasks", {}, "study.tasks names 'sim_near', which `tasks` does not describe"),
        ("tasks.sim_near", [], "tasks.sim_near is [], but must be of type mapping"),
        ("models", {"a b": {}}, "'a b' in models is not a name that can be used (A name in"),
        ("models", {1: {}}, "1 in models is not a name that can be used"),
        ("genomes", {"../h": {}}, "'../h' in genomes is not a name that can be used (A name in"),
        (
            "genomes",
            {"h": {"fast": "h.fa"}},
            "unknown key 'fast' in genomes.h; did you mean 'fasta'",
        ),
        (
            "genomes",
            {"h": {"fasta": "h.fa", "truncated": 1}},
            "genomes.h.truncated is 1, but must be of type boolean (True for an assembly",
        ),
    ],
)
def test_a_mistake_is_one_sentence(path, value, sentence):
    assert sentence in complaint(changed(path, value))


def test_all_mistakes_are_told_at_once():
    config = changed("pretrain.steps", "many")
    config["score"] = {"thread": 2}
    told = complaint(config)
    assert told.count("; and ") == 1
    assert "pretrain.steps" in told
    assert "did you mean 'threads'?" in told


# --- mistakes that it cannot see --------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("study.tasks", ["sim_near", "sim_nera"], "names 'sim_nera', which `tasks` does not"),
        ("study.tasks", ["sim_nera"], "(it has: sim_near); did you mean 'sim_near'?"),
        (
            "study.protocol_attentions",
            {"released": ["dot"]},
            "study.protocol_attentions.released names 'released', which `study.protocols` does not",
        ),
        (
            "study.protocol_attentions",
            {"paired": ["cos16"]},
            "study.protocol_attentions.paired names 'cos16', which `study.attentions` does not",
        ),
        ("study.models", ["large"], "study.models names 'large', which `models` does not describe"),
        ("study.rules", ["infoscal"], "study.rules: rule: 'infoscal' is not a length rule; the"),
        ("study.attentions", ["cos016"], "study.attentions: attention: 'cos016' is not known"),
        ("tasks.sim_near.train_task", "far", "tasks.sim_near.train_task names 'far', which"),
        ("tasks.own", {"source": "file"}, "tasks.own.path is missing"),
        ("tasks.clinvar", {"source": "lrb"}, "tasks.clinvar has source lrb, but the benchmark"),
        (
            "tasks.variant_effect_pathogenic_clinva",
            {"source": "lrb"},
            "did you mean 'variant_effect_pathogenic_clinvar'?",
        ),
        ("genome.fasta", "g.fna.gz", "genome needs either `simulate`"),
        (
            "models.tiny.num_attention_heads",
            5,
            "models.tiny.num_attention_heads is 5, which does not divide models.tiny.hidden_size",
        ),
        ("genome", {"name": "g"}, "tasks.sim_near is simulated, but genome.simulate is not set"),
    ],
)
def test_names_that_do_not_exist_and_keys_that_do_not_go_together(path, value, sentence):
    assert sentence in complaint(changed(path, value))


def test_a_genome_needs_a_source_and_no_report():
    config = changed("tasks", {"sim_near": {"source": "file", "path": "v.csv"}})
    config["genome"] = {"name": "g"}
    assert "genome needs either" in complaint(config)
    config["genome"]["fasta"] = "g.fna.gz"
    check_config(config, SCHEMA, "own.yaml")
    config["genome"]["truncated"] = True
    assert "genome.truncated is true, but without genome.assembly_report" in complaint(config)
    config["genome"]["assembly_report"] = "report.txt"
    check_config(config, SCHEMA, "own.yaml")


def test_processes_are_spread_evenly_over_nodes():
    for processes, nodes in [(1, 2), (3, 2), (2, 4)]:
        config = changed("finetune", {"processes": processes, "nodes": nodes})
        sentence = f"finetune.nodes is {nodes}, over which finetune.processes ({processes}) cannot"
        assert sentence in complaint(config)
    check_config(changed("finetune", {"processes": 8, "nodes": 2}), SCHEMA, "own.yaml")


UCSC = {"fasta": "h.fa.gz", "md5checksums": "md5sum.txt"}
SIM = {"simulate": "resources/simulated_probe.yaml"}


@pytest.mark.parametrize(
    ("genomes", "sentence"),
    [
        ({"g": UCSC}, "genomes.g has the name of `genome`, but must have its own"),
        ({"h": {}}, "genomes.h needs either `simulate` (a recipe) or `fasta`, not both and not"),
        ({"h": UCSC | SIM}, "genomes.h needs either `simulate` (a recipe) or `fasta`, not both"),
        ({"h": UCSC | {"truncated": True}}, "genomes.h.truncated is true, but without genomes.h."),
        ({"h": SIM, "i": UCSC, "j": SIM}, "genomes.h and genomes.j are both simulated, but one"),
    ],
)
def test_a_mistake_in_further_genomes(genomes, sentence):
    assert sentence in complaint(SMALL | {"genomes": genomes})


def test_further_genomes_need_no_report_but_a_first_genome():
    report = UCSC | {"assembly_report": "report.txt", "truncated": True}
    filled = check_config(SMALL | {"genomes": {"h": UCSC, "i": report}}, SCHEMA, "own.yaml")
    assert filled["genomes"]["h"] == UCSC | {
        "assembly_report": None,
        "truncated": False,
        "genes": None,
        "simulate": None,
        "assembly": {},
    }
    without = {key: value for key, value in WHOLE.items() if key not in ("genome", "study")}
    assert "key 'genome' is missing (`genomes` are further ones)" in complaint(without)


def test_a_further_simulated_genome_has_a_recipe_of_probe_tasks(tmp_path):
    def config(path):
        return {"genome": None, "tasks": {}, "genomes": {"h": {"simulate": path}}, "probe": None}

    other = ROOT / "resources/simulated.yaml"
    with pytest.raises(LongscaleError, match=r"mine.yaml: genomes.h.simulate is .*no recipe of p"):
        check_recipe(config(str(other)), "mine.yaml")
    check_recipe(config(str(ROOT / SIM["simulate"])), "mine.yaml")


def test_the_benchmark_knows_whose_checkpoints_score_a_task():
    omim, clinvar = "variant_effect_pathogenic_omim", "variant_effect_pathogenic_clinvar"
    config = changed(f"tasks.{omim}", {"source": "lrb"})
    config["study"]["tasks"] = [omim]
    assert f"tasks.{omim}.train_task names '{clinvar}', which" in complaint(config)
    config["tasks"][clinvar] = {"source": "lrb"}
    filled = check_config(config, SCHEMA, "own.yaml")
    assert filled["tasks"][omim]["train_task"] == clinvar
    assert filled["tasks"][clinvar]["train_task"] is None


# --- files ------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """(working folder, repository), both with files of their own."""
    here, repository = tmp_path / "here", tmp_path / "repository"
    for folder, names in ((here, ("both", "own.csv")), (repository, ("both", "recipe.yaml"))):
        folder.mkdir()
        for name in names:
            (folder / name).write_text("")
    (repository / "tokenizer").mkdir()
    monkeypatch.chdir(here)
    return here, repository


def files_config(recipe, path, tokenizer, text=None, probe_recipe=None, features=None):
    return {
        "genome": {"simulate": recipe},
        "genomes": {"h": {"simulate": probe_recipe}},
        "tasks": {"own": {"path": path}},
        "corpora": {"mine": {"path": text}},
        "models": {"tiny": {"tokenizer": tokenizer}},
        "probe": {"features": {"other": {"eqtl": features}}},
    }


def test_files_are_looked_for_here_and_then_in_the_repository(folders):
    here, repository = folders
    config = files_config("recipe.yaml", "own.csv", "tokenizer")
    locate_files(config, "c", repository)
    assert config == files_config(f"{repository}/recipe.yaml", "own.csv", f"{repository}/tokenizer")
    config = files_config("both", str(here / "own.csv"), None, "*.csv")
    locate_files(config, "c", repository)
    assert config == files_config("both", str(here / "own.csv"), None, "*.csv")
    config = files_config(None, None, None, "recipe.*", "recipe.yaml")
    locate_files(config, "c", repository)
    assert config == files_config(
        None, None, None, f"{repository}/recipe.*", f"{repository}/recipe.yaml"
    )


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (files_config("none", None, None), "genome.simulate is none"),
        (files_config(None, "none", None), "tasks.own.path is none"),
        (files_config(None, None, "/none"), "models.tiny.tokenizer is /none"),
        (files_config(None, None, None, None, "none"), "genomes.h.simulate is none"),
        (files_config(None, None, None, "none/*.txt"), r"corpora.mine.path is none/\*.txt"),
        (
            files_config(None, None, None, None, None, "none.parquet"),
            "probe.features.other.eqtl is none.parquet",
        ),
    ],
)
def test_a_file_that_is_nowhere_is_one_sentence(folders, config, key):
    with pytest.raises(LongscaleError, match=rf"own.yaml: {key}, which does not exist"):
        locate_files(config, "own.yaml", folders[1])


def test_an_annotation_is_looked_for_unless_it_is_elsewhere(folders):
    config = files_config(None, None, None) | {"genome": {"genes": "none.gtf", "simulate": None}}
    with pytest.raises(LongscaleError, match=r"own\.yaml: genome\.genes is none\.gtf"):
        locate_files(config, "own.yaml", folders[1])
    config["genome"]["genes"] = "https://example.org/none.gtf"
    locate_files(config, "own.yaml", folders[1])


def test_a_simulated_task_must_be_in_the_recipe(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("tasks: {near: {}}\n")
    tasks = {"near": {"source": "simulated"}, "neer": {"source": "simulated"}}
    config = {"genome": {"simulate": str(recipe)}, "genomes": {}, "tasks": tasks, "probe": None}
    with pytest.raises(LongscaleError, match=r"mine.yaml: tasks.neer .*no such task .*: near"):
        check_recipe(config, "mine.yaml")
    del tasks["neer"]
    check_recipe(config, "mine.yaml")


# --- the masked-LM branch ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("mlm.corpora", ["doc"], "mlm.corpora names 'doc', which `corpora` does not describe (it"),
        ("mlm.corpora", ["doc"], "did you mean 'docs'?"),
        (
            "mlm.arms",
            [{"schemes": ["rope"], "rules": ["infoscale-released-d"]}],
            "does not have; infoscale is the rule itself",
        ),
        ("mlm.models", ["tiny"], "mlm.models names 'tiny', whose architecture is dnabert2, but"),
        ("study.models", ["gau"], "study.models names 'gau', whose architecture is gau-alpha, but"),
        ("mlm.lengths", [32, 64], "mlm.lengths has 32, which is below mlm.train_length (64)"),
        ("mlm.trainings", [{"attentions": ["cosine"]}], "mlm.trainings.0.attentions: attention:"),
        (
            "mlm.trainings",
            [{"attentions": ["dot"], "schemes": ["yarn"]}],
            "mlm.trainings.0.schemes has 'yarn', which needs no training: put it into mlm.arms",
        ),
        ("mlm.arms", [{"schemes": ["rop"]}], "mlm.arms.0.schemes: scheme: 'rop' is not a position"),
        ("mlm.arms", [{"schemes": ["rop"]}], "did you mean 'rope'?"),
        ("mlm.arms", [{"schemes": ["rope"], "rules": ["lnn"]}], "mlm.arms.0.rules: rule: 'lnn' is"),
        ("mlm.arms", [{"schemes": ["rope"], "lengths": [96]}], "lengths has 96, which mlm.lengths"),
        (
            "mlm.arms",
            [{"schemes": ["rope"], "attentions": ["cos8"]}],
            "mlm.arms.0.attentions has 'cos8', which mlm.trainings does not train (it has: dot)",
        ),
        (
            "mlm.arms",
            [{"schemes": ["rope", "alibi"]}],
            "mlm.arms.0.schemes has 'alibi', which needs checkpoints trained with alibi; add alibi",
        ),
        (
            "mlm.arms",
            [{"schemess": ["rope"]}],
            "unknown key 'schemess' in mlm.arms.0; did you mean",
        ),
        ("mlm.train", {"steps": 0}, "mlm.train.steps is 0, but models.gau has no checkpoint to"),
        ("corpora.docs.source", "cpython", "corpora.docs.source is 'cpython'; did you mean 'cpyth"),
        ("corpora.docs.source", "file", "corpora.docs.path is missing (source: file needs the tex"),
        ("corpora.docs.source", "genome", "corpora.docs.document_bp is missing (source: genome"),
        ("corpora.docs.tokens", "bpe", "corpora.docs.tokens is bpe, which is the genome's: use"),
    ],
)
def test_a_mistake_in_the_masked_lm_branch(path, value, sentence):
    config = copy.deepcopy(WHOLE)
    *parents, last = path.split(".")
    place = config
    for key in parents:
        place = place[key]
    place[last] = value
    assert sentence in complaint(config)


# --- the probe stage ---------------------------------------------------------------------------

NT = {"architecture": "nucleotide-transformer", "checkpoint": "lab/nt"}
DNA = {"source": "genome", "document_bp": 9, "test_contigs": ["chr1"], "dev_contigs": ["chr2"]}


def probed(path, value):
    """WHOLE with a model that is rotary and one that needs a checkpoint, changed at a path."""
    config = copy.deepcopy(WHOLE)
    config["models"] |= {"nt": NT, "bare": {"architecture": "hyenadna"}}
    config["probe"]["models"] = ["tiny", "nt"]
    *parents, last = path.split(".")
    place = config
    for key in parents:
        place = place.setdefault(key, {})
    place[last] = value
    return config


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("genomes", {}, "probe.tasks names 'sim_eqtl', which the benchmark does not have"),
        ("probe.tasks", ["bulk_rna_expression"], "bulk_rna_expression has places on hg19, for whi"),
        ("probe.models", ["none"], "probe.models names 'none', which `models` does not describe"),
        ("probe.models", ["bare"], "models.bare is hyenadna, which needs a checkpoint"),
        ("probe.models", ["gau"], "models.gau has no checkpoint: it is trained on a corpus"),
        ("study", None, "models.tiny has no checkpoint, and without `study` none is pretrained"),
        ("probe.arms", [{"rules": ["infoscal"]}], "probe.arms.0.rules: rule: 'infoscal' is not"),
        ("probe.arms", [{"rules": ["entropy-matched"]}], "which the probe stage does not run"),
        ("probe.arms", [{"rules": ["infoscale-released"]}], "which the probe stage does not run"),
        ("probe.arms", [{"context_bp": [512]}], "probe.arms.0.context_bp has 512, which probe.con"),
        ("probe.arms", [{"models": ["gau"]}], "probe.arms.0.models names 'gau', which `probe.mod"),
        ("probe.arms", [{"tasks": ["x"]}], "probe.arms.0.tasks names 'x', which `probe.tasks` doe"),
        ("probe.arms", [{"extensions": ["ntk"]}], "which tiny (dnabert2) cannot be run with; name"),
        ("probe.zero_shot.tasks", ["x"], "probe.zero_shot.tasks names 'x', which `probe.tasks`"),
        ("probe.features", {"f": {"x": "f.parquet"}}, "probe.features.f names 'x', which `probe."),
        ("probe.features", {"nt": {"sim_eqtl": "f"}}, "probe.features.nt has the name of a model"),
        (
            "probe.further_trained",
            {"nt": {"model": "gau", "context_bp": 512}},
            "probe.further_trained.nt names 'gau', which `probe.models` does not",
        ),
        (
            "probe.further_trained",
            {"nt": {"model": "nt", "context_bp": 512}},
            "probe.further_trained.nt.model is nt, which is a further training itself",
        ),
        ("probe.train", {"fold": 3}, "unknown key 'fold' in probe.train; did you mean 'folds'?"),
    ],
)
def test_a_mistake_in_the_probe_stage(path, value, sentence):
    assert sentence in complaint(probed(path, value))


def test_two_further_trainings_have_two_places_in_the_table():
    trained = {name: {"model": "tiny", "context_bp": 512} for name in ("nt", "also")}
    config = probed("probe.further_trained", trained)
    config["models"]["also"] = NT
    config["probe"]["models"].append("also")
    assert "also has the model and context_bp of probe.further_trained.nt;" in complaint(config)
    trained["also"]["context_bp"] = 1024
    check_config(config, SCHEMA, "own.yaml")


def test_features_are_for_tasks_that_are_trained():
    config = probed("probe.tasks", ["variant_effect_pathogenic_omim"])
    config["probe"]["features"] = {"f": {"variant_effect_pathogenic_omim": "f.parquet"}}
    assert "pathogenic_omim', which has no training rows" in complaint(config)


def test_a_task_of_the_benchmark_needs_its_genome():
    config = probed("probe.tasks", ["variant_effect_causal_eqtl"])
    check_config(config, SCHEMA, "own.yaml")
    config["probe"]["genomes"] = {"hg38": "q"}
    assert "probe.genomes names 'q', which `genomes` does not describe" in complaint(config)


def test_models_of_the_probe_stage_may_come_from_the_other_branches():
    config = probed("probe.corpus", "dna")
    config["corpora"]["dna"] = DNA
    config["probe"]["models"] = ["tiny", "gau", "nt"]
    config["probe"]["arms"] = [{"models": ["gau", "nt"], "extensions": ["ntk"]}]
    check_config(config, SCHEMA, "own.yaml")
    config["probe"]["corpus"] = "docs"
    assert "probe.corpus is 'docs', which is no genome" in complaint(config)


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("probe.tasks", ["sim_eqlt"], r"probe.tasks names 'sim_eqlt', .*did you mean 'sim_eqtl'"),
        ("probe.zero_shot.tasks", ["sim_rna"], "zero_shot.tasks names 'sim_rna', which is no task"),
        ("probe.features", {"f": {"sim_rna": "f"}}, "features.f names 'sim_rna', which is no task"),
    ],
)
def test_simulated_tasks_are_held_against_their_recipe(path, value, sentence):
    config = probed(path, value)
    if path != "probe.tasks":
        config["probe"]["tasks"].append("sim_rna")
    for genome in (config["genome"], config["genomes"]["h"]):
        genome["simulate"] = str(ROOT / genome["simulate"])
    filled = check_config(config, SCHEMA, "own.yaml")
    with pytest.raises(LongscaleError, match=sentence):
        check_recipe(filled, "own.yaml")


def test_each_branch_runs_without_the_other():
    config = {key: WHOLE[key] for key in ("models", "corpora", "mlm")}
    filled = check_config(config, SCHEMA, "own.yaml")
    assert filled["study"] is None
    assert filled["genome"] is None
    assert check_config(SMALL, SCHEMA, "own.yaml")["mlm"] is None
