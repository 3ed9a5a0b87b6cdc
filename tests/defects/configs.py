"""Configurations: what stands in a file, or one key of a good configuration replaced."""

import copy
from pathlib import Path
from typing import Any

import yaml

from defects.harness import Defect, Told
from longscale.errors import LongscaleError
from plan import read_config

ROOT = Path(__file__).resolve().parents[2]
GOOD = yaml.safe_load((ROOT / "config" / "test.yaml").read_text())


def put(key: str, value: Any) -> dict:
    """The good configuration with one key (a.b.c) set."""
    config = copy.deepcopy(GOOD)
    *parents, last = key.split(".")
    section = config
    for name in parents:
        section = section[int(name)] if isinstance(section, list) else section.setdefault(name, {})
    section[last] = value
    return config


def replaced(old: str, new: str) -> str:
    """The good configuration's text with something replaced."""
    text = (ROOT / "config" / "test.yaml").read_text()
    assert old in text
    return text.replace(old, new, 1)


def use(folder: Path, defect: Defect, capture) -> Told:
    """What `make plan` and the start of every run do with a configuration."""
    path = folder / "mine.yaml"
    content = defect.content
    if isinstance(content, dict):
        content = yaml.safe_dump(content, allow_unicode=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    try:
        read_config(path)
    except LongscaleError as error:
        return Told(1, str(error))
    return Told(0)


HUGE = 10**30
SEED = "4294967295"

DEFECTS = [
    Defect("nothing", "", ("mine.yaml", "not a configuration", "mapping")),
    Defect("a list", "- study\n- mlm\n", ("mine.yaml", "not a configuration", "mapping")),
    Defect("a scalar", "study", ("mine.yaml", "not a configuration", "mapping")),
    Defect(
        "an open bracket", replaced("[256, 512]", "[256, 512"), ("mine.yaml", "not YAML", "line")
    ),
    Defect("a tab", replaced("  name:", "\tname:"), ("mine.yaml", "not YAML", "line 5|line 4")),
    Defect("two documents", replaced("study:", "---\nstudy:"), ("mine.yaml", "not YAML", "single")),
    Defect("UTF-16", replaced("", "").encode("utf-16"), ("mine.yaml", "not YAML|not a conf", "")),
    Defect(
        "Latin-1", replaced("simtest", "Gen\xf6m").encode("latin-1"), ("mine.yaml", "not YAML", "")
    ),
    Defect("binary", bytes(range(256)), ("mine.yaml", "not YAML", "")),
    Defect(
        "Python in YAML",
        "study: !!python/object/apply:os.system ['touch ran']\n",
        ("mine.yaml", "not YAML", "could not determine a constructor"),
    ),
    Defect(
        "an alias of itself",
        "models: &m {tiny: *m}\n",
        ("mine.yaml", "alias", "must end"),
    ),
    Defect(
        "no models",
        replaced("models:\n  dnabert2", "modells:\n  dnabert2"),
        ("mine.yaml", "modells", "did you mean 'models'"),
    ),
    Defect(
        "models empty",
        put("models", {}),
        ("mine.yaml: models", "non-empty|enough", "Models by name"),
    ),
    Defect(
        "study as a text", put("study", "all"), ("mine.yaml: study", "'all'", "mapping or null")
    ),
    Defect(
        "a name with a line end", put("genome.name", "sim\n"), ("genome.name", r"sim\\n", "letters")
    ),
    Defect(
        "a name that leaves the folder",
        put("genome.name", "../sim"),
        ("genome.name", r"\.\./sim", "letters"),
    ),
    Defect(
        "a task that leaves the folder",
        put("tasks", {"../../x": {"source": "simulated"}}),
        ("tasks", r"\.\./\.\./x", "letters"),
    ),
    Defect(
        "a task with a space",
        put("tasks", {"a b": {"source": "simulated"}}),
        ("tasks", "a b", "letters"),
    ),
    Defect(
        "a wildcard as folder",
        put("results", "results/{task}"),
        ("results", "{task}", "no {, }, <, >"),
    ),
    Defect(
        "a folder with a line end", put("results", "a\nb"), ("results", r"a\\nb", "no line ends")
    ),
    Defect(
        "a pathvar as folder", put("results", "out <x>"), ("results", "out <x>", "no {, }, <, >")
    ),
    Defect("an empty folder", put("results", ""), ("results", "''", "Folder")),
    Defect(
        "a date as folder", replaced("results/test", "2024-01-01"), ("results", "2024", "quotes")
    ),
    Defect("yes as folder", replaced("results/test", "yes"), ("results", "True", "quotes")),
    Defect(
        "a learning rate of .nan",
        put("pretrain.learning_rate", float("nan")),
        ("pretrain.learning_rate", "nan", "finite"),
    ),
    Defect(
        "epochs of .inf", put("finetune.epochs", float("inf")), ("finetune.epochs", "inf", "finite")
    ),
    Defect(
        "a learning rate below zero",
        put("finetune.learning_rate", -0.1),
        ("finetune.learning_rate", "-0.1", "Peak"),
    ),
    Defect(
        "a share of one",
        put("mlm.train.mask_fraction", 1),
        ("mlm.train.mask_fraction", "1", "Share"),
    ),
    Defect(
        "a window beyond any genome",
        put("study.eval_bp", [HUGE]),
        ("study.eval_bp.0", str(HUGE), "at most 9007199254740991"),
    ),
    Defect("a window below zero", put("study.eval_bp", [-512]), ("study.eval_bp.0", "-512", "64")),
    Defect(
        "a window as text",
        put("study.train_bp", ["256"]),
        ("study.train_bp.0", "'256'", "write 256.0|integer"),
    ),
    Defect(
        "a window of half a base",
        put("study.eval_bp", [512.5]),
        ("study.eval_bp.0", "512.5", "integer"),
    ),
    Defect(
        "a seed beyond the generators'",
        put("study.seeds", [2**32]),
        ("study.seeds.0", "4294967296", SEED),
    ),
    Defect("a seed below zero", put("evaluation.seed", -1), ("evaluation.seed", "-1", "0")),
    Defect("seeds as a number", put("study.seeds", 1), ("study.seeds", "1", "list")),
    Defect(
        "a null where a number belongs",
        put("pretrain.steps", None),
        ("pretrain.steps", "None", "integer"),
    ),
    Defect("too few draws", put("evaluation.resamples", 10), ("evaluation.resamples", "10", "100")),
    Defect(
        "a rule that is none",
        put("study.rules", ["none", "infoscale2"]),
        ("study.rules", "infoscale2", "infoscale"),
    ),
    Defect(
        "an alpha of zero",
        put("study.attentions", ["cos0"]),
        ("study.attentions", "cos0", "dot|cos"),
    ),
    Defect(
        "a scheme that is none",
        put("mlm.arms.0.schemes", ["rop"]),
        (r"mlm.arms.0.schemes", "rop", "rope"),
    ),
    Defect(
        "a length below the training's",
        put("mlm.lengths", [16, 64]),
        ("mlm.lengths", "16", "leave 16 out"),
    ),
    Defect(
        "an unknown column",
        put("tasks.sim_near.columns", {"chrom": "CHROM"}),
        ("tasks.sim_near.columns", "chrom", "contig"),
    ),
    Defect("a limit of zero", put("tasks.sim_near.limit", 0), ("tasks.sim_near.limit", "0", "1")),
    Defect(
        "its own train_task",
        put("tasks.sim_near.train_task", "sim_near"),
        ("tasks.sim_near.train_task", "no training rows", ""),
    ),
    Defect(
        "a file that is not there",
        put("tasks.mine", {"source": "file", "path": "nope.csv"}),
        ("tasks.mine.path", "nope.csv", "does not exist"),
    ),
    Defect(
        "a file with too long a name",
        put("tasks.mine", {"source": "file", "path": "x" * 5000}),
        ("tasks.mine.path", "xxx", "does not exist"),
    ),
    Defect(
        "a file with a NUL",
        put("tasks.mine", {"source": "file", "path": "a\0b"}),
        ("tasks.mine.path", "a", "does not exist"),
    ),
    Defect(
        "a file whose path has a wildcard",
        put("tasks.mine", {"source": "file", "path": "a{b}.csv"}),
        ("tasks.mine.path", "a{b}.csv", "without them"),
    ),
    Defect(
        "a recipe whose path has a pathvar",
        put("genome.simulate", "a<b>.yaml"),
        ("genome.simulate", "a<b>.yaml", "without them"),
    ),
    Defect(
        "a recipe that is not YAML",
        put("genome.simulate", "Makefile"),
        ("genome.simulate", "Makefile", "recipe"),
    ),
    Defect(
        "a recipe that is a folder",
        put("genome.simulate", "resources"),
        ("genome.simulate", "resources", "recipe"),
    ),
    Defect(
        "a recipe without tasks",
        put("genome.simulate", "requirements-dev.txt"),
        ("genome.simulate", "requirements-dev.txt", "`tasks`"),
    ),
    Defect(
        "a task that is not in the recipe",
        put("tasks.sim_mid", {"source": "simulated"}),
        ("tasks.sim_mid", "no such task", "sim_near"),
    ),
    Defect("both genomes", put("genome.fasta", "x.fna.gz"), ("genome", "not both", "simulate")),
    Defect(
        "an architecture that is none",
        put("models.dnabert2-tiny.architecture", "bert"),
        ("models.dnabert2-tiny.architecture", "bert", "dnabert2"),
    ),
    Defect(
        "heads that do not divide",
        put("models.dnabert2-tiny.num_attention_heads", 3),
        ("num_attention_heads", "3", "divide"),
    ),
    Defect(
        "an odd key size",
        put("models.gau-alpha-tiny.attention_key_size", 7),
        ("attention_key_size", "7", "multiple of 2|width"),
    ),
    Defect(
        "a corpus that is none",
        put("corpora.cpython-docs.source", "wikipedia"),
        ("corpora.cpython-docs.source", "wikipedia", "cpython-docs"),
    ),
    Defect(
        "a dictionary as list item",
        put("study.tasks", [{"sim_near": 1}]),
        ("study.tasks.0", "sim_near", "string"),
    ),
]
