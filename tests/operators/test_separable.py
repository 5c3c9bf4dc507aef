"""Down-sampling and Gaussian blur: known answers, and agreement with torch's own antialiased resizing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from priorpaint import Downsampling, GaussianBlur, UsageError
from tests.operators.test_registry import noise


def mirrored(x: torch.Tensor, margin: int) -> torch.Tensor:
    """The image with its border pixels repeated and then the rest, on all sides."""
    for axis in (2, 3):
        low, high = x.narrow(axis, 0, margin).flip(axis), x.narrow(axis, x.shape[axis] - margin, margin).flip(axis)
        x = torch.cat([low, x, high], axis)
    return x


@pytest.mark.parametrize("kind", ["box", "bicubic"])
@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_a_constant_stays_and_a_ramp_is_sampled_in_the_middle_of_blocks(kind: str, factor: int) -> None:
    operator, sides = Downsampling(factor, kind), (6 * factor, 5 * factor)
    torch.testing.assert_close(operator(torch.full((1, 3, *sides), 0.7)), torch.full((1, 3, 6, 5), 0.7))
    ramp = torch.arange(sides[0], dtype=torch.float64)[:, None].expand(sides)[None, None]
    got = operator(ramp)[0, 0]
    middles = factor * torch.arange(6, dtype=torch.float64) + (factor - 1) / 2
    inner = slice(0, 6) if kind == "box" else slice(2, 4)  # at the border the cubic sees the mirrored ramp
    torch.testing.assert_close(got[inner], middles[inner, None].expand(-1, 5))


def test_box_is_the_mean_of_blocks_and_its_inverse_repeats_pixels() -> None:
    x, operator = noise(2, 3, 8, 12), Downsampling(4, "box")
    torch.testing.assert_close(operator(x), F.avg_pool2d(x, 4))
    y = noise(2, 3, 2, 3)
    torch.testing.assert_close(operator.pinv(y), y.repeat_interleave(4, 2).repeat_interleave(4, 3))


@pytest.mark.parametrize(("factor", "height", "width"), [(2, 16, 12), (3, 12, 18), (4, 16, 32)])
def test_bicubic_is_the_antialiased_one_of_torch_on_a_mirrored_image(factor: int, height: int, width: int) -> None:
    x, margin = noise(2, 3, height, width), 2 * factor
    wide = mirrored(x, margin)
    size = (wide.shape[2] // factor, wide.shape[3] // factor)
    expected = F.interpolate(wide, size, mode="bicubic", antialias=True)[:, :, 2:-2, 2:-2]
    torch.testing.assert_close(Downsampling(factor)(x), expected, rtol=1e-12, atol=1e-12)


def test_bicubic_is_pillows_but_for_the_border() -> None:
    x = noise(1, 1, 24, 36).float()
    small = Image.fromarray(x[0, 0].numpy()).resize((9, 6), Image.Resampling.BICUBIC)
    expected = torch.from_numpy(np.array(small))
    torch.testing.assert_close(Downsampling(4)(x)[0, 0, 2:-2, 2:-2], expected[2:-2, 2:-2], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["box", "bicubic"])
@pytest.mark.parametrize("side", [8, 16, 40])
def test_norm_is_the_same_for_every_size(kind: str, side: int) -> None:
    operator, seen = Downsampling(4, kind), []
    operator.filter(torch.zeros(1, 1, side, 24), lambda s: (seen.append(s), s)[1])
    values = max(seen, key=torch.numel)
    assert float(values.max()) == pytest.approx(operator.norm()) == 0.25
    assert float(values.min()) > 0.4 * operator.norm(), "A^+ would amplify noise"


@pytest.mark.parametrize(("height", "width", "proposed"), [(9, 8, "8 x 8"), (8, 11, "8 x 8"), (3, 8, "4 x 8")])
def test_sides_that_are_no_multiples(height: int, width: int, proposed: str) -> None:
    with pytest.raises(UsageError, match=f"no whole blocks of 4.*{proposed}"):
        Downsampling(4)(torch.zeros(1, 3, height, width))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0,), "factor"), ((2.5,), "factor"), ((-2,), "factor"), ((2, "lanczos"), "'box' or 'bicubic'")],
)
def test_downsampling_that_does_not_exist(arguments: tuple[int, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Downsampling(*arguments)


# -- Gaussian blur -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.3, 1.0, 5.0])
def test_blur_keeps_constants_and_the_mean(sigma: float) -> None:
    """The weights sum to 1, and a mirrored border loses nothing."""
    operator, x = GaussianBlur(sigma), noise(2, 3, 9, 14)
    torch.testing.assert_close(operator(torch.full((1, 1, 9, 14), -0.4)), torch.full((1, 1, 9, 14), -0.4))
    torch.testing.assert_close(operator(x).mean((2, 3)), x.mean((2, 3)))


def test_blur_of_a_point_is_a_gaussian() -> None:
    x = torch.zeros(1, 1, 21, 25, dtype=torch.float64)
    x[..., 10, 12] = 1
    got = GaussianBlur(1.3, rtol=1e-9)(x)[0, 0]
    rows, columns = torch.arange(21.0) - 10, torch.arange(25.0) - 12
    r2 = (rows[:, None] ** 2 + columns**2).double()
    expected = torch.exp(-r2 / (2 * 1.3**2)) / (2 * math.pi * 1.3**2)
    torch.testing.assert_close(got, expected, rtol=0, atol=2e-5)  # the cut at 4 sigma
    assert float(got.sum()) == pytest.approx(1)


def test_the_border_is_mirrored() -> None:
    x = noise(1, 2, 12, 10)
    wide = mirrored(x, 4)
    inner = GaussianBlur(0.9, rtol=1e-9)(wide)[:, :, 4:-4, 4:-4]
    torch.testing.assert_close(GaussianBlur(0.9, rtol=1e-9)(x), inner, rtol=0, atol=1e-8)


def test_blurs_add_up() -> None:
    """Variances of Gaussians add."""
    x = noise(1, 1, 32, 32)
    twice = GaussianBlur(1.5, rtol=1e-6)(GaussianBlur(2.0, rtol=1e-6)(x))
    torch.testing.assert_close(twice, GaussianBlur(2.5, rtol=1e-6)(x), rtol=0, atol=1e-3)


@pytest.mark.parametrize("rtol", [1e-1, 1e-2, 1e-3])
def test_small_singular_values_are_gone_and_noise_grows_by_at_most_their_inverse(rtol: float) -> None:
    exact, cut = GaussianBlur(2.0, rtol=1e-9), GaussianBlur(2.0, rtol=rtol)
    x = noise(1, 1, 24, 24)
    seen: list[torch.Tensor] = []
    cut.filter(x, lambda s: (seen.append(s), s)[1])
    values = max(seen, key=torch.numel)
    assert 0 < int((values == 0).sum()) < values.numel() - 1
    assert float(values[values > 0].min()) >= rtol
    assert 0 < float((cut(x) - exact(x)).norm()) <= rtol * float(x.norm())
    assert float(cut.pinv(x).norm()) <= float(x.norm()) / rtol


@pytest.mark.parametrize("sigma", [0, -1.0, math.nan, math.inf])
def test_blurs_that_do_not_exist(sigma: float) -> None:
    with pytest.raises(UsageError, match="sigma is the width"):
        GaussianBlur(sigma)


@pytest.mark.parametrize("rtol", [0, 1, -1e-3, math.nan])
def test_thresholds_that_make_no_sense(rtol: float) -> None:
    with pytest.raises(UsageError, match="rtol"):
        GaussianBlur(1.0, rtol=rtol)
