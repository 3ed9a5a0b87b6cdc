"""Figures of the benchmark's table: which there are and what they show."""

import numpy as np
import pandas as pd
from test_report_leaderboard import EQTL, lrb_row

from longscale.report.leaderboard_plots import (
    plot_task,
    select_figures,
    write_leaderboard_plots,
)

ARMS = (
    {"rule": "none", "extension": "none"},
    {"rule": "none", "extension": "ntk"},
    {"rule": "infoscale", "extension": "ntk"},
)
LENGTHS = (12_000, 24_000, 48_000)


def make_table():
    rows = [
        lrb_row(context_bp=bp, model=model, value=0.7 + i / 100, ceiling=0.9, **place)
        for model in ("nt", "gau")
        for i, bp in enumerate(LENGTHS)
        for place in ARMS
    ]
    rows += [
        lrb_row(context_bp=0, model="features"),
        lrb_row(context_bp=np.nan, model="Enformer", published=1),
        lrb_row(model="NT-50M", published=1, extension="ntk"),
        lrb_row(metric="accuracy"),
        lrb_row(task="rna", metric="spearman_genes", flags="not_converged"),
    ]
    kinds = dict.fromkeys(("context_bp", "folds", "published", "n"), "Int64")
    return pd.DataFrame(rows).astype(kinds)


def test_a_figure_per_task_with_a_panel_per_model_and_published_ones_last():
    figures = dict(select_figures(make_table()))
    assert list(figures) == ["rna.spearman_genes", f"{EQTL}.auroc"]
    figure = plot_task(figures[f"{EQTL}.auroc"])
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        *("nt", "gau", "NT-50M (published)")
    ]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["none", "ntk", "ntk + infoscale", "ceiling"]


def test_lines_are_the_tables_values():
    figure = plot_task(dict(select_figures(make_table()))[f"{EQTL}.auroc"])
    axes = figure.axes[0]
    ceiling, *lines = [line for line in axes.lines if len(line.get_xdata()) == len(LENGTHS)]
    np.testing.assert_array_equal(ceiling.get_ydata(), [0.9] * 3)
    np.testing.assert_allclose(ceiling.get_xdata(), np.log2(LENGTHS))
    assert len(lines) >= 3
    for line in lines:
        np.testing.assert_allclose(line.get_ydata(), [0.70, 0.71, 0.72])


def test_the_ceiling_of_a_single_length_is_a_line_too():
    table = make_table()
    figure = plot_task(
        dict(select_figures(table[table["context_bp"] == LENGTHS[0]]))[f"{EQTL}.auroc"]
    )
    ceiling = figure.axes[0].lines[0]
    assert list(ceiling.get_ydata()) == [0.9, 0.9]
    assert np.mean(ceiling.get_xdata()) == np.log2(LENGTHS[0])
    assert np.diff(ceiling.get_xdata()) > 0.5


def test_files_are_written_the_same_each_time(tmp_path):
    written = write_leaderboard_plots(make_table(), tmp_path / "a")
    again = write_leaderboard_plots(make_table(), tmp_path / "b")
    assert [path.name for path in written] == [
        f"{name}.{kind}"
        for name in ("rna.spearman_genes", f"{EQTL}.auroc")
        for kind in ("svg", "png")
    ]
    for one, other in zip(written, again, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_a_table_without_contexts_has_no_figure_but_a_folder(tmp_path):
    table = make_table()
    assert write_leaderboard_plots(table[table["model"] == "features"], tmp_path / "none") == []
    assert (tmp_path / "none").is_dir()
