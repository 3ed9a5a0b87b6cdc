"""Bad input, written by hand: tables of defects, and what does with them what a run does."""

from defects import (
    annotations,
    assemblies,
    checkpoints,
    configs,
    corpora,
    leftovers,
    probe_tables,
    tokenizers,
    variants,
)

KINDS = {
    "config": configs,
    "assembly": assemblies,
    "variants": variants,
    "tokenizer": tokenizers,
    "checkpoint": checkpoints,
    "corpus": corpora,
    "probe_table": probe_tables,
    "annotation": annotations,
    "leftover": leftovers,
}
"""Kind -> module with `DEFECTS` and `use(folder, defect)`, which is what a rule's script does."""

DEFECTS = [(kind, defect) for kind, module in KINDS.items() for defect in module.DEFECTS]
