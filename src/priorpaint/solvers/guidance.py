"""Guided denoisers: methods that replace D(x_t, t) = E[x_0 | x_t] by an estimate of E[x_0 | x_t, y].

With G = grad log p(y | x_t), Tweedie's formula gives E[x_0 | x_t, y] = D + (sigma_t^2 / alpha_t) G. A method that
approximates the left side becomes a wrapper Prior -> Prior, and any sampler runs it. A method that is published as a
move of x_s after a plain step is a `MovingSolver` and writes that move.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from ..diffusion import transitions
from ..diffusion.rng import Streams
from ..diffusion.samplers import DDIM, DDPM, EulerMaruyama, Heun, Sampler, ddim_step
from ..diffusion.schedules import Schedule
from ..diffusion.transitions import like, tweedie_scale
from ..errors import UsageError
from ..operators.base import Operator
from ..priors.base import Denoising, Prior
from ..priors.wrapped import NormalisedPrior, WrappedPrior, normalised
from .base import STRICT, VARIANCE, Cost, Field, GridSolver, Problem, Task, Variance, settings
from .likelihoods import Likelihood

Denoise = Callable[[Tensor, Tensor], Tensor]
Step = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(x_t (N, C, H, W), t, s < t) -> (x_s, estimate of x_0)."""


class PosteriorDenoiser(WrappedPrior):
    """A prior whose denoiser also knows y; it counts on the wrapped prior's NFE and works in its space.

    It has no learned variance: what a network says of a step without y does not hold for the step with y.

    Args:
        prior: the prior that is wrapped.
        denoise: (x_t (N, C, H, W), t float64, 0-d or (N,)) -> an estimate of E[x_0 | x_t, y].
    """

    def __init__(self, prior: Prior, denoise: Denoise) -> None:
        super().__init__(prior, learned_variance=False)
        self._call = denoise

    def evaluate(self, x_t: Tensor, t: Tensor | float, given: Mapping[str, Tensor] | None = None) -> Denoising:
        return Denoising(self._call(x_t, torch.as_tensor(t, dtype=torch.float64)).to(x_t.dtype))


@settings(frozen=True, config=STRICT)
class GuidedSolver(GridSolver):
    """A guided denoiser and the sampler that runs it; a method says how the denoiser is guided."""

    sampler: Literal["ddim", "heun", "euler_maruyama"] = Field(
        "ddim", description="'ddim': STEP(eta); 'heun': second order, deterministic; 'euler_maruyama': reverse SDE"
    )
    eta: float = Field(1.0, ge=0, le=1, description="noise of a 'ddim' step: 1 is DDPM ancestral, 0 is DDIM")
    variance: Variance | None = Field("small", description=VARIANCE)
    paste: bool = Field(True, description="with sigma_y = 0, make the result agree with y exactly at the end")

    def __post_init__(self) -> None:
        if self.variance in ("large", "learned") and not self.ancestral:
            raise UsageError(
                f"variance {self.variance!r} belongs to an ancestral step; pass sampler='ddim' and eta=1 with it"
            )
        if self.variance == "learned" and not self.moves:
            raise UsageError(
                "variance 'learned' is what a network says of a step that does not know y, and here each step goes to "
                "an estimate that does; choose 'small' or 'large'"
            )

    @property
    def ancestral(self) -> bool:
        """Whether the settings take ancestral steps, with a ``variance``."""
        return self.sampler == "ddim" and self.eta == 1

    @property
    def moves(self) -> bool:
        """Whether a step is the prior's own, which the method then moves, and not one to a guided estimate."""
        return False

    @abstractmethod
    def guide(self, prior: Prior, operator: Operator, y: Tensor, sigma_y: float = 0.0) -> Prior:
        """The guided prior: its ``denoise`` approximates E[x_0 | x_t, y], so any sampler runs it.

        Args:
            prior: the prior.
            operator: A of the N rows that will be denoised together.
            y: measurements (N, ...).
            sigma_y: standard deviation of the measurement noise.
        """

    @abstractmethod
    def _one(self) -> Cost:
        """Network evaluations of one call of the guided denoiser on one row."""

    def evaluations(self) -> int:
        """Calls of the guided denoiser in a run."""
        return 2 * self.steps - 1 if self.sampler == "heun" else self.steps

    def cost(self, num_samples: int = 1) -> Cost:
        one, calls = self._one(), self.evaluations() * num_samples
        return Cost(one.forward * calls, one.backward * calls)

    def _sampler(self) -> Sampler:
        if self.sampler == "heun":
            return Heun(self.steps)
        if self.sampler == "euler_maruyama":
            return EulerMaruyama(self.steps)
        return DDPM(self.steps, variance=self.variance) if self.ancestral else DDIM(self.steps, eta=self.eta)

    def step(self, task: Task) -> Step:
        """A step down for these rows, without a gradient graph around it."""
        sampler, guided = self._sampler(), self.guide(task.prior, task.operator, task.y, task.sigma_y)
        return lambda x_t, t, s: sampler.step(guided, x_t, t, s, task.noise)

    @torch.no_grad()
    def _run(self, task: Task) -> Tensor:
        times = self._times(task.prior.schedule)
        x_t, step = task.start(times[0]), self.step(task)
        for i, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
            x_t, x_0 = step(x_t, t, s)
            task.report(i + 1, x_0)
        return x_t


@settings(frozen=True, config=STRICT)
class LikelihoodSolver(GuidedSolver):
    """A guided denoiser D' = D + (sigma_t^2 / alpha_t) G with G from an approximate likelihood p(y | x_t)."""

    @abstractmethod
    def likelihood(self, prior: Prior, operator: Operator, y: Tensor, sigma_y: float = 0.0) -> Likelihood:
        """The approximation of p(y | x_t), also a twist for SMC; arguments as in ``guide``."""

    def guide(self, prior: Prior, operator: Operator, y: Tensor, sigma_y: float = 0.0) -> Prior:
        likelihood = self.likelihood(prior, operator, y, sigma_y)

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            at = likelihood.evaluate(x_t, t, density=False)
            return towards(prior, at.x_0, t, at.gradient)

        return PosteriorDenoiser(prior, denoise)


@settings(frozen=True, config=STRICT)
class MovingSolver(GuidedSolver):
    """A method that is published as x_s = STEP(eta)(x_t, D) + move; the move stands in the method's own file."""

    @abstractmethod
    def move(
        self, problem: Problem, x_t: Tensor, t: Tensor, s: Tensor, noise: Streams | None
    ) -> tuple[Denoising, Tensor]:
        """(what the prior says, with D, and how far x_s moves (N, C, H, W)) of a step from t to s, without a graph.

        Args:
            problem: of the N rows.
            x_t: noisy images (N, C, H, W).
            t, s: times, 0-d or (N,) float64.
            noise: one stream a row, for a method whose move is random; None leaves that noise out.
        """

    @property
    def moves(self) -> bool:
        """Whether the settings ask for the move, and not for an estimate of E[x_0 | x_t, y] that a method has, too."""
        return True

    def step(self, task: Task) -> Step:
        if not self.moves:
            return super().step(task)
        problem, schedule = Problem(task.prior, task.operator, task.y, task.sigma_y), task.prior.schedule
        if self.sampler != "ddim":
            sampler, guided = self._sampler(), self._estimate(problem, task.noise)
            return lambda x_t, t, s: sampler.step(guided, x_t, t, s, task.noise)

        def step(x_t: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
            out, move = self.move(problem, x_t, t, s, task.noise)
            share = out.share(self.variance) if self.ancestral else 0.0
            return ddim_step(schedule, x_t, out.mean, t, s, task.noise, self.eta, share) + move, out.mean

        return step

    def guide(self, prior: Prior, operator: Operator, y: Tensor, sigma_y: float = 0.0) -> Prior:
        if not self.moves:
            return super().guide(prior, operator, y, sigma_y)  # type: ignore[safe-super]  # of the LikelihoodSolver
        inside = normalised(prior)
        estimate = self._estimate(Problem(inside, operator, y, sigma_y), None)
        if not isinstance(inside, NormalisedPrior) or inside is prior:
            return estimate
        return PosteriorDenoiser(prior, lambda x_t, t: estimate.denoise(inside.from_own(x_t, t), t))

    def _estimate(self, problem: Problem, noise: Streams | None) -> Prior:
        """D + move / b, for samplers that take an estimate: b is the weight of D in their step down this grid."""
        schedule = problem.prior.schedule
        times = self._times(schedule)

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            below = (times.to(t.device) < t[..., None] - 1e-12).double().argmax(-1)
            s = times.to(t.device)[below]
            out, move = self.move(problem, x_t, t, s, noise)
            return out.mean + move / like(self._weight(schedule, t, s), move)

        return PosteriorDenoiser(problem.prior, denoise)

    def _weight(self, schedule: Schedule, t: Tensor, s: Tensor) -> Tensor:
        """b, the weight of D in the mean of a step from t to s; of Heun's method, in its first half."""
        if self.sampler == "euler_maruyama":
            return transitions.forward(schedule, s, t)[1] * schedule.alpha(t) / schedule.sigma(t) ** 2
        return transitions.backward_weights(schedule, t, s, self.eta if self.sampler == "ddim" else 0.0)[1]


def towards(prior: Prior, x_0: Tensor, t: Tensor, gradient: Tensor) -> Tensor:
    """D + (sigma_t^2 / alpha_t) G for D = x_0 and G = ``gradient`` (N, C, H, W); D itself where alpha_t = 0."""
    return x_0 + like(tweedie_scale(prior.schedule, t), x_0) * gradient
