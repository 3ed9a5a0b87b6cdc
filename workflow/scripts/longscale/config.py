"""The configuration: defaults filled in, every mistake told in one sentence.

The schema (config/schema.yaml) is JSON Schema 2020-12; every key has a type, a sentence, and a
default unless it is required.
"""

import copy
import difflib
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from longscale.attention.cosine import parse_attention
from longscale.attention.rules import LENGTH_RULES, length_rule
from longscale.errors import LongscaleError
from longscale.tasks.lrb import LRB_TASKS

# A number like 256.0 is an integer to JSON Schema, but would stand as 256.0 in result paths.
VALIDATOR = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)


# What JSON Schema's types are called in YAML.
YAML_WORDS = {"array": "list", "object": "mapping"}


def read_schema(path: str | Path) -> dict:
    """The schema as a dictionary."""
    return yaml.safe_load(Path(path).read_text())


def resolve(schema: dict, root: dict) -> dict:
    """Follow a local `$ref` (#/$defs/name)."""
    if "$ref" in schema:
        return root["$defs"][schema["$ref"].rsplit("/", 1)[-1]]
    return schema


def fill_defaults(value: Any, schema: dict, root: dict) -> Any:
    """A copy of `value` with the schema's defaults where a key is absent, at every depth."""
    schema = resolve(schema, root)
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
            return f"{key} is {error.instance!r}, but must be of type {kinds}{meant}"
        case "enum":
            options = [str(option) for option in error.validator_value]
            hint = nearest(error.instance, options)
            return f"{key} is {error.instance!r}{hint} (known: {', '.join(options)})"
        case "pattern":
            return f"{key} is {error.instance!r}, which does not have the form asked for{meant}"
        case _:
            return f"{key}: {error.message}{meant}"


def check_config(config: dict, schema: dict, name: str) -> dict:
    """`config` with defaults filled in; raises `LongscaleError` naming `name`, the key and what is
    right.
    """
    filled = fill_defaults(config, schema, schema)
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
    check_tasks(config, name)
    study = config["study"]
    for key, known in (("tasks", config["tasks"]), ("models", config["models"])):
        for item in study[key]:
            if item not in known:
                raise LongscaleError(
                    f"{name}: study.{key} names {item!r}, which `{key}` does not describe"
                    f" (it has: {', '.join(known)}){nearest(item, known)}"
                )
    for item in study["tasks"]:
        train_task = config["tasks"][item]["train_task"]
        if train_task and train_task not in config["tasks"]:
            raise LongscaleError(
                f"{name}: tasks.{item}.train_task is {train_task!r},"
                " which `tasks` does not describe"
                f" (it has: {', '.join(config['tasks'])}){nearest(train_task, config['tasks'])}"
            )
        if train_task and config["tasks"][train_task]["train_task"]:
            raise LongscaleError(
                f"{name}: tasks.{item}.train_task is {train_task}, which has no training rows"
                " itself (it has a train_task, too)"
            )
    genome = config["genome"]
    if (genome["simulate"] is None) == (genome["fasta"] is None):
        raise LongscaleError(
            f"{name}: genome needs either `simulate` (a recipe) or `fasta` and `assembly_report`,"
            " not both and not neither"
        )
    if genome["fasta"] is not None and genome["assembly_report"] is None:
        raise LongscaleError(
            f"{name}: genome.assembly_report is missing (it stands beside the FASTA at NCBI)"
        )
    check_names(config, name)


def check_names(config: dict, name: str) -> None:
    """Rules and attentions must be known to their tables."""
    study = config["study"]
    attentions = ("dot", "cos-matched")
    for key, parse, known in (
        ("rules", length_rule, LENGTH_RULES),
        ("attentions", parse_attention, attentions),
    ):
        for item in study[key]:
            try:
                parse(item)
            except LongscaleError as error:
                hint = nearest(item, known)
                raise LongscaleError(f"{name}: study.{key}: {error}{hint}") from None


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
    named = [(config["genome"], "simulate", "genome.simulate")]
    named += [(entry, "path", f"tasks.{task}.path") for task, entry in config["tasks"].items()]
    named += [(row, "tokenizer", f"models.{m}.tokenizer") for m, row in config["models"].items()]
    for section, key, full_key in named:
        path = section[key]
        if path is None or Path(path).exists():
            continue
        if not Path(repository, path).exists():
            raise LongscaleError(
                f"{name}: {full_key} is {path}, which does not exist (a relative path starts at the"
                " folder in which snakemake runs)"
            )
        section[key] = str(Path(repository, path))


def check_recipe(config: dict, name: str) -> None:
    """The simulated tasks must be in the recipe (after `locate_files`)."""
    recipe = config["genome"]["simulate"]
    known = (yaml.safe_load(Path(recipe).read_text()) or {}).get("tasks", {}) if recipe else {}
    for task, entry in config["tasks"].items():
        if entry["source"] == "simulated" and task not in known:
            raise LongscaleError(
                f"{name}: tasks.{task} has source simulated, but the recipe {recipe} has no such"
                f" task (it has: {', '.join(known)})"
            )


def digest(config: Any) -> str:
    """SHA-256 of a configuration (or a part of it), independent of the order of keys."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
