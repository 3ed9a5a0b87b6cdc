"""Figures of the benchmark's table: a task's metric against context length, beside the ceiling.

A figure shows one task; a panel per model, a line per extension and length rule.
"""

from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from longscale.evaluation.lrb_table import HEADLINES
from longscale.report.plots import (
    CEILING_LINE,
    STYLE,
    draw_points,
    format_bp,
    line_styles,
    offsets,
    save_figure,
)

COLUMNS = 3
MARGIN = 0.45  # beside the first and the last length, in octaves
FLAGS_OF_ARMS = ("non_finite_loss", "not_converged", "rows_left_out")


def select_figures(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield `{task}.{metric}` and the rows of each figure: headline metrics at known contexts."""
    shown = table[table["metric"].isin(HEADLINES) & (table["context_bp"].fillna(0) > 0)]
    for (task, metric), rows in shown.dropna(subset="value").groupby(["task", "metric"]):
        yield f"{task}.{metric}", rows.assign(arm=_arms(rows), panel=_panels(rows))


def _arms(rows: pd.DataFrame) -> pd.Series:
    """Extension and rule in a word: `none`, `ntk`, `infoscale`, `ntk + infoscale`."""
    arm = rows["extension"] + " + " + rows["rule"]
    return arm.str.removeprefix("none + ").str.removesuffix(" + none")


def _panels(rows: pd.DataFrame) -> pd.Series:
    return rows["model"] + np.where(rows["published"] == 1, " (published)", "")


@mpl.rc_context(STYLE)
def write_leaderboard_plots(table: pd.DataFrame, folder: str | Path) -> list[Path]:
    """Write every figure of an LRB table as `{task}.{metric}.svg` and `.png`; see `select_figures`.

    Returns the paths written; each file is whole or absent. The folder is there afterwards.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    written = []
    for name, rows in select_figures(table):
        written += save_figure(plot_task(rows), Path(folder) / f"{name}.svg")
    return written


@mpl.rc_context(STYLE)
def plot_task(rows: pd.DataFrame) -> Figure:
    """Draw one task: rows of `select_figures`. Published panels stand last."""
    models = list(rows.sort_values("published", kind="stable")["panel"].unique())
    styles = line_styles(sorted(rows["arm"].unique()))
    columns = min(COLUMNS, len(models))
    lines = -(-len(models) // columns)
    figure = Figure(figsize=(2.2 + 2.4 * columns, 1 + 2 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, model in zip(panels, models, strict=False):
        _draw_panel(axes, rows[rows["panel"] == model], styles)
        axes.set_title(model, loc="left")
    for axes in panels[len(models) :]:
        axes.set_axis_off()
    _scale(panels[0], rows)
    figure.supxlabel("Context length", fontsize=8)
    figure.supylabel(rows["metric"].iloc[0], fontsize=8)
    folds = sorted(rows["folds"].dropna().unique())
    told = f", {folds[-1]} folds; bars: 95% interval" if folds else ""
    figure.suptitle(f"{rows['task'].iloc[0]}{told}", fontsize=8, x=0.01, ha="left")
    figure.legend(handles=_legend(rows, styles), loc="outside right upper", frameon=False)
    return figure


def _draw_panel(axes: Axes, rows: pd.DataFrame, styles: dict[str, dict[str, str]]) -> None:
    ceiling = rows.dropna(subset="ceiling").drop_duplicates("context_bp").sort_values("context_bp")
    x, y = _log(ceiling["context_bp"]), ceiling["ceiling"].to_numpy(float)
    if len(ceiling) == 1:  # a line through one point is none
        x, y = x + np.array([-MARGIN, MARGIN]), y.repeat(2)
    axes.plot(x, y, **CEILING_LINE)
    for (arm, style), offset in zip(styles.items(), offsets(len(styles)), strict=True):
        own = rows[rows["arm"] == arm].sort_values("context_bp")
        x, y = _log(own["context_bp"]) + offset, own["value"].to_numpy(float)
        front = 3 if arm == "none" else 2
        axes.plot(x, y, color=style["color"], linewidth=1, zorder=front)
        bars = {"color": style["color"], "linewidth": 0.8, "zorder": front}
        axes.vlines(x, own["value_lo"], own["value_hi"], **bars)
        draw_points(axes, x, y, own["flags"], style, front + 1, FLAGS_OF_ARMS)


def _log(lengths: pd.Series) -> np.ndarray:
    return np.log2(lengths.to_numpy(float))


def _scale(axes: Axes, rows: pd.DataFrame) -> None:
    """One scale for all panels: contexts on a log2 axis, each of them a tick."""
    x = np.unique(_log(rows["context_bp"]))
    axes.set_xlim(x.min() - MARGIN, x.max() + MARGIN)
    axes.xaxis.set_major_locator(FixedLocator(x))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: format_bp(round(2**value)))


def _legend(rows: pd.DataFrame, styles: dict[str, dict[str, str]]) -> list[Line2D]:
    handles = [
        Line2D([], [], linewidth=1, markersize=3.5, label=arm, **style)
        for arm, style in styles.items()
    ]
    if rows["ceiling"].notna().any():
        handles.append(Line2D([], [], label="ceiling", **CEILING_LINE))
    return handles
