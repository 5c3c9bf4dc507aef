"""Guided denoisers: methods that replace D(x_t, t) = E[x_0 | x_t] by an estimate of E[x_0 | x_t, y].

With G = grad log p(y | x_t), Tweedie's formula gives E[x_0 | x_t, y] = D + (sigma_t^2 / alpha_t) G. A method that
approximates the left side becomes a wrapper Prior -> Prior, and any sampler runs it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..diffusion import transitions
from ..diffusion.samplers import DDIM, EulerMaruyama, Heun, Sampler
from ..diffusion.schedules import Schedule
from ..diffusion.transitions import like
from ..operators.base import Operator
from ..priors.base import Denoising, Prior, WrappedPrior, times_of
from .base import STRICT, Cost, Field, Solver, Task, settings
from .likelihoods import Likelihood, tweedie_scale

Denoise = Callable[[Tensor, Tensor], Tensor]


class PosteriorDenoiser(WrappedPrior):
    """A prior whose denoiser also knows y; it counts on the wrapped prior's NFE and works in its space.

    It has no learned variance: what a network says of a step without y does not hold for the step with y.

    Args:
        prior: the prior that is wrapped.
        denoise: (x_t (N, C, H, W), t (N,) float64) -> an estimate of E[x_0 | x_t, y].
    """

    def __init__(self, prior: Prior, denoise: Denoise) -> None:
        super().__init__(prior)
        self._call = denoise

    def evaluate(self, x_t: Tensor, t: Tensor | float, given: Mapping[str, Tensor] | None = None) -> Denoising:
        return Denoising(self._call(x_t, times_of(t, x_t)).to(x_t.dtype))


@settings(frozen=True, config=STRICT)
class GuidedSolver(Solver):
    """A guided denoiser and the sampler that runs it; a method says how the denoiser is guided."""

    warm_start: ClassVar[bool] = True

    steps: int = Field(100, ge=1, description="steps of the time grid")
    sampler: Literal["ddim", "heun", "euler_maruyama"] = Field(
        "ddim", description="'ddim': STEP(eta); 'heun': second order, deterministic; 'euler_maruyama': reverse SDE"
    )
    eta: float = Field(1.0, ge=0, le=1, description="noise of a 'ddim' step: 1 is DDPM ancestral, 0 is DDIM")
    paste: bool = Field(True, description="with sigma_y = 0, make the result agree with y exactly at the end")
    t_init: float = Field(1.0, gt=0, le=1, description="time to start at, from the initial images if below 1")
    spacing: str | None = Field(None, description="spacing of the time grid; None is the schedule's own")

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

    def _steps(self) -> int:
        return self.steps

    def _shown(self, guided: Prior, x_0: Tensor) -> Tensor:
        """What a step reports: the guided estimate x_0, or a better picture."""
        return x_0

    def lever(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        """(s, b) for t (N,): the next time of this solver's grid, and how far x_s moves when D(x_t, t) moves by 1.

        For methods whose guidance is published as a move of x_s.
        """
        times = schedule.grid(self.steps, self.spacing, start=self.t_init).to(t.device)
        below = (times[None] < t[:, None] - 1e-12).double().argmax(1)
        return times[below], self._pull(schedule, t, times[below])

    def _pull(self, schedule: Schedule, t: Tensor, s: Tensor) -> Tensor:
        """b, the weight of D in the mean of a step from t to s; of Heun's method, in its first half."""
        if self.sampler == "euler_maruyama":
            return transitions.forward(schedule, s, t)[1] * schedule.alpha(t) / schedule.sigma(t) ** 2
        return transitions.backward_weights(schedule, t, s, self.eta if self.sampler == "ddim" else 0.0)[1]

    def _sampler(self) -> Sampler:
        if self.sampler == "heun":
            return Heun(self.steps, self.spacing, self.t_init)
        if self.sampler == "euler_maruyama":
            return EulerMaruyama(self.steps, self.spacing, self.t_init)
        return DDIM(self.steps, self.spacing, self.t_init, eta=self.eta)

    def _guided_in(self, task: Task) -> Prior:
        """``guide`` with what the task knows."""
        return self.guide(task.prior, task.operator, task.y, task.sigma_y)

    @torch.no_grad()
    def _run(self, task: Task) -> Tensor:
        schedule = task.prior.schedule
        guided = self._guided_in(task)
        x_1 = task.start(schedule.grid(self.steps, self.spacing, start=self.t_init)[0])
        x_0 = self._sampler()(guided, x_1, task.noise, lambda step, total, x: task.report(step, self._shown(guided, x)))
        return x_0


@settings(frozen=True, config=STRICT)
class LikelihoodSolver(GuidedSolver):
    """A guided denoiser D' = D + (sigma_t^2 / alpha_t) G with G from an approximate likelihood p(y | x_t)."""

    @abstractmethod
    def likelihood(self, prior: Prior, operator: Operator, y: Tensor, sigma_y: float = 0.0) -> Likelihood:
        """The approximation of p(y | x_t), also a twist for SMC; arguments as in ``guide``."""

    def guide(self, prior: Prior, operator: Operator, y: Tensor, sigma_y: float = 0.0) -> Prior:
        likelihood = self.likelihood(prior, operator, y, sigma_y)

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            seen = likelihood.evaluate(x_t, t, density=False)
            return towards(prior, seen.x_0, t, seen.gradient)

        return PosteriorDenoiser(prior, denoise)


def towards(prior: Prior, x_0: Tensor, t: Tensor, gradient: Tensor) -> Tensor:
    """D + (sigma_t^2 / alpha_t) G for D = x_0 and G = ``gradient`` (N, C, H, W), t (N,); D itself where alpha_t = 0."""
    return x_0 + like(tweedie_scale(prior.schedule, t), x_0) * gradient
