"""How much of the test text stands word for word in the training text, and its removal from there.

A 64-bit hash of the window at every training position says where to look; what counts is the
comparison of the letters.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

WINDOW = 64  # characters; a power of two, see `hash_windows`
STEP = 16  # between the starts of two windows of a test document
FACTOR = 0x9E3779B97F4A7C15  # odd, so that no bit is lost; 2^64 / golden ratio
SIEVE_SLOTS = 32  # at least, per hash: one position in 32 is looked at in vain
CHUNK_CHARACTERS = 1 << 20  # of a training text; its hashes take 8 bytes each


@dataclass(frozen=True)
class Document:
    """A document of a corpus: its name there and its text."""

    name: str
    text: str


@dataclass(frozen=True)
class Leak:
    """Number of windows of the test documents, and of those found in a training document."""

    windows: int
    found: int

    @property
    def share(self) -> float:
        """Part of the windows that were found; 0 where there is no window."""
        return self.found / self.windows if self.windows else 0.0


@dataclass(frozen=True)
class Removal:
    """What is left of the training documents, and what each of them lost.

    documents: whole documents and the stretches left of others, in the order of the text.
    shared: (documents given,) int64, characters cut out as a held-out document has them too.
    too_short: (documents given,) int64, characters of what was left, but in stretches too short.
    """

    documents: list[Document]
    shared: np.ndarray
    too_short: np.ndarray

    @property
    def removed_characters(self) -> int:
        """Characters that a held-out document has too."""
        return int(self.shared.sum())


def measure_leak(test: Sequence[str], train: Sequence[str], *, step: int = STEP) -> Leak:
    """Windows of 64 characters, `step` apart in a test text, that a training text holds.

    A text shorter than a window has none.
    """
    windows = Counter(
        text[start : start + WINDOW]
        for text in test
        for start in range(0, len(text) - WINDOW + 1, step)
    )
    starts = _Windows(test, WINDOW, step).find(train)
    whole = "".join(train)
    found = {whole[start : start + WINDOW] for start in starts}
    return Leak(windows.total(), sum(windows[window] for window in found))


def remove_shared(
    documents: Sequence[Document],
    held_out: Sequence[Document],
    *,
    train_length: int,
    window: int = WINDOW,
) -> Removal:
    """Cut out of the training documents every stretch that a held-out document has too.

    A character goes where some window that it lies in (`window` characters, a power of two) stands
    in a held-out document, letter by letter. Of what is left between the cuts, stretches of at
    least `train_length` characters become documents of their own: `{name}#1`, `{name}#2`, ... (a
    name that another document has already is passed over). They are not joined: a join would be
    text that nobody wrote, and could hold a window of the held-out text again.
    """
    held = _Windows([document.text for document in held_out], window)
    cuts = _merge(held.find([document.text for document in documents]), window)
    bounds = _bounds(document.text for document in documents)
    first = np.searchsorted(cuts[:, 0], bounds)
    kept: list[Document] = []
    names = {document.name for document in [*documents, *held_out]}
    shared, too_short = np.zeros((2, len(documents)), np.int64)
    for row, document in enumerate(documents):
        own = cuts[first[row] : first[row + 1]] - bounds[row]
        if not len(own):
            kept.append(document)
            continue
        edges = [0, *own.ravel().tolist(), len(document.text)]
        left = [document.text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)]
        texts = [text for text in left if len(text) >= train_length]
        kept += map(Document, _number(document.name, len(texts), names), texts)
        shared[row] = len(document.text) - sum(map(len, left))
        too_short[row] = sum(map(len, left)) - sum(map(len, texts))
    return Removal(kept, shared, too_short)


def hash_windows(text: str, window: int = WINDOW) -> np.ndarray:
    """Hash of the window at each start: (characters - window + 1,) uint64; a shorter text has none.

    The polynomial sum of character[i] * FACTOR^(window - 1 - i) modulo 2^64, built by doubling: the
    hash of 2k characters is that of the first k times FACTOR^k, plus that of the next k. Raises
    ValueError where `window` is no power of two.
    """
    if window < 1 or window & (window - 1):
        raise ValueError(f"window is {window}: it must be a power of two")
    hashes = _letters(text).astype(np.uint64)
    if len(hashes) < window:
        return np.empty(0, np.uint64)
    half, factor = 1, FACTOR
    while half < window:
        hashes = hashes[:-half] * np.uint64(factor) + hashes[half:]
        half, factor = 2 * half, factor * factor % 2**64
    return hashes


class _Windows:
    """The windows of some texts, `step` apart in each, to be looked for in other texts."""

    def __init__(self, texts: Sequence[str], window: int, step: int = 1) -> None:
        hashes = [np.empty(0, np.uint64)]
        places = [np.empty(0, np.int64)]
        for text, begin in zip(texts, _bounds(texts)[:-1], strict=True):
            hashes.append(hash_windows(text, window)[::step])
            places.append(begin + step * np.arange(len(hashes[-1])))
        self.window = window
        self.letters = _letters("".join(texts))
        self.hashes = np.concatenate(hashes)
        order = np.argsort(self.hashes)
        self.hashes = self.hashes[order]  # ascending
        self.places = np.concatenate(places)[order]  # in `letters`
        self.sieve = _sieve(self.hashes)

    def find(self, texts: Sequence[str]) -> np.ndarray:
        """Where these windows start in the texts, as if those were one: (found,) int64, ascending.

        They are searched as one, so that what numpy costs per call is paid once and not per text; a
        window that reaches into the next text is none.
        """
        chunks = enumerate(_chunks("".join(texts), self.window))
        starts = np.concatenate(
            [number * CHUNK_CHARACTERS + self._find_in_chunk(chunk) for number, chunk in chunks]
        )
        bounds = _bounds(texts)
        return starts[starts + self.window <= bounds[np.searchsorted(bounds, starts, "right")]]

    def _find_in_chunk(self, text: str) -> np.ndarray:
        letters, hashes = _letters(text), hash_windows(text, self.window)
        starts = _likely(self.sieve, hashes)
        rank = np.searchsorted(self.hashes, hashes[starts])
        found = [np.empty(0, np.int64)]
        while len(starts):
            known = self.hashes[np.minimum(rank, len(self.hashes) - 1)] == hashes[starts]
            known &= rank < len(self.hashes)
            starts, rank = starts[known], rank[known]
            same = np.ones(len(starts), bool)
            for place in range(self.window):
                same &= letters[starts + place] == self.letters[self.places[rank] + place]
            found.append(starts[same])
            # Of another window with the same hash the next one may be equal.
            starts, rank = starts[~same], rank[~same] + 1
        return np.sort(np.concatenate(found))


def _merge(starts: np.ndarray, window: int) -> np.ndarray:
    """Stretches covered by the windows at ascending `starts`: (stretches, 2) begin, end (open).

    Windows that only touch stay two stretches: they may be of two documents.
    """
    first = np.diff(starts, prepend=-window) >= window  # of a stretch
    last = np.roll(first, -1)
    return np.stack([starts[first], starts[last] + window], axis=1)


def _number(name: str, count: int, names: set[str]) -> Iterator[str]:
    """`count` names `{name}#1`, `{name}#2`, ... without those among `names`."""
    number = 0
    for _ in range(count):
        number += 1
        while f"{name}#{number}" in names:
            number += 1
        yield f"{name}#{number}"


def _letters(text: str) -> np.ndarray:
    """Code point of each character: (characters,) uint32."""
    return np.frombuffer(text.encode("utf-32-le"), "<u4")


def _sieve(hashes: np.ndarray) -> np.ndarray:
    """Table of a power of two of slots: which highest bits the hashes have; see `_likely`."""
    table = np.zeros(2 << (SIEVE_SLOTS * len(hashes)).bit_length(), bool)
    table[_slots(table, hashes)] = True
    return table


def _likely(sieve: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """Indices of the hashes that may be among those of the sieve; most others are ruled out."""
    return np.flatnonzero(sieve[_slots(sieve, hashes)])


def _slots(table: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    return hashes >> np.uint64(65 - len(table).bit_length())


def _bounds(texts: Iterable[str]) -> np.ndarray:
    """Where each text begins, and the last one ends, as if they were one: (texts + 1,) int64."""
    return np.cumsum([0, *(len(text) for text in texts)], dtype=np.int64)


def _chunks(text: str, window: int) -> Iterator[str]:
    """The text in pieces that share a window less one character: no window is cut, none twice."""
    for start in range(0, max(1, len(text) - window + 1), CHUNK_CHARACTERS):
        yield text[start : start + CHUNK_CHARACTERS + window - 1]
