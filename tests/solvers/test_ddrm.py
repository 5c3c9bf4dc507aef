"""DDRM: its chains on masks and on a matrix, exactly, and the laws that were reported for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from priorpaint import Inpainting, solver
from priorpaint.diffusion.schedules import EDM, VE, VP
from priorpaint.priors.analytic import Gaussian
from priorpaint.solvers.ddrm import DDRM
from tests.solvers import affine
from tests.solvers.linear_toy import Affine, Level, Rule, ar1, chain, dense, mean_of, reported_law
from tests.solvers.toy import COV, KNOWN, Y, mode_weights, toy_g, toy_m


def rule(known: np.ndarray, y: np.ndarray, sigma_y: float, eta: float, eta_b: float = 1.0) -> Rule:
    """The sheet's three rules for a mask (S = m, n = sigma_y), in VE variables, pixel by pixel."""

    def step(level: Level) -> Affine:
        dim = len(known)
        move, shift, noise = np.zeros((dim, dim)), np.zeros(dim), np.zeros((dim, dim))
        for i in range(dim):
            if known[i] == 0:
                move[i] = level.denoise[i] + np.sqrt(1 - eta**2) * level.ratio * level.eps[i]
                noise[i, i] = (eta * level.ratio) ** 2
            elif level.ratio < sigma_y:
                part = np.sqrt(1 - eta**2) * level.ratio / sigma_y
                move[i], shift[i], noise[i, i] = (1 - part) * level.denoise[i], part * y[i], (eta * level.ratio) ** 2
            else:
                move[i], shift[i] = (1 - eta_b) * level.denoise[i], eta_b * y[i]
                noise[i, i] = level.ratio**2 - (eta_b * sigma_y) ** 2
        scale = np.sqrt(level.a_s)
        return scale * move, scale * shift, scale**2 * noise

    return step


SEEN, Y_NP = np.array([1.0, 0.0]), np.array([1.0, 0.0])


@pytest.mark.parametrize(
    ("eta", "eta_b", "sigma_y"), [(0.85, 1.0, 0.0), (0.0, 1.0, 0.0), (0.85, 1.0, 0.5), (0.4, 0.7, 0.5), (1.0, 1.0, 0.1)]
)
def test_chain_exactly(monkeypatch: pytest.MonkeyPatch, eta: float, eta_b: float, sigma_y: float) -> None:
    run = DDRM(steps=20, eta=eta, eta_b=eta_b, paste=False, spacing="respaced")
    mean, cov = affine.of_solver(monkeypatch, run, toy_g(), KNOWN, Y, 2 * 22, sigma_y)
    want_mean, want_cov = chain(COV, 20, rule(SEEN, Y_NP, sigma_y, eta, eta_b))
    np.testing.assert_allclose(mean.numpy(), want_mean, atol=2e-4)  # the start differs by alpha_1 = .006 a little
    np.testing.assert_allclose(cov.numpy(), want_cov, atol=2e-4)


@pytest.mark.parametrize(
    ("steps", "eta", "mean", "var"),
    [(20, 0.85, 0.593, 0.222), (100, 0.85, 0.792, 0.181), (100, 0.0, 0.447, 0.420), (100, 1.0, 0.826, 0.108)],
)
def test_reported_laws(monkeypatch: pytest.MonkeyPatch, steps: int, eta: float, mean: float, var: float) -> None:
    """Truth .900/.190; reported from 4000 to 8000 samples. With eta 0 this is DDIM replacement's .447."""
    run = DDRM(steps=steps, eta=eta, spacing="respaced")
    got_mean, got_cov = affine.of_solver(monkeypatch, run, toy_g(), KNOWN, Y, 2 * (steps + 2))
    reported_law(float(got_mean[1]), float(got_cov[1, 1]), mean, var)


def test_reported_law_with_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """sigma_y = .5: truth x_1 .80/.20, x_2 .72/.352; too narrow in both."""
    mean, cov = affine.of_solver(monkeypatch, DDRM(spacing="respaced"), toy_g(), KNOWN, Y, 204, sigma_y=0.5)
    reported_law(float(mean[0]), float(cov[0, 0]), 0.826, 0.064)
    reported_law(float(mean[1]), float(cov[1, 1]), 0.677, 0.249)


def test_known_pixels_are_y_without_pasting() -> None:
    """The published comparison is strict (0 > 0) and leaves them to the network."""
    out = DDRM(steps=7, paste=False).sample(toy_g(), KNOWN, Y, num_samples=5)
    torch.testing.assert_close(out[..., 0], torch.ones(1, 5, 1, 1), rtol=0, atol=1e-6)
    half = DDRM(steps=7, eta_b=0.5, paste=False).sample(toy_g(), KNOWN, Y, num_samples=5)
    assert (half[..., 0] - 1).abs().min() > 1e-3


def test_start_adds_the_noise_that_y_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """One step from the top with eta_b = 0 and eta = 0 shows x_1 through D; here x_1 itself is read off."""
    prior = toy_g(VE(0.01, 2.0))
    out = []
    monkeypatch.setattr(
        DDRM,
        "_update",
        lambda self, task, x_t, x_0, t, s, last=None: out.append(x_t) or x_t,  # type: ignore[func-returns-value]
    )
    mean, cov = affine.of_solver(monkeypatch, DDRM(steps=1, paste=False), prior, KNOWN, Y, 4, sigma_y=0.5)
    np.testing.assert_allclose(mean.numpy(), [5**-0.5, 0.0], atol=1e-6)
    # x_1 = y + sqrt(4 - .25) z, whose noise is with that of y sigma_1^2; x_2 = sqrt(1 + 4) z; all over sqrt(5).
    np.testing.assert_allclose(cov.numpy(), np.diag([3.75 / 5, 1.0]), atol=1e-5)
    mean, cov = affine.of_solver(monkeypatch, DDRM(steps=1, paste=False), prior, KNOWN, Y, 4, sigma_y=2.5)
    np.testing.assert_allclose(mean.numpy(), [0.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(cov.numpy(), np.diag([1.0, 1.0]), atol=1e-5)


def test_the_same_in_any_basis() -> None:
    """A = U diag(2, .5, 0) V^T is A' = diag(2, .5) in coordinates turned by V, if prior and noise turn along."""
    operator, singular, v = dense()
    turned = Inpainting(torch.tensor([[1.0, 1.0, 0.0, 0.0]]))
    base = np.diag([1.0, 0.5, 2.0, 0.3]) + 0.2
    straight = Gaussian(torch.zeros(4), torch.from_numpy(base))
    rotated = Gaussian(torch.zeros(4), torch.from_numpy(v @ base @ v.T))
    y = torch.tensor([[0.7, -0.4, 0.0, 0.0]]).reshape(1, 1, 1, 4)
    image = (torch.from_numpy(v).float() @ y.flatten()).reshape(1, 1, 1, 4)
    one = DDRM(steps=10, eta=0.0)
    # Without fresh noise but in the seen directions, whose noise D of the others must forget: compare the means.
    patch = pytest.MonkeyPatch()
    try:
        a = mean_of(patch, one, straight, turned, y)
        b = mean_of(patch, one, rotated, operator, operator(image))
    finally:
        patch.undo()
    np.testing.assert_allclose(b.numpy() @ v, a.numpy(), atol=2e-5)


@pytest.mark.parametrize("schedule", [VE, EDM])
def test_any_schedule_gives_the_same_chain(schedule: type[VE] | type[EDM]) -> None:
    """The rules are written in x / alpha: with equal levels a VP and a VE prior give the same samples."""
    vp = VP("linear")
    low, high = vp.nsr_range
    settings = {"steps": 30, "spacing": "logsnr"}
    for sigma_y in (0.0, 0.4):
        a, b = (
            solver("ddrm", **settings).sample(toy_m(s), KNOWN, Y, sigma_y=sigma_y, num_samples=20)
            for s in (vp, schedule(low, high))
        )
        torch.testing.assert_close(a, b, rtol=0, atol=2e-3)


def test_correlated_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """64-pixel AR(1), middle 32 missing, 20 steps. Means of the code against numpy, exactly; reported rms error of the
    mean .26 (one y; here 5 to 95 % of y give .07 to .46) and variance ratio .71 (here .737 of the traces)."""
    prior, operator, cov, known = ar1()
    y = operator(prior.sample(16, seed=11))
    means = mean_of(monkeypatch, DDRM(steps=20, spacing="respaced"), prior, operator, y).numpy()
    missing = known == 0
    errors = []
    for number, (row, given) in enumerate(zip(means, y.flatten(1).double().numpy(), strict=True)):
        if number < 2:
            want, var = chain(cov, 20, rule(known, given, 0.0, 0.85))
            np.testing.assert_allclose(row, want, atol=5e-3)
        truth = prior.posterior(operator, torch.from_numpy(given).reshape(1, 1, 1, 64))
        errors.append((row - truth.mean.flatten().numpy())[missing])
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(0.26, rel=0.3)
    ratio = np.diag(var)[missing].sum() / np.diag(truth.cov.numpy())[missing].sum()
    assert ratio == pytest.approx(0.71, rel=0.06)


def test_toy_m_mode_weights() -> None:
    """Reported .58/.40/.02 with 20 steps (truth .6/.4/0); 2000 samples, four standard errors and the rounding."""
    got = mode_weights(DDRM(steps=20, spacing="respaced").sample(toy_m(), KNOWN, Y, num_samples=2000))
    for share, want in zip(got, (0.58, 0.40, 0.02), strict=True):
        assert share == pytest.approx(want, abs=0.005 + 4 * np.sqrt(want * (1 - want) / 2000))
