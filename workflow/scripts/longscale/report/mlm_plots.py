"""Figures of the masked-LM branch: accuracy against length, loss curves, what attention does.

Every figure is written as `.svg` and, with the same name, as `.png`. Lengths are in tokens.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter

from longscale.evaluation.compare import is_released_arm, natural_order
from longscale.evaluation.cosine_peaks import theory_mean, theory_mode
from longscale.evaluation.mlm_table import (
    BASELINE,
    MLM_ARM_FLAGS,
    ROPE,
    is_trained_in,
    sort_mlm_arms,
)
from longscale.report.plots import (
    COLOURS,
    GREY,
    STYLE,
    draw_points,
    is_hollow,
    line_styles,
    save_figure,
)

PANEL = (2.1, 1.8)  # inches
HEADING_WIDTH = 6.0  # inches: what a heading and a legend beside it need
TRAINING_LINE = {"color": GREY, "linewidth": 1, "linestyle": ":"}
SCHEME_RULES = {"none": "-", "infoscale": "--"}
LOSS_LINE = {"linewidth": 0.8}
DEV_POINTS = {"linestyle": "", "marker": "o", "markersize": 2, "markeredgewidth": 0}
MARKS = {"better": "▲", "worse": "▼"}
_LEGEND = {"loc": "outside right upper", "frameon": False}


def select_mlm_figures(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield a name, `{corpus}.{model}.{protocol}`, and the rows of each figure.

    Arms of the released code do not stand beside the others: they are left out, protocol
    `released` has figures of its own.
    """
    names = ("attention", "trained_scheme", "scheme", "rule")
    shown = table[~is_released_arm(table, names)]
    for place, rows in shown.groupby(["corpus", "model", "protocol"], sort=True):
        yield ".".join(place), sort_mlm_arms(rows)


# --------------------------------------------------------------------- accuracy against length


@mpl.rc_context(STYLE)
def plot_length_curves(table: pd.DataFrame, folder: str | Path) -> list[Path]:
    """Write one figure per corpus, model and protocol (see `draw_length_curves`)."""
    written = []
    for name, rows in select_mlm_figures(table):
        on_rope = rows[(rows["scheme"] == ROPE) & (rows["trained_scheme"] == ROPE)]
        if not on_rope.empty:
            written += save_figure(draw_length_curves(on_rope), Path(folder) / f"{name}.svg")
    return written


@mpl.rc_context(STYLE)
def draw_length_curves(rows: pd.DataFrame) -> Figure:
    """Accuracy against length: a panel per attention and training length, a line per rule.

    `rows` are of one corpus, model and protocol, trained and read with RoPE.
    """
    styles = line_styles(_unique(rows["rule"]))
    places = [
        (attention, train_length)
        for train_length in sorted(rows["train_length"].unique())
        for attention in _unique(rows["attention"])
    ]
    columns = _columns(rows["attention"].nunique(), most=3)
    figure, panels = _new_figure([len(places)], columns)
    for (attention, train_length), axes in zip(places, panels, strict=True):
        of_panel = (rows["attention"] == attention) & (rows["train_length"] == train_length)
        axes.axvline(math.log2(train_length), **TRAINING_LINE)
        axes.set_title(f"{attention}, trained at {train_length:,}", loc="left")
        for rule, style in styles.items():
            _draw_curve(axes, rows[of_panel & (rows["rule"] == rule)], style)
    _scale_lengths(panels, rows)
    _scale_accuracy(panels, rows)
    _write_heading(figure, rows, "trained and read with RoPE")
    handles = [_handle(rule, style) for rule, style in styles.items()]
    figure.legend(handles=[*handles, *_common_handles(rows)], **_LEGEND)
    return figure


@mpl.rc_context(STYLE)
def plot_scheme_curves(table: pd.DataFrame, folder: str | Path) -> list[Path]:
    """Write one figure per corpus, model and protocol (see `draw_scheme_curves`)."""
    written = []
    for name, rows in select_mlm_figures(table):
        shown = rows[(rows["attention"] == "dot") & rows["rule"].isin(list(SCHEME_RULES))]
        if not shown.empty:
            written += save_figure(draw_scheme_curves(shown), Path(folder) / f"{name}.svg")
    return written


@mpl.rc_context(STYLE)
def draw_scheme_curves(rows: pd.DataFrame) -> Figure:
    """Accuracy against length of one attention: a panel per scheme, training-free ones first.

    Each panel repeats RoPE without a rule in black and, in light grey, the other schemes of its
    group without a rule. `rows` are of one corpus, model, protocol and attention.
    """
    rows = rows.assign(trained_in=is_trained_in(rows))
    blocks = [block for _, block in rows.groupby(["train_length", "trained_in"], sort=True)]
    schemes = [_unique(block["scheme"]) for block in blocks]
    columns = _columns(max(map(len, schemes)), most=4)
    figure, grid = _new_figure([len(names) for names in schemes], columns, size=(1.8, 1.5))
    panels = iter(grid)
    for block, names in zip(blocks, schemes, strict=True):
        for scheme in names:
            _draw_scheme(next(panels), scheme, block, rows)
    _scale_lengths(grid, rows)
    _scale_accuracy(grid, rows)
    _write_heading(figure, rows, f"{rows['attention'].iloc[0]} attention")
    figure.legend(handles=[*_scheme_handles(rows), *_common_handles(rows)], **_LEGEND)
    return figure


def _draw_scheme(axes: Axes, scheme: str, block: pd.DataFrame, rows: pd.DataFrame) -> None:
    """One panel; `block` holds the schemes of its group and training length, `rows` all."""
    train_length, trained_in = block[["train_length", "trained_in"]].iloc[0]
    axes.axvline(math.log2(train_length), **TRAINING_LINE)
    unruled = block[block["rule"] == "none"]
    for _, other in unruled[unruled["scheme"] != scheme].groupby("scheme"):
        other = other.sort_values("length")
        axes.plot(np.log2(other["length"]), other["accuracy"], color="#cccccc", linewidth=0.6)
    of_rope = (rows["scheme"] == ROPE) & (rows["train_length"] == train_length)
    reference = rows[of_rope & ~rows["trained_in"] & (rows["rule"] == "none")]
    _draw_curve(axes, reference, {"color": "black", "marker": ""}, band=False)
    for rule, line in SCHEME_RULES.items():
        if scheme == ROPE and not trained_in and rule == "none":
            continue  # that is the reference
        own = block[(block["scheme"] == scheme) & (block["rule"] == rule)]
        _draw_curve(axes, own, {"color": _group_colour(trained_in), "marker": "o"}, line)
    title = f"{scheme}, {_group_name(True)}" if trained_in else scheme
    several = rows["train_length"].nunique() > 1
    axes.set_title(f"{title}\ntrained at {train_length:,}" if several else title, loc="left")


def _group_name(trained_in: bool) -> str:
    return "trained in" if trained_in else "training-free"


def _group_colour(trained_in: bool) -> str:
    return COLOURS[3] if trained_in else COLOURS[1]


def _scheme_handles(rows: pd.DataFrame) -> list[Line2D]:
    """Groups by colour, rules by line; markers are left out, they only show where points lie."""
    handles = [Line2D([], [], color="black", linewidth=1, label="rope, none")]
    for trained_in in sorted(rows["trained_in"].unique()):
        for rule in _unique(rows["rule"]):
            line = {"color": _group_colour(trained_in), "linestyle": SCHEME_RULES[rule]}
            handles.append(
                Line2D([], [], linewidth=1, label=f"{_group_name(trained_in)}, {rule}", **line)
            )
    others = "other schemes of the\ngroup, none"
    return [*handles, Line2D([], [], color="#cccccc", linewidth=0.6, label=others)]


def _draw_curve(
    axes: Axes,
    rows: pd.DataFrame,
    style: Mapping[str, str],
    line: str = "-",
    *,
    band: bool = True,
) -> None:
    """One arm: its accuracy over length, the interval as a band; flagged points are hollow."""
    rows = rows.sort_values("length")
    colour = style["color"]
    front = 3 if colour == "black" else 2
    x = np.log2(rows["length"].to_numpy(float))
    middle = rows["accuracy"].to_numpy(float)
    if band:
        low, high = rows["accuracy_lo"].to_numpy(float), rows["accuracy_hi"].to_numpy(float)
        axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0, zorder=1)
    axes.plot(x, middle, color=colour, linewidth=1, linestyle=line, zorder=front)
    draw_points(axes, x, middle, rows["flags"], style, front + 1, MLM_ARM_FLAGS)


def _scale_lengths(panels: Sequence[Axes], rows: pd.DataFrame) -> None:
    """One log2 axis of lengths for all panels (they share it)."""
    lengths = sorted(rows["length"].unique())
    x = np.log2(lengths)
    for axes in panels:
        axes.xaxis.set_major_locator(FixedLocator(x[:: 1 if len(x) <= 4 else 2]))
        axes.xaxis.set_minor_locator(FixedLocator(x))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(lambda value, _: f"{2**value:,.0f}")
    panels[0].set_xlim(x.min() - 0.3, x.max() + 0.3)
    _label_outer(panels, "Length (tokens)", None)


def _scale_accuracy(panels: Sequence[Axes], rows: pd.DataFrame) -> None:
    values = rows[["accuracy", "accuracy_hi"]].to_numpy(float)
    panels[0].set_ylim(0, min(1.01, np.nanmax(values, initial=0.1) * 1.05))
    _label_outer(panels, None, "Accuracy")


def _write_heading(figure: Figure, rows: pd.DataFrame, what: str, *, bands: bool = True) -> None:
    """What the figure shows, and how much it rests on: targets, documents, seeds."""
    ran = rows[rows["n"] > 0]
    first = rows.iloc[0]
    lines = [
        f"{first['corpus']}: {first['model']}, {first['protocol']} protocol,",
        what,
        f"{_span(ran['n'])} masked tokens of {_span(ran['documents'])} documents, "
        f"{_seeds(ran['seeds'])}{'; bands: 95% interval' if bands else ''}",
    ]
    figure.suptitle("\n".join(lines), fontsize=8, x=0.01, ha="left", linespacing=1.5)


def _span(numbers: pd.Series) -> str:
    if numbers.empty:
        return "no"
    low, high = int(numbers.min()), int(numbers.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _seeds(numbers: pd.Series) -> str:
    return "one seed" if (numbers == 1).all() else f"mean of {_span(numbers)} seeds"


def _handle(label: str, style: Mapping[str, str]) -> Line2D:
    return Line2D([], [], linewidth=1, markersize=3.5, label=label, **style)


def _common_handles(rows: pd.DataFrame) -> list[Line2D]:
    handles = [Line2D([], [], label="training length", **TRAINING_LINE)]
    if any(is_hollow(flags, MLM_ARM_FLAGS) for flags in rows.loc[rows["n"] > 0, "flags"]):
        hollow = {"marker": "o", "markerfacecolor": "white", "linestyle": "", "markersize": 3.5}
        handles.append(Line2D([], [], color=GREY, label="flagged", **hollow))
    return handles


# ------------------------------------------------------------------------ schemes x rules


@mpl.rc_context(STYLE)
def plot_rule_gain(table: pd.DataFrame, folder: str | Path) -> list[Path]:
    """Write one figure per corpus, model and protocol (see `draw_rule_gain`)."""
    written = []
    for name, rows in select_mlm_figures(table):
        longest = rows[rows["length"] == rows["length"].max()]
        written += save_figure(draw_rule_gain(longest), Path(folder) / f"{name}.svg")
    return written


@mpl.rc_context(STYLE)
def draw_rule_gain(rows: pd.DataFrame) -> Figure:
    """Accuracy at one length as a matrix of schemes x rules, with the verdicts as marks.

    A panel per attention and training length, below each other; a line parts training-free schemes
    from trained-in ones. `rows` are of one corpus, model, protocol and length.
    """
    rows = rows.assign(trained_in=is_trained_in(rows))
    panels = [block for _, block in rows.groupby(["train_length", "attention"], sort=False)]
    lines = [block[["trained_in", "scheme"]].drop_duplicates().shape[0] for block in panels]
    rules = sort_names(rows["rule"])
    inches = (2.4 + max(2.4, 0.46 * len(rules)), 1.6 + 0.3 * len(panels) + 0.17 * sum(lines))
    figure = Figure(inches, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=lines)[:, 0]
    scale = mpl.colors.Normalize(0, np.nanmax(rows["accuracy"].to_numpy(float), initial=0.1))
    for block, axes in zip(panels, grid, strict=True):
        _draw_matrix(axes, block, rules, scale)
        axes.tick_params(length=0, labeltop=axes is grid[0], labelbottom=False)
    colours = mpl.cm.ScalarMappable(scale, "cividis")
    figure.colorbar(colours, ax=grid, label="Accuracy", anchor=(0, 1), aspect=30, shrink=0.6)
    first = rows.iloc[0]
    _write_heading(figure, rows, f"read at {first['length']:,} tokens", bands=False)
    figure.supxlabel(
        "\u25b2 better, \u25bc worse than dot, rope, none (framed): 95% interval of the paired\n"
        "difference excludes 0;   * flagged;   \u2013 cannot run",
        fontsize=7.5,
        x=0.01,
        ha="left",
    )
    return figure


def sort_names(names: pd.Series) -> list[str]:
    """The different names, the baseline first, numbers by value."""
    return sorted(names.unique(), key=lambda name: natural_order(name, BASELINE))


def _draw_matrix(
    axes: Axes, block: pd.DataFrame, rules: list[str], scale: mpl.colors.Normalize
) -> None:
    """One attention; the rows of `block` are sorted, training-free schemes first."""
    schemes = list(dict.fromkeys(zip(block["trained_in"], block["scheme"], strict=True)))
    values = np.full((len(schemes), len(rules)), np.nan)
    places = {}
    for row in block.to_dict("records"):
        line, column = schemes.index((row["trained_in"], row["scheme"])), rules.index(row["rule"])
        values[line, column] = row["accuracy"]
        places[line, column] = row
    axes.imshow(values, cmap="cividis", norm=scale, aspect="auto")
    for (line, column), row in places.items():
        dark = scale(row["accuracy"]) < 0.55 if row["n"] else False
        colour = "white" if dark else "black"
        axes.text(column, line, _cell_text(row), ha="center", va="center", color=colour, size=6.5)
        if row["verdict"] == "baseline":
            frame = {"fill": False, "edgecolor": COLOURS[3], "linewidth": 1.5}
            axes.add_patch(Rectangle((column - 0.5, line - 0.5), 1, 1, **frame))
    free = sum(not trained_in for trained_in, _ in schemes)
    if 0 < free < len(schemes):
        axes.axhline(free - 0.5, color="black", linewidth=1.5)
    labels = [f"{scheme} (trained in)" if trained else scheme for trained, scheme in schemes]
    axes.set_yticks(range(len(schemes)), labels)
    axes.set_xticks(range(len(rules)), rules, rotation=30, ha="left", rotation_mode="anchor")
    axes.spines[:].set_visible(False)
    first = block.iloc[0]
    axes.set_title(f"{first['attention']}, trained at {first['train_length']:,}", loc="left")


def _cell_text(row: Mapping[str, Any]) -> str:
    if not row["n"]:
        return "\u2013"
    star = "*" if is_hollow(row["flags"], MLM_ARM_FLAGS) else ""
    return f"{row['accuracy']:.2f}{star}{MARKS.get(row['verdict'], '')}"


# --------------------------------------------------------------------------- loss of the trainings


@mpl.rc_context(STYLE)
def plot_loss_curves(histories: pd.DataFrame, path: str | Path, heading: str = "") -> list[Path]:
    """Write `path`, an `.svg`, and a `.png` beside it (see `draw_loss_curves`)."""
    return save_figure(draw_loss_curves(histories, heading), path)


@mpl.rc_context(STYLE)
def draw_loss_curves(histories: pd.DataFrame, heading: str = "") -> Figure:
    """Loss against step: a panel per trained scheme, a line per training, points on dev text.

    `histories` has the columns `attention, scheme, seed, step, loss, dev_loss`: the trained scheme,
    losses in nats, NaN where there is none.
    """
    schemes = sort_names(histories["scheme"])
    styles = line_styles(sort_names(histories["attention"]), first="dot")
    columns = _columns(len(schemes), most=3)
    figure, panels = _new_figure([len(schemes)], columns, size=(2.4, 1.9))
    for scheme, axes in zip(schemes, panels, strict=True):
        of_scheme = histories[histories["scheme"] == scheme]
        for (attention, _), run in of_scheme.groupby(["attention", "seed"], sort=True):
            run = run.sort_values("step")
            colour = styles[attention]["color"]
            for column, look in (("loss", LOSS_LINE), ("dev_loss", DEV_POINTS)):
                known = run.dropna(subset=column)
                axes.plot(known["step"], known[column], color=colour, alpha=0.8, **look)
        axes.set_title(f"trained with {scheme}", loc="left")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    _label_outer(panels, "Step", "Loss (nats)")
    seeds = histories["seed"].nunique()
    note = f"a line per training, {seeds} seed{'' if seeds == 1 else 's'}; points: development text"
    figure.suptitle(f"{heading}\n{note}".strip(), fontsize=8, x=0.01, ha="left", linespacing=1.5)
    handles = [
        Line2D([], [], color=style["color"], linewidth=1, label=attention)
        for attention, style in styles.items()
    ]
    figure.legend(handles=handles, **_LEGEND)
    return figure


# ------------------------------------------------------------------------------ inside attention


@mpl.rc_context(STYLE)
def plot_entropy(
    entropies: pd.DataFrame, path: str | Path, train_length: int, heading: str = ""
) -> list[Path]:
    """Write `path`, an `.svg`, and a `.png` beside it (see `draw_entropy`)."""
    return save_figure(draw_entropy(entropies, train_length, heading), path)


@mpl.rc_context(STYLE)
def draw_entropy(entropies: pd.DataFrame, train_length: int, heading: str = "") -> Figure:
    """Entropy of attention against length: a panel per layer, a line per rule.

    `entropies` has the columns `rule, layer, length, entropy` (nats), of one attention; rows that
    differ in something else (seeds, heads) are averaged. The horizontal line is the layer's
    entropy at the training length, without a rule where that was measured.
    """
    rules = sort_names(entropies["rule"])
    styles = line_styles(rules)
    layers = sorted(entropies["layer"].unique())
    mean = entropies.groupby(["layer", "rule", "length"], as_index=False)["entropy"].mean()
    figure, panels = _new_figure(
        [len(layers)], _columns(len(layers), most=4 if len(layers) <= 12 else 6), size=(1.7, 1.4)
    )
    for layer, axes in zip(layers, panels, strict=True):
        rows = mean[mean["layer"] == layer]
        at_training = rows[rows["length"] == train_length].set_index("rule")["entropy"]
        for value in at_training.reindex(rules).dropna().iloc[:1]:
            axes.axhline(value, color=GREY, linewidth=0.8, linestyle="--")
        axes.axvline(math.log2(train_length), **TRAINING_LINE)
        for rule, style in styles.items():
            own = rows[rows["rule"] == rule].sort_values("length")
            axes.plot(np.log2(own["length"]), own["entropy"], **style, linewidth=1, markersize=2.5)
        axes.set_title(f"layer {layer}", loc="left")
    _scale_lengths(panels, mean)
    panels[0].set_ylim(0, np.nanmax(mean["entropy"].to_numpy(float), initial=0.1) * 1.05)
    _label_outer(panels, None, "Entropy (nats)")
    figure.suptitle(heading, fontsize=8, x=0.01, ha="left", linespacing=1.5)
    kept = Line2D([], [], color=GREY, linewidth=0.8, linestyle="--", label="entropy there")
    handles = [_handle(rule, style) for rule, style in styles.items()]
    figure.legend(
        handles=[*handles, Line2D([], [], label="training length", **TRAINING_LINE), kept],
        **_LEGEND,
    )
    return figure


@mpl.rc_context(STYLE)
def plot_cosine_peaks(peaks: pd.DataFrame, path: str | Path, heading: str = "") -> list[Path]:
    """Write `path`, an `.svg`, and a `.png` beside it (see `draw_cosine_peaks`)."""
    return save_figure(draw_cosine_peaks(peaks, heading), path)


@mpl.rc_context(STYLE)
def draw_cosine_peaks(peaks: pd.DataFrame, heading: str = "") -> Figure:
    """Where the cosines of queries and keys peak against alpha: theory lines, measured points.

    `peaks` has the columns `alpha, layer, peak, weighted_peak, weighted_mean, theory_mode,
    theory_mean`: of all cosines before RoPE and of those weighted by attention.
    """
    peaks = peaks.dropna(subset="alpha")  # the dot product has none
    figure, panels = _new_figure([2], 2, size=(3, 2.6))
    theory = _theory_curve(peaks)
    layers = sorted(peaks["layer"].unique())
    offsets = dict(zip(layers, np.linspace(-0.12, 0.12, max(2, len(layers))), strict=False))
    colours = mpl.colormaps["viridis"]
    scale = mpl.colors.Normalize(min(layers), max(layers) if len(layers) > 1 else min(layers) + 1)
    shown = [
        ("peak", "theory_mode", [("peak", "o", False), ("weighted_peak", "o", True)]),
        ("mean", "theory_mean", [("weighted_mean", "o", True)]),
    ]
    x = np.log2(peaks["alpha"]) + peaks["layer"].map(offsets)
    colour = colours(scale(peaks["layer"].to_numpy(float)))
    for axes, (name, line, measured) in zip(panels, shown, strict=True):
        axes.plot(np.log2(theory["alpha"]), theory[line], color="black", linewidth=1)
        for column, marker, filled in measured:
            faces = colour if filled else "none"
            axes.scatter(x, peaks[column], s=12, marker=marker, facecolors=faces, edgecolors=colour)
        axes.set_title(f"{name} of the cosines ({line.replace('_', ': ')})", loc="left")
        axes.set_ylim(0, 1.04)  # points near 1 stay whole
        axes.xaxis.set_major_formatter(lambda value, _: f"{2**value:g}")
    _label_outer(panels, "Alpha", "Cosine of query and key, before RoPE")
    figure.suptitle(heading, fontsize=8, x=0.01, ha="left", linespacing=1.5)
    whole = MaxNLocator(6, integer=True)
    figure.colorbar(
        mpl.cm.ScalarMappable(scale, colours), ax=panels, label="Layer", ticks=whole, aspect=30
    )
    figure.legend(handles=_peak_handles(), **_LEGEND)
    return figure


def _theory_curve(peaks: pd.DataFrame) -> pd.DataFrame:
    """The theory for every alpha from 4 to 512, in the dimension that the measured rows are of."""
    alpha, eta = peaks[["alpha", "theory_mode"]].iloc[0]
    d = round(alpha * (1 - eta**2) / eta) + 3  # the mode's equation, solved for d
    grid = 2 ** np.linspace(2, 9, 57)
    modes, means = ([f(a, d) for a in grid] for f in (theory_mode, theory_mean))
    return pd.DataFrame({"alpha": grid, "theory_mode": modes, "theory_mean": means})


def _peak_handles() -> list[Line2D]:
    point = {"linestyle": "", "marker": "o", "markersize": 3.5, "color": GREY}
    return [
        Line2D([], [], color="black", linewidth=1, label="theory"),
        Line2D([], [], label="measured, weighted\nby attention", **point),
        Line2D([], [], label="measured, all", markerfacecolor="white", **point),
    ]


@mpl.rc_context(STYLE)
def plot_attention_maps(
    maps: Mapping[str, np.ndarray], path: str | Path, heading: str = ""
) -> list[Path]:
    """Write `path`, an `.svg`, and a `.png` beside it (see `draw_attention_maps`)."""
    return save_figure(draw_attention_maps(maps, heading), path)


@mpl.rc_context(STYLE)
def draw_attention_maps(maps: Mapping[str, np.ndarray], heading: str = "") -> Figure:
    """Query-key heat maps of one model: a line per layer, before and after RoPE.

    `maps` holds `before` and `after`, (layers, n, n), queries along the second axis. Each map has
    colours of its own: before RoPE the values of a layer often differ by a tenth of those after it.
    """
    before, after = np.asarray(maps["before"], float), np.asarray(maps["after"], float)
    stacks = 1 + (len(before) > 6) + (len(before) > 12)  # layers beside each other
    figure, panels = _new_figure(
        [2 * math.ceil(len(before) / stacks) * stacks],
        2 * stacks,
        (1.7, 1.5),
        legend=0.3,
        share=False,
    )
    for axes in panels[2 * len(before) :]:
        axes.set_visible(False)
    for layer, pair in enumerate(zip(before, after, strict=True)):
        for axes, values, name in zip(panels[2 * layer :], pair, ("before", "after"), strict=False):
            image = axes.imshow(values, interpolation="nearest", **_map_style(values))
            figure.colorbar(image, ax=axes, pad=0.02)
            axes.set_title(f"layer {layer}, {name}", loc="left")
            axes.set_xticks([0, values.shape[1] - 1])
            axes.set_yticks([0, values.shape[0] - 1])
    _label_outer(panels[: 2 * len(before)], "Key", "Query")
    heading = f"{heading}\nlogits of queries and keys before and after RoPE".strip()
    figure.suptitle(heading, fontsize=8, x=0.01, ha="left", linespacing=1.5)
    return figure


def _map_style(values: np.ndarray) -> dict[str, Any]:
    """Values of both signs get colours that part at zero, others colours from lowest to highest."""
    largest = max(np.nanmax(np.abs(values), initial=0), 1e-12)
    if np.nanmin(values, initial=0) < 0:
        return {"cmap": "PuOr", "vmin": -largest, "vmax": largest}
    return {"cmap": "cividis", "vmin": np.nanmin(values, initial=largest), "vmax": largest}


# ------------------------------------------------------------------------------- the grid of panels


def _unique(names: pd.Series) -> list[str]:
    return list(dict.fromkeys(names))


def _columns(count: int, most: int) -> int:
    """Columns that hold `count` panels in as few rows as possible, and the rows evenly filled."""
    return math.ceil(count / math.ceil(count / most))


def _new_figure(
    blocks: Sequence[int],
    columns: int,
    size: tuple[float, float] = PANEL,
    *,
    legend: float = 1.5,
    share: bool = True,
) -> tuple[Figure, list[Axes]]:
    """A figure of blocks of panels in `columns` columns, each block on new lines.

    `blocks` are their numbers of panels, `size` is that of a panel and `legend` the width beside
    them, in inches. With `share` all panels have the same scales.
    """
    lines = [math.ceil(count / columns) for count in blocks]
    width = max(HEADING_WIDTH, legend + size[0] * columns)
    inches = (width, 0.7 + size[1] * sum(lines))
    figure = Figure(inches, layout="constrained")
    FigureCanvasAgg(figure)
    shape = (sum(lines), columns)
    grid = figure.subplots(*shape, sharex=share, sharey=share, squeeze=False)
    starts = np.cumsum([0, *lines])
    places = [
        divmod(start * columns + index, columns)
        for start, count in zip(starts, blocks, strict=False)
        for index in range(count)
    ]
    for place in np.ndindex(shape):
        grid[place].set_visible(place in places)
    return figure, [grid[place] for place in places]


def _label_outer(panels: Sequence[Axes], x: str | None, y: str | None) -> None:
    """Label the x axis of each column's lowest panel, and the y axis of each line's first."""
    places = [axes.get_subplotspec() for axes in panels]
    for axes, place in zip(panels, places, strict=True):
        column, line = place.colspan.start, place.rowspan.start
        if y and column == 0:
            axes.set_ylabel(y)
        below = [other for other in places if other.colspan.start == column]
        if x and line == max(other.rowspan.start for other in below):
            axes.set_xlabel(x)
            axes.tick_params(labelbottom=True)
