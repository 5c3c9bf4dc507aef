"""Phase 2 of VIPaint without correction: from z_Ts down to x_0, guided as the rules say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...diffusion import transitions
from ...diffusion.transitions import like
from ...priors.base import Prior
from ..base import Task
from ..ddnm import DDNM
from ..dps import DPS
from ..guidance import Step
from ..langevin import Langevin
from .likelihood import Likelihood
from .presets import CALM_STEPS, Rules

# sigma / alpha in units of data_std below which Langevin steps change nothing but the last grain of the picture.
_CALM = 0.2


def refine(task: Task, rules: Rules, t_start: Tensor, likelihood: Callable[[], Likelihood]) -> Tensor:
    """x_0 (N, C, H, W) from z_Ts in ``task.initial``.

    Args:
        task: the rows.
        rules: the preset.
        t_start: T_s, 0-d.
        likelihood: builds p(y | z_Ts), for guidance that follows its gradient.
    """
    assert task.initial is not None
    z = task.initial.float()
    if rules.refine_guidance == "langevin":
        langevin: dict[str, Any] = {"dt": rules.refine_dt, "lam": rules.refine_lam, "eta": rules.refine_eta}
        method = Langevin(inner_steps=rules.refine_inner, **langevin)
        return method.descend(task, z, _levels(task.prior, rules.refine_steps, float(t_start)), rules.refine_steps)
    times = rules.down(task.prior, float(t_start))
    step = _step(task, rules, likelihood)
    for index, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
        z, x_0 = step(z, t, s)
        task.report(index + 1, x_0)
    return z


def _levels(prior: Prior, levels: int, start: float) -> Tensor:
    """``levels`` times from ``start`` on, sigma / alpha evenly spaced down to _CALM, and CALM_STEPS more down to 0.

    What the picture shows is decided in the upper half of sigma / alpha: even levels cross it often.
    """
    schedule = prior.schedule
    high = float(schedule.log_nsr(torch.tensor(start, dtype=torch.float64)).exp())
    low = min(_CALM * prior.data_std, high / 2)
    times = schedule.time_at(torch.linspace(high, low, levels, dtype=torch.float64))
    times[0] = start
    return torch.cat([times[:-1], schedule.grid(CALM_STEPS + 1, start=float(times[-1]))])


def _step(task: Task, rules: Rules, likelihood: Callable[[], Likelihood]) -> Step:
    if rules.refine_guidance == "projection":
        return _projection(task, rules)
    if rules.refine_guidance == "norm":
        dps: dict[str, Any] = {"scale": rules.refine_scale, "eta": rules.refine_eta}
        return DPS(**dps).step(task)
    return _gradient(task, rules, likelihood())


def _projection(task: Task, rules: Rules) -> Step:
    ddnm: dict[str, Any] = {"eta": rules.refine_eta}
    method = DDNM(**ddnm)

    def step(z_t: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            x_0 = task.prior.denoise(z_t, t)
        return method._update(task, z_t, x_0, t, s), x_0

    return step


def _gradient(task: Task, rules: Rules, likelihood: Likelihood) -> Step:
    """STEP(refine_eta) and a gradient of each sample's own loss."""
    schedule = task.prior.schedule
    own_std = rules.refine_guidance == "likelihood"

    def step(z_t: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            z_t = z_t.detach().requires_grad_()
            x_0 = task.prior.denoise(z_t, t)
            loss = likelihood.misfit(x_0, t if own_std else likelihood.t_start)
            (gradient,) = torch.autograd.grad(loss.sum(), z_t)
        z_t, x_0 = z_t.detach(), x_0.detach()
        noise = task.noise.normal_like(z_t) if rules.refine_noise else torch.zeros_like(z_t)
        u = transitions.step(schedule, z_t, x_0, t, s, noise, rules.refine_eta)
        if own_std:
            weight = transitions.guidance_weight(schedule, t, s, rules.refine_eta)
        else:
            weight = torch.tensor(rules.weights(likelihood.pixels, z_t[0].numel())[0], dtype=torch.float64)
        return u - like(rules.refine_scale * weight, u) * gradient, x_0

    return step
