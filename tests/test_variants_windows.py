"""Windows against string slicing, one variant at a time."""

import numpy as np
import pandas as pd
import pysam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longscale.errors import LongscaleError
from longscale.genome.sequence import Genome
from longscale.variants.windows import (
    export_windows,
    gather_windows,
    has_window,
    readout_span,
    require_windows,
    window_span,
    window_start,
)

RNG = np.random.default_rng(7)
CONTIGS = {
    "chr1": "".join(RNG.choice(list("ACGTacgtNR"), 400)),
    "chr2": "".join(RNG.choice(list("ACGT"), 37)),
    "chrM": "GATTACAGATTACAGATTACAGATTACA" * 5,
}
OUTSIDE_BP = 500


@pytest.fixture(scope="module")
def genome(tmp_path_factory):
    path = tmp_path_factory.mktemp("genome") / "genome.fa"
    path.write_text("".join(f">{name}\n{text}\n" for name, text in CONTIGS.items()))
    pysam.faidx(str(path))
    return Genome(path)


def clean(text):
    return "".join(base if base in "ACGT" else "N" for base in text.upper())


def frame(rows):
    return pd.DataFrame(rows, columns=["contig", "pos", "ref", "alt"])


def slow_window(contig, pos, ref, alt, window_bp):
    """The edited contig in an endless field of #, then one slice; # tells what lies outside."""
    before, after = clean(CONTIGS[contig][: pos - 1]), clean(CONTIGS[contig][pos - 1 + len(ref) :])
    edited = "#" * OUTSIDE_BP + before + alt + after + "#" * OUTSIDE_BP
    start = OUTSIDE_BP + pos - 1 - window_bp // 2
    return edited[start : start + window_bp]


def texts(windows):
    return [row.tobytes().decode() for row in windows]


@st.composite
def variants(draw):
    contig = draw(st.sampled_from(list(CONTIGS)))
    pos = draw(st.integers(1, len(CONTIGS[contig])))
    ref_bp = draw(st.integers(1, min(12, len(CONTIGS[contig]) - pos + 1)))
    alt = draw(st.text("ACGT", min_size=1, max_size=40))
    if draw(st.booleans()):
        alt = alt[:ref_bp].ljust(ref_bp, "G")
    return contig, pos, clean(CONTIGS[contig][pos - 1 : pos - 1 + ref_bp]), alt


@settings(deadline=None)
@given(rows=st.lists(variants(), max_size=12), window_bp=st.integers(16, 90))
def test_windows_equal_slices_of_the_edited_contig(genome, rows, window_bp):
    table = frame(rows)
    table.index = table.index[::-1] + 5  # an index that is no row number
    expected = {
        "ref": [slow_window(*row[:3], row[2], window_bp) for row in rows],
        "alt": [slow_window(*row, window_bp) for row in rows],
    }
    for allele, slow in expected.items():
        windows = gather_windows(genome, table, window_bp, allele)
        assert windows.shape == (len(rows), window_bp)
        assert windows.dtype == np.uint8
        assert texts(windows) == [text.replace("#", "N") for text in slow]
    inside = [
        "#" not in ref + alt for ref, alt in zip(expected["ref"], expected["alt"], strict=True)
    ]
    assert has_window(genome, table, window_bp).tolist() == inside


def test_the_allele_stands_at_half_the_window(genome):
    table = frame([("chrM", 50, CONTIGS["chrM"][49], "C"), ("chrM", 61, CONTIGS["chrM"][60], "C")])
    for window_bp in (16, 17, 40, 41):
        ref, alt = (gather_windows(genome, table, window_bp, allele) for allele in ("ref", "alt"))
        assert texts(ref)[0][window_bp // 2] == CONTIGS["chrM"][49]
        assert texts(alt)[0][window_bp // 2] == "C"
        differing = np.argwhere(ref != alt)
        assert set(differing[:, 1]) <= {window_bp // 2}


def test_worked_case_of_the_docstring(tmp_path):
    path = tmp_path / "g.fa"
    path.write_text(">c\nTTTTTTACGTACGTTTTTTT\n")
    pysam.faidx(str(path))
    table = frame([("c", 11, "A", "TG")])
    assert texts(gather_windows(Genome(path), table, 16, "ref")) == ["TTTTACGTACGTTTTT"]
    assert texts(gather_windows(Genome(path), table, 16, "alt")) == ["TTTTACGTTGCGTTTT"]


def test_a_deletion_needs_more_on_the_right(genome):
    end = len(CONTIGS["chrM"])
    pos = end - 20 + 1  # the reference window of 40 bp ends with the contig
    ref = CONTIGS["chrM"][pos - 1 : pos + 2]
    table = frame([("chrM", pos, ref, ref), ("chrM", pos, ref, ref[0])])
    assert has_window(genome, table, 40).tolist() == [True, False]
    starts, ends = window_span(table, 40)
    assert (ends - starts).tolist() == [40, 42]


def test_require_windows_names_the_first_that_has_none(genome):
    table = frame([("chrM", 70, "A", "C"), ("chrM", 19, "A", "C"), ("chrM", 2, "A", "C")])
    require_windows(genome, table[:1], 40)
    with pytest.raises(LongscaleError, match=r"^chrM:19 A>C has no window of 40 bp"):
        require_windows(genome, table, 40)


def test_window_start_of_numbers_and_arrays():
    assert window_start(1, 1000) == -500
    assert window_start(np.array([501, 502]), 1001).tolist() == [0, 1]


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 300), min_size=1),
    window_bp=st.integers(16, 200),
    flank_bp=st.integers(0, 150),
)
def test_readout_span_marks_the_allele_and_its_flanks(lengths, window_bp, flank_bp):
    starts, stops = readout_span(np.array(lengths), window_bp, flank_bp)
    for length, start, stop in zip(lengths, starts, stops, strict=True):
        first = window_bp // 2
        near = [
            index
            for index in range(window_bp)
            if first - flank_bp <= index < first + length + flank_bp
        ]
        assert [start, stop - 1] == [near[0], near[-1]]


def test_export_is_the_alternative_window_and_the_label(genome, tmp_path, monkeypatch):
    monkeypatch.setattr("longscale.variants.windows._EXPORT_CHUNK_BP", 40)
    rows = [("chr1", 100, "A", "C"), ("chr1", 200, "G", "GTT"), ("chrM", 70, "C", "T")]
    table = frame(rows).assign(label=np.array([1, 0, 1], dtype=np.int8))
    path = tmp_path / "deep" / "train.csv"
    export_windows(genome, table, 20, path)
    written = pd.read_csv(path)
    assert written.columns.tolist() == ["sequence", "label"]
    assert written["sequence"].tolist() == [slow_window(*row, 20) for row in rows]
    assert written["label"].tolist() == [1, 0, 1]
    export_windows(genome, table[:0], 20, path)
    assert path.read_text() == "sequence,label\n"


def test_export_leaves_nothing_behind_when_it_fails(genome, tmp_path):
    table = frame([("chr1", 100, "A", "C")])  # no label
    with pytest.raises(KeyError):
        export_windows(genome, table, 20, tmp_path / "train.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("window_bp", [0, -16, 15, 100.0, "100", True, None])
def test_bad_window_bp_is_one_sentence(genome, window_bp):
    table = frame([("chr1", 100, "A", "C")])
    with pytest.raises(LongscaleError, match=r"window_bp is .*: it must be an integer"):
        gather_windows(genome, table, window_bp, "alt")


def test_unknown_allele_is_one_sentence(genome):
    with pytest.raises(LongscaleError, match="allele is 'both'"):
        gather_windows(genome, frame([("chr1", 100, "A", "C")]), 20, "both")
