"""Where tokens of fixed rules lie: hand-made windows, and one base after the other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longscale.errors import LongscaleError
from longscale.models.token_spans import token_spans


def spans_of(cuts, window_bp=10, first=None, last=None):
    """Windows cut into tokens that start at `cuts`, with ids 100, 101, ... in reading order."""
    row = np.repeat(np.arange(len(cuts)), [len(starts) for starts in cuts])
    starts = np.array([start for window in cuts for start in window])
    ids = 100 + np.arange(len(row))
    windows = np.zeros((len(cuts), window_bp), np.uint8)
    return token_spans(windows, row, starts, ids, first=first, last=last)


CUTS = [[0, 4, 9], [0], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]]


@pytest.mark.parametrize("first", [None, 3])
@pytest.mark.parametrize("last", [None, 7])
def test_special_tokens_stand_at_the_ends_and_spell_nothing(first, last):
    spans = spans_of(CUTS, first=first, last=last)
    before, behind = first is not None, last is not None
    assert spans.lengths.tolist() == [len(cuts) + before + behind for cuts in CUTS]
    number = 100
    for index, cuts in enumerate(CUTS):
        stretch = slice(spans.offsets[index], spans.offsets[index + 1])
        ids = [first] * before + list(range(number, number + len(cuts))) + [last] * behind
        number += len(cuts)
        assert spans.window(index).tolist() == ids
        assert spans.starts[stretch].tolist() == [0] * before + cuts + [10] * behind
        assert spans.stops[stretch].tolist() == [0] * before + cuts[1:] + [10] + [10] * behind


@given(
    st.lists(st.sets(st.integers(1, 9)), min_size=1, max_size=4),
    st.booleans(),
    st.booleans(),
    st.data(),
)
def test_the_token_of_every_position_and_span(cuts, before, behind, data):
    cuts = [[0, *sorted(window)] for window in cuts]
    spans = spans_of(cuts, first=1 if before else None, last=2 if behind else None)
    for position in range(10):
        expected = [before + sum(cut <= position for cut in window) - 1 for window in cuts]
        assert spans.token_at(position).tolist() == expected
    start = np.array([data.draw(st.integers(0, 9)) for _ in cuts])
    stop = np.array([data.draw(st.integers(first + 1, 10)) for first in start])
    for index, (low, high) in enumerate(spans.overlapping(start, stop)):
        offset = spans.offsets[index]
        tokens = [
            token
            for token in range(spans.lengths[index])
            if any(
                spans.starts[offset + token] <= base < spans.stops[offset + token]
                for base in range(start[index], stop[index])
            )
        ]
        assert tokens == list(range(low, high))


@pytest.mark.parametrize("position", [-1, 10])
def test_positions_outside_the_window_are_refused(position):
    with pytest.raises(LongscaleError, match=f"window 1: position {position} .* from 0 to 9"):
        spans_of(CUTS).token_at(np.array([0, position, 0]))


def test_padding_stands_on_the_right():
    ids, mask = spans_of(CUTS).pad(np.array([1, 0]), 9)
    assert ids.tolist() == [[103, 9, 9], [100, 101, 102]]
    assert mask.tolist() == [[1, 0, 0], [1, 1, 1]]
    assert ids.dtype == mask.dtype == np.int64
