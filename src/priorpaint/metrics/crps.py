"""Proper scores of samples against the truth: the continuous ranked probability score, and the energy score of patches.

Gneiting and Raftery 2007 ("Strictly Proper Scoring Rules, Prediction, and Estimation", Eq. 21 and 22); the *fair*
estimates of Ferro 2014 ("Fair scores for ensemble forecasts"): with n samples of a law, their expectation is the score
of the law itself, whatever n is. Both are smallest, in expectation, for samples of the law that the truth comes from,
so neither a blurred answer nor one that is too sure of itself can win, as it can by PSNR.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UsageError


def fair_crps(samples: Tensor, truth: Tensor) -> Tensor:
    """E|X - y| - E|X - X'| / 2 of each value, over all pairs of different samples.

    Args:
        samples: (n, ...), n >= 2.
        truth: (...), one value for each of a sample.

    Returns:
        (...) float64, in units of the values. Single ones can fall below 0 by chance; average them.

    Raises:
        UsageError: fewer than two samples, or other shapes.
    """
    n = count_samples(samples, truth)
    ordered = samples.double().sort(0).values
    # The sum of x_(j) - x_(i) over i < j holds the k-th smallest of n values 2 k - n - 1 times.
    times = torch.arange(1 - n, n, 2, dtype=torch.float64, device=samples.device)
    half_spread = torch.tensordot(times, ordered, dims=1) / (n * (n - 1))
    scores: Tensor = (ordered - truth.double()).abs().mean(0) - half_spread
    return scores


def fair_energy_score(samples: Tensor, truth: Tensor, region: Tensor | None = None, *, patch: int = 8) -> Tensor:
    """E|X - y| - E|X - X'| / 2 of patches, with the root mean square over the values of a patch as the norm.

    It judges what single values cannot show, how the values of a patch depend on each other. Patches do not overlap and
    start at the upper left corner; those at the right and the lower border may be cut.

    Args:
        samples: (n, C, H, W), n >= 2.
        truth: (C, H, W).
        region: (1|C, H, W), True where values count; None is everywhere. A patch without such values has no score.
        patch: the side of a patch, in pixels.

    Returns:
        (patches,) float64, in units of the values, so that patches of one value have the CRPS.

    Raises:
        UsageError: fewer than two samples, or other shapes.
    """
    n = count_samples(samples, truth)
    counts = torch.ones_like(truth, dtype=torch.bool) if region is None else region.bool().expand_as(truth)
    sizes = _patches(counts[None].double(), patch)[:, 0].sum(1)  # (L,)
    x = _patches(torch.where(counts, samples.double(), 0), patch)[sizes > 0]  # (L, n, D)
    y = _patches(torch.where(counts, truth.double(), 0)[None], patch)[sizes > 0]
    error = (x - y).norm(dim=2).mean(1)
    spread = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").sum((1, 2)) / (n * (n - 1))
    scores: Tensor = (error - spread / 2) / sizes[sizes > 0].sqrt()
    return scores


def count_samples(samples: Tensor, truth: Tensor) -> int:
    """The number n of samples (n, ...) of a truth (...).

    Raises:
        UsageError: fewer than two, or other shapes.
    """
    if samples.shape[1:] != truth.shape or samples.ndim == 0:
        raise UsageError(f"samples (n, ...) are scored against a truth of their own shape, not {tuple(truth.shape)}.")
    if len(samples) < 2:
        raise UsageError("samples are scored as a law from two on; draw at least two of each picture.")
    return len(samples)


def _patches(x: Tensor, side: int) -> Tensor:
    """(L, B, C side^2) of pictures (B, C, H, W), with zeros beyond the border."""
    height, width = x.shape[2:]
    padded = F.pad(x, (0, -width % side, 0, -height % side))
    return F.unfold(padded, side, stride=side).permute(2, 0, 1)
