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
from longscale.models.gau_alpha import GAUAlphaConfig, GAUAlphaForMaskedLM, GAUAlphaModel
from longscale.models.hyenadna import HyenaDNAConfig, HyenaDNAForCausalLM, HyenaDNAModel
from longscale.models.nucleotide_transformer import (
    NucleotideTransformerConfig,
    NucleotideTransformerForMaskedLM,
    NucleotideTransformerModel,
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
        ({"cls.predictions.bias": torch.zeros(24)}, "unexpected: cls.predictions.bias;"),
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


# --- GAU-alpha --------------------------------------------------------------------------------

# What junnyu/chinese_GAU-alpha-char_L-24_H-768 has, but for its sizes.
GAU_PUBLISHED = {
    "architectures": ["GAUAlphaForMaskedLM"],
    "attention_key_size": 8,
    "attention_probs_dropout_prob": 0.1,
    "attention_scale": True,
    "classifier_dropout": 0.1,
    "embedding_size": 12,
    "gradient_checkpointing": False,
    "hidden_act": "swish",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 12,
    "initializer_range": 0.02,
    "intermediate_size": 16,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "gau_alpha",
    "normalization": "softmax_plus",
    "num_hidden_layers": 4,
    "pad_token_id": 0,
    "torch_dtype": "float32",
    "transformers_version": "4.17.0",
    "type_vocab_size": 2,
    "use_bias": False,
    "vocab_size": 20,
    "summary_type": "first",
}
# What the released training adds to it (model/train.py, get_info_dict and what follows).
GAU_TRAINING = {
    "task": "train",
    "dataset": "WanJuan",
    "train_len": 64,
    "train_norm_method": {"name": "noCosScale"},
    "train_normalization": {"name": "softmax"},
}
COSSCALE = {"train_norm_method": {"name": "CosScale", "CosScale_value": 128}}
GAU_KEY = "gau_alpha.encoder.layer.3.gau.o_dense.weight"


def released_config(**info):
    name = (GAU_TRAINING | info)["train_norm_method"]["name"]
    return {
        "max_position_embeddings": 64,
        "normalization": "softmax",
        "norm_method": name,
        "use_cache": False,
        "my_info_dict": GAU_TRAINING | info,
    }


@pytest.fixture
def gau_published(tmp_path):
    """A folder like the published checkpoint's, with the names of its keys spelt out."""
    generator = torch.Generator().manual_seed(0)
    words = torch.randn(20, 12, generator=generator)
    weights = {
        "gau_alpha.embeddings.word_embeddings.weight": words,
        "gau_alpha.embeddings.token_type_embeddings.weight": torch.randn(
            2, 12, generator=generator
        ),
        "cls.predictions.decoder.weight": words,
    }
    for layer in range(4):
        gau = f"gau_alpha.encoder.layer.{layer}.gau"
        weights[f"{gau}.i_dense.weight"] = torch.randn(2 * 16 + 8, 12, generator=generator)
        weights[f"{gau}.o_dense.weight"] = torch.randn(12, 16, generator=generator)
        weights[f"{gau}.q_scaleoffset.weight"] = torch.randn(8, generator=generator)
        weights[f"{gau}.k_scaleoffset.weight"] = torch.randn(8, generator=generator)
    folder = tmp_path / "gau"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(GAU_PUBLISHED))
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    torch.save(weights, folder / "pytorch_model.bin")
    return folder


def configure(folder, **changes):
    (folder / "config.json").write_text(json.dumps(GAU_PUBLISHED | changes))


def test_gau_alpha_is_loaded_whole(gau_published):
    model = load_checkpoint(GAUAlphaForMaskedLM, gau_published, complete=True)
    stored = weights_of(gau_published)
    assert model.state_dict().keys() == stored.keys()
    assert all(torch.equal(value, stored[key]) for key, value in model.state_dict().items())
    decoder = model.cls.predictions.decoder.weight
    assert decoder is model.gau_alpha.embeddings.word_embeddings.weight
    assert not model.training
    config = model.config
    found = (config.attention, config.normalization, config.n_train, config.scheme)
    assert found == ("dot", "softmax_plus", 512, "rope")
    encoder = load_checkpoint(GAUAlphaModel, gau_published)  # its head is dropped
    assert torch.equal(encoder.encoder.layer[3].gau.o_dense.weight, stored[GAU_KEY])


def test_the_config_of_the_published_checkpoint(shared):
    config = json.loads((shared / "data" / "gau_alpha_config.json").read_text())
    assert config.keys() == GAU_PUBLISHED.keys()
    defaults = GAUAlphaConfig()
    known = GAUAlphaConfig.__dataclass_fields__.keys() - {"architectures", "transformers_version"}
    shared_keys = known & config.keys()
    assert {"vocab_size", "hidden_act", "normalization", "use_bias"} <= shared_keys
    assert all(getattr(defaults, key) == config[key] for key in shared_keys)


@pytest.mark.parametrize(
    ("info", "attention", "normalization", "n_train"),
    [
        ({}, "dot", "softmax", 64),
        (COSSCALE, "cos128", "softmax", 64),
        ({"train_normalization": {"name": "softmax_plus"}, "train_len": 96}, "dot", None, 96),
        ({"algorithm": None}, "dot", "softmax", 64),
    ],
)
def test_the_released_training_is_read(gau_published, info, attention, normalization, n_train):
    configure(gau_published, **released_config(**info))
    for folder in (gau_published, gau_published / "converted"):
        config = load_checkpoint(GAUAlphaForMaskedLM, folder).config
        found = (config.attention, config.normalization, config.n_train)
        assert found == (attention, normalization or "softmax_plus", n_train)
        if folder is gau_published:
            convert_checkpoint(gau_published, gau_published / "converted")
    stored = json.loads((gau_published / "converted" / "config.json").read_text())
    assert "my_info_dict" not in stored


@pytest.mark.parametrize(
    ("info", "sentence"),
    [
        ({"train_normalization": {"name": "InfoScale"}}, "normalization: 'InfoScale' is not known"),
        ({"train_normalization": "softmax"}, "my_info_dict: .* train_normalization have a name"),
        ({"train_len": None}, "my_info_dict: train_len must be a number of tokens"),
        ({"train_norm_method": {"name": "CosScale"}}, "a number as CosScale_value"),
        ({"train_norm_method": {"name": "norm"}}, "my_info_dict: train_norm_method is not known"),
        ({"algorithm": "YaRN"}, "trained with algorithm YaRN; only plain"),
    ],
)
def test_a_released_training_that_is_not_known_is_refused(gau_published, info, sentence):
    configure(gau_published, **released_config(**info))
    with pytest.raises(LongscaleError, match=rf"config\.json: .*{sentence}"):
        load_checkpoint(GAUAlphaForMaskedLM, gau_published)


def test_what_the_config_or_the_caller_says_wins(gau_published):
    configure(gau_published, n_train=100)
    assert load_checkpoint(GAUAlphaModel, gau_published).config.n_train == 100
    configure(gau_published, n_train=None)
    assert load_checkpoint(GAUAlphaModel, gau_published).config.n_train is None
    overrides = {"n_train": 33, "attention": "cos16", "normalization": "softmax"}
    config = load_checkpoint(GAUAlphaModel, gau_published, **overrides).config
    assert {key: getattr(config, key) for key in overrides} == overrides


def test_the_lowest_layers_alone(gau_published):
    model = load_checkpoint(GAUAlphaForMaskedLM, gau_published, num_hidden_layers=2)
    stored = weights_of(gau_published)
    assert len(model.gau_alpha.encoder.layer) == 2
    assert all(torch.equal(value, stored[key]) for key, value in model.state_dict().items())
    configure(gau_published, num_hidden_layers=2)  # a config that does not fit is no such wish
    with pytest.raises(LongscaleError, match=r"unexpected: gau_alpha\.encoder\.layer\.2"):
        load_checkpoint(GAUAlphaForMaskedLM, gau_published)
    configure(gau_published)
    with pytest.raises(LongscaleError, match=r"missing: gau_alpha\.encoder\.layer\.4"):
        load_checkpoint(GAUAlphaForMaskedLM, gau_published, num_hidden_layers=5)
    change(gau_published, **{GAU_KEY: None, "gau_alpha.encoder.layer.1.extra": torch.zeros(1)})
    with pytest.raises(LongscaleError, match=r"unexpected: gau_alpha\.encoder\.layer\.1\.extra"):
        load_checkpoint(GAUAlphaForMaskedLM, gau_published, num_hidden_layers=2)


def test_the_lowest_layers_of_a_base_model_saved_by_itself(gau_published, tmp_path):
    encoder = load_checkpoint(GAUAlphaModel, gau_published)
    encoder.save_pretrained(tmp_path / "base")
    part = load_checkpoint(GAUAlphaModel, tmp_path / "base", num_hidden_layers=3)
    assert len(part.encoder.layer) == 3
    assert all(torch.equal(v, encoder.state_dict()[k]) for k, v in part.state_dict().items())


def test_layers_of_dnabert2(published):
    model = load_checkpoint(DNABERT2ForMaskedLM, published, num_hidden_layers=1)
    stored = weights_of(published)
    assert all(torch.equal(value, stored[key]) for key, value in model.state_dict().items())


def test_only_alpha_may_be_new(gau_published):
    model = load_checkpoint(GAUAlphaForMaskedLM, gau_published, attention="cos-matched")
    assert model.gau_alpha.encoder.layer[3].gau.alpha.item() == pytest.approx(8**0.5)
    with pytest.raises(LongscaleError, match=r"missing: gau_alpha\.encoder\.layer\.0\.gau\.alpha"):
        load_checkpoint(GAUAlphaForMaskedLM, gau_published, attention="cos-matched", complete=True)


def test_stored_positions_are_not_read(gau_published):
    table = torch.full((1, 512, 4), torch.nan)
    change(gau_published, **{f"gau_alpha.encoder.{name}_pos": table for name in ("sin", "cos")})
    model = load_checkpoint(GAUAlphaForMaskedLM, gau_published)
    assert not any("pos" in key for key in model.state_dict())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({GAU_KEY: None}, f"keys are missing: {GAU_KEY}; is this a GAU-alpha checkpoint"),
        ({"gau_alpha.extra": torch.zeros(1)}, "unexpected: gau_alpha.extra;"),
        ({"cls.predictions.bias": torch.zeros(20)}, "unexpected: cls.predictions.bias;"),
        ({"classifier.weight": torch.zeros(2, 12)}, "unexpected: classifier.weight;"),
        ({GAU_KEY: torch.zeros(12, 15)}, r"is \(12, 15\) but \(12, 16\) in the model"),
        ({GAU_KEY: torch.full((12, 16), torch.inf)}, f"NaN or infinite: {GAU_KEY};"),
        ({"cls.predictions.decoder.weight": torch.zeros(20, 12)}, "decoder.weight differs from"),
    ],
)
def test_gau_alpha_weights_that_do_not_fit_are_refused(gau_published, changes, sentence, tmp_path):
    change(gau_published, **changes)
    with pytest.raises(LongscaleError, match=sentence) as error:
        load_checkpoint(GAUAlphaForMaskedLM, gau_published)
    assert str(gau_published / "pytorch_model.bin") in str(error.value)
    with pytest.raises(LongscaleError, match=sentence):
        convert_checkpoint(gau_published, tmp_path / "converted")
    assert not (tmp_path / "converted").exists()


def test_code_in_a_pickle_of_gau_alpha_never_runs(gau_published):
    torch.save({GAU_KEY: Code()}, gau_published / "pytorch_model.bin")
    with pytest.raises(LongscaleError, match=r"pytorch_model\.bin: .*code in it"):
        load_checkpoint(GAUAlphaForMaskedLM, gau_published)
    assert RAN == []


def test_gau_alpha_is_converted(gau_published, tmp_path):
    out = tmp_path / "converted"
    convert_checkpoint(gau_published, out)
    names = {path.name for path in out.iterdir()}
    assert names == {"config.json", "model.safetensors", "vocab.txt"}
    config = json.loads((out / "config.json").read_text())
    assert (config["model_type"], config["n_train"]) == ("gau_alpha", 512)
    stored = weights_of(gau_published)
    for model in (
        GAUAlphaForMaskedLM.from_pretrained(out),
        load_checkpoint(GAUAlphaForMaskedLM, out, complete=True),
    ):
        assert all(torch.equal(value, stored[key]) for key, value in model.state_dict().items())


def test_a_checkpoint_of_neither_family_is_refused(gau_published, tmp_path):
    torch.save({"roformer.embeddings": torch.zeros(1)}, gau_published / "pytorch_model.bin")
    with pytest.raises(LongscaleError, match=r"begins with bert\. or gau_alpha\. or .* or GAU-a"):
        convert_checkpoint(gau_published, tmp_path / "converted")


# --- Nucleotide Transformer v2 ----------------------------------------------------------------

# What InstaDeepAI/nucleotide-transformer-v2-*-multi-species have, but for the sizes.
NT_PUBLISHED = {
    "add_bias_fnn": False,
    "architectures": ["EsmForMaskedLM"],
    "attention_probs_dropout_prob": 0.0,
    "auto_map": {"AutoModelForMaskedLM": "modeling_esm.EsmForMaskedLM"},
    "emb_layer_norm_before": False,
    "esmfold_config": None,
    "hidden_dropout_prob": 0.0,
    "hidden_size": 16,
    "initializer_range": 0.02,
    "intermediate_size": 12,
    "is_folding_model": False,
    "layer_norm_eps": 1e-12,
    "mask_token_id": 2,
    "max_position_embeddings": 66,
    "model_type": "esm",
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "pad_token_id": 1,
    "position_embedding_type": "rotary",
    "tie_word_embeddings": False,
    "token_dropout": False,
    "torch_dtype": "float32",
    "transformers_version": "4.32.0.dev0",
    "use_cache": False,
    "vocab_list": None,
    "vocab_size": 30,
}


@pytest.fixture
def nt_published(tmp_path):
    """A folder like the published checkpoint's, with all that it holds beside the weights."""
    torch.manual_seed(0)
    known = NucleotideTransformerConfig.__dataclass_fields__.keys() & NT_PUBLISHED.keys()
    config = NucleotideTransformerConfig(**{key: NT_PUBLISHED[key] for key in known})
    weights = NucleotideTransformerForMaskedLM(config).state_dict() | {
        "esm.embeddings.position_ids": torch.arange(66)[None],
        "esm.embeddings.position_embeddings.weight": torch.randn(66, 16),
        "esm.contact_head.regression.weight": torch.randn(1, 4),
        "esm.contact_head.regression.bias": torch.randn(1),
    }
    for layer in range(2):
        key = f"esm.encoder.layer.{layer}.attention.self.rotary_embeddings.inv_freq"
        weights[key] = 10000 ** -(torch.arange(4) / 4)
    folder = tmp_path / "nt"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(NT_PUBLISHED))
    (folder / "vocab.txt").write_text("<unk>\n<pad>\n")
    torch.save(weights, folder / "pytorch_model.bin")
    return folder


def test_nucleotide_transformer_is_loaded_whole(nt_published):
    stored = weights_of(nt_published)
    model = load_checkpoint(NucleotideTransformerForMaskedLM, nt_published, complete=True)
    assert all(torch.equal(value, stored[key]) for key, value in model.state_dict().items())
    assert model.config.n_train == 64  # tokens, positions being counted from 2
    assert not model.training
    encoder = load_checkpoint(NucleotideTransformerModel, nt_published, n_train=9)
    assert encoder.config.n_train == 9
    assert all(torch.equal(v, stored[f"esm.{key}"]) for key, v in encoder.state_dict().items())
    lower = load_checkpoint(NucleotideTransformerModel, nt_published, num_hidden_layers=1)
    assert len(lower.encoder.layer) == 1


NT_KEY = "esm.encoder.layer.1.intermediate.dense.weight"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({NT_KEY: None}, rf"keys are missing: {NT_KEY};"),
        ({"lm_head.decoder.weight": None}, "missing: lm_head.decoder.weight;"),
        ({"esm.encoder.layer.0.intermediate.dense.bias": torch.zeros(24)}, "unexpected: esm"),
        ({NT_KEY: torch.zeros(12, 16)}, rf"{NT_KEY} is \(12, 16\) but \(24, 16\)"),
        ({"esm.embeddings.LayerNorm.weight": torch.ones(16)}, "unexpected: esm.embeddings.Lay"),
    ],
)
def test_nucleotide_transformer_weights_that_do_not_fit_are_refused(
    nt_published, changes, sentence
):
    change(nt_published, **changes)
    with pytest.raises(LongscaleError, match=sentence):
        load_checkpoint(NucleotideTransformerForMaskedLM, nt_published)


def test_version_1_is_refused(nt_published):
    changes = {"position_embedding_type": "absolute", "token_dropout": True}
    (nt_published / "config.json").write_text(json.dumps(NT_PUBLISHED | changes))
    with pytest.raises(LongscaleError, match=r"config\.json: position_embedding_type: 'absolute'"):
        load_checkpoint(NucleotideTransformerForMaskedLM, nt_published)


def test_nucleotide_transformer_is_converted(nt_published, tmp_path):
    out = tmp_path / "converted"
    convert_checkpoint(nt_published, out)
    assert (out / "vocab.txt").is_file()
    stored = weights_of(nt_published)
    for model in (
        NucleotideTransformerForMaskedLM.from_pretrained(out),
        load_checkpoint(NucleotideTransformerForMaskedLM, out, complete=True),
    ):
        assert model.config.n_train == 64
        assert all(torch.equal(value, stored[key]) for key, value in model.state_dict().items())


# --- HyenaDNA ---------------------------------------------------------------------------------

# What LongSafari/hyenadna-*-hf have, but for the sizes.
HYENA_PUBLISHED = {
    "activation_freq": 10,
    "architectures": ["HyenaDNAForCausalLM"],
    "auto_map": {"AutoModel": "modeling_hyena.HyenaDNAModel"},
    "d_inner": 24,
    "d_model": 8,
    "emb_dim": 5,
    "embed_dropout": 0.1,
    "filter_order": 6,
    "hyena_dropout": 0.0,
    "hyena_filter_dropout": 0.0,
    "hyena_order": 2,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "max_seq_len": 34,
    "model_type": "hyenadna",
    "n_layer": 2,
    "num_inner_mlps": 2,
    "pad_token_id": 4,
    "pad_vocab_size_multiple": 8,
    "short_filter_order": 3,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "train_freq": True,
    "transformers_version": "4.35.0.dev0",
    "use_bias": True,
    "vocab_size": 12,
}
# The same in the words of the original code.
HYENA_ORIGINAL = {
    "d_model": 8,
    "n_layer": 2,
    "d_inner": 24,
    "vocab_size": 12,
    "resid_dropout": 0.0,
    "embed_dropout": 0.1,
    "fused_mlp": False,
    "residual_in_fp32": True,
    "pad_vocab_size_multiple": 8,
    "checkpoint_mixer": True,
    "layer": {
        "_name_": "hyena",
        "emb_dim": 5,
        "filter_order": 6,
        "local_order": 3,
        "l_max": 34,
        "modulate": True,
        "w": 10,
        "lr": 6e-4,
        "lr_pos_emb": 0.0,
    },
}
FREQ = "implicit_filter.1.freq"


@pytest.fixture
def hyena_published(tmp_path):
    """A folder like the published checkpoint's; its head is stored, and equal or not."""
    torch.manual_seed(0)
    known = HyenaDNAConfig.__dataclass_fields__.keys() & HYENA_PUBLISHED.keys()
    model = HyenaDNAForCausalLM(HyenaDNAConfig(**{key: HYENA_PUBLISHED[key] for key in known}))
    with torch.no_grad():
        for value in model.state_dict().values():  # buffers, too
            value.copy_(torch.randn_like(value))
    folder = tmp_path / "hyena"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(HYENA_PUBLISHED))
    safetensors.torch.save_file(model.state_dict(), folder / "model.safetensors")
    return folder


def rewrite_hyena(folder, rename=lambda key: [key], config=HYENA_PUBLISHED):
    """The same weights under other names (none, one or several for each)."""
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    renamed = {name: value.clone() for key, value in weights.items() for name in rename(key)}
    safetensors.torch.save_file(renamed, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return weights


def same_as(model, weights, without=()):
    return all(
        torch.equal(value, weights[key])
        for key, value in model.state_dict().items()
        if key not in without
    )


@pytest.mark.parametrize("places", [[1], [3], [5], [1, 3, 5]])
def test_hyenadna_is_loaded_whole_wherever_the_shared_frequencies_stand(hyena_published, places):
    def rename(key):
        return [key.replace(FREQ, f"implicit_filter.{place}.freq") for place in places]

    weights = rewrite_hyena(hyena_published, rename)
    model = load_checkpoint(HyenaDNAForCausalLM, hyena_published, complete=True)
    assert same_as(model, weights)
    assert not torch.equal(model.lm_head.weight, model.get_input_embeddings().weight)
    encoder = load_checkpoint(HyenaDNAModel, hyena_published)
    assert same_as(encoder, {key.removeprefix("hyena."): v for key, v in weights.items()})


@pytest.mark.parametrize("outer", ["model.", ""])
def test_the_names_of_the_original_code_are_known(hyena_published, outer):
    def rename(key):
        if key == "lm_head.weight":
            return []  # it is the embeddings
        key = key.replace("hyena.", outer)
        return [key.replace(".mixer.", ".mixer.layer.").replace(".mlp.", ".mlp.layer.")]

    weights = rewrite_hyena(hyena_published, rename, HYENA_ORIGINAL)
    model = load_checkpoint(HyenaDNAForCausalLM, hyena_published, complete=True)
    assert same_as(model, weights, without=["lm_head.weight"])
    assert model.lm_head.weight is model.get_input_embeddings().weight
    config = model.config
    assert (config.max_seq_len, config.activation_freq, config.hyena_order) == (34, 10, 2)
    rewrite_hyena(hyena_published, config=HYENA_ORIGINAL | {"layer": {"modulate": False}})
    with pytest.raises(LongscaleError, match=r"config\.json: layer: .* modulate true"):
        load_checkpoint(HyenaDNAForCausalLM, hyena_published)


def test_frequencies_that_differ_are_refused(hyena_published):
    rewrite_hyena(hyena_published, lambda key: [key, key.replace(FREQ, "implicit_filter.3.freq")])
    weights = safetensors.torch.load_file(hyena_published / "model.safetensors")
    key = next(key for key in weights if key.endswith("3.freq"))
    safetensors.torch.save_file(
        weights | {key: weights[key] + 1}, hyena_published / "model.safetensors"
    )
    with pytest.raises(LongscaleError, match=r"\.freq differs from .*1\.freq"):
        load_checkpoint(HyenaDNAForCausalLM, hyena_published)


@pytest.mark.parametrize("gone", [FREQ, "pos_emb.z", "modulation.deltas", "lm_head.weight"])
def test_hyenadna_without_a_part_is_refused(hyena_published, gone):
    rewrite_hyena(hyena_published, lambda key: [] if key.endswith(gone) else [key])
    with pytest.raises(LongscaleError, match=f"keys are missing: .*{gone}"):
        load_checkpoint(HyenaDNAForCausalLM, hyena_published)


def test_hyenadna_is_converted(hyena_published, tmp_path):
    weights = rewrite_hyena(hyena_published)
    convert_checkpoint(hyena_published, tmp_path / "converted")
    for model in (
        HyenaDNAForCausalLM.from_pretrained(tmp_path / "converted"),
        load_checkpoint(HyenaDNAForCausalLM, tmp_path / "converted", complete=True),
    ):
        assert same_as(model, weights)
