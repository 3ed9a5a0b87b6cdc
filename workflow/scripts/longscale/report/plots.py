"""Figures of the AUROC table: AUROC against window length, per arm, beside the ceiling.

A figure shows one task, protocol and model; a row of panels per training length, a column per
attention, a line per length rule.
"""

from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MultipleLocator, NullLocator

from longscale.evaluation.compare import ARM_FLAGS, is_released_arm, sort_arms
from longscale.files import atomic_path

# Okabe and Ito 2008, "Color universal design"; black is for `none`. Markers repeat the
# distinction for print in grey, and carry it on where a table has more rules than colours.
COLOURS = ["#E69F00", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442"]
MARKERS = ["s", "^", "D", "v", "P", "X", "p", "h", "<", ">", "*"]
GREY = "#666666"
CEILING_LINE = {"color": GREY, "linewidth": 1, "linestyle": "--"}
CHANCE_LINE = {"color": GREY, "linewidth": 0.8, "linestyle": ":"}
TRAINING_LINE = {"color": GREY, "linewidth": 5, "alpha": 0.15}

STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "svg.hashsalt": "longscale",  # the same table gives the same bytes
    "text.parse_math": False,  # names come from data, where a $ is a $
}


def format_bp(window_bp: int) -> str:
    """A length in bp as a tick label: 500 bp, 1 kb, 1.5 kb, 1 Mb."""
    for unit, size in (("Mb", 1_000_000), ("kb", 1_000)):
        if window_bp >= size:
            return f"{window_bp / size:g} {unit}"
    return f"{window_bp} bp"


def select_figures(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield a name, `{task}.{protocol}.{model}`, and the rows of each figure.

    Arms of the released code do not stand beside the others: attentions and rules that end in
    `-released` are left out, protocol `released` has figures of its own.
    """
    shown = table[~is_released_arm(table)]
    for names, rows in shown.groupby(["task", "protocol", "model"], sort=True):
        yield ".".join(names), sort_arms(rows)


@mpl.rc_context(STYLE)
def write_auroc_plots(table: pd.DataFrame, folder: str | Path) -> list[Path]:
    """Write every figure of an AUROC table as `{name}.svg` and `{name}.png` (see `select_figures`).

    Returns the paths written; each file is whole or absent.
    """
    written = []
    for name, rows in select_figures(table):
        written += save_figure(plot_auroc(rows), Path(folder) / f"{name}.svg")
    return written


def save_figure(figure: Figure, path: str | Path) -> list[Path]:
    """Write `path`, an `.svg`, and the same as `.png` beside it; each is whole or absent.

    The same figure gives the same bytes, if it was drawn and is saved within `STYLE`.
    """
    written = []
    for suffix, metadata in (("svg", {"Date": None}), ("png", None)):
        written.append(Path(path).with_name(f"{Path(path).name.removesuffix('.svg')}.{suffix}"))
        with atomic_path(written[-1]) as part:
            figure.savefig(part, format=suffix, dpi=200, metadata=metadata)
    return written


@mpl.rc_context(STYLE)
def plot_auroc(rows: pd.DataFrame) -> Figure:
    """Draw one task, protocol and model: rows of an AUROC table, in its column names."""
    train_lengths = sorted(rows["train_bp"].unique())
    attentions = list(dict.fromkeys(rows["attention"]))
    styles = line_styles(list(dict.fromkeys(rows["rule"])))
    size = (1.6 + max(3.2, 2.3 * len(attentions)), 1 + 2 * len(train_lengths))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(
        len(train_lengths), len(attentions), sharex=True, sharey=True, squeeze=False
    )
    for train_bp, line in zip(train_lengths, panels, strict=True):
        for attention, axes in zip(attentions, line, strict=True):
            of_panel = (rows["train_bp"] == train_bp) & (rows["attention"] == attention)
            _draw_panel(axes, rows[of_panel], int(train_bp), styles)
            axes.set_title(f"{attention}, trained at {format_bp(train_bp)}", loc="left")
        line[0].set_ylabel("AUROC")
    for axes in panels[-1]:
        axes.set_xlabel("Window length")
    _scale_axes(panels[0, 0], rows)
    figure.suptitle(_heading(rows), fontsize=8, x=0.01, ha="left", linespacing=1.5)
    figure.legend(handles=_legend(rows, styles), loc="outside right upper", frameon=False)
    return figure


def line_styles(names: list[str], first: str = "none") -> dict[str, dict[str, str]]:
    """Colour and marker of each name, the same in all panels; `first` is black."""
    styles = {first: {"color": "black", "marker": "o"}} if first in names else {}
    for index, name in enumerate(name for name in names if name != first):
        styles[name] = {
            "color": COLOURS[index % len(COLOURS)],
            "marker": MARKERS[index % len(MARKERS)],
        }
    return styles


def _draw_panel(
    axes: Axes, rows: pd.DataFrame, train_bp: int, styles: dict[str, dict[str, str]]
) -> None:
    axes.axvline(np.log2(train_bp), **TRAINING_LINE)
    axes.axhline(0.5, **CHANCE_LINE)
    ceiling = rows.drop_duplicates("eval_bp").sort_values("eval_bp").dropna(subset="ceiling")
    axes.plot(np.log2(ceiling["eval_bp"]), ceiling["ceiling"], **CEILING_LINE)
    for (rule, style), offset in zip(styles.items(), offsets(len(styles)), strict=True):
        _draw_rule(
            axes, rows[rows["rule"] == rule], style, offset, front=3 if rule == "none" else 2
        )


def offsets(count: int) -> np.ndarray:
    """Shifts in log2(bp) that keep the error bars of `count` lines apart."""
    return 0.07 * (np.arange(count) - (count - 1) / 2)


def _draw_rule(
    axes: Axes, rows: pd.DataFrame, style: dict[str, str], offset: float, front: int
) -> None:
    rows = rows.sort_values("eval_bp")
    colour = style["color"]
    x = np.log2(rows["eval_bp"].to_numpy(float)) + offset
    middle = rows["auroc"].to_numpy(float)
    axes.plot(x, middle, color=colour, linewidth=1, zorder=front)
    axes.vlines(x, rows["auroc_lo"], rows["auroc_hi"], color=colour, linewidth=0.8, zorder=front)
    draw_points(axes, x, middle, rows["flags"], style, front + 1)


def draw_points(
    axes: Axes,
    x: np.ndarray,
    y: np.ndarray,
    flags: Iterable[str],
    style: Mapping[str, str],
    zorder: int,
    arm_flags: Container[str] = ARM_FLAGS,
) -> None:
    """The points of one arm, hollow where a flag concerns it (see `is_hollow`)."""
    hollow = np.array([is_hollow(of_point, arm_flags) for of_point in flags], dtype=bool)
    for chosen, face in ((~hollow, style["color"]), (hollow, "white")):
        axes.plot(
            x[chosen],
            y[chosen],
            **style,
            linestyle="",
            markersize=3.5,
            markeredgewidth=0.8,
            markerfacecolor=face,
            zorder=zorder,
        )


def is_hollow(flags: str, arm_flags: Container[str] = ARM_FLAGS) -> bool:
    """A point is hollow where a flag concerns the arm, not the whole task."""
    return any(flag in arm_flags for flag in flags.split(";"))


def _scale_axes(axes: Axes, rows: pd.DataFrame) -> None:
    """One scale for all panels (they share it): lengths on a log2 axis, room around the data."""
    lengths = sorted(rows["eval_bp"].unique())
    x = np.log2([*lengths, *rows["train_bp"]])
    axes.set_xlim(x.min() - 0.45, x.max() + 0.45)
    axes.xaxis.set_major_locator(FixedLocator(np.log2(lengths)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: format_bp(round(2**value)))
    values = rows[["auroc", "auroc_lo", "auroc_hi", "ceiling"]].to_numpy(float)
    low = np.nanmin(values, initial=0.5)
    high = np.nanmax(values, initial=0.6)
    axes.set_ylim(low - 0.03, min(1.01, high + 0.03))
    axes.yaxis.set_major_locator(MultipleLocator(0.1 if high - low > 0.25 else 0.05))


def _heading(rows: pd.DataFrame) -> str:
    """What the figure shows, and how much it rests on: variants, positives, seeds, flags."""
    first = rows.iloc[0]
    fewest, most = rows["seeds"].min(), rows["seeds"].max()
    seeds = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    lines = [
        f"{first['task']}: {first['model']}, {first['protocol']} protocol",
        f"n = {first['n']:,}, {first['positives']:,} positive; bars: 95% interval",
        f"mean of {seeds} seed{'' if seeds == '1' else 's'}",
    ]
    common = set.intersection(*(set(flags.split(";")) for flags in rows["flags"])) - {""}
    if common:
        lines.append(f"flagged throughout: {', '.join(sorted(common))}")
    return "\n".join(lines)


def _legend(rows: pd.DataFrame, styles: dict[str, dict[str, str]]) -> list[Line2D]:
    handles = [
        Line2D([], [], linewidth=1, markersize=3.5, label=rule, **style)
        for rule, style in styles.items()
    ]
    if rows["flags"].map(is_hollow).any():
        hollow = {"marker": "o", "markerfacecolor": "white", "linestyle": "", "markersize": 3.5}
        handles.append(Line2D([], [], color=GREY, label="flagged", **hollow))
    if rows["ceiling"].notna().any():
        handles.append(Line2D([], [], label="ceiling", **CEILING_LINE))
    handles.append(Line2D([], [], label="chance", **CHANCE_LINE))
    handles.append(Line2D([], [], label="training length", **TRAINING_LINE))
    return handles
