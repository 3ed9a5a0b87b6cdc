"""HyenaDNA against the same network with direct convolutions, and what must hold of any filter."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longscale.errors import LongscaleError
from longscale.models import hyenadna
from longscale.models.hyenadna import (
    HyenaDNAConfig,
    HyenaDNAForCausalLM,
    HyenaDNAModel,
    causal_convolution,
    encode_characters,
)

L_MAX = 40


def config_of(**changes):
    small = {
        "d_model": 12,
        "n_layer": 2,
        "d_inner": 20,
        "max_seq_len": L_MAX,
        "filter_order": 8,
        "emb_dim": 5,
    }
    return HyenaDNAConfig(**(small | changes))


def model_of(model_class, seed=0, **changes):
    """A model whose parameters are all random and large enough to make every term count."""
    torch.manual_seed(seed)
    model = model_class(config_of(**changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter) + (parameter.ndim == 1))
    return model


def ids_of(batch, length, seed=1):
    return torch.randint(0, 12, (batch, length), generator=torch.Generator().manual_seed(seed))


def hidden_of(model, ids, mask=None):
    return model.base_model(ids, mask).last_hidden_state


# --- convolutions -----------------------------------------------------------------------------


def direct_convolution(signal, kernel):
    """y[t] = sum over s <= t of kernel[t - s] signal[s]: every term written out, O(L^2)."""
    length = signal.shape[-1]
    terms = []
    for t in range(length):
        terms.append((kernel[..., : t + 1].flip(-1) * signal[..., : t + 1]).sum(-1))
    return torch.stack(terms, dim=-1)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 16, 97, 300])
def test_equals_the_direct_convolution_forward_and_backward(length):
    generator = torch.Generator().manual_seed(length)
    leaves, results = None, []
    for convolve in (causal_convolution, direct_convolution):
        generator.manual_seed(length)
        leaves = [
            torch.randn(*shape, length, generator=generator, dtype=torch.float64).requires_grad_()
            for shape in ((2, 3), (3,))
        ]
        weight = torch.randn(2, 3, length, generator=generator, dtype=torch.float64)
        y = convolve(*leaves)
        (y * weight).sum().backward()
        results.append([y.detach(), *(leaf.grad for leaf in leaves)])
    torch.testing.assert_close(*results, atol=1e-11, rtol=1e-11)


def test_the_ends_do_not_touch():
    """A product of spectra that is not padded would let the end run into the beginning."""
    signal, kernel = torch.zeros(8), torch.zeros(8)
    signal[7], kernel[3] = 1.0, 1.0
    torch.testing.assert_close(
        causal_convolution(signal, kernel), torch.zeros(8), atol=1e-6, rtol=0
    )
    signal = signal.roll(-5)  # at 2
    expected = torch.eye(8)[5]
    torch.testing.assert_close(causal_convolution(signal, kernel), expected, atol=1e-6, rtol=0)


def test_half_precision_is_convolved_in_float32():
    signal, kernel = torch.randn(2, 500).bfloat16(), torch.randn(2, 500)
    exact = causal_convolution(signal.double(), kernel.double())
    half = causal_convolution(signal, kernel)
    assert half.dtype == torch.bfloat16
    assert (half.double() - exact).abs().max() <= 2**-8 * exact.abs().max()


# --- the same network, written out ------------------------------------------------------------


def direct_filter(p, name, length, l_max):
    """The filter (length, D), distance by distance, all features from their formulas."""
    rows = []
    for step in range(length):
        t, w = step / (l_max - 1), 2 * math.pi * step / l_max
        bands = [1e-4, 1.0]  # linspace(1e-4, bands - 1, bands) with two bands
        cosines, sines = [math.cos(f * w) for f in bands], [-math.sin(f * w) for f in bands]
        h = torch.tensor([t, *cosines, *sines], dtype=torch.float64)
        for place in (0, 2, 4):
            h = p[f"{name}.implicit_filter.{place}.weight"] @ h
            h = h + p[f"{name}.implicit_filter.{place}.bias"]
            h = torch.sin(p[f"{name}.implicit_filter.1.freq"][0] * h)
        h = p[f"{name}.implicit_filter.6.weight"] @ h
        slow, fast = -math.log(0.01) / 1.5, -math.log(0.01) / 0.3
        decay = torch.linspace(slow, fast, len(h), dtype=torch.float64)
        rows.append(h * (torch.exp(-t * decay) + 0.05))
    return torch.stack(rows)


def direct_operator(p, name, x, l_max):
    """One sequence's x (L, D)."""
    length, d = x.shape
    u = x @ p[f"{name}.in_proj.weight"].T + p[f"{name}.in_proj.bias"]
    taps, bias = p[f"{name}.short_filter.weight"][:, 0], p[f"{name}.short_filter.bias"]
    short = torch.zeros_like(u)
    for t in range(length):
        short[t] = bias + sum(taps[:, 2 - back] * u[t - back] for back in range(min(3, t + 1)))
    x0, x1, v = short[:, :d], short[:, d : 2 * d], short[:, 2 * d :]
    gated, kernel = v * x1, direct_filter(p, f"{name}.filter_fn", length, l_max)
    y = direct_convolution(gated.T, kernel.T).T + p[f"{name}.filter_fn.bias"] * gated
    return (x0 * y) @ p[f"{name}.out_proj.weight"].T + p[f"{name}.out_proj.bias"]


def direct_hidden(p, ids, layers, l_max):
    """Last hidden state (L, D) of one sequence `ids` (L,), in float64."""

    def norm(x, name):
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
        return (x - mean) / (variance + 1e-5).sqrt() * p[f"{name}.weight"] + p[f"{name}.bias"]

    x = p["backbone.embeddings.word_embeddings.weight"][ids]
    for layer in range(layers):
        name = f"backbone.layers.{layer}"
        x = x + direct_operator(p, f"{name}.mixer", norm(x, f"{name}.norm1"), l_max)
        h = norm(x, f"{name}.norm2") @ p[f"{name}.mlp.fc1.weight"].T + p[f"{name}.mlp.fc1.bias"]
        h = h / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
        x = x + h @ p[f"{name}.mlp.fc2.weight"].T + p[f"{name}.mlp.fc2.bias"]
    return norm(x, "backbone.ln_f")


@pytest.mark.parametrize("length", [1, 2, 17, L_MAX])
def test_equals_the_network_with_direct_convolutions(length):
    model = model_of(HyenaDNAModel)
    ids = ids_of(2, length)
    p = {name: value.detach().double() for name, value in model.named_parameters()}
    direct = torch.stack([direct_hidden(p, row, 2, L_MAX) for row in ids])
    torch.testing.assert_close(hidden_of(model, ids).double(), direct, atol=2e-5, rtol=1e-5)


def test_the_head_is_the_embeddings():
    model = model_of(HyenaDNAForCausalLM)
    words = model.hyena.backbone.embeddings["word_embeddings"].weight
    assert model.lm_head.weight is words
    assert words.shape == (16, 12)  # 12 tokens, rounded up to a multiple of 8
    ids = ids_of(2, 9)
    torch.testing.assert_close(model(ids).logits, hidden_of(model, ids) @ words.T)
    untied = model_of(HyenaDNAForCausalLM, tie_word_embeddings=False)
    assert not torch.equal(untied.lm_head.weight, untied.get_input_embeddings().weight)


# --- what must hold ---------------------------------------------------------------------------


def test_no_token_feels_a_later_one():
    model = model_of(HyenaDNAForCausalLM)
    ids = ids_of(1, 30)
    plain = model(ids).logits
    for changed in (0, 11, 29):
        other = ids.clone()
        other[0, changed] = (other[0, changed] + 1) % 12
        difference = (model(other).logits - plain).abs().amax(-1)[0]
        assert (difference[:changed] < 1e-4).all()
        assert (difference[changed:] > 1e-3).all()


def test_padding_on_the_right_is_not_felt_and_elsewhere_is_refused():
    model = model_of(HyenaDNAForCausalLM)
    ids = ids_of(2, 20)
    padded, mask = ids.clone(), torch.ones_like(ids)
    padded[0, 12:], mask[0, 12:] = hyenadna.PAD, 0
    logits = model(padded, mask).logits
    torch.testing.assert_close(logits[0, :12], model(ids[:1, :12]).logits[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits[1], model(ids).logits[1], atol=1e-4, rtol=1e-4)
    with pytest.raises(LongscaleError, match=r"attention_mask: .* behind all real tokens"):
        model(padded.flip(1), mask.flip(1))


def test_inputs_up_to_l_max_and_a_sentence_beyond():
    model = model_of(HyenaDNAForCausalLM)
    assert model(ids_of(1, L_MAX)).logits.isfinite().all()
    with pytest.raises(
        LongscaleError, match=rf"{L_MAX + 1} tokens are more than max_seq_len {L_MAX}"
    ):
        model(ids_of(1, L_MAX + 1))


def test_the_filter_is_that_of_l_max_whatever_the_input():
    operator = model_of(HyenaDNAModel).backbone.layers[1].mixer.filter_fn
    torch.testing.assert_close(operator.filter(7), operator.filter(L_MAX)[:7])


def test_bfloat16_autocast_is_close_to_float32_and_spares_the_filter():
    model = model_of(HyenaDNAForCausalLM)
    ids = ids_of(2, 30)
    exact, kernel = model(ids).logits, model.hyena.backbone.layers[0].mixer.filter_fn
    filter_alone = kernel.filter(30)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(ids).logits
        assert torch.equal(kernel.filter(30), filter_alone)
    assert (half.float() - exact).abs().max() < 0.1 * exact.abs().max()


# --- configuration, saving --------------------------------------------------------------------


def test_defaults_are_the_small_32k_model():
    with torch.device("meta"):
        model = HyenaDNAModel(HyenaDNAConfig())
    assert len(model.backbone.layers) == 4
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert shapes["backbone.embeddings.word_embeddings.weight"] == (16, 256)
    assert shapes["backbone.layers.3.mixer.filter_fn.pos_emb.z"] == (1, 32770, 5)
    assert shapes["backbone.layers.3.mixer.filter_fn.implicit_filter.6.weight"] == (256, 64)
    assert shapes["backbone.layers.3.mlp.fc1.weight"] == (1024, 256)
    assert model.config.hidden_size == 256


@pytest.mark.parametrize(("key", "value"), [("hyena_order", 3), ("emb_dim", 4), ("emb_dim", 1)])
def test_a_config_that_cannot_be_honoured_is_refused(key, value):
    with pytest.raises(LongscaleError, match=rf"^{key}: {value}"):
        config_of(**{key: value})


@pytest.mark.parametrize("tied", [True, False])
def test_save_and_load_give_the_identical_model(tmp_path, tied):
    model = model_of(HyenaDNAForCausalLM, tie_word_embeddings=tied)
    with torch.no_grad():  # what is stored counts, not what it was at initialisation
        model.hyena.backbone.layers[0].mixer.filter_fn.pos_emb.z.add_(0.1)
    model.save_pretrained(tmp_path)
    again = HyenaDNAForCausalLM.from_pretrained(tmp_path).eval()
    assert again.state_dict().keys() == model.state_dict().keys()
    ids = ids_of(2, 20)
    assert torch.equal(again(ids).logits, model(ids).logits)
    if not tied:
        assert not torch.equal(again.lm_head.weight, again.get_input_embeddings().weight)


def test_initialisation_follows_the_seed():
    def build(seed):
        torch.manual_seed(seed)
        return HyenaDNAForCausalLM(config_of())

    model = build(0)
    kernel = model.hyena.backbone.layers[0].mixer.filter_fn
    assert (kernel.implicit_filter["1"].freq == 10).all()
    assert all(value.isfinite().all() for value in model.state_dict().values())
    same = build(0).state_dict()
    assert all(torch.equal(value, same[key]) for key, value in model.state_dict().items())
    assert not torch.equal(build(1).lm_head.weight, model.lm_head.weight)


# --- tokens -----------------------------------------------------------------------------------


@given(
    st.integers(0, 30).flatmap(
        lambda width: st.lists(
            st.text("ACGTNRacgt-", min_size=width, max_size=width), min_size=1, max_size=4
        )
    ),
    st.booleans(),
)
def test_a_token_for_each_character(texts, cls):
    windows = np.frombuffer("".join(texts).encode(), np.uint8).reshape(len(texts), -1)
    spans = encode_characters(windows, cls=cls)
    known = {"A": 7, "C": 8, "G": 9, "T": 10, "N": 11}
    for index, text in enumerate(texts):
        ids = [0] * cls + [known.get(character, 6) for character in text] + [1]
        assert spans.window(index).tolist() == ids
    for base in range(windows.shape[1]):
        assert (spans.token_at(base) == base + cls).all()
