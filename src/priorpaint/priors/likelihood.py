"""How likely a prior finds pictures: the variational bound, term by term, and the density of the probability-flow ODE.

Ho et al. 2020, "Denoising diffusion probabilistic models" (Eq. 5 and 13); VIPaint (Eq. 4 and 5); Song et al. 2021,
"Score-based generative modeling through stochastic differential equations" (Section 4.3 and Appendix D.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from ..diffusion import transitions
from ..diffusion.denoiser import Denoising, Variance, not_learned
from ..diffusion.probability_flow import RULES, SLOPES, ProbabilityFlow, angle
from ..diffusion.rng import Streams, derive, image_seeds
from ..diffusion.transitions import gaussian_kl, like
from ..errors import CancelToken, UsageError
from .base import Prior

Decoder = Literal["pixels", "gaussian"]
# Half the distance of two 8-bit values in [-1, 1].
HALF_STEP = 1 / 255
# Probability below which an 8-bit value is not told from impossible, in float32.
_SMALLEST = 1e-12


@dataclass(frozen=True)
class Bound:
    """-log p(x) <= prior + sum of diffusion + reconstruction, in nats, a sum over all values of x.

    Attributes:
        times: the noisy times t of the grid, the noisiest first, (T,) float64.
        prior: L_T = KL(q(x_T | x_0) || p(x_T)), (N,) float64.
        diffusion: L_{t-1} = E KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) for t = T ... 2, (N, T - 1) float64.
        reconstruction: L_0 = -E log p(x_0 | x_1), (N,) float64.
        standard_error: of the total, over the draws, (N,) float64; NaN for one draw.
        values: number of values of one x.
    """

    times: Tensor
    prior: Tensor
    diffusion: Tensor
    reconstruction: Tensor
    standard_error: Tensor
    values: int

    @property
    def total(self) -> Tensor:
        """The bound on -log p(x), (N,)."""
        return self.prior + self.diffusion.sum(1) + self.reconstruction


def bits_per_value(nats: Tensor, values: int) -> Tensor:
    """Nats of a whole picture as bits a value."""
    return nats / (values * math.log(2))


def density_bits(nats: Tensor, values: int) -> Tensor:
    """-log density of x in [-1, 1], as bits a value on the scale of 8-bit values, whose distance is 2 / 255.

    With values dithered by `dithered`, the mean of this is at least -log2 of their probability.
    """
    return bits_per_value(nats, values) - math.log2(2 * HALF_STEP)


def log_pixel(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log probability of the 8-bit value x under N(mean, exp(log_variance)) (Ho et al. 2020, Eq. 13), elementwise; the
    end values take the whole tail.
    """
    scale = (-log_variance / 2).exp()
    above = torch.special.ndtr((x - mean + HALF_STEP) * scale)
    below = torch.special.ndtr((x - mean - HALF_STEP) * scale)
    above = torch.where(x > 1 - HALF_STEP, torch.ones_like(above), above)
    below = torch.where(x < -1 + HALF_STEP, torch.zeros_like(below), below)
    return (above - below).clamp(min=_SMALLEST).log()


def dithered(x: Tensor, seed: int = 0) -> Tensor:
    """8-bit values x (N, C, H, W) in [-1, 1] plus noise uniform on their step; an image has the same in any batch."""
    noise = Streams([derive("dither", each) for each in image_seeds(seed, x)], device=x.device)
    return x + HALF_STEP * (2 * noise.uniform(*x.shape[1:]) - 1).to(x)


@torch.no_grad()
def bound(
    prior: Prior,
    x: Tensor,
    *,
    steps: int = 100,
    spacing: str | None = None,
    variance: Variance = "small",
    decoder: Decoder = "pixels",
    draws: int = 1,
    seed: int = 0,
    cancel: CancelToken | None = None,
) -> Bound:
    """The variational bound of the ancestral chain on a time grid, by Monte Carlo over x_t.

    p(x_T) = N(0, `Prior.std_at`(1)^2). p(x_{t-1} | x_t) has the mean of an ancestral step and the variance
    `transitions.ancestral_std`^2. p(x_0 | x_1) has the mean D(x_1, 1) and the large variance
    (DDPM: beta_1), the small one being 0; a learned one lies between it and the small one of the step before, as Nichol
    and Dhariwal have it.

    Args:
        prior: any prior; of a latent one, x are latents.
        x: (N, C, H, W) in the prior's space.
        steps: T, steps of the grid.
        spacing: of the grid; None is the schedule's own.
        variance: of the ancestral steps.
        decoder: "pixels" for the probability of 8-bit values in [-1, 1]; "gaussian" for the density of any x.
        draws: draws of x_t at each time; T network evaluations each.
        seed: of the draws; those of an image are the same in any batch.
        cancel: stops between two evaluations.

    Raises:
        UsageError: arguments out of range, "pixels" with values that are not of 8 bits, or a variance that was not
            learned.
        Cancelled: by ``cancel``.
    """
    if draws < 1:
        raise UsageError(f"the bound takes at least 1 draw, not {draws}")
    if variance == "learned" and not prior.learned_variance:
        raise not_learned(prior.name)
    if decoder == "pixels":
        _check_pixels(x)
    schedule, times = prior.schedule, prior.schedule.grid(steps, spacing)
    rows = x.repeat_interleave(draws, 0)
    seeds = [derive("bound", each) for each in image_seeds(seed, x) for _ in range(draws)]
    noise = Streams.for_samples(seeds, [*range(draws)] * len(x), device=x.device)
    terms = []
    for t, s in zip(times[:-1], times[1:], strict=True):
        if cancel is not None:
            cancel.check()
        x_t = transitions.perturb(schedule, rows, t, noise.normal_like(rows))
        out = prior.evaluate(x_t, t)
        if float(s) > 0:
            terms.append(_diffusion(prior, rows, out, t, s, variance))
            continue
        log_variance = _last_variance(prior, t, times[-3] if steps > 1 else t, out, variance).log()
        terms.append(_reconstruction(rows, out.mean, like(log_variance, rows), decoder))
    parts = torch.stack(terms, 1).reshape(len(x), draws, steps)
    error = parts.sum(2).std(1) / math.sqrt(draws) if draws > 1 else torch.full((len(x),), math.nan).double()
    mean = parts.mean(1)
    return Bound(times[:-1], _prior_term(prior, x, times[0]), mean[:, :-1], mean[:, -1], error.cpu(), x[0].numel())


def _diffusion(prior: Prior, x: Tensor, out: Denoising, t: Tensor, s: Tensor, variance: Variance) -> Tensor:
    """KL(q(x_s | x_t, x) || p(x_s | x_t)), (N,) float64."""
    schedule = prior.schedule
    true = like(transitions.backward_variance(schedule, t, s), x)
    model = like(transitions.ancestral_std(schedule, t, s, out.share(variance)) ** 2, x)
    apart = like(transitions.backward_weights(schedule, t, s)[1], x) * (x - out.mean)  # the means have a x_t in common
    return _total(gaussian_kl(apart, true, torch.zeros_like(x), model))


def _last_variance(prior: Prior, t: Tensor, before: Tensor, out: Denoising, variance: Variance) -> Tensor:
    """Of p(x_0 | x_1), the last step from t; ``before`` is the time above t, if there is one, or t."""
    large = torch.sigmoid(2 * prior.schedule.level(t).log_nsr)  # Var[x_0 | x_t] for x_0 ~ N(0, I)
    if variance != "learned" or float(before) == float(t):
        return large
    share = out.share(variance)
    low, high = transitions.backward_variance(prior.schedule, before, t).log(), large.log()
    assert isinstance(share, Tensor)
    return torch.exp(like(low, share) + share * like(high - low, share))


def _reconstruction(x: Tensor, mean: Tensor, log_variance: Tensor, decoder: Decoder) -> Tensor:
    """-log p(x | x_1), (N,) float64."""
    if decoder == "pixels":
        return _total(-log_pixel(x, mean, log_variance))
    return _total(0.5 * ((x - mean).square() * (-log_variance).exp() + log_variance + math.log(2 * math.pi)))


def _prior_term(prior: Prior, x: Tensor, t: Tensor) -> Tensor:
    """KL(q(x_T | x) || p(x_T)), (N,) float64."""
    alpha, sigma, _ = prior.schedule.level(t)
    mean = alpha * x.double().cpu()
    return _total(gaussian_kl(mean, sigma**2, torch.zeros_like(mean), prior.std_at(t) ** 2))


def _total(values: Tensor) -> Tensor:
    return values.double().flatten(1).sum(1).cpu()


def _check_pixels(x: Tensor) -> None:
    levels = (x.double() + 1) / (2 * HALF_STEP)
    if float((levels - levels.round()).abs().max()) > 1e-2 or float(x.abs().max()) > 1 + 1e-4:
        raise UsageError(
            "these are not 8-bit values in [-1, 1], of which alone there are probabilities; take the decoder gaussian, "
            "for the density"
        )


@dataclass(frozen=True)
class FlowLikelihood:
    """log p(x) of the probability-flow ODE, in nats, a sum over all values of x.

    Attributes:
        log_prob: (N,) float64.
        standard_error: over the probes of the trace, (N,) float64; 0 for the exact trace, NaN for one probe.
        x_1: where the ODE takes x, (N, C, H, W), in variance-preserving coordinates; about standard normal.
    """

    log_prob: Tensor
    standard_error: Tensor
    x_1: Tensor


def flow_log_prob(
    prior: Prior,
    x: Tensor,
    *,
    steps: int = 50,
    spacing: str | None = None,
    rule: str = "rk4",
    probes: int | None = 1,
    seed: int = 0,
    cancel: CancelToken | None = None,
) -> FlowLikelihood:
    """log density, under the probability-flow ODE with x_1 ~ N(0, `Prior.std_at`(1)^2), of x_t = x at the lowest noise.

    At the lowest noise of the grid the network's knowledge ends. Of data that fill their space the density there is
    that of x_0; data on a manifold have none, and the number says how close x is to it, on the scale of that noise.

    log p(u_0) = log p(u_1) + the integral of div(du / dphi), with du / dphi = (cos(phi) u - D) / sin(phi) of
    `diffusion.probability_flow`. The divergence is exact, or Hutchinson's: the mean of e^T (dv / du) e over arrays e of
    signs, which stay the same along the path, so that their spread is the error of the whole.

    Args:
        prior: any prior whose denoiser has a gradient; of a latent one, x are latents.
        x: (N, C, H, W) in the prior's space.
        steps: steps of the time grid, at least 2, walked upwards but for the one to t = 0.
        spacing: of the grid; None is the schedule's own.
        rule: "rk4" (order 4) or "heun" (order 2).
        probes: probes of the trace; None is the exact trace, one gradient for each value of x.
        seed: of the probes; those of an image are the same in any batch.
        cancel: stops between two evaluations.

    Raises:
        UsageError: arguments out of range.
        Cancelled: by ``cancel``.
    """
    if rule not in RULES:
        raise UsageError(f"there is no rule {rule!r}; the rules are {', '.join(RULES)}")
    if probes is not None and probes < 1:
        raise UsageError(f"the trace takes at least 1 probe, or none for the exact trace, not {probes}")
    if steps < 2:
        raise UsageError(f"the ODE takes a grid of at least 2 steps, from its lowest noise up, not {steps}")
    schedule, times = prior.schedule, prior.schedule.grid(steps, spacing)[:-1].flip(0)  # but for t = 0
    rows, values = len(x), x[0].numel()
    basis = _probes(x, probes, seed)
    flow = ProbabilityFlow(schedule, prior.denoise)

    def slope(state: Tensor, phi: Tensor) -> Tensor:
        """Of (u, one integral a probe), flattened (N, values + probes)."""
        if cancel is not None:
            cancel.check()
        with torch.enable_grad():
            u = state[:, :values].reshape(x.shape).detach().requires_grad_()
            velocity = flow.velocity(u, phi)
            along = [_along(velocity, u, probe, last=i == len(basis) - 1) for i, probe in enumerate(basis)]
        prior.nfe.add(backward=rows * (len(basis) - 1))
        return torch.cat([velocity.detach().flatten(1), torch.stack(along, 1)], 1)

    phis = [angle(schedule, t) for t in times]
    state = torch.cat([flow.from_own(x, times[0]).flatten(1), x.new_zeros(rows, len(basis))], 1)
    for a, b in pairwise(phis):
        state = RULES[rule](slope, state, a, b)[0]
    u_1, integrals = state[:, :values].double().cpu(), state[:, values:].double().cpu()
    scale = float(prior.std_at(times[-1]) / torch.hypot(*schedule.level(times[-1])[:2]))
    log_1 = -0.5 * (u_1 / scale).square().sum(1) - values * math.log(scale * math.sqrt(2 * math.pi))
    log_1 = log_1 - values * float(torch.hypot(*schedule.level(times[0])[:2]).log())  # from the density of u to x_t's
    if probes is None:
        return FlowLikelihood(log_1 + integrals.sum(1), torch.zeros(rows).double(), u_1.reshape(x.shape))
    error = integrals.std(1) / math.sqrt(probes) if probes > 1 else torch.full((rows,), math.nan).double()
    return FlowLikelihood(log_1 + integrals.mean(1), error, u_1.reshape(x.shape))


def flow_evaluations(steps: int, rule: str) -> int:
    """Evaluations of the denoiser that `flow_log_prob` takes, each with one gradient a probe."""
    return SLOPES[rule] * (steps - 1)


def _probes(x: Tensor, probes: int | None, seed: int) -> Sequence[Tensor]:
    """Arrays e in the shape of x: the axes of one image, or ``probes`` arrays of signs for each image."""
    if probes is None:
        eye = torch.eye(x[0].numel(), dtype=x.dtype, device=x.device)
        return [axis.reshape(x[:1].shape).expand_as(x) for axis in eye]
    noise = Streams([derive("probe", each) for each in image_seeds(seed, x)], device=x.device)
    return [noise.normal_like(x).sign() for _ in range(probes)]


def _along(velocity: Tensor, u: Tensor, probe: Tensor, *, last: bool) -> Tensor:
    """e^T (dv / du) e, (N,)."""
    (pulled,) = torch.autograd.grad(velocity, u, probe, retain_graph=not last)
    return (pulled * probe).flatten(1).sum(1)
