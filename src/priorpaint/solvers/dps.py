"""Diffusion posterior sampling: after each ancestral step, a gradient step on the residual of the denoised image.

Chung et al. 2023, "Diffusion Posterior Sampling for General Noisy Inverse Problems", Algorithm 1, with the plain norm
r = ||y - A D(x_t)|| of the published code and one norm a sample, so that a sample does not feel its batch.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from .. import transitions
from ..errors import UsageError
from ..schedules import Schedule
from ..transitions import like
from .base import STRICT, Cost, Field, Solver, Task, settings


@settings(frozen=True, config=STRICT)
class DPS(Solver):
    """x_s = STEP(eta)(x_t) - scale grad_{x_t} ||y - A D(x_t)||."""

    title: ClassVar[str] = "DPS"
    reference: ClassVar[str] = "Chung et al., Diffusion Posterior Sampling, ICLR 2023"
    needs: ClassVar[frozenset[str]] = frozenset({"gradient", "linear"})
    cost_formula: ClassVar[str] = "steps forward+backward"

    steps: int = Field(250, ge=1, description="steps of the time grid")
    scale: float = Field(
        1.0, ge=0, description="guidance step; in units of variance-preserving images unless scale_space is 'own'"
    )
    eta: float = Field(1.0, ge=0, le=1, description="noise of a step: 1 is DDPM ancestral, 0 is DDIM")
    guidance: Literal["norm", "likelihood"] = Field(
        "norm", description="'norm': gradient of the plain norm; 'likelihood': of the log-likelihood with sigma_y > 0"
    )
    scale_space: Literal["vp", "own"] = Field(
        "vp", description="'vp': scale means a variance-preserving x_t, converted for other schedules; 'own': as it is"
    )
    clip: bool = Field(False, description="clip the estimate of x_0 to [-1, 1] before the loss")
    paste: bool = Field(True, description="with sigma_y = 0, make the result agree with y exactly at the end")
    t_init: float = Field(1.0, gt=0, le=1, description="time to start at, from the initial images if below 1")
    spacing: str | None = Field(None, description="spacing of the time grid; None is the schedule's own")

    def cost(self, num_samples: int = 1) -> Cost:
        return Cost(0, self.steps * num_samples)

    def _steps(self) -> int:
        return self.steps

    def _run(self, task: Task) -> Tensor:
        schedule = task.prior.schedule
        times = schedule.grid(self.steps, self.spacing, start=self.t_init)
        x_t = task.start(times[0])
        for index, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
            x_t, x_0 = self._step(task, x_t, t, s)
            task.report(index + 1, x_0)
        return task.operator.project(x_t, task.y) if self.paste and task.sigma_y == 0 else x_t

    def _step(self, task: Task, x_t: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """(x_s, estimate of x_0)."""
        schedule = task.prior.schedule
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            x_0 = task.prior.denoise(x_t, t)
            x_0 = x_0.clamp(-1, 1) if self.clip else x_0
            residual = (task.y - task.operator(task.prior.decode(x_0))).flatten(1)
            if self.guidance == "likelihood":
                loss = 0.5 * residual.square().sum() / self._noise_variance(task)
            else:
                loss = (residual.square().sum(1) + 1e-12).sqrt().sum()  # 1e-12: the norm has no gradient at 0
            (gradient,) = torch.autograd.grad(loss, x_t)
        x_t, x_0 = x_t.detach(), x_0.detach()
        u = transitions.step(schedule, x_t, x_0, t, s, task.noise.normal_like(x_t), self.eta)
        return u - like(self.scale * self._weight(task, t, s), u) * gradient, x_0

    def _weight(self, task: Task, t: Tensor, s: Tensor) -> Tensor:
        """What multiplies the gradient, besides ``scale``."""
        schedule = task.prior.schedule
        if self.guidance == "likelihood":
            return transitions.guidance_weight(schedule, t, s, self.eta)
        if self.scale_space == "own":
            return torch.ones((), dtype=torch.float64)
        # x_vp = x / sqrt(alpha^2 + sigma^2), so a step of x_vp(s) along grad_{x_vp(t)} is this much longer in x.
        return _vp_length(schedule, t) * _vp_length(schedule, s)

    def _noise_variance(self, task: Task) -> float:
        if task.sigma_y == 0:
            raise UsageError("guidance 'likelihood' divides by sigma_y^2; pass sigma_y > 0 or use guidance 'norm'")
        return task.sigma_y**2


def _vp_length(schedule: Schedule, t: Tensor) -> Tensor:
    return (schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2).sqrt()
