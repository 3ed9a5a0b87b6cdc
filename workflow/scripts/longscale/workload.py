"""How much work a job is, how much it downloads and stores: from the configuration, by hand.

Work is counted in floating-point operations of the model (a multiplication and an addition are
two), those of its matrices and those of attention apart, because devices do them at different
speeds. A training step costs three times its forward pass. What depends on data that are not there
yet (rows of a task, tokens of a window) is estimated, and says so in `Study.guesses`.
"""

import gzip
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import yaml

from longscale.arms import asked_arms, mlm_arms
from longscale.attention.rules import LENGTH_RULES
from longscale.files import not_as_written, read_json
from longscale.probe_cells import simulated_genome
from longscale.tasks.lrb import LRB_TASKS
from longscale.tasks.probe_tasks import PROBE_TASKS

BACKWARD = 3  # forward and backward pass, in forward passes
TOKENS_OF_CHARACTERS = 100  # vocabulary of a text of characters, about
ENTROPY_PASSES = 4  # forward passes that finding the multipliers of a window costs, about
MOST_WINDOWS = 64  # on which a DNABERT-2's multipliers are measured (evaluation.variant_entropy)
LEAST_TOKENS = 1024  # of a document on which a GAU-alpha's are measured (evaluation.mlm_attention)
MOST_TARGETS = 9  # masked in one forward pass (evaluation.mlm)
SIMULATED_BIN_BP = 128  # tasks.simulated_probe
KMER_BP, ENFORMER_TOKENS = 6, 1536


class Work(NamedTuple):
    """Floating-point operations in matrices and in attention."""

    linear: float
    attention: float

    def __mul__(self, times: float) -> "Work":  # type: ignore[override]
        return Work(self.linear * times, self.attention * times)

    def __add__(self, other: "Work") -> "Work":  # type: ignore[override]
        return Work(self.linear + other.linear, self.attention + other.attention)


NO_WORK = Work(0.0, 0.0)


def dnabert2_forward(model: Mapping, tokens: float) -> Work:
    """Forward pass of one sequence of `tokens` tokens, the head left out."""
    d, i, layers = (model[k] for k in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    return Work(tokens * layers * (8 * d * d + 6 * d * i), 4.0 * tokens * tokens * layers * d)


def gau_forward(model: Mapping, tokens: float, *, few_rows: bool = False) -> Work:
    """Forward pass of one sequence of `tokens` tokens, the decoder left out.

    `few_rows`: the logits of a few tokens alone are wanted, so the last layer attends for those.
    """
    d, e, k, layers = (
        model[name]
        for name in ("hidden_size", "intermediate_size", "attention_key_size", "num_hidden_layers")
    )
    whole = layers - few_rows
    expand, project = 2 * d * (2 * e + k), 2 * e * d
    return Work(
        tokens * (layers * expand + whole * project), 2.0 * tokens * tokens * whole * (k + e)
    )


def parameters(model: Mapping) -> int:
    """Number of parameters of a model, heads and norms left out."""
    d, i, layers = (model[k] for k in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    if model["architecture"] == "gau-alpha":
        vocabulary = TOKENS_OF_CHARACTERS
        layer = d * (2 * i + model["attention_key_size"]) + i * d
    else:
        vocabulary = model["vocab_size"]
        layer = 4 * d * d + 3 * d * i
    return vocabulary * d + layers * layer


def encoder_forward(model: Mapping, tokens: float) -> Work:
    """Forward pass of one sequence through a frozen encoder of any architecture, about."""
    if model["architecture"] == "gau-alpha":
        return gau_forward(model, tokens)
    work = dnabert2_forward(model, tokens)
    return Work(work.linear, 0.0) if model["architecture"] == "hyenadna" else work


class ProbeSize(NamedTuple):
    """A probe task in numbers: its rows and those of them to test on; alleles of a row; bins of a
    profile (else 1) and their bp; outputs; hidden layers of its probe.
    """

    rows: float
    test: float
    alleles: int
    bins: int
    bin_bp: int
    outputs: int
    hidden_layers: int

    def pieces(self, context_bp: int) -> int:
        """Vectors of a row: of a profile, the bins that lie in the context."""
        covered = min(self.bins, context_bp // self.bin_bp) if self.bin_bp else 1
        return self.alleles * max(1, covered)


class Rows(NamedTuple):
    """Rows of a task: to train on, to stop the training by, to score."""

    train: float
    dev: float
    test: float


HYENA_WORDS = {
    "d_model": "hidden_size",
    "n_layer": "num_hidden_layers",
    "d_inner": "intermediate_size",
}
"""Keys of HyenaDNA's config.json -> ours."""


@dataclass
class Study:
    """A checked configuration (`config`) and what its results (a folder) already tell.

    `guesses`: sentences on what had to be assumed, in the order met.
    """

    config: Mapping
    results: Path
    guesses: dict[str, None] = field(default_factory=dict)
    read: dict[Path, Mapping] = field(default_factory=dict)

    def stored(self, path: Path) -> Mapping | None:
        """A JSON file of the results, read once; None while it is not there.

        Raises LongscaleError where it is damaged.
        """
        if path not in self.read and path.is_file():
            self.read[path] = read_json(path)
        return self.read.get(path)

    def _accepted(self, path: Path) -> float | None:
        """Rows of a probe task that has been prepared."""
        facts = self.stored(path)
        try:
            return facts["accepted"] + 0.0 if facts else None
        except (KeyError, TypeError) as error:
            raise not_as_written(path, "`accepted` is no number") from error

    def _counted(self, path: Path) -> Rows | None:
        """Rows of a task that has been split."""
        split = self.stored(path)
        try:
            counts = split["counts"] if split else None
            return counts and Rows(*(sum(counts.get(s, {}).values()) for s in Rows._fields))
        except (KeyError, AttributeError, TypeError) as error:
            raise not_as_written(path, "its counts of rows are no numbers") from error

    def check_stored(self) -> None:
        """Read all that is counted here already; raises LongscaleError where it is damaged."""
        read = {
            "splits/*/*.json": self._counted,
            "probe/rows/*.labels.json": self._accepted,
            "checkpoints/*/config.json": self.stored,
            "encoders/*/config.json": self.stored,
        }
        for pattern, reader in read.items():
            for path in sorted(self.results.glob(pattern)):
                reader(path)

    def guess(self, sentence: str) -> None:
        """Remember an assumption."""
        self.guesses[sentence] = None

    def model(self, name: str) -> Mapping:
        """Shape of a model; of a published one, from its config.json as soon as that is there."""
        model = dict(self.config["models"][name])
        for folder in ("checkpoints", "encoders"):
            stored = self.stored(self.results / folder / name / "config.json")
            if stored:
                words = {ours: stored[key] for key, ours in HYENA_WORDS.items() if key in stored}
                stored = {**stored, **words}
                return model | {key: stored[key] for key in model.keys() & stored.keys()}
        if model["checkpoint"]:
            self.guess(
                f"{name} is taken to be of the size that `models` says (hidden_size"
                f" {model['hidden_size']}, {model['num_hidden_layers']} layers)"
            )
        return model

    def tokens(self, model: str, window_bp: int) -> float:
        """Tokens of a window, special ones included.

        A byte-pair encoding of V entries holds about .85 log4(V) bases in a token: 5.1 for the 4096
        of DNABERT-2, as measured on GRCh38.
        """
        bases = 0.85 * math.log(self.model(model)["vocab_size"], 4)
        return window_bp / bases + 2

    def encoder_tokens(self, model: str, context_bp: int) -> float:
        """Tokens of a context of the probe stage."""
        match self.model(model)["architecture"]:
            case "nucleotide-transformer":
                return context_bp / KMER_BP + 1
            case "hyenadna":
                return context_bp + 1
            case "enformer":
                return ENFORMER_TOKENS
            case "gau-alpha" if self.config["models"][model]["checkpoint"] is None:
                corpus = self.config["corpora"][self.config["probe"]["corpus"]]
                return self.tokens(model, context_bp) if corpus["tokens"] == "bpe" else context_bp
        return self.tokens(model, context_bp)

    def probe_task(self, task: str) -> ProbeSize:
        """A task of the probe stage; its rows are counted if they are there, else estimated."""
        if task in PROBE_TASKS:
            row = PROBE_TASKS[task]
            alleles = 2 if row.kind == "variant" else 1
            shape = (alleles, row.bins, row.bin_bp or 0, row.outputs, row.hidden_layers)
            size = ProbeSize(float(sum(row.rows)), float(row.rows[1]), *shape)
        else:
            size = self._simulated_probe_task(task)
        rows = self._accepted(self.results / "probe" / "rows" / f"{task}.labels.json")
        if rows is not None:
            return size._replace(rows=rows, test=size.test * rows / size.rows)
        self.guess(f"{task} is taken to have {size.rows:,.0f} rows")
        return size

    def _simulated_probe_task(self, task: str) -> ProbeSize:
        name = simulated_genome(self.config)
        row = yaml.safe_load(Path(self.genomes[name]["simulate"]).read_text())["tasks"][task]
        assembly = self.recipe(name)
        loci = assembly["loci_per_chromosome"] / assembly["tasks"]
        tissues = len(row.get("outputs", ()))
        is_variant, is_profile = (row["kind"] == kind for kind in ("variant", "profile"))
        per_locus = tissues if is_variant else 1
        bin_bp = SIMULATED_BIN_BP if is_profile else 0
        bins = (row["slots_bp"][1] - row["slots_bp"][0]) // bin_bp if is_profile else 1
        return ProbeSize(
            loci * assembly["chromosomes"] * per_locus,
            loci * assembly["test_chromosomes"] * per_locus,
            1 + is_variant,
            bins,
            bin_bp,
            1 if is_variant else row.get("tissues", tissues),
            1 if row["kind"] == "expression" else 2,
        )

    def rows(self, task: str, protocol: str) -> Rows:
        """Rows of a task by split: counted if they are there, else estimated."""
        counted = self._counted(self.results / "splits" / task / f"{protocol}.json")
        if counted:
            return counted
        entry = self.config["tasks"][task]
        total = ROWS[entry["source"]](self, task)
        if entry["train_task"]:
            return Rows(0.0, 0.0, sum(total))
        dev = total[0] * self.config["splits"]["dev_fraction"]
        return limited(Rows(total[0] - dev, dev, total[1]), entry["limit"])

    @cached_property
    def genomes(self) -> Mapping[str, Mapping]:
        """The sections of all genomes of the run by name."""
        genome = self.config["genome"]
        return {genome["name"]: genome, **self.config["genomes"]} if genome else {}

    def genome_of(self, path: str) -> str:
        """Name of the genome that a file in downloads/, genome/ or simulated/ belongs to."""
        below = path.split("/")[1]
        return max((name for name in self.genomes if f"{below}.".startswith(f"{name}.")), key=len)

    def recipe(self, name: str) -> Mapping:
        """`assembly` of the recipe of a simulated genome, with `tasks`, how many it carries.

        `loci_per_chromosome` is that of all tasks together.
        """
        genome = self.genomes[name]
        recipe = yaml.safe_load(Path(genome["simulate"]).read_text())
        assembly = recipe["assembly"] | genome["assembly"] | {"tasks": len(recipe["tasks"])}
        if name in self.config["genomes"]:  # the probe tasks' recipe counts the loci of each
            assembly["loci_per_chromosome"] *= assembly["tasks"]
        return assembly


def limited(rows: Rows, limit: int | None) -> Rows:
    """Rows of a task with at most `limit` of each class in a split."""
    return rows if limit is None else Rows(*(min(count, 2 * limit) for count in rows))


def _simulated_rows(study: Study, task: str) -> tuple[float, float]:  # noqa: ARG001
    recipe = study.recipe(study.config["genome"]["name"])
    each = recipe["loci_per_chromosome"] / recipe["tasks"]
    train = recipe["chromosomes"] - recipe["test_chromosomes"]
    return each * train, each * recipe["test_chromosomes"]


def _lrb_rows(study: Study, task: str) -> tuple[float, float]:
    rows = LRB_TASKS[task].rows
    study.guess(f"{task} is taken to have {sum(rows):,} rows")
    return rows


def _file_rows(study: Study, task: str) -> tuple[float, float]:
    path = Path(study.config["tasks"][task]["path"])
    rows = count_lines(path)
    study.guess(f"{task} is taken to have a row for each of the {rows:,} lines of {path.name}")
    test = study.config["splits"]["test_fraction"]
    return rows * (1 - test), rows * test


def count_lines(path: Path) -> int:
    """Lines of a text that are no comment, gzipped or not; of a binary file, its size / 50."""
    if path.suffix in (".parquet", ".bcf"):
        return path.stat().st_size // 50
    opened = gzip.open if path.suffix in (".gz", ".bgz") else open
    with opened(path, "rb") as handle:
        return sum(not line.startswith(b"#") for line in handle)


ROWS: Mapping[str, Callable[[Study, str], tuple[float, float]]] = {
    "simulated": _simulated_rows,
    "lrb": _lrb_rows,
    "file": _file_rows,
}


# ---------------------------------------------------------------------------------- work of a job

At = Mapping[str, str]  # the parts of a result's path

RUN = (
    r"(?P<task>[^/]+)/(?P<protocol>[^/]+)/(?P<model>[^/]+)/(?P<train_bp>\d+)/(?P<attention>[^/]+)"
    r"/seed(?P<seed>\d+)/"
)
MLM = (
    r"(?P<corpus>[^/]+)/(?P<model>[^/]+)/(?P<train_length>\d+)/(?P<attention>[^/]+)"
    r"/(?P<scheme>[^/]+)/seed(?P<seed>\d+)/"
)
PLACE = (
    r"(?P<task>[^/]+)/(?P<model>[^/]+)/(?P<context_bp>\d+)/(?P<rule>[^/]+)/(?P<extension>[^/]+)/"
)


def alleles(protocol: str) -> int:
    """Windows of a row."""
    return 2 if protocol == "paired" else 1


def window_work(study: Study, model: str, window_bp: int) -> Work:
    """One window through DNABERT-2."""
    return dnabert2_forward(study.model(model), study.tokens(model, window_bp))


def pretrain_work(study: Study, at: At) -> Work:
    """`pretrain.steps` steps."""
    options = study.config["pretrain"]
    windows = options["steps"] * options["batch_size"]
    return window_work(study, at["model"], options["window_bp"]) * (BACKWARD * windows)


def finetune_step(forward: Work, options: Mapping) -> Work:
    """Forward and backward pass of what costs `forward` forwards, under the options of `finetune`.

    Activations that are computed again cost a forward pass more; frozen matrices, which get no
    gradient, one less (the adapters beside them are small).
    """
    passes = BACKWARD + options["gradient_checkpointing"]
    return Work(forward.linear * (passes - bool(options["lora"])), forward.attention * passes)


def finetune_work(study: Study, at: At) -> Work:
    """All epochs with their evaluations: the most there can be, for early stopping cuts it."""
    options, rows = study.config["finetune"], study.rows(at["task"], at["protocol"])
    forward = window_work(study, at["model"], int(at["train_bp"]))
    epoch = finetune_step(forward, options) * rows.train
    epoch += forward * (options["evaluations_per_epoch"] * rows.dev)
    return epoch * (alleles(at["protocol"]) * options["epochs"])


def score_work(study: Study, at: At) -> Work:
    """Every test row under every rule."""
    passes = study.rows(at["task"], at["protocol"]).test * len(study.config["study"]["rules"])
    windows = alleles(at["protocol"]) * passes
    return window_work(study, at["model"], int(at["eval_bp"])) * windows


def entropy_work(study: Study, at: At) -> Work:
    """The windows at every length, or at the one that is asked for."""
    lengths = [at["eval_bp"]] if "eval_bp" in at else study.config["study"]["eval_bp"]
    windows = [window_work(study, at["model"], int(length)) for length in lengths]
    return sum(windows, NO_WORK) * (ENTROPY_PASSES * MOST_WINDOWS)


def train_mlm_work(study: Study, at: At) -> Work:
    """`mlm.train.steps` steps."""
    options = study.config["mlm"]["train"]
    sequence = gau_forward(study.model(at["model"]), int(at["train_length"]))
    return sequence * (BACKWARD * options["steps"] * options["batch_size"])


def score_mlm_work(study: Study, at: At) -> Work:
    """Every document with every set of targets under every arm."""
    mlm, corpus = study.config["mlm"], study.config["corpora"][at["corpus"]]
    protocol, length = at["protocol"], int(at["length"])
    arms = mlm_arms(mlm, at["attention"], at["scheme"], int(at["seed"]), protocol, length)
    options = mlm["evaluation"]
    sets = options["groups"] * math.ceil(MOST_TARGETS / options["targets_per_pass"])
    passes = length if protocol == "released" else sets
    documents = corpus["dev_documents" if protocol == "selection" else "test_documents"]
    sequence = gau_forward(study.model(at["model"]), length, few_rows=True)
    return sequence * (passes * documents * len(arms))


def matched_schemes(mlm: dict, attention: str, trained_scheme: str) -> set[str]:
    """Schemes whose entropies are measured on a checkpoint: its own, and those to be matched."""
    arms = asked_arms(mlm, attention, trained_scheme)
    return {trained_scheme, *(scheme for scheme, rule in arms if LENGTH_RULES[rule].measured)}


def attention_work(study: Study, at: At) -> Work:
    """Windows of the development documents at every length (or at one), for each scheme."""
    mlm, shape = study.config["mlm"], study.model(at["model"])
    lengths = [int(at["length"])] if "length" in at else mlm["lengths"]
    windows = [gau_forward(shape, n) * max(1, LEAST_TOKENS // n) for n in lengths]
    documents = study.config["corpora"][at["corpus"]]["dev_documents"]
    schemes = matched_schemes(mlm, at["attention"], at["scheme"])
    return sum(windows, NO_WORK) * (ENTROPY_PASSES * documents * len(schemes))


def embed_work(study: Study, at: At) -> Work:
    """Every context of every row and allele."""
    size, context_bp = study.probe_task(at["task"]), int(at["context_bp"])
    forward = encoder_forward(
        study.model(at["model"]), study.encoder_tokens(at["model"], context_bp)
    )
    return forward * (size.rows * size.alleles)


def zero_shot_work(study: Study, at: At) -> Work:
    """Both alleles of every test row, with the variant's tokens hidden, on one strand or both."""
    options, size = study.config["probe"]["zero_shot"], study.probe_task(at["task"])
    tokens = study.encoder_tokens(at["model"], int(at["context_bp"]))
    strands = (1 + options["both_strands"]) * options["log_likelihood"]
    return encoder_forward(study.model(at["model"]), tokens) * (2 * strands * size.test)


def probe_work(study: Study, at: At) -> Work:
    """All epochs of all folds on the training rows, and one pass over the test rows."""
    options, size = study.config["probe"]["train"], study.probe_task(at["task"])
    pieces = size.pieces(int(at["context_bp"]))
    positions = pieces if size.bin_bp else 1
    hidden = 2 * study.model(at["model"])["hidden_size"]
    width = hidden // 2 * (1 if size.bin_bp else pieces)
    layers = width * hidden + (size.hidden_layers - 1) * hidden**2 + hidden * size.outputs
    passes = BACKWARD * options["epochs"] * (size.rows - size.test) + size.test
    return Work(2.0 * layers * positions * passes * options["folds"], 0.0)


class Kind(NamedTuple):
    """Jobs that compute with a model.

    `path`: of their result; `section`: of the configuration, with their threads.
    """

    path: str
    work: Callable[[Study, At], Work]
    section: tuple[str, ...]
    trains: bool = False


MATCHED = r"entropy_matched\.(?P<{}>\d+)\.json"
KINDS = {
    "pretrain": Kind(r"pretrain/[^/]+/(?P<model>[^/]+)/", pretrain_work, ("pretrain",), True),
    "finetune": Kind(f"finetune/{RUN}", finetune_work, ("finetune",), True),
    "measure_entropy": Kind(f"finetune/{RUN}", entropy_work, ("score",)),
    "measure_entropy_at": Kind(
        f"finetune/{RUN}{MATCHED.format('eval_bp')}", entropy_work, ("score",)
    ),
    "score_variants": Kind(rf"scores/{RUN}(?P<eval_bp>\d+)\.parquet", score_work, ("score",)),
    "train_mlm": Kind(f"mlm/{MLM}", train_mlm_work, ("mlm", "train"), True),
    "measure_attention": Kind(f"mlm/{MLM}", attention_work, ("mlm", "evaluation")),
    "measure_attention_at": Kind(
        f"mlm/{MLM}{MATCHED.format('length')}", attention_work, ("mlm", "evaluation")
    ),
    "score_mlm": Kind(
        rf"mlm/{MLM}(?P<protocol>[^/]+)/(?P<length>\d+)\.parquet",
        score_mlm_work,
        ("mlm", "evaluation"),
    ),
    "embed_rows": Kind(rf"embeddings/{PLACE}", embed_work, ("probe", "embed")),
    "train_probe": Kind(rf"probe/{PLACE}", probe_work, ("probe", "train")),
    "score_zero_shot": Kind(rf"probe/{PLACE}", zero_shot_work, ("probe", "embed")),
}
SAME_KIND = {
    "score_mlm_longest": "score_mlm",
    "measure_entropy_at": "measure_entropy",
    "measure_attention_at": "measure_attention",
}


class Load(NamedTuple):
    """What a job computes with a model: on `threads` threads, or on a GPU for each process."""

    work: Work
    model: str
    threads: int
    trains: bool
    processes: int = 1


def load_at(study: Study, rule: str, at: At) -> Load | None:
    """The load of the job of `rule` whose result has these parts; None: no model in it."""
    kind = KINDS.get(rule) or KINDS.get(SAME_KIND.get(rule, ""))
    if kind is None:
        return None
    section = study.config
    for key in kind.section:
        section = section[key]
    processes = section.get("processes", 1)
    threads = section["threads"] * processes
    return Load(kind.work(study, at), at["model"], threads, kind.trains, processes)


def load_of(study: Study, rule: str, path: str) -> Load | None:
    """The load of the job of `rule` that makes `path` (below the results); None: no model in it."""
    kind = KINDS.get(rule) or KINDS.get(SAME_KIND.get(rule, ""))
    match = re.match(kind.path, path) if kind else None
    return load_at(study, rule, match.groupdict()) if match else None
