"""The worked example of the VIPaint tests: two elements, a Gaussian prior, the first element seen with noise.

Everything is affine and Gaussian, so the library's bound can be evaluated without Monte-Carlo error (a quadratic
function of n normal numbers has its mean over the 2 n points +-sqrt(n) e_i), and -log p(y) of the coarse chain follows
from a recursion of mean and covariance.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from priorpaint.diffusion import transitions
from priorpaint.diffusion.schedules import EDM, VP
from priorpaint.operators import Inpainting
from priorpaint.priors.analytic import Gaussian, GaussianMixture
from priorpaint.priors.base import Prior
from priorpaint.solvers.vipaint.bound import Bound
from priorpaint.solvers.vipaint.likelihood import Likelihood
from priorpaint.solvers.vipaint.presets import PRESETS, Rules
from priorpaint.solvers.vipaint.variables import Draws, Ladder, Mixture, Parts, Variational, neighbours
from tests.solvers.toy import toy_m

CIN = VP("scaled_linear", beta_start=0.0015, beta_end=0.0195)
DIAGONAL = [[1.0, 0.0], [0.0, 0.5]]
FULL = [[1.0, 0.8], [0.8, 1.0]]
SEEN = Inpainting(torch.tensor([[[[1.0, 0.0]]]]))
SIGMA_Y = 0.1
Y = torch.tensor([[[[0.9, 0.0]]]], dtype=torch.float64)
EXACT = PRESETS["exact"]


def at(*index: float) -> Tensor:
    """Times of table entries."""
    return (torch.tensor(index, dtype=torch.float64) + 1) / 1000


def toy(cov: list[list[float]]) -> Gaussian:
    return Gaussian([0.3, -0.2], cov, schedule=CIN)


def three_modes() -> GaussianMixture:
    """Toy M under EDM, with its own width."""
    prior = toy_m(EDM())
    prior.data_std = 0.9
    return prior


def ladder(levels: tuple[int, ...], top: range | list[int] | None = None) -> Ladder:
    """Levels by table index, noisiest first; ``top`` by table index, rising from T_e to 999."""
    top = range(levels[0], 1000) if top is None else top
    return Ladder(at(*levels), neighbours(at(*reversed(top))))


def likelihood(prior: Prior, rows: int, t_start: Tensor, scale: float | None = 0.0) -> Likelihood:
    bare = Likelihood(prior, SEEN, Y.expand(rows, -1, -1, -1), SIGMA_Y, "gaussian", scale, t_start)
    return bare.normalised()


def family(prior: Prior, steps: Ladder, rules: Rules = EXACT) -> Bound:
    return Bound(prior, steps, rules, prior.denoise)


def points(n: int) -> Tensor:
    """(2 n, n): means over these rows are expectations of quadratics of n standard normal numbers."""
    eye = math.sqrt(n) * torch.eye(n, dtype=torch.float64)
    return torch.cat([eye, -eye])


def spread_over(lam: Variational, rows: int) -> Variational:
    return Variational(*(value.expand(rows, *[-1] * (value.ndim - 1)) for value in lam.tensors()))


def mixed(*chains: Variational, logits: list[float] | None = None) -> Mixture:
    """The mixture of chains (N, K, ...) of N images, with the same logits for each."""
    mean, log_var, gate = (
        torch.stack(values, 1) for values in zip(*(chain.tensors() for chain in chains), strict=True)
    )
    return Mixture(mean, log_var, gate, torch.tensor(logits or [0.0] * len(chains)).to(mean).repeat(len(mean), 1))


def exact_diffusion(steps: Bound, m: Tensor, variance: Tensor) -> Tensor:
    """The sum over all pairs of the diffusion part, (1,), from one row's q(z_Te) (1, C, H, W)."""
    noise, count = points(m[0].numel()), len(steps.ladder.pairs)
    pair = torch.arange(count).repeat_interleave(len(noise))
    rows = noise.repeat(count, 1).reshape(-1, *m.shape[1:])
    part = steps.diffusion_part(m.expand(len(rows), -1, -1, -1), variance.expand(len(rows), -1, -1, -1), rows, pair)
    return part.reshape(1, -1).mean(1)


def exact_parts(steps: Bound, lam: Variational, scale: float | None = 0.0) -> Parts:
    """The four parts without Monte-Carlo error, each (1,), at parameters of one image."""
    shape = lam.mean.shape[1:]
    noise = points(math.prod(shape)).reshape(-1, *shape)
    draws = Draws(noise, noise[:, 0], torch.zeros(len(noise), dtype=torch.long))
    near = likelihood(steps.prior, len(noise), steps.ladder.levels[-1], scale)
    parts, _, _ = steps.parts(spread_over(lam, len(noise)), near, draws)
    mean = Parts(*(value.mean(0, keepdim=True) for value in parts))
    return mean._replace(diffusion=exact_diffusion(steps, *steps.top(lam)))


def affine_denoiser(prior: Gaussian, t: Tensor) -> tuple[Tensor, Tensor]:
    """(c (T, d), G (T, d, d)) with D(z) = c + G z at each time of t (T,)."""
    d = prior.dim
    basis = torch.cat([torch.zeros(1, d, dtype=torch.float64), torch.eye(d, dtype=torch.float64)])
    rows = basis.repeat(len(t), 1).reshape(-1, *prior.shape)
    out = prior.denoise(rows, t.repeat_interleave(d + 1)).reshape(len(t), d + 1, d)
    return out[:, 0], (out[:, 1:] - out[:, :1]).mT


def chain(prior: Gaussian, steps: Ladder, eta: float) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the model's z_Ts: the top grid with DDPM steps, then the jumps with ``eta``."""
    pairs = torch.cat([steps.pairs, torch.stack([steps.levels[:-1], steps.levels[1:]], 1)])
    noise = torch.ones(len(pairs), dtype=torch.float64)
    noise[len(steps.pairs) :] = eta
    t, s = pairs.unbind(1)
    c, gain = affine_denoiser(prior, t)
    a, b = transitions.backward_weights(prior.schedule, t, s, noise)
    variance = noise**2 * transitions.backward_variance(prior.schedule, t, s)
    eye = torch.eye(prior.dim, dtype=torch.float64)
    mean, cov = torch.zeros(prior.dim, dtype=torch.float64), eye.clone()
    for step, shift, added in zip(
        a[:, None, None] * eye + b[:, None, None] * gain, b[:, None] * c, variance, strict=True
    ):
        mean, cov = step @ mean + shift, step @ cov @ step.mT + added * eye
    return mean, cov


def evidence(prior: Gaussian, steps: Ladder, eta: float, scale: float = 0.0) -> tuple[float, Tensor, Tensor]:
    """-log p(y) of the coarse chain, and mean and covariance of its z_Ts given y."""
    mean, cov = chain(prior, steps, eta)
    c, gain = (value[0] for value in affine_denoiser(prior, steps.levels[-1:]))
    row = gain[:1]
    variance = (row @ cov @ row.mT).squeeze() + SIGMA_Y**2 + scale**2
    residual = float(Y[0, 0, 0, 0]) - c[0] - (row @ mean).squeeze()
    kalman = (cov @ row.mT / variance).squeeze()
    value = 0.5 * (2 * math.pi * variance).log() + residual**2 / (2 * variance)
    return float(value), mean + kalman * residual, cov - variance * torch.outer(kalman, kalman)


def optimum(prior: Gaussian, steps: Ladder, eta: float, scale: float = 0.0) -> Variational:
    """The parameters at which the bound is tight for a diagonal covariance, in closed form.

    Going up from T_s the effective likelihood of the seen element is y = a z + b + N(0, r); for the jump
    p(z_s | z_t) = N(k z_t + c, v): g = r / (r + a^2 v), tau^2 = g v, mu = (y - b) / a. Unseen: g = 1, tau^2 = v.
    """
    y, schedule = float(Y[0, 0, 0, 0]), prior.schedule
    mean, log_var, gate = (torch.zeros(1, len(steps.levels), *prior.shape, dtype=torch.float64) for _ in range(3))
    c, gain = (value[0] for value in affine_denoiser(prior, steps.levels[-1:]))
    a, b, r = float(gain[0, 0]), float(c[0]), SIGMA_Y**2 + scale**2
    for level in range(len(steps.levels) - 1, 0, -1):
        t, s = steps.levels[level - 1], steps.levels[level]
        c, gain = (value[0] for value in affine_denoiser(prior, t[None]))
        keep, pull = (float(value) for value in transitions.backward_weights(schedule, t, s, eta))
        v = eta**2 * float(transitions.backward_variance(schedule, t, s))
        g = r / (r + a**2 * v)
        mean[0, level, 0, 0, 0] = (y - b) / a / float(schedule.alpha(s))
        gate[0, level, 0, 0] = torch.tensor([math.log(g / (1 - g)), 60.0])
        log_var[0, level, 0, 0] = torch.tensor([math.log(g * v), math.log(v)])
        k, offset = keep + pull * float(gain[0, 0]), pull * float(c[0])
        a, b, r = a * k, a * offset + b, r + a**2 * v
    top_mean, top_cov = chain(prior, Ladder(steps.levels[:1], steps.pairs), 1.0)
    variance = top_cov.diagonal().clone()
    m = top_mean.clone()
    variance[0] = 1 / (1 / top_cov[0, 0] + a**2 / r)
    m[0] = variance[0] * (top_mean[0] / top_cov[0, 0] + a * (y - b) / r)
    mean[0, 0, 0, 0] = m / schedule.alpha(steps.levels[0])
    log_var[0, 0, 0, 0] = variance.log()
    return Variational(mean, log_var, gate)
