"""Windows as tokens of fixed rules (k-mers, characters), with the place of each token in bp."""

from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from longscale.errors import LongscaleError


@dataclass(frozen=True)
class TokenSpans:
    """Windows of `window_bp` as tokens, packed one after the other.

    ids: (tokens,) integers. offsets: (windows + 1,) int64, window i is ids[offsets[i]:offsets[i +
    1]]. starts, stops: (tokens,) int32, what of its window each token spells, in bp, 0-based and
    half-open. Together the tokens of a window spell all of it, each base once; special tokens spell
    nothing and stand at one of its ends.
    """

    ids: np.ndarray
    offsets: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    window_bp: int

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each window, special tokens included."""
        return np.diff(self.offsets)

    def window(self, index: int) -> np.ndarray:
        """Token ids of one window."""
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    def token_at(self, position: np.ndarray | int) -> np.ndarray:
        """The token that spells the base at `position` of each window, counted within the window.

        `position`: in bp, 0-based, (windows,) or one for all. Raises `LongscaleError` for one
        outside the window.
        """
        windows = len(self.lengths)
        position = np.broadcast_to(np.asarray(position, np.int64), windows)
        outside = ((position < 0) | (position >= self.window_bp)).nonzero()[0]
        if len(outside):
            raise LongscaleError(
                f"window {outside[0]}: position {position[outside[0]]} lies outside it; it must be "
                f"from 0 to {self.window_bp - 1} bp."
            )
        # Starts ascend within a window; a window's number as the leading digit makes all ascend.
        digit = self.window_bp + 1
        order = np.repeat(np.arange(windows), self.lengths) * digit + self.starts
        sought = np.arange(windows) * digit + position
        return np.searchsorted(order, sought, side="right") - 1 - self.offsets[:-1]

    def overlapping(self, start: np.ndarray | int, stop: np.ndarray | int) -> np.ndarray:
        """Half-open spans of tokens that overlap [start, stop) of each window: (windows, 2).

        `start`, `stop` as the positions of `token_at`, which raises; stop > start.
        """
        return np.stack([self.token_at(start), self.token_at(np.asarray(stop) - 1) + 1], axis=1)

    def pad(self, rows: np.ndarray, pad_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and attention mask of the given windows, both (rows, longest of them) int64,
        padded on the right.
        """
        mask = np.arange(self.lengths[rows].max()) < self.lengths[rows][:, None]
        ids = np.full(mask.shape, pad_id, dtype=np.int64)
        ids[mask] = np.concatenate([self.window(row) for row in rows])
        return ids, mask.astype(np.int64)


def token_spans(
    windows: np.ndarray,
    row: np.ndarray,
    starts: np.ndarray,
    ids: np.ndarray,
    *,
    first: int | None = None,
    last: int | None = None,
) -> TokenSpans:
    """`TokenSpans` of tokens in reading order, with special tokens put before and behind each row.

    `windows` (rows, window_bp); of each token its window `row`, where it `starts` and its id, all
    (tokens,); it stops where the next one starts. `first`, `last`: ids of the special tokens.
    """
    count, window_bp = windows.shape
    before, behind = int(first is not None), int(last is not None)
    offsets = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(row, minlength=count) + before + behind, out=offsets[1:])
    place = np.arange(len(row)) + row * (before + behind) + before
    all_ids = np.empty(offsets[-1], np.uint16)
    all_starts = np.zeros(offsets[-1], np.int32)
    if first is not None:
        all_ids[offsets[:-1]] = first
    if last is not None:
        all_ids[offsets[1:] - 1], all_starts[offsets[1:] - 1] = last, window_bp
    all_ids[place], all_starts[place] = ids, starts
    stops = np.append(all_starts[1:], np.int32(window_bp))
    stops[offsets[1:] - 1] = window_bp
    if first is not None:
        stops[offsets[:-1]] = 0
    return TokenSpans(all_ids, offsets, all_starts, stops, window_bp)


def spans_by_offsets(tokenizer: Tokenizer, windows: np.ndarray, *, chunk: int = 512) -> TokenSpans:
    """`TokenSpans` of any tokenizer that knows where its tokens stand in the text.

    `windows` (rows, window_bp) uint8 ASCII. Special tokens spell nothing. Raises `LongscaleError`
    where the tokens of a window do not spell all of it (a tokenizer that drops or adds text).
    """
    tokenizer = without_settings(tokenizer)
    ids, starts, stops = [], [], []
    width = windows.shape[1]
    for first in range(0, len(windows), chunk):
        texts = [row.tobytes().decode("ascii") for row in windows[first : first + chunk]]
        for encoding in tokenizer.encode_batch(texts):
            special = np.array(encoding.special_tokens_mask, bool)
            begin, end = np.array(encoding.offsets, np.int32).reshape(-1, 2).T
            end = np.maximum.accumulate(np.where(special, 0, end))
            begin = np.where(special, end, begin)
            if end[-1] != width or (begin[1:] != end[:-1]).any() or begin[0] != 0:
                raise LongscaleError(
                    "tokenizer.json: its tokens do not spell the whole window, each base once; "
                    "an encoder's tokenizer must neither drop, add nor reorder text"
                )
            ids.append(np.array(encoding.ids))
            starts.append(begin)
            stops.append(end)
    offsets = np.concatenate([[0], np.cumsum([len(own) for own in ids])]).astype(np.int64)
    parts = (np.concatenate(part).astype(np.int32) for part in (starts, stops))
    return TokenSpans(np.concatenate(ids), offsets, *parts, width)


def without_settings(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer without truncation and padding, which a tokenizer.json can bring along.

    The library would cut on the right alone, wherever the variant lies, and its padding would count
    as sequence. The caller's own keeps its settings.
    """
    if tokenizer.truncation is None and tokenizer.padding is None:
        return tokenizer
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    return plain
