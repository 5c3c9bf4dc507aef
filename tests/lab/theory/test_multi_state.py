"""Theorems 8, 11 and 12 and Algorithm 3 of RePaint+: closed forms against matrices and reported numbers."""

from __future__ import annotations

import math

import pytest
import torch

from priorpaint.diffusion.schedules import VP
from priorpaint.lab.theory import multi_state, two_state
from tests.lab.theory.problems import hidden_block, named, varied

SCHEDULES = {"linear": VP("linear"), "cosine": VP("cosine"), "short": VP([0.1, 0.3, 0.5, 0.9])}
LINEAR = SCHEDULES["linear"]
EYE = torch.eye(8, dtype=torch.float64)


def grid(name: str, steps: int = 12) -> tuple[VP, torch.Tensor]:
    schedule = SCHEDULES[name]
    return schedule, schedule.grid(4 if name == "short" else steps)


@pytest.mark.parametrize("name", SCHEDULES)
def test_generator_is_the_least_squares_solution(name: str) -> None:
    """Theorem 8 for all t (acceptance 1): target a x_0 + b x_t, with DDPM's a and b, regressed on x_t."""
    schedule, times = grid(name)
    model = varied(3)
    eye = torch.eye(model.d, dtype=torch.float64)
    for t, s in zip(times[:-1], times[1:], strict=True):
        abar_t, abar_s = float(schedule.alpha(t)) ** 2, float(schedule.alpha(s)) ** 2
        beta = 1 - abar_t / abar_s
        a, b = math.sqrt(abar_s) * beta / (1 - abar_t), math.sqrt(1 - beta) * (1 - abar_s) / (1 - abar_t)
        second = abar_t * model.P + (1 - abar_t) * eye
        population = torch.linalg.solve(second, a * math.sqrt(abar_t) * model.P + b * second).mT
        assert (multi_state.generator(model, schedule, t, s) - population).abs().max() < 1e-10
        signal = multi_state.signal_generator(model, schedule, t, s)
        assert (signal - math.sqrt(1 - beta) * model.P).abs().max() < 1e-10


def test_one_state_is_the_two_state_model() -> None:
    """The paper's own check: T = 1 gives theta* = sqrt(1 - beta) P, with and without the noise part."""
    model, t, s = varied(4), torch.tensor(0.7, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
    expected = two_state.generator(model, float(LINEAR.sigma(t)) ** 2)
    torch.testing.assert_close(multi_state.generator(model, LINEAR, t, s), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(multi_state.signal_generator(model, LINEAR, t, s), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("steps", [2, 10, 1000])
def test_aligned_generation_has_the_data_law(steps: int) -> None:
    """Theorem 11 (acceptance 8), where DDPM's own chain is too narrow."""
    times = LINEAR.grid(steps, "respaced")
    assert multi_state.generated_variance(LINEAR, times) == pytest.approx(1, abs=1e-10)
    assert multi_state.ancestral_variance(LINEAR, times) < 1


def test_reported_variances_of_ancestral_sampling() -> None:
    for steps, variance in ((1000, 0.991), (10, 0.521)):
        times = LINEAR.grid(steps, "respaced")
        assert multi_state.ancestral_variance(LINEAR, times) == pytest.approx(variance, abs=5e-4)


@pytest.mark.parametrize("name", SCHEDULES)
def test_error_without_resampling(name: str) -> None:
    """Theorem 12 against the covariance of the chain itself, written out in matrices.

    One state: u = P x_t / alpha_{t|s} + noise, paste K (alpha_s x_0 + sigma_s eps) and D u. Each independent draw
    (z, x_T, eps of each state) is a column block.
    """
    schedule, times = grid(name, 5)
    model = named(8, 3, 5, 1)
    hidden = ~model.known
    states = len(times) - 1
    x_0 = torch.cat([model.A, torch.zeros(8, 8 * (2 * states + 1), dtype=torch.float64)], 1)
    x, place = torch.zeros_like(x_0), model.k
    x[:, place : place + 8] = EYE
    for index, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
        keep = float(schedule.alpha(t) / schedule.alpha(s))
        u = keep * model.P @ x / keep**2
        place += 8
        u[:, place : place + 8] = math.sqrt(1 - keep**2) * model.P
        kept = schedule.alpha(s) * x_0
        place += 8
        kept[:, place : place + 8] = float(schedule.sigma(s)) * EYE if index + 1 < states else 0
        x = torch.where(model.known[:, None], kept, u)
    error = (x - x_0)[hidden]
    values, vectors = torch.linalg.eigh(hidden_block(model))
    init, forward, reverse = multi_state.aligned_error(schedule, times, values.clamp(min=0))
    expected = vectors @ torch.diag(init + forward + reverse) @ vectors.mT
    torch.testing.assert_close(error @ error.mT, expected, rtol=1e-9, atol=1e-12)


def test_reported_error_of_repaint() -> None:
    """Acceptance 9: exact recursions on the 1000-step linear schedule at rho = .5."""
    times = LINEAR.grid(1000, "respaced")
    assert float(multi_state.repaint_error(LINEAR, times, 0.5).rms) == pytest.approx(0.0201197, abs=1e-7)
    assert float(multi_state.repaint_error(LINEAR, times, 0.5, 1000).rms) == pytest.approx(0.0081655, abs=1e-7)
    first = float(LINEAR.sigma(times[-2])) ** 2
    assert float(two_state.repaint_rms(0.5, first)) == pytest.approx(0.0081655, abs=1e-5), "the law of the last state"


@pytest.mark.parametrize(
    ("rho", "spacing", "reported"),
    [
        (0.5, "respaced", {2: 0.0082, 10: 0.0082, 100: 0.0082, 200: 0.0082, 1000: 0.0201}),
        (0.95, "respaced", {2: 0.0312, 10: 0.0320, 20: 0.0564, 100: 0.202, 1000: 0.908}),
        (0.5, "uniform", {1: 0.707, 10: 0.274, 100: 0.0356, 1000: 0.0201}),
    ],
)
def test_reported_comparison_of_resampling_and_slowing_down(
    rho: float, spacing: str, reported: dict[int, float]
) -> None:
    """RePaint with 1000 network calls, T states of 1000 / T rounds each: on DDPM's grid fewer states are never worse;
    on a uniform grid the last noise level changes with T, and with it the floor."""
    errors = []
    for states, rms in reported.items():
        times = LINEAR.grid(states, spacing)
        errors.append(float(multi_state.repaint_error(LINEAR, times, rho, 1000 // states).rms))
        assert errors[-1] == pytest.approx(rms, rel=6e-3), states
    if spacing == "respaced":
        assert errors == sorted(errors)
        assert float(LINEAR.sigma(LINEAR.grid(10, spacing)[-2])) ** 2 == pytest.approx(1e-4)


def test_reported_contraction_of_the_literal_algorithm() -> None:
    for rho, states, left in ((0.5, 100, 1.6e-18), (0.5, 1000, 6.1e-3), (0.95, 10, 2.3e-8), (0.95, 100, 0.028)):
        times = LINEAR.grid(states, "respaced")
        found = float(multi_state.literal_contraction(LINEAR, times, rho, 1000 // states))
        assert found == pytest.approx(left, rel=0.1), (rho, states)
        assert rho**1000 < 1e-9 * found, "the x_0 form contracts by rho in every round"


@pytest.mark.parametrize("name", SCHEDULES)
def test_rate_of_the_literal_algorithm(name: str) -> None:
    """Acceptance 8: spectral radius of the hidden block is c + (1 - c) rho, and x_0 is the fixed point."""
    schedule, times = grid(name)
    model = named(32, 8, 16, 3)
    hidden = ~model.known
    x_0 = model.draw(4, seed=0)
    for t, s in zip(times[:-1], times[1:], strict=True):
        matrix = multi_state.literal_sweep(model, schedule, t, s)
        radius = float(torch.linalg.eigvalsh(matrix[hidden][:, hidden])[-1])
        assert radius == pytest.approx(float(multi_state.literal_rate(schedule, t, s, model.rho)), abs=1e-10)
        torch.testing.assert_close(x_0 @ matrix.mT, x_0, rtol=0, atol=1e-10)


def test_modes_do_not_mix() -> None:
    """RePaint's chain in matrices, for one x_0, against the recursion over eigenvalues of B."""
    model = named(8, 3, 5, 2)
    schedule, times = grid("linear", 6)
    x_0, hidden = model.draw(1, seed=0)[0], ~model.known
    mean, cov = torch.zeros(8, dtype=torch.float64), torch.eye(8, dtype=torch.float64)
    known = model.known.double()
    for t, s in zip(times[:-1], times[1:], strict=True):
        theta = multi_state.generator(model, schedule, t, s)
        keep = schedule.alpha(t) / schedule.alpha(s)
        beta, sigma_s, sigma_t = 1 - keep**2, schedule.sigma(s) ** 2, schedule.sigma(t) ** 2
        for count in range(3):
            if count:
                mean, cov = keep * mean, keep**2 * cov + beta * EYE
            mean, cov = theta @ mean, theta @ cov @ theta.mT + sigma_s * beta / sigma_t * EYE
            mean = torch.where(model.known, schedule.alpha(s) * x_0, mean)
            cov = (1 - known)[:, None] * cov * (1 - known) + torch.diag(known * sigma_s)
    values, vectors = torch.linalg.eigh(hidden_block(model))
    error = multi_state.repaint_error(schedule, times, values.clamp(min=0), 3)
    bias = vectors @ torch.diag(error.bias) @ vectors.mT @ x_0[hidden]
    torch.testing.assert_close(mean[hidden] - x_0[hidden], bias, rtol=0, atol=1e-10)
    spread = vectors @ torch.diag(error.variance) @ vectors.mT
    torch.testing.assert_close(cov[hidden][:, hidden], spread, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("rho", "exponent"), [(0.1, 0.5), (0.7, 0.2995), (0.9, 0.0999)])
def test_the_floor_without_resampling_is_set_by_the_last_noise(rho: float, exponent: float) -> None:
    """Many states: the error goes like beta_1^min(1/2, 1 - rho), whatever T."""
    errors = []
    for beta_1 in (1e-3, 1e-5):
        abar = 1 / (1 + torch.logspace(math.log10(beta_1 / (1 - beta_1)), 4, 1500, dtype=torch.float64))
        betas = 1 - abar / torch.cat([torch.ones(1, dtype=torch.float64), abar[:-1]])
        schedule = VP(betas)
        errors.append(float(multi_state.repaint_error(schedule, schedule.grid(1500, "respaced"), rho).rms))
    assert math.log(errors[0] / errors[1]) / math.log(100) == pytest.approx(exponent, abs=0.01)
