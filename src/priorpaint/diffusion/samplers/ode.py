"""The probability-flow ODE: Heun's method as in EDM, and a Runge-Kutta method of order 4."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from .. import transitions
from ..denoiser import Denoiser
from ..probability_flow import ProbabilityFlow, angle, rk4
from ..rng import Streams
from ..transitions import like
from .base import STRICT, Sampler, is_clean


@settings(frozen=True, config=STRICT)
class Heun(Sampler, name="heun"):
    """Second-order steps of the probability-flow ODE, with optional churn (Karras et al. 2022, Algorithms 1 and 2).

    The ODE is dx = D d(alpha) + eps d(sigma) for every schedule; its Euler step is DDIM and the correction is
    ((alpha_s - alpha_t) (D_s - D_t) + (sigma_s - sigma_t) (eps_s - eps_t)) / 2. The last step, to sigma = 0, is Euler.
    (In x / alpha the same rule breaks down where sigma / alpha is huge: cosine tables, flow.)
    """

    title: ClassVar[str] = "Heun's method (Karras et al. 2022, Algorithms 1 and 2)"
    cost_formula: ClassVar[str] = "2 * steps - 1"

    churn: float = Field(
        default=0.0,
        ge=0,
        description="S_churn: each step first raises sigma / alpha by up to the share churn / steps; 0 is none",
    )
    churn_min: float = Field(default=0.0, ge=0, description="S_tmin: no churn below this sigma / alpha")
    churn_max: float = Field(default=float("inf"), ge=0, description="S_tmax: no churn above this sigma / alpha")
    churn_noise: float = Field(default=1.0, ge=0, description="S_noise: standard deviation of the noise of the churn")

    @property
    def evaluations(self) -> int:
        return 2 * self.steps - 1

    def step(self, prior: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, noise: Streams) -> tuple[Tensor, Tensor]:
        schedule = prior.schedule
        x_t, t = self._churn(prior, x_t, t, noise)
        x_0 = self.estimate(prior, x_t, t)
        x_s = transitions.ddim(schedule, x_t, x_0, t, s)
        if is_clean(s):
            return x_s, x_0
        x_0_s = self.estimate(prior, x_s, s)
        eps_turn = transitions.epsilon(schedule, x_s, x_0_s, s) - transitions.epsilon(schedule, x_t, x_0, t)
        alpha_move, sigma_move = schedule.alpha(s) - schedule.alpha(t), schedule.sigma(s) - schedule.sigma(t)
        return x_s + like(alpha_move / 2, x_s) * (x_0_s - x_0) + like(sigma_move / 2, x_s) * eps_turn, x_0

    def _churn(self, prior: Denoiser, x_t: Tensor, t: Tensor, noise: Streams) -> tuple[Tensor, Tensor]:
        schedule = prior.schedule
        nsr = float(schedule.log_nsr(t).exp())
        gamma = min(self.churn / self.steps, 2**0.5 - 1) if self.churn_min <= nsr <= self.churn_max else 0.0
        if gamma == 0:
            return x_t, t
        up = schedule.time_at(torch.tensor(nsr * (1 + gamma), dtype=torch.float64))
        if float(up) <= float(t):  # already at the top of the schedule
            return x_t, t
        return transitions.noise_up(schedule, x_t, t, up, self.churn_noise * noise.normal_like(x_t)), up


@settings(frozen=True, config=STRICT)
class RungeKutta(Sampler, name="ode"):
    """The classical Runge-Kutta method of order 4 on the probability-flow ODE (Song et al. 2021, Eq. 13).

    Its variable is the angle arctan(sigma / alpha), in which the ODE is smooth at both ends. The last step goes to D.
    """

    title: ClassVar[str] = "probability-flow ODE (Song et al. 2021), Runge-Kutta of order 4"
    cost_formula: ClassVar[str] = "4 * steps - 3"

    @property
    def evaluations(self) -> int:
        return 4 * self.steps - 3

    def step(self, prior: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, noise: Streams) -> tuple[Tensor, Tensor]:
        schedule = prior.schedule
        if is_clean(s):
            x_0 = self.estimate(prior, x_t, t)
            return transitions.ddim(schedule, x_t, x_0, t, s), x_0
        flow = ProbabilityFlow(schedule, lambda x, at: self.estimate(prior, x, at))
        u, phi = flow.from_own(x_t, t), angle(schedule, t)
        u_s, slope = rk4(flow.velocity, u, phi, angle(schedule, s))
        return flow.to_own(u_s, s), flow.estimate(u, slope, phi)
