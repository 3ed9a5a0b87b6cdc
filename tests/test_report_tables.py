"""The HTML table and the summary in the log."""

import math
from html.parser import HTMLParser

import pandas as pd

from longscale.evaluation.compare import AUROC_COLUMNS, build_wide_table
from longscale.evaluation.mlm_table import MLM_FLAGS, MLM_TABLE_COLUMNS
from longscale.report.tables import SUMMARY_NOTE, summarise, summarise_mlm, write_html_table


def auroc_row(**values):
    row = dict.fromkeys(AUROC_COLUMNS, 0.5) | {
        "task": "eqtl",
        "protocol": "paired",
        "model": "small",
        "train_bp": 1000,
        "attention": "dot",
        "rule": "none",
        "eval_bp": 1000,
        "seeds": 3,
        "n": 1200,
        "positives": 600,
        "auroc": 0.7,
        "auroc_lo": 0.65,
        "auroc_hi": 0.75,
        "verdict": "baseline",
        "ceiling": math.nan,
        "flags": "",
    }
    return row | values


class Cells(HTMLParser):
    """Tags and texts of a page, the cells of each table row."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.rows, self.classes = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
            self.classes.append(dict(attributes).get("class", ""))
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.rows[-1] and data.strip():
            self.rows[-1][-1] += data


def write(table, tmp_path, title="AUROC"):
    write_html_table(table, tmp_path / "auroc.html", title=title)
    return (tmp_path / "auroc.html").read_text(encoding="utf-8")


def test_page_holds_every_cell_and_escapes_every_text(tmp_path):
    evil = "<script>alert('&\")</script>"
    table = pd.DataFrame(
        [
            auroc_row(task=evil, model=evil, attention=evil, rule=evil, verdict=evil, flags=evil),
            auroc_row(verdict="better", delta=-0.0314159),
        ]
    ).assign(**{evil: [evil, "one"], f"all {evil}": evil})
    page = write(table, tmp_path, title=evil)
    read = Cells(page)
    assert "script" not in read.tags
    assert "<script" not in page
    shown = ["task", "model", "attention", "rule", "delta", "verdict", "flags", evil]
    assert read.rows[0] == [name for name in [*AUROC_COLUMNS, evil] if name in shown]
    assert read.rows[1][:2] == [evil, evil]
    second = dict(zip(read.rows[0], read.rows[2], strict=True))
    assert second["delta"] == "-0.031"
    assert second["verdict"] == "better"


def test_what_all_rows_share_stands_above_the_table_once(tmp_path):
    table = pd.DataFrame([auroc_row(), auroc_row(eval_bp=2000, auroc=0.6)])
    page = write(table, tmp_path)
    assert Cells(page).rows == [["eval_bp", "auroc"], ["1000", "0.700"], ["2000", "0.600"]]
    assert "All rows: task eqtl, protocol paired, model small, train_bp 1000" in page
    assert "ceiling" not in page  # empty in all rows
    one = Cells(write(table.iloc[:1], tmp_path))
    assert one.rows[0] == AUROC_COLUMNS
    assert dict(zip(*one.rows, strict=True))["ceiling"] == ""


def test_page_loads_nothing(tmp_path):
    page = write(pd.DataFrame([auroc_row()]), tmp_path)
    assert not {"script", "link", "img", "iframe"} & set(Cells(page).tags)
    assert "http" not in page
    assert "url(" not in page


def test_flagged_rows_are_set_off_and_their_flags_explained(tmp_path):
    table = pd.DataFrame([auroc_row(), auroc_row(flags="not_converged;few_blocks")])
    page = write(table, tmp_path)
    assert Cells(page).classes == ["", "", "flagged"]
    assert "<b>not_converged</b>" in page
    assert "fewer than 20 genomic blocks" in page
    assert "single_chromosome" not in page
    assert "<ul>" not in write(table.iloc[:1], tmp_path)


def test_wide_table_as_page(tmp_path):
    table = pd.DataFrame([auroc_row(), auroc_row(eval_bp=2000, flags="few_blocks")])
    read = Cells(write(build_wide_table(table), tmp_path))
    assert read.rows[0][-2:] == ["1000", "2000"]
    assert read.rows[1][-2] == "0.700 [0.650, 0.750]"
    assert read.rows[1][-1].startswith("0.700 [0.650, 0.750] *")


def test_summary_names_the_best_sound_arm_per_length():
    table = pd.DataFrame(
        [
            auroc_row(),
            auroc_row(rule="logn", auroc=0.69, verdict="worse", delta=-0.01),
            auroc_row(attention="cos16-released", auroc=0.99, verdict="better"),
            auroc_row(protocol="released", auroc=0.99),
            auroc_row(eval_bp=8000, auroc=0.6, ceiling=0.9),
            auroc_row(
                eval_bp=8000,
                attention="cos16",
                rule="infoscale",
                auroc=0.8,
                verdict="better",
                delta=0.2,
                ceiling=0.9,
                flags="few_blocks",
            ),
            auroc_row(eval_bp=8000, rule="logn", auroc=0.95, flags="few_blocks;not_converged"),
            auroc_row(eval_bp=16000, auroc=math.nan, auroc_lo=math.nan, flags="non_finite_score"),
            auroc_row(eval_bp=32000, auroc=0.55, flags="not_learned"),
            auroc_row(
                eval_bp=32000,
                rule="logn",
                auroc=0.56,
                verdict="worse",
                delta=-0.01,
                flags="not_converged",
            ),
            auroc_row(task="omim", auroc=0.8, auroc_lo=math.nan, auroc_hi=math.nan),
        ]
    )
    assert summarise(table).removesuffix(f"\n{SUMMARY_NOTE}").splitlines() == [
        "eqtl, paired protocol, small, trained at 1,000 bp:",
        "    1,000 bp: dot + none, AUROC 0.700 [0.650, 0.750], baseline",
        "    8,000 bp: cos16 + infoscale, AUROC 0.800 [0.650, 0.750] (ceiling 0.900), "
        "better by 0.200 (few_blocks)",
        "   16,000 bp: no arm has an AUROC",
        "   32,000 bp: all arms are flagged; dot + logn, AUROC 0.560 [0.650, 0.750], "
        "worse by 0.010 (not_converged)",
        "omim, paired protocol, small, trained at 1,000 bp:",
        "    1,000 bp: dot + none, AUROC 0.800, baseline",
    ]


def test_summary_of_released_arms_alone_is_empty():
    assert summarise(pd.DataFrame([auroc_row(protocol="released")])) == ""


def mlm_row(**values):
    row = dict.fromkeys(MLM_TABLE_COLUMNS, 0.5) | {
        "corpus": "pydoc",
        "protocol": "fixed-target",
        "model": "small",
        "train_length": 64,
        "attention": "dot",
        "scheme": "rope",
        "trained_scheme": "rope",
        "rule": "none",
        "length": 64,
        "accuracy": 0.8,
        "retained": 1.0,
        "retained_lo": 1.0,
        "retained_hi": 1.0,
        "flags": "",
    }
    return row | values


def test_page_explains_the_flags_in_the_words_it_is_given(tmp_path):
    table = pd.DataFrame([mlm_row(flags="unmatched;few_documents")])
    write_html_table(table, tmp_path / "mlm.html", title="t", flag_texts=MLM_FLAGS)
    page = (tmp_path / "mlm.html").read_text(encoding="utf-8")
    assert f"<b>unmatched</b>: {MLM_FLAGS['unmatched']}" in page
    assert "fewer than 12 documents" in page
    assert "cannot_run" not in page


def test_summary_of_masked_tokens_tells_what_each_attention_keeps():
    far = {"length": 4096, "accuracy": 0.2, "retained": 0.25, "retained_lo": 0.2}
    far["retained_hi"] = 0.304
    nothing = dict.fromkeys(("accuracy", "retained", "retained_lo", "retained_hi"), math.nan)
    table = pd.DataFrame(
        [
            mlm_row(),
            mlm_row(length=512, accuracy=0.6),
            mlm_row(**far),
            mlm_row(**far, rule="logn"),
            mlm_row(**far, scheme="pi"),
            mlm_row(**far, scheme="alibi", trained_scheme="alibi"),
            mlm_row(**far | {"accuracy": 0.4}, rule="infoscale", flags="single_seed;unmatched"),
            mlm_row(**far, attention="cos16"),
            mlm_row(**far | nothing, attention="cos16", rule="infoscale", flags="cannot_run"),
            mlm_row(**far, attention="cos16-released"),
            mlm_row(**far, protocol="released"),
            mlm_row(corpus="books", retained_lo=math.nan),
        ]
    )
    assert summarise_mlm(table).splitlines() == [
        "books, fixed-target protocol, small, trained at 64 tokens, read with RoPE at 64:",
        "  dot: accuracy 0.800 at 64; none: 0.800, 100% retained",
        "pydoc, fixed-target protocol, small, trained at 64 tokens, read with RoPE at 4,096:",
        "  dot: accuracy 0.800 at 64; none: 0.200, 25% retained [20%, 30%]; "
        "infoscale: 0.400, 25% retained [20%, 30%] (single_seed, unmatched)",
        "  cos16: accuracy none: 0.200, 25% retained [20%, 30%]; infoscale: cannot run",
    ]
    assert summarise_mlm(table.iloc[:0]) == ""
