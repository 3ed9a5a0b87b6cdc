"""Print tables for a person: python workflow/scripts/show_table.py auroc.tsv mlm.tsv"""

import sys
from pathlib import Path

from longscale.errors import LongscaleError
from longscale.evaluation.compare import read_auroc_table
from longscale.evaluation.mlm_table import read_mlm_table
from longscale.report.tables import summarise, summarise_mlm


def summary_of(path: str) -> str:
    """The summary of an AUROC table or, if it has a perplexity, of a masked-LM table."""
    try:
        with Path(path).open(encoding="utf-8") as handle:
            columns = handle.readline().rstrip("\n").split("\t")
    except (OSError, UnicodeDecodeError) as error:
        raise LongscaleError(f"{path}: not a readable table ({error})") from error
    if "perplexity" in columns:
        return summarise_mlm(read_mlm_table(path))
    return summarise(read_auroc_table(path))


if len(sys.argv) < 2:
    sys.exit(f"usage: {sys.argv[0]} auroc.tsv [mlm.tsv ...]")
try:
    print(*map(summary_of, sys.argv[1:]), sep="\n\n")
except LongscaleError as error:
    sys.exit(f"error: {error}")
