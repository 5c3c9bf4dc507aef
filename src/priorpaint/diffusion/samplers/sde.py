"""The reverse SDE: Euler-Maruyama, and the same with a Langevin corrector at every level."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from .. import transitions
from ..denoiser import Denoiser
from ..rng import Streams
from ..transitions import like
from .base import STRICT, Sampler, column, is_clean


@settings(frozen=True, config=STRICT)
class EulerMaruyama(Sampler, name="sde"):
    """Reverse SDE dx = (f x - g^2 score) dt + g dw, time running down (Song et al. 2021, Eq. 6).

    With f dt = alpha_{t|s} - 1 and g^2 dt = var_{t|s}; no noise in the last step. This is the paper's reverse diffusion
    sampler (Appendix E).
    """

    title: ClassVar[str] = "reverse SDE, Euler-Maruyama (Song et al. 2021)"
    cost_formula: ClassVar[str] = "steps"

    @property
    def evaluations(self) -> int:
        return self.steps

    def step(self, prior: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, noise: Streams) -> tuple[Tensor, Tensor]:
        schedule = prior.schedule
        x_0 = self.estimate(prior, x_t, t)
        alpha_ts, variance = transitions.forward(schedule, s, t)
        x_s = like(2 - alpha_ts, x_t) * x_t + like(variance, x_t) * transitions.score(schedule, x_t, x_0, t)
        if is_clean(s):
            return x_s, x_0
        return x_s + like(variance.sqrt(), x_t) * noise.normal_like(x_t), x_0


@settings(frozen=True, config=STRICT)
class PredictorCorrector(EulerMaruyama, name="pc"):
    """Langevin steps at each level, and then a step of the reverse SDE (Song et al. 2021, Algorithms 1 to 5).

    A Langevin step is x + e g + sqrt(2 e) z with the score g and e = 2 (snr |z| / |g|)^2, row by row. As in the
    authors' program a level is corrected before the step that leaves it, so that the last, clean one needs no score.
    The rule is one for thousands of pixels, where |g| hardly varies. In a few dimensions it makes long steps near a
    mode and short ones far from it, which widens the law; and beyond sigma_t^2, where a step can overshoot, e ends.
    """

    title: ClassVar[str] = "predictor-corrector (Song et al. 2021)"
    cost_formula: ClassVar[str] = "steps * (corrections + 1)"

    corrections: int = Field(default=1, ge=0, le=1000, description="M, Langevin steps at a level")
    snr: float = Field(default=0.16, gt=0, description="r, how large the noise of a Langevin step is beside its drift")

    @property
    def evaluations(self) -> int:
        return self.steps * (self.corrections + 1)

    def step(self, prior: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, noise: Streams) -> tuple[Tensor, Tensor]:
        for _ in range(self.corrections):
            x_t = self._corrected(prior, x_t, t, noise.normal_like(x_t))
        return super().step(prior, x_t, t, s, noise)

    def _corrected(self, prior: Denoiser, x_t: Tensor, t: Tensor, z: Tensor) -> Tensor:
        score = transitions.score(prior.schedule, x_t, self.estimate(prior, x_t, t), t)
        ratio = z.flatten(1).norm(dim=1) / score.flatten(1).norm(dim=1)
        longest = like(prior.schedule.sigma(t) ** 2, ratio)
        return transitions.langevin(x_t, score, column((2 * (self.snr * ratio) ** 2).minimum(longest), x_t), z)
