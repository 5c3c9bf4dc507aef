"""DDRM: in each singular direction of A, a step of its own, by whether y or the current level is the noisier.

Kawar, Elad, Ermon and Song 2022, "Denoising Diffusion Restoration Models", Sec. 4.1 and Eqs. 4 to 8.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ..diffusion.transitions import like
from ..operators.base import LinearOperator
from ..priors.base import Prior
from .base import STRICT, Field, Task, settings
from .paper import PaperSolver
from .spectral import corrected, relative, spectral_step


@settings(frozen=True, config=STRICT)
class DDRM(PaperSolver, name="ddrm"):
    """Seen directions follow y as far as its noise allows, unseen ones follow the prior; see `spectral_step`."""

    title: ClassVar[str] = "DDRM"
    about: ClassVar[str] = "Samples each singular direction of the measurement by itself; fast, no gradients."
    reference: ClassVar[str] = "Kawar et al., Denoising Diffusion Restoration Models, NeurIPS 2022"
    needs: ClassVar[frozenset[str]] = frozenset({"linear"})
    cost_formula: ClassVar[str] = "steps forward"

    eta: float = Field(
        0.85, ge=0, le=1, description="share of the noise that a step draws afresh, of all of sigma_s (not of DDIM's v)"
    )
    eta_b: float = Field(1.0, ge=0, le=1, description="how far a direction moves to y where y is cleaner than x_s")

    def _correct(
        self, prior: Prior, x_0: Tensor, operator: LinearOperator, y: Tensor, sigma_y: float, t: Tensor
    ) -> Tensor:
        return corrected(x_0, operator, y, sigma_y, prior.schedule.level(t).log_nsr.exp(), self.eta_b)

    def _start(self, task: Task, t: Tensor) -> Tensor:
        """alpha_t A^+ y and the noise that y lacks where y is cleaner than x_t; elsewhere the prior's start."""
        operator, schedule = task.linear, task.prior.schedule
        alpha, sigma, log_nsr = schedule.level(t)
        nsr = log_nsr.exp()

        def cleaner(singular: Tensor) -> Tensor:
            return (relative(singular, nsr, task.sigma_y) >= 1).to(singular)

        def missing(singular: Tensor) -> Tensor:
            q = relative(singular, nsr, task.sigma_y).clamp(min=1)
            return cleaner(singular) * (1 - q**-2).sqrt()

        free = task.start(t)
        free = free - operator.filter(free, cleaner)
        known = like(alpha, free) * operator.filter(operator.pinv(task.y), cleaner)
        return free + known + like(sigma, free) * operator.filter(task.noise.normal_like(free), missing)

    def _update(
        self, task: Task, x_t: Tensor, x_0: Tensor, t: Tensor, s: Tensor, last: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        noise = task.noise.normal_like(x_t)
        schedule, operator = task.prior.schedule, task.linear
        return spectral_step(schedule, operator, task.y, task.sigma_y, x_t, x_0, t, s, noise, self.eta, self.eta_b)
