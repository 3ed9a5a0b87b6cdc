"""The leaderboard's page: what stands where, what is escaped, what is marked as published."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_report_tables import Cells

from longscale.evaluation.lrb_extension import build_extension_table
from longscale.evaluation.lrb_table import LRB_COLUMNS, read_published
from longscale.report.leaderboard import build_task_board, summarise_lrb, write_leaderboard

PUBLISHED = Path(__file__).resolve().parents[1] / "resources" / "lrb_published.tsv"
EQTL = "variant_effect_causal_eqtl"


def lrb_row(**values):
    row = dict.fromkeys(LRB_COLUMNS, np.nan) | {
        "task": EQTL,
        "model": "mine",
        "context_bp": 12_000,
        "rule": "none",
        "extension": "none",
        "metric": "auroc",
        "folds": 5,
        "value": 0.7,
        "value_lo": 0.68,
        "value_hi": 0.72,
        "published": 0,
        "n": 8846,
        "flags": "",
    }
    return row | values


@pytest.fixture
def table():
    own = [
        lrb_row(metric="accuracy", value=0.6, value_lo=np.nan),
        lrb_row(flags="not_converged;undefined:3", ceiling=0.95),
        lrb_row(model="<b>evo", context_bp=0, value=0.76),
        lrb_row(rule="infoscale", extension="ntk", context_bp=24_000, value=0.65),
        lrb_row(task="sim_rna", metric="spearman_genes", value=0.5),
        lrb_row(task="mine & yours"),
    ]
    table = pd.concat([pd.DataFrame(own), read_published(PUBLISHED)], ignore_index=True)
    return table.astype(dict.fromkeys(("context_bp", "folds", "published", "n"), "Int64"))


def test_a_row_per_arm_in_the_order_of_the_first_metric(table):
    board = build_task_board(table[table["task"] == EQTL])
    assert list(board.columns) == [
        *("model", "context_bp", "rule", "extension", "auroc", "accuracy"),
        *("ceiling", "n", "source", "flags"),
    ]
    values = board["auroc"].str[:5].astype(float)
    assert values.is_monotonic_decreasing
    assert board.iloc[0][["model", "context_bp", "source"]].tolist() == ["<b>evo", "0", "this run"]
    mine = board[(board["model"] == "mine") & (board["rule"] == "none")].iloc[0]
    assert mine["auroc"] == "0.700 [0.680, 0.720]"
    assert mine["accuracy"] == "0.600"
    assert mine["ceiling"] == 0.95
    assert mine["n"] == "8,846"
    assert mine["flags"] == "not_converged;undefined:3"
    enformer = board[board["model"] == "Enformer"].iloc[0]
    assert enformer[["context_bp", "auroc", "accuracy", "n", "source"]].tolist() == [
        *("", "0.755", "0.668", "", "published")
    ]


def test_the_page_has_a_section_per_kind_and_marks_what_is_published(tmp_path, table):
    extension = build_extension_table(table)
    path = tmp_path / "lrb.html"
    write_leaderboard(table, path, kinds={"sim_rna": "expression"}, extension=extension)
    page = path.read_text(encoding="utf-8")
    titles = [part.split("</h2>")[0] for part in page.split("<h2>")[1:]]
    assert titles == [
        *("Variant effects", "Bulk RNA expression", "CAGE profiles", "Other tasks"),
        "Context extension",
    ]
    assert "<h3>mine &amp; yours</h3>" in page
    assert "&lt;b&gt;evo" in page
    assert "<b>evo" not in page
    assert "<NA>" not in page
    assert "nan" not in page.lower()
    cells = Cells(page)
    marked = [
        row for row, kind in zip(cells.rows, cells.classes, strict=True) if kind == "published"
    ]
    assert sum("Enformer" in row for row in marked) == 3  # one in each of its tasks
    assert not any("mine" in row for row in marked)
    (first,) = (row for row in marked if "12000" in row)
    assert first[-4:] == ["0.718", "0.725", "0.729", "published"]
    assert "<b>undefined</b>" in page


def test_a_table_without_published_numbers_or_ceiling(tmp_path, table):
    own = table[(table["published"] == 0) & (table["model"] == "mine")].assign(ceiling=np.nan)
    write_leaderboard(own, tmp_path / "lrb.html", kinds={"sim_rna": "expression"})
    assert 'class="published"' not in (tmp_path / "lrb.html").read_text()


def test_the_summary_has_this_runs_arms_beside_their_ceilings(table):
    lines = summarise_lrb(table).splitlines()
    eqtl = lines[lines.index(f"{EQTL}, auroc:") + 1 :]
    assert eqtl == [
        "  <b>evo, 0 bp, none + none: 0.760 [0.680, 0.720]",
        "  mine, 12,000 bp, none + none: 0.700 [0.680, 0.720] * (ceiling 0.950)",
        "  mine, 24,000 bp, ntk + infoscale: 0.650 [0.680, 0.720]",
        "(* flagged: the column `flags` says why)",
    ]
    assert lines[:4] == [
        "mine & yours, auroc:",
        "  mine, 12,000 bp, none + none: 0.700 [0.680, 0.720]",
        "sim_rna, spearman_genes:",
        "  mine, 12,000 bp, none + none: 0.500 [0.680, 0.720]",
    ]
