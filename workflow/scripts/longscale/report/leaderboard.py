"""The Genomics Long-Range Benchmark's table for readers: a page with a section per kind of task."""

import html
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from longscale.evaluation.compare import interval_text
from longscale.evaluation.lrb_extension import build_table_2
from longscale.evaluation.lrb_table import CELL_COLUMNS, HEADLINES, LRB_FLAGS
from longscale.report.tables import PUBLISHED, html_table, write_page
from longscale.tasks.probe_tasks import PROBE_TASKS

KIND_TITLES = {
    "variant": "Variant effects",
    "interval": "Regulatory elements",
    "multilabel": "Chromatin features",
    "expression": "Bulk RNA expression",
    "profile": "CAGE profiles",
}
OTHER = "Other tasks"
NOTE = (
    "Means over folds on the test rows; in brackets the 95% interval (bootstrap over folds and "
    "genomic blocks). Rows are ordered by the task's first metric. The ceiling is what the best "
    "possible prediction reaches in that first metric, where the data are simulated. Published: "
    "numbers of the benchmark's paper, which come without intervals and were measured by others."
)
EXTENSION_NOTE = (
    "Rows: input length. Columns: the context that the model was trained on. Scaling ntk: "
    "NTK-aware rescaling of the rotary base beyond that context."
)


def write_leaderboard(
    table: pd.DataFrame,
    path: str | Path,
    *,
    kinds: Mapping[str, str] | None = None,
    extension: pd.DataFrame | None = None,
) -> None:
    """Write the page, whole or not at all; every text is escaped.

    Args:
        table: what `lrb_table.build_lrb_table` made.
        path: of the page.
        kinds: task -> kind, for tasks that `PROBE_TASKS` does not have.
        extension: what `lrb_extension.build_extension_table` made, for a last section.
    """
    of_tasks = {name: task.kind for name, task in PROBE_TASKS.items()} | dict(kinds or {})
    parts = [_paragraph(NOTE)]
    for title, tasks in _sections(table, of_tasks):
        parts.append(f"<h2>{html.escape(title)}</h2>\n")
        for task in tasks:
            rows = build_task_board(table[table["task"] == task])
            parts.append(f"<h3>{html.escape(task)}</h3>\n{html_table(rows, LRB_FLAGS)}")
    if extension is not None and len(extension):
        parts.append(f"<h2>Context extension</h2>\n{_paragraph(EXTENSION_NOTE)}")
        parts.append(html_table(_with_source(build_table_2(extension))))
    write_page(path, "Genomics Long-Range Benchmark", "".join(parts))


def summarise_lrb(table: pd.DataFrame) -> str:
    """A line per arm of this run, by the task's headline metric, with the ceiling where there is
    one; a group per task. Published rows and zero-shot scores are left out.
    """
    shown = table[(table["published"] == 0) & table["metric"].isin(HEADLINES)]
    blocks = []
    for (task, metric), rows in shown.groupby(["task", "metric"], sort=True):
        lines = [f"{task}, {metric}:"]
        for _, row in rows.sort_values("value", ascending=False, kind="stable").iterrows():
            arm = f"{row['model']}, {row['context_bp']:,} bp, {row['extension']} + {row['rule']}"
            ceiling = "" if pd.isna(row["ceiling"]) else f" (ceiling {row['ceiling']:.3f})"
            lines.append(f"  {arm}: {interval_text(row, metric='value')}{ceiling}")
        blocks.append("\n".join(lines))
    if any("*" in block for block in blocks):
        blocks.append("(* flagged: the column `flags` says why)")
    return "\n".join(blocks)


def build_task_board(rows: pd.DataFrame) -> pd.DataFrame:
    """One task: a row per model, context, rule and extension, a column per metric, as text.

    `rows` are those of the LRB table. Columns: `model, context_bp, rule, extension`, the metrics
    (`0.730 [0.721, 0.739]`), `ceiling` (of the first metric), `n`, `source` (`this run` or
    `published`), `flags`. Ordered by the first metric, the highest first.
    """
    metrics = _ordered_metrics(rows)
    first = metrics[0]
    place = [name for name in CELL_COLUMNS if name != "task"]
    text = rows.assign(flags="").apply(interval_text, axis=1, metric="value")
    keyed = rows.assign(text=text, context_bp=rows["context_bp"].map(_whole))
    board = []
    for key, own in keyed.groupby([*place, "published"], sort=False):
        by_metric = own.set_index("metric")
        headline = by_metric.reindex([first]).iloc[0]
        board.append(
            dict(zip(place, key, strict=False))
            | {metric: by_metric["text"].get(metric, "") for metric in metrics}
            | {
                "ceiling": headline["ceiling"],
                "n": _whole(own["n"].max()),
                "published": key[-1],
                "flags": ";".join(dict.fromkeys(filter(None, ";".join(own["flags"]).split(";")))),
                "order": headline["value"],
            }
        )
    ordered = pd.DataFrame(board).sort_values("order", ascending=False, kind="stable")
    return _with_source(ordered.drop(columns="order"))


def _ordered_metrics(rows: pd.DataFrame) -> list[str]:
    """The metrics of a task: the headline first, then as they come."""
    metrics = list(dict.fromkeys(rows["metric"]))
    return sorted(metrics, key=lambda name: name not in HEADLINES)


def _with_source(table: pd.DataFrame) -> pd.DataFrame:
    """The column `published` in words, last but for the flags."""
    source = table["published"].map({0: "this run", 1: PUBLISHED})
    table = table.drop(columns="published").assign(source=source)
    columns = [name for name in table.columns if name != "flags"]
    return table[[*columns, *table.columns.intersection(["flags"])]].reset_index(drop=True)


def _whole(number: object) -> str:
    """A whole number, or nothing where there is none."""
    return "" if pd.isna(number) else f"{int(number):,}"


def _sections(table: pd.DataFrame, kinds: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
    """Title and tasks of each kind that there is."""
    tasks = list(dict.fromkeys(table["task"]))
    for kind, title in (*KIND_TITLES.items(), (None, OTHER)):
        own = [task for task in tasks if kinds.get(task) == kind]
        if own:
            yield title, own


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>\n"
