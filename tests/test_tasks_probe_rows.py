"""Rows and labels of probe tasks, against the benchmark's rules written out row by row."""

import ast
import csv
import json
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from types import SimpleNamespace

import lrb_mirror
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from longscale.errors import LongscaleError
from longscale.genome.sequence import Genome
from longscale.tasks.probe_rows import (
    ROW_COLUMNS,
    parse_label_lists,
    read_names,
    read_rows,
    read_tss_distances,
    read_variant_rows,
    variant_rows,
    write_profile_labels,
    write_rows,
)
from longscale.tasks.probe_tasks import EQTL_TSS_COLUMN, PROBE_TASKS, shard_names
from longscale.variants.accept import accept_variants
from longscale.variants.readers import read_variants

CONTIGS = {"chr1": 30_000, "chr2": 26_000, "chr8": 25_000, "chr9": 24_000}
SMALL_CAGE = replace(
    PROBE_TASKS["cage_prediction"],
    bins=lrb_mirror.BINS, outputs=lrb_mirror.TRACKS, pool_bp=(lrb_mirror.BINS * 64,) * 2,
    shard_rows=lrb_mirror.SHARD_ROWS,
)  # fmt: skip
STARTS = {"chr1": np.array([2_500, 9_000]), "chr8": np.array([0])}


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mirror")
    lrb_mirror.write_genome(folder / "g.fa", CONTIGS)
    genome = Genome(folder / "g.fa")
    lrb_mirror.write_mirror(folder, lambda name: genome.fetch(name, 0, CONTIGS[name]), CONTIGS)
    return SimpleNamespace(folder=folder, genome=genome)


def paths(task, folder):
    return {key: folder / path for key, path in task.files.items()}


def rows_of(path):
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


# --- every kind, row by row ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["regulatory_element_promoter", "regulatory_element_enhancer"])
def test_intervals(mirror, name):
    task = PROBE_TASKS[name]
    found = read_rows(task, paths(task, mirror.folder), mirror.genome, {}, gene_starts=STARTS)
    table = rows_of(mirror.folder / task.files["rows"])
    assert found.rows.columns.tolist() == ROW_COLUMNS
    assert found.counts == {"rows": len(table), "accepted": len(table), "rejected": 0}
    assert found.labels.shape == (len(table), 1)
    assert found.labels.dtype == np.float32
    for i, (row, line) in enumerate(zip(found.rows.itertuples(), table, strict=True)):
        start, stop = int(line["START"]) - 1, int(line["STOP"]) - 1
        assert (row.row, row.contig, row.strand, row.line) == (i, line["CHROM"], "", i + 2)
        assert (row.pool_start, row.pool_stop) == (start, stop)
        # The loader's window of L bp begins at start - (L - (stop - start)) // 2.
        for length in (200, 1000, 4096):
            assert row.anchor - length // 2 == start - (length - (stop - start)) // 2
        assert row.split == line["split"]
        assert found.labels[i, 0] == int(line["label"])
        nearest = min((abs(s - row.anchor) for s in STARTS.get(row.contig, ())), default=np.nan)
        assert np.array_equal(row.tss_distance, nearest, equal_nan=True)


@pytest.mark.parametrize(("name", "column"), [("histone_marks", "HISTONES"),
                                              ("dna_accessibility", "DNASE")])  # fmt: skip
def test_lists_of_labels(mirror, name, column):
    task = PROBE_TASKS[f"chromatin_features_{name}"]
    found = read_rows(task, paths(task, mirror.folder), mirror.genome, {})
    table = rows_of(mirror.folder / task.files["rows"])
    assert found.labels.tolist() == [ast.literal_eval(line[column]) for line in table]
    assert found.names == [f"{column}_{i}" for i in range(20)]
    pos = np.array([int(line["POS"]) for line in table])
    # label_start and label_stop of the loading script, 1-based and closed.
    assert (found.rows["pool_start"] + 1 == pos - 100).all()
    assert (found.rows["pool_stop"] == pos + 99).all()
    assert (found.rows["anchor"] == pos - 1).all()


def test_expression_goes_with_the_strand(mirror):
    task = PROBE_TASKS["bulk_rna_expression"]
    found = read_rows(task, paths(task, mirror.folder), mirror.genome, {})
    table = rows_of(mirror.folder / task.files["rows"])
    values = pd.read_csv(mirror.folder / task.files["labels"])
    assert np.allclose(found.labels, values.to_numpy(), atol=1e-6)
    assert found.names == list(values)
    for row, line in zip(found.rows.itertuples(), table, strict=True):
        tss = int(line["CAGE_representative_TSS"]) - 1
        assert (row.anchor, row.strand) == (tss, line["strand"])
        forward = 1 if row.strand == "+" else -1
        pool = sorted(tss + forward * step for step in range(-384, 256))
        assert list(range(row.pool_start, row.pool_stop)) == pool
    assert set(found.rows["strand"]) == {"+", "-"}


def test_a_minus_pool_is_the_same_window_reverse_complemented(mirror):
    """What an encoder does: reverse the context, mirror the places; the TSS base stays in place."""
    task = PROBE_TASKS["bulk_rna_expression"]
    rows = read_rows(task, paths(task, mirror.folder), mirror.genome, {}).rows
    for row in rows[rows["strand"] == "-"].itertuples():
        length = 2048
        start = row.anchor - length // 2
        first, last = (start + length - place for place in (row.pool_stop, row.pool_start))
        tss = start + length - 1 - row.anchor
        assert (tss - first, last - tss) == (384, 256)


def test_profiles_are_streamed_into_place(mirror, tmp_path):
    found = read_rows(SMALL_CAGE, paths(SMALL_CAGE, mirror.folder), mirror.genome, {})
    table = rows_of(mirror.folder / SMALL_CAGE.files["rows"])
    shards = mirror.folder / SMALL_CAGE.files["shards"]
    write_rows(SMALL_CAGE, found, tmp_path, shards)
    labels = np.load(tmp_path / "cage_prediction.labels.npy", mmap_mode="r")
    assert labels.shape == (10, lrb_mirror.BINS, lrb_mirror.TRACKS)
    assert labels.dtype == np.float16
    for i, (row, line) in enumerate(zip(found.rows.itertuples(), table, strict=True)):
        split = {"validation": "valid"}.get(line["split"], line["split"])
        assert row.split == split
        number = int(line["npy_idx"])
        first = number // lrb_mirror.SHARD_SIZE * lrb_mirror.SHARD_SIZE
        (shard,) = shards.glob(f"targets-{split}-{first}-*.npz")
        expected = np.load(shard)[f"target-{split}-{number}.npy"][0]
        assert np.array_equal(labels[i], expected.astype(np.float16))
        assert row.pool_start == int(line["start"]) - 1
        assert row.pool_stop == int(line["stop"]) - 1
        assert row.anchor == (row.pool_start + row.pool_stop) // 2
    facts = json.loads((tmp_path / "cage_prediction.labels.json").read_text())
    assert (facts["bin_bp"], facts["log1p"]) == (128, True)
    assert facts["names"] == ["CAGE:0", "CAGE:1", "CAGE:2"]
    assert pd.read_parquet(tmp_path / "cage_prediction.parquet").equals(found.rows)


def test_bins_lie_in_the_middle_of_a_longer_interval(mirror, tmp_path):
    path = tmp_path / "c.csv"
    path.write_text("chrom,start,stop,split,npy_idx\nchr1,5001,7049,train,0\n")
    found = read_rows(SMALL_CAGE, {"rows": path}, mirror.genome, {})
    (row,) = found.rows.itertuples()
    assert (row.anchor, row.pool_start, row.pool_stop) == (6024, 6024 - 384, 6024 + 384)


def accepted_of(mirror, name, columns):
    path = mirror.folder / PROBE_TASKS[name].files["rows"]
    known = {key: column for key, column in columns.items() if key != "tss_distance"}
    return accept_variants(read_variants(path, known), mirror.genome, {}).accepted


def test_variants(mirror):
    task = PROBE_TASKS["variant_effect_causal_eqtl"]
    accepted = accepted_of(mirror, task.name, task.columns)
    path = mirror.folder / task.files["rows"]
    found = variant_rows(
        task, accepted, mirror.genome, tss_distances=read_tss_distances(path, EQTL_TSS_COLUMN)
    )
    table = rows_of(path)
    assert len(found.rows) == len(table)
    for row, line in zip(found.rows.itertuples(), table, strict=True):
        pos = int(line["POS"])
        assert (row.anchor, row.pool_start, row.pool_stop) == (pos - 1, pos - 751, pos + 749)
        assert (row.ref, row.alt) == (line["REF"], line["ALT"])
        assert (row.tissue, row.split) == (line["tissue"], line["split"])
        assert row.tss_distance == abs(int(line["distance_to_nearest_TSS"]))
        assert found.labels[row.row] == int(line["label"])


def test_variants_without_distances_take_those_of_the_annotation(mirror):
    task = PROBE_TASKS["variant_effect_pathogenic_omim"]
    accepted = accepted_of(mirror, task.name, task.columns)
    rows = variant_rows(task, accepted, mirror.genome, gene_starts=STARTS).rows
    assert (rows["split"] == "test").all()
    assert (rows["tss_distance"].isna() == ~rows["contig"].isin(["chr1", "chr8"])).all()


def test_a_variant_whose_window_leaves_its_contig_is_in_the_ledger(mirror):
    task = PROBE_TASKS["variant_effect_causal_eqtl"]
    accepted = accepted_of(mirror, task.name, task.columns)
    first = accepted["pos"].min() - 1
    kept = variant_rows(task, accepted, mirror.genome, context_bp=2 * first)
    fewer = variant_rows(task, accepted, mirror.genome, context_bp=2 * first + 2)
    assert kept.counts["rejected"] == 0
    assert 0 < fewer.counts["rejected"] < len(accepted)
    assert set(fewer.rejected["reason"]) == {"out_of_bounds"}
    assert fewer.rows["row"].tolist() == list(range(len(fewer.rows)))
    assert fewer.counts["accepted"] + fewer.counts["rejected"] == fewer.counts["rows"]


# --- what cannot be used ------------------------------------------------------------------------

PROMOTER = PROBE_TASKS["regulatory_element_promoter"]


def promoters(mirror, tmp_path, text, name="p.csv", **options):
    (tmp_path / name).write_bytes(text.encode())
    return read_rows(PROMOTER, {"rows": tmp_path / name}, mirror.genome, {"1": "chr1"}, **options)


@pytest.mark.parametrize(
    ("line", "reason", "sentence"),
    [
        ("chr1,2001,2201,1", "unparseable", "4 fields where the header has 5"),
        ("chr1,x,2201,1,train", "unparseable", "START is 'x'"),
        ("chr1,2001,,1,train", "unparseable", "STOP is ''"),
        ("chr7,2001,2201,1,train", "unknown_contig", "nearest known name"),
        ("chr1,2201,2201,1,train", "unparseable", "not after its start"),
        ("chr1,0,200,1,train", "out_of_bounds", "positions 0 to 199"),
        ("chr1,29900,30100,1,train", "out_of_bounds", "chr1 has 1 to 30000"),
        ("chr1,2001,2201,,train", "no_label", "no label"),
        ("chr1,2001,2201,2,train", "unparseable", "the label is '2'"),
        ("chr1,2001,2201,1,later", "unparseable", "the split is 'later'"),
    ],
)
def test_a_row_that_cannot_be_used_is_in_the_ledger(mirror, tmp_path, line, reason, sentence):
    good = "chr1,2001,2201,1,train\n"
    found = promoters(mirror, tmp_path, f"CHROM,START,STOP,label,split\n{good}{line}\n{good}")
    assert found.counts == {"rows": 3, "accepted": 2, "rejected": 1}
    (entry,) = found.rejected.itertuples()
    assert (entry.line, entry.reason) == (3, reason)
    assert sentence in entry.sentence
    assert found.rows["line"].tolist() == [2, 4]
    assert found.labels.tolist() == [[1], [1]]


def test_the_last_base_of_a_contig_can_be_used_and_one_more_cannot(mirror, tmp_path):
    text = "CHROM,START,STOP,label,split\nchr1,29801,30001,1,train\nchr1,29802,30002,1,train\n"
    found = promoters(mirror, tmp_path, text)
    assert found.rows["pool_stop"].tolist() == [30_000]
    longer = promoters(mirror, tmp_path, text, context_bp=202)
    assert longer.counts["accepted"] == 0


def test_a_task_without_a_row_that_can_be_used_is_one_sentence(mirror, tmp_path):
    """A context longer than every chromosome, say."""
    task = PROBE_TASKS["variant_effect_causal_eqtl"]
    file = mirror.folder / task.files["rows"]
    found = read_variant_rows(task, file, mirror.genome, {}, context_bp=40_000)
    with pytest.raises(LongscaleError, match=r"none of its 40 rows .* line 2: the window of 40,00"):
        write_rows(task, found, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bom_crlf_aliases_column_order_and_empty_splits(mirror, tmp_path):
    text = "\ufeffextra,label,STOP,CHROM,split,START\r\n,1,2201,1,,2001\r\n,0,2401,chr8,,2201\r\n"
    found = promoters(mirror, tmp_path, text)
    assert found.rows["contig"].tolist() == ["chr1", "chr8"]
    assert found.rows["split"].tolist() == ["train", "test"]
    assert found.labels.tolist() == [[1], [0]]


def test_a_missing_column_and_an_empty_file_are_one_sentence(mirror, tmp_path):
    with pytest.raises(LongscaleError, match=r"'STOP' .* is missing"):
        promoters(mirror, tmp_path, "CHROM,START,label,split\n")
    with pytest.raises(LongscaleError, match="no row"):
        promoters(mirror, tmp_path, "CHROM,START,STOP,label,split\n")


@given(
    st.lists(
        st.one_of(
            st.lists(st.sampled_from(["0", "1", "1.0", "0."]), min_size=1, max_size=5).map(
                lambda labels: "[" + ", ".join(labels) + "]"
            ),
            st.text("[]01, .2x-", max_size=12),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_lists_are_parsed_as_by_python(texts):
    labels, sentences = parse_label_lists(pd.Series(texts, dtype="str"), 3)
    expected = []
    for text, sentence in zip(texts, sentences, strict=True):
        try:
            row = ast.literal_eval(text)
            good = len(row) == 3 and isinstance(row, list) and all(x in (0, 1) for x in row)
        except (SyntaxError, ValueError, TypeError):
            good = False
        if good and not sentence:
            expected.append(row)
        # Lists without brackets or commas are taken, too; nothing that Python reads is lost.
        assert not (good and sentence and "-" not in text and "x" not in text and ",]" not in
                    text.replace(" ", ""))  # fmt: skip
    if len(expected) == len(labels):
        assert labels.tolist() == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("[0, 1]", "2 labels"), ("[0, 1, 0, 1]", "4 labels"), ("[0, 2, 1]", "'\\[0, 2"),
     ("__import__('os')", "'__import__"), ("[0, -1, 1]", "-1"), ("[0.5, 1, 1]", "0.5")],
)  # fmt: skip
def test_what_is_no_list_of_that_many_labels_says_so(text, sentence):
    labels, sentences = parse_label_lists(pd.Series([text, "[1, 0, 1]"], dtype="str"), 3)
    assert pd.Series(sentences).str.contains(sentence).tolist() == [True, False]
    assert labels.tolist() == [[1, 0, 1]]


def test_values_that_are_no_numbers_are_in_the_ledger_and_ids_passed_over(mirror, tmp_path):
    task = replace(PROBE_TASKS["bulk_rna_expression"], outputs=2)
    (tmp_path / "r.csv").write_text(
        "chrom,CAGE_representative_TSS,strand,split\n"
        "chr1,5000,+,train\nchr1,6000,*,train\nchr1,7000,-,train\nchr1,8000,-,train\n"
    )
    values = tmp_path / "v.csv"
    values.write_text(",gene,a,b\n0,x,1,2\n1,y,3,4\n2,z,n/a,6\n3,w,7,8\n")
    found = read_rows(task, {"rows": tmp_path / "r.csv", "labels": values}, mirror.genome, {})
    assert found.names == ["a", "b"]
    assert found.labels.tolist() == [[1, 2], [7, 8]]
    assert found.rejected["line"].tolist() == [3, 4]
    values.write_text("a,b\n1,2\n3,4\n5,6\n")
    with pytest.raises(LongscaleError, match=r"3 rows, but .* has 4"):
        read_rows(task, {"rows": tmp_path / "r.csv", "labels": values}, mirror.genome, {})
    values.write_text("a\n1\n3\n5\n7\n")
    with pytest.raises(LongscaleError, match=r"1 columns of numbers; .* has 2"):
        read_rows(task, {"rows": tmp_path / "r.csv", "labels": values}, mirror.genome, {})


@pytest.mark.parametrize(
    "text",
    ["index,name\n1,b\n0,a\n", "name\na\nb\n", "x,index,target\nq,1,b\nr,0,a\n",
     "\ufefftissue\r\na\r\nb\r\n"],
)  # fmt: skip
def test_names_of_outputs(tmp_path, text):
    (tmp_path / "n.csv").write_bytes(text.encode())
    assert read_names(tmp_path / "n.csv", 2) == ["a", "b"]
    with pytest.raises(LongscaleError, match="names of 3 outputs"):
        read_names(tmp_path / "n.csv", 3)


# --- shards -------------------------------------------------------------------------------------


def write_shard(folder, rows, value=1.0, shape=(1, 6, 3), name="targets-train-0-1.npz"):
    arrays = {f"target-train-{i}.npy": np.full(shape, value) for i in rows}
    np.savez(folder / name, **arrays)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda f: None, "no shard targets-train-A-B.npz holds row 1"),
        (lambda f: write_shard(f, [0], name="targets-train-0-0.npz"), "holds row 1 "),
        (lambda f: write_shard(f, [0]), "target-train-1.npy is missing"),
        (lambda f: write_shard(f, [0, 1], shape=(1, 6, 4)), r"shape \(1, 6, 3\)"),
        (lambda f: write_shard(f, [0, 1], shape=(6, 3)), r"shape \(1, 6, 3\)"),
        (lambda f: write_shard(f, [0, 1], value=np.nan), "outside 0 to 65,504"),
        (lambda f: write_shard(f, [0, 1], value=-1.0), "outside 0 to 65,504"),
        (lambda f: write_shard(f, [0, 1], value=1e6), "outside 0 to 65,504"),
        (lambda f: write_shard(f, [0, 1], value=None), "cannot be read"),  # a pickle
        (lambda f: (f / "targets-train-0-1.npz").write_bytes(b"PK\3\4cut"), "cannot be read"),
    ],
)
def test_a_bad_shard_is_one_sentence_and_leaves_nothing(tmp_path, make, sentence):
    folder = tmp_path / "shards"
    folder.mkdir()
    make(folder)
    rows = pd.DataFrame({"split": "train", "shard_row": [1, 0]})
    with pytest.raises(LongscaleError, match=sentence):
        write_profile_labels(SMALL_CAGE, rows, folder, tmp_path / "l.npy")
    assert [path.name for path in tmp_path.iterdir()] == ["shards"]


def test_a_shard_zipped_from_files_is_read_too(tmp_path):
    """Its members are named target-train-0.npy, not target-train-0.npy.npy."""
    np.savez(tmp_path / "targets-train-0-0.npz", **{"target-train-0": np.ones((1, 6, 3))})
    rows = pd.DataFrame({"split": ["train"], "shard_row": [0]})
    write_profile_labels(SMALL_CAGE, rows, tmp_path, tmp_path / "l.npy")
    assert (np.load(tmp_path / "l.npy") == 1).all()
    assert shard_names("train", 1) == ["targets-train-0-0.npz"]


# --- memory -------------------------------------------------------------------------------------


@pytest.mark.e2e
def test_the_omim_table_stays_under_two_gigabytes(tmp_path):
    """Two smaller tables tell what a row costs; the whole one is in benchmarks/omim_memory.py."""
    spec = spec_from_file_location("omim_memory", ROOT / "benchmarks" / "omim_memory.py")
    benchmark = module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    sizes, peaks = (60_000, 160_000), []
    for rows in sizes:
        (tmp_path / str(rows)).mkdir()
        benchmark.make(tmp_path / str(rows), rows)
        peaks.append(benchmark.measure(tmp_path / str(rows), context_bp=1500))
    whole = sum(PROBE_TASKS[benchmark.TASK].rows)
    for step, small in peaks[0].items():
        per_row = (peaks[1][step] - small) / (sizes[1] - sizes[0])
        assert small + per_row * (whole - sizes[0]) < benchmark.LIMIT_MIB, step


@pytest.mark.parametrize("name", ["variant_effect_causal_eqtl", "variant_effect_pathogenic_omim"])
def test_a_variant_task_is_read_in_one_go_with_one_ledger(mirror, tmp_path, name):
    """The same as in two steps; each row of the file is a row of the task or in the ledger."""
    task = PROBE_TASKS[name]
    table = pd.read_csv(mirror.folder / task.files["rows"])
    table.loc[0, "REF"] = {"A": "C", "C": "A", "G": "A", "T": "A"}[table.loc[0, "REF"][0]]
    table.loc[1, "POS"] = 20  # its pool leaves the contig, if its base is the reference at all
    table.loc[1, "REF"] = mirror.genome.fetch(table.loc[1, "CHROM"], 19, 20).tobytes().decode()
    table.loc[1, "ALT"] = table.loc[1, "REF"] + "A"
    path = tmp_path / "table.csv"
    table.to_csv(path, index=False)
    found = read_variant_rows(task, path, mirror.genome, {}, gene_starts=STARTS)
    assert found.rejected["reason"].tolist() == ["reference_mismatch", "out_of_bounds"]
    assert found.rejected["line"].tolist() == [2, 3]
    assert found.counts == {"rows": 40, "accepted": 38, "rejected": 2}
    columns = {key: column for key, column in task.columns.items() if key != "tss_distance"}
    accepted = accept_variants(read_variants(path, columns), mirror.genome, {}).accepted
    distances = read_tss_distances(path, EQTL_TSS_COLUMN) if "eqtl" in name else None
    stepwise = variant_rows(
        task, accepted, mirror.genome, tss_distances=distances, gene_starts=STARTS
    )
    pd.testing.assert_frame_equal(found.rows, stepwise.rows)
    assert np.array_equal(found.labels, stepwise.labels)
