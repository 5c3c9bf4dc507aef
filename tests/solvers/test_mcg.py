"""MCG: one step by its formulas, its law against a chain written down again, and what it is the same as."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from priorpaint import Downsampling, Inpainting, solver
from priorpaint.diffusion import transitions
from priorpaint.diffusion.rng import Streams, image_seeds
from tests.solvers.linear_toy import Level
from tests.solvers.test_ilvr import pictures
from tests.solvers.toy import COV, KNOWN, Y, levels, toy_g, toy_m


def chain(steps: int, scale: float, rows: int) -> np.ndarray:
    """x_0 (rows, 2) of Toy G: ancestral step, then x_s - scale grad |1 - D_1|, then x_1 <- alpha_s + sigma_s z."""
    generator, abar = np.random.default_rng(1), levels(steps)
    x = generator.normal(size=(rows, 2))
    for k in range(steps, 0, -1):
        level = Level(abar[k], abar[k - 1], COV)
        d, eps = x @ level.denoise.T, x @ level.eps.T
        v = (1 - level.a_s) * (1 - level.a_t / level.a_s) / (1 - level.a_t)
        u = np.sqrt(level.a_s) * d + np.sqrt(max(1 - level.a_s - v, 0)) * eps
        u += np.sqrt(v) * generator.normal(size=(rows, 2))
        u -= scale * np.sign(d[:, :1] - 1) * level.denoise[0]  # grad |D_1 - 1| = sign(D_1 - 1) dD_1/dx_t
        u[:, 0] = np.sqrt(level.a_s) + np.sqrt(1 - level.a_s) * generator.normal(size=rows)
        x = u
    return x


@pytest.mark.parametrize("scale", [0.05, 0.3])
def test_its_law_on_toy_g(scale: float) -> None:
    """2000 samples against 40,000 of an independent chain: four standard errors."""
    want = chain(50, scale, 40_000)[:, 1]
    run = solver("mcg", steps=50, scale=scale, spacing="respaced")
    out = run.sample(toy_g(), KNOWN, Y, num_samples=2000, seed=3)[0].flatten(1).double()
    assert bool((out[:, 0] == 1).all())
    together = math.sqrt(1 / 2000 + 1 / 40_000)
    assert float(out[:, 1].mean()) == pytest.approx(want.mean(), abs=4 * want.std() * together)
    assert float(out[:, 1].var()) == pytest.approx(want.var(), abs=4 * want.var() * math.sqrt(2) * together)


@pytest.mark.parametrize("sigma_y", [0.0, 0.3])
def test_without_the_gradient_it_is_ilvr(sigma_y: float) -> None:
    prior, operator = pictures(), Downsampling(2)
    y = operator(prior.sample(1, seed=3))
    ours, theirs = (
        solver(name, steps=10, **more).sample(prior, operator, y, sigma_y=sigma_y, num_samples=3, seed=2)
        for name, more in (("mcg", {"scale": 0.0}), ("ilvr", {}))
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_a_run_is_a_dps_step_and_then_replacement() -> None:
    """Known pixels are y noised to the level of each step, and y in the end; the hidden ones are those of DPS."""
    prior, steps, seen = toy_m(), 8, KNOWN.mask(Y) > 0
    run = solver("mcg", steps=steps, scale=0.4)
    got = run.sample(prior, KNOWN, Y, num_samples=5, seed=3)[0]
    noise = Streams.for_samples(image_seeds(3, Y) * 5, range(5))
    y, times = Y.expand(5, -1, -1, -1), prior.schedule.grid(steps)
    x = prior.initial(noise.normal(1, 1, 2))
    for t, s in zip(times[:-1], times[1:], strict=True):
        x_t = x.clone().requires_grad_()
        x_0 = prior.denoise(x_t, t)
        (gradient,) = torch.autograd.grad((x_0 - y)[..., 0].abs().sum(), x_t)
        u = transitions.step(prior.schedule, x, x_0.detach(), t, s, noise.normal_like(x)) - 0.4 * gradient
        x = torch.where(seen, transitions.perturb(prior.schedule, y, s, noise.normal_like(x)), u)
    torch.testing.assert_close(got, x, rtol=0, atol=1e-5)
    assert bool((got[..., 0] == 1).all())


def test_where_nothing_is_known_it_is_plain_sampling() -> None:
    """With m = 0 there is no misfit to follow: the same random numbers give the samples of replacement."""
    operator, y = Inpainting(torch.zeros(1, 2)), torch.zeros(1, 1, 1, 2)
    ours, theirs = (
        solver(name, steps=10).sample(toy_m(), operator, y, num_samples=5) for name in ("mcg", "replacement")
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_a_sample_does_not_feel_its_batch() -> None:
    alone, among = (solver("mcg", steps=20).sample(toy_m(), KNOWN, Y, num_samples=n, seed=7) for n in (1, 16))
    torch.testing.assert_close(among[:, :1], alone, rtol=0, atol=1e-5)


def test_clip_comes_before_the_gradient() -> None:
    """Where D leaves [-1, 1] it has no gradient; estimates stay inside."""
    seen: list[float] = []
    solver("mcg", steps=10, clip=True).sample(
        toy_g(), KNOWN, 3 * Y, num_samples=20, callback=lambda step, total, x_0: seen.append(float(x_0.abs().max()))
    )
    assert max(seen) == 1.0


def test_noisy_y_is_not_kept_to_the_bit() -> None:
    """sigma_y = .5: below that level x_1 is free, and it ends within the prior's own spread about y."""
    x_1 = solver("mcg", steps=50, scale=0.1).sample(toy_g(), KNOWN, Y, sigma_y=0.5, num_samples=500)[0, ..., 0]
    assert bool((x_1 != 1).all()) and 0.05 < float(x_1.std()) < 0.7
