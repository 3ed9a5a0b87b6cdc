"""Transcription start sites of annotations, distances to them, and buckets of distances."""

import gzip
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longscale.errors import LongscaleError
from longscale.tasks.gene_starts import (
    BUCKET_EDGES_BP,
    bucket_names,
    distance_buckets,
    distance_to_nearest,
    read_gene_starts,
)

# contig, first and last base (1-based), strand
TRANSCRIPTS = [
    ("chr1", 101, 200, "+"), ("chr1", 151, 300, "-"), ("chr1", 101, 250, "+"), ("chr2", 1, 1, "-"),
]  # fmt: skip
STARTS = {"chr1": [100, 299], "chr2": [0]}


def gtf(rows, feature="transcript"):
    lines = [
        f'{c}\tHAVANA\t{feature}\t{a}\t{b}\t.\t{s}\t.\tgene_name "x#y";' for c, a, b, s in rows
    ]
    # A gene that would add a start of its own, if it counted.
    return "\n".join(["##provider: test", "chr1\tHAVANA\tgene\t5\t9\t.\t+\t.\tx", *lines]) + "\n"


def bed(rows):
    lines = [f"{c}\t{a - 1}\t{b}\tname\t0\t{s}" for c, a, b, s in rows]
    return "\n".join(['track name="genes"', *lines]) + "\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.gtf", gtf(TRANSCRIPTS)),
        ("a.gtf.gz", gtf(TRANSCRIPTS)),
        ("a.gff3", gtf(TRANSCRIPTS, "mRNA").replace("\n", "\r\n")),
        ("a.gtf", "\ufeff" + gtf(TRANSCRIPTS)),
        ("a.bed", bed(TRANSCRIPTS)),
        ("a.bed.gz", bed(TRANSCRIPTS)),
    ],
)
def test_every_format_gives_the_same_starts(tmp_path, name, text):
    path = tmp_path / name
    data = text.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    found = read_gene_starts(path)
    assert {contig: places.tolist() for contig, places in found.items()} == STARTS


def test_genes_count_where_there_is_no_transcript_and_aliases_are_resolved(tmp_path):
    path = tmp_path / "a.gtf"
    path.write_text("1\tx\tgene\t5\t9\t.\t-\t.\tx\n1\tx\texon\t1\t2\t.\t-\t.\tx\n")
    assert read_gene_starts(path, {"1": "chr1"})["chr1"].tolist() == [8]


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.txt", "", "suffix"),
        ("a.gtf", "", "no transcript"),
        ("a.gtf", "chr1\tx\texon\t1\t2\t.\t+\t.\tx\n", "no transcript"),
        ("a.gtf", "chr1\tx\tgene\t1\t2\t.\t.\t.\tx\n", "line 1.*strand"),
        ("a.gtf", "chr1\tx\tgene\tone\t2\t.\t+\t.\tx\n", "whole numbers"),
        ("a.bed", "chr1\t1\t2\n", "line 1: 3 columns"),
        ("a.gtf.gz", "not gzip", "cannot be read"),
    ],
)
def test_a_bad_annotation_is_one_sentence(tmp_path, name, text, sentence):
    (tmp_path / name).write_text(text)
    with pytest.raises(LongscaleError, match=sentence):
        read_gene_starts(tmp_path / name)


def test_an_absent_annotation_is_one_sentence(tmp_path):
    with pytest.raises(LongscaleError, match="cannot be read"):
        read_gene_starts(tmp_path / "absent.gtf")


@given(
    starts=st.dictionaries(st.sampled_from("abc"), st.sets(st.integers(0, 50), min_size=1)),
    rows=st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 60)), max_size=20),
)
def test_the_nearest_start_is_that_of_a_double_loop(starts, rows):
    arrays = {name: np.array(sorted(places)) for name, places in starts.items()}
    contigs = pd.Series([name for name, _ in rows], dtype="str")
    found = distance_to_nearest(contigs, np.array([place for _, place in rows]), arrays)
    expected = [min((abs(p - s) for s in starts.get(n, ())), default=np.nan) for n, p in rows]
    assert np.array_equal(found, np.array(expected, dtype=float), equal_nan=True)


@given(st.floats(-1e9, 1e9), st.integers(-200_000, 200_000))
def test_each_distance_has_exactly_one_bucket(odd, whole):
    edges = (*BUCKET_EDGES_BP, np.inf)
    for distance in (odd, whole):
        (found,) = distance_buckets(np.array([distance]))
        inside = [a <= abs(distance) < b for a, b in pairwise(edges)]
        assert sum(inside) == 1
        assert found == bucket_names()[inside.index(True)]


@given(
    st.sets(st.integers(1, 10**6), max_size=4),
    st.lists(st.integers(-(10**7), 10**7), min_size=1, max_size=30),
)
def test_any_buckets_neither_overlap_nor_leave_gaps(inner, distances):
    """By their names alone: first and last distance of each, both inside."""
    edges = (0, *sorted(inner))
    spans = {}
    for name in bucket_names(edges):
        first, last = name.split("-")
        spans[name] = range(int(first), int(last) + 1 if last else 10**8)
    for distance, found in zip(distances, distance_buckets(distances, edges), strict=True):
        assert [name for name, span in spans.items() if abs(distance) in span] == [found]


def test_bounds_belong_to_the_upper_bucket_and_unknown_is_none():
    found = distance_buckets(np.array([0, 999, 1000, -1000, 100_000, np.nan]))
    assert found.tolist() == ["0-999", "0-999", "1000-2999", "1000-2999", "100000-", ""]


@pytest.mark.parametrize("edges", [(1, 5), (0, 5, 5), (0, 5, 3)])
def test_edges_that_overlap_or_leave_gaps_are_refused(edges):
    with pytest.raises(LongscaleError, match="rise"):
        distance_buckets(np.array([1.0]), edges)
