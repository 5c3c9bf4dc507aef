"""PSNR has a closed form for a constant difference and for a region."""

from __future__ import annotations

import math

import pytest
import torch

from priorpaint.errors import UsageError
from priorpaint.metrics import psnr


def test_constant_difference() -> None:
    a = torch.zeros(2, 3, 8, 6)
    b = torch.stack([torch.full((3, 8, 6), 0.2), torch.full((3, 8, 6), -0.02)])
    assert psnr(a, b).tolist() == pytest.approx([20.0, 40.0], abs=1e-5)
    assert psnr(a, b, peak=1.0).tolist() == pytest.approx([20 - 20 * math.log10(2), 40 - 20 * math.log10(2)], abs=1e-5)


def test_only_the_region_counts() -> None:
    a, b = torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.2)
    b[..., 2:] = 100.0
    region = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    region[..., :2] = True
    assert float(psnr(a, b, region)) == pytest.approx(20.0, abs=1e-5)


def test_values_off_the_region_may_be_anything() -> None:
    a, b = torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 0.2)
    b[..., 0] = float("nan")
    region = torch.ones(1, 1, 4, 4)
    region[..., 0] = 0
    assert float(psnr(a, b, region)) == pytest.approx(20.0, abs=1e-5)


def test_equal_pictures_are_infinitely_close() -> None:
    a = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert float(psnr(a, a)) == math.inf


def test_noise_of_known_size() -> None:
    """E[mse] = sigma^2 with relative deviation sqrt(2 / n); five of them are 0.03 dB at n = 3 * 256^2."""
    noise = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    tolerance = 10 * math.log10(1 + 5 * math.sqrt(2 / noise.numel()))
    assert float(psnr(0.1 * noise, torch.zeros_like(noise))) == pytest.approx(20 * math.log10(2 / 0.1), abs=tolerance)


@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (3, 4, 4)])
def test_shapes_must_agree(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError):
        psnr(torch.zeros(1, 3, 4, 4), torch.zeros(shape))


def test_an_empty_region_is_refused() -> None:
    with pytest.raises(UsageError):
        psnr(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4), torch.zeros(1, 1, 4, 4))
