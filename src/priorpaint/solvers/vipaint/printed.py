"""Preset ``printed``: VIPaint as its paper prints it (Agarwal et al. 2024, Eq. 11-14 and Sec. 4.3).

Where the paper is silent (its Appendix E.1 is not public), the settings are those of the released run on LSUN-Churches:
the levels, the optimiser and its rates, the first gate. The released code does otherwise than the paper in its KL, its
jumps, its start, its estimate of z_Te and its phase 2; docs/methods/vipaint.md has both beside each other.

Eq. 14 conditions the steps above T_e on z_Te and leaves out the entropy of q(z_Te) and the step that reaches T_e: so
Eq. 13 is no bound on -log p(y), even at beta = 1, and ``bound`` is.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import cast

import torch
from torch import Tensor

from ...diffusion import transitions
from ...diffusion.transitions import gaussian_kl, like
from ...priors.base import Prior
from .bound import Bound
from .family import over_elements
from .official import OFFICIAL, REFERENCE_STEPS, OfficialRules
from .variables import Draws, Variational


@dataclass(frozen=True)
class PrintedRules(OfficialRules):
    """Eq. 13 in nats: sums over the elements, the L1 loss being a Laplace density of unit scale."""

    def weights(self, pixels: int, elements: int) -> tuple[float, float]:
        return 1.0, 1.0

    def pairs(self, prior: Prior, t_end: float) -> Tensor:
        """Without the step that reaches T_e, whose KL given z_Te is infinite."""
        pairs = super().pairs(prior, t_end)
        return pairs[pairs[:, 1] > t_end]


_SILENT = OFFICIAL["official-lsun"]  # what the paper does not say
PRINTED = PrintedRules(
    **{field.name: getattr(_SILENT, field.name) for field in fields(_SILENT)}
    | {
        "beta": 2.0,  # "beta > 1" is all that is printed
        "eta": 1.0,  # p(z_s | z_t) of Eq. 3, DDPM's
        "encoding_noise": 0.0,
        "top_noise": 0.0,
        "sample_cfg": None,
        "fit_cfg": None,
        "refine_guidance": "norm",  # DPS, with its published step for masks
        "refine_scale": 0.5,
        "refine_eta": 1.0,
        "refine_noise": True,
    }
)


class PrintedBound(Bound):
    """The objective of Eq. 13, with the diffusion loss of Eq. 14."""

    def start_below(self, mean: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """mu = alpha_s Enc(y), and the posterior's variance of the noise schedule (Sec. 4.1)."""
        return mean, self.jump_variance

    def above(self, lam: Variational, z_end: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """(T - T_e) / 2 KL(q(z_s | z_t, z_Te) || p(z_s | z_t)) of a random pair (t, s) above T_e; and 0."""
        t, s = self.ladder.pairs[draws.pair.to(self.ladder.pairs.device)].unbind(1)
        end = self.ladder.levels[0].expand_as(t)
        rise, added = transitions.forward(self.schedule, end, t)
        z_t = like(rise, z_end) * z_end + like(added.sqrt(), z_end) * draws.top
        p_mean = transitions.step_mean(self.schedule, z_t, self.denoise(z_t, t), t, s)
        p_variance = like(transitions.backward_variance(self.schedule, t, s), z_end)
        kl = gaussian_kl(*self._bridge(z_end, z_t, t, s), p_mean, p_variance)
        steps = REFERENCE_STEPS - cast(OfficialRules, self.rules).index_of(self.prior, float(self.ladder.levels[0]))
        diffusion = steps / 2 * over_elements(kl)
        return diffusion, torch.zeros_like(diffusion)

    def _bridge(self, z_end: Tensor, z_t: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """(mean, variance) of z_s | z_t, z_Te for T_e < s < t, by the forward process."""
        rise, added = transitions.forward(self.schedule, self.ladder.levels[0].expand_as(s), s)
        alpha_ts, added_ts = transitions.forward(self.schedule, s, t)
        variance = 1 / (1 / added + alpha_ts.square() / added_ts)
        mean = like(variance * rise / added, z_t) * z_end + like(variance * alpha_ts / added_ts, z_t) * z_t
        return mean, like(variance, z_t)
