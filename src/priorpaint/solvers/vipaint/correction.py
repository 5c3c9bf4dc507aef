"""The fitted posterior of VIPaint as the proposal of twisted sequential Monte Carlo.

The density p(z_Ts) of the prior is not available, but a chain that leads there is: z_Ts is carried up to pure noise by
the forward process, and the path is weighed by the prior's chain that would have come down,
    B = p(z_1) prod_{t > T_s} p(z_s | z_t) / fwd(z_t | z_s),    E[B | z_Ts] = p(z_Ts).
With the levels z_Te, ..., above z_Ts as further variables that the forward process would have drawn,
    W = B prod over jumps fwd(z_t | z_s) / q(z_Te, ..., z_Ts)
is a proper weight of z_Ts under the prior (importance sampling on an extended space), and with W tw(z_Ts) the particles
enter a twisted SMC at T_s (Wu et al. 2023), whose last weights are those of p(x_0 | y). q is the whole mixture: a
particle does not ask which component it came from. The big jumps of the prior's own chain, which the bound is about, do
not appear: they only shape the proposal.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ...diffusion import transitions
from ...diffusion.rng import Streams
from ...diffusion.transitions import like
from ...priors.base import Prior
from ..base import STRICT, settings
from ..smc.particles import Proposal
from ..smc.solver import SMC
from ..smc.twists import algebra_device
from .family import Denoise, Family, log_normal
from .variables import Mixture, neighbours, section

CORRECTED_STEPS = 25  # of phase 2 with weights, where steps are of second order or made good by the weights
FULL_SHARE = 0.25  # of those that all particles take: modes are weighed at T_s, and few weights change further down


@settings(frozen=True, config=STRICT)
class Refinement(SMC):
    """SMC from the weighted particles of `propose` at ``top``."""

    def above(self, prior: Prior, shape: tuple[int, int, int], t_start: Tensor, steps: int) -> Tensor:
        """Steps (n, 2) from where SMC would start on its own down to T_s = ``t_start``."""
        first = max(float(replace(self, top=None)._times(prior, shape)[0]), (1 + float(t_start)) / 2)
        return neighbours(section(prior.schedule, first, float(t_start), steps))


def choose(weights: Tensor, u: Tensor) -> Tensor:
    """The component at each quantile u (B, n) in (0, 1) of the weights (B, M); (B, n) on the CPU."""
    cumulative = weights.detach().cpu().double().cumsum(1)
    quantiles = u.cpu().double() * cumulative[:, -1:]
    return torch.searchsorted(cumulative, quantiles, right=True).clamp(max=weights.shape[1] - 1)


@torch.no_grad()
def propose(
    family: Family,
    lam: Mixture,
    seeds: list[list[int]],
    particles: int,
    pairs: Tensor,
    widen: float,
    batch_size: int | None,
) -> Proposal:
    """Particles z_Ts ~ q and the logarithms of their weights W, in B G groups in order of images.

    Args:
        family: q and p.
        lam: parameters of B images.
        seeds: G seeds for each image, one a group.
        particles: K of a group.
        pairs: steps (n, 2) of a grid from pure noise down to T_s.
        widen: factor on all variances of q.
        batch_size: rows denoised at a time.
    """
    prior, groups = family.prior, len(seeds[0])
    device = algebra_device(prior)
    exact = replace(family, denoise=_denoiser(prior, batch_size))
    wide = Mixture(*(value.to(device).double() for value in lam.tensors()))
    wide = replace(wide, log_var=wide.log_var + torch.tensor(widen).log().to(wide.log_var))
    images = torch.arange(len(seeds)).repeat_interleave(groups)
    done: list[tuple[Tensor, Tensor]] = []
    shape = lam.mean.shape[2:]
    # Some groups at a time: what a row needs here is little next to what the denoiser does with it.
    for chunk in torch.split(torch.arange(len(images)), max(1, (batch_size or 4096) // particles)):
        noise = Streams([seeds[int(g) // groups][int(g) % groups] for g in chunk])
        u = (noise.uniform(1).double() + torch.arange(particles) / particles) % 1
        component = choose(lam.log_weights.exp()[images[chunk].to(lam.logits.device)], u)
        rows = images[chunk].repeat_interleave(particles)
        normal = noise.normal(particles, *shape).flatten(0, 1).to(device).double()
        path = exact.path(wide.rows(rows, component.flatten().to(device)), normal)
        log_w = -torch.logsumexp(exact.log_mixture(wide, rows, path), 1)
        for level, (z_t, z_s) in enumerate(zip(path.levels[:-1], path.levels[1:], strict=True)):
            alpha_ts, added = transitions.forward(prior.schedule, *family.ladder.levels[level : level + 2].flip(0))
            log_w = log_w + log_normal(z_t, like(alpha_ts, z_s) * z_s, like(added, z_s))
        up = [noise.normal(particles, *shape[1:]).flatten(0, 1).to(device).double() for _ in range(len(pairs))]
        log_w = log_w + log_above(exact, path.levels[-1], pairs, up)
        done.append((path.levels[-1].reshape(len(chunk), particles, -1), log_w.reshape(len(chunk), particles)))
    x, log_weights = (torch.cat(parts) for parts in zip(*done, strict=True))
    return Proposal(x, log_weights)


def log_above(family: Family, z: Tensor, pairs: Tensor, noise: list[Tensor]) -> Tensor:
    """log of an unbiased estimate of the prior chain's density of z (R, C, H, W) at the end of ``pairs``, (R,).

    Args:
        pairs: steps (n, 2), each (t, s), down from pure noise.
        noise: n standard normal tensors like z, for the way up.
    """
    schedule = family.schedule
    total = z.new_zeros(len(z))
    for (t, s), up in zip(pairs.flip(0), noise, strict=True):
        z_s = z
        alpha_ts, added = transitions.forward(schedule, s, t)
        z = like(alpha_ts, z_s) * z_s + like(added.sqrt(), z_s) * up
        mean = transitions.step_mean(schedule, z, family.denoise(z, t), t, s)
        total = total + log_normal(z_s, mean, like(transitions.backward_variance(schedule, t, s), z))
        total = total - log_normal(z, like(alpha_ts, z_s) * z_s, like(added, z_s))
    return total + log_normal(z, torch.zeros_like(z), like(family.prior.std_at(pairs[0, 0]) ** 2, z))


def _denoiser(prior: Prior, batch_size: int | None) -> Denoise:
    """``prior.denoise`` in float32 for float64 rows, some at a time."""

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        parts = torch.split(x.to(device=prior.device, dtype=torch.float32), batch_size or len(x))
        return torch.cat([prior.denoise(part, t) for part in parts]).to(x)

    return denoise
