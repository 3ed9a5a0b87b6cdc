"""Published checkpoints from a folder and from a server that answers as the hub does."""

import json

import huggingface_hub.constants
import numpy as np
import pytest
import safetensors.torch
import torch
from hub_server import COMMIT, serve_hub
from test_models_encoders import SAVED, WINDOWS
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from longscale.errors import LongscaleError
from longscale.files import checksum
from longscale.models.checkpoint import load_checkpoint
from longscale.models.dnabert2 import DNABERT2Config, DNABERT2ForMaskedLM
from longscale.models.encoders import load_encoder
from longscale.models.fetch import ENCODER_FILES, fetch_checkpoint, fetch_encoder
from longscale.models.gau_alpha import GAUAlphaConfig, GAUAlphaForMaskedLM

ARCHITECTURE = {
    "vocab_size": 24,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 12,
}
GAU_ARCHITECTURE = {
    "vocab_size": 24,
    "hidden_size": 12,
    "num_hidden_layers": 1,
    "intermediate_size": 16,
    "attention_key_size": 8,
}
PICKLED, SAFE, BROKEN, BARE = "lab/pickled", "lab/safe", "lab/broken", "lab/bare"
GAU = "lab/gau"
VOCABULARY = ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "信", "息", "a", "##a"]
OWN, OTHER = (
    Tokenizer(WordLevel({name: 0}, unk_token=name)).to_str().encode() for name in ("own", "other")
)
WRITTEN = ["config.json", "model.safetensors", "tokenizer.json"]


def weights_of(seed):
    torch.manual_seed(seed)
    return DNABERT2ForMaskedLM(DNABERT2Config(**ARCHITECTURE)).state_dict()


def gau_weights():
    torch.manual_seed(2)
    return GAUAlphaForMaskedLM(GAUAlphaConfig(**GAU_ARCHITECTURE)).state_dict()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Repositories: the published layout (a pickle), safetensors beside another pickle, ..."""
    folder = tmp_path_factory.mktemp("repository")
    torch.save(weights_of(0), folder / "pytorch_model.bin")
    safe = {k: v for k, v in weights_of(1).items() if k != "cls.predictions.decoder.weight"}
    safetensors.torch.save_file(safe, folder / "model.safetensors", {"format": "pt"})
    torch.save(gau_weights(), folder / "gau.bin")
    pickled = {
        "config.json": json.dumps(ARCHITECTURE | {"model_type": "bert"}).encode(),
        "tokenizer.json": OWN,
        "pytorch_model.bin": (folder / "pytorch_model.bin").read_bytes(),
    }
    return {
        PICKLED: pickled,
        SAFE: pickled | {"model.safetensors": (folder / "model.safetensors").read_bytes()},
        BROKEN: {k: v for k, v in pickled.items() if k != "pytorch_model.bin"},
        BARE: {k: v for k, v in pickled.items() if k != "tokenizer.json"},
        GAU: {
            "config.json": json.dumps(GAU_ARCHITECTURE | {"model_type": "gau_alpha"}).encode(),
            "vocab.txt": "\n".join(VOCABULARY).encode(),
            "pytorch_model.bin": (folder / "gau.bin").read_bytes(),
        },
    }


@pytest.fixture
def hub(files, tmp_path, monkeypatch):
    """A running server; HF_ENDPOINT names it and the cache is empty."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with serve_hub(files) as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        yield endpoint


def put(folder, content):
    folder.mkdir()
    for name, body in content.items():
        (folder / name).write_bytes(body)
    return folder


def quiet(text):
    """A report that nobody reads."""


def assert_holds(folder, seed):
    loaded = load_checkpoint(DNABERT2ForMaskedLM, folder).state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in weights_of(seed).items())
    assert sorted(path.name for path in folder.iterdir() if path.name in WRITTEN) == WRITTEN
    assert not (folder / "pytorch_model.bin").exists()


@pytest.mark.parametrize(("source", "seed"), [(PICKLED, 0), (SAFE, 1)])
@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_a_repository_arrives_as_safetensors(hub, tmp_path, source, seed, revision):
    told = []
    fetch_checkpoint(source, tmp_path / "out", revision=revision, report=told.append)
    assert_holds(tmp_path / "out", seed)
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == OWN
    assert told == [f"{source} at revision {revision} is in {tmp_path / 'out'}"]


@pytest.mark.parametrize(("source", "seed"), [(PICKLED, 0), (SAFE, 1)])
def test_a_folder_gives_the_same_as_its_repository(hub, files, tmp_path, source, seed):
    local = put(tmp_path / "local", files[source])
    before = {path.name: checksum(path) for path in local.iterdir()}
    fetch_checkpoint(str(local), tmp_path / "a", report=quiet)
    fetch_checkpoint(source, tmp_path / "b", report=quiet)
    assert_holds(tmp_path / "a", seed)
    for name in WRITTEN:
        assert checksum(tmp_path / "a" / name) == checksum(tmp_path / "b" / name)
    assert {path.name: checksum(path) for path in local.iterdir()} == before


@pytest.mark.parametrize("source", [PICKLED, BARE])
def test_another_tokenizer_replaces_the_own_one(hub, tmp_path, source):
    other = put(tmp_path / "other", {"tokenizer.json": OTHER})
    fetch_checkpoint(source, tmp_path / "out", tokenizer=str(other), report=quiet)
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == OTHER


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (
            "lab/none",
            "lab/none: config.json at revision 'main': no such model, or it wants a token",
        ),
        (BROKEN, "lab/broken: pytorch_model.bin at revision 'main': the model has no such file"),
        (BARE, r"lab/bare: vocab.txt at revision 'main': .* \(tokenizer.json is not there either"),
        ("no/such/folder", "no/such/folder: config.json at revision 'main': the download failed"),
    ],
)
def test_a_repository_that_lacks_something_is_one_sentence(hub, tmp_path, source, sentence):
    with pytest.raises(LongscaleError, match=sentence) as told:
        fetch_checkpoint(source, tmp_path / "out", report=quiet)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("tokenizer.json", r"tokenizer.json: no such file, nor vocab.txt; a checkpoint needs"),
        ("config.json", r"config.json: there is no such file"),
        ("pytorch_model.bin", "there is neither model.safetensors nor pytorch_model.bin"),
    ],
)
def test_a_folder_that_lacks_something_is_one_sentence(files, tmp_path, missing, sentence):
    local = put(tmp_path / "local", {k: v for k, v in files[PICKLED].items() if k != missing})
    with pytest.raises(LongscaleError, match=sentence):
        fetch_checkpoint(str(local), tmp_path / "out", report=quiet)
    assert not (tmp_path / "out").exists()


def test_a_missing_tokenizer_folder_is_one_sentence(files, tmp_path):
    local = put(tmp_path / "local", files[PICKLED])
    with pytest.raises(LongscaleError, match=r"none/tokenizer.json: no such file, nor vocab"):
        fetch_checkpoint(
            str(local), tmp_path / "out", tokenizer=str(tmp_path / "none"), report=quiet
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("where", ["hub", "folder"])
def test_a_tokenizer_is_made_from_the_vocabulary(hub, files, tmp_path, where):
    source = GAU if where == "hub" else str(put(tmp_path / "local", files[GAU]))
    fetch_checkpoint(source, tmp_path / "out", report=quiet)
    assert set(WRITTEN) <= {path.name for path in (tmp_path / "out").iterdir()}
    tokenizer = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert [tokenizer.id_to_token(number) for number in range(len(VOCABULARY))] == VOCABULARY
    assert tokenizer.encode("信息aa?", add_special_tokens=False).ids == [6, 7, 8, 9, 2]
    loaded = load_checkpoint(GAUAlphaForMaskedLM, tmp_path / "out", complete=True)
    assert loaded.config.n_train == 512
    stored = gau_weights()
    assert all(torch.equal(value, stored[key]) for key, value in loaded.state_dict().items())


def test_another_folders_vocabulary_replaces_the_own_tokenizer(hub, tmp_path):
    other = put(tmp_path / "other", {"vocab.txt": "\n".join(VOCABULARY[::-1]).encode()})
    fetch_checkpoint(PICKLED, tmp_path / "out", tokenizer=str(other), report=quiet)
    tokenizer = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert tokenizer.token_to_id("[PAD]") == len(VOCABULARY) - 1


def test_a_broken_vocabulary_is_one_sentence_and_leaves_nothing(files, tmp_path):
    local = put(tmp_path / "local", files[GAU] | {"vocab.txt": b"[PAD]\na\na\n"})
    with pytest.raises(LongscaleError, match=r"vocab\.txt, line 3: the token 'a'"):
        fetch_checkpoint(str(local), tmp_path / "out", report=quiet)
    assert not (tmp_path / "out").exists()


# --- further encoders ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Repositories of the further encoders, as their saving leaves them."""
    found = {}
    for name in ("nucleotide-transformer", "hyenadna", "huggingface"):
        folder = tmp_path_factory.mktemp(name)
        SAVED[name](folder)
        found[f"lab/{name}"] = {path.name: path.read_bytes() for path in folder.iterdir()}
    return found


@pytest.mark.parametrize("name", ["nucleotide-transformer", "hyenadna", "huggingface"])
@pytest.mark.parametrize("where", ["hub", "folder", "pickle"])
def test_an_encoder_arrives_with_what_its_tokenizer_needs(
    encoders, tmp_path, monkeypatch, name, where
):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    files = dict(encoders[f"lab/{name}"])
    files |= {"tokenizer_config.json": b'{"auto_map": {}}'} if name == "hyenadna" else {}
    if where == "pickle":
        torch.save(safetensors.torch.load(files.pop("model.safetensors")), tmp_path / "bin")
        files["pytorch_model.bin"] = (tmp_path / "bin").read_bytes()
    local = put(tmp_path / "local", files)
    with serve_hub({f"lab/{name}": files}) as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        source = str(local) if where == "folder" else f"lab/{name}"
        fetch_encoder(source, tmp_path / "out", name, report=quiet)
    assert not (tmp_path / "out" / "pytorch_model.bin").exists()
    whole = put(tmp_path / "whole", encoders[f"lab/{name}"] | files)
    encoder, expected = (load_encoder(name, folder) for folder in (tmp_path / "out", whole))
    assert getattr(encoder, "cls", None) == getattr(expected, "cls", None)
    states = []
    for one in (encoder, expected):
        ids, mask = map(torch.from_numpy, one.tokenise(WINDOWS).pad(np.arange(2), one.pad_id))
        states.append(one.hidden(ids, mask))
    assert torch.equal(*states)


def test_further_encoders_are_those_without_a_checkpoint_of_the_other_branches():
    assert set(ENCODER_FILES) == {"nucleotide-transformer", "hyenadna", "huggingface", "enformer"}


@pytest.mark.parametrize("where", ["hub", "folder"])
@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_an_encoder_that_lacks_something_is_one_sentence(
    encoders, tmp_path, monkeypatch, where, missing
):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    files = {k: v for k, v in encoders["lab/huggingface"].items() if k != missing}
    local = put(tmp_path / "local", files)
    with serve_hub({"lab/huggingface": files}) as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        source = str(local) if where == "folder" else "lab/huggingface"
        with pytest.raises(LongscaleError, match=missing):
            fetch_encoder(source, tmp_path / "out", "huggingface", report=quiet)
    assert not (tmp_path / "out").exists()
