"""Statistics of completions against an exact posterior."""

from __future__ import annotations

import torch
from torch import Tensor


def ranks(values: Tensor) -> Tensor:
    """Ranks 0..n-1 of (n,) values, ties sharing their mean rank, float64."""
    _, place, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    mean: Tensor = last - (counts.double() + 1) / 2
    return mean[place]


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
    found = torch.bincount(choices[counted], minlength=len(truth)).double() / len(choices)
    nothing = 1 - float(counted.double().mean())
    return (float((found - truth).abs().sum()) + nothing) / 2


def nan_mean(values: list[float]) -> float:
    """The mean of what is not nan; nan for nothing."""
    kept = [value for value in values if value == value]
    return sum(kept) / len(kept) if kept else float("nan")
