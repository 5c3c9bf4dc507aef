"""Weighted particles: effective size, systematic resampling, evidence.

Log-weights have the shape (G, K, S): G groups of K particles, whose weight is made of S sites that may be resampled
separately; S = 1 is ordinary resampling. All of it is float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def effective_share(log_weights: Tensor) -> Tensor:
    """ESS / K = (sum w)^2 / (K sum w^2) over the particles, (G, S) in [1/K, 1]."""
    log_ess = 2 * torch.logsumexp(log_weights, 1) - torch.logsumexp(2 * log_weights, 1)
    return log_ess.exp() / log_weights.shape[1]


def log_mean(log_weights: Tensor, dim: int = 1) -> Tensor:
    """log of the mean weight over the particles: (G, K, S) -> (G, S)."""
    return torch.logsumexp(log_weights, dim) - math.log(log_weights.shape[dim])


def systematic(log_weights: Tensor, u: Tensor, count: int) -> Tensor:
    """Systematic resampling: the particles at the quantiles (u + i) / count of the weights, i = 0 ... count - 1.

    Args:
        log_weights: (G, K, S); each column has at least one finite entry.
        u: (G, S), uniform on (0, 1).
        count: particles to draw.

    Returns:
        Ancestors (G, count, S), ascending along the second axis; particle k occurs floor or ceil of count W_k times.
    """
    cumulative = torch.softmax(log_weights, 1).cumsum(1).mT.contiguous()  # (G, S, K)
    cumulative = cumulative / cumulative[..., -1:]
    i = torch.arange(count, dtype=u.dtype, device=u.device)
    quantiles = ((i + u[..., None]) / count).clamp(max=1 - 1e-15)
    chosen = torch.searchsorted(cumulative, quantiles, right=True)
    return chosen.clamp(max=log_weights.shape[1] - 1).mT


def connected(links: Tensor) -> Tensor:
    """Which nodes are joined by a path: links (G, S, S), bool and symmetric, to (G, S, S) bool with a true diagonal."""
    size = links.shape[-1]
    reach = (links | torch.eye(size, dtype=torch.bool, device=links.device)).double()
    for _ in range(max(1, math.ceil(math.log2(max(size, 2))))):
        reach = ((reach @ reach) > 0).double()
    return reach > 0
