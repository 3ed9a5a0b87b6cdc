"""Print config/README.md from the schema: python describe_config.py > config/README.md"""

import json
from collections.abc import Iterator
from pathlib import Path

from longscale.config import read_schema, resolve

SCHEMA = Path(__file__).resolve().parents[2] / "config" / "schema.yaml"

HEAD = """# Configuration

<!-- Written by workflow/scripts/describe_config.py from schema.yaml. Edit the schema instead. -->

| file | what it runs |
| --- | --- |
| `config.yaml` | the default: an embedded demonstration, no network, ten minutes on two cores |
| `grch38.yaml` | the full study: GRCh38, DNABERT-2-117M, causal eQTL, ClinVar, OMIM |
| `lrb.yaml` | the Genomics Long-Range Benchmark on frozen embeddings, all tasks, several models |
| `chrm.yaml` | real ClinVar variants on the mitochondrion; needs the files of docs/real-data.md |
| `own_variants.yaml` | an example for a variant file of your own, on the demo's genome |
| `mlm.yaml` | the masked-LM study on text: hours on two cores, no network |
| `released.yaml` | what each choice of the released scripts costs, on the demo's tasks |
| `test.yaml` | the smallest run that touches every rule; used by the tests |

`snakemake --cores N --configfile config/grch38.yaml` replaces the default as a whole; `--config
results=other` changes single top-level keys. `<name>` stands for a name of your choice, which then
stands in result paths.

| key | type | default | meaning |
| --- | --- | --- | --- |
"""


def type_of(schema: dict) -> str:
    """The type of a key, for a person."""
    if "enum" in schema:
        return "one of " + ", ".join(f"`{_yaml(option)}`" for option in schema["enum"])
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if "array" in kinds:
        items = schema["items"]
        of = type_of(items) if "enum" in items else items["type"]
        kinds = [f"list of {of}" if kind == "array" else kind for kind in kinds]
    return " or ".join(kinds)


def _yaml(option: str | None) -> str:
    return "null" if option is None else option


def default_of(schema: dict, required: bool) -> str:
    """The default of a key, or that it must be given."""
    if "default" not in schema:
        return "required" if required else ""
    return "" if schema["default"] == {} else f"`{json.dumps(schema['default'])}`"


def rows(schema: dict, root: dict, prefix: str = "") -> Iterator[str]:
    """Table rows for every key below `schema`."""
    for key, raw in schema.get("properties", {}).items():
        sub = resolve(raw, root)
        name = f"{prefix}{key}"
        items = resolve(sub.get("items", {}), root)
        if "properties" in items:
            yield f"| **`{name}`** | list of sections | | {sub['description']} |"
            yield from rows(items, root, f"{name}.<n>.")
        elif "object" in sub.get("type", ""):
            yield f"| **`{name}`** | section | | {sub['description']} |"
            yield from rows(sub, root, f"{name}.")
            if isinstance(sub.get("additionalProperties"), dict):
                entry = resolve(sub["additionalProperties"], root)
                yield f"| **`{name}.<name>`** | section | | {entry['description']} |"
                yield from rows(entry, root, f"{name}.<name>.")
        else:
            default = default_of(sub, key in schema.get("required", []))
            yield f"| `{name}` | {type_of(sub)} | {default} | {sub['description']} |"


def render() -> str:
    """The whole page."""
    schema = read_schema(SCHEMA)
    return HEAD + "\n".join(rows(schema, schema)) + "\n"


if __name__ == "__main__":
    print(render(), end="")
