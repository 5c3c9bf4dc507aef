"""VIPaint with several components: the mixture's bound, the modes that it keeps, who gets which component.

Also operators that are no masks: the likelihood and the start of the fit.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from priorpaint.diffusion.rng import Streams
from priorpaint.diffusion.schedules import EDM
from priorpaint.errors import UsageError
from priorpaint.operators import LinearOperator, MatrixOperator
from priorpaint.priors.analytic import Gaussian
from priorpaint.solvers import solver
from priorpaint.solvers.vipaint.correction import choose
from priorpaint.solvers.vipaint.fit import _far_apart, gradient_step, weighed
from priorpaint.solvers.vipaint.likelihood import Likelihood
from priorpaint.solvers.vipaint.solver import VIPaint
from priorpaint.solvers.vipaint.variables import Draws, Mixture, Variational
from tests.solvers.toy import KNOWN, Y, mode_weights
from tests.solvers.vipaint_toy import (
    FULL,
    at,
    evidence,
    exact_parts,
    family,
    ladder,
    likelihood,
    mixed,
    three_modes,
    toy,
)

STRIDE_30 = [*range(550, 999, 30), 999]


def chains(count: int, distance: float, levels: int = 2) -> list[Variational]:
    """Chains like each other but for their means, which are ``distance`` apart."""
    noise = Streams([3]).normal(3, levels, 1, 1, 2).double()
    mean, log_var, gate = noise[:, 0], 0.3 * noise[:, 1] - 1, noise[:, 2]
    return [Variational(mean + distance * number, log_var, gate) for number in range(count)]


def mixing(lam: Mixture, rows: int = 4000, levels: tuple[int, ...] = (550, 400)) -> float:
    """The mixing part of the bound of the worked example, from ``rows`` rows of each component."""
    prior, steps, count = toy(FULL), ladder(levels, STRIDE_30), rows * lam.count
    noise = Streams([5]).normal(count, len(levels) + 1, 1, 1, 2)[0].double()
    draws = Draws(noise[:, :-1], noise[:, -1], torch.zeros(count, dtype=torch.long))
    lam = Mixture(*(value.clone().requires_grad_() for value in lam.tensors()))
    near = likelihood(prior, 1, steps.levels[-1])
    return float(gradient_step(family(prior, steps), lam, near, draws, None).parts.mixing)


# --- the bound -----------------------------------------------------------------------------------------------------


def test_mixing_is_minus_the_information_about_the_component() -> None:
    """Two copies of a chain say nothing about which of them made z; two far apart say all: log 2, or H(pi)."""
    alike, apart = chains(2, 0.0), chains(2, 1000.0)
    assert mixing(mixed(*alike), 10) == pytest.approx(0, abs=1e-12)
    assert mixing(mixed(*apart), 10) == pytest.approx(-math.log(2), abs=1e-12)
    share = 1 / (1 + math.e)
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert mixing(mixed(*apart, logits=[0.0, 1.0]), 10) == pytest.approx(-entropy, abs=1e-7)
    assert -math.log(2) < mixing(mixed(*chains(2, 1.5))) < -0.05


def test_mixing_is_the_difference_of_the_divergences() -> None:
    """KL(q || p) = sum pi_m KL(q_m || p) - I(m; z), by quadrature for one level and one free element: q is
    .5 N(m, v) + .5 N(m + 1, v)."""
    one = chains(1, 0.0, levels=1)[0]
    shift = torch.tensor([0.0, 1.0]).double() / float(toy(FULL).schedule.alpha(at(550)))
    lam = mixed(one, replace(one, mean=one.mean + shift))
    estimate = mixing(lam, 20_000, (550,))
    std = float((one.log_var[0, 0, 0, 0, 1] / 2).exp())
    z = torch.linspace(-10 * std, 10 * std + 1, 20_001, dtype=torch.float64)
    parts = torch.stack([-0.5 * ((z - m) / std) ** 2 - math.log(std * math.sqrt(2 * math.pi)) for m in (0.0, 1.0)])
    q = torch.logsumexp(parts, 0) - math.log(2)
    information = float(torch.trapezoid(parts.exp() * (parts - q), z, dim=1).mean())
    assert estimate == pytest.approx(-information, abs=4 * math.log(2) / math.sqrt(40_000))


@pytest.mark.parametrize("distance", [0.1, 0.5, 3.0])
def test_mixture_bound_holds(distance: float) -> None:
    """-log p(y) is below sum pi_m L_m - I(m; z), which is below the best that single chains give by log M at most."""
    prior, steps = toy(FULL), ladder((550, 400), STRIDE_30)
    value, _, _ = evidence(prior, steps, 1.0)
    several = chains(3, distance)
    single = [float(exact_parts(family(prior, steps), chain).total()) for chain in several]
    information = -mixing(mixed(*several))
    assert 0 <= information <= math.log(3) + 1e-9
    assert value < sum(single) / 3 - information


# --- modes ---------------------------------------------------------------------------------------------------------


def test_components_keep_the_modes_that_one_loses() -> None:
    """Toy M, x_1 = 1: two modes with weights .6 and .4 and nothing at the third. One Gaussian at sigma = 0.25, where
    the modes have parted, settles on one of them; the weights of several follow from the bound, with its noise."""
    prior = three_modes()
    t_start = float(prior.schedule.time_at(torch.tensor(0.25, dtype=torch.float64)))
    shares = {}
    for components in (1, 4):
        method = VIPaint(
            preset="exact", components=components, levels=1, t_start=t_start, refine_steps=20, iterations=60
        )
        posterior = method.fit(prior, KNOWN, Y, sigma_y=0.1, seed=3)
        shares[components] = mode_weights(posterior.sample(200, seed=3))
    several, single = shares[4], shares[1]
    assert several[0] == pytest.approx(0.6, abs=0.2) and several[1] == pytest.approx(0.4, abs=0.2)
    assert max(single) > 0.85


def test_starts_are_far_apart() -> None:
    images = torch.tensor([[0.0, 0.1, 5.0, -4.0, 5.1], [1.0, 1.0, 1.0, 2.0, 1.0]]).reshape(2, 5, 1, 1, 1)
    assert _far_apart(images, 3).flatten(1).tolist() == [[0.0, pytest.approx(5.1), -4.0], [1.0, 2.0, 1.0]]


def test_final_weights_minimise_the_bound() -> None:
    """Two chains and two copies of the first: the copies share a weight, and the weights of the two together are those
    of the bounds of the two, exp(-L_m), where they do not overlap."""
    prior, steps = toy(FULL), ladder((550, 400), STRIDE_30)
    first, second = chains(2, 2.0)
    second = replace(second, log_var=second.log_var - 8)
    first = replace(first, log_var=first.log_var - 8)
    near, noise = likelihood(prior, 1, steps.levels[-1]), Streams([3])
    lam = weighed(family(prior, steps), mixed(first, second), near, noise, 1000)
    bounds = [float(exact_parts(family(prior, steps), chain).total()) for chain in (first, second)]
    odds = float(lam.log_weights[0, 1] - lam.log_weights[0, 0])
    assert odds == pytest.approx(bounds[0] - bounds[1], abs=1.5)
    assert odds > 10
    again = weighed(family(prior, steps), mixed(first, second, first), near, Streams([3]), 1000).log_weights.exp()[0]
    assert float(again[0] + again[2]) == pytest.approx(float(lam.log_weights.exp()[0, 0]), abs=0.05)


def test_any_number_of_first_samples_is_spread_over_the_components() -> None:
    prior = three_modes()
    posterior = VIPaint(preset="exact", components=3, levels=1, iterations=1, mc_samples=1, refine_steps=1).fit(
        prior, KNOWN, Y
    )
    logits = torch.tensor([[0.2, 0.5, 0.3]]).log()
    posterior = replace(posterior, parameters=replace(posterior.parameters, logits=logits))
    picked = posterior._components([11], 1000)[0]
    assert torch.equal(posterior._components([11], 100)[0], picked[:100])
    assert not torch.equal(posterior._components([12], 100)[0], picked[:100])
    for count in (10, 100, 1000):
        shares = torch.bincount(picked[:count], minlength=3).double() / count
        assert bool(((shares - logits[0].exp()).abs() < (2 + math.log(count)) / count).all())
    firsts = torch.stack([posterior._components([seed], 1)[0, 0] for seed in range(2000)])
    shares = torch.bincount(firsts, minlength=3).double() / 2000
    assert bool(((shares - logits[0].exp()).abs() < 4 * 0.5 / 2000**0.5).all())  # each sample has the law pi by itself


def test_choosing() -> None:
    weights = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    u = torch.tensor([[0.0, 0.24, 0.26, 0.9999999], [0.0, 0.5, 0.9, 0.9999999]])
    assert choose(weights, u).tolist() == [[0, 0, 1, 1], [0, 0, 0, 0]]


def test_components_with_several_images_chunks_and_a_state() -> None:
    prior = three_modes()
    y = torch.cat([Y, Y * 0.5, Y * -1])
    method = VIPaint(preset="exact", components=3, iterations=3, mc_samples=1, refine_steps=2, top_steps=10)
    together = method.sample(prior, KNOWN, y, num_samples=4, seed=5)
    torch.testing.assert_close(method.sample(prior, KNOWN, y[1:2], num_samples=4, seed=5)[0], together[1])
    torch.testing.assert_close(method.sample(prior, KNOWN, y, num_samples=2, seed=5, batch_size=5), together[:, :2])
    before = prior.nfe.copy()
    posterior = method.fit(prior, KNOWN, y, seed=5)
    fit, cost = prior.nfe - before, method.cost(0)
    assert (fit.forward, fit.backward) == (3 * cost.forward, 3 * cost.backward)
    assert posterior.parameters.mean.shape == (3, 3, 2, 1, 1, 2) and posterior.weights.shape == (3, 3)
    restored = method.restore(prior, KNOWN, posterior.state_dict())
    assert torch.equal(restored.sample(3, seed=5), posterior.sample(3, seed=5))
    with pytest.raises(UsageError, match="3 components"):
        replace(method, components=2).restore(prior, KNOWN, posterior.state_dict())


def test_settings_of_the_mixture_that_do_not_fit_are_told() -> None:
    with pytest.raises(UsageError, match="use 'exact'"):
        solver("vipaint", preset="official-imagenet", components=2)
    with pytest.raises(UsageError, match="use 'exact'"):
        solver("vipaint", preset="official-imagenet", correct=True)
    with pytest.raises(UsageError, match="lower num_kept"):
        solver("vipaint", preset="exact", particles=2)


# --- any linear operator -------------------------------------------------------------------------------------------


def wide_matrix() -> MatrixOperator:
    """2 measurements of 3 elements with singular values that differ by a factor of 10, and a third row twice."""
    rows = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.2, 0.1], [2.0, 0.0, 1.0]])
    return MatrixOperator(rows, (1, 1, 3))


@pytest.mark.parametrize("sigma_y", [0.0, 0.3])
def test_likelihood_has_the_constant_of_any_operator(sigma_y: float) -> None:
    """-log N(y; A D, sigma_y^2 I + r^2 A A^T); without noise on the range of A, which has 2 dimensions here."""
    prior = Gaussian([0.0] * 3, torch.eye(3).tolist())
    operator: LinearOperator = wide_matrix()
    t = torch.tensor(0.4, dtype=torch.float64)
    x_0, x = Streams([1]).normal(2, 3).reshape(2, 1, 1, 1, 3)
    y = operator(x)
    near = Likelihood(prior, operator, y, sigma_y, "gaussian", None, t).normalised()
    matrix = torch.stack([operator(e.reshape(1, 1, 1, 3)).flatten() for e in torch.eye(3)], 1).double()
    cov = near.std(t) ** 2 * matrix @ matrix.mT + sigma_y**2 * torch.eye(3, dtype=torch.float64)
    residual = (y - operator(x_0)).flatten().double()
    values, vectors = torch.linalg.eigh(cov)
    informative = values > 1e-9
    squares = ((vectors.mT @ residual)[informative] ** 2 / values[informative]).sum()
    expected = 0.5 * (squares + values[informative].log().sum() + int(informative.sum()) * math.log(2 * math.pi))
    assert float(near.negative_log(x_0)) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("sigma_y", [0.0, 0.3])
def test_start_explains_y_as_far_as_noise_lets_it(sigma_y: float) -> None:
    """The mean of N(x_0, r^2 I) given y: (A^T A / sigma_y^2 + I / r^2)^-1 (A^T y / sigma_y^2 + x_0 / r^2)."""
    prior, operator = Gaussian([0.0] * 3, torch.eye(3).tolist()), wide_matrix()
    t = torch.tensor(0.4, dtype=torch.float64)
    x_0, x = Streams([2]).normal(2, 3).reshape(2, 1, 1, 1, 3)
    y = operator(x)
    near = Likelihood(prior, operator, y, sigma_y, "gaussian", None, t)
    estimate = near.explained(x_0, t)
    if sigma_y == 0:
        torch.testing.assert_close(operator(estimate), y, rtol=0, atol=1e-5)
        return
    matrix = torch.stack([operator(e.reshape(1, 1, 1, 3)).flatten() for e in torch.eye(3)], 1)
    r = near.std(t)
    precision = matrix.mT @ matrix / sigma_y**2 + torch.eye(3) / r**2
    expected = torch.linalg.solve(precision, matrix.mT @ y.flatten() / sigma_y**2 + x_0.flatten() / r**2)
    torch.testing.assert_close(estimate.flatten(), expected, rtol=1e-4, atol=1e-5)


def test_fit_through_a_matrix_meets_the_posterior_of_white_data() -> None:
    """White data seen through a diagonal matrix with noise: the family and the likelihood are exact, so mean and
    spread of phase 2's input are those of p(z_Ts | y) up to the gap of the bound and Monte-Carlo error."""
    prior = Gaussian([0.0, 0.0], torch.eye(2).tolist(), schedule=EDM())
    operator = MatrixOperator(torch.tensor([[2.0, 0.0], [0.0, 0.5]]), (1, 1, 2))
    y, sigma_y = torch.tensor([[1.6, -0.4]]), 0.3
    method = VIPaint(preset="exact", levels=1, iterations=150, mc_samples=8, top_steps=40)
    z = method.fit(prior, operator, y, sigma_y=sigma_y).ancestral(4000, seed=1)[0].double().flatten(1)
    truth = prior.posterior(operator, y, sigma_y)
    noise = float(prior.schedule.sigma(method.ladder(prior).levels[-1])) ** 2
    z = z * (1 + noise) ** 0.5  # from variance-preserving coordinates to EDM's
    std = (truth.cov.diagonal() + noise).sqrt()
    gap: Tensor = (z.mean(0) - truth.mean.flatten()) / std
    assert float(gap.abs().max()) < 0.08 + 4 / 4000**0.5
    assert float((z.std(0) / std - 1).abs().max()) < 0.08
