"""VIPaint with ``correct``: proper weights from a path to pure noise, biased fits that are put right, groups."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from priorpaint.diffusion.rng import Streams
from priorpaint.diffusion.schedules import EDM, VE, VP, Flow, Schedule
from priorpaint.errors import Cancelled, UsageError
from priorpaint.operators import Inpainting, MatrixOperator
from priorpaint.priors.analytic import Gaussian
from priorpaint.solvers.vipaint.correction import log_above
from priorpaint.solvers.vipaint.family import Family
from priorpaint.solvers.vipaint.posterior import Posterior
from priorpaint.solvers.vipaint.solver import VIPaint
from priorpaint.solvers.vipaint.variables import Mixture
from tests.solvers.toy import KNOWN, Y, mode_weights, toy_g
from tests.solvers.vipaint_toy import three_modes

SIGMA_Y = 0.5
QUICK = {
    "preset": "exact",
    "levels": 1,
    "iterations": 2,
    "mc_samples": 1,
    "refine_steps": 2,
    "top_steps": 10,
    "up_steps": 3,
}


def unit_edm() -> EDM:
    return EDM(sigma_min=0.005, sigma_max=40.0)


def as_fitted(method: VIPaint, prior: Gaussian, mean: list[float], std: float) -> Posterior:
    """A posterior of the toy problem whose one component at every level is N(mean, std^2), whatever y says."""
    posterior = replace(method, iterations=1, correct=False).fit(prior, KNOWN, Y, sigma_y=SIGMA_Y)
    means = torch.tensor(mean).expand_as(posterior.parameters.mean).clone()
    log_var = torch.full_like(means, 2 * math.log(std))
    lam = Mixture(means, log_var, torch.zeros_like(means), posterior.parameters.logits)
    return replace(posterior, solver=method, parameters=lam)


@pytest.mark.parametrize("schedule", [unit_edm(), VP("linear"), VE(0.01, 40.0), Flow()])
def test_the_way_up_weighs_z_by_its_density(schedule: Schedule) -> None:
    """The mean of the weight over 1500 ways up is p(z_Ts): 1-D, unit variance, so that the chain of 60 steps is exact
    but for its steps."""
    prior = Gaussian([0.2], [[1.0]], schedule=schedule)
    method = VIPaint(preset="exact", levels=1, correct=True)
    t = method.ladder(prior).levels[-1]
    pairs = method.refinement(prior, (1, 1, 1)).above(prior, (1, 1, 1), t, 60)
    assert float(pairs[-1, 1]) == float(t) and bool((pairs[:, 0] > pairs[:, 1]).all())
    near = Family(prior, method.ladder(prior), method.rules, prior.denoise)
    mean = 0.2 * float(schedule.alpha(t))
    variance = float(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2)
    for z in (mean - 1.2,):
        rows = torch.full((1500, 1, 1, 1), z, dtype=torch.float64)
        noise = [part.reshape_as(rows).double() for part in Streams([4]).normal(60, 1500)[0]]
        log_w = log_above(near, rows, pairs, noise)
        expected = -0.5 * ((z - mean) ** 2 / variance + math.log(2 * math.pi * variance))
        std = float(log_w.std())
        assert float(torch.logsumexp(log_w, 0)) - math.log(1500) == pytest.approx(
            expected, abs=0.02 + 4 * std / 1500**0.5
        )
        assert std < 0.4


@pytest.mark.parametrize("levels", [1, 2])
def test_a_wrong_fit_is_put_right(levels: int) -> None:
    """Toy G at sigma_y = 0.5: x_2 ~ N(0.72, 0.352). The fit is far off and wide; its uncorrected samples show it, the
    corrected ones and the evidence do not."""
    prior = toy_g(unit_edm())
    t_start = float(prior.schedule.time_at(torch.ones((), dtype=torch.float64)))
    plain = VIPaint(preset="exact", levels=levels, t_start=t_start, refine_steps=25)
    method = replace(plain, correct=True, particles=256, num_kept=64)
    posterior = as_fitted(method, prior, [0.8, 2.2], 1.6)
    truth = prior.posterior(KNOWN, Y, SIGMA_Y)
    x = posterior.sample(1024, seed=2)[0].double().flatten(1)
    std = truth.cov.diagonal().sqrt()
    assert bool(((x.mean(0) - truth.mean.flatten()).abs() < 0.15 * std).all())  # 16 groups of 256, ESS a third or more
    assert bool(((x.std(0) / std - 1).abs() < 0.1).all())
    uncorrected = replace(posterior, solver=plain).sample(1024, seed=2)[0].double().flatten(1)
    assert float((uncorrected.mean(0) - truth.mean.flatten())[1]) > 0.15 * float(std[1])

    population = posterior.population(8, seed=2)
    assert population.images.shape == (1, 8, 256, 1, 1, 2) and population.ess.shape == (1, 8, 25)
    torch.testing.assert_close(population.log_weights.exp().sum(2), torch.ones(1, 8, dtype=torch.float64))
    assert 0.1 < float(population.ess[0, :, 0].mean()) < 0.9
    log_evidence = prior.log_evidence(KNOWN, Y, SIGMA_Y)
    assert float(population.log_evidence_of_image) == pytest.approx(log_evidence, abs=0.1 * levels)


def test_a_component_of_the_wrong_weight_is_put_right() -> None:
    """Toy M with x_1 = 1: .6 and .4. The fit finds both modes; then its weights are turned around."""
    prior = three_modes()
    t_start = float(prior.schedule.time_at(torch.tensor(0.4, dtype=torch.float64)))
    method = VIPaint(
        preset="exact",
        components=4,
        levels=1,
        t_start=t_start,
        refine_steps=20,
        iterations=80,
        particles=128,
        num_kept=32,
    )
    posterior = method.fit(prior, KNOWN, Y, sigma_y=0.1, seed=3)
    upper = (posterior.parameters.mean[0, :, 0, 0, 0, 1] > 0).float()
    assert 0 < float(upper.sum()) < 4
    logits = torch.where(upper > 0, math.log(0.1) - upper.sum().log(), math.log(0.9) - (4 - upper.sum()).log())
    posterior = replace(posterior, parameters=replace(posterior.parameters, logits=logits[None]))
    wrong = mode_weights(posterior.sample(256, seed=1))
    right = mode_weights(replace(posterior, solver=replace(method, correct=True)).sample(256, seed=1))
    assert wrong[0] < 0.35
    assert right[0] == pytest.approx(0.6, abs=0.12)


def test_correction_through_any_matrix() -> None:
    """A correlated Gaussian seen through two directions, with noise: moments of the exact posterior."""
    cov = [[1.0, 0.6, 0.2], [0.6, 1.0, 0.5], [0.2, 0.5, 1.0]]
    prior = Gaussian([0.1, -0.2, 0.3], cov, schedule=unit_edm())
    operator = MatrixOperator(torch.tensor([[1.5, -0.5, 0.0], [0.3, 0.3, 0.3]]), (1, 1, 3))
    y = torch.tensor([[1.0, -0.2]])
    method = VIPaint(preset="exact", levels=1, iterations=60, refine_steps=25, correct=True, particles=128, num_kept=64)
    posterior = method.fit(prior, operator, y, sigma_y=0.2)
    x = posterior.sample(512, seed=2)[0].double().flatten(1)
    truth = prior.posterior(operator, y, 0.2)
    std = truth.cov.diagonal().sqrt()
    assert bool(((x.mean(0) - truth.mean.flatten()).abs() < 0.12 * std).all())
    assert bool(((x.std(0) / std - 1).abs() < 0.1).all())
    population = posterior.population(4, seed=2)
    assert float(population.log_evidence_of_image) == pytest.approx(prior.log_evidence(operator, y, 0.2), abs=0.1)


# --- the house's promises ------------------------------------------------------------------------------------------


def two_problems() -> tuple[Gaussian, Inpainting, Tensor]:
    return toy_g(), KNOWN, torch.cat([Y, 0.4 * Y])


@pytest.mark.parametrize("components", [1, 2])
def test_groups_do_not_feel_each_other(components: int) -> None:
    prior, operator, y = two_problems()
    method = VIPaint(correct=True, particles=5, num_kept=2, components=components, **{**QUICK, "levels": 2})  # type: ignore[arg-type]
    whole = method.sample(prior, operator, y, num_samples=5, seed=3)
    assert whole.shape == (2, 5, 1, 1, 2) and bool(whole.isfinite().all())
    for image in range(2):
        alone = method.sample(prior, operator, y[image : image + 1], num_samples=5, seed=3)[0]
        torch.testing.assert_close(alone, whole[image], rtol=1e-4, atol=1e-4)
    for size in (1, 12):
        part = method.sample(prior, operator, y, num_samples=3, seed=3, batch_size=size)
        torch.testing.assert_close(part, whole[:, :3], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(whole, method.sample(prior, operator, y, num_samples=5, seed=4))


@pytest.mark.parametrize(("num_samples", "twist"), [(1, "auto"), (5, "pigdm")])
def test_cost_is_what_runs(num_samples: int, twist: str) -> None:
    prior, operator, y = two_problems()
    method = VIPaint(correct=True, particles=5, num_kept=2, components=3, twist=twist, **{**QUICK, "levels": 2})  # type: ignore[arg-type]
    method.sample(prior, operator, y, num_samples=num_samples, batch_size=4)
    cost = method.cost(num_samples)
    assert (prior.nfe.forward, prior.nfe.backward) == (2 * cost.forward, 2 * cost.backward)


def test_known_values_are_kept_and_progress_ends_at_its_total() -> None:
    prior, operator, y = two_problems()
    method, calls = VIPaint(correct=True, particles=5, num_kept=2, **QUICK), []  # type: ignore[arg-type]

    def callback(step: int, total: int, x_0: Tensor) -> None:
        calls.append((step, total))
        if len(calls) == 30:
            raise Cancelled("enough")

    x = method.sample(prior, operator, y, num_samples=3, batch_size=5, callback=callback)
    assert torch.equal(x[..., 0], y[:, None, ..., 0].expand_as(x[..., 0]))
    assert [step for step, _ in calls] == list(range(1, calls[0][1] + 1))
    with pytest.raises(Cancelled):
        for _ in range(5):
            method.sample(prior, operator, y, num_samples=3, batch_size=5, callback=callback)


def test_population_checks_its_arguments() -> None:
    prior, operator, y = two_problems()
    posterior = VIPaint(**QUICK).fit(prior, operator, y)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="groups"):
        posterior.population(0)
