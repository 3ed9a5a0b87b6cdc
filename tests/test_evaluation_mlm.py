"""Masked-LM scoring against the obvious loop: mask, full forward pass, all logits, look them up."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longscale.errors import LongscaleError
from longscale.evaluation.mlm import (
    Document,
    fixed_target_passes,
    passes_of,
    released_passes,
    score_arms,
    target_offsets,
)
from longscale.models.characters import SpecialIds
from longscale.models.gau_alpha import GAUAlphaConfig, GAUAlphaForMaskedLM

SPECIAL = SpecialIds(0, 1, 2, 3, 4)
OPTIONS = {"groups": 2, "targets_per_pass": 9, "batch_tokens": 200}


def documents(count: int = 3, tokens: int = 90, seed: int = 0) -> list[Document]:
    rng = np.random.default_rng(seed)
    return [
        Document(f"d{i}", rng.integers(5, 30, tokens + 7 * i).astype(np.int64))
        for i in range(count)
    ]


def model(**changes: object) -> GAUAlphaForMaskedLM:
    torch.manual_seed(1)
    config = GAUAlphaConfig(
        **{
            "vocab_size": 30,
            "hidden_size": 16,
            "num_hidden_layers": 3,
            "intermediate_size": 24,
            "attention_key_size": 8,
            "normalization": "softmax",
            "n_train": 18,
            "n_max": 64,
            **changes,
        }
    )
    made = GAUAlphaForMaskedLM(config).eval()
    for parameter in made.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return made


@given(span=st.integers(9, 200), data=st.data(), per_pass=st.integers(1, 9))
def test_offsets_are_apart_and_per_pass_changes_no_target(span: int, data, per_pass: int):
    groups = data.draw(st.integers(1, span // 9))
    sets = target_offsets(span, groups)
    assert len(sets) == groups
    for offsets in sets:
        assert len(offsets) == 9
        assert (np.diff(offsets) == span // 9).all()
    every = np.concatenate(sets)
    assert len(set(every)) == len(every)
    assert 0 <= every.min() <= every.max() < span
    split = target_offsets(span, groups, per_pass)
    assert all(1 <= len(offsets) <= per_pass for offsets in split)
    assert sorted(np.concatenate(split)) == sorted(every)


@pytest.mark.parametrize("groups", [0, 8])
def test_more_groups_than_room(groups: int):
    with pytest.raises(LongscaleError, match=rf"groups is {groups}, but a span of 64 tokens holds"):
        target_offsets(64, groups)


def test_fixed_targets_are_the_same_at_every_length():
    texts = documents()
    seen = {}
    for length in (18, 19, 32, 64):
        places = set()
        for one in fixed_target_passes(
            texts, length, span=18, longest=64, groups=1, special=SPECIAL, batch_tokens=40
        ):
            assert one.ids.shape[1] == length
            for row, name in enumerate(one.documents):
                ids = next(d.ids for d in texts if d.name == name)
                start = one.targets[row, 0] - one.rows[0]
                np.testing.assert_array_equal(one.ids[row], ids[start : start + length])
                places |= {(name, int(target)) for target in one.targets[row]}
        seen[length] = places
    assert len(seen[18]) == 27
    assert all(places == seen[18] for places in seen.values())


def test_a_document_shorter_than_the_longest_length():
    passes = fixed_target_passes(
        documents(tokens=63), 18, span=18, longest=64, groups=1, special=SPECIAL
    )
    with pytest.raises(LongscaleError, match="'d0' has 63 tokens, but a test document needs"):
        next(passes)


def test_released_masks_every_position_in_turn_and_tiles():
    texts = [Document("short", np.arange(5, 12)), Document("long", np.arange(5, 25))]
    passes = list(released_passes(texts, 16, special=SPECIAL, batch_tokens=1))
    assert len(passes) == 32
    by_name = {
        name: [one for one in passes if one.documents[0] == name] for name in ("short", "long")
    }
    assert [int(one.rows[0]) for one in by_name["short"]] == list(range(16))
    expected = np.concatenate([np.arange(5, 12)] * 3)[:16]
    np.testing.assert_array_equal(by_name["short"][0].ids[0], expected)
    np.testing.assert_array_equal(by_name["long"][3].ids[0], np.arange(5, 21))


@pytest.mark.parametrize("protocol", ["fixed-target", "released"])
@pytest.mark.parametrize("scheme", ["rope", "windowed", "rerope"])
def test_scores_are_those_of_the_obvious_loop(protocol: str, scheme: str):
    made, texts, length = model(), documents(), 40
    passes = passes_of(
        protocol, texts, length, span=18, longest=64, special=SPECIAL, options=OPTIONS
    )
    table, not_run = score_arms(
        made, passes, [(scheme, "infoscale")], length, SPECIAL.mask, report=lambda _: None
    )
    assert not not_run
    made.set_rule("infoscale")
    made.set_scheme(scheme)
    found = {(row.document, row.target): row for row in table.itertuples()}
    count = 0
    for one in passes():
        for row, name in enumerate(one.documents):
            ids = one.ids[row].copy()
            ids[one.rows] = SPECIAL.mask
            logits = made(torch.from_numpy(ids)[None]).logits[0].detach()
            for place, target in zip(one.rows, one.targets[row], strict=True):
                true = one.ids[row, place]
                loss = -logits[place].double().log_softmax(-1)[true]
                cell = found[name, target]
                assert cell.token == true
                assert cell.loss == pytest.approx(float(loss), abs=1e-5)
                assert cell.correct == (int(logits[place].argmax()) == true)
                count += 1
    assert count == len(found) == (54 if protocol == "fixed-target" else 120)


def test_tokens_without_a_place_in_the_vocabulary_are_masked_but_not_scored():
    texts = documents()
    texts[0].ids[len(texts[0].ids) // 2 - 9] = SPECIAL.unk  # the first target
    passes = passes_of(
        "fixed-target", texts, 18, span=18, longest=64, special=SPECIAL, options=OPTIONS
    )
    table, _ = score_arms(model(), passes, [("rope", "none")], 18, 4, report=lambda _: None)
    assert len(table) == 53
    assert SPECIAL.unk not in set(table["token"])


def test_arms_that_are_the_same_are_computed_once_and_others_are_not():
    made, texts = model(), documents()
    arms = list(itertools.product(["rope", "pi", "windowed", "rerope"], ["none", "logn"]))
    for length, computed in ((18, 3), (32, 8)):
        calls = []
        passes = passes_of(
            "fixed-target", texts, length, span=18, longest=64, special=SPECIAL, options=OPTIONS
        )

        def counted(passes=passes, calls=calls):
            calls.append(1)
            return passes()

        table, _ = score_arms(made, counted, arms, length, 4, report=lambda _: None)
        # At 18 tokens, the training length, PI is RoPE and logn is none; a window is narrower,
        # and ReRoPE's distances end at 9.
        assert len(calls) == computed
        for scheme, rule in arms:
            alone, _ = score_arms(made, passes, [(scheme, rule)], length, 4, report=lambda _: None)
            part = table[(table["scheme"] == scheme) & (table["rule"] == rule)]
            np.testing.assert_array_equal(part["loss"], alone["loss"])


def test_what_cannot_run_is_told():
    made = model(scheme="pose")
    texts = documents(tokens=100)
    passes = passes_of(
        "fixed-target", texts, 80, span=18, longest=100, special=SPECIAL, options=OPTIONS
    )
    table, not_run = score_arms(made, passes, [("pose", "none")], 80, 4, report=lambda _: None)
    assert table.empty
    assert list(table.columns) == [
        *("document", "target", "token", "scheme", "rule", "loss", "correct"),
    ]
    assert not_run == {"pose/none": "pose: trained for up to 64 tokens, so it cannot run at 80."}


def test_measured_multipliers_are_used_or_missed():
    made, texts, arm = model(), documents(), [("rope", "entropy-matched")]
    passes = passes_of(
        "fixed-target", texts, 32, span=18, longest=64, special=SPECIAL, options=OPTIONS
    )
    score = lambda measured: score_arms(  # noqa: E731
        made, passes, arm, 32, 4, measured=measured, report=lambda _: None
    )[0]["loss"].to_numpy()
    ones, twos = (
        score({"rope": {32: torch.ones(3, 1)}}),
        score({"rope": {32: 2 * torch.ones(3, 1)}}),
    )
    plain, _ = score_arms(made, passes, [("rope", "none")], 32, 4, report=lambda _: None)
    np.testing.assert_array_equal(ones, plain["loss"])
    assert abs(twos - ones).max() > 1e-3
    with pytest.raises(LongscaleError, match="was not measured for scheme 'rope' at 32 tokens"):
        score({"rope": {64: torch.ones(3, 1)}})
