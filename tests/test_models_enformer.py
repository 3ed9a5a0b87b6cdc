"""Enformer: which base reads which bin, and the package's own model where it is installed."""

import json

import numpy as np
import pytest
import torch

from longscale.errors import LongscaleError
from longscale.models.adapters.enformer import BIN_BP, INPUT_BP, TARGET_BINS, EnformerEncoder
from longscale.models.encoders import load_encoder, pool_states

TINY = {
    "dim": 24,
    "depth": 1,
    "heads": 2,
    "attn_dim_key": 4,
    "dim_divisible_by": 2,
    "output_heads": {"human": 3},
    "use_tf_gamma": False,
}


class CountsOfBins(torch.nn.Module):
    """The states of a bin are how often each code stands in it."""

    def forward(self, codes, return_only_embeddings):
        assert return_only_embeddings
        assert codes.dtype == torch.long
        assert codes.shape[1] == INPUT_BP
        margin = (INPUT_BP - TARGET_BINS * BIN_BP) // 2
        counts = torch.nn.functional.one_hot(codes, 5).float()[:, margin:-margin]
        return counts.reshape(len(codes), TARGET_BINS, BIN_BP, 5).sum(2)


def pooled(encoder, window, start, stop):
    tokens = encoder.tokenise(window[None])
    ids, mask = (torch.from_numpy(x) for x in tokens.pad(np.array([0]), encoder.pad_id))
    hidden = encoder.hidden(ids, mask)[0]
    return pool_states(hidden, tokens.starts, tokens.stops, np.array([[start, stop]]))[0]


@pytest.mark.parametrize("width", [301, 2000, 114_688, 150_001, INPUT_BP])
def test_what_is_pooled_is_the_mean_over_bases_of_their_bins(width):
    """Against the whole input, laid out by hand: N around the window, a state per bin."""
    window = np.random.default_rng(1).choice(np.frombuffer(b"ACGTN", np.uint8), width)
    left = (INPUT_BP - width) // 2
    whole = np.full(INPUT_BP, ord("N"), np.uint8)
    whole[left : left + width] = window
    counts = np.stack([(whole == ord(base)).reshape(-1, BIN_BP).sum(1) for base in "ACGTN"], 1)
    middle = width // 2
    for start, stop in ((middle - 100, middle + 101), (middle, middle + 1)):
        bins = np.arange(left + start, left + stop) // BIN_BP
        found = pooled(EnformerEncoder(CountsOfBins(), 5), window, start, stop)
        np.testing.assert_allclose(found, counts[bins].mean(0), rtol=1e-6)


def test_windows_are_read_one_at_a_time():
    """Each fills 196,608 bp, of which `batch_tokens` knows nothing."""
    sizes = []

    class Counted(CountsOfBins):
        def forward(self, codes, return_only_embeddings):
            sizes.append(len(codes))
            return super().forward(codes, return_only_embeddings)

    encoder = EnformerEncoder(Counted(), 5)
    windows = np.random.default_rng(1).choice(np.frombuffer(b"ACGT", np.uint8), (3, 301))
    ids, mask = (
        torch.from_numpy(x) for x in encoder.tokenise(windows).pad(np.arange(3), encoder.pad_id)
    )
    together = encoder.hidden(ids, mask)
    assert sizes == [1, 1, 1]
    assert torch.equal(together[2:], encoder.hidden(ids[2:], mask[2:]))


def test_bins_of_the_whole_target_are_its_states():
    window = np.random.default_rng(2).choice(np.frombuffer(b"ACGT", np.uint8), 114_688)
    encoder = EnformerEncoder(CountsOfBins(), 5)
    tokens = encoder.tokenise(window[None])
    assert (tokens.stops > tokens.starts).sum() == TARGET_BINS
    ids, mask = (torch.from_numpy(x) for x in tokens.pad(np.array([0]), encoder.pad_id))
    edges = np.arange(TARGET_BINS)[:, None] * BIN_BP + [0, BIN_BP]
    found = pool_states(encoder.hidden(ids, mask)[0], tokens.starts, tokens.stops, edges)
    slow = (window.reshape(-1, BIN_BP)[:, :, None] == np.frombuffer(b"ACGTN", np.uint8)).sum(1)
    np.testing.assert_array_equal(found, slow)


def test_the_margins_have_no_states():
    window = np.full(INPUT_BP, ord("A"), np.uint8)
    with pytest.raises(ValueError, match="leaves what the tokens spell"):
        pooled(EnformerEncoder(CountsOfBins(), 5), window, 40_000, 41_000)


def test_what_it_cannot_do_is_one_sentence(tmp_path):
    encoder = EnformerEncoder(CountsOfBins(), 5)
    for sentence, act in {
        "196,609 bp are more than": lambda: encoder.tokenise(np.zeros((1, INPUT_BP + 1), np.uint8)),
        "'logn' cannot be put on Enformer": lambda: encoder.set_rule("logn"),
        "rescales rotary positions": lambda: encoder.extend(2.0),
        "no masked-LM head": lambda: encoder.logits(None, None),
    }.items():
        with pytest.raises(LongscaleError, match=sentence):
            act()


# --- with enformer-pytorch ----------------------------------------------------------------------


@pytest.fixture
def package():
    return pytest.importorskip(
        "enformer_pytorch.modeling_enformer", reason="enformer-pytorch is an optional extra"
    )


def save(package, folder, **changes):
    config = TINY | changes
    torch.manual_seed(1)
    model = package.Enformer.from_hparams(**config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:  # else the input's trace is lost in rounding
            torch.nn.init.normal_(parameter, std=1.5 * parameter[0].numel() ** -0.5)
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return model


@torch.inference_mode()
def test_states_are_those_of_the_package_for_text(package, tmp_path):
    """Its own encoding of text: N is nothing of each base."""
    model = save(package, tmp_path)
    window = np.random.default_rng(3).choice(np.frombuffer(b"ACGTN", np.uint8), 1000)
    text = window.tobytes().decode().center(INPUT_BP, "N")
    expected = model([text], return_only_embeddings=True)[0]
    encoder = load_encoder("enformer", tmp_path)
    assert encoder.width == expected.shape[1] == 48
    # The window's middle is the input's, where two bins meet.
    found = pooled(encoder, window, 500, 500 + BIN_BP)
    bins = TARGET_BINS // 2
    torch.testing.assert_close(found, expected[bins], rtol=1e-4, atol=1e-5)
    assert (expected[bins] - expected[bins - 1]).abs().max() > 0.01
    # Where N were a quarter of each base, it would be seen.
    quarters = model([text.replace("N", ".")], return_only_embeddings=True)[0]
    assert (expected[bins] - quarters[bins]).abs().max() > 0.01


def test_a_name_of_each_shared_tensor_is_enough_and_what_is_missing_is_told(package, tmp_path):
    model = save(package, tmp_path)
    weights = model.state_dict()
    path = tmp_path / "pytorch_model.bin"
    once = {name: value for name, value in weights.items() if not name.startswith("_trunk")}
    torch.save(once, path)
    loaded = load_encoder("enformer", tmp_path).model.state_dict()
    assert all(torch.equal(weights[name], loaded[name]) for name in weights)
    torch.save({name: value for name, value in once.items() if "transformer" not in name}, path)
    with pytest.raises(LongscaleError, match="weights are missing or unknown"):
        load_encoder("enformer", tmp_path)
    path.unlink()
    with pytest.raises(LongscaleError, match=r"it needs config\.json and model\.safetensors"):
        load_encoder("enformer", tmp_path)


def test_positions_are_the_originals_where_the_configuration_does_not_say(package, tmp_path):
    """The original's table has 32 functions of each kind: a head of 192 features."""
    save(package, tmp_path, dim=192, heads=1)
    stored = json.loads((tmp_path / "config.json").read_text())
    del stored["use_tf_gamma"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert load_encoder("enformer", tmp_path).model.use_tf_gamma
