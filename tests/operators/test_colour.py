"""Grey values: the weights, and what colours a grey image can have."""

from __future__ import annotations

import pytest
import torch

from priorpaint import Grayscale, UsageError
from tests.operators.test_registry import noise


def test_weights() -> None:
    """Red, green, blue and grey."""
    colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0.4, 0.4, 0.4]])[:, :, None, None]
    expected = torch.tensor([0.299, 0.587, 0.114, 0.4])
    torch.testing.assert_close(Grayscale()(colours).flatten(), expected)
    assert Grayscale().norm() == pytest.approx((0.299**2 + 0.587**2 + 0.114**2) ** 0.5)


def test_the_pseudo_inverse_has_the_grey_value_and_no_more_colour_than_it_needs() -> None:
    y, other = noise(2, 1, 4, 5), noise(2, 3, 4, 5)
    x = Grayscale().pinv(y)
    torch.testing.assert_close(Grayscale()(x), y)
    rival = Grayscale().project(other, y)
    torch.testing.assert_close(Grayscale()(rival), y)
    assert (x.square().sum(1) <= rival.square().sum(1) + 1e-12).all()


def test_a_filter_may_change_colours_and_not_grey() -> None:
    x = noise(2, 3, 4, 5)
    without = Grayscale().filter(x, lambda s: (s > 0).to(s))
    torch.testing.assert_close(Grayscale()(without), Grayscale()(x))
    torch.testing.assert_close(without, Grayscale().pinv(Grayscale()(x)))


def test_channels_that_do_not_fit() -> None:
    with pytest.raises(UsageError, match="3 channels"):
        Grayscale()(torch.zeros(1, 1, 2, 2))
    with pytest.raises(UsageError, match="1 channel, not 3"):
        Grayscale().image_shape(torch.zeros(1, 3, 2, 2))
