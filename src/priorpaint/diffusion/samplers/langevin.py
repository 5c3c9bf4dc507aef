"""Annealed Langevin dynamics, the sampler of score matching with Langevin dynamics (SMLD, NCSN)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from .. import transitions
from ..denoiser import Denoiser
from ..rng import Streams
from ..transitions import like
from .base import MAX_STEPS, STRICT, Sampler, is_clean


@settings(frozen=True, config=STRICT)
class AnnealedLangevin(Sampler, name="langevin"):
    """Langevin steps at each of a few noise levels (Song and Ermon 2019, Algorithm 1).

    A step is x + (a / 2) score + sqrt(a) z with a = step_size sigma_t^2: the paper's a = e sigma_i^2 / sigma_L^2 with
    step_size = e / sigma_L^2 (2e-5 / 0.01^2 = 0.2). From one level to the next x / alpha stays as it is (the paper has
    alpha = 1). At the end D takes the noise of the last level away (Song and Ermon 2020, "Improved techniques").
    More levels and longer steps than in the paper come nearer to the law at the same cost.
    """

    title: ClassVar[str] = "annealed Langevin dynamics (Song and Ermon 2019)"
    cost_formula: ClassVar[str] = "steps * inner_steps + 1"

    steps: int = Field(default=50, ge=1, le=MAX_STEPS, description="L, noise levels (paper: 10)")
    spacing: str | None = Field(default="logsnr", description="spacing of the levels (paper: geometric)")
    inner_steps: int = Field(default=10, ge=1, le=MAX_STEPS, description="T, Langevin steps of a level (paper: 100)")
    step_size: float = Field(
        default=1.0, gt=0, lt=4, description="length of a Langevin step in units of sigma_t^2 (paper: 0.2)"
    )

    @property
    def evaluations(self) -> int:
        return self.steps * self.inner_steps + 1

    def step(self, prior: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, noise: Streams) -> tuple[Tensor, Tensor]:
        schedule = prior.schedule
        length = like(self.step_size / 2 * schedule.sigma(t) ** 2, x_t)
        x_0 = x_t
        for _ in range(self.inner_steps):
            x_0 = self.estimate(prior, x_t, t)
            score = transitions.score(schedule, x_t, x_0, t)
            x_t = transitions.langevin(x_t, score, length, noise.normal_like(x_t))
        if is_clean(s):
            x_0 = self.estimate(prior, x_t, t)
            return x_0, x_0
        if float(schedule.alpha(t)) == 0:  # x_t is nothing but noise, of which the next level has less
            return like(schedule.sigma(s) / schedule.sigma(t), x_t) * x_t, x_0
        return like(schedule.alpha(s) / schedule.alpha(t), x_t) * x_t, x_0
