"""Score files: round trip, metadata, and the sentences for bad ones."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longscale.errors import LongscaleError
from longscale.evaluation.scores import ROW_COLUMNS, Cell, read_scores, rule_columns, write_scores


def example_frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "contig": ["chr2", "chr1", "chr1"],
            "pos": [10, 7, 7],
            "ref": ["A", "C", "C"],
            "alt": ["G", "CTT", "CTT"],
            "tissue": ["", "Liver", "Brain"],
            "label": [1, 0, 1],
            "none": [0.1, -2.0, np.inf],
            "yarn-temperature": [1e-8, np.nan, 3.0],
        }
    )


def test_round_trip_keeps_rows_order_and_provenance(tmp_path):
    path = tmp_path / "deep" / "1000.parquet"
    provenance = {"flags": ["not_converged"], "seed": 3, "versions": {"torch": "2.13.0"}}
    frame = example_frame()
    write_scores(frame, path, provenance)
    back, said = read_scores(path)
    assert said == provenance
    assert list(back.columns) == [*ROW_COLUMNS, "none", "yarn-temperature"]
    assert rule_columns(back) == ["none", "yarn-temperature"]
    assert back["none"].dtype == np.float32
    for name in frame.columns[:6]:
        assert back[name].tolist() == frame[name].tolist()
    np.testing.assert_array_equal(
        back["yarn-temperature"], frame["yarn-temperature"].astype("float32")
    )


def test_metadata_has_the_one_key(tmp_path):
    write_scores(example_frame(), tmp_path / "a.parquet", {"flags": []})
    metadata = pq.read_schema(tmp_path / "a.parquet").metadata
    assert list(metadata) == [b"longscale"]
    assert json.loads(metadata[b"longscale"]) == {"flags": []}


def test_the_same_content_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_scores(example_frame(), tmp_path / name, {"flags": [], "seed": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.drop(columns="tissue"), "column 'tissue' is missing"),
        (lambda f: f[ROW_COLUMNS], "no score column"),
        (lambda f: f.assign(label=[0, 1, 2]), "other than 0 and 1"),
        (lambda f: f.assign(tissue=["", "Liver", "Liver"]), "chr1:7 C>CTT Liver stands more"),
    ],
)
def test_a_bad_frame_is_refused_and_nothing_is_written(tmp_path, change, words):
    with pytest.raises(LongscaleError, match=words):
        write_scores(change(example_frame()), tmp_path / "a.parquet", {"flags": []})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("of_rules", [[], {"logn": "unmatched"}, {"logn": [1]}])
def test_flags_of_a_rule_must_be_a_list_of_strings(tmp_path, of_rules):
    with pytest.raises(LongscaleError, match="'rule_flags' must map a rule to a list of strings"):
        write_scores(example_frame(), tmp_path / "a.parquet", {"flags": [], "rule_flags": of_rules})


@pytest.mark.parametrize("provenance", [{}, {"flags": "not_converged"}, {"flags": [1]}])
def test_flags_must_be_a_list_of_strings(tmp_path, provenance):
    with pytest.raises(LongscaleError, match="'flags' must be a list of strings"):
        write_scores(example_frame(), tmp_path / "a.parquet", provenance)


def test_other_files_are_refused_by_name(tmp_path):
    path = tmp_path / "a.parquet"
    with pytest.raises(LongscaleError, match=r"a\.parquet: not a readable parquet file"):
        read_scores(path)
    path.write_text("contig,pos")
    with pytest.raises(LongscaleError, match=r"a\.parquet: not a readable parquet file"):
        read_scores(path)
    table = pa.Table.from_pandas(example_frame(), preserve_index=False)
    pq.write_table(table, path)
    with pytest.raises(LongscaleError, match="has no key 'longscale'"):
        read_scores(path)
    for metadata, words in [("{", "is not JSON"), ("[]", "'flags' must be a list")]:
        pq.write_table(table.replace_schema_metadata({"longscale": metadata}), path)
        with pytest.raises(LongscaleError, match=words):
            read_scores(path)


def test_cell_from_path():
    path = "results/scores/sim_near/paired/small/1000/cos-matched/seed12/8000.parquet"
    cell = Cell.from_path(path)
    assert (cell.task, cell.protocol, cell.model) == ("sim_near", "paired", "small")
    assert (cell.train_bp, cell.eval_bp, cell.seed) == (1000, 8000, 12)
    assert cell.attention == "cos-matched"
    assert cell.path.as_posix() == path
    for wrong in ("1000.parquet", path.replace("seed12", "12"), path.replace(".parquet", ".csv")):
        with pytest.raises(LongscaleError, match="must end in"):
            Cell.from_path(wrong)
