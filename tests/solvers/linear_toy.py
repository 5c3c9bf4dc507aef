"""Chains that are affine for a Gaussian prior, written down again in numpy, and problems for methods with linear A.

Levels as in ``toy``: 1000 betas from 1e-4 to 0.02, respaced to N. All chains start from N(0, I), or as their rule says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
import torch
from torch import Tensor

from priorpaint import Inpainting
from priorpaint.diffusion.rng import Streams
from priorpaint.operators import LinearOperator, MatrixOperator
from priorpaint.priors.analytic import Gaussian
from priorpaint.solvers import Solver, base
from priorpaint.solvers.base import Task
from tests.solvers.toy import levels

Affine = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Level:
    """One step of a VP chain from abar = a_t to a_s with the denoiser D = J x_t and eps = E x_t."""

    a_t: float
    a_s: float
    cov: np.ndarray

    @cached_property
    def denoise(self) -> np.ndarray:
        eye = np.eye(len(self.cov))
        return np.sqrt(self.a_t) * self.cov @ np.linalg.inv(self.a_t * self.cov + (1 - self.a_t) * eye)

    @cached_property
    def eps(self) -> np.ndarray:
        return (np.eye(len(self.cov)) - np.sqrt(self.a_t) * self.denoise) / np.sqrt(1 - self.a_t)

    @property
    def ratio(self) -> float:
        """sigma_s / alpha_s."""
        return float(np.sqrt((1 - self.a_s) / self.a_s))


Rule = Callable[[Level], Affine]


def chain(cov: np.ndarray, steps: int, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance at the end when x_s = M x_t + c + N(0, Q), with (M, c, Q) = rule(level)."""
    abar = levels(steps)
    mean, var = np.zeros(len(cov)), np.eye(len(cov))
    for k in range(steps, 0, -1):
        move, shift, noise = rule(Level(abar[k], abar[k - 1], cov))
        mean, var = move @ mean + shift, move @ var @ move.T + noise
    return mean, var


def reported_law(
    got_mean: float, got_var: float, want_mean: float, want_var: float, samples: int = 4000, deviations: float = 3
) -> None:
    """An exact law against a mean and variance reported from at least so many samples, to three digits."""
    together = deviations / np.sqrt(samples)
    assert got_mean == pytest.approx(want_mean, abs=together * np.sqrt(want_var) + 1e-3)
    assert got_var == pytest.approx(want_var, abs=together * np.sqrt(2) * want_var + 1e-3)


class Silence(Streams):
    """All random numbers are 0: an affine sampler then returns its mean."""

    def __init__(self, rows: int) -> None:
        self.rows, self.device = rows, torch.device("cpu")

    def __len__(self) -> int:
        return self.rows

    def normal(self, *shape: int) -> Tensor:
        return torch.zeros(self.rows, *shape)


def mean_of(
    monkeypatch: pytest.MonkeyPatch, run: Solver, prior: Gaussian, operator: LinearOperator, y: Tensor
) -> Tensor:
    """Exact means (B, d) of the laws that an affine solver samples for y (B, ...)."""
    with monkeypatch.context() as patch:
        patch.setattr(base.Streams, "for_samples", lambda seeds, samples, device="cpu": Silence(len(samples)))
        return run.sample(prior, operator, y)[:, 0].flatten(1).double()


def ar1(dim: int = 64, rho: float = 0.9) -> tuple[Gaussian, Inpainting, np.ndarray, np.ndarray]:
    """A Gaussian AR(1) signal with its middle half missing: prior, operator, covariance, mask (1 = known)."""
    index = np.arange(dim)
    cov = rho ** np.abs(index[:, None] - index)
    known = np.ones(dim)
    known[dim // 4 : 3 * dim // 4] = 0
    return Gaussian(torch.zeros(dim), torch.from_numpy(cov)), Inpainting(torch.from_numpy(known)[None]), cov, known


def dense(seed: int = 0) -> tuple[MatrixOperator, np.ndarray, np.ndarray]:
    """A 3 x 4 operator with singular values 2, 0.5 and 0 (one direction of A and one more are not seen); S and V."""
    generator = np.random.default_rng(seed)
    u, _ = np.linalg.qr(generator.normal(size=(3, 3)))
    v, _ = np.linalg.qr(generator.normal(size=(4, 4)))
    singular = np.array([2.0, 0.5, 0.0])
    return MatrixOperator(torch.from_numpy(u * singular @ v[:, :3].T)), np.array([2.0, 0.5, 0.0, 0.0]), v


def task_of(prior: Gaussian, operator: LinearOperator, y: Tensor, noise: Streams, sigma_y: float = 0.0) -> Task:
    """A task of len(y) rows that reports to nobody."""
    return Task(prior, operator, y, sigma_y, noise, prior.shape, lambda step, x_0: None)  # type: ignore[arg-type]


def coloured(update: Callable[[Tensor, Tensor, Tensor], Tensor], dim: int, parts: int) -> np.ndarray:
    """Covariance of ``update`` of ``parts`` independent standard normal vectors (N, 1, 1, dim), which is affine."""
    rows = parts * dim + 1
    inputs = torch.zeros(rows, parts, dim, dtype=torch.float64)
    inputs[1:] = torch.eye(parts * dim, dtype=torch.float64).reshape(-1, parts, dim)
    out = update(*(inputs[:, k].reshape(rows, 1, 1, dim) for k in range(parts))).flatten(1)
    columns = (out[1:] - out[0]).numpy()
    cov: np.ndarray = columns.T @ columns
    return cov
