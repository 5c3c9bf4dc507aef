"""Unconditional samplers: from x_1 to x_0 with any denoiser, also a guided one.

Each sampler is called with (prior, x_1, noise) and returns x_0; ``noise`` has one stream a row. ``callback(step, total,
x0_estimate)`` is called after each step and may raise ``Cancelled``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UsageError
from . import transitions
from .denoiser import Denoiser, Variance
from .rng import Streams
from .schedules import Schedule
from .transitions import like

Callback = Callable[[int, int, Tensor], None]


@dataclass(frozen=True)
class Sampler(ABC):
    """A walk down the time grid.

    Args:
        steps: number of steps of the grid, >= 1.
        spacing: spacing of the grid (see ``Schedule.grid``); None is the schedule's own.
        start: first time of the grid, in (0, 1].
    """

    steps: int = 50
    spacing: str | None = None
    start: float = 1.0

    @abstractmethod
    def step(self, prior: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, noise: Streams) -> tuple[Tensor, Tensor]:
        """(x_s, estimate of x_0) from x_t (N, C, H, W); t > s are 0-d float64 times."""

    def __call__(self, prior: Denoiser, x_1: Tensor, noise: Streams, callback: Callback | None = None) -> Tensor:
        """x_0 (N, C, H, W) from x_1 (N, C, H, W); with ``start`` < 1, from x at that time."""
        times = prior.schedule.grid(self.steps, self.spacing, start=self.start)
        x_t = x_1
        for index, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
            x_t, x_0 = self.step(prior, x_t, t, s, noise)
            if callback is not None:
                callback(index + 1, self.steps, x_0)
        return x_t


@dataclass(frozen=True)
class DDIM(Sampler):
    """x_s = alpha_s D + sqrt(sigma_s^2 - eta^2 v) eps + eta sqrt(v) z (Song, Meng and Ermon 2021, Eq. 12).

    Args:
        eta: 0 is deterministic, 1 is DDPM's ancestral step.
        variance: of an ancestral step; None is what the network learned, else 'small'.

    Raises:
        UsageError: another variance than 'small' with eta < 1; in a step, 'learned' and nothing was.
    """

    eta: float = 0.0
    variance: Variance | None = "small"

    def __post_init__(self) -> None:
        check_variance(self.variance, self.eta)

    def step(self, prior: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, noise: Streams) -> tuple[Tensor, Tensor]:
        out = prior.evaluate(x_t, t)
        share = out.share(self.variance) if self.eta == 1 else 0.0
        return ddim_step(prior.schedule, x_t, out.mean, t, s, noise, self.eta, share), out.mean


def check_variance(variance: str | None, eta: float) -> None:
    """Raise UsageError where a variance other than the small one is asked of a step that is not ancestral."""
    if variance in ("large", "learned") and eta != 1:
        raise UsageError(
            f"variance {variance!r} belongs to an ancestral step, and eta = {eta:g} takes another; pass eta=1 with it "
            "or leave it out"
        )


def ddim_step(
    schedule: Schedule,
    x_t: Tensor,
    x_0: Tensor,
    t: Tensor,
    s: Tensor,
    noise: Streams,
    eta: float,
    share: Tensor | float = 0.0,
) -> Tensor:
    """STEP(eta): x_s (N, C, H, W) from x_t and the estimate x_0; nothing is drawn where eta = 0."""
    if eta == 0:
        return transitions.ddim(schedule, x_t, x_0, t, s)
    return transitions.step(schedule, x_t, x_0, t, s, noise.normal_like(x_t), eta, share)


@dataclass(frozen=True)
class DDPM(DDIM):
    """Ancestral sampling: STEP(1) (Ho et al. 2020, Algorithm 2), by default with the variance that was learned."""

    eta: float = 1.0
    variance: Variance | None = None


@dataclass(frozen=True)
class Heun(Sampler):
    """Second-order steps of the probability-flow ODE, with optional churn (Karras et al. 2022, Algorithms 1 and 2).

    The ODE is dx = D d(alpha) + eps d(sigma) for every schedule; its Euler step is DDIM and the correction is
    ((alpha_s - alpha_t) (D_s - D_t) + (sigma_s - sigma_t) (eps_s - eps_t)) / 2. The last step, to sigma = 0, is Euler.
    (In x / alpha the same rule breaks down where sigma / alpha is huge: cosine tables, flow.)

    Args:
        churn: S_churn; 0 is deterministic. Each step with sigma/alpha in [churn_min, churn_max] first raises it by
            the factor 1 + min(churn / steps, sqrt(2) - 1).
        churn_noise: S_noise, the standard deviation of the noise that is added.
    """

    churn: float = 0.0
    churn_min: float = 0.0
    churn_max: float = float("inf")
    churn_noise: float = 1.0

    def step(self, prior: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, noise: Streams) -> tuple[Tensor, Tensor]:
        schedule = prior.schedule
        x_t, t = self._churn(prior, x_t, t, noise)
        x_0 = prior.denoise(x_t, t)
        x_s = transitions.ddim(schedule, x_t, x_0, t, s)
        if float(s) == 0:
            return x_s, x_0
        x_0_s = prior.denoise(x_s, s)
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


@dataclass(frozen=True)
class EulerMaruyama(Sampler):
    """Reverse SDE dx = (f x - g^2 score) dt + g dw, time running down (Song et al. 2021, Eq. 6).

    With f dt = alpha_{t|s} - 1 and g^2 dt = var_{t|s}; no noise in the last step.
    """

    def step(self, prior: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, noise: Streams) -> tuple[Tensor, Tensor]:
        schedule = prior.schedule
        x_0 = prior.denoise(x_t, t)
        score = -transitions.epsilon(schedule, x_t, x_0, t) / like(schedule.sigma(t), x_t)
        alpha_ts, variance = transitions.forward(schedule, s, t)
        x_s = like(2 - alpha_ts, x_t) * x_t + like(variance, x_t) * score
        if float(s) == 0:
            return x_s, x_0
        return x_s + like(variance.sqrt(), x_t) * noise.normal_like(x_t), x_0
