"""Structural similarity (Wang, Bovik, Sheikh, Simoncelli 2004)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UsageError

_SIDE = 11
_SIGMA = 1.5


def ssim(a: Tensor, b: Tensor, peak: float = 2.0) -> Tensor:
    """Mean SSIM with the paper's 11x11 Gaussian window (sigma 1.5), K1 = 0.01 and K2 = 0.03; 1 for equal pictures.

    The window only visits places where it lies inside the picture; channels are averaged.

    Args:
        a, b: pictures (B, C, H, W), height and width at least 11.
        peak: width of the value range: 2 for [-1, 1], 1 for [0, 1], 255 for bytes.

    Returns:
        (B,) float64 in [-1, 1].

    Raises:
        UsageError: shapes differ, or a picture is smaller than the window.
    """
    if a.ndim != 4 or a.shape != b.shape:
        raise UsageError(f"ssim compares batches (B, C, H, W) of one shape, not {tuple(a.shape)} and {tuple(b.shape)}")
    if min(a.shape[2:]) < _SIDE:
        raise UsageError(f"ssim needs pictures of at least {_SIDE} x {_SIDE} pixels, not {a.shape[2]} x {a.shape[3]}")
    a, b = a.double(), b.double()
    mean_a, mean_b = _blur(a), _blur(b)
    var_a, var_b = _blur(a * a) - mean_a**2, _blur(b * b) - mean_b**2
    cov = _blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    value = (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return value.mean(dim=(1, 2, 3))


def _blur(x: Tensor) -> Tensor:
    offsets = torch.arange(_SIDE, dtype=x.dtype, device=x.device) - _SIDE // 2
    window = torch.exp(-0.5 * (offsets / _SIGMA) ** 2)
    window = (window / window.sum()).expand(x.shape[1], 1, 1, _SIDE)
    rows = F.conv2d(x, window, groups=x.shape[1])
    return F.conv2d(rows, window.transpose(2, 3), groups=x.shape[1])
