"""The sentence that a user is shown, whatever stands in the data."""

import errno

import pytest

from longscale.errors import LongscaleError, storage_sentence


def test_a_sentence_stays_as_it_was_written():
    told = "C:\\data\\häuser und 東.csv, line 3: the label is 'b'; 0 or 1 is expected"
    assert str(LongscaleError(told)) == told


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nb", "a\\nb"),
        ("a\r\tb", "a\\r\\tb"),
        ("\x1b[2J", "\\x1b[2J"),  # clears a terminal
        ("\u2028", "\\u2028"),  # a line break to str.splitlines
        ("\u202etxt.exe", "\\u202etxt.exe"),  # turns what follows around
        ("\ud800", "\\ud800"),  # cannot be encoded, so it could not be printed
    ],
)
def test_what_would_break_the_line_or_speak_to_the_terminal_is_shown_as_its_escape(name, shown):
    sentence = str(LongscaleError(f"f.csv: the column '{name}' is unknown"))
    assert sentence == f"f.csv: the column '{shown}' is unknown"
    assert sentence.encode()


def test_of_an_endless_sentence_both_ends_are_kept():
    sentence = str(LongscaleError(f"f.csv: the column '{'x' * 1_000_000}' is unknown"))
    assert len(sentence) < 5000
    assert sentence.startswith("f.csv: the column")
    assert sentence.endswith("is unknown")


def test_a_full_disk_is_found_behind_what_a_library_made_of_it():
    error = ValueError("cannot write")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device", "a.parquet")
    assert "a.parquet: No space left on device" in str(storage_sentence(error))
    torch_words = RuntimeError("PytorchStreamWriter failed writing\nfile data.pkl")
    assert "failed writing file data.pkl" in str(storage_sentence(torch_words))
    assert storage_sentence(OSError(errno.ENOENT, "No such file", "b")) is None
