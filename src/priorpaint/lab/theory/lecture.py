"""What the lecture on DDPM and RePaint (Pierret and Galerne 2023) states and a computer can check, on Gaussian data.

x_0 ~ N(0, c): the denoiser is E[x_0 | x_t] = alpha_t c x_t / v_t with v_t = alpha_t^2 c + sigma_t^2, so every step is
linear and its law is known. Where the slides print another formula, the check is of the right one and a note has both.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...diffusion import transitions
from ...diffusion.schedules import VP
from ...errors import UsageError
from ...solvers.repaint import jump_levels
from .check import Check, Outcome, mean_of
from .model import normal, normals

_STATES = 1000
# States of the chains whose reverse variance is compared.
_SHORT = (10, 100, 1000)


def run(*, samples: int, seed: int = 0) -> Outcome:
    """The forward chain, its reverse, the terms of the bound, and both variances, on the linear schedule.

    Args:
        samples: chains.
        seed: of all noise.

    Raises:
        UsageError: fewer than 2 samples.
    """
    if samples < 2:
        raise UsageError(f"a standard error takes at least 2 samples, not {samples}")
    schedule = VP("linear")
    times = schedule.grid(_STATES, "respaced")
    divergence, notes = _divergences(schedule, times, samples, seed)
    forward, chain = _forward(schedule, times, samples, seed)
    variances, reverse = _variances(schedule, samples, seed)
    checks = [*forward, *_posterior(schedule, times, samples, seed), *divergence, *_identities(schedule, times),
              *variances, *_replacement(schedule, samples, seed), *_resampling()]  # fmt: skip
    curves = {"forward": chain, "reverse": reverse}
    return Outcome(f"linear schedule, T = {_STATES}; {samples} chains", checks, curves, notes)


def _forward(schedule: VP, times: Tensor, samples: int, seed: int) -> tuple[list[Check], list[dict[str, float]]]:
    """Slides 2.1: x_t from x_{t-1}, step by step, has the law of one jump; from x_0 = 1."""
    noises = normals(samples, 1, seed=seed, use="lecture forward")
    x = torch.ones(samples, 1, dtype=torch.float64)
    checks, curve = [], []
    s, t = times.flip(0)[:-1], times.flip(0)[1:]
    keeps, variances = transitions.forward(schedule, s, t)
    levels = zip(keeps.tolist(), variances.sqrt().tolist(), schedule.alpha(t), schedule.sigma(t), strict=True)
    for number, (keep, std, alpha_t, sigma_t) in enumerate(levels, 1):
        x, alpha, sigma = keep * x + std * next(noises), float(alpha_t), float(sigma_t)
        if number % 50 == 0:
            curve.append({"t": number, "alpha": alpha, "sigma": sigma, "mean": float(x.mean()), "std": float(x.std())})
        if number in (2, 300, _STATES):
            checks += [
                Check("Slide 2.1", f"t = {number}: mean of the chain from x_0 = 1", alpha, "=", *mean_of(x[:, 0])),
                Check("Slide 2.1", f"t = {number}: its variance", sigma**2, "=", *mean_of((x[:, 0] - alpha).square())),
            ]
    return checks, curve


def _posterior(schedule: VP, times: Tensor, samples: int, seed: int) -> list[Check]:
    """Slides 2.2: q(x_{t-1} | x_t, x_0): what is left has variance beta-tilde, and x_t says nothing of it."""
    t, s = times[_STATES - 300], times[_STATES - 299]
    x_0 = normal(samples, 1, seed=seed, use="lecture x_0")
    x_s = transitions.perturb(schedule, x_0, s, normal(samples, 1, seed=seed, use="lecture x_s"))
    x_t = transitions.noise_up(schedule, x_s, s, t, normal(samples, 1, seed=seed, use="lecture x_t"))
    left = (x_s - transitions.step_mean(schedule, x_t, x_0, t, s))[:, 0]
    variance = float(transitions.backward_variance(schedule, t, s))
    return [
        Check("Slide 2.2", "t = 300: variance of x_{t-1} - mu~(x_t, x_0)", variance, "=", *mean_of(left.square())),
        Check("Slide 2.2", "t = 300: its covariance with x_t", 0.0, "=", *mean_of(left * x_t[:, 0])),
        Check("Slide 2.2", "t = 300: its covariance with x_0", 0.0, "=", *mean_of(left * x_0[:, 0])),
    ]


def _divergences(schedule: VP, times: Tensor, samples: int, seed: int) -> tuple[list[Check], list[str]]:
    """Slides 2.2: the terms of the bound, closed form beside the mean of log q - log p."""
    alpha, sigma, _ = schedule.level(times[0])
    x_0 = normal(samples, 1, seed=seed, use="lecture x_0")[:, 0]
    x_T = alpha * x_0 + sigma * normal(samples, 1, seed=seed, use="lecture x_T")[:, 0]  # noqa: N806
    prior = float((alpha**2 + sigma**2 - 1) / 2 - sigma.log())
    log_ratio = -((x_T - alpha * x_0).square()) / (2 * sigma**2) - sigma.log() + x_T.square() / 2
    variance = float(transitions.backward_variance(schedule, times[_STATES - 300], times[_STATES - 299]))
    gap = 2 * math.sqrt(variance)  # two means that are as far apart as their laws are wide
    x = gap + math.sqrt(variance) * normal(samples, 1, seed=seed, use="lecture KL")[:, 0]
    step = (x.square() - (x - gap).square()) / (2 * variance)
    right, printed = gap**2 / (2 * variance), gap**2 / (2 * variance**2)
    checks = [
        Check("Slide 2.2", "KL(q(x_T | x_0) || N(0, 1)) in nats, x_0 ~ N(0, 1)", prior, "=", *mean_of(log_ratio)),
        Check("Slide 2.2", "t = 300: KL of two Gaussians of variance beta~, 2 standard deviations apart", right, "=",
              *mean_of(step)),
    ]  # fmt: skip
    note = (f"The slides print 1 / (2 beta~^2) where KL has 1 / (2 beta~): {printed:.4g} nats in place of {right:.4g} "
            "in that row.")  # fmt: skip
    return checks, [note]


def _identities(schedule: VP, times: Tensor) -> list[Check]:
    """Slides 2.2 and 2.3, for every t > 1: two forms of a step, two of the score, and Euler's step beside DDPM's."""
    t, s = times[:-2], times[1:-1]
    alpha, sigma, _ = schedule.level(t)
    keep, beta = transitions.forward(schedule, s, t)
    x_0, noise = torch.tensor(0.7, dtype=torch.float64), torch.tensor(-1.3, dtype=torch.float64)
    x_t = alpha * x_0 + sigma * noise
    in_noise = (x_t - beta / sigma * noise) / keep
    b, a = transitions.backward_weights(schedule, t, s)
    c = 0.25
    posterior_noise = (x_t - alpha * alpha * c * x_t / (alpha**2 * c + sigma**2)) / sigma
    score = -x_t / (alpha**2 * c + sigma**2)
    euler = (1 - beta / 2 - keep).abs()
    return [
        Check("Slide 2.2", "all t: mu~(x_t, x_0) is (x_t - beta_t / sqrt(1 - abar_t) eps) / sqrt(alpha_t): largest gap",
              0.0, "=", float((b * x_t + a * x_0 - in_noise).abs().max())),
        Check("Slide 2.3", "all t: the score of N(0, 1/4) noised is -E[eps | x_t] / sqrt(1 - abar_t): largest gap",
              0.0, "=", float((score + posterior_noise / sigma).abs().max())),
        Check("Slide 2.3", "all t: |1 - beta_t / 2 - sqrt(1 - beta_t)| over beta_t^2 / (8 (1 - beta_t)^1.5): largest",
              1.0, "<=", float((euler / (beta**2 / (8 * keep**3))).max())),
    ]  # fmt: skip


def _variances(schedule: VP, samples: int, seed: int) -> tuple[list[Check], dict[str, list[dict[str, float]]]]:
    """Slides 2.2 and their appendix: sigma_t^2 = beta_t is right for x_0 ~ N(0, 1), beta-tilde for a fixed x_0.

    Of x_0 = 0 that is seen half-way, as a share of sigma_t^2. Slides 2.3: the ODE needs no noise.
    """
    checks = []
    curves: dict[str, list[dict[str, float]]] = {}
    for c, kind in ((1.0, "beta"), (1.0, "beta-tilde"), (0.0, "beta"), (0.0, "beta-tilde"), (0.25, "the ODE")):
        data = f"x_0 ~ N(0, {c:g})" if c else "x_0 = 0"
        what = f"variance generated, data {c:g}" if c else "half-way, variance of x_t / sigma_t^2"
        for states in _SHORT:
            times = schedule.grid(states, "respaced")
            end = states if c else states // 2
            scale = 1.0 if c else float(schedule.sigma(times[end])) ** 2
            expected, x = _chain(schedule, times[: end + 1], c, kind, samples, seed)
            mean, error = mean_of(x.square() / scale)
            checks.append(Check("Slide 2.3" if kind == "the ODE" else "Appendix",
                                f"{data}, {kind}, T = {states}: {what}", expected / scale, "=",
                                mean, error))  # fmt: skip
            curves.setdefault(f"{data}, {kind}", []).append(
                {"states": states, "theory": expected / scale, "measured": mean, "error": error, "right": c or 1.0}
            )
    return checks, curves


def _chain(schedule: VP, times: Tensor, c: float, kind: str, samples: int, seed: int) -> tuple[float, Tensor]:
    """A reverse chain for x_0 ~ N(0, c) with the exact denoiser: its variance by recursion, and samples (N,)."""
    t, s = times[:-1], times[1:]
    alpha, sigma, _ = schedule.level(t)
    b, a = transitions.backward_weights(schedule, t, s, 0.0 if kind == "the ODE" else 1.0)
    factors = b + a * alpha * c / (alpha**2 * c + sigma**2)
    added = torch.zeros_like(b)
    if kind != "the ODE":
        large = kind == "beta"
        added = transitions.forward(schedule, s, t)[1] if large else transitions.backward_variance(schedule, t, s)
    added = torch.where(schedule.sigma(s) == 0, 0, added)  # none in the last step
    noises = normals(samples, 1, seed=seed, use="lecture reverse")
    x, expected = next(noises)[:, 0], 1.0
    for factor, variance in zip(factors.tolist(), added.tolist(), strict=True):
        x = factor * x + math.sqrt(variance) * next(noises)[:, 0]
        expected = factor**2 * expected + variance
    return expected, x


def _replacement(schedule: VP, samples: int, seed: int) -> list[Check]:
    """Slides 3.1: p_t(hidden | y) is taken for p_t(hidden | known part of x_t); what comes out for a Gaussian pair.

    x_0 ~ N(0, [[1, r], [r, 1]]) with y = x_0[0] = 1: the posterior of the other is N(r, 1 - r^2).
    """
    r = 0.9
    eye = torch.eye(2, dtype=torch.float64)
    covariance = torch.tensor([[1, r], [r, 1]], dtype=torch.float64)
    known = torch.tensor([True, False])
    checks = []
    for states in _SHORT:
        times = schedule.grid(states, "respaced")
        t, s = times[:-1], times[1:]
        alpha, sigma, _ = (value[:, None, None] for value in schedule.level(t))
        b, a = (value[:, None, None] for value in transitions.backward_weights(schedule, t, s))
        steps = b * eye + a * alpha * covariance @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * eye)
        spreads = transitions.backward_variance(schedule, t, s)
        noises = normals(samples, 2, seed=seed, use="lecture replacement")
        x, mean, law = next(noises), torch.zeros(2, dtype=torch.float64), eye
        for step, v, alpha_s, sigma_s in zip(steps, spreads, schedule.alpha(s), schedule.sigma(s), strict=True):
            x = torch.where(known, alpha_s + sigma_s * next(noises), x @ step.mT + v.sqrt() * next(noises))
            mean = torch.where(known, alpha_s, step @ mean)
            law = torch.diag(torch.stack([sigma_s**2, (step @ law @ step.mT)[1, 1] + v]))
        left = x[:, 1] - mean[1]
        checks += [
            Check("Slide 3.1", f"replacement, T = {states}: mean of the hidden half, posterior {r:g}",
                  float(mean[1]), "=", *mean_of(x[:, 1])),
            Check("Slide 3.1", f"replacement, T = {states}: its variance, posterior {1 - r * r:.3g}",
                  float(law[1, 1]), "=", *mean_of(left.square())),
        ]  # fmt: skip
    return checks


def _resampling() -> list[Check]:
    """Slides 3.2: RePaint's steps with jumps of 10 and 10 resamplings, forwards and backwards."""
    return [
        Check("Slide 3.2", f"steps of RePaint, T = {states}, j = r = 10", float(printed), "=",
              float(len(jump_levels(states, 10, 10)) - 1))
        for states, printed in ((1000, 18_820), (250, 4_570))
    ]  # fmt: skip
