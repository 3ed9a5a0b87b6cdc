"""ALiBi: slopes against the published lists, the strided view against the obvious matrix."""

import pytest
import torch

from longscale.attention.alibi import alibi_band, alibi_slopes, hankel_view


def published_slopes(heads):
    """The recursion of the ALiBi authors' code (get_slopes)."""
    if heads & (heads - 1) == 0:
        start = 2 ** (-8 / heads)
        return [start ** (i + 1) for i in range(heads)]
    lower = 2 ** (heads.bit_length() - 1)
    return published_slopes(lower) + published_slopes(2 * lower)[0::2][: heads - lower]


@pytest.mark.parametrize("heads", range(1, 65))
def test_slopes_equal_the_authors_recursion(heads):
    assert alibi_slopes(heads).tolist() == pytest.approx(published_slopes(heads), rel=1e-6)


def test_slopes_of_dnabert2():
    exponents = [-1, -2, -3, -4, -5, -6, -7, -8, -0.5, -1.5, -2.5, -3.5]
    torch.testing.assert_close(alibi_slopes(12), torch.tensor([2**e for e in exponents]))


@pytest.mark.parametrize("n", [1, 2, 7, 40])
@pytest.mark.parametrize("longest", [40, 41])
def test_view_with_reversed_keys_is_minus_slope_times_distance(n, longest):
    slopes = alibi_slopes(3)
    view = hankel_view(alibi_band(slopes, longest)[None], n)
    distance = (torch.arange(n)[:, None] - torch.arange(n)).abs()
    torch.testing.assert_close(view.flip(-1)[0], -slopes[:, None, None] * distance)


def test_view_of_a_slice_of_bands_shows_that_slice():
    bands = torch.stack([alibi_band(alibi_slopes(2), 9) * factor for factor in (1, 2, 3)])
    view = hankel_view(bands[1:], 4)
    torch.testing.assert_close(view[1], hankel_view(bands[2:].clone(), 4)[0])
    torch.testing.assert_close(view[0] * 3, view[1] * 2)


def test_view_takes_no_memory():
    band = alibi_band(alibi_slopes(4), 4096)[None]
    view = hankel_view(band, 4096)
    assert view.data_ptr() == band.data_ptr()
    assert view.untyped_storage().nbytes() == 4 * 4 * (2 * 4096 - 1)
