"""Tweedie moment projected diffusions: moment matching with the diagonal of row sums for A V A^T.

Boys, Girolami, Pidstrigach, Reich, Mosca, Akyildiz 2023, "Tweedie Moment Projected Diffusions for Inverse Problems",
Section 3 (the practical algorithm): V = (sigma_t^2 / alpha_t) J, and A V A^T ~ diag(A V A^T 1).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..diffusion.transitions import like, row_sum, tweedie_scale
from ..operators.base import LinearOperator, Operator
from ..priors.base import Prior
from .base import STRICT, Cost, Field, settings
from .guidance import LikelihoodSolver
from .krylov import dot
from .likelihoods import Denoised, Evaluation, Likelihood, gaussian_log_density


@settings(frozen=True, config=STRICT)
class TMPD(LikelihoodSolver, name="tmpd"):
    """Guidance by G = J^T A^T (y - A D) / (sigma_y^2 + A V A^T 1)."""

    title: ClassVar[str] = "TMPD"
    about: ClassVar[str] = (
        "Guides by the misfit, weighed with row sums of the prior's covariance; between PiGDM and MMPS."
    )
    reference: ClassVar[str] = "Boys et al., Tweedie Moment Projected Diffusions for Inverse Problems, TMLR 2024"
    needs: ClassVar[frozenset[str]] = frozenset({"gradient", "linear"})
    cost_formula: ClassVar[str] = "2 steps forward+backward (heun: 2 (2 steps - 1))"

    jitter: float = Field(1e-3, gt=0, description="smallest sigma_y that is used, in image units")
    shorten: bool = Field(
        True,
        description="shorten the pull of a sample whose row sums are too small for A V A^T; off is the paper's rule",
    )

    def likelihood(self, prior: Prior, operator: Operator, y: Tensor, sigma_y: float = 0.0) -> RowSumLikelihood:
        """N(y; A D, diag(sigma_y^2 + |A V A^T 1|)); arguments as in ``guide``."""
        assert isinstance(operator, LinearOperator)
        return RowSumLikelihood(prior, operator, y, max(sigma_y, self.jitter), shorten=self.shorten)

    def _one(self) -> Cost:
        return Cost(0, 2)


class RowSumLikelihood(Likelihood):
    """p(y | x_t) ~ N(y; A D, L), L = diag(sigma_y^2 + |A V A^T 1|), A linear, sigma_y > 0.

    Row sums are the right scale where pixels vary together. Where they do not, a sum can be near 0 or negative though
    the variance is not, and the pull explodes. Hence the absolute value, and ``shorten``: with u = L^-1 r and
    S = sigma_y^2 I + A V A^T, the pull and the quadratic form are multiplied by min(1, u^T r / u^T S u), the longest
    step along u that S itself allows, which takes no further pass. It is 1 where L - S is positive semi-definite, in
    particular where A V A^T has no negative entry.

    Args:
        prior, operator, y, sigma_y: as in `Likelihood`.
        shorten: see above.
    """

    operator: LinearOperator

    def __init__(
        self, prior: Prior, operator: LinearOperator, y: Tensor, sigma_y: float, *, shorten: bool = True
    ) -> None:
        super().__init__(prior, operator, y, sigma_y)
        self.shorten = shorten

    def evaluate(self, x_t: Tensor, t: Tensor, *, density: bool = True) -> Evaluation:
        at = Denoised(self.prior, x_t, t)
        residual = self.y - self.operator(at.x_0)
        scale = like(tweedie_scale(self.prior.schedule, t), residual)
        informative = self.operator.measured(torch.ones_like(self.y))
        sums = scale * self.operator(at.vjp(self.operator.adjoint(informative)))
        variance = self.sigma_y**2 + sums.abs()
        solved = residual / variance
        gradient = at.vjp(self.operator.adjoint(solved))
        length = dot(solved, residual)
        if self.shorten:
            needed = self.sigma_y**2 * dot(solved, solved) + dot(solved, scale * self.operator(gradient))
            step = torch.where(needed > length, length / torch.where(needed > length, needed, 1), 1)
            gradient, length = like(step, gradient) * gradient, step * length
        if not density:
            return Evaluation(at.x_0, gradient, None, at.variance_share)
        log_det = row_sum(torch.where(informative != 0, variance.log(), 0)).cpu().double()
        log_density = gaussian_log_density(length, log_det, self.count)
        return Evaluation(at.x_0, gradient, log_density, at.variance_share)
