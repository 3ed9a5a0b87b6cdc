"""Which arms a masked-LM checkpoint is scored with."""

import pytest

from longscale.arms import applies, asked_arms, mlm_arms

EVERYWHERE = {"lengths": None, "attentions": None, "seeds": None, "protocols": None}
STUDY = {
    "trainings": [{"seeds": [1, 2]}, {"seeds": [1]}],
    "protocols": ["fixed-target", "selection"],
    "lengths": [64, 128],
    "arms": [
        EVERYWHERE | {"schemes": ["rope", "alibi"], "rules": ["none", "logn"]},
        EVERYWHERE | {"schemes": ["pi", "rope"], "rules": ["none"], "lengths": [128]},
        EVERYWHERE | {"schemes": ["ntk"], "rules": ["none"], "seeds": [2], "attentions": ["dot"]},
    ],
}


@pytest.mark.parametrize(
    ("scheme", "trained", "expected"),
    [
        ("rope", "rope", True),
        ("pi", "rope", True),
        ("alibi", "rope", False),
        ("alibi", "alibi", True),
        ("pi", "alibi", False),
        ("rope", "alibi", False),
    ],
)
def test_a_scheme_applies_to_its_own_checkpoints_and_a_training_free_one_to_rope(
    scheme, trained, expected
):
    assert applies(scheme, trained) is expected


def test_a_cell_has_the_arms_of_all_entries_that_name_it_each_once():
    arms = mlm_arms(STUDY, "dot", "rope", 1, "fixed-target", 64)
    assert arms == [("rope", "none"), ("rope", "logn")]
    assert mlm_arms(STUDY, "dot", "rope", 1, "selection", 128) == [*arms, ("pi", "none")]
    assert ("ntk", "none") in mlm_arms(STUDY, "dot", "rope", 2, "fixed-target", 64)
    assert ("ntk", "none") not in mlm_arms(STUDY, "cos16", "rope", 2, "fixed-target", 64)
    assert mlm_arms(STUDY, "dot", "alibi", 1, "fixed-target", 64) == [
        ("alibi", "none"),
        ("alibi", "logn"),
    ]


def test_asked_are_the_arms_of_any_cell():
    found = set(asked_arms(STUDY, "dot", "rope"))
    assert found == {("rope", "none"), ("rope", "logn"), ("pi", "none"), ("ntk", "none")}
