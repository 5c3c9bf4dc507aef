"""Theorems 3, 4 and 6 of RePaint+, and RePaint's law: closed forms against matrices, sweeps and least squares."""

from __future__ import annotations

import math
from itertools import islice

import pytest
import torch
from torch import Tensor

from priorpaint import UsageError
from priorpaint.lab.theory import LinearModel, two_state
from tests.lab.theory.problems import diagonal, gaussian, hidden_block, named, varied

# Rates reported for these problems: (d, k, known, seed) -> rho.
RATES = {(32, 8, 16, 3): 0.946680, (64, 16, 48, 5): 0.726894, (64, 16, 17, 6): 0.999843}


def errors(model: LinearModel, x_0: Tensor, u: Tensor, rounds: int) -> Tensor:
    """||u_R - x_0|| over all images for R = 0 ... rounds, (rounds + 1,)."""
    steps = [u, *islice(two_state.sweeps(model, x_0, u), rounds)]
    return torch.stack([(step - x_0).norm() for step in steps])


# -- the model ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("problem", "rho"), RATES.items())
def test_reported_rates(problem: tuple[int, int, int, int], rho: float) -> None:
    assert named(*problem).rho == pytest.approx(rho, abs=5e-7)


@pytest.mark.parametrize("seed", range(5))
def test_three_forms_of_the_rate(seed: int) -> None:
    model = varied(seed)
    assert float(torch.linalg.eigvalsh(hidden_block(model))[-1]) == pytest.approx(model.rho, abs=1e-12)
    assert float(torch.linalg.matrix_norm(model.P @ model.D, 2)) == pytest.approx(math.sqrt(model.rho), abs=1e-12)


def test_random_models_are_seeded_and_uniform_in_nothing_else() -> None:
    one, again, other = (LinearModel.random(12, 3, 5, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.A, again.A) and torch.equal(one.known, again.known)
    assert not torch.equal(one.A, other.A)
    assert int(one.known.sum()) == 5 and one.A.shape == (12, 3)
    assert torch.equal(one.draw(4, seed=3), again.draw(4, seed=3))
    assert LinearModel.random(3, 1, [True, False, True], seed=0).known.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(3, 2), torch.ones(3)), "orthonormal"),
        ((torch.eye(3)[:, :2], torch.ones(2)), r"mask \(d,\)"),
        ((torch.ones(3), torch.ones(3)), r"A \(d, k\)"),
    ],
)
def test_bad_models(arguments: tuple[Tensor, Tensor], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        LinearModel(*arguments)


def test_bad_sizes() -> None:
    with pytest.raises(UsageError, match="does not fit"):
        LinearModel.random(3, 4, 1, seed=0)
    with pytest.raises(UsageError, match="take 0 to 3"):
        LinearModel.random(3, 1, 4, seed=0)


# -- Theorem 3 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [1e-4, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("seed", range(5))
def test_generator_is_the_least_squares_solution(beta: float, seed: int) -> None:
    """E[x_0 x_1^T] E[x_1 x_1^T]^-1 with E[x_0 x_0^T] = P (acceptance 1)."""
    model = varied(seed)
    alpha = math.sqrt(1 - beta)
    second = alpha**2 * model.P + beta * torch.eye(model.d, dtype=torch.float64)
    population = torch.linalg.solve(second, alpha * model.P).mT
    assert (two_state.generator(model, beta) - population).abs().max() < 1e-10


# -- RePaint -----------------------------------------------------------------------------------------------------------


def test_repaint_is_biased_by_known_numbers() -> None:
    """beta = .9, rho = .5 (acceptance 4); the bias is reported for a unit of z, whose hidden part is z / sqrt(2)."""
    assert float(two_state.repaint_bias(0.5, 0.9)) * math.sqrt(0.5) == pytest.approx(-0.669891, abs=1e-5)
    assert float(two_state.repaint_variance(0.5, 0.9)) == pytest.approx(0.0451128, abs=1e-5)
    assert float(two_state.repaint_rms(0.5, 0.9)) == pytest.approx(0.702756, abs=1e-5)
    assert float(two_state.reverse_sde_rms(0.5, 0.9)) == pytest.approx(0.834916, abs=1e-5)


@pytest.mark.parametrize(("seed", "beta"), [(0, 0.9), (1, 0.3), (2, 0.7)])
def test_repaint_reaches_that_law(seed: int, beta: float) -> None:
    """Mean and covariance of v given one x_0, from 20,000 chains, against bias and dispersion of all modes."""
    model = named(8, 3, 5, seed)
    x_0 = model.draw(1, seed=seed)
    count = 20_000
    *_, filled = islice(two_state.repaint(model, x_0.expand(count, -1), beta, seed=seed), 60)
    hidden = filled[:, ~model.known]
    values, vectors = torch.linalg.eigh(hidden_block(model))
    values = values.clamp(min=0)
    bias = vectors @ torch.diag(two_state.repaint_bias(values, beta)) @ vectors.mT
    cov = vectors @ torch.diag(two_state.repaint_variance(values, beta)) @ vectors.mT
    truth = x_0[0, ~model.known]
    deviation = cov.diagonal().max().sqrt()
    assert (hidden.mean(0) - truth - bias @ truth).abs().max() < 5 * deviation / math.sqrt(count)
    assert (hidden.mT.cov() - cov).abs().max() < 5 * math.sqrt(2 / count) * deviation**2


@pytest.mark.parametrize("beta", [0.5, 0.7, 0.9])
def test_one_more_reverse_step_helps_or_hurts_by_the_noise(beta: float) -> None:
    """The order of Table 1 needs beta > .64 at rho = .5."""
    worse = two_state.reverse_sde_rms(0.5, beta) > two_state.repaint_rms(0.5, beta)
    assert bool(worse) == (beta > 0.64)


# -- Theorem 4 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_closed_form_and_operator_norm(seed: int) -> None:
    model = varied(seed)
    x_0, u = model.draw(3, seed=seed), gaussian(3, model.d, seed)
    *_, swept = islice(two_state.sweeps(model, x_0, u), 7)
    torch.testing.assert_close(two_state.after_sweeps(model, x_0, u, 7), swept, rtol=0, atol=1e-12)
    for rounds in (1, 2, 7):
        norm = float(torch.linalg.matrix_norm(torch.linalg.matrix_power(model.P @ model.D, rounds), 2))
        assert norm == pytest.approx(two_state.contraction(model.rho, rounds, on_manifold=False), abs=1e-12)


def test_only_known_coordinates_are_read() -> None:
    model = varied(1)
    x_0, u = model.draw(2, seed=0), gaussian(2, model.d, 0)
    dirty = torch.where(model.known, x_0, 7.0)
    assert torch.equal(two_state.sweep(model, dirty, u), two_state.sweep(model, x_0, u))


def slope(model: LinearModel, seed: int) -> float | None:
    """Fitted log error a round over log rho, on relative errors 1e-4 to 1e-11; the bound of each round is checked."""
    x_0, u = model.draw(20, seed=seed), model.project(gaussian(20, model.d, seed))
    rounds = min(two_state.rounds_needed(1.0, 1e-12, model.rho), 60_000)
    error = errors(model, x_0, u, rounds)
    number = torch.arange(rounds + 1, dtype=torch.float64)
    assert (error <= model.rho**number * error[0] * (1 + 1e-9) + 1e-12).all()
    fitted = (error < 1e-4 * error[0]) & (error > 1e-11 * error[0])
    if fitted.sum() < 3:
        return None
    x, y = number[fitted], error[fitted].log()
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()) / math.log(model.rho)


def check_slopes(seeds: range, most_rho: float) -> None:
    ratios = []
    for seed in seeds:
        model = varied(seed)
        if 1e-3 < model.rho < most_rho:
            ratio = slope(model, seed)
            ratios += [] if ratio is None else [ratio]
    assert len(ratios) > 0.6 * len(seeds)
    assert all(0.99 <= ratio <= 1.10 for ratio in ratios)
    assert torch.tensor(ratios).median().item() == pytest.approx(1, abs=1e-3)


def test_measured_rate_is_rho() -> None:
    check_slopes(range(1000, 1040), 0.97)


@pytest.mark.slow
def test_measured_rate_is_rho_on_300_problems() -> None:
    """Acceptance 5."""
    check_slopes(range(1000, 1300), 0.9995)


def test_error_halves_with_every_sweep() -> None:
    """Acceptance 2."""
    model = diagonal()
    x_0, u = model.draw(1000, seed=0), model.project(gaussian(1000, 2, 0))
    error = errors(model, x_0, u, 60)
    ratio = error[1:21] / error[:20]
    assert (ratio - 0.5).abs().max() < 1e-6 and error[60] < 1e-10


@pytest.mark.parametrize("problem", [(2, 1, 1, 0), (32, 8, 16, 3), (64, 16, 48, 5)])
def test_the_required_rounds_are_enough(problem: tuple[int, int, int, int]) -> None:
    """Acceptance 6; a tenth of a percent less error is not promised, so fewer rounds may do as well."""
    model = named(*problem)
    x_0, u = model.draw(5, seed=0), model.project(gaussian(5, model.d, 0))
    start = (u - x_0).norm(dim=1)
    rounds = two_state.rounds_needed(float(start.max()), 1e-6, model.rho)
    *_, last = islice(two_state.sweeps(model, x_0, u), rounds)
    assert (last - x_0).norm(dim=1).max() <= 1e-6
    assert two_state.contraction(model.rho, rounds) * start.max() <= 1e-6
    assert two_state.contraction(model.rho, rounds - 1) * start.max() > 1e-6


def test_rounds_at_the_edges() -> None:
    assert two_state.rounds_needed(1e-7, 1e-6, 0.5) == 0
    assert two_state.rounds_needed(1.0, 1e-6, 0.0) == 1
    assert two_state.rounds_needed(math.sqrt(2), 1e-6, 0.999843241747687) in range(90_000, 91_000)
    with pytest.raises(UsageError, match="invisible"):
        two_state.rounds_needed(1.0, 1e-6, 1.0)
    with pytest.raises(UsageError, match="tolerance > 0"):
        two_state.rounds_needed(1.0, 0.0, 0.5)


def test_fewer_known_coordinates_than_dimensions() -> None:
    """rho = 1: the invisible part of the start stays for ever, the rest is recovered."""
    model = named(8, 4, 3, 3)
    assert model.rho == 1 and round(float(model.invisible.trace())) == 1
    x_0, u = model.draw(4, seed=0), model.project(gaussian(4, 8, 0))
    left = two_state.limit_error(model, x_0, u)
    assert left.norm(dim=1).min() > 0.01
    torch.testing.assert_close(two_state.after_sweeps(model, x_0, u, 200_000) - x_0, left, rtol=0, atol=1e-6)
    assert (two_state.limit_error(diagonal(), x_0[:, :2], u[:, :2]) == 0).all()


def test_one_generator_serves_all_masks_at_different_rates() -> None:
    A = named(32, 4, 8, 0).A
    rates = []
    for seed in range(30):
        known = torch.from_numpy(gaussian(1, 32, seed)[0].argsort().numpy()) < 5 + seed // 2
        model = LinearModel(A, known)
        rates.append(model.rho)
        x_0 = model.draw(1, seed=seed)
        u = two_state.after_sweeps(model, x_0, model.project(gaussian(1, 32, seed)), 100_000)
        assert (u - x_0).norm() < 1e-9 or model.rho > 0.9995
    assert min(rates) < 0.6 and max(rates) > 0.9, "the rate does depend on the mask"


# -- Theorem 6 ---------------------------------------------------------------------------------------------------------


def perturbed(seed: int, size: float) -> tuple[LinearModel, Tensor, Tensor, Tensor]:
    model = varied(seed, 24, 8)
    delta = gaussian(model.d, model.d, seed)
    delta = size * delta / torch.linalg.matrix_norm(delta, 2)
    return model, delta, model.draw(3, seed=seed), gaussian(3, model.d, seed + 1)


def after_noisy_sweeps(model: LinearModel, delta: Tensor, x_0: Tensor, u: Tensor, rounds: int) -> Tensor:
    """u_R of Algorithm 2 with the generator P + Delta."""
    *_, last = islice(two_state.noisy_sweeps(model, delta, x_0, u), rounds)
    return last


def test_a_noisy_generator_ends_where_theory_says_and_within_its_bound() -> None:
    """Acceptance 7 and Corollary 7."""
    tried = 0
    for seed in range(150):
        size = 10 ** -(1 + 5 * (seed % 10) / 9)
        model, delta, x_0, start = perturbed(seed, size)
        rate = two_state.noisy_rate(model, delta)
        if rate >= 1:
            with pytest.raises(UsageError, match="Theorem 6 needs"):
                two_state.noisy_bound(model, delta, x_0, start)
            continue
        tried += 1
        limit = two_state.noisy_limit(model, delta, x_0).norm(dim=1)
        bound = two_state.noisy_bound(model, delta, x_0, start)
        assert (limit <= bound * (1 + 1e-12)).all()
        after = after_noisy_sweeps(model, delta, x_0, start, 5)
        assert ((after - x_0).norm(dim=1) <= two_state.noisy_bound(model, delta, x_0, start, 5) * (1 + 1e-12)).all()
        tolerance, largest = float(bound.max()), float(x_0.norm(dim=1).max())
        assert size <= two_state.tolerable_error(model, delta, tolerance * (1 + 1e-9), largest)
        if rate < 0.9 and seed % 5 == 0:
            left = after_noisy_sweeps(model, delta, x_0, start, 300) - x_0
            torch.testing.assert_close(left, two_state.noisy_limit(model, delta, x_0), rtol=1e-9, atol=1e-12)
    assert tried > 100


@pytest.mark.parametrize("seed", range(3))
def test_the_limit_is_linear_in_the_perturbation(seed: int) -> None:
    """Acceptance 7: log-log slope 1 for ||Delta|| in 1e-6 ... 1e-2."""
    model = named(24, 4, 16, seed)
    x_0, direction = model.draw(3, seed=seed), gaussian(24, 24, seed)
    direction = direction / torch.linalg.matrix_norm(direction, 2)
    sizes = torch.logspace(-6, -2, 9, dtype=torch.float64)
    limits = torch.stack([two_state.noisy_limit(model, size * direction, x_0).norm() for size in sizes])
    x, y = sizes.log(), limits.log()
    assert float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()) == pytest.approx(1, abs=0.01)
