"""VIPaint's variational family and the terms of its bound on -log p(y).

A component is a chain on the levels T_e = t_1 > ... > t_K = T_s:
    q(z_Te)         = N(m, tau_0^2),                          m = alpha mu_0
    q(z_s | z_t)    = N(g E_p[z_s | z_t] + (1 - g) alpha_s mu_s, tau_s^2)       (Agarwal et al., Eq. 12)
    q(z_t), t > T_e : q(z_Te) pushed through the forward process
and the whole is a mixture q = sum_m pi_m q_m of M chains. Bound:
    -log p(y) <= sum_m pi_m (reconstruction + hierarchy + diffusion + prior)_m - I(m; z), with
    reconstruction  E_q[-log p(y | z_Ts)],
    hierarchy       sum over the K - 1 jumps of E_q KL(q(z_s | z_t) || p(z_s | z_t)),
    diffusion       sum over pairs (t, s) above T_e of E_q(z_t) KL(q(z_s | z_t) || p(z_s | z_t)),
    prior           KL(q(z_1) || p(z_1)),
    mixing          -I(m; z) = sum_m pi_m E_q_m[log q(z_Te, ..., z_Ts) - log q_m(z_Te, ..., z_Ts)], in [-log M, 0].
The last is exact, because KL(q || p) = sum_m pi_m KL(q_m || p) - I(m; z), and above T_e all components share the
forward process, which knows nothing of m beyond z_Te.
The published objective (M = 1) conditions the diffusion pairs on z_Te instead and leaves out the prior term and the
entropy of q(z_Te); it is here as rule "released". docs/methods/vipaint.md derives both.

Shapes: R rows are (image, component, Monte-Carlo sample); every term is (R,), in nats, a sum over elements.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...diffusion import transitions
from ...diffusion.schedules import Schedule
from ...diffusion.transitions import like
from ...priors.base import Prior
from .likelihood import Likelihood
from .presets import Rules
from .variables import (
    REFERENCE_STEPS,
    Draws,
    Ladder,
    Mixture,
    Parts,
    Path,
    Variational,
)

Denoise = Callable[[Tensor, Tensor], Tensor]


def gaussian_kl(m1: Tensor, v1: Tensor, m2: Tensor, v2: Tensor) -> Tensor:
    """KL(N(m1, v1) || N(m2, v2)), elementwise, variances v."""
    return 0.5 * ((m1 - m2).square() / v2 + v1 / v2 - 1 - (v1 / v2).log())


def released_kl(m1: Tensor, v1: Tensor, m2: Tensor, v2: Tensor) -> Tensor:
    """The released code's KL: the mean term is multiplied by v2 where it should be divided by it. Not a divergence."""
    return 0.5 * (v2 * (m1 - m2).square() + v1 / v2 - 1 - (v1 / v2).log())


def log_normal(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """log N(x; mean, variance), summed over the elements of each row, (R,)."""
    return -0.5 * _sum((x - mean).square() / variance + variance.log() + math.log(2 * math.pi))


def _sum(x: Tensor) -> Tensor:
    return x.flatten(1).sum(1)


def _rows(per_level: Tensor, x: Tensor) -> Tensor:
    """(K,) in the dtype of x (N, K, C, H, W), shaped to broadcast against it."""
    return per_level.to(x)[:, None, None, None]


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
        """Where the optimiser starts, from A^+ y in the prior's space (N, C, H, W) and noise (N, 2 K, C, H, W)."""
        levels, rules = self.ladder.levels, self.rules
        count, unit = len(levels), self.prior.data_std
        mean = filled[:, None] + rules.encoding_noise * unit * noise[:, :count]
        variance = self.schedule.sigma(levels) ** 2  # of the forward process, right for row 0
        v = transitions.backward_variance(self.schedule, levels[:-1], levels[1:])
        if rules.start == "released":
            lower = mean[:, 1:] * _rows(self.schedule.alpha(levels[1:]), mean)
            lower = lower + _rows(self.schedule.sigma(levels[1:]), mean) * noise[:, count + 1 :]
            variance = torch.cat([variance[:1], 0.7**2 * v])
        else:
            lower = mean[:, 1:]
            variance = torch.cat([variance[:1], rules.gate * rules.eta**2 * v])
        top = mean[:, :1] + rules.top_noise * unit * noise[:, count : count + 1]
        logit = math.log(rules.gate) - math.log1p(-rules.gate)
        log_var = _rows(variance.log(), mean).expand_as(mean).clone()
        return Variational(torch.cat([top, lower], 1), log_var, torch.full_like(mean, logit))

    def top(self, lam: Variational) -> tuple[Tensor, Tensor]:
        """(m, tau^2) of q(z_Te), each (R, C, H, W)."""
        t_end = self.ladder.levels[0]
        variance = lam.log_var[:, 0].exp()
        return self._top_scale(variance, t_end) * lam.mean[:, 0], variance

    def _top_scale(self, variance: Tensor, t_end: Tensor) -> Tensor:
        alpha = self.schedule.alpha(t_end)
        if not self.rules.coupled_top:
            return like(alpha, variance)
        length = like(alpha**2 + self.schedule.sigma(t_end) ** 2, variance)
        return (length - variance).clamp(min=1e-4).sqrt()

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

    def ancestral(self, lam: Variational, noise: Tensor) -> Tensor:
        """z_Ts (R, C, H, W) from noise (R, K, C, H, W); K - 1 network calls."""
        return self.path(lam, noise).levels[-1]

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

    def pushed(self, m: Tensor, variance: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of q(z_t), t >= T_e: N(m, variance) through the forward process; t 0-d or (R,)."""
        ratio, added = transitions.forward(self.schedule, self.ladder.levels[0].expand_as(t), t)
        return like(ratio, m) * m, like(added, m) + like(ratio**2, m) * variance

    def prior_part(self, m: Tensor, variance: Tensor) -> Tensor:
        """KL(q(z_1) || p(z_1)), (R,)."""
        mean, spread = self.pushed(m, variance, torch.ones((), dtype=torch.float64))
        width = self.prior.initial(torch.ones_like(m[:1]))
        return _sum(gaussian_kl(mean, spread, torch.zeros_like(mean), width.square()))

    def diffusion_part(self, m: Tensor, variance: Tensor, noise: Tensor, pair: Tensor) -> Tensor:
        """n E KL(q(z_s | z_t) || p(z_s | z_t)) for one of the n pairs a row, (R,): unbiased for the sum when the pair
        is uniform and z_t ~ q(z_t) comes from ``noise`` (R, C, H, W). One network call.

        q(z_t) is Gaussian and reverse-Markov: z_s | z_t has mean M_s + alpha_{t|s} v_s / v_t (z_t - M_t) and variance
        v_s var_{t|s} / v_t.
        """
        t, s = self.ladder.pairs[pair.to(self.ladder.pairs.device)].unbind(1)
        (mean_t, v_t), (mean_s, v_s) = self.pushed(m, variance, t), self.pushed(m, variance, s)
        z_t = mean_t + v_t.sqrt() * noise
        ratio, added = transitions.forward(self.schedule, s, t)
        q_mean = mean_s + like(ratio, m) * v_s * v_t.rsqrt() * noise
        q_var = v_s * like(added, m) / v_t
        p_mean = transitions.step_mean(self.schedule, z_t, self.denoise(z_t, t), t, s)
        p_var = like(transitions.backward_variance(self.schedule, t, s), m)
        return len(self.ladder.pairs) * _sum(gaussian_kl(q_mean, q_var, p_mean, p_var))

    def released_diffusion_part(self, lam: Variational, z_end: Tensor, noise: Tensor, pair: Tensor) -> Tensor:
        """The released top term: both sides given z_Te, wrong weight of the noise in the estimate of z_Te, its KL."""
        t, s = self.ladder.pairs[pair.to(self.ladder.pairs.device)].unbind(1)
        t_end = self.ladder.levels[0]
        variance = lam.log_var[:, 0].exp()
        alpha = self._top_scale(variance, t_end)
        rise, added = self._from_end(t, alpha, variance)
        z_t = rise * z_end + added.sqrt() * noise
        eps = transitions.epsilon(self.schedule, z_t, self.denoise(z_t, t), t)
        q = self._between(z_t, z_end, t, s, alpha, variance)
        p = self._between(z_t, self.released_end(z_t, eps, t), t, s, *self._end(z_t))
        return (1 - float(t_end)) * REFERENCE_STEPS / 2 * _sum(released_kl(*q, *p))

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
        ratio = like(self.schedule.alpha(t), variance) / alpha
        # 1e-6: a learned variance above the schedule's at t would give a negative number.
        return ratio, (like(self.schedule.sigma(t) ** 2, variance) - ratio.square() * variance).clamp(min=1e-6)

    def _between(
        self, z_t: Tensor, z_end: Tensor, t: Tensor, s: Tensor, alpha: Tensor, variance: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(mean, variance) of z_s | z_t, z_Te for T_e < s < t."""
        ratio, added = (like(value, z_t) for value in transitions.forward(self.schedule, s, t))
        rise, spread = self._from_end(s, alpha, variance)
        precision = 1 / spread + ratio.square() / added
        return (rise * z_end / spread + ratio * z_t / added) / precision, 1 / precision

    def parts(self, lam: Variational, likelihood: Likelihood, draws: Draws) -> tuple[Parts, Path, Tensor]:
        """The parts of one component's bound for R rows, the path z and D(z_Ts); K + 1 network calls.

        ``mixing`` is 0: it needs the other components, see ``log_mixture``.
        """
        kl = gaussian_kl if self.rules.kl == "exact" else released_kl
        m, variance = self.top(lam)
        path = self.path(lam, draws.levels)
        if self.rules.top == "marginal":
            diffusion = self.diffusion_part(m, variance, draws.top, draws.pair)
            prior = self.prior_part(m, variance)
        else:
            diffusion = self.released_diffusion_part(lam, path.levels[0], draws.top, draws.pair)
            prior = torch.zeros_like(diffusion)
        hierarchy = torch.zeros_like(diffusion)
        for level, prior_kernel in enumerate(zip(path.prior_means, path.prior_variances, strict=True), start=1):
            hierarchy = hierarchy + _sum(kl(*self.jump(lam, level, prior_kernel[0]), *prior_kernel))
        x_0 = self.denoise(path.levels[-1], self.ladder.levels[-1])
        reconstruction = likelihood.negative_log(x_0)
        return Parts(reconstruction, hierarchy, diffusion, prior, torch.zeros_like(prior)), path, x_0
