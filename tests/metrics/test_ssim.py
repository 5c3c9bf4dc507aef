"""SSIM against scikit-image's independent implementation, and its invariants."""

from __future__ import annotations

import pytest
import torch
from skimage.metrics import structural_similarity

from priorpaint.errors import UsageError
from priorpaint.metrics import ssim


def test_agrees_with_scikit_image() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(2, 3, 40, 33, generator=generator) * 2 - 1
    b = (a + 0.3 * torch.randn(a.shape, generator=generator)).clamp(-1, 1)
    expected = [
        structural_similarity(
            p.double().numpy(), q.double().numpy(), data_range=2.0, channel_axis=0,
            gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        )
        for p, q in zip(a, b, strict=True)
    ]  # fmt: skip
    assert ssim(a, b).tolist() == pytest.approx(expected, abs=1e-9)


def test_is_one_for_equal_pictures_and_symmetric() -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = torch.rand(2, 1, 3, 16, 16, generator=generator)
    assert float(ssim(a, a)) == pytest.approx(1.0, abs=1e-12)
    assert float(ssim(a, b)) == pytest.approx(float(ssim(b, a)), abs=1e-12)
    assert float(ssim(a, b)) < 0.5


def test_constant_pictures_have_a_closed_form() -> None:
    """Without variance SSIM is its luminance term (2 m n + C1) / (m^2 + n^2 + C1), C1 = (0.01 peak)^2."""
    a, b = torch.full((1, 1, 16, 16), 0.5), torch.full((1, 1, 16, 16), 0.25)
    c1 = (0.01 * 2) ** 2
    assert float(ssim(a, b)) == pytest.approx((2 * 0.125 + c1) / (0.25 + 0.0625 + c1), abs=1e-9)


def test_smaller_than_the_window_is_refused() -> None:
    with pytest.raises(UsageError):
        ssim(torch.zeros(1, 3, 10, 20), torch.zeros(1, 3, 10, 20))
