"""Position schemes against slow, obvious oracles, and what must hold for every one of them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longscale.attention.geometry import Geometry, Setting, attended, relative_map
from longscale.attention.positions import (
    POSITION_SCHEMES,
    CannotRunError,
    pose_training,
    position_scheme,
    randpos_training,
)
from longscale.errors import LongscaleError

SCHEMES = [name for name, row in POSITION_SCHEMES.items() if not row.released]
ROTARY = [name for name in SCHEMES if name != "alibi"]
# Methods that promise to leave a sequence of up to n_train tokens as it is.
PLAIN_UP_TO_N_TRAIN = [
    *("pi", "ntk-dynamic", "yarn", "streamingllm", "lm-infinite", "leaky-rerope", "self-extend"),
]


def setting(n: int, n_train: int = 16, n_max: int | None = None, head_dim: int = 8) -> Setting:
    return Setting(n, n_train, n_max or max(n, n_train), head_dim)


def oracle(name: str, s: Setting, i: int, j: int) -> float:
    """r' of one pair, straight from the definition; NaN where it is not attended."""
    r, w = i - j, s.n_train // 2
    sign = (r > 0) - (r < 0)
    stretch = max(1.0, s.n / s.n_train)
    match name:
        case "rope" | "ntk" | "ntk-dynamic" | "yarn" | "alibi":
            return r
        case "pi":
            return r / stretch
        case "windowed" | "windowed-recall":
            return r if abs(r) <= w else math.nan
        case "streamingllm":
            if s.n <= s.n_train or abs(r) <= w:
                return r
            return sign * w if j < 4 else math.nan
        case "lm-infinite":
            limit = s.n_train - 1
            return sign * min(abs(r), limit) if abs(r) <= limit or j < 10 else math.nan
        case "rerope":
            return sign * min(abs(r), w)
        case "leaky-rerope":
            k = max(1.0, (s.n - 1 - w) / (s.n_train - 1 - w))
            return r if abs(r) < w else sign * (w + (abs(r) - w) / k)
        case "self-extend":
            group = 1
            while (s.n - 1) // group + w - w // group >= s.n_train:
                group += 1
            return r if abs(r) < w else i // group - j // group + sign * (w - w // group)
        case "pose":
            return r * s.n_train / s.n_max
    raise AssertionError(f"{name} has no oracle")


@pytest.mark.parametrize("name", [name for name in SCHEMES if name != "randpos"])
@pytest.mark.parametrize("n", [1, 5, 15, 16, 17, 40, 129])
def test_relative_map_is_the_definition(name: str, n: int):
    s = setting(n)
    expected = [[oracle(name, s, i, j) for j in range(n)] for i in range(n)]
    found = relative_map(position_scheme(name).geometry(s), n)
    np.testing.assert_allclose(found.numpy(), np.array(expected, dtype=float), atol=1e-9)


@given(
    name=st.sampled_from(SCHEMES),
    n=st.integers(1, 150),
    n_train=st.integers(8, 40),
    extra=st.integers(0, 100),
)
def test_every_map_is_odd_and_pieces_do_not_overlap(name: str, n: int, n_train: int, extra: int):
    s = setting(n, n_train, n_max=max(n, n_train) + extra)
    geometry = position_scheme(name).geometry(s)
    relative = relative_map(geometry, n)
    mirrored = -relative.T
    both = ~relative.isnan() & ~mirrored.isnan()
    torch.testing.assert_close(relative[both], mirrored[both])
    covered = torch.zeros(n, n, dtype=torch.long)
    for piece in geometry.pieces:
        covered += ~relative_map(Geometry((piece,), geometry.theta), n).isnan()
    assert covered.max() <= 1
    assert torch.equal(covered == 1, ~relative.isnan())
    assert covered.diagonal().all()


@given(name=st.sampled_from(PLAIN_UP_TO_N_TRAIN), n_train=st.integers(8, 40), data=st.data())
def test_plain_rope_up_to_the_training_length(name: str, n_train: int, data):
    n = data.draw(st.integers(1, n_train))
    s = setting(n, n_train, n_max=64 * n_train)
    geometry, plain = position_scheme(name).geometry(s), position_scheme("rope").geometry(s)
    torch.testing.assert_close(relative_map(geometry, n), relative_map(plain, n))
    torch.testing.assert_close(geometry.theta, plain.theta)


@given(
    name=st.sampled_from(
        ["pi", "windowed", "streamingllm", "lm-infinite", "rerope", "leaky-rerope", "self-extend"]
    ),
    n=st.integers(1, 300),
    n_train=st.integers(8, 40),
)
def test_no_distance_that_training_did_not_have(name: str, n: int, n_train: int):
    relative = relative_map(position_scheme(name).geometry(setting(n, n_train)), n)
    largest = relative[~relative.isnan()].abs().max()
    assert largest < n_train or (name == "pi" and largest <= n_train)


@given(
    name=st.sampled_from(["streamingllm", "lm-infinite", "rerope", "leaky-rerope", "self-extend"]),
    n=st.integers(1, 200),
    n_train=st.integers(8, 40),
)
def test_identity_inside_the_window(name: str, n: int, n_train: int):
    relative = relative_map(position_scheme(name).geometry(setting(n, n_train)), n)
    r = torch.arange(n)[:, None] - torch.arange(n)
    near = r.abs() < n_train // 2
    torch.testing.assert_close(relative[near], r[near].double())


@given(
    name=st.sampled_from(sorted(POSITION_SCHEMES)),
    n=st.integers(1, 60),
    padding=st.integers(0, 30),
)
def test_attended_counts_the_keys_of_the_map(name: str, n: int, padding: int):
    total = n + padding
    geometry = position_scheme(name).geometry(setting(total, 16, 200))
    if geometry.count_all:  # released: every real key, whatever is masked
        assert attended(geometry, torch.tensor([n]), total).eq(n).all()
        return
    expected = (~relative_map(geometry, total)[:, :n].isnan()).sum(1)
    assert torch.equal(attended(geometry, torch.tensor([n]), total)[0], expected)


@pytest.mark.parametrize("n", [16, 40, 128])
def test_angles_of_ntk(n: int):
    s = setting(n, n_max=128)
    d, i = s.head_dim, np.arange(4)
    fixed = (10000 * (128 / 16) ** (d / (d - 2))) ** (-2 * i / d)
    dynamic = (10000 * (n / 16) ** (d / (d - 2))) ** (-2 * i / d)
    np.testing.assert_allclose(position_scheme("ntk").geometry(s).theta, fixed)
    np.testing.assert_allclose(position_scheme("ntk-dynamic").geometry(s).theta, dynamic)


@pytest.mark.parametrize("n_train", [64, 2048])
def test_angles_of_yarn(n_train: int):
    s = setting(8 * n_train, n_train, head_dim=64)
    fastest = min(32, n_train / (2 * math.pi))
    expected = []
    for i in range(32):
        theta = 10000 ** (-2 * i / 64)
        rotations = n_train * theta / (2 * math.pi)
        kept = min(1, max(0, (rotations - 1) / (fastest - 1)))
        expected.append((1 - kept) * theta / 8 + kept * theta)
    theta = position_scheme("yarn").geometry(s).theta
    np.testing.assert_allclose(theta, expected)
    assert theta[0] == 1  # the fastest dimension keeps its angle
    assert math.isclose(theta[-1], 10000 ** (-62 / 64) / 8)  # the slowest is interpolated


def test_pose_trains_two_chunks_with_a_skip():
    s = setting(16, n_max=160)
    positions = pose_training(s, 500, torch.Generator().manual_seed(1)) * 10
    steps = positions.diff(dim=1).round()
    assert positions[:, 0].eq(0).all()
    assert ((steps > 1).sum(1) <= 1).all()  # at most one skip
    assert (steps >= 1).all()
    assert positions.max() <= 159 + 1e-6
    skips = steps.max(1).values
    assert skips.min() < 30 < 120 < skips.max()  # of every size


def test_randpos_trains_sorted_subsets():
    s = setting(16, n_max=160)
    positions = randpos_training(s, 300, torch.Generator().manual_seed(1))
    assert (positions.diff(dim=1) >= 1).all()
    assert positions.min() == 0
    assert positions.max() == 159
    assert abs(positions.mean() - 79.5) < 3


def test_randpos_is_one_sorted_subset_per_length():
    s = setting(40, n_max=160)
    geometry = position_scheme("randpos").geometry(s)
    again = position_scheme("randpos").geometry(s)
    at = geometry.pieces[0].queries
    assert torch.equal(at, again.pieces[0].queries)
    assert (at.diff() >= 1).all()
    assert at.max() < 160
    all_of_them = position_scheme("randpos").geometry(setting(160, n_max=160)).pieces[0].queries
    assert torch.equal(all_of_them, torch.arange(160).double())


@pytest.mark.parametrize("name", ["pose", "randpos"])
def test_a_trained_scheme_does_not_run_beyond_its_positions(name: str):
    with pytest.raises(CannotRunError, match="up to 160 tokens, so it cannot run at 161"):
        position_scheme(name).geometry(setting(161, n_max=160))


def test_unknown_scheme():
    with pytest.raises(LongscaleError, match="'ropes' is not a position scheme"):
        position_scheme("ropes")


def test_trained_schemes_are_the_three_that_change_training():
    assert [name for name in SCHEMES if POSITION_SCHEMES[name].trained] == [
        *("alibi", "pose", "randpos"),
    ]
