"""Tokens of windows against the tokenizer's own offsets, one window at a time."""

import json
from itertools import pairwise

import numpy as np
import pysam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from longscale.errors import LongscaleError
from longscale.genome.sequence import Genome
from longscale.models.tokenizer import (
    CLS,
    MASK,
    PAD,
    SEP,
    SPECIAL_TOKENS,
    UNK,
    EncodedWindows,
    draw_training_sequences,
    encode_windows,
    load_tokenizer,
    token_limit,
    train_tokenizer,
)

RNG = np.random.default_rng(11)


@pytest.fixture(scope="module")
def genome(tmp_path_factory):
    """chr1 is plain, chr2 mostly poly-C (to be recognised), chrN nothing but N, tiny too short."""
    path = tmp_path_factory.mktemp("genome") / "genome.fa"
    contigs = {
        "chr1": "".join(RNG.choice(list("ACGTacgt"), 30_000)),
        "chr2": "C" * 30_000,
        "chrN": "N" * 5_000,
        "tiny": "ACGT" * 100,
    }
    path.write_text("".join(f">{name}\n{text}\n" for name, text in contigs.items()))
    pysam.faidx(str(path))
    return Genome(path)


@pytest.fixture(scope="module")
def folder(genome, tmp_path_factory):
    """A folder with a tokenizer trained on chr1."""
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(
        genome, folder / "tokenizer.json", vocab_size=80, seed=1, exclude=("chr2", "chrN")
    )
    return folder


@pytest.fixture(scope="module", params=["trained", "published"])
def tokenizer(request, folder):
    """The trained tokenizer, and DNABERT-2's own."""
    if request.param == "trained":
        return load_tokenizer(folder)
    return load_tokenizer(request.getfixturevalue("shared") / "data" / "dnabert2_tokenizer")


def windows_of(rows):
    return np.array([list(row.encode()) for row in rows], dtype=np.uint8)


def random_windows(count, width, letters="ACGT", seed=3):
    rng = np.random.default_rng(seed)
    return rng.choice(np.frombuffer(letters.encode(), np.uint8), (count, width))


# --- training ---------------------------------------------------------------------------------


def test_the_layout_is_dnabert2s(folder):
    trained = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = [trained.token_to_id(token) for token in SPECIAL_TOKENS]
    assert ids == [0, 1, 2, 3, 4] == [UNK, CLS, SEP, PAD, MASK]
    assert trained.get_vocab_size() == 80
    assert set("".join(set(trained.get_vocab()) - set(SPECIAL_TOKENS))) == set("ACGT")
    encoding = trained.encode("GATTACA")
    assert (encoding.ids[0], encoding.ids[-1]) == (CLS, SEP)
    assert "".join(encoding.tokens[1:-1]) == "GATTACA"
    assert encoding.offsets[1:-1][-1][1] == 7
    wrapped = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    assert wrapped("GATTACA")["input_ids"] == encoding.ids


def test_the_same_seed_gives_the_same_file_and_another_another(genome, folder, tmp_path):
    for seed in (1, 2):
        path = tmp_path / str(seed) / "tokenizer.json"
        train_tokenizer(genome, path, vocab_size=80, seed=seed, exclude=("chr2", "chrN"))
        assert (path.read_bytes() == (folder / "tokenizer.json").read_bytes()) == (seed == 1)


def test_training_sequences_come_from_the_genome_without_n_and_excluded_contigs(genome):
    chr1 = genome.fetch("chr1", 0, 30_000).tobytes().decode()
    drawn = draw_training_sequences(genome, np.random.default_rng(1), 20_000, ("chr2",))
    assert {len(text) for text in drawn} == {500}
    assert all(text in chr1 for text in drawn)
    assert 20 < len(drawn) < 40  # of the 40 that 20,000 bp make, those in chrN are left out
    both = draw_training_sequences(genome, np.random.default_rng(1), 20_000)
    assert "C" * 500 in both


def test_excluding_a_contig_shows_in_the_vocabulary(genome, folder, tmp_path):
    train_tokenizer(genome, tmp_path / "tokenizer.json", vocab_size=80, seed=1)
    assert "CCCCCCCC" in load_tokenizer(tmp_path).get_vocab()
    assert "CCCCCCCC" not in load_tokenizer(folder).get_vocab()


def test_a_genome_without_a_long_contig_is_one_sentence(genome, tmp_path):
    with pytest.raises(LongscaleError, match="no contig of at least 500 bp is left to train"):
        train_tokenizer(
            genome, tmp_path / "t.json", vocab_size=80, seed=1, exclude=("chr1", "chr2", "chrN")
        )
    assert list(tmp_path.iterdir()) == []


def test_a_genome_of_nothing_but_n_is_one_sentence(genome, tmp_path):
    with pytest.raises(LongscaleError, match="no stretch of 500 bp without N"):
        train_tokenizer(
            genome, tmp_path / "t.json", vocab_size=80, seed=1, exclude=("chr1", "chr2")
        )
    assert list(tmp_path.iterdir()) == []


# --- loading ----------------------------------------------------------------------------------


def test_loading_refuses_in_one_sentence(folder, tmp_path):
    with pytest.raises(LongscaleError, match=r"tokenizer.json: no such file"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(LongscaleError, match=r"tokenizer.json: not a tokenizer") as told:
        load_tokenizer(tmp_path)
    assert "\n" not in str(told.value)
    text = (folder / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(text.replace("[MASK]", "[mask]"))
    with pytest.raises(LongscaleError, match=r"are \(0, 1, 2, 3, None\), but must be 0 to 4"):
        load_tokenizer(tmp_path)


# --- windows to tokens ------------------------------------------------------------------------


def slow_readout(encoding, start, stop):
    """Tokens that share a base with [start, stop), by comparing with every token's offsets."""
    hit = [
        number
        for number, (a, b) in enumerate(encoding.offsets)
        if a < stop and b > start and not encoding.special_tokens_mask[number]
    ]
    assert hit == list(range(hit[0], hit[-1] + 1))
    return hit[0], hit[-1] + 1


@pytest.mark.parametrize("chunk", [1, 7, 512])
def test_tokens_and_readouts_against_offsets(tokenizer, chunk):
    windows = random_windows(20, 90)
    rng = np.random.default_rng(5)
    starts = rng.integers(0, 90, 20)
    stops = starts + 1 + rng.integers(0, 90 - starts)
    starts[:2], stops[:2] = (0, 89), (90, 90)
    encoded = encode_windows(tokenizer, windows, (starts, stops), chunk=chunk)
    assert encoded.ids.dtype == np.uint16
    assert len(encoded.ids) == encoded.offsets[-1] == encoded.lengths.sum()
    assert not encoded.cut.any()
    for row, window in enumerate(windows):
        encoding = tokenizer.encode(window.tobytes().decode())
        assert encoded.window(row).tolist() == encoding.ids
        expected = slow_readout(encoding, starts[row], stops[row])
        assert tuple(encoded.readout[row]) == expected
        assert encoded.variant[row] == slow_readout(encoding, 45, 46)[0]
        text = "".join(encoding.tokens[slice(*expected)])
        assert window[starts[row] : stops[row]].tobytes().decode() in text


@pytest.mark.parametrize("change", ["one [UNK] for several N", "prefixes", "N in the vocabulary"])
def test_tokenizers_of_another_kind_against_offsets(folder, change):
    """Where a token's spelling does not tell how many bases it stands for, its offsets do."""
    settings = json.loads((folder / "tokenizer.json").read_text())
    model = settings["model"]
    if change == "one [UNK] for several N":
        model["fuse_unk"] = True
    elif change == "prefixes":
        model["continuing_subword_prefix"] = "#"
        model["vocab"] |= {f"#{base}": len(model["vocab"]) + i for i, base in enumerate("ACGT")}
        model["merges"] = []
    else:
        model["vocab"]["N"] = len(model["vocab"])
    tokenizer = Tokenizer.from_str(json.dumps(settings))
    windows = random_windows(20, 90, letters="ACGTNN")
    starts, stops = np.full(20, 37), np.full(20, 54)
    encoded = encode_windows(tokenizer, windows, (starts, stops))
    for row, window in enumerate(windows):
        encoding = tokenizer.encode(window.tobytes().decode())
        assert encoded.window(row).tolist() == encoding.ids
        assert tuple(encoded.readout[row]) == slow_readout(encoding, 37, 54)
        assert encoded.variant[row] == slow_readout(encoding, 45, 46)[0]


def test_without_spans_the_readout_is_cls(tokenizer):
    encoded = encode_windows(tokenizer, random_windows(3, 40))
    assert encoded.readout.tolist() == [[0, 1]] * 3


@pytest.mark.parametrize("row", ["N" * 40, "ACGT" + "N" * 32 + "ACGT", "N" * 20 + "ACGT" * 5])
def test_windows_with_n_have_a_token_for_every_base(tokenizer, row):
    spans = (np.array([12]), np.array([29]))
    encoded = encode_windows(tokenizer, windows_of([row]), spans)
    encoding = tokenizer.encode(row)
    assert tuple(encoded.readout[0]) == slow_readout(encoding, 12, 29)
    assert UNK in encoded.ids
    assert encoding.offsets[1][0] == 0
    assert encoding.offsets[-2][1] == 40
    assert all(a[1] == b[0] for a, b in pairwise(encoding.offsets[1:-1]))


def test_the_published_tokenizer_gives_the_published_tokens(shared):
    """DNABERT-2's own layout, read by transformers."""
    folder = shared / "data" / "dnabert2_tokenizer"
    oracle = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    windows = random_windows(5, 400, letters="ACGTN")
    encoded = encode_windows(load_tokenizer(folder), windows)
    for row, window in enumerate(windows):
        assert encoded.window(row).tolist() == oracle(window.tobytes().decode())["input_ids"]
    assert load_tokenizer(folder).get_vocab_size() == 4096


# --- packed windows ---------------------------------------------------------------------------


@st.composite
def packed(draw):
    """Packed windows of 3 to 9 tokens, with readouts and variants inside them."""
    lengths = draw(st.lists(st.integers(3, 9), min_size=1, max_size=6))
    rows = [[CLS, *draw(st.lists(st.integers(5, 60), min_size=n - 2, max_size=n - 2)), SEP]
            for n in lengths]  # fmt: skip
    readout = [sorted([draw(st.integers(0, n - 1)), n]) for n in lengths]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.concatenate(rows).astype(np.uint16)
    variant = np.array([draw(st.integers(1, n - 2)) for n in lengths], dtype=np.int32)
    cut = np.zeros((len(lengths), 2), dtype=np.int32)
    return rows, EncodedWindows(ids, offsets, np.array(readout, dtype=np.int32), variant, cut)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), given_windows=packed())
def test_pad_against_lists(data, given_windows):
    rows, encoded = given_windows
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=8))
    ids, mask = encoded.pad(np.array(chosen))
    width = max(len(rows[i]) for i in chosen)
    assert ids.tolist() == [rows[i] + [PAD] * (width - len(rows[i])) for i in chosen]
    assert mask.tolist() == [
        [1] * len(rows[i]) + [0] * (width - len(rows[i])) for i in chosen
    ]  # fmt: skip
    assert ids.dtype == mask.dtype == np.int64


@settings(max_examples=60, deadline=None)
@given(limit=st.integers(2, 10), given_windows=packed())
def test_truncate_right_against_lists(limit, given_windows):
    rows, encoded = given_windows
    cut = encoded.truncate_right(limit)
    for number, row in enumerate(rows):
        expected = row if len(row) <= limit else [*row[: limit - 1], SEP]
        assert cut.window(number).tolist() == expected
        variant = encoded.variant[number]
        is_kept = len(row) <= limit or variant < limit - 1
        assert cut.variant[number] == (variant if is_kept else -1)
        assert cut.cut[number].tolist() == [0, max(len(row) - limit, 0)]
    assert cut.lengths.tolist() == [min(len(row), limit) for row in rows]
    assert (cut.readout <= cut.lengths[:, None]).all()
    assert [encoded.window(i).tolist() for i in range(len(rows))] == rows  # the input is untouched


def slow_cut_around(row, variant, limit):
    """What is left when one token after the other goes from the further end (or left)."""
    body, place = row[1:-1], variant - 1
    while len(body) + 2 > limit:
        if place >= len(body) - 1 - place:
            body, place = body[1:], place - 1
        else:
            body = body[:-1]
    return [CLS, *body, SEP]


@settings(max_examples=100, deadline=None)
@given(limit=st.integers(3, 10), given_windows=packed())
def test_truncate_around_against_taking_off_the_further_end(limit, given_windows):
    rows, encoded = given_windows
    cut = encoded.truncate_around(limit)
    for number, row in enumerate(rows):
        variant, kept = encoded.variant[number], cut.variant[number]
        left, right = variant - 1, len(row) - 2 - variant
        found = cut.window(number).tolist()
        assert found == slow_cut_around(row, variant, limit)
        assert found[kept] == row[variant]
        kept_left, kept_right = kept - 1, len(found) - 2 - kept
        assert cut.cut[number].tolist() == [left - kept_left, right - kept_right]
        if cut.cut[number].all():  # both sides were long enough
            assert abs(kept_right - kept_left) <= 1
    assert [encoded.window(i).tolist() for i in range(len(rows))] == rows


@pytest.mark.parametrize("limit", [3, 4, 5, 9, 16, 33, 60])
@pytest.mark.parametrize("width", [40, 97])
def test_cut_around_keeps_the_text_at_the_variant(tokenizer, limit, width):
    windows = random_windows(12, width, letters="ACGTN", seed=width)
    spans = (np.full(12, width // 2 - 8), np.full(12, width // 2 + 11))
    whole = encode_windows(tokenizer, windows, spans)
    cut = whole.truncate_around(limit)
    for row, window in enumerate(windows):
        encoding = tokenizer.encode(window.tobytes().decode())
        kept = range(1 + cut.cut[row, 0], len(encoding.ids) - 1 - cut.cut[row, 1])
        assert cut.window(row)[1:-1].tolist() == [encoding.ids[token] for token in kept]
        start, stop = encoding.offsets[kept[cut.variant[row] - 1]]
        assert start <= width // 2 < stop
        wanted = [kept.index(n) + 1 for n in range(*whole.readout[row]) if n in kept]
        assert list(range(*cut.readout[row])) == wanted
        assert cut.variant[row] in wanted


def test_a_readout_at_cls_stays_there_under_both_cuts(tokenizer):
    encoded = encode_windows(tokenizer, random_windows(3, 90))
    for cut in (encoded.truncate_around(7), encoded.truncate_right(7)):
        assert cut.readout.tolist() == [[0, 1]] * 3
        assert cut.lengths.tolist() == [7] * 3


def test_settings_in_the_tokenizers_file_cut_and_pad_nothing(folder):
    """The library would cut on the right, also where that is where the variant stands."""
    plain, windows = load_tokenizer(folder), random_windows(4, 90)
    spans = (np.full(4, 37), np.full(4, 54))
    expected = encode_windows(plain, windows, spans)
    settings_of_file = load_tokenizer(folder)
    settings_of_file.enable_truncation(9)
    settings_of_file.enable_padding(length=400, pad_id=PAD, pad_token="[PAD]")
    found = encode_windows(settings_of_file, windows, spans)
    assert found.ids.tolist() == expected.ids.tolist()
    assert found.readout.tolist() == expected.readout.tolist()
    assert settings_of_file.truncation["max_length"] == 9  # the caller's own is untouched


def test_the_limit_is_what_the_file_declares(folder):
    tokenizer = load_tokenizer(folder)
    assert token_limit(tokenizer) is None
    tokenizer.enable_truncation(512)
    assert token_limit(Tokenizer.from_str(tokenizer.to_str())) == 512
    tokenizer.enable_truncation(2)
    with pytest.raises(LongscaleError, match="max_length is 2, but must be at least 3"):
        token_limit(tokenizer)
