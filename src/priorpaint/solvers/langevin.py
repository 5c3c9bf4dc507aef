"""Langevin dynamics at each level, with the known pixels held near y: the training-free sampler of LanPaint.

Zheng, Lan and Wang 2025, "LanPaint: Training-Free Diffusion Inpainting with Asymptotically Exact and Fast Conditional
Sampling", TMLR 2025, written from its equations. All formulas are in variance-preserving coordinates, u = x_t.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..diffusion.rng import Streams
from ..diffusion.samplers import ddim_step
from .base import STRICT, Cost, Field, GridSolver, Task, settings
from .replacement import known_mask


@settings(frozen=True, config=STRICT)
class Langevin(GridSolver, name="langevin"):
    """Each level: inner_steps of du = drift dt + sqrt(2) dW on all pixels, then DDIM with the known pixels from y."""

    title: ClassVar[str] = "LanPaint (Langevin dynamics at each level)"
    about: ClassVar[str] = "Langevin steps on known and hidden pixels together at each level; no gradients."
    reference: ClassVar[str] = "Zheng, Lan and Wang, LanPaint, TMLR 2025"
    needs: ClassVar[frozenset[str]] = frozenset({"mask"})
    cost_formula: ClassVar[str] = "steps * (inner_steps + 1) forward"

    steps: int = Field(20, ge=1, description="levels of the time grid")
    inner_steps: int = Field(5, ge=0, description="n, Langevin steps at a level")
    lam: float = Field(8.0, ge=0, description="lambda of BiG: how hard unknown pixels push on known ones; 0 is plain")
    dt: float = Field(0.15, gt=0, description="Langevin step in units of sigma_t^2, for variance-preserving x_t")
    friction: float | None = Field(
        None, gt=0, description="friction of underdamped dynamics (the paper: 15); none is overdamped"
    )
    known_noise: Literal["kept", "fresh"] = Field(
        "kept", description="noise of the known pixels: one array for the whole run, or a new one at each level"
    )
    eta: float = Field(0.0, ge=0, le=1, description="noise of a step down: 0 is DDIM, 1 is DDPM ancestral")

    def cost(self, num_samples: int = 1) -> Cost:
        return Cost(self.steps * (self.inner_steps + 1) * num_samples, 0)

    def _run(self, task: Task) -> Tensor:
        times = self._times(task.prior.schedule)
        return self.descend(task, task.start(times[0]), times)

    @torch.no_grad()
    def descend(self, task: Task, x_t: Tensor, times: Tensor, explored: int | None = None) -> Tensor:
        """x_0 from x_t (N, C, H, W) at times[0], level by level; only steps down below the first ``explored`` ones."""
        schedule = task.prior.schedule
        noise = task.noise.normal_like(x_t)
        for index, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
            noise = noise if self.known_noise == "kept" or index == 0 else task.noise.normal_like(x_t)
            level = _Level(task, t, self.lam)
            u = level.pinned(x_t, noise)
            u = self._explore(task, level, u) if explored is None or index < explored else u
            x_0 = level.denoise(u)
            x_0 = torch.where(level.known, task.y, x_0) if level.above else x_0
            x_t = ddim_step(schedule, u, x_0, t, s, task.noise, self.eta)
            task.report(index + 1, x_0)
        return x_t

    def _plan(self, level: _Level) -> tuple[int, float]:
        """Langevin steps at a level and their length."""
        return self.inner_steps, self.dt * level.sigma**2

    def _explore(self, task: Task, level: _Level, u: Tensor) -> Tensor:
        """u (N, C, H, W) after the inner steps at one level; one network evaluation each.

        The drift is split into (mean - u) / variance, solved exactly, and the change of the mean, a kick half way.
        """
        count, dt = self._plan(level)
        if count == 0:
            return u
        dynamics = self._dynamics(level, u, dt, task.noise)
        mean = level.mean(u)
        u = dynamics.flow(u, mean, 1.0)
        for _ in range(count - 1):
            u = dynamics.flow(u, mean, 0.5)
            new = level.mean(u)
            u = dynamics.kick(u, new - mean)
            u = dynamics.flow(u, mean, 0.5)
            mean = new
        return u

    def _dynamics(self, level: _Level, u: Tensor, dt: float, noise: Streams) -> _Dynamics:
        if self.friction is None:
            return _Overdamped(level, u, dt, noise)
        return _Underdamped(level, u, dt, noise, self.friction)


class _Level:
    """One noise level t and what it asks of the known pixels.

    With gap = sigma_t^2 - alpha_t^2 sigma_y^2, the known part of x_t is alpha_t y plus noise of variance gap while
    gap > 0 (``above``). Below, y is noisier than x_t and p(y | x_t) = N(alpha_t y; x_t, -gap) holds for every prior: y
    can be coupled to x_t in place of x_0 without changing p(x_0, y).

    Args:
        task: prior, mask, y and sigma_y.
        t: the time.
        lam: lambda of BiG.
    """

    def __init__(self, task: Task, t: Tensor, lam: float) -> None:
        self.task, self.t, self.lam = task, t, lam
        self.known = known_mask(task)
        self.alpha, self.sigma, _ = map(float, task.prior.schedule.level(t))
        gap = self.sigma**2 - (self.alpha * task.sigma_y) ** 2
        self.above = gap > 0
        # An even gap of 0 pins the pixel; a tiny one does the same without dividing by 0.
        self.gap = math.copysign(max(abs(gap), 1e-12 * self.sigma**2), 1 if self.above else -1)

    def denoise(self, u: Tensor) -> Tensor:
        """D at u."""
        return self.task.prior.denoise(u, self.t)

    def pinned(self, u: Tensor, noise: Tensor) -> Tensor:
        """u with its known pixels drawn around alpha_t y, where y is less noisy than u."""
        if not self.above:
            return u
        return torch.where(self.known, self.alpha * self.task.y + math.sqrt(self.gap) * noise, u)

    @property
    def variances(self) -> tuple[float, float]:
        """1 / A of known and unknown pixels: the drift is (mean - u) A."""
        if self.above:
            return self.gap / (1 + self.lam), self.sigma**2
        variance = -self.gap
        return self.sigma**2 * variance / (self.sigma**2 + variance), self.sigma**2

    def mean(self, u: Tensor) -> Tensor:
        """Where the drift at u pulls to.

        The drift of unknown pixels is the score (alpha D - u) / sigma^2, that of known ones above is
        (1 + lam) (alpha y - u) / gap - lam score, and below score + (alpha y - u) / -gap.
        """
        center, target = self.alpha * self.denoise(u), self.alpha * self.task.y
        if self.above:
            push = self.lam / (1 + self.lam) * self.gap / self.sigma**2
            return torch.where(self.known, target - push * (center - u), center)
        share = self.sigma**2 / (self.sigma**2 - self.gap)
        return torch.where(self.known, torch.lerp(center, target, share), center)


class _Dynamics(ABC):
    """Langevin dynamics in the Gaussian N(mean, variance) of one level; the flow over a time is exact."""

    def __init__(self, level: _Level, u: Tensor, dt: float, noise: Streams) -> None:
        self.known, self.dt, self.noise = level.known, dt, noise
        self.variances = level.variances
        self.variance = self._spread(*self.variances, u)

    def _spread(self, known: float, unknown: float, u: Tensor) -> Tensor:
        """An image that holds one number on the known and another on the unknown pixels."""
        return torch.where(self.known, torch.tensor(known).to(u), torch.tensor(unknown).to(u))

    @abstractmethod
    def flow(self, u: Tensor, mean: Tensor, part: float) -> Tensor:
        """u after the time part * dt with the mean held fixed."""

    @abstractmethod
    def kick(self, u: Tensor, change: Tensor) -> Tensor:
        """u after the drift (change of the mean) / variance has acted for dt."""


class _Overdamped(_Dynamics):
    """du = (mean - u) / variance dt + sqrt(2) dW."""

    def flow(self, u: Tensor, mean: Tensor, part: float) -> Tensor:
        decay = torch.exp(-part * self.dt / self.variance)
        std = (self.variance * (1 - decay.square())).sqrt()
        return mean + decay * (u - mean) + std * self.noise.normal_like(u)

    def kick(self, u: Tensor, change: Tensor) -> Tensor:
        return u + self.dt / self.variance * change


class _Underdamped(_Dynamics):
    """du = q dt, dq = -G (u - mean) / variance dt - G q dt + G sqrt(2) dW, with G = friction^2 / variance.

    In X = (u - mean) / sqrt(variance), v = q / sqrt(G) and tau = t / variance this is linear, with the stationary law
    N(0, I) for (X, v).
    """

    def __init__(self, level: _Level, u: Tensor, dt: float, noise: Streams, friction: float) -> None:
        super().__init__(level, u, dt, noise)
        self.friction = friction
        self.scale = self.variance.sqrt()
        self.v = noise.normal_like(u)

    def flow(self, u: Tensor, mean: Tensor, part: float) -> Tensor:
        moves = [_transition(self.friction, part * self.dt / variance) for variance in self.variances]
        move, root = (
            [[self._spread(float(k[i, j]), float(o[i, j]), u) for j in (0, 1)] for i in (0, 1)]
            for k, o in zip(*moves, strict=True)
        )
        X, z, w = (u - mean) / self.scale, self.noise.normal_like(u), self.noise.normal_like(u)
        self.v, X = (
            move[1][0] * X + move[1][1] * self.v + root[1][0] * z + root[1][1] * w,
            move[0][0] * X + move[0][1] * self.v + root[0][0] * z + root[0][1] * w,
        )
        return mean + self.scale * X

    def kick(self, u: Tensor, change: Tensor) -> Tensor:
        self.v = self.v + self.friction * self.dt / self.variance**1.5 * change
        return u


def _transition(friction: float, tau: float) -> tuple[Tensor, Tensor]:
    """Matrix E and root L of d(X, v) over tau: (X, v) -> E (X, v) + L z, with L L^T = I - E E^T; float64 (2, 2)."""
    generator = torch.tensor([[0.0, friction], [-friction, -(friction**2)]], dtype=torch.float64)
    move = torch.linalg.matrix_exp(tau * generator)
    values, vectors = torch.linalg.eigh(torch.eye(2, dtype=torch.float64) - move @ move.mT)
    return move, vectors * values.clamp(min=0).sqrt()
