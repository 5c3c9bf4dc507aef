"""Pseudo-inverse guided diffusion: p(x_0 | x_t) is taken as N(D(x_t, t), r_t^2 I).

Song, Vahdat, Mardani, Kautz 2023, "Pseudoinverse-Guided Diffusion Models for Inverse Problems", Sections 3.1 to 3.3.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..diffusion.rng import Streams
from ..diffusion.transitions import like, row_sum
from ..operators.base import LinearOperator, Operator
from ..priors.base import Denoising, Prior
from .base import STRICT, Cost, Field, Problem, settings
from .guidance import LikelihoodSolver, MovingSolver
from .likelihoods import Denoised, Evaluation, Likelihood, Spectrum, gaussian_log_density, white_variance


@settings(frozen=True, config=STRICT)
class PiGDM(MovingSolver, LikelihoodSolver, name="pigdm"):
    """Guidance by g = J^T A^T (A A^T + (sigma_y^2 / r_t^2) I)^-1 (y - A D)."""

    title: ClassVar[str] = "PiGDM"
    about: ClassVar[str] = (
        "Guides by the misfit, weighed with a Gaussian around the estimate; takes noise into account."
    )
    reference: ClassVar[str] = "Song et al., Pseudoinverse-Guided Diffusion Models for Inverse Problems, ICLR 2023"
    needs: ClassVar[frozenset[str]] = frozenset({"gradient", "linear"})
    cost_formula: ClassVar[str] = "steps forward+backward (heun: 2 steps - 1)"

    form: Literal["reference", "strict"] = Field(
        "reference", description="'reference': x_s moves by alpha_s alpha_t g; 'strict': G = g / r_t^2 moves D"
    )

    def likelihood(self, prior: Prior, operator: Operator, y: Tensor, sigma_y: float = 0.0) -> WhiteLikelihood:
        """N(y; A D, sigma_y^2 I + r_t^2 A A^T), whose gradient is g / r_t^2; arguments as in ``guide``."""
        assert isinstance(operator, LinearOperator)
        return WhiteLikelihood(prior, operator, y, sigma_y)

    @property
    def moves(self) -> bool:
        return self.form == "reference"

    def move(
        self, problem: Problem, x_t: Tensor, t: Tensor, s: Tensor, noise: Streams | None
    ) -> tuple[Denoising, Tensor]:
        """(D, alpha_s alpha_t g); arguments as in `MovingSolver`."""
        prior, schedule = problem.prior, problem.prior.schedule
        at = self.likelihood(prior, problem.operator, problem.y, problem.sigma_y).evaluate(x_t, t, density=False)
        weight = schedule.level(s).alpha * schedule.level(t).alpha * white_variance(prior, t)
        return Denoising(at.x_0, at.variance_share), like(weight, x_t) * at.gradient

    def _one(self) -> Cost:
        return Cost(0, 1)


class WhiteLikelihood(Likelihood):
    """p(y | x_t) ~ N(y; A D, sigma_y^2 I + r_t^2 A A^T), A linear.

    With sigma_y = 0 its density is that of the part of y in the range of A.
    """

    operator: LinearOperator

    def __init__(self, prior: Prior, operator: LinearOperator, y: Tensor, sigma_y: float) -> None:
        super().__init__(prior, operator, y, sigma_y)
        self._spectrum: Spectrum | None = None

    def evaluate(self, x_t: Tensor, t: Tensor, *, density: bool = True) -> Evaluation:
        variance = white_variance(self.prior, t)
        at = Denoised(self.prior, x_t, t)
        residual = self.y - self.operator(at.x_0)
        damping = (self.sigma_y**2 / variance).to(residual)
        solved = self.operator.solve(residual, damping) / like(variance, residual)
        gradient = at.vjp(self.operator.adjoint(solved))
        if not density:
            return Evaluation(at.x_0, gradient, None, at.variance_share)
        square = row_sum(residual * solved)
        log_density = self._log_density(at.x_0, square, variance)
        return Evaluation(at.x_0, gradient, log_density, at.variance_share)

    def _log_density(self, x_0: Tensor, square: Tensor, variance: Tensor) -> Tensor:
        """log N(y; A D, S) for r^T S^-1 r = ``square`` (N,) and r_t^2 = ``variance``, 0-d or (N,)."""
        if self._spectrum is None:
            self._spectrum = Spectrum(self.operator, x_0)
        rank = self._spectrum.trace(lambda s: (s > 0).to(s.dtype))
        levels, index = torch.unique(variance, return_inverse=True)
        table = torch.stack([self._log_det(float(level)).expand(len(x_0)) for level in levels])
        log_det = table.gather(0, index.expand(1, len(x_0)))[0]
        if self.sigma_y == 0:
            return gaussian_log_density(square, log_det, rank)
        return gaussian_log_density(square, log_det + (self.count - rank) * math.log(self.sigma_y**2), self.count)

    def _log_det(self, variance: float) -> Tensor:
        """log det of S on the range of A."""
        assert self._spectrum is not None
        noise = self.sigma_y**2
        return self._spectrum.trace(lambda s: torch.where(s > 0, (variance * s**2 + noise).log(), 0))
