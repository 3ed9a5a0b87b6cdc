"""Tables of a page in docs/, filled from the results of a study.

A table stands between the lines `<!-- table: NAME -->` and `<!-- end -->`, where NAME may have an
argument behind a colon. Nothing else of the page changes.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pandas as pd

MARKED = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill_page(page: Path, tables: Mapping[str, Callable[..., pd.DataFrame]]) -> None:
    """Write every table of `page` anew, from the function of `tables` with its name."""

    def filled(found: re.Match[str]) -> str:
        name, *of = found[2].split(":")
        return found[1] + markdown(tables[name](*of)) + found[3]

    page.write_text(MARKED.sub(filled, page.read_text()))


def markdown(table: pd.DataFrame) -> str:
    """A table as Markdown, cells as they are."""

    def line(cells: Iterable[object]) -> str:
        return f"| {' | '.join(map(str, cells))} |\n"

    body = "".join(line(row) for row in table.itertuples(index=False))
    return line(table.columns) + line(["---"] * table.shape[1]) + body
