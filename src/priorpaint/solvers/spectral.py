"""The rules of DDRM and DDNM+ for each singular direction of A, in image space.

With A = U S V^T and white noise n, the measurement tells the coordinate i of V^T x_0 with noise sigma_y / S_i. What a
rule does depends only on how that compares with the noise of x_s / alpha_s, that is on

    q_i = S_i sigma_s / (alpha_s sigma_y):   0 for a direction that A does not see,
                                             below 1 where y is noisier than x_s, above 1 where it is cleaner.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..diffusion import transitions
from ..diffusion.schedules import Schedule
from ..diffusion.transitions import like
from ..operators.base import LinearOperator


def relative(singular: Tensor, nsr: Tensor, sigma_y: float) -> Tensor:
    """q for singular values in any shape, at the level with sigma / alpha = ``nsr`` (0-d).

    With sigma_y = 0 every seen direction has q = inf, also at the clean level, where x is then y. (The published DDRM
    compares strictly, 0 > 0, and so returns the prior's estimate in the known pixels.)
    """
    scale = math.inf if sigma_y == 0 else float(nsr) / sigma_y
    return torch.where(singular > 0, singular * scale, 0)


def misfit(operator: LinearOperator, y: Tensor, x_0: Tensor) -> Tensor:
    """A^+ (y - A x_0), (N, C, H, W): what x_0 lacks in the directions that A sees."""
    return operator.pinv(y - operator(x_0))


def corrected(
    x_0: Tensor, operator: LinearOperator, y: Tensor, sigma_y: float, nsr: Tensor, eta_b: float = 1.0
) -> Tensor:
    """An estimate of E[x_0 | x_t, y]: x_0 moved towards A^+ y by eta_b where q >= 1 and by q below."""

    def gain(singular: Tensor) -> Tensor:
        q = relative(singular, nsr, sigma_y)
        return torch.where(q >= 1, eta_b, q)

    return x_0 + operator.filter(misfit(operator, y, x_0), gain)


def spectral_step(
    schedule: Schedule,
    operator: LinearOperator,
    y: Tensor,
    sigma_y: float,
    x_t: Tensor,
    x_0: Tensor,
    t: Tensor,
    s: Tensor,
    noise: Tensor,
    eta: float,
    eta_b: float = 1.0,
) -> Tensor:
    """x_s by the three rules of DDRM (Kawar et al. 2022, Eqs. 7 and 8); with eta_b = 1 also those of DDNM+.

    In the singular basis, with c = A^+ (y - A x_0), e = (x_t - alpha_t x_0) / sigma_t and fresh noise z:
        not seen:  alpha_s x_0                             + sigma_s (sqrt(1 - eta^2) e + eta z)
        q < 1:     alpha_s (x_0 + sqrt(1 - eta^2) q c)     + sigma_s eta z
        q >= 1:    alpha_s (x_0 + eta_b c)                 + sigma_s sqrt(1 - (eta_b / q)^2) z
    All x are (N, C, H, W); t > s are 0-d float64 times.
    """
    level = schedule.level(s)
    nsr = level.log_nsr.exp()
    carried = math.sqrt(1 - eta**2)

    def towards_y(singular: Tensor) -> Tensor:
        q = relative(singular, nsr, sigma_y)
        return torch.where(q >= 1, eta_b, carried * q)

    def fresh(singular: Tensor) -> Tensor:
        q = relative(singular, nsr, sigma_y).clamp(min=1)  # below 1 the other branch counts
        above = (1 - (eta_b / q) ** 2).sqrt()
        return torch.where(relative(singular, nsr, sigma_y) >= 1, above, eta)

    def unseen(singular: Tensor) -> Tensor:
        return carried * (singular == 0).to(singular)

    mean = x_0 + operator.filter(misfit(operator, y, x_0), towards_y)
    eps = operator.filter(transitions.epsilon(schedule, x_t, x_0, t), unseen)
    eps_s = eps + operator.filter(noise, fresh)
    return like(level.alpha, x_0) * mean + like(level.sigma, x_0) * eps_s
