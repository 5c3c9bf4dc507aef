"""Samplers: the law that each one samples, orders of convergence, and every schedule family."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from priorpaint import Cancelled, UsageError
from priorpaint.diffusion.rng import Streams
from priorpaint.diffusion.samplers import (
    DDIM,
    DDPM,
    SAMPLERS,
    AnnealedLangevin,
    EulerMaruyama,
    Heun,
    PredictorCorrector,
    RungeKutta,
    Sampler,
    explain,
    sampler,
)
from priorpaint.diffusion.schedules import EDM, VE, VP, Flow
from priorpaint.priors.analytic import Gaussian, GaussianMixture
from priorpaint.priors.base import Prior
from tests.solvers.affine import Impulses

SCHEDULES = {"linear": VP("linear"), "cosine": VP("cosine"), "ve": VE(), "edm": EDM(), "flow": Flow()}
ALL = {
    "ddpm": DDPM(100),
    "ddpm-large": DDPM(100, variance="large"),
    "ddim": DDIM(100),
    "ddim-half": DDIM(100, eta=0.5),
    "heun": Heun(50),
    "heun-churn": Heun(50, churn=10.0),
    "euler-maruyama": EulerMaruyama(200),
    "ode": RungeKutta(25, "karras"),
}
# Those that draw more than one array a step, and so are not read off a chain of one step each.
LANGEVIN = {"langevin": AnnealedLangevin(25, inner_steps=20), "pc": PredictorCorrector(100)}


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
    "ddpm": 0.12, "ddpm-large": 0.12, "ddim": 0.06, "ddim-half": 0.08, "heun": 0.02, "heun-churn": 0.03,
    "euler-maruyama": 0.08, "ode": 0.002, "langevin": 0.08, "pc": 0.08,
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


@pytest.mark.parametrize("name", [*ALL, "langevin"])
@pytest.mark.parametrize("family", ["linear", "flow"])
def test_every_sampler_makes_the_mixture(name: str, family: str) -> None:
    """Weights and moments from 1000 samples: four standard errors, plus the discretisation that BARS allows."""
    prior = mixture(SCHEDULES[family])
    x = prior.sample(1000, seed=1, sampler=(ALL | LANGEVIN)[name]).double()
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


@pytest.mark.parametrize(
    ("sampler", "calls"),
    [
        (DDPM(7), 7), (DDIM(7), 7), (Heun(7), 13), (EulerMaruyama(7), 7), (RungeKutta(7), 25),
        (AnnealedLangevin(7, inner_steps=3), 22), (PredictorCorrector(7, corrections=2), 21),
    ],
)  # fmt: skip
@pytest.mark.parametrize("family", SCHEDULES)
def test_evaluations(sampler: Sampler, calls: int, family: str) -> None:
    prior = gaussian(SCHEDULES[family])
    x_1 = prior.initial(Streams([0, 1, 2]).normal(1, 1, 2))
    sampler(prior, x_1, Streams([0, 1, 2]))
    assert (prior.nfe.forward, prior.nfe.backward) == (3 * calls, 0)
    assert sampler.evaluations == calls
    assert eval(sampler.cost_formula, {key: getattr(sampler, key) for key in explain(type(sampler))}) == calls


@pytest.mark.parametrize("name", [*ALL, *LANGEVIN])
@pytest.mark.parametrize("family", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2])
def test_very_few_steps_are_finite(name: str, family: str, steps: int) -> None:
    few = replace((ALL | LANGEVIN)[name], steps=steps)  # type: ignore[type-var]
    assert gaussian(SCHEDULES[family]).sample(4, seed=0, sampler=few).isfinite().all()


def walk(prior: Prior, sampler: DDPM) -> list[tuple[float, float]]:
    """(variance of x_s, variance of the forward process there) at each level of a chain of one coordinate, exact."""
    x = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64).reshape(3, 1, 1, 1)
    times = prior.schedule.grid(sampler.steps)
    variance, found = float(prior.std_of(times[0])) ** 2, []
    for t, s in zip(times[:-1], times[1:], strict=True):
        out = sampler.step(prior, x, t, s, Impulses(3, first=-1))[0].flatten()
        variance = float((out[1] - out[0]) ** 2 * variance + (out[2] - out[0]) ** 2)
        found.append((variance, float(prior.std_of(s)) ** 2))
    return found


class Point(Gaussian):
    """Of one coordinate, with the standard deviation of x_t at hand."""

    def std_of(self, t: torch.Tensor) -> torch.Tensor:
        return (self.schedule.alpha(t) ** 2 * self.cov[0, 0] + self.schedule.sigma(t) ** 2).sqrt()


@pytest.mark.parametrize("family", SCHEDULES)
@pytest.mark.parametrize(("data_variance", "right", "wrong"), [(0.0, "small", "large"), (1.0, "large", "small")])
def test_the_optimal_variances_of_ho_et_al(family: str, data_variance: float, right: str, wrong: str) -> None:
    """Section 3.2: beta-tilde is optimal for data of one point, beta for N(0, I), however long the steps are: every x_s
    then has the law of the forward process, and with the other choice none has."""
    prior = Point([0.7], [[data_variance]], schedule=SCHEDULES[family])
    exact = walk(prior, DDPM(20, variance=right))[:-1]  # type: ignore[arg-type]
    assert all(found == pytest.approx(true, rel=1e-6) for found, true in exact)
    off = walk(prior, DDPM(20, variance=wrong))[:-1]  # type: ignore[arg-type]
    ratios = [found / true for found, true in off]
    assert min(ratios) > 1 if wrong == "large" else max(ratios) < 1
    assert max(abs(ratio - 1) for ratio in ratios) > 0.1


def test_a_variance_that_was_not_learned_is_refused_before_any_work() -> None:
    prior = gaussian(VP())
    with pytest.raises(UsageError, match="choose 'small' or 'large'"):
        prior.sample(1, seed=0, sampler=DDPM(5, variance="learned"))
    assert prior.nfe.forward == 0


@pytest.mark.parametrize("name", [*ALL, *LANGEVIN])
def test_clip_keeps_every_estimate_in_the_range_of_pictures(name: str) -> None:
    prior = Gaussian([0.9, 0.0], [[0.5, 0.0], [0.0, 0.5]], schedule=EDM())
    seen: list[float] = []
    for clip in (False, True):
        walker = replace((ALL | LANGEVIN)[name], clip=clip, steps=10)  # type: ignore[type-var]
        x = prior.sample(
            20, seed=0, sampler=walker, callback=lambda step, total, x_0: seen.append(float(x_0.abs().max()))
        )
        assert (float(x.abs().max()) <= 1 + 1e-6) == clip
    assert max(seen[:10]) > 1 >= max(seen[10:])


@pytest.mark.parametrize(("levels", "inner", "e"), [(6, 30, 2e-5), (12, 16, 1e-4)])
def test_annealed_langevin_is_algorithm_1(levels: int, inner: int, e: float) -> None:
    """Song and Ermon 2019, written out for one Gaussian coordinate with alpha = 1: exact moments, by recursion.
    With steps of sigma_t^2, the second case, the noise that earlier levels leave is below 8 % of the variance."""
    schedule = VE(sigma_min=0.01, sigma_max=1.0)
    m, v = 0.4, 0.25
    prior = Gaussian([m], [[v]], schedule=schedule)
    run = AnnealedLangevin(levels, inner_steps=inner, step_size=e / 0.01**2)
    scalars = 1 + levels * inner
    noise = Impulses(scalars + 1)
    out = run(prior, noise.normal(1, 1, 1).double(), noise).flatten()
    assert noise.asked == scalars
    sigmas = torch.logspace(0, -2, levels, dtype=torch.float64)
    mean, variance = 0.0, 1.0
    for sigma in sigmas.tolist():
        a = e * sigma**2 / 0.01**2
        keep = 1 - a / 2 / (v + sigma**2)
        for _ in range(inner):
            mean, variance = m + keep * (mean - m), keep**2 * variance + a
    last = v / (v + 0.01**2)
    assert out[0].item() == pytest.approx(m + last * (mean - m), rel=1e-6)
    assert (out[1:] - out[0]).square().sum().item() == pytest.approx(last**2 * variance, rel=1e-5)
    assert (last**2 * variance == pytest.approx(v, rel=0.08)) == (e == 1e-4)


@pytest.mark.parametrize("family", SCHEDULES)
def test_predictor_corrector_makes_a_gaussian_of_many_dimensions(family: str) -> None:
    """64 coordinates with variances 0.1 to 1, 400 samples: four standard errors of the variance of a group of 16
    coordinates (6400 values), and 6 % for the length of the steps."""
    values = torch.linspace(0.1, 1, 64, dtype=torch.float64)
    prior = Gaussian(torch.full((64,), 0.3), torch.diag(values), (1, 8, 8), SCHEDULES[family])
    x = prior.sample(400, seed=3, sampler=PredictorCorrector(100)).double().flatten(1) - 0.3
    scaled = (x / values.sqrt()).reshape(400, 4, 16)
    assert (scaled.mean((0, 2)).abs() < 4 / 80 + 0.02).all()
    assert ((scaled.square().mean((0, 2)) - 1).abs() < 4 * math.sqrt(2 / 6400) + 0.06).all()


def test_predictor_corrector_makes_a_mixture_of_many_dimensions() -> None:
    """Two modes in 144 coordinates, 300 samples: four standard errors, and 6 % of the variance for the steps."""
    means = torch.stack([torch.full((144,), 0.4), torch.full((144,), -0.2)])
    prior = GaussianMixture([0.3, 0.7], means, 0.2 * torch.eye(144), (1, 12, 12), EDM())
    x = prior.sample(300, seed=3, sampler=PredictorCorrector(80))
    first = prior.responsibilities(x)[:, 0] > 0.5
    assert first.double().mean().item() == pytest.approx(0.3, abs=4 * math.sqrt(0.3 * 0.7 / 300))
    for mean, member in zip(means, (first, ~first), strict=True):
        part = x[member].flatten(1) - mean
        assert part.mean().item() == pytest.approx(0, abs=4 * math.sqrt(0.2 / part.numel()) + 0.01)
        assert part.square().mean().item() / 0.2 == pytest.approx(1, abs=4 * math.sqrt(2 / part.numel()) + 0.06)


def test_the_corrector_takes_the_papers_step() -> None:
    """x + e g + sqrt(2 e) z with e = 2 (r |z| / |g|)^2 of each row alone, and sigma_t^2 at most."""
    schedule, t = EDM(), torch.tensor(0.4, dtype=torch.float64)
    prior = Gaussian(torch.zeros(64), 0.25 * torch.eye(64), (1, 8, 8), schedule)
    x_t = prior.std_at(t).item() * Streams([1, 2]).normal(1, 8, 8).double()
    walker = PredictorCorrector(10)
    got = walker._corrected(prior, x_t, t, Streams([3, 4]).normal_like(x_t))
    z, g = Streams([3, 4]).normal_like(x_t), prior.score(x_t, t)
    for row in range(2):
        e = 2 * (0.16 * z[row].norm() / g[row].norm()) ** 2
        assert e < schedule.sigma(t) ** 2
        torch.testing.assert_close(got[row], x_t[row] + e * g[row] + (2 * e).sqrt() * z[row])
    centre = torch.zeros(1, 1, 8, 8, dtype=torch.float64)  # where the score is 0
    sigma = schedule.sigma(t)
    torch.testing.assert_close(walker._corrected(prior, centre, t, z[:1]), 2**0.5 * sigma * z[:1])


@pytest.mark.parametrize("family", SCHEDULES)
def test_the_runge_kutta_method_is_of_order_four(family: str) -> None:
    """From the top of the schedule to sigma / alpha = 0.1: twice the steps, a sixteenth of the error."""
    schedule = SCHEDULES[family]
    prior, flow_end = gaussian(schedule), schedule.time_at(torch.tensor(0.1, dtype=torch.float64))
    x_t = prior.initial(torch.ones(1, 1, 1, 2)).double()
    start = torch.tensor(1.0, dtype=torch.float64)
    phis = [float(torch.atan2(schedule.sigma(t), schedule.alpha(t))) for t in (start, flow_end)]
    values, vectors = torch.linalg.eigh(prior.cov)

    def spread(t: torch.Tensor) -> torch.Tensor:
        return (schedule.alpha(t) ** 2 * values + schedule.sigma(t) ** 2).sqrt()

    centred = (x_t.flatten() - schedule.alpha(start) * prior.mean.flatten()) @ vectors
    exact = schedule.alpha(flow_end) * prior.mean.flatten() + vectors @ (centred * spread(flow_end) / spread(start))
    errors = []
    for steps in (4, 8):
        nodes = torch.linspace(*phis, steps + 1, dtype=torch.float64).tan()
        times = [start, *schedule.time_at(nodes[1:-1]), flow_end]
        x = x_t
        for t, s in zip(times[:-1], times[1:], strict=True):
            x = RungeKutta().step(prior, x, t, s, Streams([0]))[0]
        errors.append(float((x.flatten() - exact).norm()))
    assert errors[0] / errors[1] > 12


def test_samplers_by_name() -> None:
    assert set(SAMPLERS) == {"ddpm", "ddim", "heun", "sde", "ode", "langevin", "pc"}
    assert sampler("ddim", steps="12", eta="0.5", clip="true") == DDIM(12, eta=0.5, clip=True)
    prior = gaussian(VP())
    assert torch.equal(prior.sample(3, seed=1, sampler="ddim", steps=6), prior.sample(3, seed=1, sampler=DDIM(6)))
    assert torch.equal(
        prior.sample(5, seed=1, sampler="sde", steps=6)[3:], prior.sample(2, seed=1, sampler="sde", steps=6, first=3)
    )


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("euler", {}, "there is no sampler 'euler'; the samplers are ddim, ddpm"),
        ("ddim", {"churn": 1}, "has no setting 'churn'; its settings are steps"),
        ("ddpm", {"variance": "medium"}, "variance = 'medium' is not valid"),
        ("ddim", {"eta": 2}, "eta = 2 is not valid"),
        ("langevin", {"inner_steps": 10**9}, "inner_steps = 1000000000 is not valid"),
        ("pc", {"snr": 0}, "snr = 0 is not valid"),
        ("heun", {"steps": "many"}, "steps = 'many' is not valid"),
    ],
)
def test_unknown_samplers_and_settings(name: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        sampler(name, **settings)


def test_a_ready_sampler_takes_no_steps() -> None:
    with pytest.raises(UsageError, match="has its own steps"):
        gaussian(VP()).sample(1, seed=0, sampler=DDIM(5), steps=7)


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
