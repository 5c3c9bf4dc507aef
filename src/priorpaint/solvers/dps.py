"""Diffusion posterior sampling: p(x_0 | x_t) is taken as its mean, so y pulls on the residual of the denoised image.

Chung et al. 2023, "Diffusion Posterior Sampling for General Noisy Inverse Problems", Algorithm 1, with the plain norm
r = ||y - A D(x_t)|| of the published code and one norm a sample, so that a sample does not feel its batch. With a
latent prior D is decoded first: latent DPS, the baseline of PSLD (Rout et al. 2023) and ReSample (Song et al. 2024).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..diffusion.coordinates import Normalised
from ..diffusion.rng import Streams
from ..diffusion.schedules import Schedule
from ..diffusion.transitions import like, row_sum
from ..errors import UsageError
from ..operators.base import Operator
from ..priors.base import Denoising, Prior
from ..priors.latent import decoder_gain
from .base import STRICT, VARIANCE, Cost, Field, Problem, Variance, settings
from .guidance import LikelihoodSolver, MovingSolver, PosteriorDenoiser, towards
from .likelihoods import Denoised, Evaluation, Likelihood, gaussian_log_density, white_variance

_ROUNDING = torch.tensor(1e-6)


@settings(frozen=True, config=STRICT)
class DPS(MovingSolver, LikelihoodSolver, name="dps"):
    """x_s = STEP(eta)(x_t) - scale grad_{x_t} ||y - A D(x_t)||."""

    title: ClassVar[str] = "DPS"
    about: ClassVar[str] = "Guides each step by the gradient of the misfit through the network; the usual baseline."
    reference: ClassVar[str] = "Chung et al., Diffusion Posterior Sampling, ICLR 2023"
    needs: ClassVar[frozenset[str]] = frozenset({"gradient"})
    cost_formula: ClassVar[str] = "steps forward+backward (heun: 2 steps - 1)"
    through_decoder: ClassVar[bool] = True

    steps: int = Field(250, ge=1, description="steps of the time grid")
    scale: float = Field(
        1.0, ge=0, description="guidance step; in units of variance-preserving images unless scale_space is 'own'"
    )
    guidance: Literal["norm", "likelihood"] = Field(
        "norm", description="'norm': gradient of the plain norm; 'likelihood': of the log-likelihood"
    )
    scale_space: Literal["vp", "own"] = Field(
        "vp", description="'vp': scale means a variance-preserving x_t, converted for other schedules; 'own': as it is"
    )
    variance: Variance | None = Field(None, description=VARIANCE)
    clip: bool = Field(False, description="clip the estimate of x_0 to [-1, 1] before the loss")
    widen: bool = Field(
        False, description="likelihood: variance sigma_y^2 + r_t^2, where r_t^2 is Var(x_0 | x_t) of white data"
    )

    def likelihood(self, prior: Prior, operator: Operator, y: Tensor, sigma_y: float = 0.0) -> PointLikelihood:
        """N(y; A D, sigma_y^2 I), or with ``widen`` N(y; A D, (sigma_y^2 + r_t^2) I); arguments as in ``guide``.

        Raises:
            UsageError: no noise and no ``widen``.
        """
        if sigma_y == 0 and not self.widen:
            raise UsageError(
                "guidance 'likelihood' divides by sigma_y^2; pass sigma_y > 0, set widen=True or use guidance 'norm'"
            )
        return PointLikelihood(prior, operator, y, sigma_y, clip=self.clip, widen=self.widen)

    @property
    def moves(self) -> bool:
        return self.guidance == "norm"

    def move(
        self, problem: Problem, x_t: Tensor, t: Tensor, s: Tensor, noise: Streams | None
    ) -> tuple[Denoising, Tensor]:
        """(D, -scale grad_{x_t} ||y - A D||); arguments as in `MovingSolver`."""
        prior = problem.prior
        at = Denoised(prior, x_t, t)
        with torch.enable_grad():
            x_0 = at.graph.clamp(-1, 1) if self.clip and not prior.latent else at.graph
            image = prior.decode(x_0)
            residual = problem.operator(image.clamp(-1, 1) if self.clip else image) - problem.y
            r = norm(residual)
        weight = torch.full_like(r, -self.scale)
        if self.scale_space == "own":
            weight = weight * own_step(prior.schedule, t, s).to(r)
        (move,) = torch.autograd.grad(r, at.x_t, weight)
        return Denoising(x_0.detach(), at.variance_share), move

    def guide(self, prior: Prior, operator: Operator, y: Tensor, sigma_y: float = 0.0) -> Prior:
        if self.moves:
            return super().guide(prior, operator, y, sigma_y)
        likelihood = self.likelihood(prior, operator, y, sigma_y)

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            at = likelihood.evaluate(x_t, t, density=False)
            return towards(prior, at.x_0, t, self.scale * at.gradient)

        return PosteriorDenoiser(prior, denoise)

    def _one(self) -> Cost:
        return Cost(0, 1)


class PointLikelihood(Likelihood):
    """p(y | x_t) ~ N(y; A D, sigma_y^2 I), or N(y; A D, (sigma_y^2 + r_t^2) I); A differentiable.

    Args:
        prior, operator, y, sigma_y: as in `Likelihood`.
        clip: clip D to [-1, 1] first; ``x_0`` is then the clipped D. Of a latent prior, the decoded image is clipped.
        widen: add r_t^2 = Var(x_0 | x_t) of white data; of white latents, times the square of the decoder's gain.
    """

    def __init__(
        self, prior: Prior, operator: Operator, y: Tensor, sigma_y: float, *, clip: bool = False, widen: bool = False
    ) -> None:
        super().__init__(prior, operator, y, sigma_y)
        self.clip = clip
        height, width = operator.image_shape(y)[1:]
        self._widening = decoder_gain(prior, prior.latent_shape(height, width)) ** 2 if widen else 0.0

    def evaluate(self, x_t: Tensor, t: Tensor, *, density: bool = True) -> Evaluation:
        variance = self.sigma_y**2 + self._widening * white_variance(self.prior, t)
        at = Denoised(self.prior, x_t, t)
        with torch.enable_grad():
            x_0 = at.graph.clamp(-1, 1) if self.clip and not self.prior.latent else at.graph
            image = self.prior.decode(x_0)
            residual = self.y - self.operator(image.clamp(-1, 1) if self.clip else image)
            square = row_sum(residual.square()) / like(variance, residual).flatten()
            (gradient,) = torch.autograd.grad(-0.5 * square.sum(), at.x_t)
        if not density:
            return Evaluation(x_0.detach(), gradient, None, at.variance_share)
        log_det = self.count * variance.cpu().log()
        log_density = gaussian_log_density(square.detach(), log_det, self.count)
        return Evaluation(x_0.detach(), gradient, log_density, at.variance_share)


def own_step(schedule: Schedule, t: Tensor, s: Tensor) -> Tensor:
    """How long a step of 1 along the gradient in the prior's own coordinates is in variance-preserving ones, float64.

    u = x / L, so the gradient by u_t is L_t times that by x_t, and a move of u_s is 1 / L_s times that of x_s.
    """
    if not isinstance(schedule, Normalised):
        return torch.ones_like(t)
    return 1 / (schedule.length(t) * schedule.length(s))


def norm(residual: Tensor) -> Tensor:
    """||residual|| of each row (N, ...), (N,); below `_ROUNDING` it is flattened, so that rounding does not pull."""
    length = torch.linalg.vector_norm(residual, dim=tuple(range(1, residual.ndim)))
    return torch.hypot(length, _ROUNDING)
