"""Distances between samples and an exact law, each a plain function of tensors.

Samples are (n, d) float64. The squared sliced Wasserstein distance of n exact samples is not 0 but of the order 1 / n;
the root of that value is the *floor*, and what a method adds to it is its error.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...errors import UsageError
from ...metrics.kid import squared_mmd

DIRECTIONS = 256


def directions(d: int, count: int = DIRECTIONS, seed: int = 0) -> Tensor:
    """``count`` fixed directions, uniform on the sphere, as unit columns (d, count) float64."""
    generator = torch.Generator().manual_seed(seed)
    columns = torch.randn(d, count, generator=generator, dtype=torch.float64)
    unit: Tensor = columns / columns.norm(dim=0)
    return unit


def transport(a: Tensor, b: Tensor) -> Tensor:
    """Squared Wasserstein-2 distances (q,) between the columns of a (n, q) and b (m, q), each column sorted.

    On the line the optimal coupling is monotone, so the distance is the integral of the squared difference of the two
    quantile functions, which are steps at i / n and j / m; exact for any n and m.
    """
    n, m = len(a), len(b)
    if m % n == 0:  # each point of a meets a block of b; two passes over b instead of several over copies of it
        blocks = b.reshape(n, m // n, -1)
        near = (a - blocks.mean(1)).square() + blocks.var(1, correction=0)
        return near.mean(0)
    ends = torch.unique(torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]))
    starts = torch.cat([torch.zeros(1, dtype=ends.dtype), ends[:-1]])
    width = (ends - starts).double() / (n * m)
    squares: Tensor = width @ (a[starts // m] - b[starts // n]).square()
    return squares


class Sliced:
    """Sliced Wasserstein-2 distance to fixed samples, which are projected and sorted once.

    Args:
        exact: (N, d) samples of the law; many more than will be compared with it.
        columns: directions (d, q); None is 256 fixed ones.
    """

    def __init__(self, exact: Tensor, columns: Tensor | None = None) -> None:
        self.columns = directions(exact.shape[1]) if columns is None else columns
        self._sorted = _projected(exact, self.columns).float()  # 8 MB for the usual 8192 samples and 256 directions

    def __call__(self, x: Tensor) -> float:
        """sqrt(mean over directions of W2^2) for x (n, d)."""
        return math.sqrt(float(transport(_projected(x, self.columns), self._sorted).mean()))


def _projected(x: Tensor, columns: Tensor) -> Tensor:
    return (x.double() @ columns).sort(0).values


def energy_distance(x: Tensor, z: Tensor) -> float:
    """2 E|X - Z| - E|X - X'| - E|Z - Z'| without bias, so that it can fall below 0 by chance; x (n, d), z (m, d)."""
    return squared_mmd(lambda a, b: -torch.cdist(a, b), x, z)


def total_variation(p: Tensor, q: Tensor) -> float:
    """Half the sum of absolute differences of two weight vectors (K,)."""
    return 0.5 * float((p - q).abs().sum())


def mean_error(x: Tensor, mean: Tensor, cov: Tensor) -> float:
    """Distance of the mean of x (n, d) from the exact mean (d,), in units of sqrt(trace of the exact covariance)."""
    return float((x.mean(0) - mean).norm()) / _total_std(cov)


def std_ratio(x: Tensor, cov: Tensor) -> float:
    """sqrt(trace Cov[x] / trace of the exact covariance): below 1 is over-confident, above 1 too wide."""
    return math.sqrt(float(x.var(0, correction=1).sum())) / _total_std(cov)


def _total_std(cov: Tensor) -> float:
    total_std = math.sqrt(float(cov.trace()))
    if total_std == 0:
        raise UsageError("the posterior is a single point; moments relative to its width do not exist")
    return total_std
