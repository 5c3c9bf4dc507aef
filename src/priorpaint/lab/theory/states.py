"""Resample, or take smaller steps? Theorems 8, 11 and 12 and Algorithm 3 beside the chains themselves."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ...diffusion import transitions
from ...diffusion.schedules import VP
from ...errors import UsageError
from .check import Check, Outcome, mean_of, rms_of
from .learning import least_squares, least_squares_error
from .model import LinearModel, normal, normals
from .multi_state import (
    aligned_error,
    ancestral_variance,
    generated_variance,
    generator,
    literal_contraction,
    literal_sweep,
    repaint_error,
)
from .two_state import sweep

REPAINT, ALIGNED = "RePaint", "without resampling (Theorem 12)"
LITERAL, X_0_FORM = "RePaint+, as printed", "RePaint+, x_0 form"
_REPEATS = 50


def run(model: LinearModel, *, calls: int, samples: int, seed: int = 0) -> Outcome:
    """Spend ``calls`` network calls as T states of ``calls / T`` rounds, on DDPM's linear schedule, respaced.

    Args:
        model: manifold and mask; rho < 1.
        calls: a power of ten from 10 to 1000; T is 2, 10, 100, ... of it.
        samples: images.
        seed: of images and noise.

    Raises:
        UsageError: numbers out of range, or rho = 1.
    """
    if calls not in (10, 100, 1000):
        raise UsageError(f"calls is 10, 100 or 1000, which 2, 10, 100, ... states share evenly, not {calls}")
    if samples < model.d + 2:
        raise UsageError(
            f"a least-squares fit in {model.d} coordinates takes at least {model.d + 2} images, not {samples}"
        )
    if model.rho in (0, 1):
        raise UsageError(f"the experiment needs a mask with 0 < rho < 1, and rho is {model.rho:g}; take other --known")
    schedule = VP("linear")
    states = [2, *(10**power for power in range(1, round(math.log10(calls)) + 1))]
    checks = _generators(model, schedule, samples, seed)
    x_0 = model.draw(samples, seed=seed)
    latents: dict[str, list[dict[str, float]]] = {"aligned": [], "ancestral": []}
    errors: dict[str, list[dict[str, float]]] = {REPAINT: [], ALIGNED: [], LITERAL: [], X_0_FORM: []}
    for count in states:
        times = schedule.grid(count, "respaced")
        for name, check in _generation(model, schedule, times, samples, seed).items():
            checks.append(check)
            latents[name].append(_point(count, check))
        for name, check in _inpainting(model, schedule, times, calls // count, x_0, seed).items():
            checks.append(check)
            errors[name].append(_point(count, check))
    curves = {"calls": calls, "rho": model.rho, "latent variance": latents, "error": errors}
    return Outcome(f"{model.describe()}; {calls} network calls, {samples} images", checks, curves)


def _point(states: int, check: Check) -> dict[str, float]:
    assert check.theory is not None
    return {"states": states, "theory": check.theory, "measured": check.measured, "error": check.error}


# -- Theorem 8 ---------------------------------------------------------------------------------------------------------


def _generators(model: LinearModel, schedule: VP, samples: int, seed: int) -> list[Check]:
    """theta_t learned by least squares against the closed form, at the noisiest, a middle and the last state of 10."""
    times = schedule.grid(10, "respaced")
    checks = []
    for number, name in ((0, "T"), (5, "T / 2"), (9, "1")):
        t, s = times[number], times[number + 1]
        exact = generator(model, schedule, t, s)
        fits = (least_squares(model, schedule, t, s, samples, seed=seed + 1 + repeat) for repeat in range(_REPEATS))
        errors = torch.stack([(fit - exact).square().sum() for fit in fits])
        expected = least_squares_error(model, schedule, t, s, samples)
        checks.append(Check("Theorem 8", f"t = {name} of T = 10: mean ||theta - theta_t*||^2 of {_REPEATS} fits to "
                            f"{samples} samples", expected, "=", *mean_of(errors)))  # fmt: skip
    return checks


# -- Theorem 11 --------------------------------------------------------------------------------------------------------


def _generation(model: LinearModel, schedule: VP, times: Tensor, samples: int, seed: int) -> dict[str, Check]:
    count = len(times) - 1
    aligned = generate(model, schedule, times, samples, seed=seed, aligned=True)
    ancestral = generate(model, schedule, times, samples, seed=seed, aligned=False)
    return {
        "aligned": Check("Theorem 11", f"T = {count}: latent variance, aligned",
                         generated_variance(schedule, times), "=", *mean_of((aligned @ model.A).square().mean(1))),
        "ancestral": Check("DDPM", f"T = {count}: latent variance, its own chain with beta-tilde",
                           ancestral_variance(schedule, times), "=", *mean_of((ancestral @ model.A).square().mean(1))),
    }  # fmt: skip


def generate(model: LinearModel, schedule: VP, times: Tensor, num: int, *, seed: int, aligned: bool) -> Tensor:
    """x_0 (num, d) from N(0, I), by the kernel of Theorem 11 or by DDPM's own with variance beta-tilde."""
    noises = normals(num, model.d, seed=seed, use="generation")
    x = next(noises)
    for t, s in zip(times[:-1], times[1:], strict=True):
        if aligned:
            keep, beta = transitions.forward(schedule, s, t)
            x = model.project(keep * x + beta.sqrt() * next(noises))
        else:
            spread = transitions.backward_variance(schedule, t, s).sqrt()
            x = x @ generator(model, schedule, t, s).mT + spread * next(noises)
    return x


# -- inpainting --------------------------------------------------------------------------------------------------------


def _inpainting(
    model: LinearModel, schedule: VP, times: Tensor, rounds: int, x_0: Tensor, seed: int
) -> dict[str, Check]:
    """Rms error of the hidden part of an image: the closed form of all modes, beside the chain."""
    count, rho, hidden = len(times) - 1, model.cosines, ~model.known
    calls = count * rounds

    def check(statement: str, case: str, theory: float, x: Tensor) -> Check:
        return Check(statement, f"T = {count}, {case}: rms error", theory, "=", *rms_of((x - x_0)[:, hidden]))

    no_rounds = torch.stack(aligned_error(schedule, times, rho)).sum(0).sqrt()
    start = model.project(normal(*x_0.shape, seed=seed, use="start"))
    # A start that is an independent sample is off by 2 rho of a mode, in its hidden part.
    left = (2 * rho * literal_contraction(schedule, times, rho, rounds).square()).sum().sqrt()
    literal = _descend(x_0, start, times, rounds, lambda t, s, u: model.paste(x_0, u) @ literal_sweep(
        model, schedule, t, s).mT)  # fmt: skip
    plain = _descend(x_0, start, times, rounds, lambda t, s, u: sweep(model, x_0, u))
    # Sweeps leave the error on the manifold, hidden and known part; its hidden part is rho of that.
    plain_left = (2 * rho * rho ** (2 * calls)).sum().sqrt()
    return {
        REPAINT: check("RePaint", f"R = {rounds}", _modes(repaint_error(schedule, times, rho, rounds).rms),
                       repaint(model, schedule, times, rounds, x_0, seed=seed)),
        ALIGNED: check("Theorem 12", "no resampling", _modes(no_rounds),
                       inpaint_aligned(model, schedule, times, x_0, seed=seed)),
        LITERAL: check("Algorithm 3", f"R = {rounds}, as printed", float(left), literal),
        X_0_FORM: check("Algorithm 3", f"R = {rounds}, x_0 form", float(plain_left), plain),
    }  # fmt: skip


def _modes(rms: Tensor) -> float:
    return float(rms.square().sum().sqrt())


def _descend(
    x_0: Tensor, u: Tensor, times: Tensor, rounds: int, one: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> Tensor:
    """Algorithm 3: ``rounds`` sweeps at every state."""
    for t, s in zip(times[:-1], times[1:], strict=True):
        for _ in range(rounds):
            u = one(t, s, u)
    return u


def repaint(model: LinearModel, schedule: VP, times: Tensor, rounds: int, x_0: Tensor, *, seed: int) -> Tensor:
    """RePaint with the exact kernel and R rounds a state: x~ (N, d) after the last. ``repaint_error`` is its law."""
    noises = normals(*x_0.shape, seed=seed, use="repaint states")
    x = next(noises)
    for t, s in zip(times[:-1], times[1:], strict=True):
        theta = generator(model, schedule, t, s).mT
        spread = transitions.backward_variance(schedule, t, s).sqrt()
        for count in range(rounds):
            if count:
                x = transitions.noise_up(schedule, x, s, t, next(noises))
            u = x @ theta + spread * next(noises)
            x = model.paste(transitions.perturb(schedule, x_0, s, next(noises)), u)
    return x


def inpaint_aligned(model: LinearModel, schedule: VP, times: Tensor, x_0: Tensor, *, seed: int) -> Tensor:
    """Inpainting at each state with the realigned kernel, no resampling: x~ (N, d), the process of Theorem 12."""
    noises = normals(*x_0.shape, seed=seed, use="aligned states")
    x = next(noises)
    for t, s in zip(times[:-1], times[1:], strict=True):
        keep, beta = transitions.forward(schedule, s, t)
        u = model.project(x / keep + beta.sqrt() * next(noises))
        x = model.paste(transitions.perturb(schedule, x_0, s, next(noises)), u)
    return x
