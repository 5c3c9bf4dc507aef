"""ILVR, iterative latent variable refinement: the part of x_s that y measures is replaced by y, noised to that level.

Choi et al. 2021, "ILVR: Conditioning Method for Denoising Diffusion Probabilistic Models", Algorithm 1. The paper
replaces what a low-pass filter phi_N keeps, x_s = phi_N(y_s) + (I - phi_N) x'_s, where phi_N shrinks a picture by N and
enlarges it again. Here phi is A^+ A, the projection on what A measures: for down-sampling by N the low frequencies that
survive in y, for a mask its known pixels, which is `Replacement`. phi_N of the paper sees the same as A^+ A of that
down-sampling, but is no projection where it interpolates, so that it keeps y only nearly; A^+ A keeps it exactly.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from ..diffusion import transitions
from ..diffusion.samplers import check_variance
from ..diffusion.schedules import Schedule
from ..errors import UsageError
from ..operators.base import Operator
from ..operators.separable import Downsampling
from ..priors.base import Prior
from .base import STRICT, VARIANCE, Cost, Field, GridSolver, Job, Task, Variance, name_of, settings


@settings(frozen=True, config=STRICT)
class ILVR(GridSolver, name="ilvr"):
    """x_s = (I - A^+ A) STEP(eta)(x_t) + A^+ A y_s, with y_s = alpha_s A^+ y + sigma_s z."""

    title: ClassVar[str] = "ILVR"
    about: ClassVar[str] = "Replaces what was measured, such as low frequencies, at each level; the rest is sampled."
    reference: ClassVar[str] = "Choi et al., ILVR, ICCV 2021"
    needs: ClassVar[frozenset[str]] = frozenset({"linear"})
    cost_formula: ClassVar[str] = "steps forward"

    factor: int | None = Field(
        None, ge=1, description="of down-sampled y: keep only what survives down-sampling by this N; None keeps all"
    )
    free_steps: int = Field(0, ge=0, description="steps at the end that replace nothing")
    eta: float = Field(1.0, ge=0, le=1, description="noise of a step: 1 is DDPM ancestral, 0 is DDIM")
    variance: Variance | None = Field(None, description=VARIANCE)
    clip: bool = Field(False, description="clip the estimate of x_0 to [-1, 1]")
    paste: bool = Field(True, description="with sigma_y = 0, make the result agree with y exactly at the end")

    def __post_init__(self) -> None:
        check_variance(self.variance, self.eta)

    def cost(self, num_samples: int = 1) -> Cost:
        return Cost(self.steps * num_samples, 0)

    def check(self, operator: Operator, prior: Prior | None = None) -> None:
        super().check(operator, prior)
        if self.factor is None:
            return
        if not isinstance(operator, Downsampling):
            raise UsageError(
                f"factor says which low frequencies of a down-sampled picture count, and {name_of(operator)} has none; "
                "leave factor out"
            )
        if self.factor % operator.factor:
            raise UsageError(
                f"factor = {self.factor} is not a multiple of the {operator.factor} by which y was down-sampled; "
                "pass one that is"
            )

    def _sample(self, job: Job) -> Tensor:
        return super()._sample(self._low_passed(job))

    def _low_passed(self, job: Job) -> Job:
        """The job with y as down-sampling by ``factor`` would have measured it.

        The mean of (N / f)^2 entries of y has f / N of their noise: exact for box, and nearly so for bicubic.
        """
        if self.factor is None:
            return job
        assert isinstance(job.operator, Downsampling)  # as ``check`` has seen
        coarse = Downsampling(self.factor, job.operator.kind)
        share = job.operator.factor / self.factor
        return replace(job, operator=coarse, y=coarse(job.operator.pinv(job.y)), sigma_y=share * job.sigma_y)

    @torch.no_grad()
    def _run(self, task: Task) -> Tensor:
        schedule, measured = task.prior.schedule, task.linear.pinv(task.y)
        times = self._times(schedule)
        x_t = task.start(times[0])
        for index, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
            out = task.prior.evaluate(x_t, t)
            x_0 = out.mean.clamp(-1, 1) if self.clip else out.mean
            share = out.share(self.variance) if self.eta == 1 else 0.0
            x_t = transitions.step(schedule, x_t, x_0, t, s, task.noise.normal_like(x_t), self.eta, share)
            if index < self.steps - self.free_steps:
                x_t = replaced(schedule, x_t, task, measured, s)
            task.report(index + 1, x_0)
        return x_t


def replaced(schedule: Schedule, u: Tensor, task: Task, measured: Tensor, s: Tensor) -> Tensor:
    """u (N, C, H, W) with its measured part replaced by y noised to level s; by y itself at s = 0.

    With noisy y, the noise sigma_y / d that it has along a singular direction of value d is not added again, and
    nothing is replaced where that is more than x_s has (the rule of Kawar et al. 2022, DDRM).

    Args:
        schedule: of x_t.
        u: x_s as the prior alone has it.
        task: operator, noise and sigma_y.
        measured: A^+ y (N, C, H, W).
        s: the level of u, 0-d float64.
    """
    alpha, sigma = (float(value) for value in schedule.level(s)[:2])
    z = task.noise.normal_like(u)

    def missing(values: Tensor) -> Tensor:
        """sigma_s^2 - (alpha_s sigma_y / d)^2 of singular values d >= 0; below 0 where nothing is replaced."""
        noise = alpha * task.sigma_y / values.clamp(min=torch.finfo(values.dtype).tiny)
        return torch.where(values > 0, sigma**2 - noise**2, -1)

    known = task.linear.filter(alpha * measured - u, lambda values: (missing(values) >= 0).to(values))
    return u + known + task.linear.filter(z, lambda values: missing(values).clamp(min=0).sqrt())
