"""Samplers: the law that each one samples, orders of convergence, and every schedule family."""

from __future__ import annotations

import math

import pytest
import torch

from priorpaint import Cancelled
from priorpaint.diffusion.rng import Streams
from priorpaint.diffusion.samplers import DDIM, DDPM, EulerMaruyama, Heun, Sampler
from priorpaint.diffusion.schedules import EDM, VE, VP, Flow
from priorpaint.priors.analytic import Gaussian, GaussianMixture
from priorpaint.priors.base import Prior
from tests.solvers.affine import Impulses

SCHEDULES = {"linear": VP("linear"), "cosine": VP("cosine"), "ve": VE(), "edm": EDM(), "flow": Flow()}
ALL = {
    "ddpm": DDPM(100),
    "ddim": DDIM(100),
    "ddim-half": DDIM(100, eta=0.5),
    "heun": Heun(50),
    "heun-churn": Heun(50, churn=10.0),
    "euler-maruyama": EulerMaruyama(200),
}


def chain(prior: Prior, sampler: Sampler) -> tuple[torch.Tensor, torch.Tensor]:
    """Exact mean and covariance of a sampler on a Gaussian prior: every step is affine and is read off d + d + 1 rows.

    The first rows are the axes of x; the last ones those of the step's noise.
    """
    d = prior.shape[0] * (prior.shape[1] or 0) * (prior.shape[2] or 0)
    shape = (2 * d + 1, *(int(side or 0) for side in prior.shape))
    eye, zero = torch.eye(d, dtype=torch.float64), torch.zeros(d, d, dtype=torch.float64)
    x = torch.cat([zero[:1], eye, zero]).reshape(shape)
    mean = torch.zeros(d, dtype=torch.float64)
    cov = prior.initial(torch.ones(1, dtype=torch.float64)).item() ** 2 * eye
    times = prior.schedule.grid(sampler.steps, sampler.spacing)
    for t, s in zip(times[:-1], times[1:], strict=True):
        out = sampler.step(prior, x, t, s, Impulses(2 * d + 1, first=-d))[0].flatten(1)
        move, kick = (out[1 : d + 1] - out[0]).mT, (out[d + 1 :] - out[0]).mT
        mean, cov = move @ mean + out[0], move @ cov @ move.mT + kick @ kick.mT
    return mean, cov


def gaussian(schedule: object) -> Gaussian:
    return Gaussian([0.5, -1.0], [[0.8, 0.3], [0.3, 0.4]], schedule=schedule)  # type: ignore[arg-type]


def error(sampler: Sampler, schedule: object) -> float:
    """Relative error of the covariance that the sampler makes."""
    prior = gaussian(schedule)
    return ((chain(prior, sampler)[1] - prior.cov).norm() / prior.cov.norm()).item()


# Relative error of the covariance allowed on any schedule. DDPM, DDIM and Euler steps are first order with a constant
# of up to 10 / steps here (variances of this size against a noise range of 1e4); Heun is second order.
BARS = {
    "ddpm": 0.12, "ddim": 0.06, "ddim-half": 0.08, "heun": 0.02, "heun-churn": 0.03,
    "euler-maruyama": 0.08,
}  # fmt: skip


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("family", SCHEDULES)
def test_every_sampler_on_every_schedule_makes_the_gaussian(name: str, family: str) -> None:
    """Exact moments, no sampling error: the mean within 3 % of a standard deviation, the covariance within its bar."""
    prior = gaussian(SCHEDULES[family])
    mean, cov = chain(prior, ALL[name])
    assert (mean - prior.mean.flatten()).abs().max() < 0.03
    assert (cov - prior.cov).norm() / prior.cov.norm() < BARS[name]


@pytest.mark.parametrize("family", ["cosine", "edm", "flow"])
@pytest.mark.parametrize("kind", [DDPM, DDIM, EulerMaruyama])
def test_first_order_methods_halve_their_error(family: str, kind: type[Sampler]) -> None:
    """Twice the steps, about half the error; a scheme that is not consistent keeps it."""
    ratio = error(kind(40), SCHEDULES[family]) / error(kind(80), SCHEDULES[family])
    assert 1.6 < ratio < 2.6


@pytest.mark.parametrize("family", ["ve", "edm", "flow"])
def test_heun_is_second_order(family: str) -> None:
    """Steps x 2: error / 4, where DDIM's only halves. The last step is Euler's, from the grid's fixed lowest level
    (VE, EDM; a negligible error), or from t = 1/steps, where it is second order as well (flow)."""
    schedule = SCHEDULES[family]
    heun = error(Heun(40), schedule), error(Heun(80), schedule)
    ddim = error(DDIM(40), schedule), error(DDIM(80), schedule)
    assert heun[0] / heun[1] > 3.0 and ddim[0] / ddim[1] < 2.6
    assert heun[0] < ddim[1] / 3


def test_samples_begin_about_the_mean() -> None:
    """The flow takes x_1 to m + (x_1 - m) s / sqrt(s^2 + sigma^2): what x_1 lacks of m, x_0 lacks by s / sigma."""
    mean, std, sigma = 3.0, 0.5, 8.0
    prior = Gaussian([mean], [[std**2]], schedule=EDM(sigma_max=sigma))
    middle = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    about = prior.initial_about_mean(middle)
    assert about.item() == pytest.approx(mean * sigma**2 / (sigma**2 + std**2), rel=1e-6)
    run, noise = Heun(200), Streams([0])
    assert run(prior, about, noise).item() == pytest.approx(mean, abs=2e-3)
    assert run(prior, prior.initial(middle), noise).item() == pytest.approx(mean * (1 - std / sigma), abs=5e-3)


def mixture(schedule: object) -> GaussianMixture:
    covs = [[[0.04, 0.01], [0.01, 0.03]], [[0.09, 0.0], [0.0, 0.02]]]
    return GaussianMixture([0.3, 0.7], [[1.0, -1.0], [-0.5, 0.5]], covs, schedule=schedule)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("family", ["linear", "flow"])
def test_every_sampler_makes_the_mixture(name: str, family: str) -> None:
    """Weights and moments from 1000 samples: four standard errors, plus the discretisation that BARS allows."""
    prior = mixture(SCHEDULES[family])
    x = prior.sample(1000, seed=1, sampler=ALL[name]).double()
    first = prior.responsibilities(x)[:, 0]
    share = first.mean().item()
    assert share == pytest.approx(0.3, abs=4 * math.sqrt(0.3 * 0.7 / 1000))
    for k, member in enumerate((first > 0.5, first <= 0.5)):
        part = x[member].flatten(1)
        variance = prior.covs[k].diagonal()
        assert ((part.mean(0) - prior.means[k]).abs() < (4 / math.sqrt(len(part)) + 0.1) * variance.sqrt()).all()
        # A component is ten times narrower than the Gaussian above, and so that much harder: BARS times two.
        assert ((part.var(0) / variance - 1).abs() < 4 * math.sqrt(2 / len(part)) + 2 * BARS[name]).all()


def test_churn_adds_noise_only_inside_its_range() -> None:
    prior = gaussian(EDM())
    x_1 = prior.initial(Streams([1, 2]).normal(1, 1, 2))
    plain = Heun(20)(prior, x_1, Streams([1, 2]))
    assert torch.equal(Heun(20)(prior, x_1, Streams([3, 4])), plain), "without churn nothing is random"
    outside = Heun(20, churn=5.0, churn_min=100.0)(prior, x_1, Streams([3, 4]))
    assert torch.equal(outside, plain)
    inside = Heun(20, churn=5.0, churn_max=1.0)(prior, x_1, Streams([3, 4]))
    assert not torch.allclose(inside, plain, atol=1e-3)
    assert not torch.equal(inside, Heun(20, churn=5.0, churn_max=1.0)(prior, x_1, Streams([5, 6])))


def test_ddpm_is_ddim_with_eta_one_and_spacing_reaches_the_grid() -> None:
    prior = gaussian(VP())
    x_1 = prior.initial(Streams([1, 2]).normal(1, 1, 2))
    assert torch.equal(DDPM(15)(prior, x_1, Streams([9, 8])), DDIM(15, eta=1.0)(prior, x_1, Streams([9, 8])))
    assert not torch.equal(DDIM(15)(prior, x_1, Streams([9, 8])), DDIM(15, "karras")(prior, x_1, Streams([9, 8])))


@pytest.mark.parametrize(("sampler", "calls"), [(DDPM(7), 7), (DDIM(7), 7), (Heun(7), 13), (EulerMaruyama(7), 7)])
@pytest.mark.parametrize("family", SCHEDULES)
def test_evaluations(sampler: Sampler, calls: int, family: str) -> None:
    prior = gaussian(SCHEDULES[family])
    x_1 = prior.initial(Streams([0, 1, 2]).normal(1, 1, 2))
    sampler(prior, x_1, Streams([0, 1, 2]))
    assert (prior.nfe.forward, prior.nfe.backward) == (3 * calls, 0)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("family", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2])
def test_very_few_steps_are_finite(name: str, family: str, steps: int) -> None:
    fields = {"eta": ALL[name].eta} if isinstance(ALL[name], DDIM) else {}  # type: ignore[attr-defined]
    sampler = type(ALL[name])(steps, **fields)
    assert gaussian(SCHEDULES[family]).sample(4, seed=0, sampler=sampler).isfinite().all()


def test_callback_counts_up_and_can_stop() -> None:
    steps: list[tuple[int, int]] = []

    def watch(step: int, total: int, x_0: torch.Tensor) -> None:
        assert x_0.shape == (2, 1, 1, 2)
        steps.append((step, total))
        if step == 4:
            raise Cancelled("enough")

    prior = gaussian(VP())
    with pytest.raises(Cancelled):
        DDIM(9)(prior, prior.initial(Streams([1, 2]).normal(1, 1, 2)), Streams([1, 2]), watch)
    assert steps == [(1, 9), (2, 9), (3, 9), (4, 9)]
