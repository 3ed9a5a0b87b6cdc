"""GAU-alpha against the same network a pair of tokens at a time, and what must hold for it."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from gau_oracle import gau_oracle

from longscale.attention.rules import LENGTH_RULES
from longscale.errors import LongscaleError
from longscale.models.gau_alpha import GAUAlphaConfig, GAUAlphaForMaskedLM, GAUAlphaModel

ATTENTIONS = ["dot", "cos16", "cos-matched"]
NORMALIZATIONS = ["softmax", "softmax_plus", "squared_relu"]
FORMULAS = [name for name, rule in LENGTH_RULES.items() if not rule.measured and not rule.released]
MEASURED = torch.tensor([1.7, 0.6])
LENGTHS = [11, 4, 8]


def config_of(**changes):
    small = {
        "vocab_size": 20,
        "hidden_size": 10,
        "num_hidden_layers": 2,
        "intermediate_size": 12,
        "attention_key_size": 6,
        "normalization": "softmax",
        "n_train": 5,
    }
    return GAUAlphaConfig(**(small | changes))


def model_of(model_class=GAUAlphaForMaskedLM, seed=0, **changes):
    """A model whose parameters are all random and large enough to make every term count."""
    torch.manual_seed(seed)
    model = model_class(config_of(**changes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter) + (parameter.ndim == 1))
            if name.endswith("alpha"):
                parameter.fill_(3.0)
    return model


def batch_of(lengths=LENGTHS, width=None, seed=1):
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.arange(width or max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return torch.randint(1, 20, mask.shape, generator=generator) * mask, mask


def oracle_of(model, ids, lengths=LENGTHS, **how):
    return gau_oracle(dict(model.named_parameters()), model.config, ids, lengths, **how)


def assert_equal_at_real_tokens(found, expected, mask):
    real = mask.bool()
    torch.testing.assert_close(found[real].double(), expected[real], atol=2e-5, rtol=1e-4)


# --- the same network, a pair at a time -------------------------------------------------------


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_equals_the_slow_network_forward_and_backward(attention, normalization):
    model = model_of(attention=attention, normalization=normalization)
    model.set_rule("infoscale")
    ids, mask = batch_of(width=12)
    logits = model(ids, mask).logits
    expected = oracle_of(model, ids, rule="infoscale")["logits"]
    assert_equal_at_real_tokens(logits, expected, mask)
    real = mask.bool()
    seed = torch.randn(int(mask.sum()), 20, generator=torch.Generator().manual_seed(2))
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad((logits[real] * seed).sum(), parameters)
    slow = list(torch.autograd.grad((expected[real] * seed).sum(), parameters))
    for name, gradient, oracle in zip(names, found, slow, strict=True):
        if name.endswith("word_embeddings.weight"):  # an embedding never learns its padding token
            gradient, oracle = gradient[1:], oracle[1:]
        assert oracle[0 if oracle.ndim == 2 else ...].abs().max() > 0, name
        assert (gradient - oracle).abs().max() < 1e-4 * max(1, oracle.abs().max()), name


@pytest.mark.parametrize("scheme", ["rope", "alibi", "windowed", "streamingllm"])
@pytest.mark.parametrize("rule", FORMULAS)
def test_rules_and_schemes_equal_the_slow_network(rule, scheme):
    model = model_of(scheme=scheme, normalization="softmax_plus")
    model.set_rule(rule)
    ids, mask = batch_of()
    expected = oracle_of(model, ids, rule=rule, scheme=scheme)
    assert_equal_at_real_tokens(model(ids, mask).logits, expected["logits"], mask)


@pytest.mark.parametrize("changes", [{"use_bias": True}, {"attention_scale": False}])
def test_other_configurations_equal_the_slow_network(changes):
    model = model_of(**changes)
    ids, mask = batch_of()
    assert_equal_at_real_tokens(model(ids, mask).logits, oracle_of(model, ids)["logits"], mask)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_measured_multipliers_are_those_of_each_layer(normalization):
    model = model_of(normalization=normalization, attention="cos16")
    model.set_rule("entropy-matched", MEASURED)
    ids, mask = batch_of()
    expected = oracle_of(model, ids, measured=MEASURED)["logits"]
    assert_equal_at_real_tokens(model(ids, mask).logits, expected, mask)
    swapped = oracle_of(model, ids, measured=MEASURED.flip(0))["logits"]
    assert (swapped - expected).abs().max() > 1e-2
    model.set_rule("none")
    assert_equal_at_real_tokens(model(ids, mask).logits, oracle_of(model, ids)["logits"], mask)


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_attention_weights_of_a_layer(layer, normalization):
    model = model_of(normalization=normalization)
    model.set_rule("logn")
    ids, mask = batch_of()
    expected = oracle_of(model, ids, rule="logn")["attention"][layer]
    rows = torch.tensor([1, 3])
    for some in (None, rows):
        found = model.gau_alpha.attention_weights(ids, layer, mask, some).double()
        kept = expected if some is None else expected[:, rows]
        torch.testing.assert_close(found, kept, atol=1e-6, rtol=1e-4)


def test_everything_that_can_be_chosen_has_an_effect():
    """The comparisons above cannot pass by a choice having no effect."""
    ids, mask = batch_of()
    outputs = []
    for attention in ATTENTIONS:
        for normalization in NORMALIZATIONS:
            model = model_of(attention=attention, normalization=normalization)
            for rule in FORMULAS:
                model.set_rule(rule)
                outputs.append(model(ids, mask).logits[mask.bool()])
            for scheme in ("alibi", "windowed", "streamingllm"):
                model.set_scheme(scheme)
                outputs.append(model(ids, mask).logits[mask.bool()])
    pairs = [(a, b) for i, a in enumerate(outputs) for b in outputs[:i]]
    assert all((a - b).abs().max() > 1e-3 for a, b in pairs)


# --- length rules and schemes -----------------------------------------------------------------


@pytest.mark.parametrize("rule", FORMULAS)
def test_a_rule_changes_nothing_up_to_the_training_length(rule):
    model = model_of(n_train=8)
    ids, mask = batch_of()  # 11, 4 and 8 tokens
    plain = model(ids, mask).logits
    model.set_rule(rule)
    scaled = model(ids, mask).logits
    assert torch.equal(scaled[1:], plain[1:])
    assert torch.equal(scaled[0], plain[0]) == (rule == "none")


def test_the_bias_does_not_feel_the_rule():
    """With q = 0 attention is the bias alone; only the released scheme lets a rule change it."""
    model = model_of()
    with torch.no_grad():
        for layer in model.gau_alpha.encoder.layer:
            layer.gau.q_scaleoffset.weight.zero_()
    ids, mask = batch_of()
    for scheme in ("alibi", "alibi-released"):
        model.set_scheme(scheme)
        model.set_rule("none")
        plain = model(ids, mask).logits
        for rule in FORMULAS[1:]:
            model.set_rule(rule)
            changed = not torch.equal(model(ids, mask).logits, plain)
            assert changed == (scheme == "alibi-released"), rule


def test_n_is_the_number_of_keys_that_a_query_attends_to():
    """Under a window of n_train tokens at most, no query ever sees more than n_train keys."""
    model = model_of(n_train=5, scheme="windowed")
    ids, mask = batch_of()
    plain = model(ids, mask).logits
    model.set_rule("logn")
    assert torch.equal(model(ids, mask).logits, plain)
    model.set_scheme("rope")
    assert not torch.equal(model(ids, mask).logits, plain)


def test_set_rule_is_refused_and_changes_nothing():
    model = model_of(n_train=None)
    with pytest.raises(LongscaleError, match="n_train"):
        model.set_rule("infoscale")
    with pytest.raises(LongscaleError, match="known ones are none"):
        model.set_rule("info")
    with pytest.raises(LongscaleError, match="'entropy-matched' has no formula"):
        model_of().set_rule("entropy-matched")
    with pytest.raises(LongscaleError, match="'logn' has a formula; it takes no measured"):
        model_of().set_rule("logn", MEASURED)
    assert (model.gau_alpha.rule, model.gau_alpha.measured) == ("none", None)


def test_set_scheme_is_refused_and_changes_nothing():
    model = model_of(n_train=None)
    with pytest.raises(LongscaleError, match="n_train: scheme 'pi' needs"):
        model.set_scheme("pi")
    with pytest.raises(LongscaleError, match="known ones are rope"):
        model.set_scheme("rotary")
    assert model.gau_alpha.scheme == "rope"
    model.set_scheme("rope")


def test_options_of_a_scheme_go_with_it():
    ids, _ = batch_of([11])
    model = model_of()
    model.set_scheme("rerope-released", window=3)
    narrow = oracle_of(model, ids, [11], scheme="rerope-released", window=3)["logits"]
    torch.testing.assert_close(model(ids).logits.double(), narrow, atol=2e-5, rtol=1e-4)
    model.set_scheme("rerope-released")  # the released default, 64, is more than 11 tokens
    plain = oracle_of(model, ids, [11])["logits"]
    torch.testing.assert_close(model(ids).logits.double(), plain, atol=2e-5, rtol=1e-4)


def test_positions_replace_those_of_the_scheme():
    model = model_of()
    ids, mask = batch_of([9, 9])
    steps = torch.arange(9).double()
    positions = torch.stack([steps, 3 * steps])
    found = model(ids, mask, positions=positions).logits
    plain = model(ids, mask).logits
    torch.testing.assert_close(found[0], plain[0])
    assert (found[1] - plain[1]).abs().max() > 1e-2
    shifted = model(ids, mask, positions=positions + 100).logits
    torch.testing.assert_close(found, shifted, atol=1e-4, rtol=1e-4)


# --- rows, padding, labels --------------------------------------------------------------------


@pytest.mark.parametrize("model_class", [GAUAlphaModel, GAUAlphaForMaskedLM])
@pytest.mark.parametrize("scheme", ["rope", "streamingllm"])
def test_rows_equal_those_of_the_full_output(model_class, scheme):
    model = model_of(model_class, scheme=scheme)
    model.set_rule("infoscale")
    ids, mask = batch_of()
    rows = torch.tensor([0, 2, 3, 10])
    full, part = model(ids, mask)[0], model(ids, mask, rows=rows)[0]
    assert part.shape[1] == 4
    torch.testing.assert_close(part[mask[:, rows].bool()], full[:, rows][mask[:, rows].bool()])


@pytest.mark.parametrize("scheme", ["rope", "alibi", "streamingllm"])
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_a_sequence_does_not_feel_its_batch_mates_or_its_padding(attention, scheme):
    model = model_of(GAUAlphaModel, attention=attention, scheme=scheme)
    model.set_rule("infoscale")
    ids, mask = batch_of([11, 4, 8, 11])
    together = model(ids, mask).last_hidden_state
    order = torch.tensor([2, 0, 3, 1])
    permuted = model(ids[order], mask[order]).last_hidden_state
    garbage = torch.where(mask.bool(), ids, torch.randint_like(ids, 1, 20))
    other = model(garbage, mask).last_hidden_state
    for row, n in enumerate([11, 4, 8, 11]):
        expected = together[row, :n]
        place = int((order == row).nonzero())
        torch.testing.assert_close(permuted[place, :n], expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(other[row, :n], expected, atol=1e-5, rtol=1e-5)
        if scheme != "streamingllm":  # which looks at the padded length
            alone = model(ids[row : row + 1, :n]).last_hidden_state[0]
            torch.testing.assert_close(alone, expected, atol=1e-5, rtol=1e-5)
    assert together.isfinite().all()


@pytest.mark.parametrize("mask", [[[0, 1, 1]], [[1, 0, 1]], [[0, 0, 0]]])
def test_padding_must_be_on_the_right(mask):
    with pytest.raises(LongscaleError, match="attention_mask: real tokens must come first"):
        model_of()(torch.ones(1, 3, dtype=torch.long), torch.tensor(mask))


def test_labels():
    model = model_of()
    ids, mask = batch_of()
    labels = torch.full_like(ids, -100)
    labels[0, 1], labels[0, 10], labels[2, 7] = 3, 4, 5
    full = model(ids, mask).logits
    output = model(ids, mask, labels=labels)
    torch.testing.assert_close(output.logits, full[labels != -100])
    oracle = F.cross_entropy(full.flatten(0, 1), labels.flatten(), ignore_index=-100)
    torch.testing.assert_close(output.loss, oracle)
    part = model(ids, mask, labels=labels, rows=torch.tensor([1, 7]))
    torch.testing.assert_close(part.logits, output.logits[[0, 2]])
    assert model(ids, mask).loss is None


def test_dropout_acts_in_training_alone():
    model = model_of(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.5)
    ids, mask = batch_of()
    assert torch.equal(model(ids, mask).logits, model(ids, mask).logits)
    model.train()
    assert not torch.equal(model(ids, mask).logits, model(ids, mask).logits)


# --- configuration, names, saving -------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"attention": "cosine"}, "attention: 'cosine' is not known"),
        ({"attention": "cos16-released"}, "GAU-alpha does not have; use dot"),
        (
            {"normalization": "InfoScale"},
            "normalization: 'InfoScale' .* softmax_plus, squared_relu",
        ),
        ({"scheme": "rotary"}, "scheme: 'rotary' is not a position scheme"),
        ({"hidden_act": "gelu"}, "hidden_act: 'gelu' is not known; use swish"),
    ],
)
def test_names_that_are_not_known_are_refused(changes, sentence):
    with pytest.raises(LongscaleError, match=sentence):
        config_of(**changes)


def test_parameter_names_are_the_original_ones():
    layer = {
        "gau.i_dense.weight": (30, 10),
        "gau.o_dense.weight": (10, 12),
        "gau.q_scaleoffset.weight": (6,),
        "gau.k_scaleoffset.weight": (6,),
    }
    expected = {
        "gau_alpha.embeddings.word_embeddings.weight": (20, 10),
        "gau_alpha.embeddings.token_type_embeddings.weight": (2, 10),
        "cls.predictions.decoder.weight": (20, 10),
    } | {
        f"gau_alpha.encoder.layer.{i}.{key}": shape
        for i in range(2)
        for key, shape in layer.items()
    }
    found = {key: tuple(value.shape) for key, value in model_of().state_dict().items()}
    assert found == expected


def test_defaults_are_the_published_base_model():
    with torch.device("meta"):
        model = GAUAlphaForMaskedLM(GAUAlphaConfig())
    embeddings, layer = (12000 + 2) * 768, 768 * (2 * 1536 + 128) + 1536 * 768 + 2 * 128
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters == embeddings + 24 * layer == 96_517_632


def test_initialisation():
    torch.manual_seed(0)
    model = GAUAlphaForMaskedLM(
        config_of(attention="cos-matched", hidden_size=100, intermediate_size=200, use_bias=True)
    )
    unit = model.gau_alpha.encoder.layer[1].gau
    assert math.isclose(unit.alpha.item(), math.sqrt(6), rel_tol=1e-6)
    assert (unit.q_scaleoffset.weight == 1).all()
    assert (unit.k_scaleoffset.bias == 0).all()
    assert 0.018 < unit.i_dense.weight.std() < 0.022


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("model_class", [GAUAlphaModel, GAUAlphaForMaskedLM])
def test_save_and_load_give_the_identical_model(tmp_path, model_class, attention):
    """`from_pretrained` builds the model on the meta device."""
    changes = {"attention": attention, "normalization": "squared_relu", "scheme": "alibi"}
    model = model_of(model_class, **changes)
    model.set_rule("logn")
    model.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert {key: stored[key] for key in changes} == changes
    assert (stored["n_train"], stored["model_type"]) == (5, "gau_alpha")
    again = model_class.from_pretrained(tmp_path).eval()
    assert again.base_model.rule == "none"
    assert again.state_dict().keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    if model_class is GAUAlphaForMaskedLM:
        decoder = again.cls.predictions.decoder.weight
        assert decoder is again.gau_alpha.embeddings.word_embeddings.weight
    again.set_rule("logn")
    ids, mask = batch_of()
    assert torch.equal(again(ids, mask)[0], model(ids, mask)[0])
