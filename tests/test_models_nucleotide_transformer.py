"""Nucleotide Transformer v2 against the same network written densely, and its tokens against a
tokenizer that reads one base after the other."""

import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from longscale.attention.geometry import ntk_base
from longscale.attention.rules import LENGTH_RULES, length_multiplier
from longscale.errors import LongscaleError
from longscale.models import nucleotide_transformer as nt
from longscale.models.nucleotide_transformer import (
    NucleotideTransformerConfig,
    NucleotideTransformerForMaskedLM,
    NucleotideTransformerModel,
    encode_kmers,
)

MEASURED = torch.tensor([[1.5, 0.7, 1.0], [2.0, 1.2, 0.6]])  # layers, heads
RULES = [name for name, rule in LENGTH_RULES.items() if not rule.released]
CLASSES = [NucleotideTransformerModel, NucleotideTransformerForMaskedLM]


def config_of(**changes):
    small = {
        "vocab_size": 24,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 20,
        "n_train": 6,
    }
    return NucleotideTransformerConfig(**(small | changes))


def model_of(model_class, seed=0, **changes):
    """A model whose parameters are all random and large enough to make every term count."""
    torch.manual_seed(seed)
    model = model_class(config_of(**changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter) + (parameter.ndim == 1))
    return model


def use(model, rule):
    model.set_rule(rule, MEASURED if LENGTH_RULES[rule].measured else None)


def batch_of(lengths, width=None, seed=1):
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.arange(width or max(lengths)) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(2, 24, mask.shape, generator=generator)
    return ids.masked_fill(mask == 0, nt.PAD), mask


def hidden_of(model, ids, mask=None):
    return model.base_model(ids, mask).last_hidden_state


# --- the same network, written densely --------------------------------------------------------


def turned(x, base):
    """x (L, d) of one head, each pair of features a complex number turned by its position."""
    length, d = x.shape
    angles = torch.arange(length)[:, None] * base ** (-2 * torch.arange(d // 2) / d)
    numbers = torch.complex(x[:, : d // 2], x[:, d // 2 :]) * torch.polar(
        torch.ones_like(angles), angles
    )
    return torch.cat([numbers.real, numbers.imag], dim=1)


def dense_attention(x, name, p, config, betas, base):
    """One sequence's x (L, D), head by head, each with its multiplier, every score in memory."""
    d = config.hidden_size // config.num_attention_heads
    q, k, v = (
        x @ p[f"{name}.self.{part}.weight"].T + p[f"{name}.self.{part}.bias"]
        for part in ("query", "key", "value")
    )
    heads = []
    for head, beta in enumerate(betas):
        own = slice(head * d, (head + 1) * d)
        scores = turned(q[:, own], base) @ turned(k[:, own], base).T / math.sqrt(d)
        heads.append((beta * scores).softmax(-1) @ v[:, own])
    out = f"{name}.output.dense"
    return torch.cat(heads, dim=1) @ p[f"{out}.weight"].T + p[f"{out}.bias"]


def dense_hidden(p, config, ids, rule, base=10000.0):
    """Last hidden state (L, D) of one sequence of real tokens `ids` (L,)."""

    def norm(x, name):
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
        scaled = (x - mean) / (variance + config.layer_norm_eps).sqrt()
        return scaled * p[f"{name}.weight"] + p[f"{name}.bias"]

    heads, n = config.num_attention_heads, len(ids)
    x = p["embeddings.word_embeddings.weight"][ids]
    for layer in range(config.num_hidden_layers):
        name = f"encoder.layer.{layer}"
        if LENGTH_RULES[rule].measured:
            betas = MEASURED[layer].tolist() if n > config.n_train else [1.0] * heads
        else:
            d = config.hidden_size // heads
            betas = [float(length_multiplier(rule, n, config.n_train, d))] * heads
        attended = norm(x, f"{name}.attention.LayerNorm")
        x = x + dense_attention(attended, f"{name}.attention", p, config, betas, base)
        g, u = (norm(x, f"{name}.LayerNorm") @ p[f"{name}.intermediate.dense.weight"].T).chunk(2, 1)
        x = x + (g * torch.sigmoid(g) * u) @ p[f"{name}.output.dense.weight"].T
    return norm(x, "encoder.emb_layer_norm_after")


@pytest.mark.parametrize("rule", RULES)
def test_equals_the_dense_network_forward_and_backward(rule):
    model = model_of(NucleotideTransformerModel).double()
    use(model, rule)
    lengths = [11, 3, 6, 11, 7, 1]
    ids, mask = batch_of(lengths, width=13)
    weight = torch.randn(13, 24, generator=torch.Generator().manual_seed(2)).double()
    names, parameters = zip(*model.named_parameters(), strict=True)
    hidden = hidden_of(model, ids, mask)
    gradients = torch.autograd.grad((hidden * weight).sum(), parameters)
    p = dict(model.named_parameters())
    rows = [dense_hidden(p, model.config, ids[i, :n], rule) for i, n in enumerate(lengths)]
    dense = torch.nn.utils.rnn.pad_sequence([*rows, torch.zeros(13, 24)], batch_first=True)[:-1]
    # beta is float32 and so are the angles' sines and cosines
    torch.testing.assert_close(hidden, dense, atol=1e-5, rtol=1e-5)
    expected = torch.autograd.grad((dense * weight).sum(), parameters)
    for name, gradient, other in zip(names, gradients, expected, strict=True):
        assert (gradient - other).abs().max() < 1e-5 * max(1.0, other.abs().max()), name


def test_logits_are_those_of_the_dense_head():
    model = model_of(NucleotideTransformerForMaskedLM)
    ids, mask = batch_of([9, 4])
    p, hidden = dict(model.lm_head.named_parameters()), hidden_of(model, ids, mask)
    x = F.gelu(hidden @ p["dense.weight"].T + p["dense.bias"])
    x = F.layer_norm(x, (24,), p["layer_norm.weight"], p["layer_norm.bias"], 1e-12)
    logits = (x @ p["decoder.weight"].T + p["bias"]) * mask[..., None]
    torch.testing.assert_close(model(ids, mask).logits, logits, atol=1e-5, rtol=1e-5)


# --- positions --------------------------------------------------------------------------------


def test_positions_are_relative_and_count():
    """Attention feels the order of tokens, but not where in a batch row they stand."""
    model = model_of(NucleotideTransformerModel)
    ids, _ = batch_of([12])
    assert (hidden_of(model, ids.flip(1)).flip(1) - hidden_of(model, ids)).abs().max() > 0.1


def test_a_rotary_base_of_ones_own():
    model = model_of(NucleotideTransformerModel).double()
    ids, _ = batch_of([12])
    plain, p = hidden_of(model, ids), dict(model.named_parameters())
    base = ntk_base(8, stretch=2.0)
    assert base == pytest.approx(10000 * 2 ** (8 / 6))
    model.set_rotary_base(base)
    stretched = hidden_of(model, ids)
    dense = dense_hidden(p, model.config, ids[0], "none", base)
    torch.testing.assert_close(stretched[0], dense, atol=1e-5, rtol=1e-5)
    assert (stretched - plain).abs().max() > 1e-3
    model.set_rotary_base()
    assert torch.equal(hidden_of(model, ids), plain)


def test_ntk_turns_the_slowest_pair_as_interpolation_does_and_leaves_the_fastest():
    d, stretch = 32, 4.0
    slowest = ntk_base(d, stretch) ** (-(d - 2) / d)
    assert slowest == pytest.approx(10000 ** (-(d - 2) / d) / stretch)
    assert ntk_base(d, 1.0) == 10000


@pytest.mark.parametrize("base", [1.0, 0, -3, math.inf, math.nan])
def test_a_base_that_gives_no_angles_is_refused(base):
    with pytest.raises(LongscaleError, match=f"rotary base: {base}"):
        model_of(NucleotideTransformerForMaskedLM).set_rotary_base(base)


# --- length rules -----------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_changes_sequences_beyond_n_train_and_no_others(rule):
    model = model_of(NucleotideTransformerModel, n_train=8)
    ids, mask = batch_of([20, 8, 5])
    plain = hidden_of(model, ids, mask)
    use(model, rule)
    scaled = hidden_of(model, ids, mask)
    assert torch.equal(scaled[1:], plain[1:])
    assert torch.equal(scaled[0], plain[0]) == (rule == "none")


@pytest.mark.parametrize("rule", RULES)
def test_the_mask_does_not_feel_the_rule(rule):
    """With q = 0 every real token has the same weight, whatever the rule; padding has none."""
    model = model_of(NucleotideTransformerModel)
    with torch.no_grad():
        for layer in model.encoder.layer:
            layer.attention.self.query.weight.zero_()
            layer.attention.self.query.bias.zero_()
    ids, mask = batch_of([40, 12])
    plain = hidden_of(model, ids, mask)
    use(model, rule)
    assert torch.equal(hidden_of(model, ids, mask), plain)


@pytest.mark.parametrize("rule", ["none", "infoscale"])
def test_a_sequence_does_not_feel_its_batch_mates_or_its_padding(rule):
    model = model_of(NucleotideTransformerModel)
    use(model, rule)
    lengths = [9, 2, 9, 14]
    ids, mask = batch_of(lengths, width=16)
    together = hidden_of(model, ids, mask)
    shifted = hidden_of(model, ids.roll(2, 1), mask.roll(2, 1))
    other = hidden_of(model, torch.where(mask == 0, 7, ids), mask)
    for row, n in enumerate(lengths):
        alone = hidden_of(model, ids[row : row + 1, :n])[0]
        torch.testing.assert_close(together[row, :n], alone, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(shifted[row, 2 : 2 + n], alone, atol=1e-5, rtol=1e-5)
        assert (together[row, n:] == 0).all()
    assert torch.equal(other, together)


def test_set_rule_is_refused_where_it_cannot_act_and_changes_nothing():
    model = model_of(NucleotideTransformerForMaskedLM, n_train=None)
    for name, sentence in {
        "infoscale": "n_train",
        "info": "known ones are none",
        "infoscale-released": "defect of the released DNABERT-2 code",
    }.items():
        with pytest.raises(LongscaleError, match=sentence):
            model.set_rule(name)
    known = model_of(NucleotideTransformerForMaskedLM)
    with pytest.raises(LongscaleError, match=r"shape \(3, 2\).* 2 layers of 3 heads"):
        known.set_rule("entropy-matched", MEASURED.T)
    for either in (model, known):
        assert (either.esm.rule, either.esm.measured) == ("none", None)


# --- configuration, names, saving -------------------------------------------------------------


def test_defaults_are_the_50m_model():
    """53,534,401 parameters under `esm.` are published, 1,049,793 of them without effect."""
    with torch.device("meta"):
        model = NucleotideTransformerForMaskedLM(NucleotideTransformerConfig())
    unused = 2050 * 512 + 12 * 16 + 1  # position embeddings, head for contacts
    assert sum(p.numel() for p in model.esm.parameters()) == 53_534_401 - unused
    assert sum(p.numel() for p in model.parameters()) == 55_904_972 - unused


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_attention_heads", 5),
        ("num_attention_heads", 8),  # three features each: no pairs
        ("position_embedding_type", "absolute"),
        ("token_dropout", True),
        ("emb_layer_norm_before", True),
        ("add_bias_fnn", True),
        ("hidden_dropout_prob", 0.1),
    ],
)
def test_a_config_that_cannot_be_honoured_is_refused(key, value):
    with pytest.raises(LongscaleError, match=rf"^{key}: .*{value}"):
        config_of(**{key: value})


@pytest.mark.parametrize("model_class", CLASSES)
def test_save_and_load_give_the_identical_model(tmp_path, model_class):
    model = model_of(model_class)
    model.save_pretrained(tmp_path)
    again = model_class.from_pretrained(tmp_path).eval()
    assert again.config.n_train == 6
    assert again.state_dict().keys() == model.state_dict().keys()
    ids, mask = batch_of([9, 4])
    for rule in ("none", "critscale"):
        for either in (model, again):
            either.set_rule(rule)
        assert torch.equal(hidden_of(again, ids, mask), hidden_of(model, ids, mask))


def test_initialisation_follows_the_seed_and_the_config():
    def build(seed):
        torch.manual_seed(seed)
        return NucleotideTransformerForMaskedLM(config_of(hidden_size=96, initializer_range=0.05))

    model = build(0)
    weight = model.esm.encoder.layer[0].attention.output.dense.weight
    assert float(weight.detach().std()) == pytest.approx(0.05, rel=0.1)
    assert (model.lm_head.bias == 0).all()
    same = build(0).state_dict()
    assert all(torch.equal(value, same[key]) for key, value in model.state_dict().items())
    assert not torch.equal(build(1).lm_head.decoder.weight, model.lm_head.decoder.weight)


def test_bfloat16_autocast_is_close_to_float32():
    model = model_of(NucleotideTransformerForMaskedLM)
    ids, mask = batch_of([9, 4])
    exact = model(ids, mask).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(ids, mask).logits
    assert (half.float() - exact).abs().max() < 0.05 * exact.abs().max()


# --- tokens -----------------------------------------------------------------------------------


def slow_tokens(text):
    """(id, start, stop) of each token, <cls> aside, read from the left."""
    kmers = [""]
    for _ in range(6):
        kmers = [kmer + base for kmer in kmers for base in "ATCG"]
    vocabulary = ["<unk>", "<pad>", "<mask>", "<cls>", "<eos>", "<bos>", *kmers, *"ATCGN"]
    ids = {token: number for number, token in enumerate(vocabulary)}
    found = []
    for match in re.finditer(r"[ACGT]{6}|[ACGTN]|[^ACGTN]+", text):
        found.append((ids.get(match[0], 0), *match.span()))
    return found


@given(
    st.integers(0, 40).flatmap(
        lambda width: st.lists(
            st.text("ACGTACGTACGTNNRa", min_size=width, max_size=width), min_size=1, max_size=4
        )
    ),
    st.booleans(),
)
def test_tokens_and_their_places_equal_those_read_from_the_left(texts, chunked):
    windows = np.frombuffer("".join(texts).encode(), np.uint8).reshape(len(texts), -1)
    with pytest.MonkeyPatch.context() as patch:
        if chunked:
            patch.setattr(nt, "_CHUNK_BP", 2 * max(1, windows.shape[1]))
        spans = encode_kmers(windows)
    for index, text in enumerate(texts):
        own = slice(spans.offsets[index] + 1, spans.offsets[index + 1])
        found = zip(spans.ids[own], spans.starts[own], spans.stops[own], strict=True)
        assert [tuple(map(int, token)) for token in found] == slow_tokens(text)
        assert spans.window(index)[0] == nt.CLS


def test_the_token_of_a_variant():
    text = "ACGTAC" * 2 + "N" + "ACGTACGT"
    spans = encode_kmers(np.frombuffer(text.encode(), np.uint8)[None])
    # <cls> ACGTAC ACGTAC N ACGTAC G T
    expected = [1] * 6 + [2] * 6 + [3] + [4] * 6 + [5, 6]
    assert [int(spans.token_at(base)[0]) for base in range(len(text))] == expected
    assert spans.overlapping(10, 14).tolist() == [[2, 5]]


def test_no_windows_have_no_tokens():
    spans = encode_kmers(np.zeros((0, 12), np.uint8))
    assert (len(spans.ids), spans.offsets.tolist()) == (0, [0])
