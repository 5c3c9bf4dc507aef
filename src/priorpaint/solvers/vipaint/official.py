"""Preset ``official``: the VIPaint of the released code, with what it does otherwise than the corrected method.

github.com/SakshiAgarwal/VIPaint (HEAD 9ec3fca); docs/methods/vipaint.md lists the differences and what they cost. Its
objective (M = 1) conditions the diffusion pairs on z_Te and leaves out the prior term and the entropy of q(z_Te).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...diffusion import transitions
from ...diffusion.schedules import Schedule
from ...diffusion.transitions import like
from .bound import Bound
from .family import over_elements, per_level
from .presets import PUBLISHED, Rules
from .variables import Draws, Variational, neighbours

REFERENCE_STEPS = 1000  # the table of the released code, in which its grid is written


@dataclass(frozen=True)
class OfficialRules(Rules):
    """``top_steps`` 0 is the released grid."""

    @property
    def is_bound(self) -> bool:
        return False

    def rate(self, iteration: int) -> float:
        return float(0.99 ** (iteration // 10))

    def weights(self, pixels: int, elements: int) -> tuple[float, float]:
        return 100 / pixels, 1 / elements

    def pairs(self, schedule: Schedule, t_end: float) -> Tensor:
        return super().pairs(schedule, t_end) if self.top_steps else released_pairs(t_end)

    def complaint(self, perceptual: str | None) -> str | None:
        if perceptual is not None or self.perceptual_weight == 0:
            return None
        return (
            "the published VIPaint adds LPIPS to its L1 loss, and this runs on L1 alone; pass perceptual=... (or "
            "perceptual_weight=0 to have it so)"
        )


OFFICIAL = OfficialRules(
    iterations=50,
    mc_samples=5,
    lr=0.1,
    lr_log_var=0.01,
    lr_gate=0.1,
    beta=100.0,
    top_steps=0,
    likelihood="laplace",
    likelihood_scale=1.0,
    perceptual_weight=1.0,
    fit_cfg=1.0,
    sample_cfg=3.0,
    levels_at=PUBLISHED,
    eta=0.2**0.5,
    gate=1 / (1 + math.exp(-5)),
    fill_steps=0,
    encoding_noise=1.0,
    top_noise=0.8,
    refine_guidance="loss",
    refine_steps=400,
    refine_scale=0.2,
    refine_eta=0.2,
    refine_noise=False,
)


def released_kl(m1: Tensor, v1: Tensor, m2: Tensor, v2: Tensor) -> Tensor:
    """The released code's KL: the mean term is multiplied by v2 where it should be divided by it. Not a divergence."""
    return 0.5 * (v2 * (m1 - m2).square() + v1 / v2 - 1 - (v1 / v2).log())


class OfficialBound(Bound):
    """The released objective; its KL terms are no divergences, and their sum is no bound."""

    def start_below(self, mean: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Noised twice, with 0.7 of the prior's standard deviation."""
        levels = self.ladder.levels[1:]
        lower = mean * per_level(self.schedule.alpha(levels), mean)
        return lower + per_level(self.schedule.sigma(levels), mean) * noise, 0.7**2 * self.jump_variance

    def top_scale(self, variance: Tensor) -> Tensor:
        """(alpha^2 + sigma^2 - tau_0^2)^(1/2), so that mean and variance are coupled."""
        t_end = self.ladder.levels[0]
        length = like(self.schedule.alpha(t_end) ** 2 + self.schedule.sigma(t_end) ** 2, variance)
        return (length - variance).clamp(min=1e-4).sqrt()

    def kl(self, m1: Tensor, v1: Tensor, m2: Tensor, v2: Tensor) -> Tensor:
        return released_kl(m1, v1, m2, v2)

    def above(self, lam: Variational, z_end: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """The released top term, both sides given z_Te, with its KL and its estimate of z_Te; and 0."""
        noise, pair = draws.top, draws.pair
        t, s = self.ladder.pairs[pair.to(self.ladder.pairs.device)].unbind(1)
        t_end = self.ladder.levels[0]
        variance = lam.log_var[:, 0].exp()
        alpha = self.top_scale(variance)
        rise, added = self._from_end(t, alpha, variance)
        z_t = rise * z_end + added.sqrt() * noise
        eps = transitions.epsilon(self.schedule, z_t, self.denoise(z_t, t), t)
        q = self._between(z_t, z_end, t, s, alpha, variance)
        p = self._between(z_t, self.released_end(z_t, eps, t), t, s, *self._end(z_t))
        diffusion = (1 - float(t_end)) * REFERENCE_STEPS / 2 * over_elements(released_kl(*q, *p))
        return diffusion, torch.zeros_like(diffusion)

    def released_end(self, z_t: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """The released estimate of z_Te from z_t (R, C, H, W): its noise should be weighted by var_{t|e} / sigma_t, not
        by sqrt(var_{t|e})."""
        rise, added = self._from_end(t, *self._end(z_t))
        return (z_t - added.sqrt() * eps) / rise

    def _end(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma^2 at T_e, in the shape of z."""
        t_end = self.ladder.levels[0]
        alpha, sigma = float(self.schedule.alpha(t_end)), float(self.schedule.sigma(t_end))
        return torch.full_like(z, alpha), torch.full_like(z, sigma**2)

    def _from_end(self, t: Tensor, alpha: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha_{t|e}, var_{t|e}) with a signal scale and a variance at T_e that need not be the schedule's."""
        rise = like(self.schedule.alpha(t), variance) / alpha
        # 1e-6: a learned variance above the schedule's at t would give a negative number.
        return rise, (like(self.schedule.sigma(t) ** 2, variance) - rise.square() * variance).clamp(min=1e-6)

    def _between(
        self, z_t: Tensor, z_end: Tensor, t: Tensor, s: Tensor, alpha: Tensor, variance: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(mean, variance) of z_s | z_t, z_Te for T_e < s < t."""
        alpha_ts, added = (like(value, z_t) for value in transitions.forward(self.schedule, s, t))
        rise, added_s = self._from_end(s, alpha, variance)
        precision = 1 / added_s + alpha_ts.square() / added
        return (rise * z_end / added_s + alpha_ts * z_t / added) / precision, 1 / precision


def released_pairs(end: float) -> Tensor:
    """The pairs (n, 2) of the released code above T_e = ``end``.

    1000 points with Karras spacing, rho = 7, from 0.002 to 0.999, applied to the index and not to sigma; the two points
    nearest T_e are never the upper end of a pair.
    """
    low, high = 0.002 ** (1 / 7), 0.999 ** (1 / 7)
    points = torch.linspace(low, high, REFERENCE_STEPS, dtype=torch.float64) ** 7
    times = (torch.unique_consecutive((points * REFERENCE_STEPS).floor()) + 1) / REFERENCE_STEPS
    return neighbours(times[times > end + 1e-9][1:].flip(0))
