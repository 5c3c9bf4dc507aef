"""VIPaint's bound: the numbers of the worked example, closed-form optima, unbiased estimates."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from numpy.polynomial import hermite_e
from torch import Tensor

from priorpaint.diffusion import transitions
from priorpaint.diffusion.rng import Streams
from priorpaint.diffusion.schedules import EDM, VE, VP, Flow, Schedule
from priorpaint.priors.analytic import Gaussian
from priorpaint.solvers.vipaint import bound
from priorpaint.solvers.vipaint.bound import gaussian_kl
from priorpaint.solvers.vipaint.official import OFFICIAL, OfficialBound, released_kl, released_pairs
from priorpaint.solvers.vipaint.printed import PRINTED, PrintedBound
from priorpaint.solvers.vipaint.solver import VIPaint
from priorpaint.solvers.vipaint.variables import Draws, Variational
from tests.solvers.vipaint_toy import (
    CIN,
    DIAGONAL,
    EXACT,
    FULL,
    at,
    chain,
    evidence,
    exact_diffusion,
    exact_parts,
    family,
    ladder,
    likelihood,
    optimum,
    points,
    spread_over,
    toy,
)

T_E = float(at(550))
STRIDE_10 = [*range(550, 991, 10), 999]
PARTS = ("reconstruction", "hierarchy", "diffusion", "prior")


def one_dimensional(cov: float) -> Gaussian:
    return Gaussian([0.0], [[cov]], schedule=CIN)


def randomly(levels: int, seed: int) -> Variational:
    noise = Streams([seed]).normal(3, levels, 1, 1, 2).double()
    return Variational(noise[:, 0], 0.7 * noise[:, 1] - 1, 2 * noise[:, 2])


@pytest.mark.parametrize(
    ("levels", "variance_scale", "minus_log_p", "at_optimum"),
    [
        ((550, 400), 1.0, 0.984601, 0.984620),
        ((550, 400), 0.2, 0.966372, 0.966391),
        ((550, 500, 450, 400), 1.0, 0.961814, 0.961833),
        ((550, 500, 450, 400), 0.2, 0.956282, 0.956300),
    ],
)
def test_bound_is_tight_at_the_closed_form_optimum(
    levels: tuple[int, ...], variance_scale: float, minus_log_p: float, at_optimum: float
) -> None:
    """A diagonal prior is inside the family; what is left is the 449 steps of the top grid: below 2e-5."""
    prior, steps, eta = toy(DIAGONAL), ladder(levels), variance_scale**0.5
    value, _, _ = evidence(prior, steps, eta)
    total = float(exact_parts(family(prior, steps, replace(EXACT, eta=eta)), optimum(prior, steps, eta)).total())
    assert value == pytest.approx(minus_log_p, abs=6e-7)
    assert total == pytest.approx(at_optimum, abs=6e-7)
    assert 0 <= total - value < 2e-5


def test_parts_and_parameters_of_the_worked_example() -> None:
    prior, steps = toy(DIAGONAL), ladder((550, 400))
    lam = optimum(prior, steps, 1.0)
    near = family(prior, steps)
    parts = exact_parts(near, lam)
    assert [float(getattr(parts, name)) for name in PARTS] == pytest.approx(
        [-0.86846, 1.52601, 0.32640, 0.00067], abs=6e-6
    )
    m, variance = near.top(lam)
    assert m.flatten().tolist() == pytest.approx([0.8404, -0.0548], abs=6e-5)
    assert variance.sqrt().flatten().tolist() == pytest.approx([0.8081, 0.9809], abs=6e-5)
    assert torch.sigmoid(lam.gate[0, 1, 0, 0, 0]).item() == pytest.approx(0.07053, abs=6e-6)
    assert (lam.log_var[0, 1] / 2).exp().flatten().tolist() == pytest.approx([0.1991, 0.7497], abs=6e-5)
    assert float(CIN.alpha(at(400))) * lam.mean[0, 1, 0, 0, 0].item() == pytest.approx(1.3844, abs=6e-5)


@pytest.mark.parametrize("cov", [DIAGONAL, FULL])
@pytest.mark.parametrize("levels", [(400,), (550, 400), (550, 500, 450, 400)])
def test_bound_holds_for_any_parameters(cov: list[list[float]], levels: tuple[int, ...]) -> None:
    prior, steps = toy(cov), ladder(levels, [*range(levels[0], 999, 30), 999])
    value, _, _ = evidence(prior, steps, 1.0)
    for seed in range(4):
        assert float(exact_parts(family(prior, steps), randomly(len(levels), seed)).total()) > value


def test_monte_carlo_estimate_is_unbiased() -> None:
    """Each part's mean over 20000 rows is within 4 standard errors of the closed form."""
    prior, steps, rows = toy(FULL), ladder((550, 450, 400), STRIDE_10), 20_000
    lam, near = randomly(3, 5), family(toy(FULL), steps)
    noise = Streams([3]).normal(rows, 4, 1, 1, 2)[0].double()
    pair = (torch.arange(rows) * len(steps.pairs)) // rows
    with torch.no_grad():
        draws = Draws(noise[:, :3], noise[:, 3], pair)
        parts, _, _ = near.parts(spread_over(lam, rows), likelihood(prior, rows, steps.levels[-1]), draws)
    expected = exact_parts(near, lam)
    for name in PARTS:
        value = getattr(parts, name)
        error = 4 * float(value.std()) / rows**0.5
        assert float(value.mean()) == pytest.approx(float(getattr(expected, name)), abs=error + 1e-9), name


def test_top_term_equals_the_weighted_denoising_loss_at_the_start() -> None:
    """m = alpha mu, tau = sigma: sum of (SNR_s - SNR_t) E (mu - D(z_t))^2 / 2 (Kingma et al. 2021); here S = 0.7."""
    prior, steps, mu = one_dimensional(0.7), ladder((550,)), 0.9
    near, t_end = family(prior, steps), at(550)[0]
    m = torch.full((1, 1, 1, 1), mu * float(CIN.alpha(t_end)), dtype=torch.float64)
    variance = torch.full_like(m, float(CIN.sigma(t_end)) ** 2)
    ours = float(exact_diffusion(near, m, variance))

    snr = (CIN.alpha(steps.pairs) / CIN.sigma(steps.pairs)) ** 2
    t = steps.pairs[:, 0]
    slope = CIN.alpha(t) * 0.7 / (CIN.alpha(t) ** 2 * 0.7 + CIN.sigma(t) ** 2)
    error = (mu - slope * CIN.alpha(t) * mu) ** 2 + slope**2 * CIN.sigma(t) ** 2
    theirs = float((0.5 * (snr[:, 1] - snr[:, 0]) * error).sum())
    assert (ours, theirs) == (pytest.approx(0.0318831, abs=6e-8), pytest.approx(0.0318831, abs=6e-8))


def test_marginal_form_equals_edge_form() -> None:
    """S = 0.7, m = 0.4, tau^2 = 0.5. The edge form conditions every pair on z_Te and adds the entropy of q(z_Te)."""
    prior, steps = one_dimensional(0.7), ladder((550,))
    near = family(prior, steps)
    m = torch.full((1, 1, 1, 1), 0.4, dtype=torch.float64)
    variance = torch.full_like(m, 0.5)
    marginal = float(exact_diffusion(near, m, variance)) + float(near.prior_part(m, variance))

    noise, t_end = points(2), at(550)[0]
    z_end = 0.4 + 0.5**0.5 * noise[:, :1]

    def model(z_t: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        x_0 = prior.denoise(z_t.reshape(-1, 1, 1, 1), t).reshape(-1, 1)
        return transitions.step_mean(CIN, z_t, x_0, t, s), transitions.backward_variance(CIN, t, s)

    edge = -0.5 * math.log(2 * math.pi * math.e * 0.5)
    for t, s in steps.pairs.tolist():
        t, s = torch.tensor(t, dtype=torch.float64), torch.tensor(s, dtype=torch.float64)
        rise, added = transitions.forward(CIN, t_end, t)
        z_t = rise * z_end + added.sqrt() * noise[:, 1:]
        mean, v = model(z_t, t, s)
        if float(s) == float(t_end):
            edge += float((0.5 * (2 * math.pi * v).log() + (z_end - mean) ** 2 / (2 * v)).mean())
            continue
        (rise_s, added_s), (ratio, step) = transitions.forward(CIN, t_end, s), transitions.forward(CIN, s, t)
        precision = 1 / added_s + ratio**2 / step
        q_mean = (rise_s * z_end / added_s + ratio * z_t / step) / precision
        edge += float(gaussian_kl(q_mean, 1 / precision, mean, v).mean())
    rise, added = transitions.forward(CIN, t_end, at(999)[0])
    edge += float(gaussian_kl(rise * z_end, added, torch.zeros(()), torch.ones(())).mean())
    assert marginal == pytest.approx(0.1727365, abs=6e-8)
    assert edge == pytest.approx(marginal, abs=1e-10)

    mean, cov = chain(prior, steps, 1.0)
    assert float(gaussian_kl(m, variance, mean, cov[0, 0])) == pytest.approx(0.1727325, abs=6e-8)


def test_estimate_of_the_top_level() -> None:
    """S = 1: E[z_Te | z_t] weights the noise by var_{t|e} / sigma_t; the released code by sqrt(var_{t|e})."""
    prior, steps = one_dimensional(1.0), ladder((550,))
    z_t, t = torch.full((1, 1, 1, 1), 1.3, dtype=torch.float64), at(700)[0]
    eps = transitions.epsilon(CIN, z_t, prior.denoise(z_t, t), t)
    rise, added = transitions.forward(CIN, at(550)[0], t)
    # With unit variance z_Te and z_t have unit variance and correlation alpha_{t|e}.
    assert float(rise) * 1.3 == pytest.approx(0.593231, abs=6e-7)
    assert float((z_t - added / CIN.sigma(t) * eps) / rise) == pytest.approx(0.593231, abs=6e-7)
    released = OfficialBound(prior, steps, OFFICIAL["official-imagenet"], prior.denoise)
    assert float(released.released_end(z_t, eps, t)) == pytest.approx(0.333851, abs=6e-7)


def test_pushed_forward_ends_agree_on_every_schedule() -> None:
    """At T_e nothing is added; at t = 1 the prior part of the prior's own first noise is 0."""
    schedules: list[Schedule] = [VP("cosine"), VE(), EDM(), Flow()]
    for schedule in schedules:
        prior = Gaussian([0.0], [[1.0]], schedule=schedule)
        steps = VIPaint(preset="exact", levels=3, top_steps=20).ladder(prior)
        assert bool((steps.levels.diff() < 0).all()) and bool((steps.pairs[:, 0] > steps.pairs[:, 1]).all())
        assert float(steps.pairs[0, 0]) == 1 and float(steps.pairs[-1, 1]) == float(steps.levels[0])
        near = family(prior, steps)
        m, variance = torch.full((1, 1, 1, 1), 0.3, dtype=torch.float64), torch.full((1, 1, 1, 1), 0.2).double()
        mean, marginal_variance = near.marginal(m, variance, steps.levels[0])
        torch.testing.assert_close((mean, marginal_variance), (m, variance), rtol=1e-12, atol=1e-12)
        # q(z_Te) = p(z_Te) makes every KL vanish, but for the steps of the grid and the prior's alpha_1 > 0.
        t_end = steps.levels[0]
        own = (schedule.alpha(t_end) ** 2 + schedule.sigma(t_end) ** 2).reshape(1, 1, 1, 1)
        assert 0 <= float(exact_diffusion(near, 0 * m, own)) < 0.05
        assert abs(float(near.prior_part(0 * m, own))) < 1e-3


def test_printed_diffusion_loss_is_eq_14() -> None:
    """(T - T_e) / 2 times the mean KL of the steps above T_e given z_Te; for N(0, S) it is quadratic in z_t."""
    cov, index = 0.7, 550.0
    prior = one_dimensional(cov)
    steps = VIPaint(preset="printed").ladder(prior)
    printed = PrintedBound(prior, steps, PRINTED, prior.denoise)
    n, nodes = len(steps.pairs), torch.as_tensor(hermite_e.hermegauss(12)[0])
    z_end = torch.full((n * 12, 1, 1, 1), 0.4, dtype=torch.float64)
    noise = nodes.repeat(n).reshape(-1, 1, 1, 1)
    draws = Draws(noise[:, None], noise, torch.arange(n).repeat_interleave(12))
    lam = Variational(z_end[:, None], z_end[:, None], z_end[:, None])
    value, nothing = printed.above(lam, z_end, draws)
    weights = torch.as_tensor(hermite_e.hermegauss(12)[1])
    mean = float((value.reshape(n, 12) * weights / weights.sum()).sum(1).mean())

    wanted = 0.0
    a_e, s_e = float(CIN.alpha(steps.levels[0])), float(CIN.sigma(steps.levels[0]))
    for t, s in steps.pairs:
        a_t, s_t, a_s, s_s = (float(f(x)) for x in (t, s) for f in (CIN.alpha, CIN.sigma))
        v_te, v_se, v_ts = (
            s_t**2 - (a_t / a_e * s_e) ** 2,
            s_s**2 - (a_s / a_e * s_e) ** 2,
            s_t**2 - (a_t / a_s * s_s) ** 2,
        )
        q_var = 1 / (1 / v_se + (a_t / a_s) ** 2 / v_ts)
        p_var = v_ts * s_s**2 / s_t**2
        # means c z_t + d z_Te of q and c z_t of p, with D(z_t) = a_t S / (a_t^2 S + s_t^2) z_t
        c_q, d_q = q_var * a_t / a_s / v_ts, q_var * a_s / a_e / v_se
        c_p = a_t / a_s * s_s**2 / s_t**2 + a_s * v_ts / s_t**2 * a_t * cov / (a_t**2 * cov + s_t**2)
        gap = ((c_q - c_p) * a_t / a_e + d_q) * 0.4
        wanted += 0.5 * ((gap**2 + (c_q - c_p) ** 2 * v_te) / p_var + q_var / p_var - 1 - math.log(q_var / p_var))
    assert mean == pytest.approx((1000 - index) / 2 * wanted / n, rel=1e-6)
    assert float(nothing.abs().max()) == 0


def test_released_grid() -> None:
    """137 pairs from 139 points 551 .. 998 of the ImageNet-256 table; the two points nearest T_e only end pairs."""
    pairs = released_pairs(550)
    assert len(pairs) == 137
    assert pairs[0, 0] == 998 and bool(((pairs[:, 0] - pairs[:, 1]) >= 2).all())
    assert bool(((pairs[:, 0] - pairs[:, 1]) <= 4).all()) and float(pairs[-1, 1]) > 551


def minimised(
    cov: list[list[float]], levels: tuple[int, ...], top: list[int] | None, eta: float = 1.0
) -> tuple[float, Variational]:
    prior, steps, rules = toy(cov), ladder(levels, top), replace(EXACT, eta=eta)
    lam = optimum(toy(DIAGONAL), steps, eta)
    lam = Variational(lam.mean, lam.log_var, lam.gate.clamp(max=3))
    leaves = [value.requires_grad_() for value in lam.tensors()]
    search = torch.optim.LBFGS(leaves, max_iter=60, max_eval=120, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        total = exact_parts(family(prior, steps, rules), lam).total().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    search.step(loss)
    return loss().item(), lam


@pytest.mark.slow
@pytest.mark.parametrize(("levels", "expected"), [((550, 400), 1.800248), ((550, 500, 450, 400), 1.811737)])
def test_correlated_prior_leaves_a_gap_but_right_means(levels: tuple[int, ...], expected: float) -> None:
    prior, steps = toy(FULL), ladder(levels, STRIDE_10)
    value, mean, cov = evidence(prior, steps, 1.0)
    total, lam = minimised(FULL, levels, STRIDE_10)
    assert total == pytest.approx(expected, abs=2e-6)
    assert total > value + 0.5
    noise = points(2 * len(levels)).reshape(-1, len(levels), 1, 1, 2)
    with torch.no_grad():
        z = family(prior, steps).path(spread_over(lam, len(noise)), noise).levels[-1].flatten(1)
    torch.testing.assert_close(z.mean(0), mean, rtol=0, atol=1e-3)
    assert bool((z.var(0, correction=0) < cov.diagonal()).all())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variance_scale", "minimum", "minus_log_p"), [(1.0, -0.0312, 0.984601), (0.2, -0.7217, 0.966372)]
)
def test_released_kl_is_not_a_bound(
    monkeypatch: pytest.MonkeyPatch, variance_scale: float, minimum: float, minus_log_p: float
) -> None:
    monkeypatch.setattr(bound, "gaussian_kl", released_kl)
    total, _ = minimised(DIAGONAL, (550, 400), None, variance_scale**0.5)
    assert total == pytest.approx(minimum, abs=6e-5)
    assert total < minus_log_p
