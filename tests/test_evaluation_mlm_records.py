"""Loss curves and measurements of masked-LM trainings, read with their place in the study."""

import json
import math

import numpy as np
import pytest

from longscale.errors import LongscaleError
from longscale.evaluation.mlm_records import (
    COSINE_COLUMNS,
    ENTROPY_COLUMNS,
    PLACE,
    read_histories,
    read_maps,
    read_measurements,
)


@pytest.fixture
def training(tmp_path):
    """training("dot", "rope", 1) makes the folder of a training."""

    def make(attention, scheme, seed):
        folder = tmp_path / f"pydoc/small/64/{attention}/{scheme}/seed{seed}"
        folder.mkdir(parents=True)
        return folder

    return make


def test_histories_hold_the_training_loss_of_every_training(training):
    one, other = training("dot", "rope", 1) / "training.json", training("cos16", "alibi", 2) / "t"
    rows = [{"step": 10, "loss": 2.5}, {"step": 10, "eval_loss": 2.0}, {"step": 20, "loss": 1.5}]
    one.write_text(json.dumps({"flags": [], "history": rows}))
    other.write_text(json.dumps({"history": [{"step": 5, "loss": math.nan}]}))
    histories = read_histories([one, other])
    assert list(histories.columns) == [*PLACE, "step", "loss", "dev_loss"]
    assert histories.fillna(-1).iloc[:3].to_numpy().tolist() == [
        ["pydoc", "small", 64, "dot", "rope", 1, 10, 2.5, -1],
        ["pydoc", "small", 64, "dot", "rope", 1, 10, -1, 2.0],
        ["pydoc", "small", 64, "dot", "rope", 1, 20, 1.5, -1],
    ]
    assert histories.loc[3, ["attention", "scheme", "seed"]].tolist() == ["cos16", "alibi", 2]
    assert math.isnan(histories.loc[3, "loss"])
    assert read_histories([]).empty


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"flags": []}', '{"history": [{"loss": 1}]}', '{"history": [3]}']
)
def test_a_file_without_a_history_is_refused(training, text):
    path = training("dot", "rope", 1) / "training.json"
    path.write_text(text)
    with pytest.raises(LongscaleError, match=r"training\.json: 'history' must be a list"):
        read_histories([path])
    with pytest.raises(LongscaleError, match=r"absent\.json: 'history'"):
        read_histories([path.with_name("absent.json")])


def test_measurements_of_several_checkpoints(training):
    paths = [training("dot", "rope", 1) / "entropy.tsv", training("cos16", "rope", 1) / "e.tsv"]
    paths[0].write_text("layer\tlength\trule\tentropy\textra\n0\t64\tnone\t2.5\tx\n")
    paths[1].write_text("rule\tlayer\tlength\tentropy\nlogn\t3\t128\t\n")
    found = read_measurements(paths, ENTROPY_COLUMNS)
    assert list(found.columns) == [*PLACE, *ENTROPY_COLUMNS]
    assert found.loc[0].tolist() == ["pydoc", "small", 64, "dot", "rope", 1, 0, 64, "none", 2.5]
    assert found.loc[1, ["attention", "rule", "layer"]].tolist() == ["cos16", "logn", 3]
    assert math.isnan(found.loc[1, "entropy"])
    assert list(read_measurements([], COSINE_COLUMNS).columns) == [*PLACE, *COSINE_COLUMNS]
    with pytest.raises(LongscaleError, match=r"entropy\.tsv: column 'alpha' is missing"):
        read_measurements(paths, COSINE_COLUMNS)
    with pytest.raises(LongscaleError, match="not a readable TSV"):
        read_measurements([paths[0].with_name("absent.tsv")], ENTROPY_COLUMNS)


def test_maps(tmp_path):
    path = tmp_path / "maps.npz"
    before, after = np.random.default_rng(0).random((2, 3, 5, 5))
    np.savez(path, before=before, after=after)
    maps = read_maps(path)
    np.testing.assert_array_equal(maps["before"], before)
    np.testing.assert_array_equal(maps["after"], after)
    np.savez(path, before=before, after=after[:, :4])
    with pytest.raises(LongscaleError, match=r"must both be \(layers, n, n\)"):
        read_maps(path)
    np.savez(path, before=before)
    with pytest.raises(LongscaleError, match="not a readable npz"):
        read_maps(path)
    np.savez(path, before=np.array([{}], dtype=object), after=after)
    with pytest.raises(LongscaleError, match="not a readable npz"):
        read_maps(path)
    path.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(LongscaleError, match="not a readable npz"):
        read_maps(path)
