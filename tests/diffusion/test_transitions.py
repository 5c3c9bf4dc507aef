"""Transitions: the DDPM formulas, consistency of marginals, and precision of tiny steps at both ends."""

from __future__ import annotations

import math

import mpmath as mp
import pytest
import torch

from priorpaint.diffusion import transitions
from priorpaint.diffusion.schedules import EDM, VE, VP, Flow, Schedule

SCHEDULES = {"linear": VP(), "cosine": VP("cosine"), "ve": VE(), "edm": EDM(), "flow": Flow()}


@pytest.fixture(params=SCHEDULES, ids=str)
def schedule(request: pytest.FixtureRequest) -> Schedule:
    return SCHEDULES[request.param]


def at(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def pairs() -> list[tuple[torch.Tensor, torch.Tensor]]:
    times = [1.0, 0.999, 0.9, 0.5, 0.1, 0.004, 0.0005, 1e-6, 0.0]
    return [(at(t), at(s)) for i, t in enumerate(times) for s in times[i + 1 :]]


def test_ddpm_beta_and_beta_tilde() -> None:
    """On the table, one step's variance is beta and the posterior variance is beta (1 - abar_s) / (1 - abar_t)."""
    betas = VP().betas
    abar = (1 - betas).cumprod(0)
    for i in (1, 2, 10, 500, 999):
        t, s = at((i + 1) / 1000), at(i / 1000)
        ratio, variance = transitions.forward(VP(), s, t)
        assert variance.item() == pytest.approx(betas[i].item(), rel=1e-11)
        assert ratio.item() == pytest.approx((1 - betas[i]).sqrt().item(), rel=1e-12)
        tilde = betas[i] * (1 - abar[i - 1]) / (1 - abar[i])
        assert transitions.backward_variance(VP(), t, s).item() == pytest.approx(tilde.item(), rel=1e-10)
        # Ho et al. 2020, Eq. 7: weights of x_t and x_0 in the posterior mean.
        a, b = transitions.backward_weights(VP(), t, s)
        assert a.item() == pytest.approx(((1 - betas[i]).sqrt() * (1 - abar[i - 1]) / (1 - abar[i])).item(), rel=1e-10)
        assert b.item() == pytest.approx((abar[i - 1].sqrt() * betas[i] / (1 - abar[i])).item(), rel=1e-10)


def test_up_reaches_the_noisier_marginal(schedule: Schedule) -> None:
    for t, s in pairs():
        ratio, variance = transitions.forward(schedule, s, t)
        assert (ratio * schedule.alpha(s)).item() == pytest.approx(schedule.alpha(t).item(), rel=1e-13, abs=0)
        total = ratio**2 * schedule.sigma(s) ** 2 + variance
        assert total.item() == pytest.approx(schedule.sigma(t).item() ** 2, rel=1e-13)


def test_single_ups_compose_to_one_long_up(schedule: Schedule) -> None:
    times = [at(t) for t in (0.1, 0.2, 0.25, 0.7, 0.999)]
    ratio, variance = at(1.0), at(0.0)
    for s, t in zip(times[:-1], times[1:], strict=True):
        step_ratio, step_variance = transitions.forward(schedule, s, t)
        ratio, variance = ratio * step_ratio, variance * step_ratio**2 + step_variance
    long_ratio, long_variance = transitions.forward(schedule, times[0], times[-1])
    assert ratio.item() == pytest.approx(long_ratio.item(), rel=1e-12)
    assert variance.item() == pytest.approx(long_variance.item(), rel=1e-12)


def test_up_maps_exact_marginals_to_exact_marginals(schedule: Schedule) -> None:
    """N(0, alpha_s^2 C + sigma_s^2 I) becomes N(0, alpha_t^2 C + sigma_t^2 I), read off noise_up with impulses."""
    cov = torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64)
    eye = torch.eye(2, dtype=torch.float64)
    for t, s in pairs():
        zero = torch.zeros_like(eye)
        from_x = transitions.noise_up(schedule, eye, s, t, zero)
        from_noise = transitions.noise_up(schedule, zero, s, t, eye)
        before = schedule.alpha(s) ** 2 * cov + schedule.sigma(s) ** 2 * eye
        after = from_x.mT @ before @ from_x + from_noise.mT @ from_noise
        expected = schedule.alpha(t) ** 2 * cov + schedule.sigma(t) ** 2 * eye
        torch.testing.assert_close(after, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_a_step_with_the_true_x_0_keeps_the_marginal(schedule: Schedule, eta: float) -> None:
    """x_t = alpha_t x_0 + sigma_t e makes x_s = alpha_s x_0 + noise of standard deviation sigma_s, for any eta."""
    for t, s in pairs():
        a, b = transitions.backward_weights(schedule, t, s, eta)
        v = transitions.backward_variance(schedule, t, s)
        mean = a * schedule.alpha(t) + b
        assert mean.item() == pytest.approx(schedule.alpha(s).item(), rel=1e-11, abs=1e-14)
        total = a**2 * schedule.sigma(t) ** 2 + eta**2 * v
        assert total.item() == pytest.approx(schedule.sigma(s).item() ** 2, rel=1e-12, abs=0)


def test_step_is_mean_plus_noise_and_ddim_is_eta_zero(schedule: Schedule) -> None:
    generator = torch.Generator().manual_seed(0)
    x_t, x_0, z = torch.randn(3, 4, 1, 2, 2, dtype=torch.float64, generator=generator)
    t, s = at(0.6), at(0.35)
    v = transitions.backward_variance(schedule, t, s)
    # The fact sheets' form, written out with eps.
    eps = (x_t - schedule.alpha(t) * x_0) / schedule.sigma(t)
    for eta in (0.0, 0.5, 1.0):
        expected = schedule.alpha(s) * x_0 + (schedule.sigma(s) ** 2 - eta**2 * v).sqrt() * eps + eta * v.sqrt() * z
        torch.testing.assert_close(transitions.step(schedule, x_t, x_0, t, s, z, eta), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(transitions.epsilon(schedule, x_t, x_0, t), eps)
    expected = schedule.alpha(s) * x_0 + schedule.sigma(s) * eps
    torch.testing.assert_close(transitions.ddim(schedule, x_t, x_0, t, s), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(transitions.perturb(schedule, x_0, t, eps), x_t)


def test_last_step_returns_the_estimate(schedule: Schedule) -> None:
    x_t, x_0, z = torch.tensor([[3.0]]), torch.tensor([[0.123]]), torch.tensor([[9.0]])
    for t in (1.0, 0.5, 1e-3):
        for eta in (0.0, 0.5, 1.0):
            assert torch.equal(transitions.step(schedule, x_t, x_0, at(t), at(0.0), z, eta), x_0)


def exact_log_ratio(name: str, t: mp.mpf) -> mp.mpf:
    if name == "flow":
        return mp.log(t) - mp.log(1 - t)
    if name == "ve":
        return mp.log(mp.mpf("0.01")) + t * mp.log(mp.mpf(5000))
    low, high = mp.mpf(0.002) ** (mp.mpf(1) / 7), mp.mpf(80) ** (mp.mpf(1) / 7)
    return 7 * mp.log(low + t * (high - low))


@pytest.mark.parametrize("name", ["flow", "edm", "ve"])
@pytest.mark.parametrize(("upper", "gap"), [(0.999, 2**-8), (0.999, 2**-16), (0.01, 2**-8), (0.01, 2**-16)])
def test_tiny_steps_keep_their_relative_precision(name: str, upper: float, gap: float) -> None:
    """Both variances against 50 digits.

    With L = log(sigma/alpha), rounding L (a few half-ulps of max(|L|, 1)) is the only error that a step of length dL
    amplifies, by 1 / dL. The naive form sigma_t^2 - (alpha_t/alpha_s)^2 sigma_s^2 has the same factor, but evaluates to
    0 or a negative number where alpha^2 sigma^2 underflows against it; we bound ours by 16 eps max(|L|, 1) / dL +
    1e-14.
    """
    mp.mp.dps = 50
    schedule = SCHEDULES[name]
    t, s = upper, upper - gap
    log_t, log_s = exact_log_ratio(name, mp.mpf(t)), exact_log_ratio(name, mp.mpf(s))
    alpha_t = 1 - mp.mpf(t) if name == "flow" else mp.mpf(1)
    sigma_t = alpha_t * mp.exp(log_t)
    alpha_s = 1 - mp.mpf(s) if name == "flow" else mp.mpf(1)
    sigma_s = alpha_s * mp.exp(log_s)
    forward = sigma_t**2 - (alpha_t / alpha_s) ** 2 * sigma_s**2
    backward = sigma_s**2 * forward / sigma_t**2
    bound = 16 * 2.3e-16 * max(abs(float(log_t)), 1) / float(log_t - log_s) + 1e-14
    assert abs(transitions.forward(schedule, at(s), at(t))[1].item() / forward - 1) < bound
    assert abs(transitions.backward_variance(schedule, at(t), at(s)).item() / backward - 1) < bound


@pytest.mark.parametrize("name", ["linear", "cosine"])
@pytest.mark.parametrize("index", [1, 2, 5, 400, 990, 998])
def test_table_steps_to_1e_12(name: str, index: int) -> None:
    """One step of a 1000-level table, at both ends and between: relative error < 1e-12 against 50 digits."""
    mp.mp.dps = 50
    betas = [mp.mpf(beta.item()) for beta in SCHEDULES[name].betas]  # type: ignore[attr-defined]
    abar_s = mp.fprod(1 - beta for beta in betas[:index])
    beta = betas[index]
    t, s = at((index + 1) / 1000), at(index / 1000)
    assert abs(transitions.forward(SCHEDULES[name], s, t)[1].item() / beta - 1) < 1e-12
    tilde = beta * (1 - abar_s) / (1 - abar_s * (1 - beta))
    assert abs(transitions.backward_variance(SCHEDULES[name], t, s).item() / tilde - 1) < 1e-12


def test_variances_are_never_negative_however_small_the_step(schedule: Schedule) -> None:
    t = torch.linspace(1e-6, 1, 5001, dtype=torch.float64)
    for gap in (1e-7, 1e-12, 1e-15):
        assert bool((transitions.forward(schedule, t - gap, t)[1] >= 0).all())
        assert bool((transitions.backward_variance(schedule, t, t - gap) >= 0).all())


def test_coefficients_for_each_row_and_dtype_of_the_image() -> None:
    x = torch.ones(3, 1, 2, 2)
    t = torch.tensor([0.2, 0.5, 1.0], dtype=torch.float64)
    out = transitions.noise_up(VP(), x, torch.zeros(3, dtype=torch.float64), t, torch.zeros_like(x))
    assert out.dtype == torch.float32 and out.shape == x.shape
    torch.testing.assert_close(out[:, 0, 0, 0], VP().alpha(t).float())
    for dtype in (torch.float16, torch.float32, torch.float64):
        y = x.to(dtype)
        assert transitions.step(VP(), y, y, t, t / 2, y).dtype == dtype


def test_flow_steps_from_pure_noise_are_finite() -> None:
    one, s = at(1.0), at(0.98)
    ratio, variance = transitions.forward(Flow(), s, one)
    assert ratio == 0 and variance == 1
    a, b = transitions.backward_weights(Flow(), one, s, 1.0)
    assert a == 0 and math.isclose(b.item(), 0.02, rel_tol=1e-12)
    a, b = transitions.backward_weights(Flow(), one, s, 0.0)
    assert math.isclose(a.item(), 0.98) and math.isclose(b.item(), 0.02, rel_tol=1e-12)


def test_the_large_variance_is_beta_on_ddpms_grid() -> None:
    """sigma_t^2 = beta_t and beta-tilde_t (Ho et al. 2020, Sec. 3.2), entry by entry and between respaced ones."""
    vp = VP()
    for i in (1, 2, 10, 500, 999):
        t, s = at((i + 1) / 1000), at(i / 1000)
        assert transitions.ancestral_std(vp, t, s, 1.0).item() ** 2 == pytest.approx(vp.betas[i].item(), rel=1e-10)
        small = transitions.backward_variance(vp, t, s).item()
        assert transitions.ancestral_std(vp, t, s).item() ** 2 == pytest.approx(small, rel=1e-12)
    abar = torch.cat([torch.ones(1, dtype=torch.float64), (1 - vp.betas).cumprod(0)])
    times = vp.grid(250, "respaced")[:-1]
    for t, s in zip(times[:-1], times[1:], strict=True):
        beta = 1 - abar[int(t * 1000 + 0.5)] / abar[int(s * 1000 + 0.5)]
        assert transitions.ancestral_std(vp, t, s, 1.0).item() ** 2 == pytest.approx(beta.item(), rel=1e-9)


def test_the_large_variance_is_that_of_white_data_in_any_coordinates(schedule: Schedule) -> None:
    """Var[x_s | x_t] of x_0 ~ N(0, I), where x_t = alpha_{t|s} x_s + noise; 0 in the step to clean."""
    for t, s in pairs():
        if t == 1 and float(schedule.alpha(t)) == 0:
            continue  # x_t says nothing; the ratio below is 0 / 0
        ratio, added = transitions.forward(schedule, s, t)
        before = schedule.alpha(s) ** 2 + schedule.sigma(s) ** 2
        white = before * added / (ratio**2 * before + added)
        got = transitions.ancestral_std(schedule, t, s, 1.0) ** 2
        if s == 0:
            assert got == 0
        else:
            assert got.item() == pytest.approx(white.item(), rel=1e-11)


def test_a_share_interpolates_log_variances(schedule: Schedule) -> None:
    """Nichol and Dhariwal 2021, Eq. 15: exp(v log beta + (1 - v) log beta-tilde), element by element."""
    t, s = at(0.6), at(0.55)
    share = torch.tensor([-0.1, 0.0, 0.3, 1.0, 1.2]).reshape(1, 1, 1, 5)
    small, large = (2 * transitions.ancestral_std(schedule, t, s, end).log() for end in (0.0, 1.0))
    expected = torch.exp((share * large + (1 - share) * small) / 2)
    torch.testing.assert_close(transitions.ancestral_std(schedule, t, s, share), expected, check_dtype=False)
    x_t, x_0, z = torch.randn(3, 1, 1, 1, 5, generator=torch.Generator().manual_seed(0))
    mean = transitions.step_mean(schedule, x_t, x_0, t, s)
    stepped = transitions.step(schedule, x_t, x_0, t, s, z, share=share)
    torch.testing.assert_close(stepped, mean + expected.float() * z, rtol=1e-5, atol=1e-5)
    last = transitions.step(schedule, x_t, x_0, t, at(0.0), z, share=share)
    assert torch.equal(last, x_0), "no noise in the step to the clean image"
