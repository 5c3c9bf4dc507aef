"""Statistics of completions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ....metrics.lpips import for_lpips

_CHUNK = 256


def ranks(values: Tensor) -> Tensor:
    """Ranks 0..n-1 of (n,) values, ties sharing their mean rank, float64."""
    _, index, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    mean: Tensor = last - (counts.double() + 1) / 2
    return mean[index]


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's correlation of two (n,) vectors; nan where one of them is constant."""
    x, y = ranks(a.double()), ranks(b.double())
    x, y = x - x.mean(), y - y.mean()
    norm = float(x.norm() * y.norm())
    return float(x @ y) / norm if norm else float("nan")


def total_variation(choices: Tensor, counted: Tensor, truth: Tensor) -> float:
    """Half the sum of |sampled - exact| over the options of a part.

    Args:
        choices: (n,) int64, the option of each completion.
        counted: (n,) bool; completions that are no valid picture count as an option of probability 0.
        truth: (options,), exact probabilities.
    """
    sampled = torch.bincount(choices[counted], minlength=len(truth)).double() / len(choices)
    nothing = 1 - float(counted.double().mean())
    return (float((sampled - truth).abs().sum()) + nothing) / 2


def nan_mean(values: list[float]) -> float:
    """The mean of what is not nan; nan for nothing."""
    numbers = [value for value in values if value == value]
    return sum(numbers) / len(numbers) if numbers else float("nan")


def visible_change(samples: Tensor, x: Tensor, known: Tensor) -> float:
    """Root mean square change of the known pixels, the mean over pictures.

    Args:
        samples: completions (B, n, C, H, W).
        x: truth (B, C, H, W).
        known: (B, 1, H, W), 1 where known.
    """
    change = ((samples - x[:, None]) * known[:, None]).square().sum((1, 2, 3, 4))
    count = samples.shape[1] * samples.shape[2] * known.sum((1, 2, 3)).clamp(min=1)
    return float((change / count).sqrt().mean())


def lpips_to(samples: Tensor, x: Tensor, lpips: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Mean LPIPS between completions (B, n, 1|3, H, W) and truth, in colour and twice enlarged (`for_lpips`)."""
    flat, truth = samples.flatten(0, 1), x[:, None].expand_as(samples).flatten(0, 1)
    distances = [
        lpips(for_lpips(a), for_lpips(b)).double()
        for a, b in zip(torch.split(flat, _CHUNK), torch.split(truth, _CHUNK), strict=True)
    ]
    return float(torch.cat(distances).mean())
