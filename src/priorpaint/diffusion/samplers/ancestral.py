"""DDIM and DDPM: steps down that keep the marginals where the denoiser is right about x_0."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from ...errors import UsageError
from .. import transitions
from ..denoiser import Denoiser
from ..rng import Streams
from ..schedules import Schedule
from ..transitions import Variance, like
from .base import STRICT, Sampler, is_clean


@settings(frozen=True, config=STRICT)
class DDIM(Sampler, name="ddim"):
    """x_s = alpha_s D + sqrt(sigma_s^2 - eta^2 v) eps + eta sqrt(v) z (Song, Meng and Ermon 2021, Eq. 12)."""

    title: ClassVar[str] = "DDIM (Song, Meng and Ermon 2021)"
    cost_formula: ClassVar[str] = "steps"

    eta: float = Field(default=0.0, ge=0, le=1, description="noise of a step: 0 is none, 1 is DDPM's small variance")

    @property
    def evaluations(self) -> int:
        return self.steps

    def step(self, prior: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, noise: Streams) -> tuple[Tensor, Tensor]:
        x_0 = self.estimate(prior, x_t, t)
        return ddim_step(prior.schedule, x_t, x_0, t, s, noise, self.eta), x_0


def ddim_step(schedule: Schedule, x_t: Tensor, x_0: Tensor, t: Tensor, s: Tensor, noise: Streams, eta: float) -> Tensor:
    """STEP(eta): x_s (N, C, H, W) from x_t and the estimate x_0; nothing is drawn where eta = 0."""
    if eta == 0:
        return transitions.ddim(schedule, x_t, x_0, t, s)
    return transitions.step(schedule, x_t, x_0, t, s, noise.normal_like(x_t), eta)


@settings(frozen=True, config=STRICT)
class DDPM(Sampler, name="ddpm"):
    """Ancestral sampling (Ho et al. 2020, Algorithm 2), with the variance of `transitions.ancestral_variance`."""

    title: ClassVar[str] = "DDPM, ancestral sampling (Ho et al. 2020; learned variance: Nichol and Dhariwal 2021)"
    cost_formula: ClassVar[str] = "steps"

    variance: Variance | None = Field(
        default=None,
        description="variance of a step: 'small' (beta-tilde), 'large' (beta), 'learned' between the two; none is what "
        "the network learned, where it did, and else small",
    )

    @property
    def evaluations(self) -> int:
        return self.steps

    def check(self, *, latent: bool, learned_variance: bool) -> None:
        super().check(latent=latent, learned_variance=learned_variance)
        if self.variance == "learned" and not learned_variance:
            raise UsageError("this prior has learned no variance; use the variance small or large")

    def step(self, prior: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, noise: Streams) -> tuple[Tensor, Tensor]:
        schedule, out = prior.schedule, self.clipped(prior.evaluate(x_t, t))
        kind = self.variance or ("small" if out.variance_share is None else "learned")
        if kind == "small" or is_clean(s):  # the last step adds no noise
            return ddim_step(schedule, x_t, out.mean, t, s, noise, 1.0), out.mean
        mean = transitions.step_mean(schedule, x_t, out.mean, t, s)
        variance = transitions.ancestral_variance(schedule, t, s, kind, out.variance_share)
        return mean + like(variance.sqrt(), x_t) * noise.normal_like(x_t), out.mean
