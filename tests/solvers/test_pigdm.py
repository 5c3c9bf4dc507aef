"""PiGDM: its guidance term, its coordinates, and the exact laws of both forms against the reported ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from priorpaint import UsageError, solver
from priorpaint.diffusion.schedules import EDM, VE, VP, Flow, Schedule
from priorpaint.operators import MatrixOperator
from priorpaint.priors.analytic import Gaussian
from priorpaint.solvers.pigdm import PiGDM
from tests.solvers import affine
from tests.solvers.toy import COV, KNOWN, Y, levels, mode_weights, toy_g, toy_m

EYE = np.eye(2)
SEEN = np.diag([1.0, 0.0])


def at(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


# -- the guided denoiser -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [VP(), VE(), EDM(), Flow()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("form", ["reference", "strict"])
@pytest.mark.parametrize("sigma_y", [0.0, 0.4])
def test_guided_denoiser(schedule: Schedule, form: str, sigma_y: float) -> None:
    """Published: STEP(eta) with D' is STEP(eta) with D plus alpha_s alpha_t g; strict: D' - D = sigma^2/(alpha r^2) g.

    A has two rows that overlap, so that A A^T is not the identity, and r_t^2 is that of data_std = 0.5.
    """
    matrix = np.array([[1.0, 0.5], [0.3, -1.2]])
    operator = MatrixOperator(torch.tensor(matrix))
    prior = toy_g(schedule)
    prior.data_std = 0.5
    run = PiGDM(steps=10, form=form, eta=0.7)  # type: ignore[arg-type]
    y, x_t = np.array([0.4, -0.8]), np.array([1.1, -0.6])
    times = schedule.grid(10)
    t, s = times[4], times[5]
    guided = run.guide(prior, operator, torch.tensor(y[None], dtype=torch.float32), sigma_y)
    got = guided.denoise(torch.tensor(x_t.reshape(1, 1, 1, 2), dtype=torch.float32), t).flatten().double().numpy()

    alpha_t, sigma_t, alpha_s, sigma_s = (f(time).item() for time in (t, s) for f in (schedule.alpha, schedule.sigma))
    j = alpha_t * COV @ np.linalg.inv(alpha_t**2 * COV + sigma_t**2 * EYE)
    d = j @ x_t
    r2 = 0.25 * sigma_t**2 / (0.25 * alpha_t**2 + sigma_t**2)
    g = j.T @ matrix.T @ np.linalg.inv(matrix @ matrix.T + sigma_y**2 / r2 * EYE) @ (y - matrix @ d)
    if form == "strict":
        expected = d + sigma_t**2 / (alpha_t * r2) * g
    else:
        v = sigma_s**2 * (sigma_t**2 - (alpha_t / alpha_s) ** 2 * sigma_s**2) / sigma_t**2
        b = alpha_s - math.sqrt(sigma_s**2 - 0.49 * v) * alpha_t / sigma_t
        expected = d + alpha_s * alpha_t * g / b
    np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-5)


def test_published_form_means_the_same_for_vp_and_ve() -> None:
    """alpha_s alpha_t becomes 1 for VE: with equal levels and noise, x_0 is the same."""
    vp = VP("linear")
    low, high = vp.nsr_range
    kwargs = {"steps": 30, "spacing": "logsnr", "paste": False}
    same = [PiGDM(**kwargs).sample(toy_m(s), KNOWN, Y, num_samples=20, seed=2) for s in (vp, VE(low, high))]  # type: ignore[arg-type]
    torch.testing.assert_close(same[0], same[1], rtol=0, atol=2e-3)


# -- laws --------------------------------------------------------------------------------------------------------------


def chain(
    steps: int, form: str, eta: float, sigma_y: float = 0.0, cov: np.ndarray = COV
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of x_0 for Toy G's levels and any prior covariance, from the sheet's formulas, in numpy."""
    abar = levels(steps)
    mean, var = np.zeros(2), EYE
    for k in range(steps, 0, -1):
        a_t, a_s = abar[k], abar[k - 1]
        j = np.sqrt(a_t) * cov @ np.linalg.inv(a_t * cov + (1 - a_t) * EYE)
        v = (1 - a_s) * (1 - a_t / a_s) / (1 - a_t)
        eps = np.sqrt(max(1 - a_s - eta**2 * v, 0))
        move = np.sqrt(a_s) * j + eps * (EYE - np.sqrt(a_t) * j) / np.sqrt(1 - a_t)
        r2 = 1 - a_t
        b = np.sqrt(a_s) - eps * np.sqrt(a_t / (1 - a_t))
        gain = np.sqrt(a_s * a_t) if form == "reference" else b / np.sqrt(a_t)
        pull = gain / (1 + sigma_y**2 / r2) * j.T @ SEEN
        move = move - pull @ j
        mean, var = move @ mean + pull @ [1.0, 0.0], move @ var @ move.T + eta**2 * v * EYE
    return mean, var


@pytest.mark.parametrize(("form", "eta"), [("reference", 1.0), ("reference", 0.0), ("strict", 1.0), ("strict", 0.0)])
@pytest.mark.parametrize("sigma_y", [0.0, 0.5])
def test_chain_on_toy_g_exactly(monkeypatch: pytest.MonkeyPatch, form: str, eta: float, sigma_y: float) -> None:
    run = solver("pigdm", steps=60, form=form, eta=eta, spacing="respaced", paste=False)
    scalars = 2 + (2 * 60 if eta else 0)
    mean, cov = affine.of_solver(monkeypatch, run, toy_g(), KNOWN, Y, scalars, sigma_y=sigma_y)
    exact_mean, exact_cov = chain(60, form, eta, sigma_y)
    np.testing.assert_allclose(mean.numpy(), exact_mean, atol=2e-5)
    np.testing.assert_allclose(cov.numpy(), exact_cov, atol=5e-5)


@pytest.mark.parametrize(
    ("form", "eta", "steps", "mean", "var"),
    [
        ("reference", 1.0, 100, 0.980, 0.131),
        ("reference", 0.0, 100, 1.021, 0.127),
        ("strict", 1.0, 1000, 0.857, 0.206),
        ("strict", 0.0, 100, 0.834, 0.225),
    ],
)
def test_reported_laws_of_toy_g(form: str, eta: float, steps: int, mean: float, var: float) -> None:
    """Reported from samples without their number (truth .900/.190): three standard errors of 4000 and half a digit."""
    got_mean, got_cov = chain(steps, form, eta)
    assert got_mean[1] == pytest.approx(mean, abs=3 * math.sqrt(var / 4000) + 5e-4)
    assert got_cov[1, 1] == pytest.approx(var, abs=3 * var * math.sqrt(2 / 4000) + 5e-4)


def test_strict_is_exact_for_white_data_and_published_is_not() -> None:
    """r_t^2 is the true variance of N(0, I): x_1 ~ N(.8, .2) and x_2 ~ N(0, 1), up to the O(1/N) of STEP(1).

    Reported from samples: .81/.19 and 0/.97; published .996/.009, whose exact mean is 1.000.
    """
    mean, cov = chain(1000, "strict", 1.0, 0.5, EYE)
    np.testing.assert_allclose(mean, [0.8, 0.0], atol=0.015)
    np.testing.assert_allclose(np.diag(cov), [0.2, 1.0], atol=0.015)
    mean, cov = chain(1000, "reference", 1.0, 0.5, EYE)
    assert mean[0] == pytest.approx(1.0, abs=1e-3) and cov[0, 0] == pytest.approx(0.0093, abs=1e-4)


def test_heun_makes_the_strict_form_exact_for_white_data(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = Gaussian([0.0, 0.0], EYE.tolist())
    run = PiGDM(steps=50, form="strict", sampler="heun", spacing="logsnr")
    mean, cov = affine.of_solver(monkeypatch, run, prior, KNOWN, Y, 2, sigma_y=0.5)
    np.testing.assert_allclose(mean.numpy(), [0.8, 0.0], atol=0.005)
    np.testing.assert_allclose(cov.numpy(), np.diag([0.2, 1.0]), atol=0.005)


@pytest.mark.slow
@pytest.mark.parametrize(("form", "weights"), [("reference", (0.61, 0.39, 0.00)), ("strict", (0.60, 0.39, 0.01))])
def test_toy_m_mode_weights(form: str, weights: tuple[float, float, float]) -> None:
    """Reported to two digits; plus four standard errors of 3000 samples here and as many there."""
    out = solver("pigdm", steps=100, form=form, spacing="respaced").sample(toy_m(), KNOWN, Y, num_samples=3000, seed=0)
    for got, want in zip(mode_weights(out), weights, strict=True):
        assert got == pytest.approx(want, abs=0.006 + 4 * math.sqrt(2 * max(want, 0.01) * (1 - want) / 3000))


def test_cost_follows_the_sampler() -> None:
    assert PiGDM(steps=10).cost(3).backward == 30
    assert PiGDM(steps=10, sampler="heun").cost(3).backward == 57


def test_unknown_form() -> None:
    with pytest.raises(UsageError, match="form"):
        solver("pigdm", form="loose")
