"""Moment matching posterior sampling: p(x_0 | x_t) is taken as N(D, V) with its true covariance V.

Rozet, Andry, Lanusse, Louppe 2024, "Learning Diffusion Priors from Observations by Expectation Maximization",
Section 4.2 and Algorithm 3. V = (sigma_t^2 / alpha_t) dD/dx_t is never formed: products with it are backward passes
through the network. With a latent prior A is followed by the decoder, linearised at D: A (dDec/dz) stands for A.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..diffusion.transitions import like, tweedie_scale
from ..operators.base import LinearOperator, Operator
from ..priors.base import Prior
from .base import STRICT, Cost, Field, settings
from .guidance import LikelihoodSolver
from .krylov import Krylov, arnoldi, conjugate_gradients, dot, gmres, log_quadratic
from .likelihoods import Decoded, Denoised, Evaluation, Likelihood, gaussian_log_density

_SOLVERS = {"cg": conjugate_gradients, "gmres": gmres}
LinearSolver = Literal["cg", "gmres"]


@settings(frozen=True, config=STRICT)
class MMPS(LikelihoodSolver, name="mmps"):
    """Guidance by G = J^T A^T (sigma_y^2 I + A V A^T)^-1 (y - A D), exact for a Gaussian prior."""

    title: ClassVar[str] = "MMPS"
    about: ClassVar[str] = "Guides by the misfit, weighed with the prior's own covariance; accurate, and costly."
    reference: ClassVar[str] = (
        "Rozet et al., Learning Diffusion Priors from Observations by Expectation Maximization, NeurIPS 2024"
    )
    needs: ClassVar[frozenset[str]] = frozenset({"gradient", "linear"})
    cost_formula: ClassVar[str] = "(2 steps - 1) iterations forward+backward (ddim, euler_maruyama: steps iterations)"
    through_decoder: ClassVar[bool] = True

    steps: int = Field(25, ge=1, description="steps of the time grid")
    sampler: Literal["ddim", "heun", "euler_maruyama"] = Field(
        "heun", description="'ddim': STEP(eta); 'heun': second order, deterministic; 'euler_maruyama': reverse SDE"
    )
    spacing: str | None = Field("logsnr", description="spacing of the time grid; None is the schedule's own")
    iterations: int = Field(
        3, ge=1, description="iterations of the linear solver, each a pass back through the network"
    )
    linear_solver: LinearSolver = Field(
        "cg",
        description="'cg': conjugate gradients; 'gmres': smallest residual, for a network whose J is not symmetric",
    )
    symmetric: bool = Field(
        False, description="use (J + J^T) / 2 for J, at 2 iterations + 1 passes in place of iterations"
    )
    jitter: float = Field(1e-3, gt=0, description="smallest sigma_y that S uses, in image units")

    def likelihood(self, prior: Prior, operator: Operator, y: Tensor, sigma_y: float = 0.0) -> MomentLikelihood:
        """N(y; A D, sigma_y^2 I + A V A^T); arguments as in ``guide``."""
        assert isinstance(operator, LinearOperator)
        return MomentLikelihood(
            prior,
            operator,
            y,
            sigma_y,
            iterations=self.iterations,
            linear_solver=self.linear_solver,
            symmetric=self.symmetric,
            jitter=self.jitter,
        )

    def _one(self) -> Cost:
        return Cost(0, 2 * self.iterations + 1 if self.symmetric else self.iterations)


class MomentLikelihood(Likelihood):
    """p(y | x_t) ~ N(y; A D, S), S = sigma_y^2 I + A V A^T, A linear.

    Of a latent prior the mean is A Dec(D), and A dDec/dz at D stands for A in S.
    S^-1 (y - A D) takes ``iterations`` backward passes, and the log det of the density as many again: Lanczos
    quadrature from one fixed probe, the same at all times and in all rows, so that differences between particles are
    less noisy than the value.

    Args:
        prior, operator, y, sigma_y: as in `Likelihood`; sigma_y below ``jitter`` counts as ``jitter``.
        iterations: products with S.
        linear_solver: 'cg' or 'gmres'.
        symmetric: use (J + J^T) / 2 for J.
        jitter: smallest standard deviation of the noise.
    """

    operator: LinearOperator

    def __init__(
        self,
        prior: Prior,
        operator: LinearOperator,
        y: Tensor,
        sigma_y: float,
        *,
        iterations: int = 3,
        linear_solver: LinearSolver = "cg",
        symmetric: bool = False,
        jitter: float = 1e-3,
    ) -> None:
        super().__init__(prior, operator, y, sigma_y)
        self.noise = max(self.sigma_y, jitter) ** 2
        self.iterations, self.symmetric = iterations, symmetric
        self._solve = _SOLVERS[linear_solver]
        generator = torch.Generator().manual_seed(0)
        signs = (torch.randint(0, 2, y.shape[1:], generator=generator) * 2 - 1).to(y)
        self._probe = operator.measured(signs.expand_as(y))

    def evaluate(self, x_t: Tensor, t: Tensor, *, density: bool = True) -> Evaluation:
        at = Denoised(self.prior, x_t, t)
        decoded = Decoded(self.prior, at.x_0)
        residual = self.y - self.operator(decoded.image)
        scale = like(tweedie_scale(self.prior.schedule, t), residual)

        def apply(p: Tensor) -> tuple[Tensor, Tensor]:
            """(S p, J A^T p), with J^T for J unless symmetrised: J is symmetric where D is E[x_0 | x_t]."""
            v = decoded.vjp(self.operator.adjoint(p))
            vjp = (at.vjp(v) + at.jvp(v)) / 2 if self.symmetric else at.vjp(v)
            return self.noise * p + scale * self.operator(decoded.jvp(vjp)), vjp

        solved, gradient = self._solve(apply, residual, self.iterations)
        if not density:
            return Evaluation(at.x_0, gradient, None, at.variance_share)
        square = dot(residual, solved)
        space: Krylov = arnoldi(apply, self._probe, self.iterations)
        log_density = gaussian_log_density(square, log_quadratic(space, self.noise), self.count)
        return Evaluation(at.x_0, gradient, log_density, at.variance_share)
