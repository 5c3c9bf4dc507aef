"""Diffusion posterior sampling: p(x_0 | x_t) is taken as its mean, so y pulls on the residual of the denoised image.

Chung et al. 2023, "Diffusion Posterior Sampling for General Noisy Inverse Problems", Algorithm 1, with the plain norm
r = ||y - A D(x_t)|| of the published code and one norm a sample, so that a sample does not feel its batch. With a
latent prior D is decoded first: latent DPS, the baseline of PSLD (Rout et al. 2023) and ReSample (Song et al. 2024).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..diffusion import transitions
from ..diffusion.schedules import Schedule
from ..diffusion.transitions import like
from ..errors import UsageError
from ..operators.base import Operator
from ..priors.base import Prior
from ..priors.latent import decoder_gain
from .base import STRICT, Cost, Field, Task, settings
from .guidance import LikelihoodSolver, PosteriorDenoiser
from .likelihoods import Denoised, Evaluation, Likelihood, gaussian_log_density, tweedie_scale, white_variance

Lever = Callable[[Tensor], tuple[Tensor, Tensor]]
Loss = Callable[[Tensor], Tensor]


@settings(frozen=True, config=STRICT)
class DPS(LikelihoodSolver, name="dps"):
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

    def guide(self, prior: Prior, operator: Operator, y: Tensor, sigma_y: float = 0.0) -> _Guided:
        return self._guided(prior, operator, y, sigma_y, lambda t: self.lever(prior.schedule, t))

    def _guided(self, prior: Prior, operator: Operator, y: Tensor, sigma_y: float, lever: Lever) -> _Guided:
        """The guided prior; ``lever`` gives (s, b) for t, see ``GuidedSolver.lever``."""
        if self.guidance == "norm":
            own = self.scale_space == "own"
            return descending(prior, lambda x_0: self._norm(prior, operator, y, x_0), lever, own=own, clip=self.clip)
        likelihood = self.likelihood(prior, operator, y, sigma_y)

        def denoise(x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            seen = likelihood.evaluate(x_t, t, density=False)
            return seen.x_0, like(self.scale * tweedie_scale(prior.schedule, t), x_t) * seen.gradient

        return _Guided(prior, denoise)

    def _norm(self, prior: Prior, operator: Operator, y: Tensor, x_0: Tensor) -> Tensor:
        """scale r, (N,)."""
        image = prior.decode(x_0)
        return self.scale * norm(y - operator(image.clamp(-1, 1) if self.clip else image))

    def _step(self, task: Task, x_t: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """One STEP(eta) from t to any s < t: (x_s, estimate of x_0)."""
        schedule = task.prior.schedule
        b = transitions.backward_weights(schedule, t, s, self.eta)[1]
        guided = self._guided(task.prior, task.operator, task.y, task.sigma_y, lambda _: (s, b))
        x_t = x_t.detach()
        x_0 = guided.denoise(x_t, t)
        return transitions.step(schedule, x_t, x_0, t, s, task.noise.normal_like(x_t), self.eta), guided.plain

    def _shown(self, guided: Prior, x_0: Tensor) -> Tensor:
        return guided.plain if isinstance(guided, _Guided) else x_0

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
        seen = Denoised(self.prior, x_t, t)
        with torch.enable_grad():
            x_0 = seen.graph.clamp(-1, 1) if self.clip and not self.prior.latent else seen.graph
            image = self.prior.decode(x_0)
            residual = (self.y - self.operator(image.clamp(-1, 1) if self.clip else image)).flatten(1)
            square = residual.square().sum(1) / like(variance, residual).flatten()
            (gradient,) = torch.autograd.grad(-0.5 * square.sum(), seen.x_t)
        if not density:
            return Evaluation(x_0.detach(), gradient)
        log_det = self.count * variance.cpu().log()
        return Evaluation(x_0.detach(), gradient, gaussian_log_density(square.detach(), log_det, self.count))


class _Guided(PosteriorDenoiser):
    """D + move for a function (x_t, t) -> (D, move); ``plain`` is the last D, which makes the better picture."""

    plain: Tensor

    def __init__(self, prior: Prior, parts: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
        super().__init__(prior, self._sum)
        self._parts = parts

    def _sum(self, x_t: Tensor, t: Tensor) -> Tensor:
        self.plain, move = self._parts(x_t, t)
        return self.plain + move


def descending(prior: Prior, loss: Loss, lever: Lever, *, own: bool = False, clip: bool = False) -> _Guided:
    """D, moved so that x_s moves by -c grad_{x_t} loss(D).

    c translates a step that is meant for variance-preserving x: x_vp = x / sqrt(alpha^2 + sigma^2), so a step of
    x_vp(s) along the gradient by x_vp(t) is c = sqrt(alpha_t^2 + sigma_t^2) sqrt(alpha_s^2 + sigma_s^2) times longer
    in x.

    Args:
        prior: the prior.
        loss: of x_0 (N, C, H, W) in the prior's space, (N,).
        lever: (s, b) for t, see ``GuidedSolver.lever``.
        own: the step is meant for the prior's own x_t, c = 1.
        clip: clip the images of a pixel prior to [-1, 1] before the loss.
    """

    def parts(x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        seen, (s, b) = Denoised(prior, x_t, t), lever(t)
        with torch.enable_grad():
            x_0 = seen.graph.clamp(-1, 1) if clip and not prior.latent else seen.graph
            (gradient,) = torch.autograd.grad(loss(x_0).sum(), seen.x_t)
        length = torch.ones_like(t) if own else vp_lengths(prior.schedule, t, s)
        return x_0.detach(), like(-length / b, x_t) * gradient

    return _Guided(prior, parts)


def vp_lengths(schedule: Schedule, t: Tensor, s: Tensor) -> Tensor:
    """c of `descending`, float64."""
    return transitions.vp_length(schedule, t) * transitions.vp_length(schedule, s)


def norm(residual: Tensor) -> Tensor:
    """||residual|| of each row (N, ...), (N,)."""
    return (residual.flatten(1).square().sum(1) + 1e-12).sqrt()  # 1e-12: the norm has no gradient at 0
