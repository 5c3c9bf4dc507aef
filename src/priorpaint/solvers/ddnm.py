"""DDNM and DDNM+: keep what A cannot see of the denoised image and replace what it sees.

Wang, Yu and Zhang 2023, "Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model", Algorithms 1 to 3.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..diffusion import transitions
from ..diffusion.schedules import Schedule
from ..diffusion.transitions import like
from ..operators.base import LinearOperator
from ..priors.base import Prior
from .base import STRICT, Field, Task, settings
from .paper import PaperSolver
from .repaint import jump_levels
from .spectral import corrected, misfit, spectral_step


@settings(frozen=True, config=STRICT)
class DDNM(PaperSolver, name="ddnm"):
    """D' = D + A^+ (y - A D), then a DDIM-like step with the raw eps; less of the correction where y is noisy."""

    title: ClassVar[str] = "DDNM / DDNM+"
    about: ClassVar[str] = (
        "Puts what was measured into every estimate and lets the prior fill the rest; fast, no gradients."
    )
    reference: ClassVar[str] = "Wang et al., Zero-Shot Image Restoration Using DDNM, ICLR 2023"
    needs: ClassVar[frozenset[str]] = frozenset({"linear"})
    cost_formula: ClassVar[str] = "steps forward; about steps * travel_repeat with time travel"

    form: Literal["ddim", "ddpm"] = Field(
        "ddim",
        description="step of 'reference': 'ddim', the published code's, with eta of all of sigma_s and the raw eps; "
        "'ddpm', the paper's listing, ancestral",
    )
    eta: float = Field(
        0.85, ge=0, le=1, description="form 'ddim': share of the noise that is drawn afresh, of all of sigma_s"
    )
    redraw_above: float | None = Field(
        None, gt=0, description="form 'ddim', exact y: sigma/alpha above which eta is 1; None is nowhere"
    )
    extrapolation: float = Field(
        0.0,
        ge=0,
        le=1,
        description="form 'ddim', exact y: share of the second-order correction of x_0 (DPM-Solver++ 2M)",
    )
    bottom: float | None = Field(
        None, gt=0, description="sigma/alpha of the last noisy level, on the spacing karras; None is the prior's last"
    )
    travel_length: int = Field(1, ge=1, description="levels that a time travel goes up (l)")
    travel_repeat: int = Field(1, ge=1, description="times that each window of levels is crossed (r); 1 is no travel")

    @property
    def ancestral(self) -> bool:
        return super().ancestral or (self.sampler == "reference" and self.form == "ddpm")

    def _times(self, schedule: Schedule) -> Tensor:
        if self.bottom is None:
            return super()._times(schedule)
        return schedule.grid(self.steps, self.spacing or "karras", start=self.t_init, low=self.bottom)

    def levels(self) -> list[int]:
        return jump_levels(self.steps, self.travel_length, self.travel_repeat)

    def _correct(
        self, prior: Prior, x_0: Tensor, operator: LinearOperator, y: Tensor, sigma_y: float, t: Tensor
    ) -> Tensor:
        return corrected(x_0, operator, y, sigma_y, prior.schedule.level(t).log_nsr.exp())

    def _start(self, task: Task, t: Tensor) -> Tensor:
        return task.start(t)

    def _update(
        self, task: Task, x_t: Tensor, x_0: Tensor, t: Tensor, s: Tensor, last: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        z = task.noise.normal_like(x_t)
        if self.form == "ddpm":
            return self._ancestral(task, x_t, x_0, t, s, z)
        schedule, operator = task.prior.schedule, task.linear
        if task.sigma_y > 0:
            return spectral_step(schedule, operator, task.y, task.sigma_y, x_t, x_0, t, s, z, self.eta)
        ahead = self._ahead(schedule, x_0, t, s, last)
        mended = ahead + misfit(operator, task.y, ahead)
        # eps of x_0, not of mended: it overshoots the known pixels, a guidance that the method's figures rest on.
        eps = transitions.epsilon(schedule, x_t, x_0, t)
        level = schedule.level(s)
        redrawn = self.redraw_above is not None and float(level.log_nsr.exp()) > self.redraw_above
        eta = 1.0 if redrawn else self.eta
        eps_s = eta * z + math.sqrt(1 - eta**2) * eps
        return like(level.alpha, x_t) * mended + like(level.sigma, x_t) * eps_s

    def _ahead(
        self, schedule: Schedule, x_0: Tensor, t: Tensor, s: Tensor, last: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """x_0 with a share of the second-order correction of Lu et al. 2022 (DPM-Solver++, Algorithm 2)."""
        if not self.extrapolation or last is None or float(s) == 0:
            return x_0
        before, now, after = (schedule.level(time).log_nsr for time in (last[1], t, s))
        weight = self.extrapolation * float((now - after) / (before - now)) / 2
        return torch.lerp(x_0, last[0], -weight)

    def _ancestral(self, task: Task, x_t: Tensor, x_0: Tensor, t: Tensor, s: Tensor, z: Tensor) -> Tensor:
        """a x_t + b D' + sqrt(g) z: STEP(1) where the noise of y that D' carries, b sigma_y / S, leaves room for it.

        With p = S sqrt(v) / (b sigma_y): the correction is scaled by min(1, p), and g = v (1 - 1 / p^2) or 0.
        """
        schedule, operator = task.prior.schedule, task.linear
        a, b = transitions.backward_weights(schedule, t, s)
        std = transitions.ancestral_std(schedule, t, s, float(self.variance == "large"))
        room = math.inf if task.sigma_y == 0 else float(std / b) / task.sigma_y

        def relative_room(singular: Tensor) -> Tensor:
            return torch.where(singular > 0, singular * room, 0)

        def factor(singular: Tensor) -> Tensor:
            return relative_room(singular).clamp(max=1)

        def fresh(singular: Tensor) -> Tensor:
            p = relative_room(singular)
            return torch.where(singular > 0, (1 - p.clamp(min=1) ** -2).sqrt(), 1)

        mended = x_0 + operator.filter(misfit(operator, task.y, x_0), factor)
        return like(a, x_t) * x_t + like(b, x_t) * mended + like(std, x_t) * operator.filter(z, fresh)
