"""MMPS: exact for a Gaussian prior, within the bar on a 16-D one, and honest where a network's Jacobian is not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from priorpaint import DenoiserPrior, Inpainting, UsageError, solver
from priorpaint.diffusion.schedules import EDM, VE, VP, Flow, Schedule
from priorpaint.operators import MatrixOperator
from priorpaint.priors.analytic import Gaussian
from priorpaint.solvers.base import Cost
from priorpaint.solvers.mmps import MMPS
from tests.solvers import affine
from tests.solvers.toy import COV, KNOWN, Y, mode_weights, toy_g, toy_m

SCHEDULES = [VP(), VE(), EDM(), Flow()]


def ids(schedule: Schedule) -> str:
    return type(schedule).__name__


@pytest.mark.parametrize("schedule", SCHEDULES, ids=ids)
@pytest.mark.parametrize("sigma_y", [0.0, 0.3])
def test_guided_denoiser_is_the_conditional_mean(schedule: Schedule, sigma_y: float) -> None:
    """E[x_0 | x_t, y] of a Gaussian, from the joint precision; sigma_y = 0 stands for the jitter of 1e-3."""
    generator = torch.Generator().manual_seed(5)
    mix = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    cov, mean = mix @ mix.mT / 5 + 0.1 * torch.eye(5), torch.randn(5, generator=generator, dtype=torch.float64)
    matrix = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    y, x_t = torch.randn(1, 2, generator=generator), torch.randn(1, 1, 1, 5, generator=generator)
    t = torch.tensor(0.5, dtype=torch.float64)
    guided = MMPS(iterations=2).guide(
        Gaussian(mean, cov.tolist(), schedule=schedule), MatrixOperator(matrix), y, sigma_y
    )
    alpha, sigma, noise = schedule.alpha(t), schedule.sigma(t), max(sigma_y, 1e-3) ** 2
    inverse = torch.linalg.inv(cov)
    precision = inverse + alpha**2 / sigma**2 * torch.eye(5) + matrix.mT @ matrix / noise
    pull = inverse @ mean + alpha / sigma**2 * x_t.flatten().double() + matrix.mT @ y[0].double() / noise
    expected = torch.linalg.solve(precision, pull)
    torch.testing.assert_close(guided.denoise(x_t, t).flatten().double(), expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=ids)
@pytest.mark.parametrize("sigma_y", [0.0, 0.5])
def test_toy_g_is_exact(monkeypatch: pytest.MonkeyPatch, schedule: Schedule, sigma_y: float) -> None:
    """Heun's method, 100 steps, against the exact flow from the same start.

    The flow of the posterior N(m, C) maps x_1 to m + C^1/2 (alpha_1^2 C + sigma_1^2)^-1/2 (x_1 - alpha_1 m). It is
    started from N(0, alpha_1^2 + sigma_1^2), not from p(x_1 | y), which moves m by about alpha_1 / sigma_1 of a std.
    """
    run = MMPS(steps=100, iterations=1)
    mean, cov = affine.of_solver(monkeypatch, run, toy_g(schedule), KNOWN, Y, 2, sigma_y=sigma_y)
    truth = toy_g().posterior(KNOWN, Y, sigma_y)
    one = torch.ones((), dtype=torch.float64)
    alpha, sigma = schedule.alpha(one), schedule.sigma(one)
    values, axes = torch.linalg.eigh(truth.cov)
    flow = axes * (values.clamp(min=0) / (alpha**2 * values + sigma**2)).sqrt() @ axes.mT
    exact_mean = truth.mean.flatten() - alpha * flow @ truth.mean.flatten()
    torch.testing.assert_close(mean, exact_mean, rtol=0, atol=0.002)
    torch.testing.assert_close(cov, (alpha**2 + sigma**2) * flow @ flow, rtol=0, atol=0.002)
    torch.testing.assert_close(mean, truth.mean.flatten(), rtol=0, atol=0.02)
    torch.testing.assert_close(cov, truth.cov, rtol=0, atol=0.002)


def ancestral(steps: int, sigma_y: float, prior: Gaussian) -> tuple[np.ndarray, np.ndarray]:
    """STEP(1) with D' = D + V A^T S^-1 (y - A D) on Toy G's covariance, in numpy."""
    times = prior.schedule.grid(steps, "respaced")
    mean, cov, eye = np.zeros(2), np.eye(2), np.eye(2)
    for t, s in zip(times[:-1], times[1:], strict=True):
        a_t, s_t, a_s, s_s = (f(x).item() for x in (t, s) for f in (prior.schedule.alpha, prior.schedule.sigma))
        j = a_t * COV @ np.linalg.inv(a_t**2 * COV + s_t**2 * eye)
        v = s_t**2 / a_t * j
        gain = v[:, :1] / (v[0, 0] + sigma_y**2)
        noise = s_s**2 * (s_t**2 - (a_t / a_s) ** 2 * s_s**2) / s_t**2
        kept = math.sqrt(max(s_s**2 - noise, 0))
        guided = j - gain @ j[:1]
        move = a_s * guided + kept * (eye - a_t * guided) / s_t
        push = (a_s - kept * a_t / s_t) * gain[:, 0]
        mean, cov = move @ mean + push, move @ cov @ move.T + noise * eye
    return mean, cov


def test_ancestral_chain_on_toy_g_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    run = MMPS(steps=40, iterations=1, sampler="ddim", spacing="respaced")
    mean, cov = affine.of_solver(monkeypatch, run, toy_g(), KNOWN, Y, 2 + 2 * 40, sigma_y=0.5)
    exact_mean, exact_cov = ancestral(40, 0.5, toy_g())
    np.testing.assert_allclose(mean.numpy(), exact_mean, atol=2e-5)
    np.testing.assert_allclose(cov.numpy(), exact_cov, atol=5e-5)


# -- the bar: a 16-D Gaussian ------------------------------------------------------------------------------------------


def g16(draw: int, schedule: Schedule) -> tuple[Gaussian, Inpainting, Tensor]:
    """Eigenvalues log-uniform in .02 to 1, six coordinates seen."""
    generator = torch.Generator().manual_seed(draw)
    axes = torch.linalg.qr(torch.randn(16, 16, generator=generator, dtype=torch.float64))[0]
    values = torch.exp(math.log(0.02) * torch.rand(16, generator=generator, dtype=torch.float64))
    mean = 0.5 * torch.randn(16, generator=generator, dtype=torch.float64)
    known = torch.zeros(1, 16)
    known[:, torch.randperm(16, generator=generator)[:6]] = 1
    prior = Gaussian(mean, (axes * values @ axes.mT).tolist(), schedule=schedule)
    operator = Inpainting(known)
    noise = 0.1 * torch.randn(1, 1, 1, 16, generator=generator)
    return prior, operator, operator(prior.sample(1, seed=draw) + noise)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=ids)
@pytest.mark.parametrize("draw", [0, 1, 2])
def test_g16_moments(monkeypatch: pytest.MonkeyPatch, schedule: Schedule, draw: int) -> None:
    """With as many iterations as measurements the chain is affine: each std, and each mean in stds, to 5 %."""
    prior, operator, y = g16(draw, schedule)
    truth = prior.posterior(operator, y, 0.1)
    run = MMPS(iterations=6)
    mean, cov = affine.of_solver(monkeypatch, run, prior, operator, y, 16, sigma_y=0.1)
    std = truth.cov.diagonal().sqrt()
    assert ((mean - truth.mean.flatten()).abs() / std).max() < 0.05
    assert (cov.diagonal().sqrt() / std - 1).abs().max() < 0.05


def sliced_w2(x: Tensor, exact: Tensor) -> float:
    directions = torch.randn(256, x.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    directions = directions / directions.norm(dim=1, keepdim=True)
    ours, theirs = ((z.double() @ directions.mT).sort(0).values for z in (x, exact))
    return float((ours.repeat_interleave(len(exact) // len(x), 0) - theirs).square().mean().sqrt())


@pytest.mark.slow
def test_g16_sliced_wasserstein() -> None:
    """The default settings: at most 1.3 times what 1024 exact samples have, as the mean over three draws."""
    ours, floors = [], []
    for draw in range(3):
        prior, operator, y = g16(draw, VP())
        truth = prior.posterior(operator, y, 0.1)
        exact = truth.sample(8192, seed=1).flatten(1)
        x = MMPS().sample(prior, operator, y, sigma_y=0.1, num_samples=1024, seed=0)[0].flatten(1)
        ours.append(sliced_w2(x, exact))
        floors.append(sum(sliced_w2(truth.sample(1024, seed=seed).flatten(1), exact) for seed in (2, 3)) / 2)
    assert sum(ours) <= 1.3 * sum(floors)


# -- a mixture, where it is not exact ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_toy_m_mode_weights() -> None:
    """Guidance with N = 250 was reported at .564/.381/.055 for sigma_y = .5 (truth .599/.400/.001): STEP(1) again."""
    run = MMPS(steps=250, iterations=1, sampler="ddim", spacing="respaced")
    out = run.sample(toy_m(), KNOWN, Y, sigma_y=0.5, num_samples=3000, seed=0)
    for got, want in zip(mode_weights(out), (0.564, 0.381, 0.055), strict=True):
        assert got == pytest.approx(want, abs=4 * math.sqrt(2 * want * (1 - want) / 3000))


# -- a learned Jacobian ------------------------------------------------------------------------------------------------


def test_symmetric_uses_the_symmetric_part() -> None:
    """G = J_s A^T (sigma_y^2 + A V_s A^T)^-1 (y - A D) with J_s = (J + J^T) / 2."""
    j = torch.tensor([[0.5, 0.3, 0.0], [-0.1, 0.6, 0.2], [0.1, 0.0, 0.4]])
    prior = DenoiserPrior(lambda x, t: (x.flatten(1) @ j.mT).reshape(x.shape), VP(), (1, 1, 3))
    known, y = torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[[[0.7, -0.4, 0.0]]]])
    x_t, t = torch.tensor([[[[0.3, 0.8, -1.0]]]]), torch.tensor(0.5, dtype=torch.float64)
    seen = MMPS(iterations=2, symmetric=True).likelihood(prior, Inpainting(known), y, 0.2).evaluate(x_t, t)
    half = (j + j.mT).double() / 2
    weight = (VP().sigma(t) ** 2 / VP().alpha(t)).item()
    s = 0.04 * torch.eye(2, dtype=torch.float64) + weight * half[:2, :2]
    residual = (y - prior.denoise(x_t, t)).flatten().double()[:2]
    expected = half[:, :2] @ torch.linalg.solve(s, residual)
    torch.testing.assert_close(seen.gradient.flatten().double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"linear_solver": "gmres"}, {"symmetric": True}])
def test_a_bad_jacobian_is_survived(settings: dict[str, object]) -> None:
    """J with negative eigenvalues, so that S is indefinite: finite, and known pixels are still near y."""
    turn = torch.tensor([[0.3, -0.6], [0.6, -0.3]])
    prior = DenoiserPrior(lambda x, t: (x.flatten(1) @ turn.mT).reshape(x.shape), VP(), (1, 1, 2))
    for sigma_y in (0.0, 0.1):
        out = solver("mmps", **settings).sample(prior, KNOWN, Y, sigma_y=sigma_y, num_samples=8)
        assert out.isfinite().all() and out.abs().max() < 50


@pytest.mark.parametrize(("settings", "passes"), [({}, 3), ({"iterations": 5}, 5), ({"symmetric": True}, 7)])
def test_cost_counts_every_pass(settings: dict[str, object], passes: int) -> None:
    prior = toy_g()
    run = solver("mmps", steps=4, **settings)
    run.sample(prior, KNOWN, Y, sigma_y=0.1, num_samples=2)
    assert Cost(prior.nfe.forward, prior.nfe.backward) == run.cost(2) == Cost(0, passes * 7 * 2)


def test_needs_a_linear_operator_and_a_known_solver() -> None:
    with pytest.raises(UsageError, match="linear_solver"):
        solver("mmps", linear_solver="lu")
