"""VIPaint's variational family q beside the prior p: chains on a few levels, their jumps, densities and paths.

A component is a chain on the levels T_e = t_1 > ... > t_K = T_s:
    q(z_Te)         = N(m, tau_0^2),                          m = alpha mu_0
    q(z_s | z_t)    = N(g E_p[z_s | z_t] + (1 - g) alpha_s mu_s, tau_s^2)       (Agarwal et al., Eq. 12)
    q(z_t), t > T_e : q(z_Te) through the forward process
and the whole is a mixture q = sum_m pi_m q_m of M chains.

Shapes: R rows are (image, component, Monte-Carlo sample).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...diffusion import transitions
from ...diffusion.schedules import Schedule
from ...diffusion.transitions import like, row_sum
from ...priors.base import Prior
from .presets import Rules
from .variables import Ladder, Mixture, Path, Variational

Denoise = Callable[[Tensor, Tensor], Tensor]


def log_normal(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """log N(x; mean, variance), summed over the elements of each row, (R,)."""
    return -0.5 * over_elements((x - mean).square() / variance + variance.log() + math.log(2 * math.pi))


def over_elements(x: Tensor) -> Tensor:
    """The sum over the elements of each row, (R,)."""
    return row_sum(x)


def per_level(values: Tensor, x: Tensor) -> Tensor:
    """(K,) in the dtype of x (N, K, C, H, W), shaped to broadcast against it."""
    return values.to(x)[:, None, None, None]


@dataclass(frozen=True)
class Family:
    """q and p side by side: everything that needs the prior.

    Attributes:
        prior: the prior.
        ladder: times.
        rules: choices of the preset.
        denoise: D(z_t, t) of rows, ``prior.denoise`` or a form of it.
    """

    prior: Prior
    ladder: Ladder
    rules: Rules
    denoise: Denoise

    @property
    def schedule(self) -> Schedule:
        """Noise schedule of the prior."""
        return self.prior.schedule

    def start(self, filled: Tensor, noise: Tensor) -> Variational:
        """Where the optimiser starts, from A^+ y in the prior's space (N, C, H, W) and noise (N, 2 K, C, H, W): row 0
        with the forward process's variance, lower ones with what the gate leaves of the prior's jump."""
        levels, rules = self.ladder.levels, self.rules
        count, unit = len(levels), self.prior.data_std
        mean = filled[:, None] + rules.encoding_noise * unit * noise[:, :count]
        top = mean[:, :1] + rules.top_noise * unit * noise[:, count : count + 1]
        lower, variance = self.start_below(mean[:, 1:], noise[:, count + 1 :])
        variance = torch.cat([self.schedule.sigma(levels[:1]) ** 2, variance])
        logit = math.log(rules.gate) - math.log1p(-rules.gate)
        log_var = per_level(variance.log(), mean).expand_as(mean).clone()
        return Variational(torch.cat([top, lower], 1), log_var, torch.full_like(mean, logit))

    def start_below(self, mean: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """mu (N, K - 1, C, H, W) and tau^2 (K - 1,) of the levels below T_e, from rough means and noise like them."""
        return mean, self.rules.gate * self.rules.eta**2 * self.jump_variance

    @property
    def jump_variance(self) -> Tensor:
        """v of the K - 1 jumps of the prior at eta = 1, (K - 1,)."""
        return transitions.backward_variance(self.schedule, self.ladder.levels[:-1], self.ladder.levels[1:])

    def top(self, lam: Variational) -> tuple[Tensor, Tensor]:
        """(m, tau^2) of q(z_Te), each (R, C, H, W)."""
        variance = lam.log_var[:, 0].exp()
        return self.top_scale(variance) * lam.mean[:, 0], variance

    def top_scale(self, variance: Tensor) -> Tensor:
        """m / mu_0 for a variance tau_0^2: alpha at T_e."""
        return like(self.schedule.alpha(self.ladder.levels[0]), variance)

    def prior_jump(self, level: int, z_t: Tensor) -> tuple[Tensor, Tensor]:
        """(mean (R, C, H, W), variance 0-d) of p(z_s | z_t) from level - 1 to level; one network call."""
        t, s = self.ladder.levels[level - 1], self.ladder.levels[level]
        x_0 = self.denoise(z_t, t)
        mean = transitions.step_mean(self.schedule, z_t, x_0, t, s, self.rules.eta)
        return mean, like(self.rules.eta**2 * transitions.backward_variance(self.schedule, t, s), z_t)

    def jump(self, lam: Variational, level: int, prior_mean: Tensor) -> tuple[Tensor, Tensor]:
        """(mean, tau^2) of q(z_s | z_t), each (R, C, H, W) (Eq. 12)."""
        g = torch.sigmoid(lam.gate[:, level])
        own = like(self.schedule.alpha(self.ladder.levels[level]), prior_mean) * lam.mean[:, level]
        return g * prior_mean + (1 - g) * own, lam.log_var[:, level].exp()

    def path(self, lam: Variational, noise: Tensor) -> Path:
        """z_Te, ..., z_Ts from noise (R, K, C, H, W); K - 1 network calls."""
        m, variance = self.top(lam)
        path = Path([m + variance.sqrt() * noise[:, 0]], [], [])
        for level in range(1, noise.shape[1]):
            prior_mean, prior_variance = self.prior_jump(level, path.levels[-1])
            mean, variance = self.jump(lam, level, prior_mean)
            path.levels.append(mean + variance.sqrt() * noise[:, level])
            path.prior_means.append(prior_mean)
            path.prior_variances.append(prior_variance)
        return path

    def log_q(self, lam: Variational, path: Path) -> Tensor:
        """log q_m(z_Te, ..., z_Ts) of the component ``lam`` of each row, (R,); no network call."""
        total = log_normal(path.levels[0], *self.top(lam))
        for level, prior_mean in enumerate(path.prior_means, start=1):
            total = total + log_normal(path.levels[level], *self.jump(lam, level, prior_mean))
        return total

    def log_mixture(self, lam: Mixture, images: Tensor, path: Path) -> Tensor:
        """log pi_m q_m(z_Te, ..., z_Ts) of every component of each row's image, (R, M)."""
        parts = [self.log_q(lam.rows(images, m), path) for m in range(lam.count)]
        return lam.log_weights[images.to(lam.logits.device)] + torch.stack(parts, 1)

    def marginal(self, m: Tensor, variance: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of q(z_t), t >= T_e: N(m, variance) through the forward process; t 0-d or (R,)."""
        alpha_ts, added = transitions.forward(self.schedule, self.ladder.levels[0].expand_as(t), t)
        return like(alpha_ts, m) * m, like(added, m) + like(alpha_ts**2, m) * variance
