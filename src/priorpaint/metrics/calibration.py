"""Are samples as wrong as they say? Variance over error, central intervals, and ranks of the truth.

If the truth is just another draw of the law of the samples, its rank among n of them is uniform on 0..n (Talts et al.
2018), and the squared error of the mean of n samples is 1 + 1/n times the variance, in expectation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UsageError
from .crps import count_samples


@dataclass(frozen=True)
class Calibration:
    """Sums over values, so that those of several pictures add up.

    Attributes:
        variance: sum of (1 + 1/n) times the unbiased variance over the n samples, in squared units of the values.
        squared_error: sum of the squared differences between the mean of the samples and the truth, in the same units.
        ranks: (n + 1,) float64, how often 0..n samples were below the truth (the rank histogram); a truth that equals
            k samples counts 1 / (k + 1) for each rank that it may have.
    """

    variance: float
    squared_error: float
    ranks: Tensor

    @property
    def ratio(self) -> float:
        """Variance over error: 1 is right for every n, below 1 is too sure, above 1 too wide; nan for 0 over 0."""
        if self.squared_error == 0:
            return float("nan") if self.variance == 0 else float("inf")
        return self.variance / self.squared_error

    def coverage(self, level: float) -> float:
        """How often the central interval of this level holds the truth: ``level`` is right, less is too sure.

        n samples cut the line into n + 1 parts of equal probability. Where an end of the interval lies inside a part,
        the part counts in proportion (the truth's place inside it is unknown), so that the expectation is ``level`` for
        every n; n + 1 well above 2 / (1 - level) shows more of the tails (Czado, Gneiting and Held 2009, Eq. 1).
        """
        parts = len(self.ranks)
        edges = torch.arange(parts + 1, dtype=torch.float64) / parts
        inside = edges.clamp((1 - level) / 2, (1 + level) / 2).diff() * parts
        return float(inside @ self.ranks / self.ranks.sum())

    def __add__(self, other: Calibration) -> Calibration:
        """Of both sets of pictures.

        Raises:
            UsageError: they have different numbers of samples.
        """
        if len(self.ranks) != len(other.ranks):
            raise UsageError("ranks add up only for equal numbers of samples; draw as many of each picture.")
        variance, squared_error = self.variance + other.variance, self.squared_error + other.squared_error
        return Calibration(variance, squared_error, self.ranks + other.ranks)


def calibration(samples: Tensor, truth: Tensor, region: Tensor | None = None) -> Calibration:
    """What the samples of one picture say of themselves, over all its values.

    Args:
        samples: (n, ...), n >= 2.
        truth: (...).
        region: True where values count, of a shape that broadcasts to the truth's; None is everywhere.

    Raises:
        UsageError: fewer than two samples, other shapes, or an empty region.
    """
    n = count_samples(samples, truth)
    if region is not None:
        counts = region.bool().expand_as(truth)
        samples, truth = samples[:, counts], truth[counts]
    if truth.numel() == 0:
        raise UsageError("calibration needs a region with at least one value.")
    x, y = samples.double(), truth.double()
    variance = float(x.var(0, correction=1).sum()) * (1 + 1 / n)
    return Calibration(variance, float((x.mean(0) - y).square().sum()), _rank_histogram(samples, truth))


def ranks(samples: Tensor, truth: Tensor) -> Tensor:
    """Rank of truth (...) among samples (n, ...): how many are smaller, 0 to n."""
    return (samples < truth).sum(0)


def _rank_histogram(samples: Tensor, truth: Tensor) -> Tensor:
    n, low = len(samples), ranks(samples, truth).flatten()
    ties = (samples == truth).sum(0).flatten()
    share = 1 / (ties + 1).double()
    # Each truth adds its share to the ranks low..low + ties: up at the first, down behind the last.
    steps = torch.bincount(low, share, n + 2) - torch.bincount(low + ties + 1, share, n + 2)
    return steps.cumsum(0)[:-1].cpu()
