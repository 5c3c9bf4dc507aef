"""DAPS: its Langevin steps alone, its chain exactly, and the laws that were reported."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from priorpaint import DenoiserPrior, Inpainting, UsageError, solver
from priorpaint.diffusion.schedules import EDM, VE, VP, Flow, Schedule
from priorpaint.operators import MatrixOperator, Operator
from priorpaint.priors.analytic import Gaussian
from priorpaint.solvers.daps import DAPS, poly_levels
from tests.solvers import affine
from tests.solvers.linear_toy import reported_law, task_of
from tests.solvers.toy import COV, KNOWN, Y, mode_weights, toy_g, toy_m

SEEN = np.diag([1.0, 0.0])
EYE = np.eye(2)


def at(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


# -- Langevin alone ----------------------------------------------------------------------------------------------------


def langevin_moments(run: DAPS, r: float, draws: int) -> tuple[Tensor, Tensor]:
    """Exact mean and covariance of the Langevin steps about x_hat = (0.3, -0.7) at the level r, y_1 = 1."""
    prior = toy_g(VE(0.01, 100.0))
    noise = affine.Impulses(2 * draws + 1)
    task = task_of(prior, KNOWN, Y.expand(len(noise), 1, 1, 2), noise)
    x_hat = torch.tensor([0.3, -0.7]).expand(len(noise), 1, 1, 2)
    x = run._langevin(task, x_hat, prior.schedule.time_at(at(r)), 0, run._curvature(task))
    assert noise.asked == 2 * draws
    return affine.moments(x)


@pytest.mark.parametrize(("tau", "h"), [(0.5, 0.02), (0.5, 0.1), (0.2, 0.04)])
def test_stationary_law_of_the_langevin_steps(tau: float, h: float) -> None:
    """On a Gaussian of curvature c: the right mean, and variance 1 / (c (1 - a / 2)) with a = h c."""
    r = 0.4
    mean, cov = langevin_moments(DAPS(tau=tau, h=h, n_mc=200), r, 200)
    for k, (seen, hat) in enumerate([(1 / tau**2, 0.3), (0.0, -0.7)]):
        curvature = seen + 1 / r**2
        assert mean[k].item() == pytest.approx((seen * 1.0 + hat / r**2) / curvature, abs=1e-5)
        assert cov[k, k].item() == pytest.approx(1 / (curvature * (1 - h * curvature / 2)), rel=1e-4)


def test_default_step_is_one_over_the_curvature() -> None:
    """The stiffest direction is renewed in one step, without overshoot, and has twice its variance (a = 1)."""
    r, tau = 0.4, 0.1
    curvature = 1 / tau**2 + 1 / r**2
    mean, cov = langevin_moments(DAPS(tau=tau, n_mc=1), r, 1)
    assert mean[0].item() == pytest.approx((1 / tau**2 + 0.3 / r**2) / curvature, abs=1e-6)
    assert cov[0, 0].item() == pytest.approx(2 / curvature, rel=1e-5)


@pytest.mark.parametrize("momentum", [0.5, 0.9])
def test_underdamped_form(momentum: float) -> None:
    """The covariance that v <- m v - sqrt(h) c x + sqrt(2 - 2 m) z, x <- x + sqrt(h) v leaves unchanged."""
    r, tau, h = 0.4, 0.5, 0.01
    _, cov = langevin_moments(DAPS(tau=tau, h=h, n_mc=200, momentum=momentum), r, 201)
    for k, seen in enumerate([1 / tau**2, 0.0]):
        c = seen + 1 / r**2
        move = np.array([[1 - h * c, math.sqrt(h) * momentum], [-math.sqrt(h) * c, momentum]])
        kick = (2 - 2 * momentum) * np.array([[h, math.sqrt(h)], [math.sqrt(h), 1.0]])
        want = np.linalg.solve(np.eye(4) - np.kron(move, move), kick.flatten()).reshape(2, 2)
        assert cov[k, k].item() == pytest.approx(want[0, 0], rel=1e-3)


def test_published_form_has_no_one_half() -> None:
    """exp(-r^2 / tau^2): the variance of a pixel that only y tells is tau^2 / 2 there and tau^2 with the 1/2."""
    for preset, want in (("reference", 0.125), ("corrected", 0.25)):
        _, cov = langevin_moments(DAPS(tau=0.5, h=1e-3, n_mc=400, preset=preset, smax=200.0), 50.0, 400)  # type: ignore[arg-type]
        assert cov[0, 0].item() == pytest.approx(want, rel=0.05)


@pytest.mark.parametrize("preset", ["corrected", "reference"])
def test_a_step_that_diverges_is_refused(preset: str) -> None:
    """h c > 2: each step would move known pixels further away. The published h = 1e-4 is just at the limit."""
    with pytest.raises(UsageError, match="pass h below"):
        solver("daps", steps=2, n_mc=3, h=3e-4, preset=preset).sample(toy_g(), KNOWN, Y)
    solver("daps", steps=2, n_mc=3, h=1e-4, preset=preset).sample(toy_g(), KNOWN, Y)
    twice = MatrixOperator(torch.tensor([[2.0, 0.0]]))
    with pytest.raises(UsageError, match="pass h below"):
        solver("daps", steps=2, n_mc=3, h=1e-4, preset="reference").sample(toy_g(), twice, torch.ones(1, 1))
    assert solver("daps", steps=3, n_mc=50).sample(toy_g(), twice, torch.ones(1, 1)).isfinite().all()


class Elementwise(Operator):
    """y = f(x_1), a nonlinear measurement of shape (B, 1)."""

    title = "f(x_1)"

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x[..., 0].flatten(1))

    def image_shape(self, y: Tensor) -> tuple[int, int, int]:
        return (1, 1, 2)

    def guess(self, y: Tensor) -> Tensor:
        return torch.zeros(len(y), 1, 1, 2)


def test_nonlinear_measurement() -> None:
    """f(x) = (x + tanh x) / 2, f(x_1) = f(1) with noise .05: about y = x_1 = 1 with curvature f'(1)^2 / sigma_y^2.

    Held to the chain of that linear problem: four standard errors, and .02 for what is not linear.
    """

    def half(x: Tensor) -> Tensor:
        return (x + torch.tanh(x)) / 2

    run = DAPS(steps=30, n_mc=20, h=0.0025)
    out = run.sample(toy_g(), Elementwise(half), half(torch.ones(1, 1)), sigma_y=0.05, num_samples=400)
    slope = (1 + 1 - math.tanh(1) ** 2) / 2
    mean, cov = chain((slope / 0.05) ** 2, 0.0025, steps=30, n_mc=20)
    x = out.reshape(-1, 2).double()
    for k in (0, 1):
        std = math.sqrt(cov[k, k])
        assert x[:, k].mean().item() == pytest.approx(mean[k], abs=0.02 + 4 * std / math.sqrt(400))
        assert x[:, k].std().item() == pytest.approx(std, abs=0.02 + 4 * std / math.sqrt(800))


def test_nonlinear_steps_that_diverge_are_an_error() -> None:
    with pytest.raises(UsageError, match="smaller h"):
        DAPS(steps=5, n_mc=50).sample(
            toy_g(), Elementwise(lambda x: x**3), torch.ones(1, 1), sigma_y=0.05, num_samples=4
        )


# -- the chain ---------------------------------------------------------------------------------------------------------


def rho7(top: float, bottom: float, count: int) -> np.ndarray:
    levels: np.ndarray = (top ** (1 / 7) + np.arange(count + 1) / count * (bottom ** (1 / 7) - top ** (1 / 7))) ** 7
    return levels


def level_variance(r: float) -> float:
    return r**2


def data_variance(r: float) -> float:
    return r**2 / (1 + r**2)


def chain(
    weight: float,
    h: float | None,
    *,
    steps: int = 200,
    n_ode: int = 5,
    n_mc: int = 100,
    variance: Callable[[float], float] = level_variance,
    cov: np.ndarray = COV,
) -> tuple[np.ndarray, np.ndarray]:
    """Toy G under DAPS in EDM coordinates, smax 100, smin .1, r_min .01; weight: 1 / tau^2, published twice that."""
    sigmas = rho7(100.0, 0.1, steps)[:-1]
    mean, var = np.zeros(2), 100.0**2 * EYE
    for k, sigma in enumerate(sigmas):
        grid = rho7(sigma, 0.01, n_ode)
        for a, b in zip(grid[:-1], grid[1:], strict=True):
            move = EYE + (b - a) / a * (EYE - cov @ np.linalg.inv(cov + a**2 * EYE))
            mean, var = move @ mean, move @ var @ move.T
        precision = 1 / variance(sigma)
        decay = 1 + k / (steps + 1) * (0.01 - 1)
        step = decay / (weight + precision) if h is None else h * decay
        total, shift, noise = EYE, np.zeros(2), np.zeros((2, 2))  # u = total xhat + shift + N(0, noise)
        keep = EYE - step * (weight * SEEN + precision * EYE)
        for _ in range(n_mc):
            total = keep @ total + step * precision * EYE
            shift = keep @ shift + step * weight * np.array([1.0, 0.0])
            noise = keep @ noise @ keep.T + 2 * step * EYE
        mean, var = total @ mean + shift, total @ var @ total.T + noise
        if k + 1 < steps:
            var = var + sigmas[k + 1] ** 2 * EYE
    return mean, var


@pytest.mark.parametrize(
    ("settings", "weight", "h", "variance"),
    [
        ({}, 1e4, None, level_variance),
        ({"h": 2e-5}, 1e4, 2e-5, level_variance),
        ({"preset": "reference"}, 2e4, 5e-5, level_variance),
        ({"tau": 0.5, "variance": "data"}, 4.0, None, data_variance),
    ],
)
def test_chain_exactly(
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, object],
    weight: float,
    h: float | None,
    variance: Callable[[float], float],
) -> None:
    run = DAPS(**{"steps": 5, "n_ode": 3, "n_mc": 4, "paste": False, **settings})  # type: ignore[arg-type]
    mean, cov = affine.of_solver(monkeypatch, run, toy_g(VE(0.01, 100.0)), KNOWN, Y, 2 * (5 + 5 * 4))
    want_mean, want_cov = chain(weight, h, steps=5, n_ode=3, n_mc=4, variance=variance)
    np.testing.assert_allclose(mean.numpy(), want_mean, atol=2e-5)
    np.testing.assert_allclose(cov.numpy(), want_cov, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("weight", "h", "mean", "var"),
    [(2e4, 1e-4, 0.870, 0.178), (2e4, 5e-5, 0.860, 0.169), (1e4, 1e-4, 0.874, 0.188)],
)
def test_reported_laws(weight: float, h: float, mean: float, var: float) -> None:
    """Defaults, tau .01, without and with the 1/2; truth .900/.190. The chain is that of test_chain_exactly."""
    got_mean, got_cov = chain(weight, h)
    reported_law(got_mean[1], got_cov[1, 1], mean, var)


def test_reported_law_with_noise() -> None:
    """sigma_y = tau = .5, h .01, 200 Langevin steps; truth x_1 .80/.20, x_2 .72/.352."""
    mean, cov = chain(4.0, 0.01, n_mc=200)
    reported_law(mean[0], cov[0, 0], 0.869, 0.222)
    reported_law(mean[1], cov[1, 1], 0.724, 0.544)


def test_r_squared_is_too_wide_and_one_ode_step_with_data_std_is_exact_for_white_data() -> None:
    """x_2 is not measured and independent of x_1: its variance should be 1 (the sheet: 1.6)."""
    wide = chain(4.0, 0.01, cov=EYE)[1][1, 1]
    exact_mean, exact = chain(4.0, None, cov=EYE, n_ode=1, variance=data_variance)
    assert wide == pytest.approx(1.6, abs=0.05)
    assert exact[1, 1] == pytest.approx(1.0, abs=0.08)
    assert exact_mean[0] == pytest.approx(0.8, abs=0.01) and exact[0, 0] == pytest.approx(0.2, abs=0.015)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "sigma_y", "weight"), [({}, 0.0, 1e4), ({"variance": "data", "n_ode": 1}, 0.5, 4.0)]
)
def test_default_run_has_the_law_of_the_chain(settings: dict[str, object], sigma_y: float, weight: float) -> None:
    """All 200 x 100 steps with the code, 1000 samples, four standard errors."""
    data = "variance" in settings
    mean, cov = chain(weight, None, n_ode=1 if data else 5, variance=data_variance if data else level_variance)
    out = DAPS(paste=False, **settings).sample(toy_g(), KNOWN, Y, sigma_y=sigma_y, num_samples=1000)  # type: ignore[arg-type]
    x = out.reshape(-1, 2).double()
    for k in (0, 1):
        assert x[:, k].mean().item() == pytest.approx(mean[k], abs=4 * math.sqrt(cov[k, k] / 1000))
        assert x[:, k].var().item() == pytest.approx(cov[k, k], rel=4 * math.sqrt(2 / 1000))


@pytest.mark.parametrize("schedule", [VE(0.01, 100.0), EDM(0.01, 100.0), Flow()], ids=lambda s: type(s).__name__)
def test_any_schedule_gives_the_same_samples(schedule: Schedule) -> None:
    run = DAPS(steps=10, n_ode=3, n_mc=5)
    a, b = (run.sample(toy_m(s), KNOWN, Y, sigma_y=0.2, num_samples=10) for s in (VP(), schedule))
    torch.testing.assert_close(a, b, rtol=0, atol=3e-3)


def test_levels() -> None:
    run = DAPS(steps=200)
    ratio = VE(0.01, 100.0).log_nsr(run.times(VE(0.01, 100.0))).exp()
    assert len(ratio) == 200 and ratio[0].item() == pytest.approx(100.0) and ratio[-1].item() > 0.1
    assert poly_levels(100.0, 0.1, 200)[[0, -1]].tolist() == pytest.approx([100.0, 0.1])
    assert VE().log_nsr(run.times(VE())).exp().max().item() == pytest.approx(50.0), "a schedule may end lower"
    with pytest.raises(UsageError, match="smin below smax"):
        DAPS(smax=0.1, smin=0.2).times(VE())


def test_no_gradient_reaches_the_network() -> None:
    exact = toy_g()

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        assert not torch.is_grad_enabled() and not x_t.requires_grad
        return exact.denoise(x_t, t)

    prior = DenoiserPrior(denoise, exact.schedule, exact.shape)
    run = DAPS(steps=3, n_ode=2, n_mc=2)
    run.sample(prior, KNOWN, Y, num_samples=5)
    assert (prior.nfe.forward, prior.nfe.backward) == (30, 0) == (run.cost(5).forward, run.cost(5).backward)


def test_a_row_does_not_feel_a_stiffer_neighbour() -> None:
    """The default step follows the norm of each row's own operator."""
    matrices = torch.tensor([[[1.0, 0.0]], [[5.0, 0.0]]])
    prior, run = toy_g(), DAPS(steps=4, n_mc=5, tau=0.1)
    together = run.sample(prior, MatrixOperator(matrices), torch.ones(2, 1), seed=[1, 2])
    for j in range(2):
        alone = run.sample(prior, MatrixOperator(matrices[j]), torch.ones(1, 1), seed=[j + 1])
        torch.testing.assert_close(together[j : j + 1], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_toy_m_mode_weights() -> None:
    """Reported .62/.38/.01 (truth .6/.4/0); 500 samples, four standard errors and the rounding."""
    got = mode_weights(DAPS().sample(toy_m(), KNOWN, Y, num_samples=500))
    for share, want in zip(got, (0.62, 0.38, 0.01), strict=True):
        assert share == pytest.approx(want, abs=0.006 + 4 * math.sqrt(want * (1 - want) / 500))


def test_isotropic_prior_and_a_mask_of_nothing() -> None:
    """Nothing is known: samples of the prior, too wide with variance 'level'."""
    prior = Gaussian(torch.zeros(2), torch.eye(2))
    out = DAPS(steps=30, n_mc=30, variance="data", n_ode=1).sample(
        prior, Inpainting(torch.zeros(1, 2)), torch.zeros(1, 1, 1, 2), num_samples=2000
    )
    assert out.double().var().item() == pytest.approx(1.0, abs=0.15)
