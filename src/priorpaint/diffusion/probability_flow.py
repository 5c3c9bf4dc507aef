"""The probability-flow ODE (Song et al. 2021, Eq. 13) in the angle phi = arctan(sigma_t / alpha_t).

In variance-preserving coordinates u = x_t / sqrt(alpha_t^2 + sigma_t^2) = cos(phi) x_0 + sin(phi) eps, along the ODE
    du / dphi = cos(phi) eps - sin(phi) D = (cos(phi) u - D) / sin(phi),
the "v" of Salimans and Ho 2022, = -sin(phi) (u + score of u) / cos(phi). It is bounded at both ends: alpha = 0 is
phi = pi / 2, and at phi = 0 it is 0. So the rules below keep their order on every
schedule, also on those that end in pure noise.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .coordinates import Normalised
from .schedules import Schedule
from .transitions import like

Slope = Callable[[Tensor, Tensor], Tensor]
"""(y (N, ...), phi 0-d float64) -> dy / dphi (N, ...)."""
Rule = Callable[[Slope, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(slope, y at a, a, b) -> (y at b, the slope at a)."""


def angle(schedule: Schedule, t: Tensor) -> Tensor:
    """phi of a time, float64."""
    alpha, sigma, _ = schedule.level(t)
    return torch.atan2(sigma, alpha)


class ProbabilityFlow:
    """The ODE of one denoiser.

    Args:
        schedule: its noise schedule, in any coordinates.
        denoise: (x_t (N, C, H, W), t 0-d float64) -> D.
    """

    def __init__(self, schedule: Schedule, denoise: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.schedule, self._denoise = schedule, denoise
        self._coordinates = Normalised(schedule)

    def velocity(self, u: Tensor, phi: Tensor) -> Tensor:
        """du / dphi at u (N, C, H, W) and 0 < phi."""
        t = self.schedule.time_at(phi.tan())
        x_0 = self._denoise(self.to_own(u, t), t)
        return (like(phi.cos(), u) * u - x_0) / like(phi.sin(), u)

    def estimate(self, u: Tensor, velocity: Tensor, phi: Tensor) -> Tensor:
        """D, of which ``velocity`` was made."""
        return like(phi.cos(), u) * u - like(phi.sin(), u) * velocity

    def to_own(self, u: Tensor, t: Tensor) -> Tensor:
        """x_t of u (N, C, H, W), in the coordinates of the schedule."""
        return like(self._coordinates.length(t), u) * u

    def from_own(self, x_t: Tensor, t: Tensor) -> Tensor:
        """u of x_t (N, C, H, W)."""
        return x_t / like(self._coordinates.length(t), x_t)


def heun(slope: Slope, y: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """A step of Heun's method, of order 2, from a to b; two slopes."""
    h = float(b - a)
    first = slope(y, a)
    return y + h / 2 * (first + slope(y + h * first, b)), first


def rk4(slope: Slope, y: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """A step of the classical Runge-Kutta method, of order 4, from a to b; four slopes."""
    h, middle = float(b - a), (a + b) / 2
    first = slope(y, a)
    second = slope(y + h / 2 * first, middle)
    third = slope(y + h / 2 * second, middle)
    fourth = slope(y + h * third, b)
    return y + h / 6 * (first + 2 * second + 2 * third + fourth), first


RULES: dict[str, Rule] = {"heun": heun, "rk4": rk4}
SLOPES = {"heun": 2, "rk4": 4}
"""Slopes, and so network evaluations, of a step."""
