"""Frozen encoders, against the models and the text of one window at a time."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_study import save_pretrained, write_genome, write_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForMaskedLM, EsmConfig, EsmForMaskedLM

from longscale.attention.geometry import BASE
from longscale.errors import LongscaleError
from longscale.models.adapters import ENCODERS
from longscale.models.characters import train_bases
from longscale.models.checkpoint import load_checkpoint
from longscale.models.dnabert2 import DNABERT2ForMaskedLM, DNABERT2Model
from longscale.models.encoders import (
    encoder_files,
    has_masked_lm,
    load_encoder,
    open_encoder,
    pool_states,
    set_extension,
)
from longscale.models.fetch import ENCODER_FILES
from longscale.models.gau_alpha import GAUAlphaConfig, GAUAlphaForMaskedLM
from longscale.models.hyenadna import HyenaDNAConfig, HyenaDNAForCausalLM
from longscale.models.nucleotide_transformer import (
    NucleotideTransformerConfig,
    NucleotideTransformerForMaskedLM,
)
from longscale.probe_cells import MADE_IN_THE_RUN

WIDTH = 61  # bp; odd, and no multiple of six
RNG = np.random.default_rng(3)
WINDOWS = RNG.choice(np.frombuffer(b"ACGTN", np.uint8), (5, WIDTH), p=[0.24] * 4 + [0.04])


def save_dnabert2(folder):
    genome = write_genome(folder)
    save_pretrained(write_tokenizer(genome, folder), folder, n_train=20)


def save_nucleotide_transformer(folder):
    config = NucleotideTransformerConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=22,
    )
    NucleotideTransformerForMaskedLM(config).save_pretrained(folder)


def save_hyenadna(folder):
    config = HyenaDNAConfig(d_model=16, n_layer=2, d_inner=16, max_seq_len=80)
    HyenaDNAForCausalLM(config).save_pretrained(folder)


def save_gau_alpha(folder):
    tokenizer = train_bases()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = GAUAlphaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=16,
        num_hidden_layers=2,
        intermediate_size=16,
        attention_key_size=8,
        n_train=20,
    )
    GAUAlphaForMaskedLM(config).save_pretrained(folder)


def save_huggingface(folder):
    """A stock BERT over single bases."""
    letters = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"ACGTN"]
    numbers = {letter: number for number, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {f"{name.lower()[1:-1]}_token": name for name in letters[:5]}
    (folder / "tokenizer_config.json").write_text(json.dumps(special))
    config = BertConfig(
        vocab_size=len(letters),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=80,
    )
    BertForMaskedLM(config).save_pretrained(folder)


SAVED = {
    "dnabert2": save_dnabert2,
    "nucleotide-transformer": save_nucleotide_transformer,
    "hyenadna": save_hyenadna,
    "gau-alpha": save_gau_alpha,
    "huggingface": save_huggingface,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}
    for name, save in SAVED.items():
        torch.manual_seed(1)
        made[name] = tmp_path_factory.mktemp(name)
        save(made[name])
    return made


def test_every_encoder_is_tested_here_or_needs_its_package():
    assert set(ENCODERS) == {*SAVED, "enformer"}


def test_the_three_lists_of_encoders_agree():
    schema = yaml.safe_load((ROOT / "config/schema.yaml").read_text())
    architecture = schema["$defs"]["model"]["properties"]["architecture"]
    assert set(ENCODERS) == set(architecture["enum"]) == {*ENCODER_FILES, *MADE_IN_THE_RUN}


@pytest.mark.parametrize("name", SAVED)
def test_tokens_spell_the_window_and_hidden_states_are_the_models(folders, name):
    encoder = load_encoder(name, folders[name])
    tokens = encoder.tokenise(WINDOWS)
    for row, window in enumerate(WINDOWS):
        own = slice(tokens.offsets[row], tokens.offsets[row + 1])
        spelt = [window[a:b] for a, b in zip(tokens.starts[own], tokens.stops[own], strict=True)]
        assert (np.concatenate(spelt) == window).all()
    ids, mask = tokens.pad(np.arange(len(WINDOWS)), encoder.pad_id)
    hidden = encoder.hidden(torch.from_numpy(ids), torch.from_numpy(mask))
    assert hidden.shape == (*ids.shape, encoder.width)
    for row in range(len(WINDOWS)):
        alone = torch.from_numpy(tokens.window(row).astype(np.int64))[None]
        expected = encoder.hidden(alone, torch.ones_like(alone))[0]
        torch.testing.assert_close(hidden[row, : alone.shape[1]], expected, atol=1e-5, rtol=1e-4)
    assert not any(parameter.requires_grad for parameter in encoder.model.parameters())
    assert 0.5 < encoder.bp_per_token < 10


def test_dnabert2_is_the_model_and_the_tokenizer_of_the_folder(folders):
    encoder = load_encoder("dnabert2", folders["dnabert2"])
    model = load_checkpoint(DNABERT2Model, folders["dnabert2"])
    tokenizer = Tokenizer.from_file(str(folders["dnabert2"] / "tokenizer.json"))
    tokens = encoder.tokenise(WINDOWS)
    for row, window in enumerate(WINDOWS):
        encoding = tokenizer.encode(window.tobytes().decode())
        assert tokens.window(row).tolist() == encoding.ids
        own = slice(tokens.offsets[row] + 1, tokens.offsets[row + 1] - 1)
        places = list(zip(tokens.starts[own], tokens.stops[own], strict=True))
        assert places == encoding.offsets[1:-1]
        ids = torch.tensor([encoding.ids])
        expected = model(ids).last_hidden_state
        assert torch.equal(encoder.hidden(ids, torch.ones_like(ids)), expected)


@pytest.mark.parametrize("name", ["dnabert2", "gau-alpha", "huggingface"])
def test_a_tokenizers_own_truncation_and_padding_do_not_count(folders, tmp_path, name):
    """Many a tokenizer.json brings them along: cut text, or padding that is read as text."""
    shutil.copytree(folders[name], tmp_path, dirs_exist_ok=True)
    path = str(tmp_path / "tokenizer.json")
    tokenizer = Tokenizer.from_file(path)
    tokenizer.enable_truncation(9)
    tokenizer.enable_padding(length=70)
    tokenizer.save(path)
    plain, found = (
        load_encoder(name, folder).tokenise(WINDOWS) for folder in (folders[name], tmp_path)
    )
    assert found.lengths.tolist() == plain.lengths.tolist()
    assert found.ids.tolist() == plain.ids.tolist()


@pytest.mark.parametrize("name", ["dnabert2", "nucleotide-transformer", "gau-alpha", "huggingface"])
def test_masked_language_models_give_logits(folders, name):
    encoder = load_encoder(name, folders[name], logits=True)
    ids, mask = (torch.from_numpy(x) for x in encoder.tokenise(WINDOWS).pad([0], encoder.pad_id))
    logits = encoder.logits(ids, mask)
    assert logits.shape[:2] == ids.shape
    assert logits.shape[2] > encoder.mask_id
    plain = load_encoder(name, folders[name])
    torch.testing.assert_close(plain.hidden(ids, mask), encoder.hidden(ids, mask))


def test_who_has_no_logits_says_so(folders):
    with pytest.raises(LongscaleError, match="causal and has no masked-LM head"):
        load_encoder("hyenadna", folders["hyenadna"], logits=True)
    encoder = load_encoder("dnabert2", folders["dnabert2"])
    with pytest.raises(LongscaleError, match="no masked-LM head"):
        encoder.logits(torch.ones(1, 3, dtype=torch.long), torch.ones(1, 3, dtype=torch.long))
    assert isinstance(
        load_encoder("dnabert2", folders["dnabert2"], logits=True).model, DNABERT2ForMaskedLM
    )


@pytest.mark.parametrize("name", ["dnabert2", "nucleotide-transformer", "gau-alpha"])
def test_a_length_rule_acts_beyond_the_training_length_alone(folders, name):
    encoder = load_encoder(name, folders[name])
    encoder.model.config.n_train = 8
    for width in (24, WIDTH):
        tokens = encoder.tokenise(np.ascontiguousarray(WINDOWS[:, :width]))
        ids, mask = (torch.from_numpy(x) for x in tokens.pad([0], encoder.pad_id))
        encoder.set_rule("none")
        plain = encoder.hidden(ids, mask)
        encoder.set_rule("logn")
        changed = not torch.equal(encoder.hidden(ids, mask), plain)
        assert changed == (tokens.lengths[0] > 8)


def test_ntk_takes_the_ratio_of_lengths_and_leaves_short_inputs_alone(folders):
    """b (L'/L)^(d/(d-2)): 20 tokens of 6 bp are trained, d is 8."""
    encoder = load_encoder("nucleotide-transformer", folders["nucleotide-transformer"])
    assert encoder.trained_tokens == 20
    for context_bp, stretch in ((60, 1), (120, 1), (240, 2), (960, 8)):
        set_extension(encoder, "ntk", context_bp)
        assert encoder.model.rotary_base == pytest.approx(BASE * stretch ** (8 / 6))
    fresh = load_encoder("nucleotide-transformer", folders["nucleotide-transformer"])
    set_extension(fresh, "none", 960)
    assert fresh.model.rotary_base == BASE


def test_ntk_gives_a_row_the_same_states_whatever_stands_beside_it(folders, tmp_path):
    """Of byte pairs, windows of one length have different numbers of tokens."""
    shutil.copytree(folders["gau-alpha"], tmp_path, dirs_exist_ok=True)
    letters = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"ACGTN", "AA"]
    pairs = Tokenizer(models.BPE({x: i for i, x in enumerate(letters)}, [("A", "A")]))
    pairs.save(str(tmp_path / "tokenizer.json"))
    config = json.loads((tmp_path / "config.json").read_text())
    own = {"vocab_size": len(letters), "initializer_range": 0.5}
    model = GAUAlphaForMaskedLM(GAUAlphaConfig(**config | own))
    model.save_pretrained(tmp_path)
    encoder = load_encoder("gau-alpha", tmp_path)
    set_extension(encoder, "ntk", 240)
    windows = np.frombuffer(b"AACAAG" * 10 + b"ACGT" * 15, np.uint8).reshape(2, 60)
    tokens = encoder.tokenise(windows)
    assert tokens.lengths.tolist() == [40, 60]
    states = []
    for rows in ([0], [0, 1]):
        ids, mask = (torch.from_numpy(x) for x in tokens.pad(np.array(rows), encoder.pad_id))
        states.append(encoder.hidden(ids, mask)[0, :40])
    torch.testing.assert_close(*states, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("rotary", [False, True])
def test_more_tokens_than_learned_positions_are_one_sentence(folders, tmp_path, rotary):
    """ESM's table begins behind the padding's own position; its rotary positions have no end."""
    shutil.copytree(folders["huggingface"], tmp_path, dirs_exist_ok=True)
    config = EsmConfig(
        vocab_size=10, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=WIDTH + 2, pad_token_id=0, mask_token_id=4,
        position_embedding_type="rotary" if rotary else "absolute",
    )  # fmt: skip
    EsmForMaskedLM(config).save_pretrained(tmp_path)
    encoder = load_encoder("huggingface", tmp_path, logits=True)
    ids, mask = (torch.from_numpy(x) for x in encoder.tokenise(WINDOWS).pad([0], encoder.pad_id))
    for read in (encoder.hidden, encoder.logits):
        assert read(ids[:, 1:], mask[:, 1:]).shape[1] == WIDTH + 1  # one less than all
        if rotary:
            assert read(ids, mask).shape[1] == WIDTH + 2
        else:
            with pytest.raises(LongscaleError, match=r"63 tokens is longer than the 62 for which"):
                read(ids, mask)


@pytest.mark.parametrize(
    ("name", "rule", "extension", "sentence"),
    [
        ("hyenadna", "logn", "none", "rule: 'logn' acts on attention, which HyenaDNA does not"),
        ("huggingface", "logn", "none", "rule: 'logn' cannot be put on a model of transformers"),
        ("dnabert2", "none", "ntk", "rescales rotary positions, which DNABERT2Model does not have"),
        ("hyenadna", "none", "ntk", "rescales rotary positions, which HyenaDNAModel does not"),
        ("huggingface", "none", "ntk", "cannot be put on a model of transformers"),
        ("dnabert2", "none", "yarn", "extension: 'yarn' is not known; it must be one of none, ntk"),
    ],
)
def test_what_a_model_cannot_do_is_one_sentence(folders, name, rule, extension, sentence):
    encoder = load_encoder(name, folders[name])

    def configure():
        encoder.set_rule(rule)
        set_extension(encoder, extension, 1000)

    with pytest.raises(LongscaleError, match=sentence):
        configure()


@pytest.mark.parametrize("name", SAVED)
def test_a_checkpoint_may_lie_in_several_folders(folders, tmp_path, name):
    """As the run's own do: weights here, tokenizer there. A folder stands for its files."""
    paths = []
    for number, path in enumerate(folders[name].iterdir()):
        moved = tmp_path / str(number) / path.name
        moved.parent.mkdir()
        shutil.copyfile(path, moved)
        paths.append(moved)
    assert encoder_files([folders[name]]) == sorted(folders[name].iterdir())
    states = []
    for files in (paths, [folders[name]]):
        encoder = open_encoder(name, files)
        ids, mask = encoder.tokenise(WINDOWS).pad(np.arange(len(WINDOWS)), encoder.pad_id)
        states.append(encoder.hidden(torch.from_numpy(ids), torch.from_numpy(mask)))
    assert torch.equal(*states)


def test_who_is_a_masked_language_model(folders, tmp_path):
    found = {name: has_masked_lm(name, [folder]) for name, folder in folders.items()}
    assert found == dict.fromkeys(SAVED, True) | {"hyenadna": False}
    assert not has_masked_lm("enformer", [tmp_path])
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["BertModel"]}))
    assert not has_masked_lm("huggingface", [tmp_path])


def test_an_unknown_architecture_is_one_sentence(tmp_path):
    with pytest.raises(LongscaleError, match="'evo' has no encoder; known are dnabert2, "):
        load_encoder("evo", tmp_path)


def test_a_model_of_transformers_must_be_whole(folders, tmp_path):
    with pytest.raises(LongscaleError, match="cannot be loaded as an encoder of transformers"):
        load_encoder("huggingface", tmp_path)
    save_huggingface(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(LongscaleError, match=r"weights are missing, .*layer\.1"):
        load_encoder("huggingface", tmp_path)


# --- pooling ----------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_each_base_counts_once(data):
    """Against the mean of one state per base."""
    lengths = data.draw(st.lists(st.integers(0, 7), min_size=1, max_size=12).filter(any))
    stops = np.cumsum(lengths)
    starts = stops - lengths
    hidden = torch.from_numpy(np.random.default_rng(len(lengths)).normal(size=(len(lengths), 3)))
    of_bases = np.repeat(hidden.numpy(), lengths, axis=0)
    count = data.draw(st.integers(1, 4))
    edges = []
    for _ in range(count):
        start = data.draw(st.integers(0, stops[-1] - 1))
        edges.append((start, data.draw(st.integers(start + 1, stops[-1]))))
    edges = np.array(edges)
    pooled = pool_states(hidden.float(), starts, stops, edges)
    for (start, stop), found in zip(edges, pooled, strict=True):
        assert found.numpy() == pytest.approx(of_bases[start:stop].mean(0), abs=1e-5)


@pytest.mark.parametrize("edges", [[[2, 2]], [[3, 2]], [[0, 9]], [[-1, 3]]])
def test_a_piece_that_is_empty_or_leaves_the_window_is_refused(edges):
    with pytest.raises(ValueError, match="a piece"):
        pool_states(torch.ones(2, 3), np.array([0, 4]), np.array([4, 8]), np.array(edges))
