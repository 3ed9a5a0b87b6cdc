"""Adapters: what is trained, what stays as it was, and that a merge changes no output."""

import pytest
import torch
from test_models_dnabert2 import batch_of, model_of
from torch import nn

from longscale.models.dnabert2 import DNABERT2ForSequenceClassification, DNABERT2ForVariantEffect
from longscale.training.lora import add_lora

OPTIONS = {"r": 2, "alpha": 6, "dropout": 0.0, "target_modules": ["Wqkv", "dense"]}
BLOCK = "bert.encoder.layer.{}.attention"
HEADS = {
    DNABERT2ForVariantEffect: {"head.dense", "head.out"},
    DNABERT2ForSequenceClassification: {"classifier", "bert.pooler.dense"},
}
CLASSES = pytest.mark.parametrize("model_class", HEADS)


def inputs_of(model_class):
    ids, mask = batch_of([9, 4, 6, 7])
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([0, 1, 1, 0])}
    if model_class is DNABERT2ForVariantEffect:
        inputs["labels"] = inputs["labels"][:2]
        inputs |= {"readout_start": torch.full((4,), 1), "readout_stop": torch.full((4,), 3)}
    return inputs


def step(model, inputs, rate=0.1):
    """Gradient descent on what may be trained; names of what got a gradient."""
    model(**inputs).loss.backward()
    moved = {name: value for name, value in model.named_parameters() if value.grad is not None}
    with torch.no_grad():
        for value in moved.values():
            value -= rate * value.grad
    model.zero_grad()
    return set(moved)


def adapted(model_class, **changes):
    model = model_of(model_class, attention="cos-matched")
    return model, add_lora(model, **(OPTIONS | changes))


@CLASSES
def test_adapters_change_nothing_before_they_are_trained(model_class):
    inputs = inputs_of(model_class)
    expected = model_of(model_class, attention="cos-matched")(**inputs).logits
    assert torch.equal(adapted(model_class)[0](**inputs).logits, expected)


@CLASSES
def test_adapters_head_and_alpha_alone_are_trained(model_class):
    model, _ = adapted(model_class)
    layers = [
        f"{BLOCK.format(layer)}.{name}.lora_{part}.default.weight"
        for layer in range(2)
        for name in ("self.Wqkv", "output.dense")
        for part in "AB"
    ]
    alphas = [f"{BLOCK.format(layer)}.self.alpha" for layer in range(2)]
    heads = [f"{name}.{part}" for name in HEADS[model_class] for part in ("weight", "bias")]
    assert step(model, inputs_of(model_class)) == {*layers, *alphas, *heads}


@CLASSES
def test_a_merge_gives_a_plain_model_of_the_same_outputs(model_class):
    """W + (alpha / r) B A, by hand; everything that had no adapter, and is no head, as it was."""
    inputs = inputs_of(model_class)
    start = model_of(model_class, attention="cos-matched").state_dict()
    model, adapters = adapted(model_class)
    for _ in range(3):
        step(model, inputs)
    trained = {name: weight.clone() for name, weight in model.state_dict().items()}
    expected = model(**inputs).logits
    assert adapters.merge_and_unload() is model
    torch.testing.assert_close(model(**inputs).logits, expected, rtol=1e-5, atol=1e-5)
    merged = model.state_dict()
    assert merged.keys() == start.keys()
    assert not any("lora" in type(module).__module__ for module in model.modules())
    for name, weight in merged.items():
        layer = name.removesuffix(".weight")
        if f"{layer}.lora_A.default.weight" in trained:
            a, b = (trained[f"{layer}.lora_{part}.default.weight"] for part in "AB")
            assert torch.equal(trained[f"{layer}.base_layer.weight"], start[name])
            torch.testing.assert_close(weight, start[name] + 6 / 2 * b @ a)
            assert not torch.equal(weight, start[name])
        elif layer.rsplit(".bias", 1)[0] in HEADS[model_class] or name.endswith("alpha"):
            assert not torch.equal(weight, start[name]), name
        else:
            assert torch.equal(weight, start[name]), name


def test_what_is_named_gets_an_adapter_in_each_block():
    model, _ = adapted(DNABERT2ForVariantEffect, target_modules=["gated_layers", "wo"])
    names = [name for name, module in model.named_modules() if hasattr(module, "lora_A")]
    assert names == [
        f"bert.encoder.layer.{i}.mlp.{n}" for i in (0, 1) for n in ("gated_layers", "wo")
    ]
    assert all(isinstance(model.get_submodule(f"{name}.base_layer"), nn.Linear) for name in names)
