"""What attention does inside a GAU-alpha: windows, entropies, cosines, maps."""

import numpy as np
import pandas as pd
import pytest
import torch

from longscale.attention.rules import length_multiplier
from longscale.errors import LongscaleError
from longscale.evaluation import mlm_attention
from longscale.evaluation.cosine_peaks import theory_mean, theory_mode
from longscale.evaluation.entropy import gau_entropies
from longscale.evaluation.mlm_attention import (
    attention_maps,
    long_enough,
    match_schemes,
    measure_cosines,
    measure_entropies,
    middle_windows,
    view_layers,
)
from longscale.evaluation.mlm_records import COSINE_COLUMNS, ENTROPY_COLUMNS, read_maps
from longscale.models.gau_alpha import GAUAlphaConfig, GAUAlphaForMaskedLM

N_TRAIN = 16
LENGTHS = [N_TRAIN, 32, 64]
RULES = ["none", "infoscale", "logn", "entropy-matched"]
D = 8


def model_of(scheme="rope", attention="dot", **changes):
    torch.manual_seed(6)
    config = GAUAlphaConfig(
        **{
            "vocab_size": 30,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "intermediate_size": 24,
            "attention_key_size": D,
            "normalization": "softmax",
            "attention": attention,
            "scheme": scheme,
            "n_train": N_TRAIN,
            "n_max": 64,
        }
        | changes
    )
    model = GAUAlphaForMaskedLM(config).eval()
    with torch.no_grad():
        for layer in model.base_model.encoder.layer:
            layer.gau.i_dense.weight.normal_(0, 0.6)
            layer.gau.q_scaleoffset.weight.normal_(0, 1.0)
            layer.gau.k_scaleoffset.weight.normal_(0, 1.0)
            if attention == "cos-matched":
                layer.gau.alpha.fill_(6.0 + layer.gau.layer)
    return model


@pytest.fixture(scope="module")
def documents():
    rng = np.random.default_rng(0)
    return [rng.integers(5, 30, n).astype(np.int32) for n in (64, 90, 101)]


def quiet(text):
    """A report that nobody reads."""


# --- windows ----------------------------------------------------------------------------------


def test_all_lengths_use_the_documents_that_are_long_enough_for_the_longest(documents):
    assert [len(ids) for ids in long_enough(documents, 65)] == [90, 101]
    with pytest.raises(LongscaleError, match="none of the 3 development documents has 102 tokens"):
        long_enough(documents, 102)
    with pytest.raises(LongscaleError, match="none of the 0 development documents"):
        long_enough([], 64)


def test_a_long_window_is_the_middle_of_its_document():
    long = np.arange(5000, dtype=np.int32)
    (window,) = middle_windows([long], 2048)
    assert window.tolist() == list(range(1476, 3524))
    assert window.dtype == torch.int64


def test_short_windows_lie_side_by_side_around_the_middle():
    long = np.arange(5000, dtype=np.int32)
    windows = middle_windows([long, long[:150]], 64)
    assert windows.shape == (16 + 2, 64)
    assert windows[:16].flatten().tolist() == list(range(1988, 3012))
    assert windows[16:].flatten().tolist() == list(range(11, 139))


# --- entropies --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def matches(documents):
    return match_schemes(model_of(), documents, ["rope", "windowed"], LENGTHS, quiet)


def test_every_scheme_is_matched_to_itself_at_the_training_length(matches, documents):
    model = model_of()
    for scheme in ("rope", "windowed"):
        model.set_rule("none")
        model.set_scheme(scheme)
        target = gau_entropies(model, middle_windows(documents, N_TRAIN))
        assert [head.entropy for (head,) in matches[scheme][N_TRAIN]] == pytest.approx(target)
        assert {head.beta for (head,) in matches[scheme][N_TRAIN]} == {1.0}
        for length in LENGTHS[1:]:
            betas = torch.tensor([head.beta for (head,) in matches[scheme][length]])
            model.set_rule("entropy-matched", betas)
            found = gau_entropies(model, middle_windows(documents, length))
            for value, wanted, (head,) in zip(found, target, matches[scheme][length], strict=True):
                assert head.matched
                assert value == pytest.approx(wanted, abs=1e-2)


def test_the_multipliers_of_a_length_below_the_training_one_are_1(documents):
    found = match_schemes(model_of(), documents, ["rope"], [8], quiet)
    assert [(head.beta, head.matched) for (head,) in found["rope"][8]] == [(1.0, True)] * 2


def test_a_length_at_which_a_scheme_cannot_run_is_left_out_and_reported(documents):
    lines = []
    model = model_of("randpos", n_max=32)
    found = match_schemes(model, documents, ["randpos"], LENGTHS, lines.append)
    assert list(found["randpos"]) == [16, 32]
    assert "randpos cannot run at 64 tokens" in lines[-1]
    table = measure_entropies(model, documents, RULES, LENGTHS, found["randpos"])
    assert set(table["length"]) == {16, 32}


@pytest.fixture(scope="module")
def entropies(documents, matches):
    return measure_entropies(model_of(), documents, RULES, LENGTHS, matches["rope"])


def test_there_is_an_entropy_for_every_layer_length_and_rule(entropies):
    assert list(entropies.columns) == ENTROPY_COLUMNS
    assert len(entropies) == 2 * len(LENGTHS) * len(RULES)
    assert not entropies.duplicated(["layer", "length", "rule"]).any()


def test_the_entropies_are_those_of_the_model_under_each_rule(entropies, matches, documents):
    model = model_of()
    for (length, rule), rows in entropies.groupby(["length", "rule"]):
        measured = torch.tensor([head.beta for (head,) in matches["rope"][length]])
        model.set_rule(rule, measured if rule == "entropy-matched" else None)
        expected = gau_entropies(model, middle_windows(documents, length))
        values = rows.sort_values("layer")["entropy"].tolist()
        assert values == pytest.approx(expected, abs=1e-4), (length, rule)


def test_matching_restores_what_length_takes(entropies):
    wide = entropies.pivot(index=["layer", "length"], columns="rule", values="entropy")
    target = wide["none"].xs(N_TRAIN, level="length")
    far = wide.xs(64, level="length")
    assert ((far["none"] - target) > 0.1).all()
    assert ((far["entropy-matched"] - target).abs() < 1e-2).all()


def test_up_to_the_training_length_all_rules_are_computed_once(documents, matches, monkeypatch):
    calls = []
    monkeypatch.setattr(
        mlm_attention, "gau_entropies", lambda *args: calls.append(args) or gau_entropies(*args)
    )
    measure_entropies(model_of(), documents, RULES, [N_TRAIN], matches["rope"])
    assert calls == []
    measure_entropies(model_of(), documents, [*RULES, "none"], [32], matches["rope"])
    assert len(calls) == 3


def test_softmax_plus_is_measured_with_its_own_factor(documents):
    """ln n / ln 512 belongs to the checkpoint: at 16 tokens its logits are 0.44 times as large."""
    plain, plus = model_of(), model_of(normalization="softmax_plus")
    windows = middle_windows(documents, N_TRAIN)
    factor = float(length_multiplier("logn", torch.tensor(512.0), N_TRAIN, D)) ** -1
    plain.set_rule("entropy-matched", torch.full((2,), factor))
    assert gau_entropies(plus, windows) == pytest.approx(gau_entropies(plain, windows), abs=1e-4)


# --- cosines and maps -------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["dot", "cos8", "cos-matched"])
@torch.no_grad()
def test_a_view_is_what_dense_attention_computes(attention, documents):
    model = model_of(attention=attention)
    windows = middle_windows(documents, N_TRAIN)
    x = model.base_model.embeddings(windows)
    around = model.base_model.surroundings(N_TRAIN)
    angles = torch.arange(N_TRAIN)[:, None] * around.geometry.theta
    views = view_layers(model, windows)
    for layer, view in zip(model.base_model.encoder.layer, views, strict=True):
        z = layer.gau.gates(x)[2]
        q, k = z * layer.gau.q_scaleoffset.weight, z * layer.gau.k_scaleoffset.weight
        cosine = torch.nn.functional.cosine_similarity(q[:, :, None], k[:, None], dim=-1)
        torch.testing.assert_close(view.cosine, cosine, atol=1e-5, rtol=1e-4)
        alpha = {"dot": None, "cos8": 8.0, "cos-matched": 6.0 + layer.gau.layer}[attention]
        assert view.alpha == alpha
        logits = q @ k.transpose(1, 2) / D**0.5 if alpha is None else alpha * cosine
        torch.testing.assert_close(view.before, logits, atol=1e-4, rtol=1e-4)
        turned = [
            torch.view_as_complex(y.double().unflatten(-1, (-1, 2)).contiguous())
            * torch.exp(1j * angles)
            for y in layer.gau.queries_keys(z)
        ]
        after = (turned[0] @ turned[1].conj().transpose(1, 2)).real.float()
        torch.testing.assert_close(view.after, after, atol=1e-4, rtol=1e-4)
        x = layer(x, around)


def test_cosines_are_weighted_by_attention(documents):
    model = model_of(attention="cos8")
    windows = middle_windows(documents, N_TRAIN)
    table = measure_cosines(model, windows)
    assert list(table.columns) == COSINE_COLUMNS
    assert table["layer"].tolist() == [0, 1]
    assert (table["alpha"] == 8).all()
    for row, view in zip(table.itertuples(), view_layers(model, windows), strict=True):
        weights = view.after.softmax(-1)
        mean = (weights * view.cosine).sum(-1).mean()
        assert row.weighted_mean == pytest.approx(float(mean), abs=1e-5)
        assert row.weighted_mean > float(view.cosine.mean())
        assert row.theory_mode == theory_mode(8.0, D)
        assert row.theory_mean == theory_mean(8.0, D)
        assert -1 <= row.peak <= 1
        assert -1 <= row.weighted_peak <= 1


def test_the_dot_product_has_no_alpha_and_no_theory(documents):
    table = measure_cosines(model_of(), middle_windows(documents, N_TRAIN))
    assert table[["alpha", "theory_mode", "theory_mean"]].isna().all(axis=None)
    assert table[["peak", "weighted_peak", "weighted_mean"]].notna().all(axis=None)
    matched = measure_cosines(model_of(attention="cos-matched"), middle_windows(documents, N_TRAIN))
    assert matched["alpha"].tolist() == [6.0, 7.0]


def test_maps_are_logits_before_and_after_rope(documents, tmp_path):
    model = model_of()
    window = middle_windows(documents, N_TRAIN)[1]
    maps = attention_maps(model, window)
    assert maps["before"].shape == maps["after"].shape == (2, N_TRAIN, N_TRAIN)
    np.savez_compressed(tmp_path / "maps.npz", **maps)
    assert set(read_maps(tmp_path / "maps.npz")) == {"before", "after"}
    diagonal = np.arange(N_TRAIN)  # a token sees itself without rotation
    np.testing.assert_allclose(
        maps["before"][:, diagonal, diagonal], maps["after"][:, diagonal, diagonal], atol=1e-4
    )
    assert np.abs(maps["before"] - maps["after"]).max() > 0.1


def test_what_is_not_attended_is_nan_in_a_map(documents):
    model = model_of("windowed")
    maps = attention_maps(model, middle_windows(documents, N_TRAIN)[0])
    r = np.arange(N_TRAIN)[:, None] - np.arange(N_TRAIN)
    np.testing.assert_array_equal(np.isnan(maps["after"]), [np.abs(r) > N_TRAIN // 2] * 2)
    assert not np.isnan(maps["before"]).any()


def test_the_rule_and_scheme_that_were_set_before_do_not_matter(documents):
    windows = middle_windows(documents, N_TRAIN)
    model = model_of()
    plain = measure_cosines(model, windows)
    model.set_rule("entropy-matched", torch.full((2,), 3.0))
    model.set_scheme("windowed")
    pd.testing.assert_frame_equal(measure_cosines(model, windows), plain)
