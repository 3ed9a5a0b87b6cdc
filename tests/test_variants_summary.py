"""What became of a task's alleles, told to a person."""

import json

import pandas as pd
import pysam
import pytest

from longscale.genome.sequence import Genome
from longscale.report.tables import write_html_table
from longscale.variants.accept import REASONS, accept_variants
from longscale.variants.readers import RawVariant
from longscale.variants.summary import (
    COUNTS,
    outcomes_table,
    summarise,
    summary_facts,
    variants_table,
)


def raw(line, pos="1", ref="A", alts=("C",), label="1", contig="chr1", **others):
    return RawVariant(line, contig, pos, ref, tuple(alts), label, **others)


@pytest.fixture
def genome(tmp_path):
    path = tmp_path / "g.fa"
    path.write_text(">chr1\n" + "ACGTACGTAC" * 12 + "\n")
    pysam.faidx(str(path))
    return Genome(path)


@pytest.fixture
def found(genome):
    records = [
        raw(2),
        raw(3, label="0", pos="5", split="test"),
        raw(4, pos="2"),  # exchanged: C stands there
        raw(5, contig="zz"),
        raw(6, pos="3"),
        raw(7, pos="7", ref="A" * 40, alts=["C", "<DEL>"]),
        raw(8, pos="9", label="<b>"),
    ]
    return accept_variants(records, genome, {}, repair_swapped=True)


def test_lines_for_a_log(found):
    told = summarise(found).splitlines()
    assert told[0] == "7 rows, 8 alleles: 3 accepted, 5 rejected"
    assert told[1] == "  REF and ALT exchanged: 1, marked in the column swapped"
    assert told[2] == "  no split: 2 variants, 2 with label 1, 0 with label 0"
    assert told[3] == "  test: 1 variants, 0 with label 1, 1 with label 0"
    assert (
        told[4] == "  reference_mismatch: 2, e.g. line 6: REF is A but the genome has G at chr1:3"
    )
    assert [line.split(":")[0].strip() for line in told[5:]] == [
        "symbolic_allele",
        "unknown_contig",
        "unparseable",
    ]


def test_facts_are_the_ledger_counted_with_an_example_of_each_reason(found):
    facts = json.loads(json.dumps(summary_facts(found)))
    assert [facts[name] for name in COUNTS] == [7, 8, 3, 1, 5]
    assert facts["reasons"] == {
        "unparseable": 1,
        "unknown_contig": 1,
        "symbolic_allele": 1,
        "reference_mismatch": 2,
    }
    ledger = found.rejected
    for reason, example in facts["examples"].items():
        first = ledger[ledger["reason"] == reason].iloc[0].drop("reason")
        assert example == first.to_dict()


def test_a_table_with_a_row_per_task(found, genome):
    nothing = accept_variants([raw(2, pos="x")], genome, {})
    table = variants_table({"a": summary_facts(found), "b": summary_facts(nothing)})
    assert table.columns.tolist() == ["task", *COUNTS, *REASONS]
    assert table["task"].tolist() == ["a", "b"]
    assert (table["accepted"] + table["rejected"] == table["alleles"]).all()
    assert (table[[*REASONS]].sum(axis=1) == table["rejected"]).all()


def test_a_page_with_a_row_per_outcome(found, tmp_path):
    facts = {"a": summary_facts(found)}
    table = outcomes_table(facts)
    assert table["outcome"].tolist() == ["accepted", "accepted, swapped", *["rejected"] * 4]
    assert table["alleles"].sum() == 8
    assert table["share"].sum() == pytest.approx(1)
    last = table.iloc[-1]
    assert (last["flags"], last["line"], last["example"]) == (
        *("reference_mismatch", 6),
        "chr1:3 A>C",
    )
    assert f"chr1:7 {'A' * 24}... (40 bp)><DEL>" in table["example"].tolist()
    write_html_table(table, tmp_path / "t.html", title="t", flag_texts=REASONS)
    page = (tmp_path / "t.html").read_text()
    assert REASONS["reference_mismatch"] in page
    assert REASONS["duplicate"] not in page
    assert "the label is &#x27;&lt;b&gt;&#x27;" in page


def test_facts_without_examples_make_a_table(found):
    """As written by versions before there were examples."""
    old = {key: value for key, value in summary_facts(found).items() if key != "examples"}
    pd.testing.assert_frame_equal(
        outcomes_table({"a": old}).drop(columns=["line", "example", "sentence"]),
        outcomes_table({"a": summary_facts(found)}).drop(columns=["line", "example", "sentence"]),
    )
