"""DNABERT-2 against the same network written densely, and what must hold for every model class."""

import json
import math

import pytest
import torch
import torch.nn.functional as F

from longscale.attention import kernel
from longscale.attention.alibi import alibi_slopes
from longscale.attention.rules import LENGTH_RULES
from longscale.errors import LongscaleError
from longscale.models.dnabert2 import (
    DNABERT2Config,
    DNABERT2ForMaskedLM,
    DNABERT2ForSequenceClassification,
    DNABERT2ForVariantEffect,
    DNABERT2Model,
    match_alpha,
)

MEASURED = torch.tensor([[1.5, 0.7, 1.0], [2.0, 1.2, 0.6]])  # layers, heads
SCALES_BIAS = ("infoscale-released", "infoscale-released-bias")
ATTENTIONS = ["dot", "cos16", "cos-matched", "cos16-released"]
CLASSES = [
    DNABERT2Model,
    DNABERT2ForMaskedLM,
    DNABERT2ForSequenceClassification,
    DNABERT2ForVariantEffect,
]


def names(count):
    return [f"tissue {i}" for i in range(count)]


def config_of(**changes):
    small = {
        "vocab_size": 24,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 20,
        "pad_token_id": 0,
        "num_labels": 3,
        "n_train": 6,
    }
    return DNABERT2Config(**(small | changes))


def model_of(model_class, seed=0, **changes):
    """A model whose parameters are all random and large enough to make every term count."""
    torch.manual_seed(seed)
    model = model_class(config_of(**changes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter) + (parameter.ndim == 1))
            if name.endswith("alpha"):
                parameter.copy_(torch.tensor([0.5, 4.0, 16.0]))
    return model


def use(model, rule):
    """Set a rule, with the multipliers above where it is a measured one."""
    model.set_rule(rule, MEASURED if LENGTH_RULES[rule].measured else None)


def batch_of(lengths, width=None, seed=1):
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.arange(width or max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return torch.randint(1, 24, mask.shape, generator=generator) * mask, mask


# --- the same network, written densely --------------------------------------------------------


def beta_of(rule, n, n_train, head_dim, hidden):
    """beta(n) with nothing but math; what is measured comes on top."""
    if rule in ("infoscale-released", "infoscale-released-ntrain"):
        d = hidden if rule == "infoscale-released" else head_dim
        return math.sqrt((1 - n ** (-2 / d)) / (1 - 512 ** (-2 / d)))
    if rule in ("none", "entropy-matched") or n <= n_train:
        return 1.0
    info = math.sqrt(1 - n ** (-2 / head_dim)) / math.sqrt(1 - n_train ** (-2 / head_dim))
    wide = math.sqrt(1 - n ** (-2 / hidden)) / math.sqrt(1 - n_train ** (-2 / hidden))
    return {
        "infoscale": info,
        "infoscale-released-d": wide,
        "infoscale-released-bias": info,
        "logn": math.log(n) / math.log(n_train),
        "sqrtlogn": math.sqrt(math.log(n) / math.log(n_train)),
        "yarn-temperature": (0.1 * math.log(n / n_train) + 1) ** 2,
        "critscale": n ** (2 / head_dim) / n_train ** (2 / head_dim) * info,
    }[rule]


def dense_logits(q, k, mask, attention, alpha):
    """Logits (B, H, L, L) of q, k (B, H, L, d), before rule and bias."""
    if attention == "dot":
        return q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
    q = q / q.norm(dim=-1, keepdim=True)
    if attention.endswith("-released"):
        k = k * mask[:, None, :, None]
        k = k / k.norm(dim=2, keepdim=True)
    else:
        k = k / k.norm(dim=-1, keepdim=True)
    return alpha * q @ k.transpose(2, 3)


def dense_hidden(p, config, ids, mask, rule):
    """Last hidden state (B, L, D) from parameters `p`, on padded tokens, in the paper's order."""
    batch, length = ids.shape
    hidden, heads = config.hidden_size, config.num_attention_heads
    n = mask.sum(1).tolist()
    beta = torch.tensor([beta_of(rule, x, config.n_train, hidden // heads, hidden) for x in n])
    beta = beta[:, None, None, None]
    beyond = torch.tensor([x > config.n_train for x in n])[:, None, None, None]
    distance = (torch.arange(length)[:, None] - torch.arange(length)).abs()
    bias = -alibi_slopes(heads)[:, None, None] * distance

    def norm(x, name):
        return F.layer_norm(x, (hidden,), p[f"{name}.weight"], p[f"{name}.bias"], 1e-12)

    x = p["embeddings.word_embeddings.weight"][ids]
    x = norm(x + p["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for layer in range(config.num_hidden_layers):
        name = f"encoder.layer.{layer}"
        own = f"{name}.attention.self"
        qkv = x @ p[f"{own}.Wqkv.weight"].T + p[f"{own}.Wqkv.bias"]
        q, k, v = qkv.view(batch, length, 3, heads, -1).permute(2, 0, 3, 1, 4)  # B H L d
        alpha = p[f"{own}.alpha"][:, None, None] if config.attention == "cos-matched" else 16.0
        logits = dense_logits(q, k, mask, config.attention, alpha)
        if rule == "entropy-matched":
            beta = torch.where(beyond, MEASURED[layer][:, None, None], 1.0)
        together = rule in SCALES_BIAS
        scores = beta * (logits + bias) if together else beta * logits + bias
        scores = scores.masked_fill(mask[:, None, None, :] == 0, -math.inf)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        out = f"{name}.attention.output"
        x = norm(
            x + mixed @ p[f"{out}.dense.weight"].T + p[f"{out}.dense.bias"], f"{out}.LayerNorm"
        )
        gate, up = (x @ p[f"{name}.mlp.gated_layers.weight"].T).chunk(2, -1)
        wo = (F.gelu(gate) * up) @ p[f"{name}.mlp.wo.weight"].T + p[f"{name}.mlp.wo.bias"]
        x = norm(x + wo, f"{name}.mlp.layernorm")
    return x * mask[..., None]


@pytest.mark.parametrize("rule", LENGTH_RULES)
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_equals_the_dense_network_forward_and_backward(attention, rule):
    model = model_of(DNABERT2Model, attention=attention)
    use(model, rule)
    ids, mask = batch_of([11, 3, 6, 11, 7, 1], width=13)
    weight = torch.randn(*ids.shape, 24, generator=torch.Generator().manual_seed(2))
    hidden = model(ids, mask).last_hidden_state
    names, parameters = zip(
        *((n, p) for n, p in model.named_parameters() if not n.startswith("pooler")), strict=True
    )
    gradients = torch.autograd.grad((hidden * weight).sum(), parameters)
    dense = dense_hidden(dict(model.named_parameters()), model.config, ids, mask, rule)
    dense_gradients = torch.autograd.grad((dense * weight).sum(), parameters)
    torch.testing.assert_close(hidden, dense, atol=1e-4, rtol=1e-4)
    for name, gradient, expected in zip(names, gradients, dense_gradients, strict=True):
        if name == "embeddings.word_embeddings.weight":
            expected = expected.index_fill(0, torch.tensor(0), 0)  # the padding token
        scale = max(1.0, float(expected.abs().max()))
        assert (gradient - expected).abs().max() < 2e-4 * scale, name


@pytest.mark.parametrize(
    ("attention", "rule"),
    [("dot", "none"), ("dot", "logn"), ("dot", "entropy-matched"), ("cos16", "none")],
)
def test_keys_left_out_of_a_long_sequence_are_not_missed(monkeypatch, attention, rule):
    """From 1,024 tokens on steep heads leave keys out; a rule moves the bound on what may be."""
    left_out = []
    apply = kernel._Windowed.apply
    monkeypatch.setattr(
        kernel._Windowed, "apply", lambda *args: left_out.append(args) or apply(*args)
    )
    model = model_of(DNABERT2Model, attention=attention, hidden_size=18, n_train=60)
    with torch.no_grad():  # logits of ordinary size
        for layer in model.encoder.layer:
            layer.attention.self.Wqkv.weight[:36] *= 0.05
            layer.attention.self.Wqkv.bias[:36] *= 0.2
    use(model, rule)
    ids, mask = batch_of([1100, 1030])
    with torch.inference_mode():
        hidden = model(ids, mask).last_hidden_state
        dense = dense_hidden(dict(model.named_parameters()), model.config, ids, mask, rule)
    assert len(left_out) == 4  # two sequences, two layers
    torch.testing.assert_close(hidden, dense, atol=1e-4, rtol=1e-4)


def test_rules_and_attentions_differ():
    """The comparison above cannot pass by a rule or an attention having no effect."""
    ids, mask = batch_of([11, 9])
    outputs = []
    for attention in ATTENTIONS:
        model = model_of(DNABERT2Model, attention=attention)
        for rule in LENGTH_RULES:
            use(model, rule)
            outputs.append(model(ids, mask).last_hidden_state)
    pairs = [(a, b) for i, a in enumerate(outputs) for b in outputs[:i]]
    assert all((a - b).abs().max() > 1e-3 for a, b in pairs)


# --- length rules -----------------------------------------------------------------------------


def test_bias_and_mask_do_not_feel_the_rule():
    """With q = 0 attention is the bias alone; only the released rule may change it."""
    model = model_of(DNABERT2Model)
    with torch.no_grad():
        for layer in model.encoder.layer:
            layer.attention.self.Wqkv.weight[:24] = 0
            layer.attention.self.Wqkv.bias[:24] = 0
    ids, mask = batch_of([40, 12])
    plain = model(ids, mask).last_hidden_state
    for rule in LENGTH_RULES:
        use(model, rule)
        changed = not torch.equal(model(ids, mask).last_hidden_state, plain)
        assert changed == (rule in SCALES_BIAS), rule


def test_n_is_the_number_of_real_tokens_of_each_sequence():
    model = model_of(DNABERT2Model, n_train=8)
    ids, mask = batch_of([20, 8, 5])
    plain = model(ids, mask).last_hidden_state
    model.set_rule("logn")
    scaled = model(ids, mask).last_hidden_state
    assert not torch.equal(scaled[0], plain[0])
    assert torch.equal(scaled[1:], plain[1:])


def test_set_rule_is_refused_without_a_training_length_and_changes_nothing():
    model = model_of(DNABERT2ForSequenceClassification, n_train=None)
    with pytest.raises(LongscaleError, match="n_train"):
        model.set_rule("infoscale")
    with pytest.raises(LongscaleError, match="known ones are none"):
        model.set_rule("info")
    assert model.bert.rule == "none"
    model.set_rule("infoscale-released")
    assert model.bert.rule == "infoscale-released"


# --- padding ----------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_a_sequence_does_not_feel_its_batch_mates_or_its_padding(attention):
    model = model_of(DNABERT2Model, attention=attention)
    model.set_rule("infoscale")
    lengths = [9, 2, 9, 14]
    ids, mask = batch_of(lengths, width=16)
    together = model(ids, mask)
    shifted = model(ids.roll(2, 1), mask.roll(2, 1))
    for row, n in enumerate(lengths):
        alone = model(ids[row : row + 1, :n])
        hidden, pooled = alone.last_hidden_state[0], alone.pooler_output[0]
        for padded, start in ((together, 0), (shifted, 2)):
            inside = padded.last_hidden_state[row, start : start + n]
            torch.testing.assert_close(inside, hidden, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(padded.pooler_output[row], pooled, atol=1e-5, rtol=1e-5)
        assert (together.last_hidden_state[row, n:] == 0).all()


# --- heads ------------------------------------------------------------------------------------


def test_masked_lm_head_runs_on_labelled_tokens_alone():
    model = model_of(DNABERT2ForMaskedLM)
    ids, mask = batch_of([5, 12, 8])
    labels = torch.full_like(ids, -100)
    labels[0, 1], labels[1, 11], labels[1, 2], labels[2, 7] = 3, 4, 5, 6
    full = model(ids, mask).logits
    rows = []
    model.cls.register_forward_pre_hook(lambda _m, args: rows.append(len(args[0])))
    model.cls.predictions.register_forward_pre_hook(lambda _m, args: rows.append(len(args[0])))
    output = model(ids, mask, labels=labels)
    assert rows == [4]
    torch.testing.assert_close(output.logits, full[labels != -100], atol=1e-5, rtol=1e-5)
    oracle = F.cross_entropy(full.flatten(0, 1), labels.flatten(), ignore_index=-100)
    torch.testing.assert_close(output.loss, oracle)
    assert (full[mask == 0] == 0).all()


def test_sequence_classification_reads_cls():
    model = model_of(DNABERT2ForSequenceClassification)
    ids, mask = batch_of([5, 12])
    labels = torch.tensor([2, 0])
    output = model(ids, mask, labels=labels)
    cls = model.bert(ids, mask).last_hidden_state[:, 0]
    logits = model.classifier(torch.tanh(model.bert.pooler.dense(cls)))
    torch.testing.assert_close(output.logits, logits)
    torch.testing.assert_close(output.loss, F.cross_entropy(logits, labels))


def variant_batch(tissues=2):
    ids, mask = batch_of([7, 12, 9, 7, 11, 9])
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "readout_start": torch.tensor([0, 5, 8, 1, 5, 8]),
        "readout_stop": torch.tensor([7, 8, 9, 3, 7, 9]),
        "tissue": F.one_hot(torch.tensor([0, 1, 1]), 2).float() if tissues else None,
        "labels": torch.tensor([0, 1, 1]),
    }


@pytest.mark.parametrize("tissues", [0, 2])
def test_variant_effect_reads_both_alleles_around_the_variant(tissues):
    model = model_of(DNABERT2ForVariantEffect, tissues=names(tissues))
    batch = variant_batch(tissues)
    output = model(**batch)
    hidden = model.bert(batch["input_ids"], batch["attention_mask"]).last_hidden_state
    for variant in range(3):
        readouts = []
        for row in (variant, variant + 3):
            span = slice(int(batch["readout_start"][row]), int(batch["readout_stop"][row]))
            readouts.append(hidden[row, span].mean(0))
        ref, alt = readouts
        tissue = [batch["tissue"][variant]] if tissues else []
        features = torch.cat([ref, alt, alt - ref, *tissue])
        logits = model.head.out(F.gelu(model.head.dense(features)))
        torch.testing.assert_close(output.logits[variant], logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits, batch["labels"]))
    assert model(**(batch | {"labels": None})).loss is None


@pytest.mark.parametrize(("start", "stop"), [(3, 3), (5, 4), (-1, 2), (10, 12)])
def test_readouts_outside_the_tokens_are_refused(start, stop):
    model = model_of(DNABERT2ForVariantEffect, tissues=names(2))
    batch = variant_batch()
    batch["readout_start"][4], batch["readout_stop"][4] = start, stop
    with pytest.raises(LongscaleError, match=f"readout: row 4 reads tokens {start} to {stop}"):
        model(**batch)


@pytest.mark.parametrize("tissues", [0, 3])
def test_a_tissue_vector_of_another_width_is_refused(tissues):
    model = model_of(DNABERT2ForVariantEffect, tissues=names(tissues))
    with pytest.raises(LongscaleError, match=f"2 tissues.* config {tissues}"):
        model(**variant_batch())


# --- alpha ------------------------------------------------------------------------------------


def test_match_alpha_is_the_mean_over_pairs_of_the_dot_model():
    dot = model_of(DNABERT2ForMaskedLM)
    matched = DNABERT2ForMaskedLM(config_of(attention="cos-matched"))
    matched.load_state_dict(dot.state_dict(), strict=False)
    matched.train()  # dropout must not disturb the measurement
    batches = [batch_of([5, 9, 5], seed=3), batch_of([12], seed=4)]
    match_alpha(matched, ({"input_ids": i, "attention_mask": m} for i, m in batches))
    assert matched.training
    assert matched.bert.encoder.layer[0].attention.self.attention.learned
    seen, products = [], [[], []]
    for layer in dot.bert.encoder.layer:
        layer.attention.self.Wqkv.register_forward_hook(lambda _m, _a, output: seen.append(output))
    for ids, mask in batches:
        for row, length in zip(ids, mask.sum(1).tolist(), strict=True):
            seen.clear()
            dot(row[None, :length])
            for layer, qkv in enumerate(seen):
                q, k, _ = qkv.view(length, 3, 3, 8).unbind(1)
                pairs = q.norm(dim=-1)[:, None] * k.norm(dim=-1)[None] / math.sqrt(8)  # n n H
                products[layer].append(pairs.flatten(0, 1))
    for layer, pairs in zip(matched.bert.encoder.layer, products, strict=True):
        alpha = layer.attention.self.alpha
        torch.testing.assert_close(alpha.detach(), torch.cat(pairs).mean(0).detach())


def test_match_alpha_needs_a_matched_model_and_a_batch():
    with pytest.raises(LongscaleError, match="'cos16' has no alpha"):
        match_alpha(model_of(DNABERT2ForMaskedLM, attention="cos16"), [])
    with pytest.raises(LongscaleError, match="no batches"):
        match_alpha(model_of(DNABERT2ForMaskedLM, attention="cos-matched"), [])


def test_alpha_learns_and_starts_at_the_root_of_the_head_dimension():
    model = DNABERT2ForMaskedLM(config_of(attention="cos-matched"))
    alpha = model.bert.encoder.layer[1].attention.self.alpha
    torch.testing.assert_close(alpha.detach(), torch.full((3,), math.sqrt(8)))
    ids, mask = batch_of([9, 4])
    model(ids, mask, labels=ids).loss.backward()
    assert (alpha.grad != 0).all()


# --- configuration, names, saving -------------------------------------------------------------


def test_parameter_names_are_the_original_ones():
    encoder = {
        "embeddings.word_embeddings.weight": (24, 24),
        "embeddings.token_type_embeddings.weight": (2, 24),
        "embeddings.LayerNorm.weight": (24,),
        "embeddings.LayerNorm.bias": (24,),
    }
    layer = {
        "attention.self.Wqkv.weight": (72, 24),
        "attention.self.Wqkv.bias": (72,),
        "attention.output.dense.weight": (24, 24),
        "attention.output.dense.bias": (24,),
        "attention.output.LayerNorm.weight": (24,),
        "attention.output.LayerNorm.bias": (24,),
        "mlp.gated_layers.weight": (40, 24),
        "mlp.wo.weight": (24, 20),
        "mlp.wo.bias": (24,),
        "mlp.layernorm.weight": (24,),
        "mlp.layernorm.bias": (24,),
    }
    encoder |= {f"encoder.layer.{i}.{key}": shape for i in range(2) for key, shape in layer.items()}
    classifier = {f"bert.{key}": shape for key, shape in encoder.items()} | {
        "bert.pooler.dense.weight": (24, 24),
        "bert.pooler.dense.bias": (24,),
        "classifier.weight": (3, 24),
        "classifier.bias": (3,),
    }
    model = DNABERT2ForSequenceClassification(config_of())
    assert {key: tuple(value.shape) for key, value in model.state_dict().items()} == classifier
    head = {key for key in DNABERT2ForMaskedLM(config_of()).state_dict() if "bert." not in key}
    assert head == {
        f"cls.predictions.{key}"
        for key in (
            *("transform.dense.weight", "transform.dense.bias", "transform.LayerNorm.weight"),
            *("transform.LayerNorm.bias", "decoder.weight", "decoder.bias"),
        )
    }


def test_defaults_are_dnabert2_117m():
    with torch.device("meta"):
        model = DNABERT2ForSequenceClassification(DNABERT2Config(num_labels=2))
    assert sum(parameter.numel() for parameter in model.parameters()) == 117_070_082


@pytest.mark.parametrize("attention", ["dot", "cos-matched"])
@pytest.mark.parametrize("model_class", CLASSES)
def test_save_and_load_give_the_identical_model(tmp_path, model_class, attention):
    model = model_of(model_class, attention=attention, tissues=names(2))
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    stored = json.loads((tmp_path / "config.json").read_text())
    assert (stored["attention"], stored["n_train"]) == (attention, 6)
    again = model_class.from_pretrained(tmp_path).eval()
    assert again.state_dict().keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    if model_class is DNABERT2ForMaskedLM:
        assert again.cls.predictions.decoder.weight is again.bert.embeddings.word_embeddings.weight
    ids, mask = batch_of([9, 4, 9, 5])
    for rule in ("none", "critscale"):
        hidden = []
        for either in (model, again):
            either.set_rule(rule)
            hidden.append(either.base_model(ids, mask).last_hidden_state)
        assert torch.equal(*hidden)


def test_initialisation_follows_the_seed_and_the_config():
    def build(seed):
        torch.manual_seed(seed)
        return DNABERT2ForMaskedLM(config_of(hidden_size=96, initializer_range=0.05))

    model = build(0)
    std = model.bert.encoder.layer[0].mlp.wo.weight.detach().std()
    assert float(std) == pytest.approx(0.05, rel=0.1)
    assert (model.bert.encoder.layer[0].mlp.wo.bias == 0).all()
    assert (model.bert.encoder.layer[0].mlp.layernorm.weight == 1).all()
    same, other = build(0).state_dict(), build(1).state_dict()
    for key, value in model.state_dict().items():
        assert torch.equal(value, same[key])
    key = "bert.encoder.layer.1.attention.self.Wqkv.weight"
    assert not torch.equal(model.state_dict()[key], other[key])


@pytest.mark.parametrize(
    ("key", "value"),
    [("attention", "cosine"), ("num_attention_heads", 5), ("attention_probs_dropout_prob", 0.1)],
)
def test_a_config_that_cannot_be_honoured_is_refused(key, value):
    with pytest.raises(LongscaleError, match=rf"^{key}: .*{value}"):
        config_of(**{key: value})


def test_bfloat16_autocast_is_close_to_float32():
    model = model_of(DNABERT2ForVariantEffect, attention="cos-matched", tissues=names(2))
    model.set_rule("infoscale")
    batch = variant_batch()
    exact = model(**batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(**batch)
    assert half.loss.isfinite()
    half.loss.backward()
    assert (half.logits.float() - exact.logits).abs().max() < 0.05 * exact.logits.abs().max()


# --- activations computed again ---------------------------------------------------------------


def backward(model, checkpointing):
    """Gradients, and bytes of activations that are kept for them."""
    (model.activation_checkpointing_enable if checkpointing else lambda: None)()
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def keep_input(_layer, args):
        keep(args[0])  # torch's checkpoint holds it, out of the hooks' sight

    hooks = [layer.register_forward_pre_hook(keep_input) for layer in model.bert.encoder.layer]
    ids, mask = batch_of([60, 64, 50, 64])
    torch.manual_seed(3)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model.train()(ids, mask, labels=torch.tensor([0, 1, 1, 0])).loss
    for hook in hooks:
        hook.remove()
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters()}, sum(kept.values())


@pytest.mark.parametrize("attention", ["dot", "cos-matched"])
def test_activations_computed_again_give_the_same_gradients_in_less_memory(attention):
    """Dropout included, bit for bit; one hidden state is kept of each block."""
    shape = {"num_hidden_layers": 6, "attention": attention}
    models = [model_of(DNABERT2ForSequenceClassification, **shape) for _ in range(2)]
    (plain, all_kept), (again, kept) = backward(models[0], False), backward(models[1], True)
    assert plain.keys() == again.keys()
    for name, gradient in plain.items():
        assert torch.equal(gradient, again[name]), name
    assert kept < all_kept / 4
