"""A first guess of what a hole holds."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def smooth_fill(pictures: Tensor, known: Tensor) -> Tensor:
    """Known pixels as they are, and between them smooth values made of these: a pyramid of their means.

    The push-pull of Gortler et al. 1996, "The Lumigraph", Section 3.4.3, with means of 2x2 blocks.

    Args:
        pictures: (N, C, H, W); what is hidden is never looked at.
        known: bool (H, W), somewhere true.

    Returns:
        (N, C, H, W).
    """
    weight = known[None, None].to(pictures.dtype)
    levels = [(torch.where(known, pictures, 0), weight)]
    while not bool(levels[-1][1].all()):
        mean, weight = levels[-1]
        pad = (0, mean.shape[3] % 2, 0, mean.shape[2] % 2)
        share = F.avg_pool2d(F.pad(weight, pad), 2)
        total = F.avg_pool2d(F.pad(weight * mean, pad), 2)
        levels.append((total / share.clamp(min=0.25), (share > 0).to(mean.dtype)))
    out = levels[-1][0]
    for mean, weight in reversed(levels[:-1]):
        out = F.interpolate(out, size=mean.shape[2:], mode="bilinear", align_corners=False)
        out = torch.where(weight > 0, mean, out)
    return out
