"""DiffPIR: its proximal step against a dense solve, its chain exactly, and the laws that were reported."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from priorpaint import solver
from priorpaint.diffusion.schedules import EDM, VE, VP, Flow
from priorpaint.priors.analytic import Gaussian
from priorpaint.solvers.diffpir import DiffPIR, proximal
from tests.solvers import affine
from tests.solvers.linear_toy import Affine, Level, Rule, ar1, chain, dense, mean_of, reported_law
from tests.solvers.toy import COV, KNOWN, Y, mode_weights, toy_g, toy_m

SEEN, Y_NP = np.array([1.0, 0.0]), np.array([1.0, 0.0])


def rule(known: np.ndarray, y: np.ndarray, sigma_n: float, zeta: float, lam: float = 1.0) -> Rule:
    """Mask: Dh = (m y + rho D) / (m + rho), rho = lam sigma_n^2 / s_t^2; eps from Dh; zeta of the variance new."""

    def step(level: Level) -> Affine:
        rho = lam * sigma_n**2 * level.a_t / (1 - level.a_t)
        mended = (rho / (known + rho))[:, None] * level.denoise
        told = known * y / (known + rho)
        kept = np.sqrt((1 - zeta) * (1 - level.a_s) / (1 - level.a_t))
        back = np.sqrt(level.a_s) - kept * np.sqrt(level.a_t)
        eye = np.eye(len(known))
        return back * mended + kept * eye, back * told, zeta * (1 - level.a_s) * eye

    return step


@pytest.mark.parametrize("rho", [1e-3, 0.5, 20.0])
def test_proximal_step_against_a_dense_solve(rho: float) -> None:
    operator, _, _ = dense()
    generator = torch.Generator().manual_seed(0)
    d = torch.randn(2, 1, 1, 4, dtype=torch.float64, generator=generator)
    y = torch.randn(2, 3, dtype=torch.float64, generator=generator)
    basis = torch.eye(4, dtype=torch.float64).reshape(4, 1, 1, 4)
    a = operator(basis).mT
    for row in range(2):
        want = torch.linalg.solve(
            a.mT @ a + rho * torch.eye(4, dtype=torch.float64), a.mT @ y[row] + rho * d[row].flatten()
        )
        torch.testing.assert_close(proximal(d, operator, y, rho)[row].flatten(), want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("zeta", "lam", "sigma_y"), [(1.0, 1.0, 0.0), (0.3, 2.0, 0.5), (0.0, 1.0, 0.1)])
def test_chain_exactly(monkeypatch: pytest.MonkeyPatch, zeta: float, lam: float, sigma_y: float) -> None:
    run = DiffPIR(steps=20, zeta=zeta, lam=lam, paste=False, spacing="respaced")
    mean, cov = affine.of_solver(monkeypatch, run, toy_g(), KNOWN, Y, 2 * 21, sigma_y)
    want_mean, want_cov = chain(COV, 20, rule(SEEN, Y_NP, max(sigma_y, 0.002), zeta, lam))
    # It starts from y pushed to the top, alpha_1 y = .006 in the known pixel, and the chain from 0.
    np.testing.assert_allclose(mean.numpy(), want_mean, atol=5e-3 if zeta == 0 else 1e-3)
    np.testing.assert_allclose(cov.numpy(), want_cov, atol=5e-5)


@pytest.mark.parametrize(("zeta", "mean", "var"), [(1.0, 0.835, 0.106), (0.5, 0.743, 0.233), (0.1, 0.571, 0.389)])
def test_reported_laws(monkeypatch: pytest.MonkeyPatch, zeta: float, mean: float, var: float) -> None:
    """sigma_n = .001; truth .900/.190. zeta = 1 forgets the trajectory; small zeta is close to replacement."""
    run = DiffPIR(zeta=zeta, sigma_floor=0.001, spacing="respaced")
    got_mean, got_cov = affine.of_solver(monkeypatch, run, toy_g(), KNOWN, Y, 202)
    reported_law(float(got_mean[1]), float(got_cov[1, 1]), mean, var)


def test_reported_law_with_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """sigma_y = .5: truth x_1 .80/.20, x_2 .72/.352."""
    mean, cov = affine.of_solver(monkeypatch, DiffPIR(spacing="respaced"), toy_g(), KNOWN, Y, 202, sigma_y=0.5)
    reported_law(float(mean[0]), float(cov[0, 0]), 0.791, 0.090)
    reported_law(float(mean[1]), float(cov[1, 1]), 0.669, 0.182)


def test_start_is_y_at_the_top_level() -> None:
    """VE at sigma = 2: the first x_t is A^+ y + 2 z, without the prior's width; given images are noised instead."""
    seen: list[Tensor] = []
    prior = toy_g(VE(0.01, 2.0))
    original = prior._denoise
    prior._denoise = lambda x, t: (seen.append(x), original(x, t))[1]  # type: ignore[method-assign, func-returns-value]
    DiffPIR(steps=1).sample(prior, KNOWN, Y, num_samples=4000)
    x_1 = seen[0].reshape(-1, 2).double()
    assert x_1.mean(0).tolist() == pytest.approx([1.0, 0.0], abs=4 * 2 / 4000**0.5)
    assert x_1.std(0).tolist() == pytest.approx([2.0, 2.0], abs=4 * 2 / 8000**0.5)
    seen.clear()
    initial = torch.full((1, 4000, 1, 1, 2), 7.0)
    DiffPIR(steps=1, t_init=0.5).sample(prior, KNOWN, Y, num_samples=4000, initial=initial)
    assert seen[0].mean().item() == pytest.approx(7.0, abs=0.05)


def test_last_step_returns_the_proximal_image() -> None:
    """The published code stops one level above clean and never uses its last estimate."""
    shown: list[Tensor] = []
    out = DiffPIR(steps=9, paste=False).sample(
        toy_g(), KNOWN, Y, num_samples=3, callback=lambda step, total, x_0: shown.append(x_0)
    )
    torch.testing.assert_close(out[0, ..., 1], shown[-1][..., 1], rtol=0, atol=1e-6)
    assert (out[..., 0] - 1).abs().max() < 0.1


def test_noise_is_in_units_of_the_image() -> None:
    """Without the published slip (noise of [0, 1] images in an image of [-1, 1]): one noisy known pixel, a prior of
    std 1e-3, so D is 0; rho = lam sigma_y^2 / r^2 exactly."""
    prior = Gaussian(torch.zeros(2), 1e-6 * torch.eye(2), schedule=VE(0.01, 10.0))
    guided = DiffPIR(lam=3.0).guide(prior, KNOWN, Y, 0.4)
    t = prior.schedule.time_at(torch.tensor(0.8, dtype=torch.float64))
    got = guided.denoise(torch.zeros(1, 1, 1, 2), t)[0, 0, 0]
    rho = 3.0 * 0.4**2 / 0.8**2
    assert got.tolist() == pytest.approx([1 / (1 + rho), 0.0], abs=1e-5)


@pytest.mark.parametrize("schedule", [VE, EDM])
def test_any_schedule_gives_the_same_chain(schedule: type[VE] | type[EDM]) -> None:
    """With equal levels; the starts differ by the width of the prior, which the chain forgets."""
    vp = VP("linear")
    low, high = vp.nsr_range
    a, b = (
        solver("diffpir", steps=30, spacing="logsnr", zeta=0.5).sample(toy_m(s), KNOWN, Y, sigma_y=0.2, num_samples=20)
        for s in (vp, schedule(low, high))
    )
    torch.testing.assert_close(a, b, rtol=0, atol=3e-3)


def test_quad_levels() -> None:
    """1 - t = sqrt(k / N): the published indices floor(sqrt(linspace(0, T^2, N + 1))) from the noisy end."""
    times = VP().grid(20, "quad")
    index = np.floor(np.sqrt(np.linspace(0, 1000**2, 21)))
    assert np.abs((1 - times.numpy()) * 1000 - index).max() < 1 + 1e-9
    assert Flow().grid(7, "quad", start=0.4)[0] == 0.4
    out = DiffPIR(steps=8, spacing="quad").sample(toy_g(), KNOWN, Y, num_samples=2)
    assert out.isfinite().all()


def test_correlated_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """64-pixel AR(1), middle 32 missing: reported rms error of the mean .19 for one y (5 to 95 % of y: .05 to .27)
    and variance ratio .52; too narrow, since zeta = 1 draws all noise afresh."""
    prior, operator, cov, known = ar1()
    y = operator(prior.sample(16, seed=11))
    means = mean_of(monkeypatch, DiffPIR(sigma_floor=0.001, spacing="respaced"), prior, operator, y).numpy()
    missing = known == 0
    errors = []
    for number, (row, given) in enumerate(zip(means, y.flatten(1).double().numpy(), strict=True)):
        if number < 2:
            want, var = chain(cov, 100, rule(known, given, 0.001, 1.0))
            np.testing.assert_allclose(row, want, atol=2e-3)
        truth = prior.posterior(operator, torch.from_numpy(given).reshape(1, 1, 1, 64))
        errors.append((row - truth.mean.flatten().numpy())[missing])
    assert 0.05 < np.sqrt(np.mean(np.square(errors))) < 0.27
    ratio = np.diag(var)[missing].sum() / np.diag(truth.cov.numpy())[missing].sum()
    assert ratio == pytest.approx(0.52, rel=0.06)


@pytest.mark.slow
def test_toy_m_mode_weights() -> None:
    """Reported .64/.36/.00 (truth .6/.4/0); 1500 samples, four standard errors and the rounding."""
    got = mode_weights(DiffPIR(spacing="respaced").sample(toy_m(), KNOWN, Y, num_samples=1500))
    for share, want in zip(got, (0.64, 0.36, 0.00), strict=True):
        assert share == pytest.approx(want, abs=0.006 + 4 * np.sqrt(want * (1 - want) / 1500))
