"""Length rules against published numbers, limits, and the equations written out once more."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import gammaln, ive

from longscale.attention.rules import (
    LENGTH_RULES,
    check_measured,
    check_n_train,
    length_multiplier,
    length_rule,
)
from longscale.errors import LongscaleError

LENGTHS = [128, 256, 512, 1024, 2048, 4096]
FORMULAS = [name for name, rule in LENGTH_RULES.items() if not rule.measured]
OWN_RULES = [name for name in FORMULAS if not LENGTH_RULES[name].released]

lengths = st.floats(min_value=1, max_value=1e6)
train_lengths = st.integers(min_value=2, max_value=10_000)
dimensions = st.integers(min_value=1, max_value=1024)


def beta(rule, n, n_train, head_dim):
    return float(length_multiplier(rule, n, n_train, head_dim))


@pytest.mark.parametrize(
    ("rule", "head_dim", "published"),
    [
        ("none", 128, [1.0] * 6),
        ("infoscale", 64, [1.074, 1.143, 1.206, 1.264, 1.319, 1.370]),
        ("infoscale", 128, [1.077, 1.149, 1.215, 1.277, 1.336, 1.392]),
        ("critscale", 128, [1.089, 1.174, 1.255, 1.334, 1.410, 1.485]),
        ("logn", 128, [1.167, 1.333, 1.500, 1.667, 1.833, 2.000]),
        ("sqrtlogn", 128, [math.sqrt(x / 6) for x in (7, 8, 9, 10, 11, 12)]),
        ("yarn-temperature", 128, [1.143, 1.297, 1.459, 1.631, 1.813, 2.005]),
    ],
)
def test_numbers_at_training_length_64(rule, head_dim, published):
    computed = length_multiplier(rule, torch.tensor(LENGTHS), 64, head_dim)
    assert computed.tolist() == pytest.approx(published, abs=6e-4)


@pytest.mark.parametrize(("head_dim", "expected"), [(32, 1.331), (64, 1.370), (768, 1.410)])
def test_infoscale_hardly_depends_on_the_head_dimension(head_dim, expected):
    assert beta("infoscale", 4096, 64, head_dim) == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(
    ("n", "released", "right"),
    [(250, 0.941, None), (512, 1.0, 1.055), (1024, 1.054, 1.106), (2048, 1.105, 1.154)],
)
def test_released_rule_against_infoscale_with_the_right_constants(n, released, right):
    """d = 768 and n_train = 512 are written into the released code; 64 and 256 would be right."""
    assert beta("infoscale-released", n, None, 768) == pytest.approx(released, abs=6e-4)
    if right is not None:
        assert beta("infoscale", n, 256, 64) == pytest.approx(right, abs=6e-4)


def test_each_defect_of_the_released_rule_alone():
    """Three rules, one defect each; together they are the released one."""
    rows = {name: row for name, row in LENGTH_RULES.items() if row.released}
    assert list(rows) == [
        f"infoscale-released{defect}" for defect in ("", "-d", "-ntrain", "-bias")
    ]
    defects = {
        name: (row.whole_width, not row.needs_n_train, row.scales_bias)
        for name, row in rows.items()
    }
    assert list(defects.values()) == [
        (True, True, True),
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]
    for name in ("infoscale-released-d", "infoscale-released-bias"):
        assert beta(name, 2048, 256, 64) == beta("infoscale", 2048, 256, 64)
    assert beta("infoscale-released-ntrain", 2048, 256, 64) == beta("infoscale", 2048, 512, 64)
    assert beta("infoscale-released-ntrain", 128, 64, 64) < 1


@pytest.mark.parametrize("rule", OWN_RULES)
@given(n=lengths, n_train=train_lengths, head_dim=dimensions)
def test_beta_is_exactly_one_up_to_the_training_length(rule, n, n_train, head_dim):
    assert beta(rule, n_train, n_train, head_dim) == 1.0
    assert beta(rule, min(n, n_train), n_train, head_dim) == 1.0


@pytest.mark.parametrize("rule", OWN_RULES)
@given(n=lengths, factor=st.floats(min_value=1, max_value=64), n_train=train_lengths)
def test_beta_never_falls_with_length(rule, n, factor, n_train):
    assert beta(rule, n * factor, n_train, 64) >= beta(rule, n, n_train, 64) * (1 - 1e-12)


@given(n=lengths, n_train=train_lengths, head_dim=dimensions)
def test_infoscale_lies_between_one_and_sqrtlogn(n, n_train, head_dim):
    infoscale = beta("infoscale", n, n_train, head_dim)
    assert 1 <= infoscale <= beta("sqrtlogn", n, n_train, head_dim) * (1 + 1e-12)
    assert infoscale <= beta("critscale", n, n_train, head_dim) * (1 + 1e-12)


@given(n=lengths, n_train=train_lengths)
def test_infoscale_tends_to_sqrtlogn_in_many_dimensions(n, n_train):
    limit = beta("sqrtlogn", n, n_train, 64)
    assert beta("infoscale", n, n_train, 10**7) == pytest.approx(limit, rel=1e-5)
    assert beta("critscale", n, n_train, 10**7) == pytest.approx(limit, rel=1e-5)


def critical_scale(n, d):
    """Scale at which attention over a uniform sphere has given away ln n of entropy (exact).

    KL(von Mises-Fisher(scale) || uniform) = scale A_d(scale) + ln C_d(scale) - ln C_d(0) = ln n.
    """

    def divergence(scale):
        order = d / 2 - 1
        log_bessel = math.log(ive(order, scale)) + scale
        log_density = order * math.log(scale) - d / 2 * math.log(2 * math.pi) - log_bessel
        log_area = math.log(2) + d / 2 * math.log(math.pi) - gammaln(d / 2)
        return scale * ive(order + 1, scale) / ive(order, scale) + log_density + log_area

    return brentq(lambda scale: divergence(scale) - math.log(n), 1, 500)


@pytest.mark.parametrize("d", [64, 128])
@pytest.mark.parametrize("n", [512, 4096])
def test_critscale_is_the_ratio_of_critical_scales(n, d):
    exact = critical_scale(n, d) / critical_scale(64, d)
    assert beta("critscale", n, 64, d) == pytest.approx(exact, rel=2e-3)


def test_many_lengths_at_once_equal_one_at_a_time():
    n = torch.tensor([[1.0, 63.0], [64.0, 5000.0]])
    for rule in FORMULAS:
        together = length_multiplier(rule, n, 64, 16)
        assert together.dtype == torch.float64
        for one, several in zip(n.flatten(), together.flatten(), strict=True):
            assert float(several) == beta(rule, float(one), 64, 16)


def test_unknown_rule_names_the_known_ones():
    with pytest.raises(LongscaleError, match=r"'infoscal' .*infoscale, logn.*critscale"):
        length_rule("infoscal")


@pytest.mark.parametrize("n_train", [None, 0, 1])
def test_a_rule_without_a_training_length_is_refused(n_train):
    with pytest.raises(LongscaleError, match=r"n_train.*'logn'"):
        check_n_train("logn", n_train)
    with pytest.raises(LongscaleError, match="n_train"):
        length_multiplier("logn", 10, n_train, 64)
    check_n_train("none", n_train)
    check_n_train("infoscale-released", n_train)


def test_a_measured_rule_has_no_formula_and_a_formula_no_measurement():
    with pytest.raises(LongscaleError, match="'entropy-matched' is measured, it has no formula"):
        length_multiplier("entropy-matched", 128, 64, 16)
    with pytest.raises(LongscaleError, match="'entropy-matched' has no formula; give the multip"):
        check_measured("entropy-matched", None)
    with pytest.raises(LongscaleError, match="'logn' has a formula; it takes no measured"):
        check_measured("logn", torch.ones(2, 1))
    check_measured("entropy-matched", torch.ones(2, 1))
    check_measured("logn", None)
