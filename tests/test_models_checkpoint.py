"""Checkpoints under the original key names: round trips, and everything that must be refused."""

import json
import pickle
import shutil

import pytest
import safetensors.torch
import torch

from longscale.errors import LongscaleError
from longscale.models.checkpoint import convert_checkpoint, load_checkpoint
from longscale.models.dnabert2 import (
    DNABERT2Config,
    DNABERT2ForMaskedLM,
    DNABERT2ForSequenceClassification,
    DNABERT2ForVariantEffect,
    DNABERT2Model,
)

# What the published config.json holds beside the architecture.
PUBLISHED_EXTRAS = {
    "alibi_starting_size": 512,
    "architectures": ["BertForMaskedLM"],
    "auto_map": {"AutoModel": "bert_layers.BertModel"},
    "max_position_embeddings": 512,
    "model_type": "bert",
    "position_embedding_type": "absolute",
    "torch_dtype": "float32",
}
ARCHITECTURE = {
    "vocab_size": 24,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "pad_token_id": 3,
}


@pytest.fixture
def published(tmp_path):
    """A folder like the published checkpoint's: config.json and a pickled masked-LM state dict."""
    torch.manual_seed(0)
    folder = tmp_path / "published"
    folder.mkdir()
    model = DNABERT2ForMaskedLM(DNABERT2Config(**ARCHITECTURE))
    (folder / "config.json").write_text(json.dumps(ARCHITECTURE | PUBLISHED_EXTRAS))
    (folder / "tokenizer.json").write_text("{}")
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder


def weights_of(folder):
    return torch.load(folder / "pytorch_model.bin", weights_only=True)


def change(folder, **changes):
    """Store other weights in the folder; None leaves a key out."""
    weights = weights_of(folder) | changes
    kept = {key: value for key, value in weights.items() if value is not None}
    torch.save(kept, folder / "pytorch_model.bin")


def test_masked_lm_is_loaded_whole(published):
    model = load_checkpoint(DNABERT2ForMaskedLM, published)
    stored = weights_of(published)
    assert model.state_dict().keys() == stored.keys()
    assert all(torch.equal(value, stored[key]) for key, value in model.state_dict().items())
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    assert not model.training
    assert not hasattr(model.config, "auto_map")


@pytest.mark.parametrize("attention", ["dot", "cos16", "cos-matched"])
@pytest.mark.parametrize(
    "model_class", [DNABERT2Model, DNABERT2ForSequenceClassification, DNABERT2ForVariantEffect]
)
def test_a_masked_lm_becomes_any_other_model(published, model_class, attention):
    model = load_checkpoint(
        model_class,
        published,
        attention=attention,
        n_train=100,
        num_labels=3,
        tissues=["liver", "lung"],
    )
    config = model.config
    assert (config.attention, config.n_train, config.num_labels) == (attention, 100, 3)
    stored = weights_of(published)
    loaded = model.base_model.state_dict()
    encoder = [key for key in loaded if not key.startswith("pooler") and "alpha" not in key]
    assert len(encoder) == 4 + 2 * 11
    assert all(torch.equal(loaded[key], stored[f"bert.{key}"]) for key in encoder)


@pytest.mark.parametrize(
    "model_class",
    [
        DNABERT2Model,
        DNABERT2ForMaskedLM,
        DNABERT2ForSequenceClassification,
        DNABERT2ForVariantEffect,
    ],
)
def test_what_save_pretrained_wrote_is_loaded(tmp_path, model_class):
    config = DNABERT2Config(**ARCHITECTURE, attention="cos-matched", n_train=9.5, num_labels=3)
    model = model_class(config)
    model.save_pretrained(tmp_path)
    again = load_checkpoint(model_class, tmp_path)
    assert (again.config.attention, again.config.n_train) == ("cos-matched", 9.5)
    assert again.config.num_labels == 3
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())
    if model_class is DNABERT2Model:  # its keys have no prefix
        classifier = load_checkpoint(DNABERT2ForVariantEffect, tmp_path)
        assert torch.equal(
            classifier.bert.embeddings.word_embeddings.weight,
            model.embeddings.word_embeddings.weight,
        )


def test_conversion_writes_safetensors_that_transformers_loads(published, tmp_path):
    out = tmp_path / "converted"
    convert_checkpoint(published, out)
    names = {path.name for path in out.iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json"}
    config = json.loads((out / "config.json").read_text())
    assert config["model_type"] == "dnabert2"
    assert "auto_map" not in config
    stored = weights_of(published)
    for model in (
        DNABERT2ForMaskedLM.from_pretrained(out),
        load_checkpoint(DNABERT2ForMaskedLM, out),
    ):
        assert all(torch.equal(value, stored[key]) for key, value in model.state_dict().items())


def test_conversion_of_a_classifier_keeps_its_labels(published, tmp_path):
    model = load_checkpoint(DNABERT2ForSequenceClassification, published, num_labels=5)
    torch.save(model.state_dict(), published / "pytorch_model.bin")
    convert_checkpoint(published, tmp_path / "converted")
    again = load_checkpoint(DNABERT2ForSequenceClassification, tmp_path / "converted")
    assert torch.equal(again.classifier.weight, model.classifier.weight)


def test_a_failed_conversion_leaves_nothing(published, tmp_path):
    change(published, **{"bert.encoder.layer.1.mlp.wo.bias": None})
    with pytest.raises(LongscaleError):
        convert_checkpoint(published, tmp_path / "converted")
    assert [path.name for path in tmp_path.iterdir()] == ["published"]


KEY = "bert.encoder.layer.1.mlp.wo.bias"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({KEY: None}, rf"keys are missing: {KEY};"),
        ({"bert.extra.weight": torch.zeros(1)}, "keys are unexpected: bert.extra.weight;"),
        ({"classifier.weight": torch.zeros(2, 24)}, "keys are unexpected: classifier.weight;"),
        ({KEY: torch.zeros(25)}, rf"{KEY} is \(25,\) but \(24,\) in the model"),
        ({KEY: torch.full((24,), torch.nan)}, rf"NaN or infinite: {KEY};"),
        ({"cls.predictions.decoder.weight": torch.zeros(24, 24)}, "decoder.weight differs from"),
        ({"cls.predictions.decoder.bias": None}, "missing: cls.predictions.decoder.bias;"),
    ],
)
def test_weights_that_do_not_fit_are_refused(published, changes, sentence):
    change(published, **changes)
    with pytest.raises(LongscaleError, match=sentence) as error:
        load_checkpoint(DNABERT2ForMaskedLM, published)
    assert str(published / "pytorch_model.bin") in str(error.value)


def test_a_stock_bert_is_refused_with_a_short_list(published):
    stock = {"bert.encoder.layer.0.attention.self.query.weight": torch.zeros(24, 24)}
    torch.save(stock, published / "pytorch_model.bin")
    with pytest.raises(LongscaleError, match=r"missing: .* and \d+ more; is this a DNABERT-2"):
        load_checkpoint(DNABERT2ForMaskedLM, published)


RAN = []


class Code:
    """Pickles to a call that would leave its mark in `RAN`."""

    def __reduce__(self):
        return (RAN.append, (1,))


def test_code_in_a_pickle_never_runs(published):
    payload = pickle.dumps({KEY: Code()}, protocol=2)
    for write in (
        lambda path: path.write_bytes(payload),
        lambda path: torch.save({KEY: Code()}, path),
    ):
        write(published / "pytorch_model.bin")
        with pytest.raises(LongscaleError, match=r"pytorch_model\.bin: .*code in it"):
            load_checkpoint(DNABERT2ForMaskedLM, published)
    assert RAN == []


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize("size", [0, 10, 500])
def test_truncated_weights_are_refused(published, name, size):
    convert_checkpoint(published, published / "converted")
    path = published / "converted" / name
    source = published if name.endswith("bin") else published / "converted"
    content = (source / name).read_bytes()
    (published / "converted" / "model.safetensors").unlink()
    path.write_bytes(content[:size])
    with pytest.raises(LongscaleError, match=name):
        load_checkpoint(DNABERT2ForMaskedLM, path.parent)


def test_a_pickle_that_is_not_a_state_dict_is_refused(published):
    torch.save([torch.zeros(1)], published / "pytorch_model.bin")
    with pytest.raises(LongscaleError, match="not a state dict"):
        load_checkpoint(DNABERT2ForMaskedLM, published)


def test_absent_files_are_named(published, tmp_path):
    shutil.copytree(published, tmp_path / "copy")
    (tmp_path / "copy" / "pytorch_model.bin").unlink()
    with pytest.raises(LongscaleError, match=r"copy: .*model\.safetensors nor pytorch_model\.bin"):
        load_checkpoint(DNABERT2ForMaskedLM, tmp_path / "copy")
    (published / "config.json").unlink()
    with pytest.raises(LongscaleError, match=r"config\.json: there is no such file"):
        load_checkpoint(DNABERT2ForMaskedLM, published)


@pytest.mark.parametrize("text", ["", "[]", '{"hidden_size": "wide"}', '{"attention": "cosine"}'])
def test_a_config_that_cannot_be_used_is_named(published, text):
    (published / "config.json").write_text(text)
    with pytest.raises(LongscaleError, match=r"config\.json: "):
        load_checkpoint(DNABERT2ForMaskedLM, published)


def test_an_override_that_is_not_a_key_is_refused(published):
    with pytest.raises(LongscaleError, match="unknown: atention"):
        load_checkpoint(DNABERT2ForMaskedLM, published, atention="cos16")


def test_half_precision_weights_are_loaded_as_float32(published):
    weights = {key: value.half() for key, value in weights_of(published).items()}
    del weights["cls.predictions.decoder.weight"]
    (published / "pytorch_model.bin").unlink()
    safetensors.torch.save_file(weights, published / "model.safetensors")
    model = load_checkpoint(DNABERT2ForMaskedLM, published)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.equal(model.state_dict()[KEY], weights[KEY].float())
