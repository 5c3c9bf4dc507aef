"""What Theorems 4 and 6 say of RePaint+'s sweeps (Rout et al. 2023, Section 3.2), for the tests to hold them to.

Images are rows (N, d).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from priorpaint import UsageError
from priorpaint.lab.theory import LinearModel


def after_sweeps(model: LinearModel, x_0: Tensor, u: Tensor, rounds: int) -> Tensor:
    """Theorem 4: u_R = x_0 + (P D)^R (u_0 - x_0)."""
    power: Tensor = torch.linalg.matrix_power(model.P @ model.D, rounds)
    return x_0 + (u - x_0) @ power.mT


def contraction(rho: float, rounds: int, *, on_manifold: bool = True) -> float:
    """||(P D)^R||: rho^R for a start on the manifold, rho^(R - 1/2) for any start (R >= 1)."""
    return rho**rounds if on_manifold else rho ** (rounds - 0.5)


def limit_error(model: LinearModel, x_0: Tensor, u: Tensor) -> Tensor:
    """What is left of the error of u_0 (N, d) after infinitely many rounds: its invisible part; 0 where rho < 1."""
    return (u - x_0) @ model.invisible


# -- a generator that is not exact -------------------------------------------------------------------------------------


def noisy_rate(model: LinearModel, delta: Tensor) -> float:
    """Assumption 5: lambda = ||(P + Delta) D||, to be < 1, for a generator P + Delta (after renormalisation)."""
    return float(torch.linalg.matrix_norm((model.P + delta) @ model.D, 2))


def noisy_limit(model: LinearModel, delta: Tensor, x_0: Tensor) -> Tensor:
    """The error for R -> infinity: (I - (P + Delta) D)^-1 Delta x_0, (N, d)."""
    system = torch.eye(model.d, dtype=torch.float64) - (model.P + delta) @ model.D
    error: Tensor = torch.linalg.solve(system, delta @ x_0.mT)
    return error.mT


def noisy_bound(model: LinearModel, delta: Tensor, x_0: Tensor, start: Tensor, rounds: float = math.inf) -> Tensor:
    """Theorem 6: lambda^R ||start - x_0|| + (1 - lambda^R) / (1 - lambda) ||Delta|| ||x_0||, (N,).

    Raises:
        UsageError: Assumption 5 does not hold.
    """
    rate = noisy_rate(model, delta)
    if rate >= 1:
        raise UsageError(f"Theorem 6 needs ||(P + Delta) D|| < 1, and it is {rate:.4g}; take a smaller Delta")
    left = 0.0 if rounds == math.inf else rate**rounds
    start_error: Tensor = (start - x_0).norm(dim=1)
    size: Tensor = x_0.norm(dim=1)
    return left * start_error + (1 - left) / (1 - rate) * float(torch.linalg.matrix_norm(delta, 2)) * size


def tolerable_error(model: LinearModel, delta: Tensor, tolerance: float, size: float) -> float:
    """Corollary 7: ||Delta|| <= tolerance (1 - lambda) / C leaves an error <= tolerance where ||x_0|| <= C = size."""
    return tolerance * (1 - noisy_rate(model, delta)) / size
