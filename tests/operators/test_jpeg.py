"""JPEG: against Pillow's encoder and decoder, its tables, and what its gradient is."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from priorpaint import JPEG, UsageError
from priorpaint.operators.jpeg import quantisation_tables


def picture(height: int = 61, width: int = 83) -> torch.Tensor:
    """Soft colours, edges and a little grain in 8 bits, (1, 3, H, W) in [-1, 1]; no side is a multiple of 8."""
    rows, columns = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    soft = torch.stack([torch.sin(5 * rows + columns), torch.cos(4 * columns * rows), rows - columns])
    edges = 0.6 * (((rows - 0.4) ** 2 + (columns - 0.6) ** 2) < 0.06) * torch.tensor([1.0, -0.5, 0.3])[:, None, None]
    texture = 0.03 * torch.randn(3, height, width, generator=torch.Generator().manual_seed(0))
    levels = ((0.6 * soft + edges + texture).clamp(-1, 1) * 127.5 + 127.5).round()
    return (levels / 127.5 - 1)[None]


def pillow(x: torch.Tensor, **options: Any) -> torch.Tensor:
    """The image after Pillow has saved it as JPEG and loaded it again."""
    levels = (x[0] * 127.5 + 127.5).round().to(torch.uint8).movedim(0, 2).numpy()
    stream = io.BytesIO()
    Image.fromarray(levels.squeeze()).save(stream, "JPEG", **options)
    loaded = np.array(Image.open(stream), dtype=np.float32)
    return torch.from_numpy(loaded.reshape(levels.shape)).movedim(2, 0)[None] / 127.5 - 1


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return 10 * math.log10(4 / float((a - b).square().mean()))


@pytest.mark.parametrize("quality", [5, 25, 50, 75, 95])
@pytest.mark.parametrize(("subsampling", "code"), [("4:2:0", 2), ("4:4:4", 0)])
def test_it_does_what_libjpeg_does(quality: int, subsampling: Any, code: int) -> None:
    """The same loss (PSNR within 0.2 dB), and nearly the same picture: the rest is libjpeg's rounding of pixels."""
    x = picture()
    ours, theirs = JPEG(quality, subsampling)(x), pillow(x, quality=quality, subsampling=code)
    assert psnr(ours, x) == pytest.approx(psnr(theirs, x), abs=0.2)
    assert psnr(ours, theirs) > psnr(ours, x) + 5


@pytest.mark.parametrize("quality", [10, 80])
def test_grey_images(quality: int) -> None:
    x = picture()[:, :1]
    ours, theirs = JPEG(quality)(x), pillow(x, quality=quality)
    assert psnr(ours, x) == pytest.approx(psnr(theirs, x), abs=0.05)
    assert psnr(ours, theirs) > 45


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 51, 90, 100])
def test_tables_are_those_that_pillow_writes(quality: int) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG", quality=quality)
    written = Image.open(stream).quantization  # type: ignore[attr-defined]
    luminance, chrominance = quantisation_tables(quality)
    assert luminance.flatten().tolist() == list(written[0]) and chrominance.flatten().tolist() == list(written[1])


def test_more_quality_means_less_loss() -> None:
    x = picture()
    losses = [psnr(JPEG(quality)(x), x) for quality in (1, 5, 20, 50, 80, 95)]
    assert losses == sorted(losses) and losses[-1] > losses[0] + 10


def test_a_second_time_changes_nothing_where_nothing_is_clipped() -> None:
    """Grey images in the middle of the range: the coefficients already are whole steps."""
    x, operator = 0.4 * picture()[:, :1, :56, :80], JPEG(30)
    once = operator(x)
    assert float((once - x).abs().max()) > 0.05
    torch.testing.assert_close(operator(once), once, rtol=0, atol=1e-5)


def test_values_stay_in_range() -> None:
    checks = (torch.arange(24) % 2).float().mul(2).sub(1).expand(1, 3, 24, 24)
    y = JPEG(10)(checks)
    assert float(y.min()) >= -1 and float(y.max()) <= 1


def test_straight_through_gradient_is_that_of_the_identity() -> None:
    """Without chroma subsampling everything but the rounding is an orthogonal change of basis and its inverse."""
    x = picture(16, 24).double().requires_grad_()
    weights = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((JPEG(20, "4:4:4")(x) * weights).sum(), x)
    torch.testing.assert_close(gradient, weights)


def test_subsampled_chroma_passes_smooth_gradients() -> None:
    """In luma the gradient is the identity; chroma is averaged."""
    x = picture(16, 16).double().requires_grad_()
    grey = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)[None, :, None, None]
    weights = torch.randn(1, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad(((JPEG(20)(x) * grey).sum(1, keepdim=True) * weights).sum(), x)
    torch.testing.assert_close(gradient, grey * weights)


def test_cubic_rounding_has_the_gradient_of_its_value() -> None:
    """The surrogate is smooth between the half-integers; finite differences agree."""
    operator = JPEG(60, "4:4:4", "cubic")
    x = 0.5 * picture(8, 8).double()
    direction = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    _, slope = torch.autograd.functional.jvp(operator, x, direction)
    step = 1e-6
    numeric = (operator(x + step * direction) - operator(x - step * direction)) / (2 * step)
    torch.testing.assert_close(slope, numeric, rtol=1e-5, atol=1e-6)


def test_cubic_rounding_stays_near() -> None:
    """Each coefficient moves by at most an eighth of its step."""
    x = 0.4 * picture()[:, :1, :56, :80]
    rough, smooth = JPEG(30)(x), JPEG(30, rounding="cubic")(x)
    largest = float(quantisation_tables(30)[0].square().mean().sqrt()) / 8 / 127.5
    assert 0 < float((rough - smooth).square().mean().sqrt()) < largest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "quality"),
        ((101,), "quality"),
        ((50.5,), "quality"),
        ((50, "4:2:2"), "'4:2:0' or '4:4:4'"),
        ((50, "4:2:0", "sine"), "'straight_through' or 'cubic'"),
    ],
)
def test_settings_that_do_not_exist(arguments: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        JPEG(*arguments)


def test_channels_that_do_not_fit() -> None:
    for use in (JPEG(), JPEG().image_shape):
        with pytest.raises(UsageError, match="1 or 3 channels, not 2"):
            use(torch.zeros(1, 2, 8, 8))
