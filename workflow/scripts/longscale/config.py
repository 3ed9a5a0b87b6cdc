"""The configuration: defaults filled in, every mistake told in one sentence.

The schema (config/schema.yaml) is JSON Schema 2020-12; every key has a type, a sentence, and a
default unless it is required.
"""

import copy
import difflib
import functools
import glob
import math
import operator
import os
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from longscale.attention.cosine import parse_attention
from longscale.attention.positions import POSITION_SCHEMES, position_scheme
from longscale.attention.released import RELEASED_CHOICE
from longscale.attention.rules import LENGTH_RULES, length_rule
from longscale.errors import LongscaleError
from longscale.probe_cells import (
    MADE_IN_THE_RUN,
    WITH_ROTARY,
    WITH_RULES,
    genome_of_task,
    is_trained,
    kind_of_task,
    simulated_genome,
)
from longscale.tasks.lrb import LRB_TASKS
from longscale.tasks.probe_tasks import PROBE_TASKS

LARGEST_INTEGER = 2**53 - 1  # what JSON and float64 hold exactly; NumPy's int64 is not far beyond
MOST_SHOWN = 200  # characters of a value


def is_integer(value: object) -> bool:
    """Whether a value is a whole number that can be used.

    A number like 256.0 is an integer to JSON Schema, but would stand as 256.0 in result paths.
    """
    return type(value) is int and abs(value) <= LARGEST_INTEGER


def is_number(value: object) -> bool:
    """Whether a value is a finite number (.nan passes every comparison with a limit)."""
    return is_integer(value) or (type(value) is float and math.isfinite(value))


VALIDATOR = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "integer": lambda _, value: is_integer(value),
            "number": lambda _, value: is_number(value),
        }
    ),
)


# Spellings to suggest; cos<alpha> has any number.
ATTENTIONS = ("dot", "cos-matched")

# What JSON Schema's types are called in YAML.
YAML_WORDS = {"array": "list", "object": "mapping"}


def read_schema(path: str | Path) -> dict:
    """The schema as a dictionary."""
    return yaml.safe_load(Path(path).read_text())


def resolve(schema: dict, root: dict) -> dict:
    """Follow a local `$ref` (#/$defs/name, or deeper)."""
    if "$ref" in schema:
        return functools.reduce(operator.getitem, schema["$ref"].split("/")[1:], root)
    return schema


def fill_defaults(value: Any, schema: dict, root: dict) -> Any:
    """A copy of `value` with the schema's defaults where a key is absent, at every depth."""
    schema = resolve(schema, root)
    if isinstance(value, list):
        return [fill_defaults(item, schema.get("items", {}), root) for item in value]
    if not isinstance(value, dict):
        return copy.deepcopy(value)
    properties = schema.get("properties", {})
    filled = dict(value)
    for key, sub in properties.items():
        sub = resolve(sub, root)
        if key not in filled and "default" in sub:
            filled[key] = sub["default"]
    for key, item in filled.items():
        sub = properties.get(key, schema.get("additionalProperties"))
        filled[key] = fill_defaults(item, sub if isinstance(sub, dict) else {}, root)
    return filled


def shorten(text: str) -> str:
    """A text as it is shown to a person."""
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def nearest(item: object, known: Iterable[str]) -> str:
    """`; did you mean ...?`, or nothing where no known name is near."""
    near = difflib.get_close_matches(str(item), list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def describe(error: jsonschema.ValidationError) -> str:
    """One sentence for one schema violation: the key, what is wrong, what would be right."""
    key = ".".join(map(str, error.absolute_path)) or "the top level"
    if error.validator == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        unknown = next(name for name in error.instance if name not in known)
        hint = nearest(unknown, known)
        return f"unknown key {unknown!r} in {key}{hint} (known keys: {', '.join(known)})"
    sentence = error.schema.get("description", "").removesuffix(".")
    meant = f" ({sentence})" if sentence else ""
    if "propertyNames" in error.absolute_schema_path:
        return f"{error.instance!r} in {key} is not a name that can be used{meant}"
    match error.validator:
        case "required":
            missing = next(name for name in error.validator_value if name not in error.instance)
            return f"key {missing!r} is missing in {key}"
        case "type":
            wanted = error.validator_value
            wanted = [wanted] if isinstance(wanted, str) else wanted
            kinds = " or ".join(YAML_WORDS.get(kind, kind) for kind in wanted)
            found = f"{key} is {shorten(repr(error.instance))}, but must be of type {kinds}"
            return f"{found}{yaml_hint(error.instance, wanted)}{meant}"
        case "enum":
            options = [str(option) for option in error.validator_value]
            hint = nearest(error.instance, options)
            one_of = f"one of {', '.join(options)}"
            found = f"{key} is {shorten(repr(error.instance))}"
            return f"{found}{hint} ({one_of})" if hint else f"{found}, but must be {one_of}"
        case "pattern":
            return f"{key} is {error.instance!r}, which does not have the form asked for{meant}"
        case _:
            return f"{key}: {error.message}{meant}"


def yaml_hint(value: object, wanted: list[str]) -> str:
    """How to write it, where YAML has taken a number for a text or the other way round."""
    if "string" in wanted and isinstance(value, bool):
        return "; write it in quotes: YAML takes yes, no, on and off for true and false"
    if "string" in wanted and isinstance(value, int | float | date):
        return f"; write it in quotes: '{value}'"
    if {"number", "integer"} & set(wanted) and type(value) in (int, float) and not is_number(value):
        return f"; it must be finite and at most {LARGEST_INTEGER} in size"
    if isinstance(value, str) and {"number", "integer"} & set(wanted):
        with suppress(ValueError):
            return f"; YAML takes {value} for a text, write {float(value)!r}"
    return ""


def check_config(config: dict, schema: dict, name: str) -> dict:
    """`config` with defaults filled in; raises `LongscaleError` naming `name`, the key and what is
    right.
    """
    try:
        filled = fill_defaults(config, schema, schema)
    except RecursionError:
        raise LongscaleError(
            f"{name}: a YAML alias (*name) stands inside of what it is an alias of; a configuration"
            " must end somewhere"
        ) from None
    errors = sorted(
        VALIDATOR(schema).iter_errors(filled),
        key=lambda error: list(map(str, error.absolute_path)),
    )
    if errors:
        sentences = map(describe, errors)
        raise LongscaleError(f"{name}: " + "; and ".join(dict.fromkeys(sentences)))
    check_references(filled, name)
    return filled


def check_references(config: dict, name: str) -> None:
    """What a schema cannot say: names that must exist, keys that go together."""
    if not any(config[branch] for branch in ("study", "mlm", "probe")):
        raise LongscaleError(
            f"{name}: there is neither `study` nor `mlm` nor `probe`; one of them must be described"
        )
    if config["study"] is not None:
        check_study(config, name)
    check_nodes(config["finetune"], name)
    if config["genome"] is not None:
        check_source(config["genome"], "genome", name)
    check_genomes(config, name)
    if config["mlm"] is not None:
        check_mlm(config, name)
    if config["probe"] is not None:
        check_probe(config, name)


def check_known(
    items: Iterable[str], section: Collection[str], key: str, of: str, name: str
) -> None:
    """Each of `items`, which `key` names, must be described in the section `of`."""
    for item in items:
        if item not in section:
            raise LongscaleError(
                f"{name}: {key} names {item!r}, which `{of}` does not describe"
                f" (it has: {', '.join(section)}){nearest(item, section)}"
            )


def check_architecture(config: dict, key: str, architecture: str, name: str) -> None:
    """The models of a branch must be of its architecture."""
    for item in config[key]["models"]:
        found = config["models"][item]["architecture"]
        if found != architecture:
            raise LongscaleError(
                f"{name}: {key}.models names {item!r}, whose architecture is {found}, but this"
                f" branch runs {architecture}"
            )


def check_heads(model: dict, key: str, name: str) -> None:
    """Heads share the hidden features evenly, where the configuration says how many there are."""
    heads, hidden = model["num_attention_heads"], model["hidden_size"]
    if model["checkpoint"] is None and hidden % heads:
        raise LongscaleError(
            f"{name}: {key}.num_attention_heads is {heads}, which does not divide {key}.hidden_size"
            f" ({hidden})"
        )


def check_study(config: dict, name: str) -> None:
    """The variant branch."""
    if config["genome"] is None:
        raise LongscaleError(f"{name}: key 'genome' is missing (`study` needs one)")
    check_tasks(config, name)
    study, tasks = config["study"], config["tasks"]
    check_known(study["tasks"], tasks, "study.tasks", "tasks", name)
    check_known(study["models"], config["models"], "study.models", "models", name)
    check_architecture(config, "study", "dnabert2", name)
    for item in study["models"]:
        check_heads(config["models"][item], f"models.{item}", name)
    for item in study["tasks"]:
        train_task = tasks[item]["train_task"]
        if train_task:
            check_known([train_task], tasks, f"tasks.{item}.train_task", "tasks", name)
            if tasks[train_task]["train_task"]:
                raise LongscaleError(
                    f"{name}: tasks.{item}.train_task is {train_task}, which has no training rows"
                    " itself (it has a train_task, too)"
                )
    check_names(study["rules"], length_rule, LENGTH_RULES, "study.rules", name)
    check_names(study["attentions"], parse_attention, ATTENTIONS, "study.attentions", name)
    for protocol, attentions in study["protocol_attentions"].items():
        key = f"study.protocol_attentions.{protocol}"
        check_known([protocol], study["protocols"], key, "study.protocols", name)
        check_known(attentions, study["attentions"], key, "study.attentions", name)


def check_source(genome: dict, key: str, name: str) -> None:
    """A genome is simulated or given; only a report can tell how long a truncated one was."""
    if (genome["simulate"] is None) == (genome["fasta"] is None):
        raise LongscaleError(
            f"{name}: {key} needs either `simulate` (a recipe) or `fasta`, not both and not neither"
        )
    if genome["truncated"] and genome["fasta"] is not None and genome["assembly_report"] is None:
        raise LongscaleError(
            f"{name}: {key}.truncated is true, but without {key}.assembly_report there is"
            " nothing that contigs could be shorter than"
        )


def check_nodes(finetune: dict, name: str) -> None:
    """Each node has as many processes as the others, and one at least."""
    processes, nodes = finetune["processes"], finetune["nodes"]
    if processes % nodes:
        raise LongscaleError(
            f"{name}: finetune.nodes is {nodes}, over which finetune.processes ({processes}) cannot"
            " be spread evenly; it must be a multiple of finetune.nodes"
        )


def check_genomes(config: dict, name: str) -> None:
    """Further genomes have names and sources of their own, and one of them may be simulated."""
    genomes = config["genomes"]
    if genomes and config["genome"] is None:
        raise LongscaleError(f"{name}: key 'genome' is missing (`genomes` are further ones)")
    for item, genome in genomes.items():
        key = f"genomes.{item}"
        if item == config["genome"]["name"]:
            raise LongscaleError(f"{name}: {key} has the name of `genome`, but must have its own")
        check_source(genome, key, name)
    simulated = [item for item, genome in genomes.items() if genome["simulate"] is not None]
    if len(simulated) > 1:
        raise LongscaleError(
            f"{name}: genomes.{simulated[0]} and genomes.{simulated[1]} are both simulated, but one"
            " genome carries the probe tasks"
        )


def check_mlm(config: dict, name: str) -> None:
    """The masked-LM branch."""
    mlm = config["mlm"]
    check_known(mlm["corpora"], config["corpora"], "mlm.corpora", "corpora", name)
    check_known(mlm["models"], config["models"], "mlm.models", "models", name)
    check_architecture(config, "mlm", "gau-alpha", name)
    for corpus in mlm["corpora"]:
        check_corpus(config, corpus, name)
    short = min(mlm["lengths"])
    if short < mlm["train_length"]:
        raise LongscaleError(
            f"{name}: mlm.lengths has {short}, which is below mlm.train_length"
            f" ({mlm['train_length']}): leave {short} out, or train at fewer tokens"
        )
    for number, row in enumerate(mlm["trainings"]):
        key = f"mlm.trainings.{number}"
        check_names(row["attentions"], parse_attention, ATTENTIONS, f"{key}.attentions", name)
        check_names(row["schemes"], position_scheme, POSITION_SCHEMES, f"{key}.schemes", name)
        check_known(row["corpora"] or [], mlm["corpora"], f"{key}.corpora", "mlm.corpora", name)
        for scheme in row["schemes"]:
            if scheme != "rope" and not position_scheme(scheme).trained:
                raise LongscaleError(
                    f"{name}: {key}.schemes has {scheme!r}, which needs no training: put it into"
                    " mlm.arms, where it is applied to the checkpoints trained with rope"
                )
    for number, row in enumerate(mlm["arms"]):
        check_mlm_arms(mlm, number, row, name)
    for model in mlm["models"]:
        if mlm["train"]["steps"] == 0 and config["models"][model]["checkpoint"] is None:
            raise LongscaleError(
                f"{name}: mlm.train.steps is 0, but models.{model} has no checkpoint to score"
            )


def check_mlm_arms(mlm: dict, number: int, row: dict, name: str) -> None:
    """One entry of mlm.arms."""
    key = f"mlm.arms.{number}"
    check_names(row["schemes"], position_scheme, POSITION_SCHEMES, f"{key}.schemes", name)
    check_names(row["rules"], length_rule, LENGTH_RULES, f"{key}.rules", name)
    for rule in row["rules"]:
        if LENGTH_RULES[rule].released:
            raise LongscaleError(
                f"{name}: {key}.rules has {rule!r}, a defect of the released DNABERT-2 code, which"
                f" GAU-alpha does not have; {RELEASED_CHOICE.sub('', rule)} is the rule itself"
            )
    for length in row["lengths"] or []:
        if length not in mlm["lengths"]:
            raise LongscaleError(
                f"{name}: {key}.lengths has {length}, which mlm.lengths does not have"
                f" ({', '.join(map(str, mlm['lengths']))})"
            )
    trained = {item for entry in mlm["trainings"] for item in entry["attentions"]}
    for attention in row["attentions"] or []:
        if attention not in trained:
            raise LongscaleError(
                f"{name}: {key}.attentions has {attention!r}, which mlm.trainings does not train"
                f" (it has: {', '.join(sorted(trained))}){nearest(attention, trained)}"
            )
    trained_in = {item for entry in mlm["trainings"] for item in entry["schemes"]}
    for scheme in row["schemes"]:
        needed = scheme if position_scheme(scheme).trained else "rope"
        if needed not in trained_in:
            raise LongscaleError(
                f"{name}: {key}.schemes has {scheme!r}, which needs checkpoints trained with"
                f" {needed}; add {needed} to the schemes of mlm.trainings, or leave it out"
            )


def check_probe(config: dict, name: str) -> None:
    """The probe stage; simulated tasks are held against their recipe later (`check_recipe`)."""
    if config["genome"] is None:
        raise LongscaleError(f"{name}: key 'genome' is missing (`probe` needs one)")
    probe = config["probe"]
    for task in probe["tasks"]:
        if task not in PROBE_TASKS and simulated_genome(config) is None:
            raise LongscaleError(
                f"{name}: probe.tasks names {task!r}, which the benchmark does not have (it has:"
                f" {', '.join(PROBE_TASKS)}){nearest(task, PROBE_TASKS)}; for a simulated task,"
                " describe its genome in `genomes`"
            )
        genome = genome_of_task(config, task)
        if genome not in (config["genome"]["name"], *config["genomes"]):
            raise LongscaleError(
                f"{name}: {task} has places on {PROBE_TASKS[task].genome}, for which"
                f" probe.genomes names {genome!r}, which `genomes` does not describe"
            )
    if not probe["models"] and not probe["features"]:
        raise LongscaleError(
            f"{name}: probe.models is empty, and so is probe.features: there is nothing to probe"
        )
    check_known(probe["models"], config["models"], "probe.models", "models", name)
    for model in probe["models"]:
        check_probe_model(config, model, name)
    for number, row in enumerate(probe["arms"]):
        check_probe_arm(config, f"probe.arms.{number}", row, name)
    check_further_trained(probe, name)
    for item, files in probe["features"].items():
        check_known(files, probe["tasks"], f"probe.features.{item}", "probe.tasks", name)
        for task in files:
            if not is_trained(task):
                raise LongscaleError(
                    f"{name}: probe.features.{item} names {task!r}, which has no training rows,"
                    " but features are what a probe is trained on"
                )
        if item in config["models"]:
            raise LongscaleError(f"{name}: probe.features.{item} has the name of a model")
    check_known(
        probe["zero_shot"]["tasks"], probe["tasks"], "probe.zero_shot.tasks", "probe.tasks", name
    )


def check_further_trained(probe: dict, name: str) -> None:
    """Further trainings are told apart by the model and the context that stand in the table."""
    seen: dict[tuple[str, int], str] = {}
    for item, row in probe["further_trained"].items():
        key, place = f"probe.further_trained.{item}", (row["model"], row["context_bp"])
        check_known([item, row["model"]], probe["models"], key, "probe.models", name)
        if row["model"] in probe["further_trained"]:
            raise LongscaleError(
                f"{name}: {key}.model is {row['model']}, which is a further training itself; name"
                " the model that both began with"
            )
        if place in seen:
            raise LongscaleError(
                f"{name}: {key} has the model and context_bp of probe.further_trained."
                f"{seen[place]}; the table has one place for both"
            )
        seen[place] = item


def check_probe_model(config: dict, model: str, name: str) -> None:
    """A model to embed with has a checkpoint, or is trained by another branch of the run."""
    entry, probe = config["models"][model], config["probe"]
    if entry["checkpoint"] is not None:
        return
    key = f"{name}: models.{model}"
    if entry["architecture"] not in MADE_IN_THE_RUN:
        raise LongscaleError(f"{key} is {entry['architecture']}, which needs a checkpoint")
    if entry["architecture"] == "dnabert2":
        check_heads(entry, f"models.{model}", name)
        if config["study"] is None:
            raise LongscaleError(
                f"{key} has no checkpoint, and without `study` none is pretrained in this run"
            )
        return
    if probe["corpus"] is None or config["mlm"] is None:
        raise LongscaleError(
            f"{key} has no checkpoint: it is trained on a corpus (probe.corpus) with the settings"
            " of `mlm`, and one of the two is missing"
        )
    check_known([probe["corpus"]], config["corpora"], "probe.corpus", "corpora", name)
    if config["corpora"][probe["corpus"]]["source"] != "genome":
        raise LongscaleError(f"{name}: probe.corpus is {probe['corpus']!r}, which is no genome")
    check_corpus(config, probe["corpus"], name)


def check_probe_arm(config: dict, key: str, row: dict, name: str) -> None:
    """One entry of probe.arms: what it names is there, and its models can be run like that."""
    probe = config["probe"]
    check_names(row["rules"], length_rule, LENGTH_RULES, f"{key}.rules", name)
    for rule in row["rules"]:
        if LENGTH_RULES[rule].released or LENGTH_RULES[rule].measured:
            raise LongscaleError(
                f"{name}: {key}.rules has {rule!r}, which the probe stage does not run: it has"
                " neither defects of the released code nor measured multipliers"
            )
    for part in ("tasks", "models"):
        check_known(row[part] or [], probe[part], f"{key}.{part}", f"probe.{part}", name)
    for length in row["context_bp"] or []:
        if length not in probe["context_bp"]:
            raise LongscaleError(
                f"{name}: {key}.context_bp has {length}, which probe.context_bp does not have"
            )
    for model in row["models"] or probe["models"]:
        architecture = config["models"][model]["architecture"]
        for wanted, allowed, what in (
            (row["rules"], WITH_RULES, "rules"),
            (row["extensions"], WITH_ROTARY, "extensions"),
        ):
            if set(wanted) - {"none"} and architecture not in allowed:
                raise LongscaleError(
                    f"{name}: {key}.{what} has more than 'none', which {model} ({architecture})"
                    f" cannot be run with; name the others in {key}.models ({', '.join(allowed)})"
                )


def check_corpus(config: dict, corpus: str, name: str) -> None:
    """Each source of a corpus asks for keys of its own."""
    entry = config["corpora"][corpus]
    key = f"{name}: corpora.{corpus}"
    if entry["source"] == "file" and entry["path"] is None:
        raise LongscaleError(f"{key}.path is missing (source: file needs the text)")
    if entry["source"] == "genome":
        if config["genome"] is None:
            raise LongscaleError(f"{key} has source genome, but there is no `genome`")
        missing = [k for k in ("document_bp", "test_contigs", "dev_contigs") if entry[k] is None]
        if missing:
            raise LongscaleError(f"{key}.{missing[0]} is missing (source: genome needs it)")
    elif entry["tokens"] == "bpe":
        raise LongscaleError(f"{key}.tokens is bpe, which is the genome's: use characters")


def check_names(
    items: Iterable[str], parse: Callable[[str], Any], known: Iterable[str], key: str, name: str
) -> None:
    """Rules, attentions and schemes must be known to their tables."""
    for item in items:
        try:
            parse(item)
        except LongscaleError as error:
            hint = nearest(item, known)
            raise LongscaleError(f"{name}: {key}: {error}{hint}") from None


def check_tasks(config: dict, name: str) -> None:
    """Each source of a task asks for keys of its own."""
    for task, entry in config["tasks"].items():
        if entry["source"] == "file" and entry["path"] is None:
            raise LongscaleError(
                f"{name}: tasks.{task}.path is missing (source: file needs the variant file)"
            )
        if entry["source"] == "lrb":
            if task not in LRB_TASKS:
                raise LongscaleError(
                    f"{name}: tasks.{task} has source lrb, but the benchmark has no variant task of"
                    f" that name (it has: {', '.join(LRB_TASKS)}){nearest(task, LRB_TASKS)}"
                )
            entry["train_task"] = entry["train_task"] or LRB_TASKS[task].train_task
        if entry["source"] == "simulated" and config["genome"]["simulate"] is None:
            raise LongscaleError(
                f"{name}: tasks.{task} is simulated, but genome.simulate is not set: a simulated"
                " task needs a simulated genome"
            )


def locate_files(config: dict, name: str, repository: str | Path) -> None:
    """Find the local files that the configuration names, in place.

    A relative path is looked for in the working folder, then in the repository. Raises
    LongscaleError naming the key of a file that is in neither.
    """
    named = [(config["genome"], "simulate", "genome.simulate")] if config["genome"] else []
    named += [(row, "simulate", f"genomes.{g}.simulate") for g, row in config["genomes"].items()]
    named += [(entry, "path", f"tasks.{task}.path") for task, entry in config["tasks"].items()]
    named += [(row, "tokenizer", f"models.{m}.tokenizer") for m, row in config["models"].items()]
    named += [(entry, "path", f"corpora.{c}.path") for c, entry in config["corpora"].items()]
    genomes = {"genome": config["genome"] or {}}
    genomes |= {f"genomes.{g}": row for g, row in config["genomes"].items()}
    for genome, row in genomes.items():
        for key in ("fasta", "assembly_report", "md5checksums", "genes"):
            if row.get(key) and "://" not in row[key]:
                named.append((row, key, f"{genome}.{key}"))
    features = config["probe"]["features"] if config["probe"] else {}
    named += [(row, t, f"probe.features.{f}.{t}") for f, row in features.items() for t in row]
    for section, key, full_key in named:
        path = section[key]
        if path is not None and set("{}<>") & set(path):
            raise LongscaleError(
                f"{name}: {full_key} is {shorten(path)}, which has one of {{, }}, <, >: Snakemake"
                " takes them for names of its own, so the path must be without them"
            )
        if path is None or _is_there(path):
            continue
        if not _is_there(str(Path(repository, path))):
            raise LongscaleError(
                f"{name}: {full_key} is {shorten(path)}, which does not exist (a relative path"
                " starts at the folder in which snakemake runs)"
            )
        section[key] = str(Path(repository, path))


def _is_there(path: str) -> bool:
    """Whether a file, a folder, or a match of a pattern exists."""
    # Path.exists raises where a name is too long.
    return os.path.exists(path) or bool(glob.glob(path, recursive=True))  # noqa: PTH110, PTH207


def recipe_tasks(recipe: str | Path | None, where: str = "simulate") -> dict:
    """The tasks in a recipe of a simulation; none without a recipe.

    Raises LongscaleError, which begins with `where`, for a file that is no recipe.
    """
    if recipe is None:
        return {}
    try:
        found = yaml.safe_load(Path(recipe).read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise LongscaleError(
            f"{where} is {recipe}, which cannot be read as a recipe in YAML: {reason}"
        ) from error
    tasks = found.get("tasks") if isinstance(found, dict) else None
    if not isinstance(tasks, dict):
        raise LongscaleError(
            f"{where} is {recipe}, which is no recipe of a simulation: it must have `tasks`, as"
            " resources/simulated.yaml has"
        )
    return tasks


def check_recipe(config: dict, name: str) -> None:
    """The simulated tasks must be in the recipe (after `locate_files`), and a further simulated
    genome must have a recipe of probe tasks.
    """
    recipe = config["genome"]["simulate"] if config["genome"] else None
    known = recipe_tasks(recipe, f"{name}: genome.simulate")
    for task, entry in config["tasks"].items():
        if entry["source"] == "simulated" and task not in known:
            raise LongscaleError(
                f"{name}: tasks.{task} has source simulated, but the recipe {recipe} has no such"
                f" task (it has: {', '.join(known)})"
            )
    for item, genome in config["genomes"].items():
        tasks = recipe_tasks(genome["simulate"], f"{name}: genomes.{item}.simulate")
        if genome["simulate"] and not (tasks and all("kind" in row for row in tasks.values())):
            raise LongscaleError(
                f"{name}: genomes.{item}.simulate is {genome['simulate']}, which is no recipe of"
                " probe tasks (each of those has a `kind`, as in resources/simulated_probe.yaml)"
            )
    if config["probe"] is not None:
        check_probe_recipe(config, name)


def check_probe_recipe(config: dict, name: str) -> None:
    """Simulated probe tasks must be in their recipe; some keys are for tasks of variants alone."""
    probe, genome = config["probe"], simulated_genome(config)
    recipe = recipe_tasks(config["genomes"][genome]["simulate"]) if genome else {}
    check_known(
        [task for task in probe["tasks"] if task not in PROBE_TASKS],
        recipe,
        "probe.tasks",
        f"genomes.{genome}.simulate",
        name,
    )
    named = {"probe.zero_shot.tasks": probe["zero_shot"]["tasks"]}
    named |= {f"probe.features.{item}": files for item, files in probe["features"].items()}
    for key, tasks in named.items():
        for task in tasks:
            if kind_of_task(task, recipe) != "variant":
                raise LongscaleError(f"{name}: {key} names {task!r}, which is no task of variants")
