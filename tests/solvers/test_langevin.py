"""Langevin (LanPaint): drift, integrators, the process written again in numpy, and the bias that a right one shows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from priorpaint import Inpainting
from priorpaint.diffusion.rng import Streams
from priorpaint.diffusion.schedules import EDM, VE, VP, Flow, Schedule
from priorpaint.priors.analytic import Gaussian
from priorpaint.priors.wrapped import normalised
from priorpaint.solvers.base import Cost, Task
from priorpaint.solvers.langevin import Langevin, _Level, _Overdamped, _transition, _Underdamped
from tests.solvers import affine
from tests.solvers.toy import COV, KNOWN, Y, toy_g, toy_m

EYE = np.eye(2)
NOTHING = Inpainting(torch.zeros(1, 2))


def at(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def task(prior: Gaussian, rows: int = 3, sigma_y: float = 0.0, noise: Streams | None = None) -> Task:
    streams = noise or Streams(range(rows))
    return Task(prior, KNOWN, Y.expand(rows, 1, 1, 2), sigma_y, streams, (1, 1, 2), lambda step, x_0: None)


def scalars(run: Langevin) -> int:
    """Random numbers that a row asks for: start, kept noise, one draw for the first inner step, two for the others."""
    return 2 * (2 + run.steps * max(2 * run.inner_steps - 1, 0))


# -- drift -------------------------------------------------------------------------------------------------------------


U = torch.tensor([[0.7, -0.4], [2.0, 0.3], [-1.0, -1.0]]).reshape(3, 1, 1, 2)


@pytest.mark.parametrize("schedule", [VP(), VE(), EDM(), Flow()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize(("t", "sigma_y"), [(0.7, 0.0), (0.7, 0.3), (0.02, 0.6)])
def test_drift(schedule: Schedule, t: float, sigma_y: float) -> None:
    """Unknown: the score. Known above the noise of y: (1 + lam) (alpha y - u) / gap - lam score. Below: the score of
    p_t(u) N(alpha y; u, alpha^2 sigma_y^2 - sigma^2).
    """
    level = _Level(task(normalised(toy_g(schedule)), sigma_y=sigma_y), at(t), lam=5.0)
    alpha, sigma = schedule.alpha(at(t)).item(), schedule.sigma(at(t)).item()
    alpha, sigma = alpha / math.hypot(alpha, sigma), sigma / math.hypot(alpha, sigma)
    gap = sigma**2 - alpha**2 * sigma_y**2
    assert level.above == (gap > 0) == (t == 0.7)
    variance = torch.where(KNOWN.known > 0, *(torch.tensor(v, dtype=torch.float32) for v in level.variances))
    got = ((level.mean(U) - U) / variance).flatten(1).numpy()
    u = U.flatten(1).double().numpy()
    score = -u @ np.linalg.inv(alpha**2 * COV + sigma**2 * EYE)
    expected = score.copy()
    if gap > 0:
        expected[:, 0] = 6 * (alpha - u[:, 0]) / gap - 5 * score[:, 0]
    else:
        expected[:, 0] += (alpha - u[:, 0]) / -gap
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_the_exact_level() -> None:
    """Where sigma_t / alpha_t < sigma_y, y ~ N(x_t / alpha_t, sigma_y^2 - s_t^2) has the right law with x_0 and y:
    both ways of coupling give y the variance Var(x_0) + sigma_y^2 and the covariance Var(x_0) with x_0.
    """
    schedule, sigma_y, t = VP(), 0.5, at(0.05)
    alpha, sigma = schedule.alpha(t).item(), schedule.sigma(t).item()
    level = _Level(task(toy_g(), sigma_y=sigma_y), t, lam=0.0)
    assert not level.above and -level.gap / alpha**2 == pytest.approx(sigma_y**2 - (sigma / alpha) ** 2)
    assert (alpha**2 + sigma**2) / alpha**2 - level.gap / alpha**2 == pytest.approx(1 + sigma_y**2)


# -- integrators -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [1e-4, 0.03, 1.0, 50.0, 1e6])
@pytest.mark.parametrize("friction", [0.5, 1.9, 2.0, 15.0, 200.0])
def test_the_underdamped_flow_keeps_its_stationary_law(friction: float, tau: float) -> None:
    """E E^T + L L^T = I, and two halves make a whole."""
    move, root = _transition(friction, tau)
    half, half_root = _transition(friction, tau / 2)
    torch.testing.assert_close(move @ move.mT + root @ root.mT, torch.eye(2).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(half @ half, move, rtol=0, atol=1e-9)
    torch.testing.assert_close(half @ half_root @ half_root.mT @ half.mT + half_root @ half_root.mT, root @ root.mT,
                               rtol=0, atol=1e-9)  # fmt: skip


def test_strong_friction_is_overdamped() -> None:
    """X forgets at rate 1: E[0, 0] -> exp(-tau), with a correction of order 1 / friction^2."""
    for tau in (0.1, 1.0):
        assert float(_transition(200.0, tau)[0][0, 0]) == pytest.approx(math.exp(-tau), abs=3 / 200**2)
        assert float(_transition(15.0, tau)[0][0, 0]) == pytest.approx(math.exp(-tau), abs=3 / 15**2)


@pytest.mark.parametrize("friction", [None, 1.0, 15.0])
def test_a_fixed_mean_gives_its_gaussian(friction: float | None) -> None:
    """Long flows end in N(mean, variance), variance gap / (1 + lam) where known and sigma^2 where not."""
    here = task(toy_g(), rows=4000)
    level = _Level(here, at(0.3), lam=3.0)
    u = torch.zeros(4000, 1, 1, 2)
    kind: Any = _Overdamped(level, u, 0.2, here.noise) if friction is None else None
    dynamics = kind or _Underdamped(level, u, 0.2, here.noise, friction or 1.0)
    mean = torch.tensor([0.3, -0.8]).expand(4000, 1, 1, 2)
    for _ in range(40):
        u = dynamics.flow(u, mean, 1.0)
    for column, variance in enumerate(level.variances):
        x = u[..., column].double()
        assert x.mean().item() == pytest.approx(float(mean[0, 0, 0, column]), abs=4 * math.sqrt(variance / 4000))
        assert x.var().item() == pytest.approx(variance, rel=4 * math.sqrt(2 / 4000))


def test_kicks_of_both_dynamics_agree_to_first_order() -> None:
    """Over a short dt a kick moves u by dt (change / variance), at once or through the momentum."""
    here = task(toy_g())
    level = _Level(here, at(0.3), lam=3.0)
    change = torch.tensor([0.2, -0.5]).expand(3, 1, 1, 2)
    plain = _Overdamped(level, U, 1e-3, here.noise).kick(U, change) - U
    heavy = _Underdamped(level, U, 1e-3, affine.Impulses(3, first=10**6), 300.0)
    heavy.kick(U, change)
    moved = heavy.flow(U, U, 1.0) - U  # no pull: the mean is where u is
    torch.testing.assert_close(moved, plain, rtol=0.02, atol=1e-6)


# -- the process again, in numpy ---------------------------------------------------------------------------------------


def process(prior: Gaussian, run: Langevin, noise: Streams, sigma_y: float) -> np.ndarray:
    """The sheet's process on Toy G, overdamped, written with drift = C - A u; the draws in the order of the solver."""
    schedule = prior.schedule
    times = schedule.grid(run.steps, run.spacing)

    def draw() -> np.ndarray:
        return noise.normal(2).double().numpy()

    end = [f(times[0]).item() for f in (schedule.alpha, schedule.sigma)]
    x = math.hypot(*end) * draw()
    kept = draw()
    for index, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
        if run.known_noise == "fresh" and index > 0:
            kept = draw()
        a, b = schedule.alpha(t).item(), schedule.sigma(t).item()
        length = math.hypot(a, b)
        a, b, u = a / length, b / length, x / length
        denoiser = a * COV @ np.linalg.inv(a**2 * COV + b**2 * EYE)
        gap = b**2 - (a * sigma_y) ** 2
        if gap > 0:
            u[:, 0] = a + math.sqrt(gap) * kept[:, 0]
            A = np.array([(1 + run.lam) / gap, 1 / b**2])
        else:
            A = np.array([1 / b**2 + 1 / -gap, 1 / b**2])

        def constant(u: np.ndarray, a: float, b: float, gap: float, denoiser: np.ndarray) -> np.ndarray:
            c = a * u @ denoiser / b**2
            if gap > 0:
                c[:, 0] = (1 + run.lam) * a / gap - run.lam * (a * u @ denoiser - u)[:, 0] / b**2
            else:
                c[:, 0] += a / -gap
            return c

        dt = run.dt * b**2

        def relax(u: np.ndarray, c: np.ndarray, h: float, A: np.ndarray) -> np.ndarray:
            e = np.exp(-A * h)
            return e * u + (1 - e) / A * c + np.sqrt((1 - e**2) / A) * draw()

        if run.inner_steps:
            c = constant(u, a, b, gap, denoiser)
            u = relax(u, c, dt, A)
        for _ in range(run.inner_steps - 1):
            u = relax(u, c, dt / 2, A)
            new = constant(u, a, b, gap, denoiser)
            u = relax(u + (new - c) * dt, c, dt / 2, A)
            c = new
        d = u @ denoiser
        if gap > 0:
            d[:, 0] = 1.0
        eps = (u - a * d) / b
        x = schedule.alpha(s).item() * d + schedule.sigma(s).item() * eps
    return x


@pytest.mark.parametrize("schedule", [VP(), EDM(), Flow()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize(
    ("settings", "sigma_y"),
    [({}, 0.0), ({"lam": 0.0, "known_noise": "fresh"}, 0.0), ({"inner_steps": 1}, 0.4), ({"inner_steps": 3}, 0.4)],
)
def test_the_process_in_numpy(schedule: Schedule, settings: dict[str, Any], sigma_y: float) -> None:
    run = Langevin(steps=8, **settings)
    prior = toy_g(schedule)
    got = run._run(task(prior, rows=6, sigma_y=sigma_y)).flatten(1).numpy()
    np.testing.assert_allclose(got, process(prior, run, Streams(range(6)), sigma_y), rtol=1e-3, atol=1e-3)


def test_the_same_in_other_coordinates() -> None:
    vp = VP("linear")
    run = Langevin(steps=12, spacing="logsnr", friction=4.0)
    a, b = (run.sample(toy_m(s), KNOWN, Y, num_samples=20, seed=2) for s in (vp, VE(*vp.nsr_range)))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-3)


# -- laws --------------------------------------------------------------------------------------------------------------


class Plugin(Langevin):
    """The rule of the published plug-in: a constant step, and fewer inner steps as the noise falls."""

    def _plan(self, level: _Level) -> tuple[int, float]:
        return round(self.inner_steps * level.sigma**2), self.dt


def test_the_published_plugin_has_the_reported_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 x 5 on Toy G, 176 calls: x_2 .745/.265, not the posterior's .900/.190. Exact law against 16,000 samples."""
    run = Plugin(steps=40, inner_steps=5, lam=5.0, dt=0.2, spacing="karras")
    prior = toy_g()
    inner = [run._plan(_Level(task(prior), t, 5.0))[0] for t in prior.schedule.grid(40, "karras")[:-1]]
    assert sum(inner) + 40 == 176
    asked = 2 * (2 + sum(max(2 * n - 1, 0) for n in inner))
    mean, cov = affine.of_solver(monkeypatch, run, prior, KNOWN, Y, asked)
    assert mean[1].item() == pytest.approx(0.745, abs=3 * math.sqrt(0.265 / 16_000))
    assert cov[1, 1].item() == pytest.approx(0.265, abs=3 * 0.265 * math.sqrt(2 / 16_000))


@pytest.mark.parametrize(
    ("settings", "mean", "var"),
    [
        ({}, 0.797, 0.199),
        ({"lam": 0.0}, 0.620, 0.318),
        pytest.param({"steps": 80}, 0.872, 0.197, marks=pytest.mark.slow),
        pytest.param({"inner_steps": 20}, 0.885, 0.182, marks=pytest.mark.slow),
    ],
)
def test_own_exact_laws(monkeypatch: pytest.MonkeyPatch, settings: dict[str, float], mean: float, var: float) -> None:
    """What the docs page says. Biased: more levels and steps bring it near .900/.190, not to it."""
    run = Langevin(**{"spacing": "karras", **settings})  # type: ignore[arg-type]
    got_mean, got_cov = affine.of_solver(monkeypatch, run, toy_g(), KNOWN, Y, scalars(run))
    assert got_mean[1].item() == pytest.approx(mean, abs=6e-4) and got_cov[1, 1].item() == pytest.approx(var, abs=6e-4)
    assert got_mean[0] == 1 and got_cov[0].abs().max() == 0


def test_friction_15_is_close_to_overdamped(monkeypatch: pytest.MonkeyPatch) -> None:
    light = Langevin(steps=10, spacing="karras")
    heavy = Langevin(steps=10, spacing="karras", friction=15.0)
    asked = 2 * (2 + 10 * (1 + 2 * 9))  # the momentum, and two numbers for each flow
    mean, cov = affine.of_solver(monkeypatch, light, toy_g(), KNOWN, Y, scalars(light))
    other_mean, other_cov = affine.of_solver(monkeypatch, heavy, toy_g(), KNOWN, Y, asked)
    torch.testing.assert_close(mean, other_mean, rtol=0, atol=0.01)
    torch.testing.assert_close(cov, other_cov, rtol=0, atol=0.01)


@pytest.mark.parametrize(("dt", "bias"), [(0.4, 0.03), (0.1, 0.01)])
def test_below_the_noise_of_y_a_level_is_exact(dt: float, bias: float) -> None:
    """sigma_t / alpha_t = .3 < sigma_y = .5: many inner steps sample p_t(x_t | y), but for an error that falls with dt.

    Exact law of 250 steps from u = 0, with the closed form: precision Sigma_t^-1 + m / (alpha^2 sigma_y^2 - sigma^2).
    """
    run = Langevin(inner_steps=int(60 / dt), dt=dt)
    prior = toy_g()
    t = prior.schedule.time_at(at(0.3))
    asked = 2 * (2 * run.inner_steps - 1)
    noise = affine.Impulses(asked + 1)
    here = task(prior, rows=asked + 1, sigma_y=0.5, noise=noise)
    level = _Level(here, t, run.lam)
    mean, cov = affine.moments(run._explore(here, level, torch.zeros(asked + 1, 1, 1, 2)))
    alpha, sigma = level.alpha, level.sigma
    precision = np.linalg.inv(alpha**2 * COV + sigma**2 * EYE)
    spread = alpha**2 * 0.25 - sigma**2
    precision[0, 0] += 1 / spread
    truth = np.linalg.inv(precision)
    np.testing.assert_allclose(cov.numpy(), truth, atol=bias)
    np.testing.assert_allclose(mean.numpy(), truth @ [alpha / spread, 0.0], atol=bias)


@pytest.mark.parametrize(
    ("steps", "inner_steps", "error"), [(20, 5, 0.11), pytest.param(40, 10, 0.04, marks=pytest.mark.slow)]
)
def test_noisy_y(monkeypatch: pytest.MonkeyPatch, steps: int, inner_steps: int, error: float) -> None:
    """sigma_y = .5, truth .8/.2 and .72/.352: too narrow on coarse grids, and better on finer ones."""
    run = Langevin(steps=steps, inner_steps=inner_steps, spacing="karras")
    mean, cov = affine.of_solver(monkeypatch, run, toy_g(), KNOWN, Y, scalars(run), sigma_y=0.5)
    truth = toy_g().posterior(KNOWN, Y, 0.5)
    assert (mean - truth.mean.flatten()).abs().max() < error and (cov - truth.cov).abs().max() < error


def test_nothing_known_is_langevin_and_ddim_of_the_prior() -> None:
    """m = 0: no trace of y or lam."""
    plain, pushed = (
        Langevin(steps=10, lam=lam).sample(toy_m(), NOTHING, y, num_samples=6, seed=[3])
        for lam, y in ((0.0, Y), (8.0, -Y))
    )
    assert torch.equal(plain, pushed)


def test_no_inner_steps_is_ddim_with_the_known_pixels_held(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Langevin(steps=12, inner_steps=0)
    got = run._run(task(toy_g(), rows=4)).flatten(1).numpy()
    np.testing.assert_allclose(got, process(toy_g(), run, Streams(range(4)), 0.0), atol=1e-5)


def test_cost_of_the_benchmark() -> None:
    """20 levels of 5 inner steps and one call for the step down: 120 a sample."""
    assert Langevin().cost() == Cost(120, 0) and Langevin(steps=30, inner_steps=10).cost(2) == Cost(660, 0)


def test_known_pixels_pull_on_unknown_ones_through_lam() -> None:
    """BiG: the mean of x_2 comes nearer to .9 than with plain Langevin steps, at the same cost."""
    plain, pushed = (
        Langevin(steps=15, lam=lam).sample(toy_g(), KNOWN, Y, num_samples=800)[0, ..., 1].mean().item()
        for lam in (0.0, 8.0)
    )
    assert plain + 0.05 < pushed < 0.9
