"""Peak signal-to-noise ratio, on a whole picture or inside a region."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import UsageError


def psnr(a: Tensor, b: Tensor, region: Tensor | None = None, peak: float = 2.0) -> Tensor:
    """10 log10(peak^2 / mean squared difference), one number a picture, in dB.

    Args:
        a, b: pictures (B, C, H, W).
        region: (1|B, 1|C, H, W), True where pixels count; None is everywhere. For the hidden part of an inpainting
            problem pass ``~known``.
        peak: width of the value range: 2 for [-1, 1], 1 for [0, 1], 255 for bytes.

    Returns:
        (B,) float64; infinite where the pictures agree exactly.

    Raises:
        UsageError: shapes differ, or a region is empty.
    """
    if a.ndim != 4 or a.shape != b.shape:
        raise UsageError(f"psnr compares batches (B, C, H, W) of one shape, not {tuple(a.shape)} and {tuple(b.shape)}")
    error = (a.double() - b.double()).square()
    if region is None:
        mse = error.mean(dim=(1, 2, 3))
    else:
        counts = region.bool().expand_as(error)
        size = counts.sum(dim=(1, 2, 3))
        if bool((size == 0).any()):
            raise UsageError("psnr needs a region with at least one pixel in every picture")
        mse = torch.where(counts, error, 0).sum(dim=(1, 2, 3)) / size
    return 10 * torch.log10(peak**2 / mse)
