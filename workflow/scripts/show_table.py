"""Print tables for a person: python workflow/scripts/show_table.py auroc.tsv mlm.tsv lrb.tsv"""

import sys
from pathlib import Path

from longscale.errors import LongscaleError
from longscale.evaluation.compare import read_auroc_table
from longscale.evaluation.lrb_table import read_lrb_table
from longscale.evaluation.mlm_table import read_mlm_table
from longscale.report.leaderboard import summarise_lrb
from longscale.report.tables import summarise, summarise_mlm


def summary_of(path: str) -> str:
    """The summary of an AUROC table, a masked-LM table (it has a perplexity) or the benchmark's (it
    has published numbers).
    """
    try:
        with Path(path).open(encoding="utf-8") as handle:
            columns = handle.readline().rstrip("\n").split("\t")
    except (OSError, UnicodeDecodeError) as error:
        raise LongscaleError(f"{path}: not a readable table ({error})") from error
    if "perplexity" in columns:
        return summarise_mlm(read_mlm_table(path))
    if "published" in columns:
        return summarise_lrb(read_lrb_table(path))
    return summarise(read_auroc_table(path))


if len(sys.argv) < 2:
    sys.exit(f"usage: {sys.argv[0]} auroc.tsv [mlm.tsv lrb.tsv ...]")
try:
    print(*map(summary_of, sys.argv[1:]), sep="\n\n")
except LongscaleError as error:
    sys.exit(f"error: {error}")
