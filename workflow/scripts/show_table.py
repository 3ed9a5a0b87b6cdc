"""Print an AUROC table for a person: python workflow/scripts/show_table.py auroc.tsv"""

import sys

from longscale.errors import LongscaleError
from longscale.evaluation.compare import read_auroc_table
from longscale.report.tables import summarise

if len(sys.argv) != 2:
    sys.exit(f"usage: {sys.argv[0]} auroc.tsv")
try:
    print(summarise(read_auroc_table(sys.argv[1])))
except LongscaleError as error:
    sys.exit(f"error: {error}")
