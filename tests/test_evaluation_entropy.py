"""Entropies against dense attention, and multipliers that must restore them."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longscale.attention.alibi import alibi_slopes
from longscale.attention.geometry import Geometry, Piece, rotation, steps
from longscale.attention.positions import POSITION_SCHEMES, PositionScheme
from longscale.errors import LongscaleError
from longscale.evaluation.entropy import (
    GRID,
    HIGHEST,
    LOWEST,
    Logits,
    dnabert2_entropies,
    gau_entropies,
    match_dnabert2,
    match_entropy,
    match_gau,
    restore_dnabert2,
)
from longscale.models.dnabert2 import DNABERT2Config, DNABERT2Model
from longscale.models.gau_alpha import GAUAlphaConfig, GAUAlphaForMaskedLM
from longscale.models.tokenizer import EncodedWindows

N_TRAIN = 16
LAYERS = 3

# --- entropy ----------------------------------------------------------------------------------


def slow_entropy(scores):
    """-sum p ln p of one row of scores, in plain Python, without what has no weight."""
    scores = [score for score in scores if score > -math.inf]
    largest = max(scores)
    weights = [math.exp(score - largest) for score in scores]
    shares = [weight / sum(weights) for weight in weights]
    return -sum(share * math.log(share) for share in shares if share > 0)


@given(
    st.lists(st.floats(-40, 40), min_size=5, max_size=5),
    st.lists(st.floats(-40, 0) | st.just(-math.inf), min_size=4, max_size=4),
    st.floats(LOWEST, HIGHEST),
)
def test_entropy_is_that_of_scaled_logits_with_the_bias_as_it_is(logits, bias, beta):
    bias = [*bias, 0.0]  # a query attends to one key at least
    expected = slow_entropy([beta * a + b for a, b in zip(logits, bias, strict=True)])
    found = Logits(torch.tensor([logits]), torch.tensor([bias])).entropy(beta)
    assert found == pytest.approx(expected, abs=2e-4)


def test_entropy_is_the_mean_over_queries():
    logits = torch.stack([torch.zeros(8), torch.tensor([100.0] + [0] * 7)])
    assert Logits(logits).entropy(1.0) == pytest.approx(math.log(8) / 2)


# --- solving ----------------------------------------------------------------------------------


def test_the_root_of_a_synthetic_case_is_found():
    """ln n - (beta sigma)^2 / 2, the entropy of many keys with normal logits."""
    found = match_entropy(lambda beta: math.log(4096) - 0.5 * beta**2 * 2.0, math.log(4096) - 2.89)
    assert found.matched
    assert found.beta == pytest.approx(1.7, abs=1e-4)
    assert found.entropy == pytest.approx(math.log(4096) - 2.89, abs=1e-3)


@given(st.floats(LOWEST, HIGHEST))
def test_a_root_anywhere_in_the_range_is_found_with_few_evaluations(root):
    asked = []

    def entropy(beta):
        asked.append(beta)
        return math.log(1000) - 3 * math.log(beta)

    found = match_entropy(entropy, entropy(root))
    assert found.matched
    assert found.beta == pytest.approx(root, abs=2e-4)
    assert len(set(asked)) <= GRID + 10


def test_one_is_exact_where_nothing_has_to_change():
    found = match_entropy(lambda beta: 5 - beta, 4.0)
    assert (found.beta, found.matched, found.entropy) == (1.0, True, 4.0)


@pytest.mark.parametrize(("target", "beta"), [(9.0, LOWEST), (0.5, HIGHEST)])
def test_without_a_root_the_nearest_multiplier_is_flagged(target, beta):
    found = match_entropy(lambda beta: 5 - beta, target)
    assert not found.matched
    assert found.beta == pytest.approx(beta)
    assert found.entropy == pytest.approx(5 - beta)


@given(st.lists(st.floats(LOWEST + 0.01, HIGHEST - 0.01), min_size=3, max_size=3))
def test_of_several_roots_the_one_nearest_one_is_taken(roots):
    grid = np.geomspace(LOWEST, HIGHEST, GRID)
    cells = [int(np.searchsorted(grid, root)) for root in roots]
    if len(set(cells)) < 3:  # two roots within a step of the grid cannot be seen
        return
    found = match_entropy(lambda beta: math.prod(beta - root for root in roots) + 2, 2.0)
    assert found.matched
    nearest = min(roots, key=lambda root: abs(root - 1))
    assert abs(found.beta - 1) == pytest.approx(abs(nearest - 1), abs=3e-4)


def test_a_broken_model_is_told():
    with pytest.raises(LongscaleError, match="not a finite number"):
        match_entropy(lambda beta: math.nan, 1.0)


# --- GAU-alpha --------------------------------------------------------------------------------


def gau_of(scheme="rope", seed=3, **changes):
    """Random, with logits that vary enough for entropies to differ from ln n."""
    torch.manual_seed(seed)
    config = GAUAlphaConfig(
        **{
            "vocab_size": 30,
            "hidden_size": 24,
            "num_hidden_layers": LAYERS,
            "intermediate_size": 32,
            "attention_key_size": 16,
            "normalization": "softmax",
            "n_train": N_TRAIN,
            "n_max": 128,
            "scheme": scheme,
        }
        | changes
    )
    model = GAUAlphaForMaskedLM(config).eval()
    with torch.no_grad():
        for layer in model.base_model.encoder.layer:
            layer.gau.i_dense.weight.normal_(0, 0.6)
            layer.gau.o_dense.weight.normal_(0, 0.3)
            layer.gau.q_scaleoffset.weight.normal_(0, 0.9)
    return model


def ids_of(n, rows=3):
    return torch.randint(5, 30, (rows, n), generator=torch.Generator().manual_seed(n))


def dense_gau_entropies(model, ids, betas):
    """Layer by layer, from whole matrices of scores; `betas` of each layer."""
    around = model.base_model.surroundings(ids.shape[1])
    distance = steps(ids.shape[1])
    distance = (distance[:, None] - distance).abs()
    theta = around.geometry.theta
    x = model.base_model.embeddings(ids)
    entropies = []
    for index, layer in enumerate(model.base_model.encoder.layer):
        q, k = layer.gau.queries_keys(layer.gau.gates(x)[2])
        if theta is not None:
            q, k = (slow_rotate(y, theta) for y in (q, k))
        scores = betas[index] * q @ k.transpose(1, 2)
        if around.geometry.alibi:
            scores = scores - layer.gau.slope * distance
        rows = np.linspace(0, ids.shape[1] - 1, min(64, ids.shape[1])).round()
        of_queries = torch.distributions.Categorical(logits=scores[:, rows]).entropy()
        entropies.append(float(of_queries.mean()))
        around.measured = torch.tensor(betas)
        x = layer(x, around)
    return entropies


def slow_rotate(x, theta):
    """RoPE of (B, n, d) as a product with complex numbers."""
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)).contiguous())
    angles = steps(x.shape[1])[:, None] * theta
    return torch.view_as_real(pairs * torch.exp(1j * angles)).flatten(-2).float()


@pytest.mark.parametrize("scheme", ["rope", "alibi"])
@pytest.mark.parametrize("attention", ["dot", "cos16", "cos-matched"])
@torch.no_grad()
def test_gau_entropies_are_those_of_dense_attention(scheme, attention):
    model = gau_of(scheme, attention=attention)
    ids = ids_of(50 if scheme == "rope" else 90)
    expected = dense_gau_entropies(model, ids, [1.0] * LAYERS)
    assert gau_entropies(model, ids) == pytest.approx(expected, abs=1e-4)
    model.set_rule("entropy-matched", torch.tensor([1.5, 0.7, 2.0]))
    expected = dense_gau_entropies(model, ids, [1.5, 0.7, 2.0])
    assert gau_entropies(model, ids) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("scheme", ["rope", "alibi", "windowed", "rerope", "streamingllm"])
def test_gau_has_the_targets_entropies_once_matched(scheme):
    model = gau_of(scheme if POSITION_SCHEMES[scheme].trained else "rope")
    model.set_scheme(scheme)
    target = gau_entropies(model, ids_of(N_TRAIN, rows=8))
    ids = ids_of(40)
    matches = match_gau(model, ids, target)
    model.set_rule("entropy-matched", torch.tensor([match.beta for match in matches]))
    found = gau_entropies(model, ids)
    for value, wanted, match in zip(found, target, matches, strict=True):
        assert value == pytest.approx(match.entropy, abs=1e-4)
        if match.matched:
            assert value == pytest.approx(wanted, abs=1e-2)
    assert sum(match.matched for match in matches) >= 2
    assert any(abs(match.beta - 1) > 0.05 for match in matches)


def test_gau_multipliers_are_1_on_the_data_of_the_targets():
    model = gau_of()
    ids = ids_of(40)
    matches = match_gau(model, ids, gau_entropies(model, ids))
    assert [(match.beta, match.matched) for match in matches] == [(1.0, True)] * LAYERS


def test_a_layer_is_solved_on_what_the_matched_layers_below_give():
    """So another target of the lowest layer changes the multipliers above it."""
    model = gau_of()
    target = gau_entropies(model, ids_of(N_TRAIN, rows=8))
    ids = ids_of(40)
    plain = match_gau(model, ids, target)
    changed = match_gau(model, ids, [target[0] + 0.15, *target[1:]])
    assert changed[0].beta < plain[0].beta
    assert all(abs(changed[i].beta - plain[i].beta) > 1e-3 for i in (1, 2))


def test_the_bias_of_a_gau_is_not_multiplied():
    """With equal queries and keys, all logits of a row are equal: what is left is the bias."""
    model = gau_of()
    with torch.no_grad():
        for layer in model.base_model.encoder.layer:
            layer.gau.q_scaleoffset.weight.zero_()
    model.set_scheme("alibi")
    plain = gau_entropies(model, ids_of(60))
    assert min(plain) < math.log(60) - 0.1  # the bias does something
    model.set_rule("entropy-matched", torch.full((LAYERS,), 3.0))
    assert gau_entropies(model, ids_of(60)) == pytest.approx(plain, abs=1e-5)


def test_a_scheme_whose_bias_the_rule_multiplies_has_it_in_the_logits(monkeypatch):
    def geometry(setting):
        return Geometry(
            (Piece(steps(setting.n), steps(setting.n)),),
            rotation(setting.head_dim),
            alibi=True,
            scaled_bias=True,
        )

    monkeypatch.setitem(POSITION_SCHEMES, "mine", PositionScheme(geometry))
    model = gau_of()
    model.set_scheme("mine")
    target = gau_entropies(model, ids_of(N_TRAIN, rows=8))
    ids = ids_of(100)
    matches = match_gau(model, ids, target)
    model.set_rule("entropy-matched", torch.tensor([match.beta for match in matches]))
    entropies = [match.entropy for match in matches]
    assert gau_entropies(model, ids) == pytest.approx(entropies, abs=1e-4)


@torch.no_grad()
def test_a_gau_with_biases_is_measured_with_them():
    model = gau_of(use_bias=True)
    for layer in model.base_model.encoder.layer:
        for bias in (layer.gau.i_dense.bias, layer.gau.q_scaleoffset.bias):
            bias.normal_(0, 0.7)
    expected = dense_gau_entropies(model, ids_of(30), [1.0] * LAYERS)
    assert gau_entropies(model, ids_of(30)) == pytest.approx(expected, abs=1e-4)


def test_an_attention_without_a_softmax_is_refused():
    with pytest.raises(LongscaleError, match="squared_relu has no softmax"):
        gau_entropies(gau_of(normalization="squared_relu"), ids_of(20))


# --- DNABERT-2 --------------------------------------------------------------------------------

HEADS = 3


def dnabert2_of(attention="dot", seed=5):
    torch.manual_seed(seed)
    config = DNABERT2Config(
        vocab_size=24,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        intermediate_size=20,
        pad_token_id=3,
        n_train=12,
        attention=attention,
    )
    model = DNABERT2Model(config, add_pooling_layer=False).eval()
    with torch.no_grad():
        for layer in model.encoder.layer:
            layer.attention.self.Wqkv.weight.normal_(0, 0.35)
    return model


def windows_of(*lengths):
    rng = np.random.default_rng(sum(lengths))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = rng.integers(5, 24, offsets[-1]).astype(np.uint16)
    readout = np.tile(np.array([0, 1], np.int32), (len(lengths), 1))
    cut = np.zeros((len(lengths), 2), np.int32)
    return EncodedWindows(ids, offsets, readout, np.array(lengths) // 2, cut)


AT_TRAINING = windows_of(12, 11, 12, 13, 12, 10, 12, 12)
AT_LENGTH = windows_of(26, 23, 26, 25, 20, 30)


def dense_dnabert2_entropies(model, windows, betas):
    """Mean over all queries of all windows, each window alone; `betas` (layers, H)."""
    slopes = alibi_slopes(HEADS)[:, None, None]
    model = copy.deepcopy(model)
    model.set_rule("entropy-matched", betas)
    rows = [[] for _ in model.encoder.layer]
    seen = []
    for layer in model.encoder.layer:
        layer.attention.self.Wqkv.register_forward_hook(lambda _m, _a, y: seen.append(y))
    for number in range(len(windows.lengths)):
        seen.clear()
        ids = torch.from_numpy(windows.window(number).astype(np.int64))[None]
        model(ids)
        n = ids.shape[1]
        r = (torch.arange(n)[:, None] - torch.arange(n)).abs()
        for index, qkv in enumerate(seen):
            q, k, _ = qkv.view(n, 3, HEADS, 8).permute(1, 2, 0, 3)  # H n d
            scores = betas[index][:, None, None] * (q @ k.transpose(1, 2) / math.sqrt(8))
            categorical = torch.distributions.Categorical(logits=scores - slopes * r)
            rows[index].append(categorical.entropy())  # H n
    return [torch.cat(of_layer, 1).mean(1).tolist() for of_layer in rows]


@torch.no_grad()
def test_dnabert2_entropies_are_those_of_dense_attention():
    model = dnabert2_of()
    ones = torch.ones(2, HEADS)
    found = dnabert2_entropies(model, AT_LENGTH)
    np.testing.assert_allclose(found, dense_dnabert2_entropies(model, AT_LENGTH, ones), atol=1e-4)
    betas = torch.tensor([[1.5, 0.7, 1.0], [2.0, 1.0, 0.6]])
    expected = dense_dnabert2_entropies(model, AT_LENGTH, betas)
    model.set_rule("entropy-matched", betas)
    np.testing.assert_allclose(dnabert2_entropies(model, AT_LENGTH), expected, atol=1e-4)


@pytest.mark.parametrize("attention", ["dot", "cos16", "cos-matched"])
@torch.no_grad()
def test_dnabert2_has_the_targets_entropies_once_matched(attention):
    model = dnabert2_of(attention)
    target = dnabert2_entropies(model, AT_TRAINING)
    matches = match_dnabert2(model, AT_TRAINING, AT_LENGTH)
    betas = torch.tensor([[match.beta for match in layer] for layer in matches])
    model.set_rule("entropy-matched", betas)
    found = dnabert2_entropies(model, AT_LENGTH)
    matched = 0
    for layer, head in np.ndindex(2, HEADS):
        match = matches[layer][head]
        assert found[layer][head] == pytest.approx(match.entropy, abs=1e-4)
        if match.matched:
            matched += 1
            assert found[layer][head] == pytest.approx(target[layer][head], abs=1e-2)
    assert matched >= 3, betas
    assert (betas - 1).abs().max() > 0.05


def test_dnabert2_multipliers_are_1_on_the_data_of_the_targets():
    matches = match_dnabert2(dnabert2_of(), AT_LENGTH, AT_LENGTH)
    assert {(match.beta, match.matched) for layer in matches for match in layer} == {(1.0, True)}


def test_a_head_is_matched_without_regard_to_the_other_heads_of_its_layer():
    model = dnabert2_of()
    targets = dnabert2_entropies(model, AT_TRAINING)
    plain = restore_dnabert2(model, AT_LENGTH, targets)
    other = [[targets[0][0], targets[0][1] + 0.2, targets[0][2]], targets[1]]
    changed = restore_dnabert2(model, AT_LENGTH, other)
    assert changed[0][0] == plain[0][0]
    assert changed[0][2] == plain[0][2]
    assert changed[0][1].beta != plain[0][1].beta
    assert changed[1] != plain[1]  # the layer above sees another input


@torch.no_grad()
def test_the_bias_of_dnabert2_is_not_multiplied():
    model = dnabert2_of()
    for layer in model.encoder.layer:
        layer.attention.self.Wqkv.weight[:24] = 0
        layer.attention.self.Wqkv.bias[:24] = 0
    plain = dnabert2_entropies(model, AT_LENGTH)
    assert np.min(plain) < math.log(20) - 0.1
    model.set_rule("entropy-matched", torch.full((2, HEADS), 3.0))
    np.testing.assert_allclose(dnabert2_entropies(model, AT_LENGTH), plain, atol=1e-5)


def test_batches_do_not_change_what_dnabert2_gives(monkeypatch):
    from longscale.evaluation import entropy

    model = dnabert2_of()
    together = dnabert2_entropies(model, AT_LENGTH)
    calls = []
    monkeypatch.setattr(
        entropy, "token_batches", lambda lengths, _: (calls.append(1), [[2], [0, 3, 4, 5], [1]])[1]
    )
    np.testing.assert_allclose(dnabert2_entropies(model, AT_LENGTH), together, atol=1e-5)
    assert calls


# --- the rule in DNABERT-2 ----------------------------------------------------------------------


@torch.no_grad()
def test_measured_multipliers_act_beyond_the_training_length_alone():
    model = dnabert2_of()
    ids, mask = (torch.from_numpy(x) for x in windows_of(40, 12, 5).pad(np.arange(3)))
    plain = model(ids, mask).last_hidden_state
    model.set_rule("entropy-matched", torch.full((2, HEADS), 1.5))
    scaled = model(ids, mask).last_hidden_state
    assert not torch.allclose(scaled[0], plain[0], atol=1e-3)
    assert torch.equal(scaled[1:], plain[1:])
    model.set_rule("none")
    assert torch.equal(model(ids, mask).last_hidden_state, plain)


def test_measured_multipliers_are_asked_for_where_the_rule_needs_them():
    model = dnabert2_of()
    with pytest.raises(LongscaleError, match="'entropy-matched' has no formula"):
        model.set_rule("entropy-matched")
    with pytest.raises(LongscaleError, match="'infoscale' has a formula"):
        model.set_rule("infoscale", torch.ones(2, HEADS))
    with pytest.raises(LongscaleError, match=r"shape \(3, 2\); the model has 2 layers of 3 heads"):
        model.set_rule("entropy-matched", torch.ones(HEADS, 2))
    assert model.rule == "none"
