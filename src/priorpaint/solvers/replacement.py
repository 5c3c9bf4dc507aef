"""Replacement, also called blended or imputation: noise the known pixels to each level and paste them in.

Song et al. 2021, "Score-Based Generative Modeling through SDEs", Sec. 5 and App. I.2. Biased: the filled part is never
told about the known part of the same level, and more steps do not help; RePaint's resampling mostly does.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..diffusion import transitions
from ..diffusion.samplers import check_variance
from ..diffusion.schedules import Schedule
from ..diffusion.transitions import like
from ..operators.inpainting import Inpainting
from .base import STRICT, VARIANCE, Cost, Field, GridSolver, Task, Variance, settings


@settings(frozen=True, config=STRICT)
class Replacement(GridSolver, name="replacement"):
    """x_s = m k_s + (1 - m) STEP(eta)(x_t), with k_s = alpha_s y + sigma_s z and k_0 = y."""

    title: ClassVar[str] = "Replacement (blended, imputation)"
    about: ClassVar[str] = "Overwrites the known pixels at each level and changes nothing else; the simplest, and fast."
    reference: ClassVar[str] = "Song et al., Score-Based Generative Modeling through SDEs, ICLR 2021"
    needs: ClassVar[frozenset[str]] = frozenset({"mask"})
    cost_formula: ClassVar[str] = "steps forward"

    eta: float = Field(1.0, ge=0, le=1, description="noise of a step: 1 is DDPM ancestral, 0 is DDIM")
    variance: Variance | None = Field(None, description=VARIANCE)
    clip: bool = Field(False, description="clip the estimate of x_0 to [-1, 1]")

    def __post_init__(self) -> None:
        check_variance(self.variance, self.eta)

    def cost(self, num_samples: int = 1) -> Cost:
        return Cost(self.steps * num_samples, 0)

    @torch.no_grad()
    def _run(self, task: Task) -> Tensor:
        known = known_mask(task)
        schedule = task.prior.schedule
        times = self._times(schedule)
        x_t = task.start(times[0])
        for index, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
            x_t, x_0 = replaced_step(task, known, x_t, t, s, self.eta, self.variance, clip=self.clip)
            task.report(index + 1, x_0)
        return x_t


def replaced_step(
    task: Task, known: Tensor, x_t: Tensor, t: Tensor, s: Tensor, eta: float, variance: Variance | None, *, clip: bool
) -> tuple[Tensor, Tensor]:
    """(x_s, estimate of x_0): STEP(eta), and the known pixels of y at level s in the place of its own."""
    out, schedule = task.prior.evaluate(x_t, t), task.prior.schedule
    x_0 = out.mean.clamp(-1, 1) if clip else out.mean
    share = out.share(variance) if eta == 1 else 0.0
    u = transitions.step(schedule, x_t, x_0, t, s, task.noise.normal_like(x_t), eta, share)
    return paste(schedule, u, task, known, s), x_0


def known_mask(task: Task) -> Tensor:
    """m (N|1, C|1, H, W) as bool, for a method that needs a mask."""
    assert isinstance(task.operator, Inpainting)  # Solver.sample has checked
    return task.operator.mask(task.y) > 0


def paste(schedule: Schedule, u: Tensor, task: Task, known: Tensor, s: Tensor) -> Tensor:
    """u with its known pixels replaced by y noised to level s; y itself at s = 0.

    With noisy y the noise that y already has is not added again, and below the level sigma_s = alpha_s sigma_y, where y
    is noisier than x_s, nothing is replaced (Kawar et al. 2022, DDRM).
    """
    alpha_s, sigma_s, _ = schedule.level(s)
    variance = sigma_s**2 - (alpha_s * task.sigma_y) ** 2
    z = task.noise.normal_like(u)
    if float(variance) < 0:
        return u
    return torch.where(known, like(alpha_s, u) * task.y + like(variance.sqrt(), u) * z, u)
