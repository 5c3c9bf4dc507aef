"""The Gaussian algebra between two noise levels; the only place that has it.

Times run down: t is the noisier level, s < t the next one. With lambda = log(sigma / alpha):
    x_t | x_s ~ N(alpha_{t|s} x_s, var_{t|s}),   alpha_{t|s} = alpha_t / alpha_s,
    var_{t|s} = sigma_t^2 - alpha_{t|s}^2 sigma_s^2 = -sigma_t^2 expm1(2 (lambda_s - lambda_t))   (DDPM: beta_t)
    x_s | x_t, x_0 has variance v = sigma_s^2 var_{t|s} / sigma_t^2     (DDPM: beta-tilde_t)
An ancestral step adds noise of variance v or of a larger one, up to beta_t; see `ancestral_std`.
The expm1 forms keep full precision for tiny steps and at both ends (s = 0: lambda = -inf).

Coefficients are float64 and meet an image only through ``like``, which casts them to the image's dtype and device and
shapes them for broadcasting; so float32 images stay float32. ``t`` and ``s`` are 0-d or (N,) float64 tensors.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .schedules import Schedule


def like(coefficient: Tensor, x: Tensor) -> Tensor:
    """A coefficient, 0-d, (N,) or (N, ...), cast to x's dtype and device and shaped to broadcast against x (N, ...)."""
    coefficient = coefficient.to(x)
    return coefficient if coefficient.ndim in (0, x.ndim) else coefficient.reshape(-1, *[1] * (x.ndim - 1))


def row_sum(x: Tensor) -> Tensor:
    """The sum over the elements of each row of x (N, ...), (N,), the same alone as in any batch.

    A single long row torch would add up in parts, one a thread, and rows of a batch each in one go, which rounds
    differently; so a single row is added up beside itself.
    """
    flat = x.flatten(1)
    return flat.sum(1) if len(flat) != 1 else flat.expand(2, -1).sum(1)[:1]


def forward(schedule: Schedule, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """(alpha_{t|s}, var_{t|s}) of x_t | x_s for s < t, float64."""
    before, after = schedule.level(s), schedule.level(t)
    shrink = torch.expm1(2 * (before.log_nsr - after.log_nsr))
    return after.alpha / before.alpha, -(after.sigma**2) * shrink


def backward_variance(schedule: Schedule, t: Tensor, s: Tensor) -> Tensor:
    """v = Var[x_s | x_t, x_0] for s < t, float64; 0 at s = 0."""
    before, after = schedule.level(t), schedule.level(s)
    shrink = torch.expm1(2 * (after.log_nsr - before.log_nsr))
    return -(after.sigma**2) * shrink


def backward_weights(schedule: Schedule, t: Tensor, s: Tensor, eta: float | Tensor = 1.0) -> tuple[Tensor, Tensor]:
    """(a, b) with E[x_s | x_t, x_0] = a x_t + b x_0 when the step adds noise of variance eta^2 v (eta = 0: DDIM)."""
    return backward(schedule, t, s, eta)[:2]


def backward(schedule: Schedule, t: Tensor, s: Tensor, eta: float | Tensor = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """(a, b, eta sqrt(v)) of STEP(eta), x_s = a x_t + b x_0 + eta sqrt(v) z, for s < t, float64."""
    before, after = schedule.level(t), schedule.level(s)
    gap = 2 * (after.log_nsr - before.log_nsr)
    shrink = torch.expm1(gap)
    # sqrt(sigma_s^2 - eta^2 v) = sigma_s exp(left), and alpha_s - a alpha_t = -alpha_s expm1(gap / 2 + left).
    left = 0.5 * torch.log1p(eta**2 * shrink)
    a = after.sigma / before.sigma * torch.exp(left)
    return a, -after.alpha * torch.expm1(gap / 2 + left), eta * after.sigma * (-shrink).sqrt()


def ancestral_std(schedule: Schedule, t: Tensor, s: Tensor, share: Tensor | float = 0.0) -> Tensor:
    """Standard deviation of the noise of an ancestral step from t to s; 0 at s = 0.

    x_s | x_t has the variance v = beta-tilde where x_0 is a single point, and Var[x_s | x_t] of white x_0 with variance
    1, which is beta_t where alpha^2 + sigma^2 = 1 (Ho et al. 2020, Sec. 3.2, the two extreme choices). The two differ
    by the factor rho_t^2 / rho_s^2 for rho^2 = sigma^2 / (alpha^2 + sigma^2), so that log variances are interpolated
    (Nichol and Dhariwal 2021, Eq. 15) by its power ``share``, whatever the scale of x_t.

    Args:
        share: 0 is the smallest, 1 the largest; a number, or elements (N, C, H, W) as a network learned them.

    Returns:
        float64 in the shape of t, or (N, C, H, W) in the dtype of ``share``.
    """
    return _widened(schedule, backward(schedule, t, s)[2], t, s, share)


def _widened(schedule: Schedule, std: Tensor, t: Tensor, s: Tensor, share: Tensor | float) -> Tensor:
    """A standard deviation eta sqrt(v), larger by the power ``share`` of rho_t / rho_s; see `ancestral_std`."""
    if isinstance(share, float) and share == 0:
        return std
    before, after = (F.logsigmoid(2 * schedule.level(time).log_nsr) for time in (t, s))
    # At s = 0 the one is 0 and the other infinite.
    log_factor = torch.where(std > 0, 0.5 * (before - after), 0)
    if isinstance(share, float):
        return std * torch.exp(share * log_factor)
    return like(std, share) * torch.exp(share * like(log_factor, share))


def perturb(schedule: Schedule, x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """x_t = alpha_t x_0 + sigma_t noise; x_0 and noise (N, ...)."""
    alpha, sigma, _ = schedule.level(t)
    return like(alpha, x_0) * x_0 + like(sigma, x_0) * noise


def noise_up(schedule: Schedule, x_s: Tensor, s: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """UP: a draw of x_t | x_s for s < t; x_s and noise (N, ...)."""
    alpha_ts, variance = forward(schedule, s, t)
    return like(alpha_ts, x_s) * x_s + like(variance.sqrt(), x_s) * noise


def epsilon(schedule: Schedule, x_t: Tensor, x_0: Tensor, t: Tensor) -> Tensor:
    """The noise eps = (x_t - alpha_t x_0) / sigma_t that an estimate x_0 implies; t > 0."""
    alpha, sigma, _ = schedule.level(t)
    return (x_t - like(alpha, x_t) * x_0) / like(sigma, x_t)


def score(schedule: Schedule, x_t: Tensor, x_0: Tensor, t: Tensor) -> Tensor:
    """grad log p(x_t) = -eps / sigma_t that an estimate x_0 = D implies (Tweedie's formula); t > 0."""
    return -epsilon(schedule, x_t, x_0, t) / like(schedule.level(t).sigma, x_t)


def langevin(x: Tensor, score: Tensor, length: Tensor, noise: Tensor) -> Tensor:
    """A Langevin step x + length score + sqrt(2 length) noise; ``length`` broadcasts against x (N, ...)."""
    return x + length * score + (2 * length).sqrt() * noise


def step_mean(schedule: Schedule, x_t: Tensor, x_0: Tensor, t: Tensor, s: Tensor, eta: float | Tensor = 1.0) -> Tensor:
    """Mean of STEP(eta): alpha_s x_0 + sqrt(sigma_s^2 - eta^2 v) eps, for s < t."""
    a, b = backward_weights(schedule, t, s, eta)
    return like(a, x_t) * x_t + like(b, x_t) * x_0


def step(
    schedule: Schedule,
    x_t: Tensor,
    x_0: Tensor,
    t: Tensor,
    s: Tensor,
    noise: Tensor,
    eta: float | Tensor = 1.0,
    share: Tensor | float = 0.0,
) -> Tensor:
    """STEP(eta): a draw of x_s given x_t and the estimate x_0. eta = 1 is DDPM ancestral, eta = 0 is DDIM.

    With ``share`` its noise, eta sqrt(v), is larger by as much as `ancestral_std` says; the mean stays.
    """
    a, b, std = backward(schedule, t, s, eta)
    a, b, std = (like(weight, x_t) for weight in (a, b, _widened(schedule, std, t, s, share)))
    return torch.addcmul(torch.addcmul(a * x_t, b, x_0), std, noise)  # a x_t + b x_0 + std noise, in three passes


def ddim(schedule: Schedule, x_t: Tensor, x_0: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """STEP(0): the deterministic DDIM step (Song, Meng and Ermon 2021)."""
    return step_mean(schedule, x_t, x_0, t, s, 0.0)


def tweedie_scale(schedule: Schedule, t: Tensor) -> Tensor:
    """sigma_t^2 / alpha_t, float64 in the shape of t; 0 where alpha_t = 0, where x_t is pure noise.

    By Tweedie's formula Cov(x_0 | x_t) is it times the Jacobian of D, and what is known besides, with G the gradient of
    its log-likelihood given x_t, moves D by it times G.
    """
    alpha, sigma, _ = schedule.level(t)
    return torch.where(alpha > 0, sigma**2 / alpha.clamp(min=torch.finfo(torch.float64).tiny), 0)


def gaussian_kl(m1: Tensor, v1: Tensor, m2: Tensor, v2: Tensor) -> Tensor:
    """KL(N(m1, v1) || N(m2, v2)), elementwise, variances v."""
    return 0.5 * ((m1 - m2).square() / v2 + v1 / v2 - 1 - (v1 / v2).log())


def guidance_weight(schedule: Schedule, t: Tensor, s: Tensor, eta: float | Tensor = 1.0) -> Tensor:
    """What G = grad log p(y | x_t) is multiplied by where it is added to x_s after STEP(eta).

    D' = D + (sigma_t^2 / alpha_t) G inside STEP moves x_s by b (sigma_t^2 / alpha_t) G; 0 where x_t is pure noise and
    says nothing about y.
    """
    return backward_weights(schedule, t, s, eta)[1] * tweedie_scale(schedule, t)
