"""DiffPIR: plug-and-play restoration, a proximal step on the data inside a diffusion sampler.

Zhu et al. 2023, "Denoising Diffusion Models for Plug-and-Play Image Restoration", Algorithm 1 and Eqs. 12 to 14.
"""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor

from ..diffusion import transitions
from ..diffusion.transitions import like
from ..operators.base import LinearOperator
from ..priors.base import Prior
from .base import STRICT, Field, Task, settings
from .paper import PaperSolver


@settings(frozen=True, config=STRICT)
class DiffPIR(PaperSolver, name="diffpir"):
    """D' = argmin ||y - A x||^2 + rho ||x - D||^2, rho = lam sigma_n^2 alpha_t^2 / sigma_t^2; eps of D'; new noise."""

    title: ClassVar[str] = "DiffPIR"
    about: ClassVar[str] = (
        "Denoising and a step towards the data in turn, as in plug-and-play restoration; no gradients."
    )
    reference: ClassVar[str] = "Zhu et al., Denoising Diffusion Models for Plug-and-Play Image Restoration, CVPRW 2023"
    needs: ClassVar[frozenset[str]] = frozenset({"linear"})
    cost_formula: ClassVar[str] = "steps forward"

    zeta: float = Field(1.0, ge=0, le=1, description="share of the noise's variance that a step draws afresh")
    lam: float = Field(1.0, gt=0, description="weight of the prior in the proximal step (lambda)")
    sigma_floor: float = Field(
        0.002, gt=0, description="least noise that y is taken to have in the proximal step, image values in [-1, 1]"
    )

    def _correct(
        self, prior: Prior, x_0: Tensor, operator: LinearOperator, y: Tensor, sigma_y: float, t: Tensor
    ) -> Tensor:
        sigma_n = max(sigma_y, self.sigma_floor)
        rho = self.lam * sigma_n**2 * math.exp(-2 * float(prior.schedule.level(t).log_nsr))
        return proximal(x_0, operator, y, rho)

    def _start(self, task: Task, t: Tensor) -> Tensor:
        if task.initial is not None:
            return task.start(t)
        noise = task.noise.normal(*task.shape)
        return transitions.perturb(task.prior.schedule, task.operator.guess(task.y), t, noise)

    def _update(
        self, task: Task, x_t: Tensor, x_0: Tensor, t: Tensor, s: Tensor, last: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        schedule = task.prior.schedule
        mended = self._correct(task.prior, x_0, task.linear, task.y, task.sigma_y, t)
        eps = transitions.epsilon(schedule, x_t, mended, t)
        eps_s = math.sqrt(1 - self.zeta) * eps + math.sqrt(self.zeta) * task.noise.normal_like(x_t)
        level = schedule.level(s)
        return like(level.alpha, x_t) * mended + like(level.sigma, x_t) * eps_s


def proximal(x_0: Tensor, operator: LinearOperator, y: Tensor, rho: float) -> Tensor:
    """argmin_x ||y - A x||^2 + rho ||x - x_0||^2 = x_0 + A^T (A A^T + rho I)^-1 (y - A x_0), (N, C, H, W)."""
    return x_0 + operator.adjoint(operator.solve(y - operator(x_0), rho))
