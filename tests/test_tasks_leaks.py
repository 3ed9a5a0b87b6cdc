"""What of the test text stands in the training text, and its removal, against slow searches."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longscale.tasks import leaks
from longscale.tasks.leaks import Document, Leak, hash_windows, measure_leak, remove_shared

# Few letters, long runs and copied stretches: real overlaps, shifted ones and near misses.
PIECES = st.sampled_from(["a" * 70, "ab" * 40, "é" * 64, "𝛼中\n" * 30, "xyz" * 33, "a" * 63, "q"])
TEXTS = st.lists(st.lists(PIECES, max_size=5).map("".join), max_size=4)


def slow_leak(test, train):
    """Every window of every test text, looked for in every training text."""
    windows = [text[start : start + 64] for text in test for start in range(0, len(text) - 63, 16)]
    return Leak(len(windows), sum(any(w in text for text in train) for w in windows))


@given(TEXTS, TEXTS)
def test_against_a_search_letter_by_letter(test, train):
    assert measure_leak(test, train) == slow_leak(test, train)


def test_equal_hashes_of_unequal_windows_are_no_hits(monkeypatch):
    """With factor 0 a window's hash is its last letter: nearly all of them collide."""
    monkeypatch.setattr(leaks, "FACTOR", 0)
    rng = np.random.default_rng(1)
    train = "".join(rng.choice(list("ab"), 3000))
    test = "".join(rng.choice(list("ab"), 1000)) + train[500:1000]
    assert len(np.unique(hash_windows(train))) == 2
    found = measure_leak([test], [train])
    assert found == slow_leak([test], [train])
    assert 0 < found.found < found.windows


@pytest.mark.parametrize("chunk", [1, 64, 100])
def test_chunks_cut_no_window(monkeypatch, chunk):
    monkeypatch.setattr(leaks, "CHUNK_CHARACTERS", chunk)
    rng = np.random.default_rng(2)
    train = "".join(rng.choice(list("abcdefgh"), 400))
    assert measure_leak([train[5:400]], [train]) == Leak(21, 21)
    assert measure_leak([train], [train[:200], train[200:]]) == slow_leak(
        [train], [train[:200], train[200:]]
    )


def test_the_hash_is_the_polynomial():
    text = "Information entropy invariance: 信息熵不变性 " * 3
    expected = [
        sum(
            ord(letter) * leaks.FACTOR ** (63 - place)
            for place, letter in enumerate(text[start : start + 64])
        )
        % 2**64
        for start in range(len(text) - 63)
    ]
    assert hash_windows(text).tolist() == expected
    assert hash_windows("a" * 63).tolist() == []


def test_windows_count_as_often_as_they_stand_in_the_test_text():
    assert measure_leak(["a" * 96, "a" * 64], ["b" + "a" * 64]) == Leak(4, 4)
    assert measure_leak(["a" * 96, "b" * 64], ["b" * 64]).share == 0.25


@pytest.mark.parametrize(("test", "train"), [([], ["a" * 99]), (["a" * 63], ["a" * 99])])
def test_without_a_window_the_share_is_zero(test, train):
    assert measure_leak(test, train) == Leak(0, 0)
    assert measure_leak(test, train).share == 0.0
    assert measure_leak(["a" * 64], []) == Leak(1, 0)


# --- removal ------------------------------------------------------------------------------------

FEW_LETTERS = st.lists(st.text("abc", max_size=30), max_size=4)


def slow_removal(train, held_out, train_length, window):
    """Every letter is asked whether a window that it lies in is one of the held-out windows."""
    windows = {text[i : i + window] for text in held_out for i in range(len(text) - window + 1)}
    kept, shared, too_short = [], [], []
    for text in train:
        starts = range(len(text) - window + 1)
        lost = [
            any(text[s : s + window] in windows for s in starts if s <= place < s + window)
            for place in range(len(text))
        ]
        pieces = [
            "".join(text[place] for place in run)
            for cut, run in itertools.groupby(range(len(text)), lost.__getitem__)
            if not cut
        ]
        long_enough = [piece for piece in pieces if len(piece) >= train_length]
        kept += long_enough if any(lost) else [text]
        shared.append(sum(lost))
        too_short.append(len(text) - sum(lost) - len("".join(long_enough)) if any(lost) else 0)
    return kept, shared, too_short


def name(texts):
    return [Document(f"d{row}", text) for row, text in enumerate(texts)]


@given(FEW_LETTERS, FEW_LETTERS, st.integers(1, 8), st.sampled_from([1, 2, 4, 8]))
def test_removal_against_a_question_to_every_letter(train, held_out, train_length, window):
    removal = remove_shared(name(train), name(held_out), train_length=train_length, window=window)
    kept, shared, too_short = slow_removal(train, held_out, train_length, window)
    assert [document.text for document in removal.documents] == kept
    assert removal.shared.tolist() == shared
    assert removal.too_short.tolist() == too_short
    assert removal.removed_characters == sum(shared)


@given(TEXTS, TEXTS)
def test_after_removal_no_window_is_left_at_any_start(train, held_out):
    removal = remove_shared(name(train), name(held_out), train_length=10)
    left = [document.text for document in removal.documents]
    assert measure_leak(held_out, left, step=1).found == 0
    windows = (text[start : start + 64] for text in held_out for start in range(len(text) - 63))
    assert not any(window in text for window in windows for text in left)
    again = remove_shared(removal.documents, name(held_out), train_length=10)
    assert again.documents == removal.documents


def test_removal_compares_letters_where_hashes_are_equal(monkeypatch):
    """With factor 0 a window's hash is its last letter: nearly all of them collide."""
    monkeypatch.setattr(leaks, "FACTOR", 0)
    rng = np.random.default_rng(3)
    held_out = "".join(rng.choice(list("ab"), 700))
    train = "".join(rng.choice(list("ab"), 300))
    removal = remove_shared(
        [Document("t", train + held_out[100:400] + train)],
        [Document("h", held_out)],
        train_length=64,
    )
    expected, shared, _ = slow_removal([train + held_out[100:400] + train], [held_out], 64, 64)
    assert [document.text for document in removal.documents] == expected
    assert removal.shared.tolist() == shared
    assert 300 <= shared[0] < 310


@pytest.mark.parametrize("chunk", [1, 64, 100])
def test_chunks_change_no_cut(monkeypatch, chunk):
    rng = np.random.default_rng(4)
    held_out = "".join(rng.choice(list("abcdefgh"), 400))
    train = [held_out[10:90], "z" * 100 + held_out[200:264] + "z" * 30, held_out[300:363]]
    monkeypatch.setattr(leaks, "CHUNK_CHARACTERS", chunk)
    removal = remove_shared(name(train), name([held_out]), train_length=64)
    assert removal.documents == [Document("d1#1", "z" * 100), Document("d2", train[2])]
    assert removal.shared.tolist() == [80, 64, 0]
    assert removal.too_short.tolist() == [0, 30, 0]


def test_no_window_reaches_over_the_end_of_a_document():
    """Not of a training document, nor of a held-out one; cuts that touch stay apart."""
    documents = name(["xx" + "abcd", "efgh" + "yy"])
    for held_out in (["cdef"], ["ab", "cd"], ["hyyx"]):
        removal = remove_shared(documents, name(held_out), train_length=1, window=4)
        assert removal.documents == documents
    removal = remove_shared(documents, name(["abcd", "efgh"]), train_length=1, window=4)
    assert removal.documents == [Document("d0#1", "xx"), Document("d1#1", "yy")]


def test_stretches_are_numbered_past_names_that_are_taken():
    documents = [Document("a", "1111abcd2222abcd3abcd4444"), Document("a#2", "5555")]
    held_out = [Document("a#1", "abcd")]
    removal = remove_shared(documents, held_out, train_length=4, window=4)
    assert [(document.name, document.text) for document in removal.documents] == [
        ("a#3", "1111"),
        ("a#4", "2222"),
        ("a#5", "4444"),
        ("a#2", "5555"),
    ]


def test_without_documents_or_windows_nothing_is_removed():
    documents = name(["a" * 70, ""])
    assert remove_shared(documents, [], train_length=1).documents == documents
    assert remove_shared(documents, name(["a" * 63]), train_length=1).documents == documents
    removal = remove_shared([], documents, train_length=1)
    assert (removal.documents, removal.removed_characters) == ([], 0)


@pytest.mark.parametrize("window", [0, 3, 48])
def test_a_window_that_is_no_power_of_two_is_refused(window):
    with pytest.raises(ValueError, match=f"window is {window}: it must be a power of two"):
        hash_windows("a" * 99, window)
