"""DDNM and DDNM+: both forms against their chains, exactly, time travel, and the laws that were reported."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from priorpaint import UsageError, solver
from priorpaint.diffusion.schedules import EDM, VE, VP
from priorpaint.priors.analytic import Gaussian
from priorpaint.solvers.ddnm import DDNM
from priorpaint.solvers.ddrm import DDRM
from tests.solvers import affine
from tests.solvers.linear_toy import Affine, Level, Rule, ar1, chain, dense, mean_of, reported_law
from tests.solvers.toy import COV, KNOWN, Y, jump_path, levels, mode_weights, toy_g, toy_m

SEEN, Y_NP = np.array([1.0, 0.0]), np.array([1.0, 0.0])


def ddim_form(known: np.ndarray, y: np.ndarray, eta: float) -> Rule:
    """x_s = alpha_s (m y + (1 - m) D) + sigma_s (eta z + sqrt(1 - eta^2) ehat), ehat from D."""

    def step(level: Level) -> Affine:
        alpha, sigma = np.sqrt(level.a_s), np.sqrt(1 - level.a_s)
        move = alpha * (1 - known)[:, None] * level.denoise + sigma * np.sqrt(1 - eta**2) * level.eps
        return move, alpha * known * y, (eta * sigma) ** 2 * np.eye(len(known))

    return step


def plus_form(known: np.ndarray, y: np.ndarray, sigma_y: float, eta: float) -> Rule:
    """DDNM+ of the sheet for a mask (S = m), with its threshold alpha_s sigma_y."""

    def step(level: Level) -> Affine:
        alpha, sigma = np.sqrt(level.a_s), np.sqrt(1 - level.a_s)
        dim = len(known)
        move, shift, noise = np.zeros((dim, dim)), np.zeros(dim), np.zeros((dim, dim))
        for i in range(dim):
            factor, kept, fresh = 0.0, np.sqrt(1 - eta**2) * sigma, eta * sigma
            if known[i] and sigma >= alpha * sigma_y:
                factor, kept, fresh = 1.0, 0.0, np.sqrt(sigma**2 - alpha**2 * sigma_y**2)
            elif known[i]:
                factor, kept = sigma * np.sqrt(1 - eta**2) / (alpha * sigma_y), 0.0
            move[i] = alpha * (1 - factor) * level.denoise[i] + kept * level.eps[i]
            shift[i], noise[i, i] = alpha * factor * y[i], fresh**2
        return move, shift, noise

    return step


def ddpm_form(known: np.ndarray, y: np.ndarray, sigma_y: float) -> Rule:
    """x_s = a Dh + b x_t + sqrt(g) z with lam and g of the sheet, for each pixel (unknown ones: g = v)."""

    def step(level: Level) -> Affine:
        a_t, a_s, dim = level.a_t, level.a_s, len(known)
        f = 1 - a_t / a_s
        v = (1 - a_s) * f / (1 - a_t)
        a, b = np.sqrt(a_s) * f / (1 - a_t), np.sqrt(a_t / a_s) * (1 - a_s) / (1 - a_t)
        lam, g = (1.0, v - (a * sigma_y) ** 2) if np.sqrt(v) >= a * sigma_y else (np.sqrt(v) / (a * sigma_y), 0.0)
        move = a * (1 - lam * known)[:, None] * level.denoise + b * np.eye(dim)
        return move, a * lam * known * y, np.diag(np.where(known, g, v))

    return step


@pytest.mark.parametrize("eta", [0.85, 0.0, 1.0])
def test_ddim_form_exactly(monkeypatch: pytest.MonkeyPatch, eta: float) -> None:
    run = DDNM(steps=20, eta=eta, paste=False, spacing="respaced")
    mean, cov = affine.of_solver(monkeypatch, run, toy_g(), KNOWN, Y, 2 * 21)
    want_mean, want_cov = chain(COV, 20, ddim_form(SEEN, Y_NP, eta))
    np.testing.assert_allclose(mean.numpy(), want_mean, atol=1e-5)
    np.testing.assert_allclose(cov.numpy(), want_cov, atol=1e-5)


@pytest.mark.parametrize("sigma_y", [0.05, 0.5])
@pytest.mark.parametrize("eta", [0.85, 0.3])
def test_plus_form_exactly(monkeypatch: pytest.MonkeyPatch, eta: float, sigma_y: float) -> None:
    run = DDNM(steps=20, eta=eta, spacing="respaced")
    mean, cov = affine.of_solver(monkeypatch, run, toy_g(), KNOWN, Y, 2 * 21, sigma_y)
    want_mean, want_cov = chain(COV, 20, plus_form(SEEN, Y_NP, sigma_y, eta))
    np.testing.assert_allclose(mean.numpy(), want_mean, atol=1e-5)
    np.testing.assert_allclose(cov.numpy(), want_cov, atol=1e-5)


@pytest.mark.parametrize("sigma_y", [0.0, 0.05, 0.5])
def test_ddpm_form_exactly(monkeypatch: pytest.MonkeyPatch, sigma_y: float) -> None:
    run = DDNM(steps=20, form="ddpm", paste=False, spacing="respaced")
    mean, cov = affine.of_solver(monkeypatch, run, toy_g(), KNOWN, Y, 2 * 21, sigma_y)
    want_mean, want_cov = chain(COV, 20, ddpm_form(SEEN, Y_NP, sigma_y))
    np.testing.assert_allclose(mean.numpy(), want_mean, atol=1e-5)
    np.testing.assert_allclose(cov.numpy(), want_cov, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "mean", "var"),
    [
        ({"eta": 0.85}, 0.851, 0.154),
        ({"eta": 0.0}, 0.869, 0.193),
        ({"eta": 1.0}, 0.835, 0.106),
        ({"form": "ddpm"}, 0.611, 0.330),
        pytest.param({"form": "ddpm", "steps": 1000}, 0.632, 0.353, marks=pytest.mark.slow),
    ],
)
def test_reported_laws(monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], mean: float, var: float) -> None:
    """Truth .900/.190. eta = 0 is not DDIM replacement (.447): the raw eps pulls. The simplified code that was
    published has .845/.009, and must not come back."""
    run = DDNM(**{"steps": 100, "spacing": "respaced", **settings})  # type: ignore[arg-type]
    got_mean, got_cov = affine.of_solver(monkeypatch, run, toy_g(), KNOWN, Y, 2 * (run.steps + 1))
    reported_law(float(got_mean[1]), float(got_cov[1, 1]), mean, var)


def test_reported_law_with_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """sigma_y = .5: truth x_1 .80/.20, x_2 .72/.352."""
    mean, cov = affine.of_solver(monkeypatch, DDNM(spacing="respaced"), toy_g(), KNOWN, Y, 202, sigma_y=0.5)
    reported_law(float(mean[0]), float(cov[0, 0]), 0.820, 0.064)
    reported_law(float(mean[1]), float(cov[1, 1]), 0.661, 0.251)


def test_ddpm_form_takes_the_noise_of_y_for_new_at_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """So x_1 ends at y rather than at its posterior N(.80, .20): .955 and .008 after 100 steps."""
    run = DDNM(form="ddpm", spacing="respaced")
    mean, cov = affine.of_solver(monkeypatch, run, toy_g(), KNOWN, Y, 202, sigma_y=0.5)
    assert float(mean[0]) > 0.93 and float(cov[0, 0]) < 0.02


# -- what holds for every operator -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["ddim", "ddpm"])
def test_result_explains_y_without_pasting(form: str) -> None:
    """A x = y when sigma_y = 0: the last step returns D + A^+ (y - A D)."""
    operator, _, _ = dense()
    prior = Gaussian(torch.zeros(4), torch.eye(4) + 0.5)
    y = operator(prior.sample(3, seed=3))
    out = solver("ddnm", steps=7, form=form, paste=False).sample(prior, operator, y, num_samples=4)
    torch.testing.assert_close(operator(out.flatten(0, 1)), y.repeat_interleave(4, 0), rtol=0, atol=2e-6)


def test_plus_is_ddrm_after_the_start() -> None:
    """With noise and eta_b = 1 the rules coincide; the starts differ by alpha_1 y, which the chain forgets."""
    y = Y.expand(3, 1, 1, 2)
    for sigma_y in (0.1, 1.0):
        outs = []
        for run in (DDNM(steps=40, eta=0.85), DDRM(steps=40, eta=0.85)):
            out = run.sample(toy_g(), KNOWN, y, sigma_y=sigma_y, num_samples=300, seed=1).double()
            outs.append(out.reshape(-1, 2))
        for a, b in ((outs[0].mean(0), outs[1].mean(0)), (outs[0].var(0), outs[1].var(0))):
            torch.testing.assert_close(a, b, rtol=0, atol=5 * 0.6 / 900**0.5)


def test_ddpm_form_is_the_estimate_in_an_ancestral_sampler() -> None:
    """Noise-free: STEP(1) with D', which is the sampler 'ddim' with eta = 1."""
    paper = DDNM(steps=15, form="ddpm").sample(toy_m(), KNOWN, Y, num_samples=10)
    wrapped = DDNM(steps=15, sampler="ddim", eta=1.0).sample(toy_m(), KNOWN, Y, num_samples=10)
    torch.testing.assert_close(paper, wrapped, rtol=0, atol=1e-5)


@pytest.mark.parametrize("schedule", [VE, EDM])
@pytest.mark.parametrize("form", ["ddim", "ddpm"])
def test_any_schedule_gives_the_same_chain(schedule: type[VE] | type[EDM], form: str) -> None:
    vp = VP("linear")
    low, high = vp.nsr_range
    for sigma_y in (0.0, 0.4):
        a, b = (
            solver("ddnm", steps=16, spacing="logsnr", form=form, travel_length=4, travel_repeat=2).sample(
                toy_m(s), KNOWN, Y, sigma_y=sigma_y, num_samples=10
            )
            for s in (vp, schedule(low, high))
        )
        torch.testing.assert_close(a, b, rtol=0, atol=3e-3)


# -- time travel -------------------------------------------------------------------------------------------------------


def test_time_travel_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up by one level at a time: x = alpha D + sigma z, from the last estimate that y has not touched."""
    count, length, repeat, eta = 12, 3, 3, 0.85
    abar, path = levels(count), jump_path(count, length, repeat)
    rule = ddim_form(SEEN, Y_NP, eta)
    # The state is (x, D): going up reads D.
    mean, var = np.zeros(4), np.diag([1.0, 1.0, 0.0, 0.0])
    for before, after in zip(path[:-1], path[1:], strict=True):
        move, shift, noise = np.zeros((4, 4)), np.zeros(4), np.zeros((4, 4))
        if after > before:
            move[:2, 2:], move[2:, 2:] = np.sqrt(abar[after]) * np.eye(2), np.eye(2)
            noise[:2, :2] = (1 - abar[after]) * np.eye(2)
        else:
            level = Level(abar[before], abar[after], COV)
            move[:2, :2], shift[:2], noise[:2, :2] = rule(level)
            move[2:, :2] = level.denoise
        mean, var = move @ mean + shift, move @ var @ move.T + noise
    run = DDNM(steps=count, travel_length=length, travel_repeat=repeat, paste=False, spacing="respaced")
    got_mean, got_cov = affine.of_solver(monkeypatch, run, toy_g(), KNOWN, Y, 2 * len(path))
    np.testing.assert_allclose(got_mean.numpy(), mean[:2], atol=1e-5)
    np.testing.assert_allclose(got_cov.numpy(), var[:2, :2], atol=1e-5)
    assert run.cost().forward == sum(after < before for before, after in zip(path[:-1], path[1:], strict=True))


def test_no_travel_by_default() -> None:
    assert DDNM(steps=9).levels() == list(range(9, -1, -1))
    assert DDNM(steps=9, travel_length=4).cost(2).forward == 18
    assert DDNM(steps=250, travel_length=10, travel_repeat=3).cost().forward == 730


# -- larger problems ---------------------------------------------------------------------------------------------------


def test_correlated_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """64-pixel AR(1), middle 32 missing: reported rms error of the mean .19 for one y (5 to 95 % of y: .05 to .26)
    and variance ratio .74; exactly .770."""
    prior, operator, cov, known = ar1()
    y = operator(prior.sample(16, seed=11))
    means = mean_of(monkeypatch, DDNM(spacing="respaced"), prior, operator, y).numpy()
    missing = known == 0
    errors = []
    for number, (row, given) in enumerate(zip(means, y.flatten(1).double().numpy(), strict=True)):
        if number < 2:
            want, var = chain(cov, 100, ddim_form(known, given, 0.85))
            np.testing.assert_allclose(row, want, atol=1e-3)
        truth = prior.posterior(operator, torch.from_numpy(given).reshape(1, 1, 1, 64))
        errors.append((row - truth.mean.flatten().numpy())[missing])
    assert 0.05 < np.sqrt(np.mean(np.square(errors))) < 0.26
    ratio = np.diag(var)[missing].sum() / np.diag(truth.cov.numpy())[missing].sum()
    assert ratio == pytest.approx(0.74, rel=0.06) and ratio == pytest.approx(0.770, abs=1e-3)


@pytest.mark.slow
def test_toy_m_mode_weights() -> None:
    """Reported .61/.39/.00 (truth .6/.4/0); 1500 samples, four standard errors and the rounding."""
    got = mode_weights(DDNM(spacing="respaced").sample(toy_m(), KNOWN, Y, num_samples=1500))
    for share, want in zip(got, (0.61, 0.39, 0.00), strict=True):
        assert share == pytest.approx(want, abs=0.006 + 4 * np.sqrt(want * (1 - want) / 1500))


def test_needs_a_linear_operator() -> None:
    with pytest.raises(UsageError, match="linear"):
        DDNM().guide(toy_g(), object(), Y)  # type: ignore[arg-type]


def test_the_second_order_correction_is_exact_where_x_0_is_linear_in_the_log_level() -> None:
    schedule = EDM(sigma_min=0.01, sigma_max=8)
    times = schedule.grid(6, "karras")[:3]
    log_nsr = [float(schedule.level(t).log_nsr) for t in times]
    slope, constant = torch.tensor([[[[2.0, -1.0]]]]), torch.tensor([[[[0.3, 0.4]]]])
    x_0 = [constant + slope * level for level in log_nsr]
    ahead = solver("ddnm", extrapolation=1.0)._ahead(schedule, x_0[1], times[1], times[2], (x_0[0], times[0]))
    # DPM-Solver++ 2M takes the value in the middle of the step for all of it.
    torch.testing.assert_close(ahead, constant + slope * (log_nsr[1] + log_nsr[2]) / 2)


def test_the_last_noisy_level_is_a_setting() -> None:
    schedule = EDM(sigma_min=0.01, sigma_max=8)
    times = solver("ddnm", steps=5, bottom=0.25)._times(schedule)
    assert len(times) == 6
    assert float(schedule.level(times[-2]).log_nsr.exp()) == pytest.approx(0.25)
    with pytest.raises(UsageError, match="spacing 'uniform' has a last level of its own"):
        solver("ddnm", steps=5, bottom=0.25, spacing="uniform")._times(schedule)


def test_above_a_level_all_noise_is_drawn_afresh() -> None:
    """The same as eta = 1 where the whole grid lies above that level, and as eta itself where none of it does."""
    settings = {"steps": 6, "spacing": "karras"}

    def samples(**more: float) -> torch.Tensor:
        return solver("ddnm", **settings, **more).sample(toy_g(EDM(0.01, 8)), KNOWN, Y, num_samples=5, seed=1)

    assert torch.equal(samples(eta=0.3, redraw_above=1e-3), samples(eta=1.0))
    assert torch.equal(samples(eta=0.3, redraw_above=8.0), samples(eta=0.3))
    assert not torch.equal(samples(eta=0.3, redraw_above=1.0), samples(eta=0.3))
