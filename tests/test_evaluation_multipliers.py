"""The file of measured multipliers: round trip, and one sentence for what is wrong with one."""

import json

import numpy as np
import pytest
import torch

from longscale.errors import LongscaleError
from longscale.evaluation.entropy import Match
from longscale.evaluation.multipliers import (
    describe_matches,
    digest_tokens,
    read_measured,
    write_measured,
)

MATCHES = {
    "rope": {
        64: [[Match(1.0, 2.5, True), Match(1.0, 3.25, True)], [Match(1.0, 0.5, True)] * 2],
        128: [[Match(1.0625, 2.5, True), Match(4.0, 3.0, False)], [Match(0.75, 0.5, True)] * 2],
    },
    "alibi": {64: [[Match(1.0, 1.0, True)] * 2] * 2},
}
FACTS = {"documents": 4, "sha256": "0" * 64}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "entropy_matched.json"
    write_measured(MATCHES, path, n_train=64, unit="tokens", facts=FACTS)
    return path


def test_what_is_written_is_read(path):
    found = read_measured(path)
    assert (found.n_train, found.unit, found.matches) == (64, "tokens", MATCHES)
    assert torch.equal(found.multipliers["rope"][128], torch.tensor([[1.0625, 4.0], [0.75, 0.75]]))
    assert found.flags == {"rope": {64: [], 128: ["unmatched"]}, "alibi": {64: []}}
    multipliers, flags = found.at("rope", 128)
    assert torch.equal(multipliers, found.multipliers["rope"][128])
    assert flags == ["unmatched"]


def test_the_layout_of_the_file_is_the_documented_one(path):
    content = json.loads(path.read_text())
    assert {key: content[key] for key in ("n_train", "unit", *FACTS)} == {
        "n_train": 64,
        "unit": "tokens",
        **FACTS,
    }
    assert content["schemes"]["rope"]["128"] == {
        "beta": [[1.0625, 4.0], [0.75, 0.75]],
        "entropy": [[2.5, 3.0], [0.5, 0.5]],
        "matched": [[True, False], [True, True]],
    }


def test_a_scheme_that_cannot_run_at_any_length_is_kept(tmp_path):
    write_measured({"pose": {}}, tmp_path / "a.json", n_train=64, unit="tokens", facts=FACTS)
    assert read_measured(tmp_path / "a.json").multipliers == {"pose": {}}


@pytest.mark.parametrize(
    ("scheme", "length", "words"),
    [("rope", 256, "'rope' at 256 tokens; measured are: 64, 128"), ("pi", 64, "are: none")],
)
def test_what_was_not_measured_is_told(path, scheme, length, words):
    with pytest.raises(LongscaleError, match=words):
        read_measured(path).at(scheme, length)


def changed(content, keys, value):
    for key in keys[:-1]:
        content = content[key]
    if value is None:
        del content[keys[-1]]
    else:
        content[keys[-1]] = value


CELL = ("schemes", "rope", "128")


@pytest.mark.parametrize(
    ("keys", "value", "words"),
    [
        (("n_train",), "64", "'n_train' is '64', it must be a number of tokens"),
        (("n_train",), True, "'n_train' is True"),
        (("unit",), "kb", "'unit' is 'kb', it must be tokens or bp"),
        (("schemes",), None, "'schemes' must map"),
        (("schemes", "rope"), [1], "'schemes' must map"),
        (("schemes", "rope", "12.5"), {}, "rope has the length '12.5', it must be whole"),
        (CELL, 3, "rope at 128: 'beta', 'entropy' and 'matched' must be lists"),
        ((*CELL, "entropy"), None, "rope at 128: 'beta', 'entropy' and 'matched' must be lists"),
        ((*CELL, "beta"), [[1.0, 1.0]], "must be lists of the same layers and heads"),
        ((*CELL, "beta", 0, 0), 5.0, "'beta' holds 5.0, a multiplier is between 0.5 and 4.0"),
        ((*CELL, "beta", 0, 0), "1", "'beta' holds '1'"),
        ((*CELL, "entropy", 0, 0), float("nan"), "'entropy' holds nan"),
        ((*CELL, "matched", 0, 0), 1, "'matched' 1, they must be a number and true or false"),
        (
            ("schemes", "alibi", "64"),
            {"beta": [[1.0]], "entropy": [[1.0]], "matched": [[True]]},
            "all multipliers must be of the same layers and heads",
        ),
    ],
)
def test_a_file_that_is_not_as_it_must_be_is_told_in_a_sentence(path, keys, value, words):
    content = json.loads(path.read_text())
    changed(content, keys, value)
    path.write_text(json.dumps(content))
    with pytest.raises(LongscaleError, match=words) as error:
        read_measured(path)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize("text", ["{", "[]", "\x00"])
def test_a_file_that_is_no_json_object_is_told(path, text):
    path.write_text(text)
    with pytest.raises(LongscaleError, match=r"entropy_matched\.json: (not a readable|must hold)"):
        read_measured(path)
    path.unlink()
    with pytest.raises(LongscaleError, match="not a readable file"):
        read_measured(path)


def test_the_log_says_how_far_the_multipliers_reach():
    assert describe_matches(MATCHES["rope"][128]) == "multipliers 0.75 to 4.00, 1 of 4 unmatched"


def test_the_checksum_is_of_the_tokens_and_where_sequences_end():
    one = [np.array([1, 2, 3]), np.array([4])]
    assert digest_tokens(one) == digest_tokens([ids.astype(np.uint16) for ids in one])
    others = [[np.array([1, 2]), np.array([3, 4])], [np.array([1, 2, 3, 4])], one[::-1]]
    assert len({digest_tokens(sequences) for sequences in [one, *others]}) == 4
