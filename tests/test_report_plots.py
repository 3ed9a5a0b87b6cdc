"""Figures: which there are, what they show, and that nothing overlaps."""

import itertools
import math
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from longscale.evaluation.compare import AUROC_COLUMNS
from longscale.report.plots import format_bp, plot_auroc, select_figures, write_auroc_plots

RULES = ["none", "infoscale", "logn", "sqrtlogn", "yarn-temperature", "critscale"]


def auroc_table(
    *,
    tasks=("sim_near",),
    protocols=("paired",),
    attentions=("dot", "cos16"),
    rules=RULES,
    train_bp=(1000,),
    eval_bp=(1000, 2000, 4000, 8000),
) -> pd.DataFrame:
    """A plausible table, each AUROC in it another number."""
    rows = []
    arms = itertools.product(tasks, protocols, train_bp, attentions, rules, eval_bp)
    for index, (task, protocol, train, attention, rule, length) in enumerate(arms):
        auroc = 0.9 - 0.04 * math.log2(max(1, length / train)) + 1e-4 * index
        rows.append(
            dict.fromkeys(AUROC_COLUMNS, 0.5)
            | {
                "task": task,
                "protocol": protocol,
                "model": "small",
                "train_bp": train,
                "attention": attention,
                "rule": rule,
                "eval_bp": length,
                "seeds": 3,
                "n": 1200,
                "positives": 600,
                "auroc": auroc,
                "auroc_lo": auroc - 0.01,
                "auroc_hi": auroc + 0.01,
                "verdict": "unresolved",
                "ceiling": 0.95,
                "flags": "",
            }
        )
    return pd.DataFrame(rows)


def texts(figure) -> list[str]:
    found = [figure.get_suptitle(), *(text.get_text() for text in figure.legends[0].get_texts())]
    return found + [axes.get_title(loc="left") for axes in figure.axes]


@pytest.mark.parametrize(
    ("window_bp", "label"),
    [(500, "500 bp"), (1000, "1 kb"), (1536, "1.536 kb"), (10_000, "10 kb"), (2_500_000, "2.5 Mb")],
)
def test_format_bp(window_bp, label):
    assert format_bp(window_bp) == label


def test_one_figure_per_task_protocol_and_model_without_released_arms():
    table = auroc_table(
        tasks=("eqtl", "clinvar"),
        protocols=("paired", "released"),
        attentions=("dot", "cos16-released"),
        rules=("none", "infoscale-released"),
    )
    figures = dict(select_figures(table))
    assert list(figures) == [
        "clinvar.paired.small",
        "clinvar.released.small",
        "eqtl.paired.small",
        "eqtl.released.small",
    ]
    for rows in figures.values():
        assert set(rows["attention"]) == {"dot"}
        assert set(rows["rule"]) == {"none"}


def test_files_are_whole_and_the_same_again(tmp_path):
    table = auroc_table(rules=RULES[:2])
    paths = write_auroc_plots(table, tmp_path / "one")
    assert [path.name for path in paths] == [
        "sim_near.paired.small.svg",
        "sim_near.paired.small.png",
    ]
    assert ET.parse(paths[0]).getroot().tag.endswith("svg")
    assert imread(paths[1]).std() > 0
    again = write_auroc_plots(table, tmp_path / "two")
    for first, second in zip(paths, again, strict=True):
        assert first.read_bytes() == second.read_bytes()
    assert len(list(tmp_path.rglob("*.*"))) == 4


def test_a_panel_per_attention_and_training_length_shows_every_number():
    table = auroc_table(train_bp=(1000, 2000))
    figure = plot_auroc(table)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "dot, trained at 1 kb",
        "cos16, trained at 1 kb",
        "dot, trained at 2 kb",
        "cos16, trained at 2 kb",
    ]
    panels = itertools.product((1000, 2000), ("dot", "cos16"))
    for axes, (train_bp, attention) in zip(figure.axes, panels, strict=True):
        shown = table[(table["train_bp"] == train_bp) & (table["attention"] == attention)]
        drawn = [tuple(line.get_ydata()) for line in axes.lines]
        for _, rows in shown.groupby("rule"):
            assert tuple(rows["auroc"]) in drawn
        assert (0.95,) * 4 in drawn
        assert (0.5, 0.5) in [tuple(map(float, line)) for line in drawn]
        # Dodged points stay nearer to their own length than to the next.
        for line in axes.lines:
            if len(line.get_xdata()) == 4:
                assert np.abs(line.get_xdata() - np.log2([1000, 2000, 4000, 8000])).max() < 0.5
        low, high = axes.get_ylim()
        assert low < 0.5
        assert high > 0.95


def test_every_rule_has_its_own_colour_and_marker():
    rules = [*RULES, "entropy-matched", "mine"]
    figure = plot_auroc(auroc_table(rules=rules))
    lines = dict(zip(texts(figure)[1:], figure.legends[0].get_lines(), strict=False))
    assert list(lines) == [*rules, "ceiling", "chance", "training length"]
    assert len({lines[rule].get_color() for rule in rules}) == len(rules)
    assert len({lines[rule].get_marker() for rule in rules}) == len(rules)


def test_heading_tells_what_the_figure_rests_on():
    table = auroc_table().assign(flags="few_blocks;single_chromosome")
    table.loc[3, "flags"] = "constant_prediction;few_blocks"
    figure = plot_auroc(table.assign(ceiling=math.nan))
    heading = figure.get_suptitle()
    assert "n = 1,200, 600 positive" in heading
    assert "mean of 3 seeds" in heading
    assert heading.endswith("flagged throughout: few_blocks")
    assert "ceiling" not in texts(figure)
    assert "flagged" in texts(figure)


def test_a_flagged_arm_is_hollow_and_one_without_auroc_is_no_error():
    table = auroc_table(attentions=("dot",), rules=("none",), eval_bp=(1000, 2000, 4000))
    table.loc[1, "flags"] = "not_converged"
    table.loc[2, ["auroc", "auroc_lo", "auroc_hi"]] = math.nan
    figure = plot_auroc(table)
    figure.canvas.draw()
    faces = {
        line.get_markerfacecolor(): line.get_ydata().tolist()
        for line in figure.axes[0].lines
        if line.get_marker() == "o" and line.get_linestyle() == "None"
    }
    assert faces["white"] == [table.loc[1, "auroc"]]
    assert faces["black"][0] == table.loc[0, "auroc"]


@pytest.mark.parametrize(
    "where",
    [
        {"attentions": ("dot",), "rules": ("none",), "eval_bp": (500, 1000)},
        {"attentions": ("dot", "cos16", "cos-matched"), "eval_bp": (1000, 2000, 6000, 10_000)},
        {"train_bp": (1000, 2000, 6000), "eval_bp": (1000, 2000, 6000)},
    ],
)
def test_nothing_overlaps_and_nothing_is_cut_off(where):
    figure = plot_auroc(auroc_table(**where))
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    parts = [axes.get_tightbbox(renderer) for axes in figure.axes]
    parts.append(figure.legends[0].get_window_extent(renderer))
    parts.append(figure._suptitle.get_window_extent(renderer))
    for one, other in itertools.combinations(parts, 2):
        assert not one.overlaps(other)
    for part in parts:
        assert 0 <= part.x0 < part.x1 <= figure.bbox.width
        assert 0 <= part.y0 < part.y1 <= figure.bbox.height
    for axes in figure.axes[-1:]:
        labels = [label.get_window_extent(renderer) for label in axes.get_xticklabels()]
        for one, other in itertools.pairwise(labels):
            assert one.x1 < other.x0
