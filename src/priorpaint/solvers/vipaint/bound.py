"""VIPaint's bound on -log p(y), for a mixture q = sum_m pi_m q_m of the chains of ``family``.

    -log p(y) <= sum_m pi_m (reconstruction + hierarchy + diffusion + prior)_m - I(m; z), with
    1. reconstruction  E_q[-log p(y | z_Ts)],
    2. hierarchy       sum over the K - 1 jumps of E_q KL(q(z_s | z_t) || p(z_s | z_t)),
    3. diffusion       sum over pairs (t, s) above T_e of E_q(z_t) KL(q(z_s | z_t) || p(z_s | z_t)),
       prior           KL(q(z_1) || p(z_1)),
    and mixing         -I(m; z) = sum_m pi_m E_q_m[log q(z_Te, ..., z_Ts) - log q_m(z_Te, ..., z_Ts)], in [-log M, 0].
The last, of ``fit``, is exact, because KL(q || p) = sum_m pi_m KL(q_m || p) - I(m; z), and above T_e all components
share the forward process, which knows nothing of m beyond z_Te. docs/methods/vipaint.md derives it.

Shapes: R rows are (image, component, Monte-Carlo sample); every term is (R,), in nats, a sum over elements.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...diffusion import transitions
from ...diffusion.transitions import gaussian_kl, like
from .family import Family, over_elements
from .likelihood import Likelihood
from .variables import Draws, Parts, Path, Variational


class Bound(Family):
    """The terms for one component a row."""

    def parts(self, lam: Variational, likelihood: Likelihood, draws: Draws) -> tuple[Parts, Path, Tensor]:
        """The parts for R rows, the path z and D(z_Ts); K + 1 network calls.

        ``mixing`` is 0: it needs the other components, see ``Family.log_mixture``.
        """
        path = self.path(lam, draws.levels)

        # 1. Reconstruction: -log p(y | z_Ts), through the estimate D(z_Ts).
        x_0 = self.denoise(path.levels[-1], self.ladder.levels[-1])
        reconstruction = likelihood.negative_log(x_0)

        # 2. Levels: KL(q(z_s | z_t) || p(z_s | z_t)) of each jump.
        hierarchy = torch.zeros_like(reconstruction)
        for level, p in enumerate(zip(path.prior_means, path.prior_variances, strict=True), start=1):
            hierarchy = hierarchy + over_elements(self.kl(*self.jump(lam, level, p[0]), *p))

        # 3. Top: what carries q(z_Te) up to pure noise, one random pair of the grid a row.
        diffusion, prior = self.above(lam, path.levels[0], draws)
        return Parts(reconstruction, hierarchy, diffusion, prior, torch.zeros_like(prior)), path, x_0

    def kl(self, m1: Tensor, v1: Tensor, m2: Tensor, v2: Tensor) -> Tensor:
        """KL of a jump, elementwise."""
        return gaussian_kl(m1, v1, m2, v2)

    def above(self, lam: Variational, z_end: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """(diffusion, prior) from z_Te = ``z_end``; one network call."""
        m, variance = self.top(lam)
        return self.diffusion_part(m, variance, draws.top, draws.pair), self.prior_part(m, variance)

    def diffusion_part(self, m: Tensor, variance: Tensor, noise: Tensor, pair: Tensor) -> Tensor:
        """n E KL(q(z_s | z_t) || p(z_s | z_t)) for one of the n pairs a row, (R,): unbiased for the sum when the pair
        is uniform and z_t ~ q(z_t) comes from ``noise`` (R, C, H, W). One network call.

        q(z_t) is Gaussian and reverse-Markov: z_s | z_t has mean M_s + alpha_{t|s} v_s / v_t (z_t - M_t) and variance
        v_s var_{t|s} / v_t.
        """
        t, s = self.ladder.pairs[pair.to(self.ladder.pairs.device)].unbind(1)
        (mean_t, v_t), (mean_s, v_s) = self.marginal(m, variance, t), self.marginal(m, variance, s)
        z_t = mean_t + v_t.sqrt() * noise
        alpha_ts, added = transitions.forward(self.schedule, s, t)
        q_mean = mean_s + like(alpha_ts, m) * v_s * v_t.rsqrt() * noise
        q_var = v_s * like(added, m) / v_t
        p_mean = transitions.step_mean(self.schedule, z_t, self.denoise(z_t, t), t, s)
        p_var = like(transitions.backward_variance(self.schedule, t, s), m)
        return len(self.ladder.pairs) * over_elements(gaussian_kl(q_mean, q_var, p_mean, p_var))

    def prior_part(self, m: Tensor, variance: Tensor) -> Tensor:
        """KL(q(z_1) || p(z_1)), (R,)."""
        mean_1, v_1 = self.marginal(m, variance, torch.ones((), dtype=torch.float64))
        width = self.prior.initial(torch.ones_like(m[:1]))
        return over_elements(gaussian_kl(mean_1, v_1, torch.zeros_like(mean_1), width.square()))
