"""Tokenizers for text: ids, round trips, and BERT's own tokenizer as the oracle."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

from longscale.errors import LongscaleError
from longscale.models.characters import (
    CHARACTER_SPECIALS,
    SpecialIds,
    encode_text,
    encode_texts,
    read_vocab,
    special_ids,
    train_bases,
    train_characters,
)
from longscale.models.tokenizer import SPECIAL_TOKENS

KNOWN = "ab cdé\n\t中[MASK]𝛼\u2028\x00e\u0301"
KNOWN_TEXT = st.text(alphabet=sorted(set(KNOWN)))

VOCABULARY = [
    "[PAD]",
    *(f"[unused{number}]" for number in range(3)),
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"abcdehilnorstu.,!-?'",
    *(f"##{letter}" for letter in "abcdehilnorstu"),
    "hello",
    "##ello",
    "cat",
    "##s",
    "信",
    "息",
    "##息",
    "\u2028",
]
WORDS = st.sampled_from(
    ["Hello", "CATS", "élan", "the", "信息", "息x", "xyz", "it's", "[MASK]", "\t", "。", "cats!"]
)


@pytest.fixture(scope="module")
def characters():
    return train_characters([KNOWN])


@pytest.fixture
def vocab(tmp_path):
    """A vocab.txt as checkpoints have it; its special ids are not 0 to 4."""
    path = tmp_path / "vocab.txt"
    tokens = [token for number, token in enumerate(VOCABULARY) if token not in VOCABULARY[:number]]
    path.write_bytes("\n".join(tokens).encode() + b"\n")
    return path


def reloaded(tokenizer):
    return Tokenizer.from_str(tokenizer.to_str())


# --- characters -------------------------------------------------------------------------------


@given(KNOWN_TEXT)
def test_known_characters_survive_the_round_trip(text):
    for tokenizer in (train_characters([KNOWN]), reloaded(train_characters([KNOWN]))):
        ids = encode_text(tokenizer, text)
        assert ids.dtype == np.int32
        assert len(ids) == len(text)
        assert tokenizer.decode(ids.tolist()) == text


@given(st.text())
def test_any_text_has_the_ids_of_its_characters(text):
    tokenizer = train_characters([KNOWN])
    specials = special_ids(tokenizer)
    expected = [
        specials.unk if (number := tokenizer.token_to_id(letter)) is None else number
        for letter in text
    ]
    assert encode_text(tokenizer, text).tolist() == expected


@given(st.text(alphabet="abcdé \n中𝛼xyz"))
def test_the_table_gives_what_the_library_gives(text):
    tokenizer = train_characters([KNOWN])
    assert encode_text(tokenizer, text).tolist() == tokenizer.encode(text).ids


def test_ids_begin_with_the_special_tokens_and_fall_with_frequency():
    tokenizer = train_characters(["banana", "bn"])
    assert special_ids(tokenizer) == SpecialIds(pad=0, unk=1, cls=2, sep=3, mask=4)
    assert [tokenizer.id_to_token(i) for i in range(8)] == [*CHARACTER_SPECIALS, "a", "n", "b"]
    assert train_characters(["banana", "bn"]).to_str() == tokenizer.to_str()
    assert tokenizer.decode([2, 7, 5, 6, 3]) == "ban"


def test_rare_characters_are_unknown():
    tokenizer = train_characters(["aab", "b", "c"], min_count=2)
    assert tokenizer.get_vocab_size() == 7
    assert encode_text(tokenizer, "abc").tolist() == [5, 6, 1]
    with pytest.raises(LongscaleError, match="no character occurs 3 times"):
        train_characters(["aab"], min_count=3)


def test_a_mask_in_a_document_is_text(characters):
    ids = special_ids(characters)
    assert ids.mask not in encode_text(characters, "a [MASK] b")
    assert len(encode_text(characters, "[MASK]")) == 6
    assert encode_text(characters, "\ud800a").tolist() == [ids.unk, characters.token_to_id("a")]


def test_transformers_reads_the_file(characters, tmp_path):
    characters.save(str(tmp_path / "tokenizer.json"))
    wrapped = PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json"), unk_token="[UNK]"
    )
    assert wrapped("ab\n中").input_ids == encode_text(characters, "ab\n中").tolist()


def test_bases():
    tokenizer = train_bases()
    assert tokenizer.get_vocab_size() == 10
    assert encode_text(tokenizer, "ACGTN").tolist() == [5, 6, 7, 8, 9]
    assert encode_text(tokenizer, "aR").tolist() == [1, 1]
    assert special_ids(tokenizer) == SpecialIds(0, 1, 2, 3, 4)


# --- word pieces ------------------------------------------------------------------------------


@given(st.lists(WORDS).map(" ".join))
def test_word_pieces_are_berts(tmp_path_factory, text):
    """Against transformers' BertTokenizer in Python, which shares no code with the one in Rust."""
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    path.write_text("\n".join(dict.fromkeys(VOCABULARY)) + "\n")
    oracle = BertTokenizerLegacy(str(path))
    tokenizer = read_vocab(path)
    plain = text.replace("[MASK]", "")
    expected = oracle.convert_tokens_to_ids(oracle.tokenize(plain))
    assert encode_text(tokenizer, plain).tolist() == expected
    assert tokenizer.token_to_id("[MASK]") not in encode_text(tokenizer, text)


def test_special_ids_are_looked_up_by_name(vocab):
    tokenizer = read_vocab(vocab)
    lines = vocab.read_text().split("\n")
    expected = SpecialIds(*(lines.index(name) for name in CHARACTER_SPECIALS))
    assert special_ids(tokenizer) == expected == SpecialIds(0, 4, 5, 6, 7)
    assert special_ids(reloaded(tokenizer)) == expected
    assert tokenizer.get_vocab_size() == len(lines) - 1
    assert tokenizer.encode("hello").ids == [expected.cls, lines.index("hello"), expected.sep]


def test_windows_line_ends_make_no_difference(vocab):
    unix = read_vocab(vocab).to_str()
    vocab.write_bytes(vocab.read_bytes().replace(b"\n", b"\r\n"))
    assert read_vocab(vocab).to_str() == unix


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty; a vocabulary has a token on every line"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n", r"has no token \[MASK\]"),
        (b"[PAD]\n[MASK]\n[CLS]\n[SEP]\na\n", r"has no token \[UNK\]"),
        (b"[PAD]\na\nb\na\n", r"vocab.txt, line 4: the token 'a' stands on line 2 already"),
        (b"\xff\n", "cannot be read as a vocabulary in UTF-8"),
    ],
)
def test_a_bad_vocabulary_is_one_sentence(vocab, content, sentence):
    vocab.write_bytes(content)
    with pytest.raises(LongscaleError, match=sentence) as told:
        read_vocab(vocab)
    assert str(vocab) in str(told.value)


def test_a_missing_vocabulary_is_one_sentence(tmp_path):
    with pytest.raises(LongscaleError, match=r"vocab.txt: cannot be read"):
        read_vocab(tmp_path / "vocab.txt")


# --- any tokenizer ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pairs():
    """A byte-pair encoding with DNABERT-2's special tokens, cut off at four tokens."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=20,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=list("ACGT"),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["GATTACAGATTACA" * 9], trainer)
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=4, pad_id=3, pad_token="[PAD]")
    return tokenizer


def test_byte_pairs_are_encoded_whole_and_without_special_tokens(pairs):
    ids = special_ids(pairs)
    assert ids == SpecialIds(pad=3, unk=0, cls=1, sep=2, mask=4)
    found = encode_text(pairs, "GATTACA" * 50)
    assert found.dtype == np.int32
    assert "".join(pairs.id_to_token(number) for number in found) == "GATTACA" * 50
    assert {ids.pad, ids.cls, ids.sep, ids.mask}.isdisjoint(encode_text(pairs, "G[MASK]A"))
    assert pairs.truncation["max_length"] == 4
    assert pairs.encode("[MASK]").ids == [ids.mask, ids.pad, ids.pad, ids.pad]


def test_many_texts_are_encoded_as_one_by_one(pairs, characters, vocab):
    texts = ["", "GATTACA", "cab", "hello 信息", "[CLS]"]
    for tokenizer in (pairs, characters, read_vocab(vocab)):
        together = encode_texts(tokenizer, texts)
        for text, ids in zip(texts, together, strict=True):
            assert ids.dtype == np.int32
            assert ids.tolist() == encode_text(tokenizer, text).tolist()


def test_a_tokenizer_without_mask_is_one_sentence():
    tokenizer = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3}))
    with pytest.raises(LongscaleError, match=r"the tokenizer has no token \[MASK\]"):
        special_ids(tokenizer)
