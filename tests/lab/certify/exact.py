"""Solvers for tests: one that draws from the exact posterior, and some that do something known to be wrong."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from priorpaint.operators import LinearOperator
from priorpaint.priors.analytic import GaussianMixture
from priorpaint.priors.wrapped import NormalisedPrior
from priorpaint.solvers.base import Cost, Solver, Task


class Exact(Solver):
    """Exact samples of the posterior, their distance from the exact mean multiplied by ``stretch``."""

    title: ClassVar[str] = "exact"
    reference: ClassVar[str] = "none"
    needs: ClassVar[frozenset[str]] = frozenset()
    about: ClassVar[str] = "For tests."
    cost_formula: ClassVar[str] = "nothing"

    def __init__(self, stretch: float = 1.0) -> None:
        self.stretch = stretch

    def cost(self, num_samples: int = 1) -> Cost:
        return Cost(0, 0)

    def _steps(self) -> int:
        return 1

    def _run(self, task: Task) -> Tensor:
        prior = task.prior.inner if isinstance(task.prior, NormalisedPrior) else task.prior
        assert isinstance(prior, GaussianMixture) and isinstance(task.operator, LinearOperator)
        out = torch.empty(len(task.y), *task.shape)
        places: dict[bytes, list[int]] = {}
        for row, y in enumerate(task.y):
            places.setdefault(y.numpy().tobytes(), []).append(row)
        for rows in places.values():
            posterior = prior.posterior(task.operator, task.y[rows[:1]], task.sigma_y)
            x = posterior.sample(len(rows), seed=task.noise.seeds[rows[0]])
            out[rows] = (posterior.mean + self.stretch * (x - posterior.mean)).float()
        task.report(1, out)
        return out


class Broken(Exact):
    """Raises, or returns NaN where ``stretch`` is NaN."""

    title: ClassVar[str] = "broken"

    def _run(self, task: Task) -> Tensor:
        if self.stretch != self.stretch:
            return torch.full((len(task.y), *task.shape), float("nan"))
        raise RuntimeError("out of\ncards")
