"""DDIM and DDPM: steps down that keep the marginals where the denoiser is right about x_0."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from ...errors import UsageError
from .. import transitions
from ..denoiser import Denoiser, Variance, not_learned
from ..rng import Streams
from ..schedules import Schedule
from .base import STRICT, Sampler

_ETA = "noise of a step: 0 is none, 1 is DDPM's ancestral step"
_VARIANCE = (
    "variance of an ancestral step: 'small' (beta-tilde), 'large' (beta), 'learned' between the two; none is what the "
    "network learned, where it did, and else small"
)


@settings(frozen=True, config=STRICT)
class DDIM(Sampler, name="ddim"):
    """x_s = alpha_s D + sqrt(sigma_s^2 - eta^2 v) eps + eta sqrt(v) z (Song, Meng and Ermon 2021, Eq. 12).

    Raises:
        UsageError: another variance than 'small' with eta < 1; in a step, 'learned' and nothing was.
    """

    title: ClassVar[str] = "DDIM (Song, Meng and Ermon 2021)"
    cost_formula: ClassVar[str] = "steps"

    eta: float = Field(default=0.0, ge=0, le=1, description=_ETA)
    variance: Variance | None = Field(default="small", description=_VARIANCE)

    def __post_init__(self) -> None:
        check_variance(self.variance, self.eta)

    @property
    def evaluations(self) -> int:
        return self.steps

    def check(self, *, latent: bool, learned_variance: bool) -> None:
        super().check(latent=latent, learned_variance=learned_variance)
        if self.variance == "learned" and not learned_variance:
            raise not_learned("given")

    def step(self, prior: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, noise: Streams) -> tuple[Tensor, Tensor]:
        out = self.clipped(prior.evaluate(x_t, t))
        share = out.share(self.variance) if self.eta == 1 else 0.0
        return ddim_step(prior.schedule, x_t, out.mean, t, s, noise, self.eta, share), out.mean


def check_variance(variance: str | None, eta: float) -> None:
    """Raise UsageError where a variance other than the small one is asked of a step that is not ancestral."""
    if variance in ("large", "learned") and eta != 1:
        raise UsageError(
            f"variance {variance!r} belongs to an ancestral step, and eta = {eta:g} takes another; pass eta=1 with it "
            "or leave it out"
        )


def ddim_step(
    schedule: Schedule,
    x_t: Tensor,
    x_0: Tensor,
    t: Tensor,
    s: Tensor,
    noise: Streams,
    eta: float,
    share: Tensor | float = 0.0,
) -> Tensor:
    """STEP(eta): x_s (N, C, H, W) from x_t and the estimate x_0; nothing is drawn where eta = 0."""
    if eta == 0:
        return transitions.ddim(schedule, x_t, x_0, t, s)
    return transitions.step(schedule, x_t, x_0, t, s, noise.normal_like(x_t), eta, share)


@settings(frozen=True, config=STRICT)
class DDPM(DDIM, name="ddpm"):
    """Ancestral sampling: STEP(1) (Ho et al. 2020, Algorithm 2), by default with the variance that was learned."""

    title: ClassVar[str] = "DDPM, ancestral sampling (Ho et al. 2020; learned variance: Nichol and Dhariwal 2021)"

    eta: float = Field(default=1.0, ge=0, le=1, description=_ETA)
    variance: Variance | None = Field(default=None, description=_VARIANCE)
