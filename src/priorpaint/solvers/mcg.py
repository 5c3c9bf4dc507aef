"""MCG, manifold constrained gradients: a gradient step on the misfit of D, then replacement of what was measured.

Chung et al. 2022, "Improving Diffusion Models for Inverse Problems using Manifold Constraints", Algorithm 1 with
W = I. The paper writes alpha grad ||r||^2 with alpha = 1 / ||r||, that is 2 grad ||r||; the published program steps by
grad ||r||, as DPS did later, which is this without the replacement. The measured part is noised to the level that the
step arrives at; the published program takes the level that it leaves.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..diffusion import transitions
from ..diffusion.samplers import check_variance
from .base import STRICT, VARIANCE, Cost, Field, GridSolver, Problem, Task, Variance, settings
from .dps import DPS
from .ilvr import replaced


@settings(frozen=True, config=STRICT)
class MCG(GridSolver, name="mcg"):
    """x_s = (I - A^+ A) (STEP(eta)(x_t) - scale grad_{x_t} ||y - A D(x_t)||) + A^+ A (alpha_s A^+ y + sigma_s z)."""

    title: ClassVar[str] = "MCG"
    about: ClassVar[str] = "Replacement whose hidden part follows the gradient of the misfit; the forerunner of DPS."
    reference: ClassVar[str] = "Chung et al., Manifold Constrained Gradients, NeurIPS 2022"
    needs: ClassVar[frozenset[str]] = frozenset({"gradient", "linear"})
    cost_formula: ClassVar[str] = "steps forward+backward"

    steps: int = Field(250, ge=1, description="steps of the time grid")
    scale: float = Field(1.0, ge=0, description="gradient step, in units of variance-preserving images; 0 is ilvr")
    eta: float = Field(1.0, ge=0, le=1, description="noise of a step: 1 is DDPM ancestral, 0 is DDIM")
    variance: Variance | None = Field(None, description=VARIANCE)
    clip: bool = Field(False, description="clip the estimate of x_0 to [-1, 1]")
    paste: bool = Field(True, description="with sigma_y = 0, make the result agree with y exactly at the end")

    def __post_init__(self) -> None:
        check_variance(self.variance, self.eta)

    def cost(self, num_samples: int = 1) -> Cost:
        return Cost(0, self.steps * num_samples)

    @torch.no_grad()
    def _run(self, task: Task) -> Tensor:
        schedule, measured = task.prior.schedule, task.linear.pinv(task.y)
        problem = Problem(task.prior, task.operator, task.y, task.sigma_y)
        gradient = DPS(scale=self.scale, clip=self.clip)  # type: ignore[call-arg]  # the others have defaults
        times = self._times(schedule)
        x_t = task.start(times[0])
        for index, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
            out, move = gradient.move(problem, x_t, t, s, None)
            share = out.share(self.variance) if self.eta == 1 else 0.0
            u = transitions.step(schedule, x_t, out.mean, t, s, task.noise.normal_like(x_t), self.eta, share)
            x_t = replaced(schedule, u + move, task, measured, s)
            task.report(index + 1, out.mean)
        return x_t
