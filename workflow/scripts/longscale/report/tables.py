"""The AUROC table for readers: an HTML page for the report, a few lines for the log."""

import html
import math
from pathlib import Path
from typing import Any

import pandas as pd

from longscale.evaluation.compare import ARM_FLAGS, FLAGS, is_released
from longscale.files import atomic_path

_CSS = """
body { font: 14px/1.4 sans-serif; margin: 1.5em; color: #222; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: bold; padding-bottom: .5em; }
th { text-align: left; border-bottom: 2px solid #222; position: sticky; top: 0; background: #fff; }
th, td { padding: .15em .6em; white-space: nowrap; }
tr:nth-child(even) td { background: #f6f6f6; }
tr.flagged td { color: #8a4b00; }
td.flags { font-style: italic; }
td.better { color: #00614a; font-weight: bold; }
td.worse { color: #9c2f00; font-weight: bold; }
""".strip()


def write_html_table(table: pd.DataFrame, path: str | Path, *, title: str) -> None:
    """Write a table (`auroc.tsv` or the wide one) as one self-contained page, whole or not at all.

    Every text is escaped; numbers have three decimals, NaN is empty. Rows with flags are set
    off, and the flags that occur are explained below the table.
    """
    columns = [str(name) for name in table.columns]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "\n".join(
        _html_row(dict(zip(columns, row, strict=True))) for row in table.to_numpy(object)
    )
    page = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{_CSS}\n</style>\n</head>\n<body>\n"
        f"<table>\n<caption>{html.escape(title)}</caption>\n"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n"
        f"{_html_legend(table)}</body>\n</html>\n"
    )
    with atomic_path(path) as part:
        part.write_text(page, encoding="utf-8")


SUMMARY_NOTE = (
    "(the highest of all arms at each length, which is so in part by chance: read the verdicts,\n"
    " against dot + none, and rule_verdict, against the same attention without a rule)"
)


def summarise(table: pd.DataFrame) -> str:
    """The best arm per task, protocol, model, training and evaluation length, one line each.

    Only arms without a flag of their own training or scores compete, released ones never do. The
    best of several arms is best in part by chance: its verdict, not its rank, is the result.
    """
    blocks = []
    main = table[~is_released(table)]
    for names, of_task in main.groupby(["task", "protocol", "model", "train_bp"], sort=True):
        task, protocol, model, train_bp = names
        lines = [f"{task}, {protocol} protocol, {model}, trained at {train_bp:,} bp:"]
        lines += [_summary_line(rows) for _, rows in of_task.groupby("eval_bp", sort=True)]
        blocks.append("\n".join(lines))
    return "\n".join([*blocks, SUMMARY_NOTE] if blocks else [])


def _html_row(row: dict[str, Any]) -> str:
    cells = []
    for name, value in row.items():
        kind = {"flags": "flags", "verdict": value if value in ("better", "worse") else ""}
        mark = f' class="{kind[name]}"' if kind.get(name) else ""
        cells.append(f"<td{mark}>{html.escape(_text(value))}</td>")
    mark = ' class="flagged"' if row.get("flags") else ""
    return f"<tr{mark}>{''.join(cells)}</tr>"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{round(value, 3) + 0.0:.3f}"  # never -0.000
    return str(value)


def _html_legend(table: pd.DataFrame) -> str:
    """The meaning of the flags that occur (a wide table has none, its cells carry a star)."""
    if "flags" not in table.columns:
        return "<p>* flagged, see the long table. In brackets: 95% interval.</p>\n"
    present = {flag for flags in table["flags"] for flag in flags.split(";")} - {""}
    known = [flag for flag in FLAGS if flag in present]
    items = "".join(f"<li><b>{flag}</b>: {html.escape(FLAGS[flag])}</li>" for flag in known)
    return f"<ul>{items}</ul>\n" if items else ""


def _summary_line(rows: pd.DataFrame) -> str:
    eval_bp = rows["eval_bp"].iloc[0]
    sound = [ARM_FLAGS.keys().isdisjoint(flags.split(";")) for flags in rows["flags"]]
    competing = rows[sound].dropna(subset="auroc")
    if competing.empty:
        return f"  {eval_bp:>7,} bp: no arm without a flag"
    best = competing.loc[competing["auroc"].idxmax()]
    line = f"  {eval_bp:>7,} bp: {best['attention']} + {best['rule']}, AUROC {best['auroc']:.3f}"
    if not math.isnan(best["auroc_lo"]):
        line += f" [{best['auroc_lo']:.3f}, {best['auroc_hi']:.3f}]"
    if not math.isnan(best["ceiling"]):
        line += f" (ceiling {best['ceiling']:.3f})"
    line += f", {best['verdict']}"
    if best["verdict"] in ("better", "worse"):
        line += f" by {abs(best['delta']):.3f}"
    return line + (f" ({best['flags']})" if best["flags"] else "")
