"""DPS: its gradient, its coordinates, its traps, and the biased numbers that a right implementation gives."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from priorpaint import DenoiserPrior, Inpainting, UsageError, solver
from priorpaint.diffusion import transitions
from priorpaint.diffusion.rng import Streams
from priorpaint.diffusion.samplers import DDPM
from priorpaint.diffusion.schedules import EDM, VE, VP, Flow, Schedule
from priorpaint.priors.analytic import Gaussian
from priorpaint.solvers.base import Task
from priorpaint.solvers.dps import DPS
from tests.solvers import affine
from tests.solvers.toy import COV, KNOWN, Y, levels, mode_weights, toy_g, toy_m

EYE = np.eye(2)
SEEN = np.diag([1.0, 0.0])


def at(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


# -- the harness: the sampler with the exact E[x_0 | x_t, y] -------------------------------------------------------


def exactly_guided(sigma_y: float) -> DenoiserPrior:
    """Toy G with D' = D + (sigma_t^2 / alpha_t) G and the exact G = J^T A^T (A V A^T + sigma_y^2)^-1 (y - A D)."""
    prior = toy_g()
    cov = torch.tensor(COV)

    def denoise(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha, sigma = prior.schedule.alpha(t[0]), prior.schedule.sigma(t[0])
        jacobian = alpha * cov @ torch.linalg.inv(alpha**2 * cov + sigma**2 * torch.eye(2, dtype=torch.float64))
        spread = sigma**2 / alpha * jacobian
        d = x_t.double().flatten(1) @ jacobian
        gradient = jacobian[0] * ((1 - d[:, :1]) / (spread[0, 0] + sigma_y**2))
        return (d + sigma**2 / alpha * gradient).reshape(x_t.shape).to(x_t)

    return DenoiserPrior(denoise, prior.schedule, (1, 1, 2))


def chain_moments(prior: DenoiserPrior, sampler: DDPM) -> tuple[torch.Tensor, torch.Tensor]:
    """Exact mean and covariance after an affine sampler: each step is read off five rows."""
    mean, cov = torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    x = torch.zeros(5, 1, 1, 2, dtype=torch.float64)
    x[1, ..., 0] = x[2, ..., 1] = 1
    times = prior.schedule.grid(sampler.steps, sampler.spacing)
    for t, s in zip(times[:-1], times[1:], strict=True):
        noise = affine.Impulses(5, first=-2)  # the two noise numbers go to rows 3 and 4
        out = sampler.step(prior, x, t, s, noise)[0].flatten(1)
        move, kick = (out[1:3] - out[0]).mT, (out[3:5] - out[0]).mT
        mean, cov = move @ mean + out[0], move @ cov @ move.mT + kick @ kick.mT
    return mean, cov


@pytest.mark.parametrize(
    ("sigma_y", "mean", "var"),
    [
        pytest.param(1e-3, (1.0, 0.903), (0.0, 0.185), marks=pytest.mark.slow),
        (0.5, (0.805, 0.722), (0.201, 0.348)),
    ],
)
def test_harness_with_the_exact_guidance(sigma_y: float, mean: tuple[float, float], var: tuple[float, float]) -> None:
    """STEP(1), N = 1000: the exact posterior but for STEP(1)'s missing Var(x_0 | x_t), which is O(1/N).

    Reported from samples: .903/.185, and .805/.201 with .722/.348; three standard errors of 20,000 samples.
    Truth: .900/.190, and .8/.2 with .72/.352.
    """
    got_mean, got_cov = chain_moments(exactly_guided(sigma_y), DDPM(1000, "respaced"))
    for k in (0, 1):
        assert got_mean[k].item() == pytest.approx(mean[k], abs=3 * math.sqrt(max(var[k], 1e-4) / 20_000) + 1e-3)
        assert got_cov[k, k].item() == pytest.approx(var[k], abs=3 * var[k] * math.sqrt(2 / 20_000) + 1e-3)
    truth = toy_g().posterior(KNOWN, Y, sigma_y)
    torch.testing.assert_close(got_mean, truth.mean.flatten(), rtol=0, atol=0.005)
    torch.testing.assert_close(got_cov, truth.cov, rtol=0, atol=0.006)


# -- one step ----------------------------------------------------------------------------------------------------------


def one_step(
    run: DPS, x_t: torch.Tensor, y: torch.Tensor, t: float, s: float, schedule: Schedule | None = None
) -> torch.Tensor:
    """x_s - u: what guidance adds to the unguided step with the same noise."""
    prior = toy_g(schedule)
    task = Task(prior, KNOWN, y, 0.5, Streams(range(len(x_t))), (1, 1, 2), lambda step, x_0: None)
    x_s = run.step(task)(x_t, at(t), at(s))[0]
    with torch.no_grad():
        x_0 = prior.denoise(x_t, at(t))
    x_0 = x_0.clamp(-1, 1) if run.clip else x_0
    noise = Streams(range(len(x_t))).normal_like(x_t)
    return x_s - transitions.step(prior.schedule, x_t, x_0, at(t), at(s), noise, run.eta)


def jacobian(schedule: Schedule, t: float) -> np.ndarray:
    alpha, sigma = schedule.alpha(at(t)).item(), schedule.sigma(at(t)).item()
    return alpha * COV @ np.linalg.inv(alpha**2 * COV + sigma**2 * EYE)


X_T = torch.tensor([[0.7, -0.4], [2.0, 0.3], [-1.0, -1.0]]).reshape(3, 1, 1, 2)


@pytest.mark.parametrize("t", [0.05, 0.4, 0.9])
def test_norm_guidance_is_minus_scale_times_the_gradient_of_r(t: float) -> None:
    """grad r = -(1/r) J^T A^T (y - A D), one r a row (trap 1 of the sheet: a norm over the batch shrinks every row)."""
    run = solver("dps", scale=0.7)
    assert isinstance(run, DPS)
    got = one_step(run, X_T, Y.expand(3, 1, 1, 2), t, t - 0.01).flatten(1)
    j = jacobian(VP(), t)
    for row, moved in zip(X_T.flatten(1).double().numpy(), got, strict=True):
        residual = SEEN @ (np.array([1.0, 0.0]) - j @ row)
        expected = 0.7 / np.linalg.norm(residual) * j.T @ residual
        np.testing.assert_allclose(moved.numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("schedule", [VP(), VE(), EDM(), Flow()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_likelihood_guidance_enters_through_d_and_eps(schedule: Schedule, eta: float) -> None:
    """D' = D + (sigma_t^2 / alpha_t) G, eps' = eps - sigma_t G in STEP(eta), with G = J^T A^T (y - A D) / sigma_y^2."""
    t, s = 0.6, 0.5
    run = DPS(scale=1.0, eta=eta, guidance="likelihood")
    got = one_step(run, X_T, Y.expand(3, 1, 1, 2), t, s, schedule).flatten(1)
    j = jacobian(schedule, t)
    alpha_t, sigma_t, alpha_s, sigma_s = (f(at(x)).item() for x in (t, s) for f in (schedule.alpha, schedule.sigma))
    v = sigma_s**2 * (sigma_t**2 - (alpha_t / alpha_s) ** 2 * sigma_s**2) / sigma_t**2
    kept = math.sqrt(sigma_s**2 - eta**2 * v)
    for row, moved in zip(X_T.flatten(1).double().numpy(), got, strict=True):
        g = j.T @ SEEN @ (np.array([1.0, 0.0]) - j @ row) / 0.25
        expected = alpha_s * sigma_t**2 / alpha_t * g - kept * sigma_t * g
        np.testing.assert_allclose(moved.numpy(), expected, rtol=2e-5, atol=2e-5 * max(1, sigma_t))


def test_flow_at_pure_noise_has_no_likelihood_pull() -> None:
    """alpha_1 = 0: the weight sigma^2 / alpha is infinite there, and an imperfect network's gradient is not 0."""
    prior = DenoiserPrior(lambda x, t: 0.5 * x, Flow(), (1, 1, 2))
    out = DPS(steps=10, guidance="likelihood").sample(prior, KNOWN, Y, sigma_y=2.0, num_samples=4)
    assert out.abs().max() < 100


def test_no_residual_is_no_pull_and_no_nan() -> None:
    zero = torch.zeros(2, 1, 1, 2)
    moved = one_step(DPS(), zero, zero, 0.5, 0.4)
    assert torch.equal(moved, torch.zeros_like(moved))


def test_clip_comes_before_the_loss() -> None:
    """A clipped estimate has no gradient there (trap 4 of the sheet), and STEP gets the clipped estimate."""
    moved = one_step(DPS(clip=True), torch.full((1, 1, 1, 2), 5.0), Y, 0.1, 0.09)
    assert torch.equal(moved, torch.zeros_like(moved))
    assert one_step(DPS(clip=False), torch.full((1, 1, 1, 2), 5.0), Y, 0.1, 0.09).abs().max() > 0.1


def test_scale_means_the_same_for_vp_ve_and_edm() -> None:
    """x_vp = x_ve / sqrt(1 + sigma^2): with equal levels and noise, 'vp' gives the same samples and 'own' does not."""
    vp = VP("linear")
    low, high = vp.nsr_range
    schedules = [vp, VE(low, high), EDM(low, high)]
    kwargs = {"steps": 40, "spacing": "logsnr", "scale": 0.3, "paste": False}
    same = [DPS(**kwargs).sample(toy_m(s), KNOWN, Y, num_samples=20, seed=2) for s in schedules]  # type: ignore[arg-type]
    torch.testing.assert_close(same[0], same[1], rtol=0, atol=2e-3)
    torch.testing.assert_close(same[0], same[2], rtol=0, atol=2e-3)
    own = DPS(**kwargs, scale_space="own").sample(toy_m(schedules[1]), KNOWN, Y, num_samples=20, seed=2)  # type: ignore[arg-type]
    assert (own - same[0]).abs().mean() > 0.05


def test_a_sample_does_not_feel_its_batch() -> None:
    alone = DPS(steps=30).sample(toy_m(), KNOWN, Y, num_samples=1, seed=7)
    among = DPS(steps=30).sample(toy_m(), KNOWN, Y, num_samples=16, seed=7)
    torch.testing.assert_close(among[:, :1], alone, rtol=0, atol=1e-5)


# -- laws on the toys --------------------------------------------------------------------------------------------------


def likelihood_chain(steps: int, sigma_y: float) -> tuple[np.ndarray, np.ndarray]:
    """Toy G under likelihood guidance and STEP(1): adding (alpha_s / alpha_t) f G to the unguided step, in numpy."""
    abar = levels(steps)
    mean, cov = np.zeros(2), EYE
    for k in range(steps, 0, -1):
        a_t, a_s = abar[k], abar[k - 1]
        j = np.sqrt(a_t) * COV @ np.linalg.inv(a_t * COV + (1 - a_t) * EYE)
        f = 1 - a_t / a_s
        v = (1 - a_s) * f / (1 - a_t)
        move = np.sqrt(a_s) * j + np.sqrt(max(1 - a_s - v, 0)) * (EYE - np.sqrt(a_t) * j) / np.sqrt(1 - a_t)
        pull = np.sqrt(a_s / a_t) * f / sigma_y**2 * j.T @ SEEN
        mean, cov = (
            (move - pull @ j) @ mean + pull @ [1.0, 0.0],
            (move - pull @ j) @ cov @ (move - pull @ j).T + v * EYE,
        )
    return mean, cov


@pytest.mark.parametrize("steps", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_likelihood_form_on_toy_g_exactly(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    run = DPS(steps=steps, guidance="likelihood", spacing="respaced")
    mean, cov = affine.of_solver(monkeypatch, run, toy_g(), KNOWN, Y, 2 + 2 * steps, sigma_y=0.5)
    exact_mean, exact_cov = likelihood_chain(steps, 0.5)
    np.testing.assert_allclose(mean.numpy(), exact_mean, atol=2e-5)
    np.testing.assert_allclose(cov.numpy(), exact_cov, atol=5e-5)


def test_likelihood_form_has_the_reported_law() -> None:
    """Reported x_2 .949/.241 and x_1 .979/.121 (truth .72/.352 and .8/.2), without a sample size.

    The chain is affine, so its exact law is x_2 .963/.240 and x_1 .982/.122; the reported values lie within three
    standard errors of 2000 samples of it, and far from the truth: the point-mass likelihood pulls too hard.
    """
    mean, cov = likelihood_chain(1000, 0.5)
    for k, (reported_mean, reported_var) in enumerate([(0.979, 0.121), (0.949, 0.241)]):
        assert mean[k] == pytest.approx(reported_mean, abs=3 * math.sqrt(reported_var / 2000))
        assert cov[k, k] == pytest.approx(reported_var, abs=3 * reported_var * math.sqrt(2 / 2000))
    assert mean[1] == pytest.approx(0.963, abs=1e-3) and cov[1, 1] == pytest.approx(0.240, abs=1e-3)


@pytest.mark.parametrize(
    ("scale", "steps", "mean", "var", "known_var"),
    [
        (0.1, 250, 0.981, 0.147, 0.0033),
        pytest.param(0.05, 1000, 0.993, 0.149, 0.0008, marks=pytest.mark.slow),
        pytest.param(0.3, 1000, 0.992, 0.152, 0.030, marks=pytest.mark.slow),
        pytest.param(1.0, 1000, 0.992, 0.159, 0.307, marks=pytest.mark.slow),
    ],
)
def test_norm_form_on_toy_g(scale: float, steps: int, mean: float, var: float, known_var: float) -> None:
    """Overshoots (.99 for .90) and is too narrow (.15 for .19); 4000 samples against 20,000, four standard errors.

    The known coordinate, before pasting, cycles about y with a spread that grows with the scale; it is not Gaussian, so
    its variance is held to 15 % (four standard errors of a variance whose fourth moment is that of a Gaussian: 9 % +
    rounding).
    """
    run = DPS(steps=steps, scale=scale, paste=False, spacing="respaced")
    out = run.sample(toy_g(), KNOWN, Y, num_samples=4000, seed=0).reshape(-1, 2).double()
    together = math.sqrt(1 / 4000 + 1 / 20_000)
    assert out[:, 1].mean().item() == pytest.approx(mean, abs=4 * math.sqrt(var) * together + 5e-4)
    assert out[:, 1].var().item() == pytest.approx(var, abs=4 * var * math.sqrt(2) * together + 5e-4)
    assert out[:, 0].var().item() == pytest.approx(known_var, rel=0.15, abs=6e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "weights"), [(0.05, (0.63, 0.37, 0.01)), (1.0, (0.70, 0.30, 0.00))])
def test_toy_m_mode_weights(scale: float, weights: tuple[float, float, float]) -> None:
    """Reported to two digits (half a digit: .005) for N = 1000; plus four standard errors of 3000 samples."""
    out = DPS(steps=1000, scale=scale, spacing="respaced").sample(toy_m(), KNOWN, Y, num_samples=3000, seed=0)
    for got, want in zip(mode_weights(out), weights, strict=True):
        assert got == pytest.approx(want, abs=0.006 + 4 * math.sqrt(max(want, 0.01) * (1 - want) / 3000))


def ar1(dim: int = 64, rho: float = 0.9) -> Gaussian:
    index = torch.arange(dim, dtype=torch.float64)
    return Gaussian(torch.zeros(dim), (rho ** (index[:, None] - index).abs()).tolist())


@pytest.mark.parametrize(
    ("scale", "reported"),
    [(0.5, 0.045), (1.0, 0.090), (2.0, 0.178)],
)
@pytest.mark.parametrize("steps", [250, pytest.param(1000, marks=pytest.mark.slow)])
def test_residual_of_a_correlated_signal(scale: float, reported: float, steps: int) -> None:
    """64-dim AR(1), middle 32 missing: the data step has length ~scale however small the residual, so the residual's
    norm ends near scale / 2 (rms scale / (2 sqrt 32) = .088 scale). Reported for N = 1000 and one unknown y; the
    value is the same for N = 250 and varies by 5 % (standard deviation) from y to y, so: 15 %. The mean over 8 y is
    our own, to 6 %.
    """
    prior = ar1()
    known = torch.ones(1, 64)
    known[:, 16:48] = 0
    operator = Inpainting(known)
    y = operator(prior.sample(8, seed=11))
    out = DPS(steps=steps, scale=scale, paste=False, spacing="respaced").sample(
        prior, operator, y, num_samples=4, seed=1
    )
    rms = (out - y[:, None])[..., known[0] > 0].square().mean((1, 2, 3, 4)).sqrt().mean().item()
    assert rms == pytest.approx(reported, rel=0.15)
    assert rms == pytest.approx(0.0910 * scale, rel=0.06)


# -- settings ----------------------------------------------------------------------------------------------------------


def test_paste_makes_noise_free_results_exact_and_is_off_with_noise() -> None:
    pasted = DPS(steps=10).sample(toy_g(), KNOWN, Y, num_samples=4)
    loose = DPS(steps=10, paste=False).sample(toy_g(), KNOWN, Y, num_samples=4)
    noisy = DPS(steps=10).sample(toy_g(), KNOWN, Y, sigma_y=0.1, num_samples=4)
    assert bool((pasted[..., 0] == 1).all()) and torch.equal(pasted[..., 1], loose[..., 1])
    assert bool((loose[..., 0] != 1).all()) and torch.equal(noisy, loose)


def test_likelihood_form_needs_noise() -> None:
    with pytest.raises(UsageError, match="sigma_y > 0"):
        DPS(steps=2, guidance="likelihood").sample(toy_g(), KNOWN, Y)


def test_scale_zero_is_the_prior() -> None:
    out = DPS(steps=25, scale=0.0, paste=False).sample(toy_m(), KNOWN, Y, num_samples=5, seed=1)[0]
    other = DPS(steps=25, scale=0.0, paste=False).sample(toy_m(), KNOWN, -Y, num_samples=5, seed=[1])[0]
    seeded = DPS(steps=25, scale=0.0, paste=False).sample(toy_m(), KNOWN, Y, num_samples=5, seed=[1])[0]
    assert torch.equal(other, seeded) and not torch.equal(out, other)
