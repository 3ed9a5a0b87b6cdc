"""Figure of a corpus: its documents in the plane of the first two spectral coordinates."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from longscale.errors import LongscaleError
from longscale.report.plots import COLOURS, GREY, MARKERS, STYLE, save_figure

LABEL_CHARACTERS = 24
POINT = {"linestyle": "", "markersize": 4, "markeredgewidth": 0, "alpha": 0.7}
RING = {
    "marker": "o",
    "linestyle": "",
    "markersize": 8,
    "markerfacecolor": "none",
    "markeredgecolor": "black",
    "markeredgewidth": 0.9,
}
LEADER = {
    "arrowstyle": "-",
    "color": GREY,
    "linewidth": 0.3,
    "relpos": (0, 0.5),
    "shrinkA": 1,
    "shrinkB": 4,
}


@mpl.rc_context(STYLE)
def write_documents_plot(table: pd.DataFrame, path: str | Path) -> list[Path]:
    """Write the figure of `test_documents.tsv` as `path`, an `.svg`, and as `.png` beside it."""
    return save_figure(plot_documents(table), path)


@mpl.rc_context(STYLE)
def plot_documents(table: pd.DataFrame) -> Figure:
    """Draw the clustered documents: a colour per cluster, test documents ringed and named.

    `table` is what `tasks.corpora.read_test_documents` reads. Raises LongscaleError where the
    documents were not clustered.
    """
    rows = table[table["cluster"].notna()]
    if rows.empty:
        raise LongscaleError(
            "test_documents.tsv: its documents have no cluster, so there is nothing to draw; "
            "select: 'spectral' would cluster them"
        )
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    clusters = sorted(rows["cluster"].unique())
    handles = [_draw_cluster(axes, rows[rows["cluster"] == c], int(c)) for c in clusters]
    chosen = rows[rows["chosen"] == "test"]
    axes.plot(chosen["x"], chosen["y"], **RING)
    _name_beside(axes, chosen)
    axes.margins(0.06)
    axes.set(xlabel="First spectral coordinate", ylabel="Second spectral coordinate")
    axes.set_title(f"{len(rows):,} documents, {len(chosen)} of them to test on", loc="left")
    handles.append(Line2D([], [], label="test document", **RING))
    figure.legend(handles=handles, loc="outside lower left", ncols=4, frameon=False)
    return figure


def _name_beside(axes: Axes, chosen: pd.DataFrame) -> None:
    """Name the documents in a column beside the panel, in their order from top to bottom.

    Documents that are much alike lie on top of each other, and names beside the points would too.
    """
    heights = np.linspace(0.98, 0.02, len(chosen)) if len(chosen) > 1 else [0.5]
    rows = chosen.sort_values("y", ascending=False)
    for row, height in zip(rows.itertuples(), heights, strict=True):
        axes.annotate(
            shorten_name(row.document),
            (row.x, row.y),
            xytext=(1.02, height),
            textcoords="axes fraction",
            fontsize=5.5,
            verticalalignment="center",
            arrowprops=LEADER,
        )


def _draw_cluster(axes: Axes, rows: pd.DataFrame, cluster: int) -> Line2D:
    """Draw one cluster's documents; its line of the legend."""
    style = {
        "color": COLOURS[cluster % len(COLOURS)],
        "marker": MARKERS[cluster % len(MARKERS)],
    }
    label = f"cluster {cluster + 1} ({len(rows):,})"
    (line,) = axes.plot(rows["x"], rows["y"], label=label, **POINT, **style)
    return line


def shorten_name(name: str) -> str:
    """The end of a long name: that is where paths and line numbers differ.

    What cannot be printed, and in part stands in no SVG, becomes the replacement character.
    """
    name = "".join(letter if letter.isprintable() else "\ufffd" for letter in name)
    return name if len(name) <= LABEL_CHARACTERS else "…" + name[1 - LABEL_CHARACTERS :]
