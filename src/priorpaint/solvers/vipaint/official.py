"""Presets ``official-*``: the VIPaint of the released code, with what it does otherwise than the corrected method.

github.com/SakshiAgarwal/VIPaint (HEAD 9ec3fca); docs/methods/vipaint.md lists the differences and what they cost. Its
objective (M = 1) conditions the diffusion pairs on z_Te and leaves out the prior term and the entropy of q(z_Te).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from ...diffusion import transitions
from ...diffusion.schedules import VP
from ...diffusion.transitions import like
from ...priors.base import Prior
from .bound import Bound
from .family import over_elements, per_level
from .presets import PUBLISHED, Rules
from .variables import Draws, Variational, neighbours

REFERENCE_STEPS = 1000  # the table of the released code, in which its grid is written


@dataclass(frozen=True)
class OfficialRules(Rules):
    """A published run, whose levels are indices of a table of 1000 betas; ``top_steps`` 0 is the released grid.

    On a schedule with a table of 1000 the levels are those very indices. On others (EDM's run on ImageNet-64, for one,
    whose settings are not published) they are the noise ratios of the run's own table, in units of data_std, and phase
    2 takes the schedule's own grid.
    """

    beta_end: float = 0.0195

    @property
    def is_bound(self) -> bool:
        return False

    def rate(self, iteration: int) -> float:
        return float(0.99 ** (iteration // 10))

    def weights(self, pixels: int, elements: int) -> tuple[float, float]:
        return 100 / pixels, 1 / elements

    def ends(self, prior: Prior, levels: int) -> tuple[float, float]:
        """Indices 400 and 550, with more than four levels 400 and 50 more for each."""
        index = torch.tensor([400, max(550, 350 + 50 * levels)], dtype=torch.float64)
        low, high = self.times(prior, index).tolist()
        return low, high

    def between(self, prior: Prior, high: float, low: float, steps: int) -> Tensor:
        top, bottom = self.index_of(prior, high), self.index_of(prior, low)
        times = self.times(prior, torch.linspace(top, bottom, steps + 1, dtype=torch.float64))
        times[0], times[-1] = high, low
        return times

    def pairs(self, prior: Prior, t_end: float) -> Tensor:
        if self.top_steps:
            return super().pairs(prior, t_end)
        index = released_pairs(self.index_of(prior, t_end))
        times = self.times(prior, index.flatten()).reshape(index.shape)
        return times[times[:, 0] < 1]  # a schedule without a table may end before the run's own does

    def down(self, prior: Prior, t_start: float) -> Tensor:
        if self.table_of(prior) is None:
            return super().down(prior, t_start)
        top = self.index_of(prior, t_start)
        times = self.times(prior, torch.linspace(top, 0, self.refine_steps + 1, dtype=torch.float64))
        times[-1] = 0
        return times

    def table_of(self, prior: Prior) -> VP | None:
        """The prior's own table, if it has 1000 betas."""
        schedule = prior.schedule
        return schedule if isinstance(schedule, VP) and len(schedule.betas) == REFERENCE_STEPS else None

    def times(self, prior: Prior, index: Tensor) -> Tensor:
        """The times of indices (n,), float64, of which index 0 is the cleanest."""
        t = (index + 1) / REFERENCE_STEPS
        if self.table_of(prior) is not None:
            return t
        return prior.schedule.time_at(self._table.log_nsr(t).exp() * prior.data_std)

    def index_of(self, prior: Prior, t: float) -> float:
        """The index, not rounded, of a time."""
        time = torch.tensor(t, dtype=torch.float64)
        if self.table_of(prior) is None:
            time = self._table.time_at(prior.schedule.log_nsr(time).exp() / prior.data_std)
        return float(time) * REFERENCE_STEPS - 1

    @cached_property
    def _table(self) -> VP:
        return VP("scaled_linear", REFERENCE_STEPS, 0.0015, self.beta_end)

    def complaint(self, perceptual: str | None) -> str | None:
        if perceptual is not None or self.perceptual_weight == 0:
            return None
        return (
            "the published VIPaint adds LPIPS to its L1 loss, and this runs on L1 alone; pass perceptual=... (or "
            "perceptual_weight=0 to have it so)"
        )


_IMAGENET = OfficialRules(
    iterations=50,
    mc_samples=5,
    lr=0.1,
    lr_log_var=0.01,
    lr_gate=0.1,
    beta=100.0,
    top_steps=0,
    likelihood="laplace",
    likelihood_scale=2 * 0.566**2,
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
    refine_scale=2 / 5,  # 2 on a batch's mean loss, of 5 samples
    refine_eta=0.2,
    refine_noise=False,
)
OFFICIAL: Mapping[str, OfficialRules] = {
    # imagenet_config.yaml: ImageNet-256, latents of a VQ autoencoder, under the class of the picture.
    "official-imagenet": _IMAGENET,
    # lsun_config.yaml: LSUN-Churches-256, latents of a KL autoencoder, without condition.
    "official-lsun": replace(
        _IMAGENET,
        mc_samples=10,
        likelihood_scale=1.0,
        sample_cfg=1.0,
        gate=1 / (1 + math.exp(-4)),
        top_noise=0.1,
        refine_scale=2 / 10,
        beta_end=0.0155,
    ),
}


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
        rules = cast(OfficialRules, self.rules)
        steps = REFERENCE_STEPS - rules.index_of(self.prior, float(t_end))
        diffusion = steps / 2 * over_elements(released_kl(*q, *p))
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
    """The pairs of indices (n, 2) of the released code above the index ``end`` of T_e, float64.

    1000 points with Karras spacing, rho = 7, from 0.002 to 0.999, applied to the index and not to sigma; the two points
    nearest T_e are never the upper end of a pair.
    """
    low, high = 0.002 ** (1 / 7), 0.999 ** (1 / 7)
    points = torch.linspace(low, high, REFERENCE_STEPS, dtype=torch.float64) ** 7
    index = torch.unique_consecutive((points * REFERENCE_STEPS).floor())
    return neighbours(index[index > end + 1e-6][1:].flip(0))
