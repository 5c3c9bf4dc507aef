"""ReSample: the resampling step, hard consistency, and its exact chain on a Gaussian."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from priorpaint import Inpainting, solver
from priorpaint.diffusion.rng import Streams
from priorpaint.diffusion.schedules import EDM, VP
from priorpaint.operators import Operator
from priorpaint.priors.latent import LatentPrior
from priorpaint.priors.wrapped import normalised
from priorpaint.solvers.base import Task
from priorpaint.solvers.resample import ReSample, stochastic_resample
from tests.latent_toy import pictures
from tests.solvers.toy import COV, KNOWN, Y, levels, toy_g


def chain(steps: int, every: int, lookahead: int, gamma: float) -> tuple[float, float]:
    """Mean and variance of x_2 on Toy G without the DPS term, by the algebra of Gaussians."""
    abar, eye = levels(steps), np.eye(2)

    def denoiser(level: int) -> np.ndarray:
        a = abar[level]
        return np.sqrt(a) * COV @ np.linalg.inv(a * COV + (1 - a) * eye)

    def ddim(level: int) -> np.ndarray:
        a_t, a_s, d = abar[level], abar[level - 1], denoiser(level)
        return np.sqrt(a_s) * d + np.sqrt((1 - a_s) / (1 - a_t)) * (eye - np.sqrt(a_t) * d)

    mean, cov = np.zeros(2), eye
    for level in range(steps, 0, -1):
        move = ddim(level)
        mean, cov = move @ mean, move @ cov @ move.T
        left = level - 1
        if left == 0 or left % every or left > steps - steps // 3:
            continue
        ahead, here = eye, left
        for _ in range(min(lookahead, left)):
            estimate = denoiser(here) @ ahead
            ahead, here = ddim(here) @ ahead, here - 1
        estimate[0] = 0  # pasted: x_1 = 1
        a = abar[left]
        v = gamma * (1 - a) * (1 - abar[level] / a) / (1 - abar[level])
        pull = v * np.sqrt(a) / (v + 1 - a)
        whole = pull * estimate + (1 - a) / (v + 1 - a) * eye
        mean = whole @ mean + pull * np.array([1.0, 0.0])
        cov = whole @ cov @ whole.T + v * (1 - a) / (v + 1 - a) * eye
    return float(mean[1]), float(cov[1, 1])


def test_exact_chain_on_a_gaussian() -> None:
    mean, variance = chain(60, 4, 5, 40.0)
    run = solver("resample", steps=60, every=4, scale=0, spacing="respaced")
    x = run.sample(toy_g(), KNOWN, Y, num_samples=4000)[0].reshape(-1, 2).double()
    assert bool((x[:, 0] == 1).all())
    assert float(x[:, 1].mean()) == pytest.approx(mean, abs=4 * math.sqrt(variance / 4000))
    assert float(x[:, 1].var()) == pytest.approx(variance, rel=4 * math.sqrt(2 / 4000))


def test_stages_are_those_of_the_published_program() -> None:
    """S = 500: 330, 320, ..., 10 steps to go; 330 to 170 on pixels, 160 to 10 on latents."""
    stages = ReSample(steps=500).stages()
    assert sorted(stages) == list(range(10, 331, 10)) and len(stages) == 33
    assert sum(stage == "pixel" for stage in stages.values()) == 17
    assert {left for left, stage in stages.items() if stage == "pixel"} == set(range(170, 331, 10))
    assert ReSample(steps=500).cost(1).forward == 165 and ReSample(steps=500).cost(2).backward == 1000


@pytest.mark.parametrize("schedule", [VP("linear"), EDM()])
def test_stochastic_resampling(schedule: Any) -> None:
    """The product of two Gaussians; V -> infinity forgets z_s, V -> 0 keeps it."""
    s = torch.tensor(0.4, dtype=torch.float64)
    alpha, sigma = float(schedule.alpha(s)), float(schedule.sigma(s))
    z_0, z_s = torch.full((20000, 1), 0.7), torch.full((20000, 1), -0.4)
    noise = torch.randn(20000, 1, generator=torch.Generator().manual_seed(0))
    v = 0.5 * sigma**2
    out = stochastic_resample(schedule, z_0, z_s, s, v, noise).double()
    precision = 1 / sigma**2 + 1 / v
    mean = (alpha * 0.7 / sigma**2 - 0.4 / v) / precision
    assert float(out.mean()) == pytest.approx(mean, abs=4 / math.sqrt(20000 * precision))
    assert float(out.var()) == pytest.approx(1 / precision, rel=4 * math.sqrt(2 / 20000))
    far = stochastic_resample(schedule, z_0, z_s, s, 1e12, noise)
    torch.testing.assert_close(far, alpha * z_0 + sigma * noise, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(stochastic_resample(schedule, z_0, z_s, s, 1e-14, noise), z_s, rtol=0, atol=1e-5)


@pytest.mark.parametrize("own", [VP("linear"), EDM()])
def test_clean_estimates(own: Any) -> None:
    """Corrected: D. Reference: (z - sigma^2 eps) / alpha, in variance-preserving coordinates."""
    prior, t = normalised(toy_g(own)), torch.tensor(0.5, dtype=torch.float64)
    z, schedule = torch.tensor([[[[0.3, -0.8]]]]), prior.schedule
    d = prior.denoise(z, t)
    assert ReSample()._clean(schedule, z, d, t) is d
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    eps = (z - alpha * d) / sigma
    wanted = (z - sigma**2 * eps) / alpha
    torch.testing.assert_close(ReSample(preset="reference")._clean(schedule, z, d, t), wanted, rtol=1e-4, atol=1e-5)


def job(prior: LatentPrior, operator: Any, y: torch.Tensor, sigma_y: float = 0.0) -> Task:
    shape = prior.latent_shape(8, 8)
    return Task(prior, operator, y, sigma_y, Streams(range(len(y))), shape, lambda step, x_0: None)


def test_pixel_stage_of_a_linear_measurement() -> None:
    prior, operator = pictures(), Inpainting((torch.arange(64).reshape(8, 8) % 3 > 0).float())
    truth, other = prior.decode(prior.inner.sample(2, seed=1)), prior.decode(prior.inner.sample(2, seed=2))
    y, run = operator(truth), ReSample()
    torch.testing.assert_close(run._moved_to(job(prior, operator, y), operator, other), operator.project(other, y))
    noisy = run._moved_to(job(prior, operator, y, 0.1), operator, other)
    known = 2 * operator.known.sum()
    left = (y - operator(noisy)).flatten(1).square().sum(1) / known
    assert left.sqrt().tolist() == pytest.approx([0.1, 0.1], rel=1e-4), "stops where the misfit is that of the noise"
    near = run._moved_to(job(prior, operator, y, 0.1), operator, truth)
    torch.testing.assert_close(near, truth)


def test_latent_stage_explains_y_row_by_row() -> None:
    prior = pictures()
    operator = Inpainting((torch.arange(64).reshape(8, 8) % 3 > 0).float())
    y = operator(prior.decode(prior.inner.sample(3, seed=1)))
    start = prior.inner.sample(3, seed=2)
    run = ReSample(latent_iterations=400, latent_lr=0.02, tol=0.1)
    with torch.no_grad():
        together = run._consistent(job(prior, operator, y), start, "latent")
        alone = [run._consistent(job(prior, operator, y[k : k + 1]), start[k : k + 1], "latent") for k in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-4)
    known = 2 * operator.known.sum()
    left = ((y - operator(prior.decode(together))).flatten(1).square().sum(1) / known).sqrt()
    assert (left <= 0.1).all() and (left > 0.09).all(), "stops at the threshold, not long after"


def test_official_threshold_counts_hidden_pixels_and_ignores_noise() -> None:
    prior = pictures()
    mask = torch.zeros(8, 8)
    mask[:, :2] = 1
    operator = Inpainting(mask)
    y = operator(prior.decode(prior.inner.sample(1, seed=1)))
    x = torch.zeros(1, 2, 8, 8)
    here = job(prior, operator, y, 0.3)
    right, published = (run._misfit(here, lambda x: x)(x) for run in (ReSample(), ReSample(preset="reference")))
    assert float(right / published) == pytest.approx(4)


class Squared(Operator):
    """y = x^2: not linear."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x.square()

    def image_shape(self, y: torch.Tensor) -> tuple[int, int, int]:
        return y.shape[1], y.shape[2], y.shape[3]

    def guess(self, y: torch.Tensor) -> torch.Tensor:
        return y.clamp(min=0).sqrt()


def test_a_nonlinear_measurement_is_optimised_on_pixels() -> None:
    prior, operator = pictures(), Squared()
    truth = prior.decode(prior.inner.sample(1, seed=1))
    y, start = operator(truth), prior.encode(truth.sign() * (truth.abs() + 0.2))
    with torch.no_grad():
        got = ReSample(pixel_iterations=300)._consistent(job(prior, operator, y), start, "pixel")
    before, after = ((y - operator(prior.decode(z))).square().mean() for z in (start, got))
    assert after < 0.05 * before
    assert solver("resample", steps=6, every=2, pixel_iterations=5).sample(prior, operator, y).isfinite().all()


def test_results_of_the_last_optimisation_are_pasted() -> None:
    prior, operator = pictures(), Inpainting((torch.arange(64).reshape(8, 8) % 3 > 0).float())
    y = operator(prior.decode(prior.inner.sample(1, seed=1)))
    run = {"steps": 8, "every": 2, "latent_iterations": 20}
    assert torch.equal(operator(solver("resample", **run).sample(prior, operator, y)[:, 0]), y)
    raw = solver("resample", paste=False, **run).sample(prior, operator, y)
    assert not torch.equal(operator(raw[:, 0]), y)
