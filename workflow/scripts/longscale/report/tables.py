"""The tables for readers: an HTML page for the report, a few lines for the log."""

import html
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from longscale.evaluation import mlm_table
from longscale.evaluation.compare import ARM_FLAGS, FLAGS, is_released
from longscale.evaluation.mlm_table import ROPE
from longscale.files import atomic_path

PUBLISHED = "published"
"""In a column `source`: numbers of others, which are set off."""

_CSS = """
body { font: 14px/1.4 sans-serif; margin: 1.5em; color: #222; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
h1 { font-size: 1.1em; }
h2, h3 { font-size: 1em; margin: 1.6em 0 .3em; }
h3 { font-weight: normal; }
th { text-align: left; border-bottom: 2px solid #222; position: sticky; top: 0; background: #fff; }
th, td { padding: .15em .6em; white-space: nowrap; }
tr:nth-child(even) td { background: #f6f6f6; }
tr.flagged td { color: #8a4b00; }
tr.published td { color: #555; font-style: italic; }
td.flags { font-style: italic; }
tr td.better { color: #00614a; font-weight: bold; }
tr td.worse { color: #9c2f00; font-weight: bold; }
""".strip()


def write_html_table(
    table: pd.DataFrame,
    path: str | Path,
    *,
    title: str,
    flag_texts: Mapping[str, str] = FLAGS,
) -> None:
    """Write a table (long or wide) as one self-contained page, whole or not at all.

    Every text is escaped; numbers have three decimals, NaN is empty. What all rows share stands
    above the table, not in it. Rows with flags are set off, and the flags that occur are explained
    above, in the words of `flag_texts`.
    """
    write_page(path, title, html_table(table, flag_texts))


def html_table(table: pd.DataFrame, flag_texts: Mapping[str, str] = FLAGS) -> str:
    """What `write_html_table` puts below the title."""
    legend = _html_legend(table, flag_texts)
    table, shared = _split_shared(table)
    columns = [str(name) for name in table.columns]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "\n".join(
        _html_row(dict(zip(columns, row, strict=True))) for row in table.to_numpy(object)
    )
    return (
        f"{shared}{legend}<table>\n"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n"
    )


def write_page(path: str | Path, title: str, content: str) -> None:
    """Write one self-contained page, whole or not at all: `content` is HTML, `title` is text."""
    page = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{_CSS}\n</style>\n</head>\n<body>\n"
        f"<h1>{html.escape(title)}</h1>\n{content}</body>\n</html>\n"
    )
    with atomic_path(path) as part:
        part.write_text(page, encoding="utf-8")


SUMMARY_NOTE = (
    "(the highest of all arms at each length, which is so in part by chance: read the verdicts,\n"
    " against dot + none, and rule_verdict, against the same attention without a rule)"
)


def summarise(table: pd.DataFrame) -> str:
    """The best arm per task, protocol, model, training and evaluation length, one line each.

    Arms without a flag of their own training or scores compete (all, where there is none), released
    ones never do. The best of several arms is best in part by chance: its verdict, not its rank, is
    the result.
    """
    blocks = []
    main = table[~is_released(table)]
    for names, of_task in main.groupby(["task", "protocol", "model", "train_bp"], sort=True):
        task, protocol, model, train_bp = names
        lines = [f"{task}, {protocol} protocol, {model}, trained at {train_bp:,} bp:"]
        lines += [_summary_line(rows) for _, rows in of_task.groupby("eval_bp", sort=True)]
        blocks.append("\n".join(lines))
    return "\n".join([*blocks, SUMMARY_NOTE] if blocks else [])


def summarise_mlm(table: pd.DataFrame) -> str:
    """What each attention keeps, one line each: accuracy at the training and at the longest length.

    Of the arms trained and read with RoPE, without a rule and with `infoscale`; a group per
    corpus, protocol, model and training length. Released arms are left out.
    """
    blocks = []
    on_rope = (table["scheme"] == ROPE) & (table["trained_scheme"] == ROPE)
    main = table[on_rope & ~mlm_table.is_released(table)]
    for names, rows in main.groupby(["corpus", "protocol", "model", "train_length"], sort=True):
        corpus, protocol, model, train_length = names
        longest = rows["length"].max()
        lines = [
            f"{corpus}, {protocol} protocol, {model}, trained at {train_length:,} tokens, "
            f"read with RoPE at {longest:,}:"
        ]
        for attention, own in rows.groupby("attention", sort=False):
            at_longest = own[own["length"] == longest].set_index("rule")
            parts = [
                _retained_text(rule, at_longest.loc[rule])
                for rule in ("none", "infoscale")
                if rule in at_longest.index
            ]
            of_training = own[(own["length"] == train_length) & (own["rule"] == "none")]
            at_training = [f"{value:.3f} at {train_length:,}" for value in of_training["accuracy"]]
            lines.append(f"  {attention}: accuracy {'; '.join([*at_training, *parts])}")
        blocks.append("\n".join(lines))
    return "\n".join(blocks)


def _retained_text(rule: str, row: pd.Series) -> str:
    """One rule at the longest length: its accuracy, and the share that it retains."""
    if math.isnan(row["accuracy"]):
        return f"{rule}: cannot run"
    text = f"{rule}: {row['accuracy']:.3f}"
    if not math.isnan(row["retained"]):
        text += f", {row['retained']:.0%} retained"
    if not math.isnan(row["retained_lo"]):
        text += f" [{row['retained_lo']:.0%}, {row['retained_hi']:.0%}]"
    return text + (f" ({row['flags'].replace(';', ', ')})" if row["flags"] else "")


def _split_shared(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The table without the columns whose cells are all alike, and a paragraph that tells them."""
    if len(table) < 2:
        return table, ""
    shown = table.columns.drop("source", errors="ignore")
    alike = [name for name in shown if len(set(map(_text, table[name]))) == 1]
    told = [f"{name} {text}" for name in alike if (text := _text(table[name].iloc[0]))]
    line = f"<p>All rows: {html.escape(', '.join(told))}.</p>\n" if told else ""
    return table.drop(columns=alike), line


def _html_row(row: dict[str, Any]) -> str:
    cells = []
    for name, value in row.items():
        kind = {"flags": "flags", "verdict": value if value in ("better", "worse") else ""}
        mark = f' class="{kind[name]}"' if kind.get(name) else ""
        cells.append(f"<td{mark}>{html.escape(_text(value))}</td>")
    published = row.get("source") == PUBLISHED
    of_row = PUBLISHED if published else "flagged" if row.get("flags") else ""
    mark = f' class="{of_row}"' if of_row else ""
    return f"<tr{mark}>{''.join(cells)}</tr>"


def _text(value: Any) -> str:
    if value is pd.NA:
        return ""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{round(value, 3) + 0.0:.3f}"  # never -0.000
    return str(value)


def _html_legend(table: pd.DataFrame, flag_texts: Mapping[str, str]) -> str:
    """The meaning of the flags that occur (a wide table has none, its cells carry a star)."""
    if "flags" not in table.columns:
        return "<p>* flagged, see the long table. In brackets: 95% interval.</p>\n"
    present = {flag.partition(":")[0] for flags in table["flags"] for flag in flags.split(";")}
    known = [flag for flag in flag_texts if flag in present]
    items = "".join(f"<li><b>{flag}</b>: {html.escape(flag_texts[flag])}</li>" for flag in known)
    return f"<ul>{items}</ul>\n" if items else ""


def _summary_line(rows: pd.DataFrame) -> str:
    eval_bp = rows["eval_bp"].iloc[0]
    sound = [ARM_FLAGS.keys().isdisjoint(flags.split(";")) for flags in rows["flags"]]
    competing = rows[sound].dropna(subset="auroc")
    flagged = "" if len(competing) else "all arms are flagged; "
    if competing.empty:
        competing = rows.dropna(subset="auroc")
    if competing.empty:
        return f"  {eval_bp:>7,} bp: no arm has an AUROC"
    best = competing.loc[competing["auroc"].idxmax()]
    arm = f"{best['attention']} + {best['rule']}"
    line = f"  {eval_bp:>7,} bp: {flagged}{arm}, AUROC {best['auroc']:.3f}"
    if not math.isnan(best["auroc_lo"]):
        line += f" [{best['auroc_lo']:.3f}, {best['auroc_hi']:.3f}]"
    if not math.isnan(best["ceiling"]):
        line += f" (ceiling {best['ceiling']:.3f})"
    line += f", {best['verdict']}"
    if best["verdict"] in ("better", "worse"):
        line += f" by {abs(best['delta']):.3f}"
    return line + (f" ({best['flags']})" if best["flags"] else "")
