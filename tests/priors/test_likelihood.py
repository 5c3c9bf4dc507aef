"""The variational bound and the ODE's likelihood, on priors where every term has a closed form."""

from __future__ import annotations

import math

import pytest
import torch

from priorpaint import Cancelled, CancelToken, UsageError
from priorpaint.diffusion import transitions
from priorpaint.diffusion.denoiser import Variance
from priorpaint.diffusion.schedules import EDM, VE, VP, Flow, Schedule
from priorpaint.priors.analytic import Gaussian, GaussianMixture
from priorpaint.priors.base import Prior
from priorpaint.priors.likelihood import (
    HALF_STEP,
    bits_per_value,
    bound,
    density_bits,
    dithered,
    flow_evaluations,
    flow_log_prob,
    log_pixel,
)

SCHEDULES = {"linear": VP("linear"), "cosine": VP("cosine"), "ve": VE(), "edm": EDM(), "flow": Flow()}
MEAN, COV = [0.5, -0.2], [[0.8, 0.3], [0.3, 0.4]]


def gaussian(schedule: Schedule) -> Gaussian:
    return Gaussian(MEAN, COV, schedule=schedule)


def of(prior: Gaussian, count: int, seed: int = 0) -> torch.Tensor:
    return prior.sample(count, seed=seed).double()


# -- the variational bound ---------------------------------------------------------------------------------------------


def expected_terms(prior: Gaussian, times: torch.Tensor, kind: Variance) -> tuple[float, list[float], float]:
    """E over x ~ prior of L_T, each L_{t-1} and L_0 for the density, as E |x - D|^2 = tr Var[x_0 | x_t]."""
    schedule, values = prior.schedule, torch.linalg.eigvalsh(prior.cov)
    d = len(values)

    def left(t: torch.Tensor) -> float:
        alpha, sigma, _ = schedule.level(t)
        return float((values * sigma**2 / (alpha**2 * values + sigma**2)).sum())

    alpha, sigma, _ = schedule.level(times[0])
    second = float(alpha**2) * (float(prior.mean.square().sum()) + float(values.sum()))
    width = float(prior.std_at(times[0])) ** 2
    top = 0.5 * (second / width + d * (float(sigma**2) / width - 1 - math.log(float(sigma**2) / width)))
    terms = []
    for t, s in zip(times[:-2], times[1:-1], strict=True):
        v = float(transitions.backward_variance(schedule, t, s))
        model = float(transitions.ancestral_std(schedule, t, s, float(kind == "large"))) ** 2
        b = float(transitions.backward_weights(schedule, t, s)[1])
        terms.append(0.5 * (b**2 * left(t) / model + d * (v / model - 1 - math.log(v / model))))
    alpha, sigma, _ = schedule.level(times[-2])
    last = float(sigma**2 / (alpha**2 + sigma**2))
    return top, terms, 0.5 * (left(times[-2]) / last + d * math.log(2 * math.pi * last))


@pytest.mark.parametrize("family", SCHEDULES)
@pytest.mark.parametrize("kind", ["small", "large"])
def test_every_term_is_its_closed_form(family: str, kind: Variance) -> None:
    """Means over 3000 x of the prior, within 4.5 standard errors: 12 terms in 10 cases."""
    prior = gaussian(SCHEDULES[family])
    x = of(prior, 3000)
    found = bound(prior, x, steps=12, spacing="karras", variance=kind, decoder="gaussian", seed=1)
    assert prior.nfe.forward == 3000 * 12
    times = prior.schedule.grid(12, "karras")
    top, terms, first = expected_terms(prior, times, kind)

    def close(values: torch.Tensor, expected: float) -> bool:
        return abs(float(values.mean()) - expected) < 4.5 * float(values.std()) / math.sqrt(len(values)) + 1e-9

    assert close(found.prior, top)
    assert all(close(found.diffusion[:, i], term) for i, term in enumerate(terms))
    assert close(found.reconstruction, first)
    torch.testing.assert_close(found.total, found.prior + found.diffusion.sum(1) + found.reconstruction)


@pytest.mark.parametrize("family", ["linear", "edm", "flow"])
@pytest.mark.parametrize("kind", ["small", "large"])
def test_the_bound_is_below_the_entropy_and_closes_with_many_steps(family: str, kind: Variance) -> None:
    """E[bound] >= -E[log p(x)] = the entropy, for any grid. What is left of it falls with the steps, to the KL of x_1
    from N(0, w^2) and that of the decoder from p(x_0 | x_1)."""
    prior = gaussian(SCHEDULES[family])
    values = torch.linalg.eigvalsh(prior.cov)
    entropy = 0.5 * float((2 * math.pi * math.e * values).log().sum())
    gaps = []
    for steps in (10, 40, 160, 640):
        times = prior.schedule.grid(steps, "karras")
        top, terms, first = expected_terms(prior, times, kind)
        gaps.append(top + sum(terms) + first - entropy)
    assert min(gaps) > 0
    assert gaps[0] > gaps[1] > gaps[2] > gaps[3]
    one, low = torch.ones((), dtype=torch.float64), times[-2]
    alpha, sigma, width = prior.schedule.alpha(one), prior.schedule.sigma(one), prior.std_at(one)
    true = (alpha**2 * values + sigma**2) / width**2
    mean = float(alpha**2 * prior.mean.square().sum() / width**2)
    ends = 0.5 * (float((true - 1 - true.log()).sum()) + mean)
    alpha, sigma, _ = prior.schedule.level(low)
    ratio = values * (alpha**2 + sigma**2) / (alpha**2 * values + sigma**2)
    ends += 0.5 * float((ratio - 1 - ratio.log()).sum())
    assert gaps[-1] - ends == pytest.approx(0, abs=0.15 * gaps[0])
    assert gaps[-1] - ends > -1e-9


@pytest.mark.parametrize("family", ["linear", "edm"])
def test_with_the_optimal_variance_there_is_no_gap(family: str) -> None:
    """x_0 ~ N(0, 1): with the large variance every step of the chain is exact, whatever their number."""
    prior = Gaussian([0.0], [[1.0]], schedule=SCHEDULES[family])
    entropy = 0.5 * math.log(2 * math.pi * math.e)
    for steps in (5, 50):
        times = prior.schedule.grid(steps, "karras")
        top, terms, first = expected_terms(prior, times, "large")
        assert top + sum(terms) + first == pytest.approx(entropy, rel=1e-9)
        x = of(prior, 4000)
        found = bound(prior, x, steps=steps, spacing="karras", variance="large", decoder="gaussian")
        gap = found.total + prior.log_prob(x)
        assert float(gap.mean()) == pytest.approx(0, abs=4.5 * float(gap.std()) / math.sqrt(len(x)))


def test_one_point_has_no_diffusion_loss_with_the_small_variance() -> None:
    prior = Gaussian([0.3], [[0.0]], schedule=VP("cosine"))
    found = bound(prior, torch.full((1, 1, 1, 1), 0.3), steps=20, decoder="gaussian")
    assert float(found.diffusion.abs().max()) < 1e-9
    assert float(
        bound(prior, torch.full((1, 1, 1, 1), 0.3), steps=20, variance="large", decoder="gaussian").total
    ) > float(found.total)


def test_the_probabilities_of_all_pixels_sum_to_one() -> None:
    x = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    for mean, std in ((0.1, 0.2), (-0.99, 0.01), (1.3, 0.05), (0.0, 0.02)):
        given = torch.full_like(x, mean), torch.full_like(x, 2 * math.log(std))
        assert float(log_pixel(x, *given).exp().sum()) == pytest.approx(1, abs=1e-9)


def test_the_bound_of_pixels_is_above_their_entropy() -> None:
    """Two equally likely pictures of 16 equal values: 1 bit a picture, and a few more where steps are coarse."""
    levels = torch.tensor([-20.0, 20.0]) / 127.5 - 1 / 255
    prior = GaussianMixture(
        [0.5, 0.5], levels[:, None].expand(2, 16), 1e-6 * torch.eye(16), (1, 4, 4), EDM(sigma_min=1e-3, sigma_max=80)
    )
    x = levels.repeat(50)[:, None, None, None].expand(100, 1, 4, 4).contiguous()
    found = bound(prior, x, steps=120, seed=2)
    bits = bits_per_value(found.total, 16)
    assert 1 / 16 < float(bits.mean()) < 1 / 16 + 0.35
    assert float(found.reconstruction.max()) < 0.05  # the last noise is far below the width of a value


def test_draws_and_their_error() -> None:
    prior = gaussian(VP())
    x = of(prior, 1)
    many = [bound(prior, x, steps=8, decoder="gaussian", draws=50, seed=seed) for seed in range(30)]
    totals = torch.cat([each.total for each in many])
    claimed = torch.cat([each.standard_error for each in many]).mean()
    assert float(totals.std() / claimed) == pytest.approx(1, abs=4 / math.sqrt(2 * 30))
    assert bool(bound(prior, x, steps=8, decoder="gaussian").standard_error.isnan().all())


def test_a_picture_has_the_same_numbers_in_any_batch() -> None:
    prior = gaussian(EDM())
    x = of(prior, 3)
    together, alone = (bound(prior, part, steps=6, decoder="gaussian", draws=2, seed=4) for part in (x, x[1:2]))
    torch.testing.assert_close(together.total[1:2], alone.total)
    flows = [flow_log_prob(prior, part, steps=6, probes=3, seed=4) for part in (x, x[1:2])]
    torch.testing.assert_close(flows[0].log_prob[1:2], flows[1].log_prob)


# -- the probability flow ----------------------------------------------------------------------------------------------


def model_log_prob(prior: Gaussian, x: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    """Of the exact ODE with x_1 ~ N(0, w^2), at the time ``low``: affine along each axis of C, of slope s_1 / s_low."""
    values, vectors = torch.linalg.eigh(prior.cov)
    one = torch.ones((), dtype=torch.float64)
    alpha, sigma, width = prior.schedule.alpha(one), prior.schedule.sigma(one), prior.std_at(one)
    alpha_low, sigma_low, _ = prior.schedule.level(low)
    stretch = ((alpha**2 * values + sigma**2) / (alpha_low**2 * values + sigma_low**2)).sqrt()
    mean = prior.mean.flatten() @ vectors
    x_1 = alpha * mean + (x.flatten(1) @ vectors - alpha_low * mean) * stretch
    return (-0.5 * (x_1 / width) ** 2 - (width * math.sqrt(2 * math.pi)).log() + stretch.log()).sum(1)


@pytest.mark.parametrize("family", SCHEDULES)
@pytest.mark.parametrize(("rule", "steps", "error"), [("rk4", 40, 1e-4), ("heun", 200, 2e-3)])
def test_the_flow_of_a_gaussian_has_its_closed_form(family: str, rule: str, steps: int, error: float) -> None:
    """And that is log p(x_t = x) up to what x_1 differs from N(0, w^2), and log N(x; m, C) up to the lowest noise."""
    prior = gaussian(SCHEDULES[family])
    x = of(prior, 6)
    found = flow_log_prob(prior, x, steps=steps, spacing="karras", rule=rule, probes=None)
    low = prior.schedule.grid(steps, "karras")[-2]
    expected = model_log_prob(prior, x, low)
    torch.testing.assert_close(found.log_prob, expected, rtol=0, atol=error)
    assert float((expected - prior.log_prob(x, low)).abs().max()) < 0.05
    # (z^2 - 1) sigma^2 / 2 C of each of two axes, with sigma = 0.01, C > 0.25 and z^2 < 20
    assert float((prior.log_prob(x, low) - prior.log_prob(x)).abs().max()) < 0.01
    assert bool((found.standard_error == 0).all())
    calls = flow_evaluations(steps, rule)
    assert (prior.nfe.forward, prior.nfe.backward) == (0, 6 * calls * 2)  # two gradients each


def test_the_flow_of_a_mixture() -> None:
    covs = [[[0.04, 0.01], [0.01, 0.03]], [[0.09, 0.0], [0.0, 0.02]]]
    prior = GaussianMixture([0.3, 0.7], [[1.0, -1.0], [-0.5, 0.5]], covs, schedule=EDM())
    x = prior.sample(20, seed=1).double()
    found = flow_log_prob(prior, x, steps=80, probes=None)
    torch.testing.assert_close(found.log_prob, prior.log_prob(x), rtol=0, atol=0.02)


def test_hutchinsons_trace_is_right_on_average_and_knows_its_error() -> None:
    """With 64 probes within 4.5 of the standard errors that it claims."""
    prior = gaussian(EDM())
    x = of(prior, 4)
    exact = flow_log_prob(prior, x, steps=20, probes=None).log_prob
    found = flow_log_prob(prior, x, steps=20, probes=64, seed=2)
    assert bool(((found.log_prob - exact).abs() < 4.5 * found.standard_error).all())
    assert 0.001 < float(found.standard_error.mean()) < 0.2
    assert bool(flow_log_prob(prior, x, steps=4, probes=1).standard_error.isnan().all())


def test_the_flow_bits_of_dithered_pixels_are_those_of_a_wide_gaussian() -> None:
    """A density that is flat over one 8-bit step has -log2(density x step) bits."""
    prior = Gaussian(torch.zeros(16), 0.25 * torch.eye(16), (1, 4, 4), EDM())
    x = (torch.arange(16.0).reshape(1, 1, 4, 4) * 8 + 60) / 127.5 - 1
    noisy = dithered(x, seed=3)
    assert 0 < float((noisy - x).abs().max()) <= HALF_STEP
    assert torch.equal(noisy, dithered(torch.cat([x + 2, x]), seed=3)[1:])
    bits = density_bits(-flow_log_prob(prior, noisy, steps=30, probes=None).log_prob, 16)
    exact = -log_pixel(x.double(), torch.zeros(1).double(), torch.tensor([math.log(0.25)]).double()).sum() / 16
    assert float(bits) == pytest.approx(float(exact) / math.log(2), abs=0.01)


# -- arguments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"draws": 0}, "at least 1 draw"),
        ({"variance": "learned", "decoder": "gaussian"}, "needs a network that learned one"),
        ({}, "not 8-bit values"),
        ({"steps": 0, "decoder": "gaussian"}, "at least 1 step"),
    ],
)
def test_the_bound_refuses(settings: dict[str, object], message: str) -> None:
    prior: Prior = gaussian(VP())
    with pytest.raises(UsageError, match=message):
        bound(prior, torch.full((1, 1, 1, 2), 0.3), **settings)  # type: ignore[arg-type]
    assert prior.nfe.forward == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"rule": "euler"}, "heun, rk4|rk4, heun"), ({"probes": 0}, "1 probe"), ({"steps": 1}, "at least 2")],
)
def test_the_flow_refuses(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        flow_log_prob(gaussian(VP()), torch.zeros(1, 1, 1, 2), **settings)  # type: ignore[arg-type]


def test_both_can_be_cancelled() -> None:
    token = CancelToken()
    token.cancel()
    x = torch.zeros(1, 1, 1, 2)
    with pytest.raises(Cancelled):
        bound(gaussian(VP()), x, decoder="gaussian", cancel=token)
    with pytest.raises(Cancelled):
        flow_log_prob(gaussian(VP()), x, cancel=token)
