"""CoPaint: its loss and gradient, the line search of each row, its schedule, and the exact law of its linear chain."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from priorpaint import DenoiserPrior, Inpainting
from priorpaint.diffusion.rng import Streams
from priorpaint.diffusion.samplers import DDIM
from priorpaint.diffusion.schedules import EDM, VE, VP, Flow, Schedule
from priorpaint.operators.base import Operator
from priorpaint.priors.analytic import Gaussian
from priorpaint.priors.wrapped import normalised
from priorpaint.solvers.base import Cost, Task
from priorpaint.solvers.copaint import CoPaint, CoPaintTT, _Loss
from tests.solvers import affine
from tests.solvers.toy import COV, KNOWN, Y, jump_path, levels, mode_weights, toy_g, toy_m

EYE = np.eye(2)
SEEN = np.diag([1.0, 0.0])
CELEBA = {"c": 1e-4, "c_growth": 1.01}


def at(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


# -- the chain again, in numpy: with a Gaussian prior and no rejected step it is affine in the noise -------------------


def chain(path: list[int], abar: np.ndarray, c: float = 0.01, c_growth: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance after CoPaint with G = 2 along ``path`` on Toy G."""
    count, y = len(abar) - 1, np.array([1.0, 0.0])
    mean, spread, climbing = np.zeros(2), EYE, False

    def search(level: int) -> tuple[np.ndarray, np.ndarray]:
        a, k = abar[level], (count - level) * 250 / count
        lr, weight = 0.02 * 1.012**k * np.sqrt(a / abar[1]), c * c_growth**k
        j = np.sqrt(a) * COV @ np.linalg.inv(a * COV + (1 - a) * EYE)
        move, shift = EYE, np.zeros(2)
        for _ in range(2):  # x <- x - lr (2 J^T m (J x - y) + 2 c (x - x^0))
            shift = shift - lr * (2 * j.T @ (SEEN @ j @ shift - y) + 2 * weight * shift)
            move = move - lr * (2 * j.T @ SEEN @ j @ move + 2 * weight * (move - EYE))
        return move, shift

    for before, after in pairwise(path):
        a_t, a_s = abar[before], abar[after]
        if after < before or not climbing:
            move, shift = search(before)
            mean, spread = move @ mean + shift, move @ spread @ move.T
        climbing = after > before
        if climbing:
            mean, spread = np.sqrt(a_s / a_t) * mean, a_s / a_t * spread + (1 - a_s / a_t) * EYE
            continue
        j = np.sqrt(a_t) * COV @ np.linalg.inv(a_t * COV + (1 - a_t) * EYE)
        down = np.sqrt(a_s) * j + np.sqrt(1 - a_s) * (EYE - np.sqrt(a_t) * j) / np.sqrt(1 - a_t)
        mean, spread = down @ mean, down @ spread @ down.T
    return mean, spread


def descent(count: int) -> list[int]:
    return list(range(count, -1, -1))


@pytest.mark.parametrize(
    ("path", "settings", "mean", "var"),
    [
        (descent(250), {}, 1.037, 0.137),
        (descent(250), CELEBA, 1.042, 0.136),
        (jump_path(250, 10, 2), {}, 1.002, 0.146),
    ],
    ids=["imagenet", "celeba", "time travel"],
)
def test_reported_laws_on_toy_g(path: list[int], settings: dict[str, float], mean: float, var: float) -> None:
    """Reported from 8000 samples (truth .900/.190): three standard errors, and the known coordinate at 1.000."""
    got_mean, got_cov = chain(path, levels(250), **settings)
    assert got_mean[1] == pytest.approx(mean, abs=3 * math.sqrt(var / 8000) + 5e-4)
    assert got_cov[1, 1] == pytest.approx(var, abs=3 * var * math.sqrt(2 / 8000) + 5e-4)
    assert got_mean[0] == pytest.approx(1, abs=5e-4) and got_cov[0, 0] < 1e-4


def exact_check(monkeypatch: pytest.MonkeyPatch, run: CoPaint, path: list[int], **weights: float) -> None:
    up = sum(after > before for before, after in pairwise(path))
    mean, cov = affine.of_solver(monkeypatch, run, toy_g(), KNOWN, Y, 2 + 2 * up)
    exact_mean, exact_cov = chain(path, levels(run.steps), **weights)
    np.testing.assert_allclose(mean.numpy(), exact_mean, atol=2e-5)  # float32 rounding
    np.testing.assert_allclose(cov.numpy(), exact_cov, atol=5e-5)


GRID: dict[str, Any] = {"spacing": "respaced", "paste": False}


@pytest.mark.parametrize("weights", [{}, CELEBA], ids=["imagenet", "celeba"])
@pytest.mark.parametrize("steps", [30, pytest.param(250, marks=pytest.mark.slow)])
def test_the_solver_is_that_chain(monkeypatch: pytest.MonkeyPatch, steps: int, weights: dict[str, Any]) -> None:
    exact_check(monkeypatch, CoPaint(steps=steps, **GRID, **weights), descent(steps), **weights)


@pytest.mark.parametrize(("steps", "length"), [(12, 3), pytest.param(250, 10, marks=pytest.mark.slow)])
def test_time_travel_is_that_chain(monkeypatch: pytest.MonkeyPatch, steps: int, length: int) -> None:
    run = CoPaintTT(steps=steps, jump_length=length, **GRID)
    exact_check(monkeypatch, run, jump_path(steps, length, 2))


# -- loss and search of one level --------------------------------------------------------------------------------------


X_T = torch.tensor([[0.7, -0.4], [2.0, 0.3], [-1.0, -1.0]]).reshape(3, 1, 1, 2)


def task(prior: DenoiserPrior | Gaussian, sigma_y: float = 0.0, rows: int = 3, known: Inpainting = KNOWN) -> Task:
    y = Y.expand(rows, 1, 1, 2)
    return Task(prior, known, y, sigma_y, Streams(range(rows)), (1, 1, 2), lambda step, x_0: None)


@pytest.mark.parametrize("schedule", [VP(), VE(), EDM(), Flow()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("t", [0.05, 0.5, 0.9])
def test_gradient(schedule: Schedule, t: float) -> None:
    """grad L = 2 J^T m (D - y) + 2 c (u - u^0) for u = x_t / sqrt(alpha^2 + sigma^2), with the closed-form J."""
    alpha, sigma = schedule.alpha(at(t)).item(), schedule.sigma(at(t)).item()
    length = math.hypot(alpha, sigma)
    j = length * alpha * COV @ np.linalg.inv(alpha**2 * COV + sigma**2 * EYE)  # dD/du
    move = torch.tensor([[0.3, -0.2], [0.1, 0.5], [0.0, 0.0]]).reshape(3, 1, 1, 2)
    loss = _Loss(task(normalised(toy_g(schedule))), X_T, at(t), 0.7, clip=False)
    point = loss(move, gradient=True)
    for row in range(3):
        u0, step = X_T[row].flatten().double().numpy(), move[row].flatten().double().numpy()
        residual = SEEN @ (j @ (u0 + step) - [1.0, 0.0])
        expected = 2 * j.T @ residual + 1.4 * step
        np.testing.assert_allclose(point.gradient[row].flatten().numpy(), expected, rtol=2e-4, atol=2e-5)
        assert point.loss[row].item() == pytest.approx(residual @ residual + 0.7 * step @ step, rel=1e-4, abs=1e-6)


def test_gradient_against_finite_differences_of_a_network() -> None:
    """Central differences of a smooth nonlinear denoiser, measured through a nonlinear operator, in float64."""
    prior = DenoiserPrior(lambda x, t: torch.sin(x) + 0.1 * x.flip(-1) ** 2, VP(), (1, 1, 2))
    here = task(prior)
    here.operator, here.y = Squares(), Y.expand(3, 1, 1, 2).double()
    loss = _Loss(here, X_T.double(), at(0.4), 0.3, clip=False)
    gradient = loss(torch.zeros_like(X_T).double(), gradient=True).gradient
    for column in (0, 1):
        step = torch.zeros(3, 1, 1, 2, dtype=torch.float64)
        step[..., column] = 1e-5
        slope = (loss(step, gradient=False).loss - loss(-step, gradient=False).loss) / 2e-5
        torch.testing.assert_close(gradient[..., column].flatten(), slope, rtol=1e-6, atol=1e-8)


class Squares(Operator):
    """y = x^2, elementwise."""

    def __call__(self, x: Tensor) -> Tensor:
        return x.square()

    def image_shape(self, y: Tensor) -> tuple[int, int, int]:
        return int(y.shape[1]), int(y.shape[2]), int(y.shape[3])

    def guess(self, y: Tensor) -> Tensor:
        return y.clamp(min=0).sqrt()


@pytest.mark.parametrize(("lr", "retries"), [(0.02, 0), (0.1, 2), (30.0, 35)])
def test_the_loss_of_a_row_never_rises(lr: float, retries: int) -> None:
    run = CoPaint(lr=lr, retries=retries, inner_steps=4)
    here = task(toy_g())
    loss = _Loss(here, X_T, at(0.2), run.c, clip=False)
    before = loss(torch.zeros_like(X_T), gradient=False).loss
    x_t, x_0 = run._search(here, X_T, at(0.2), level=50, first=at(0.001))
    after = loss(x_t - X_T, gradient=False)
    assert bool((after.loss <= before + 1e-6).all())
    assert bool((after.loss < 0.9 * before).any()), "nothing was gained"
    torch.testing.assert_close(x_0, after.x_0, rtol=0, atol=1e-5)  # D belongs to the point that was accepted


def test_a_row_that_finds_no_step_stays_and_stops_no_other() -> None:
    """Rate 100 times too large for every row; only rows with retries left get anywhere, and each for itself."""
    here = task(toy_g())
    stuck, x_0 = CoPaint(lr=1e4)._search(here, X_T, at(0.2), level=50, first=at(0.001))
    assert torch.equal(stuck, X_T) and torch.equal(x_0, toy_g().denoise(X_T, at(0.2)))
    free, _ = CoPaint(lr=1e4, retries=60)._search(here, X_T, at(0.2), level=50, first=at(0.001))
    assert bool((free != X_T).flatten(1).any(1).all())


def test_the_published_line_search_goes_on_until_no_step_raises_the_loss() -> None:
    """As one with more retries than it takes, at the price of the slowest row alone; each row for itself."""
    prior, where = toy_g(), (at(0.2), 50, at(0.001))
    free, x_0 = CoPaint(lr=1e4, retries=None)._search(task(prior), X_T, *where)
    spent = prior.nfe.backward
    fixed, _ = CoPaint(lr=1e4, retries=60)._search(task(prior), X_T, *where)
    assert torch.equal(free, fixed) and bool((free != X_T).flatten(1).any(1).all())
    assert torch.equal(x_0, prior.denoise(free, at(0.2)))
    assert 3 * 10 < spent < 3 * 60
    for row in range(3):
        alone, _ = CoPaint(lr=1e4, retries=None)._search(task(prior, rows=1), X_T[row : row + 1], *where)
        torch.testing.assert_close(alone, free[row : row + 1])


def test_where_no_step_raises_the_loss_it_costs_the_least() -> None:
    prior, run = toy_g(), CoPaint(steps=20, retries=None)
    out = run.sample(prior, KNOWN, Y, num_samples=2, seed=3)
    assert Cost(prior.nfe.forward, prior.nfe.backward) == run.cost(2)
    assert torch.equal(out, CoPaint(steps=20).sample(toy_g(), KNOWN, Y, num_samples=2, seed=3))


def test_rows_take_their_own_rates() -> None:
    """A row for which the rate is far too large and one for which it fits give the same together and alone.

    The denoiser is ten times steeper for x_1 > 1, so that only the second row must shorten its step.
    """
    prior = DenoiserPrior(lambda x, t: torch.where(x > 1, 10 * x - 9, x), VP(), (1, 1, 2))
    x = torch.tensor([[0.2, 0.0], [2.0, 0.0]]).reshape(2, 1, 1, 2)
    run = CoPaint(lr=0.3, lr_growth=1.0, c=0.0, inner_steps=1, retries=40)
    together, _ = run._search(task(prior, rows=2), x, at(0.001), level=1, first=at(0.001))
    for row in (0, 1):
        alone, _ = run._search(task(prior, rows=1), x[row : row + 1], at(0.001), level=1, first=at(0.001))
        torch.testing.assert_close(together[row : row + 1], alone)
    # Row 1: D = .2, gradient 2 (.2 - 1), the full rate. Row 2: D = 11, gradient 2 * 10 * 10; below x = 1 the loss is
    # (1 - x)^2 and must not exceed 10^2, so the step must not exceed 11: 60 * .8^8 is the first.
    assert together[0, 0, 0, 0].item() == pytest.approx(0.2 + 0.3 * 1.6, rel=1e-3)
    assert together[1, 0, 0, 0].item() == pytest.approx(2 - 60 * 0.8**8, rel=1e-3)


def test_a_network_that_fails_far_out_does_no_harm() -> None:
    """A loss that is not a number is a rejected step; the published line search never ends there."""
    exact = toy_g()

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return torch.where(x.abs().amax((1, 2, 3), keepdim=True) > 6, math.nan, exact.denoise(x, t))

    prior = DenoiserPrior(denoise, exact.schedule, (1, 1, 2))
    for retries, moved in ((3, False), (60, True), (None, True)):
        run = CoPaint(lr=1e3, retries=retries)
        x_t, x_0 = run._search(task(prior), X_T, at(0.2), level=50, first=at(0.001))
        assert x_t.isfinite().all() and x_0.isfinite().all() and torch.equal(x_t, X_T) is not moved


def test_the_data_term_ends_at_the_noise() -> None:
    """With sigma_y the residual is brought to its own size, ||y - A D||^2 = M sigma_y^2, and no further."""
    loss = _Loss(task(toy_g(), sigma_y=0.5), X_T, at(0.2), 0.01, clip=False)
    d = toy_g().denoise(X_T, at(0.2))
    expected = ((1 - d[..., 0]) ** 2 - 0.25).clamp(min=0).flatten()
    torch.testing.assert_close(loss(torch.zeros_like(X_T), gradient=False).loss, expected)
    out = CoPaint(steps=40).sample(toy_g(), KNOWN, Y, sigma_y=0.5, num_samples=200)[0, ..., 0]
    residual = (1 - out).abs()
    assert residual.max() < 0.52 and residual.mean() > 0.2
    exact = CoPaint(steps=40, paste=False).sample(toy_g(), KNOWN, Y, num_samples=200)[0, ..., 0]
    assert (1 - exact).abs().max() < 0.01


def test_clip() -> None:
    """Saturated pixels have no gradient; the step goes to the clipped D with the noise of the raw one."""
    loss = _Loss(task(toy_g()), torch.full((3, 1, 1, 2), 5.0), at(0.1), 0.0, clip=True)
    assert loss(torch.zeros(3, 1, 1, 2), gradient=True).gradient.abs().max() == 0
    prior = DenoiserPrior(lambda x, t: x + 1, VP(), (1, 1, 2))
    run = CoPaint(steps=2, inner_steps=0, clip=True, paste=False)
    here = task(prior)
    x = here.start(at(1.0))
    here.noise = Streams(range(3))
    got = run._run(here)
    for t, s in ((1.0, 0.5), (0.5, 0.0)):
        (a_t, b_t), (a_s, b_s) = ((VP().alpha(at(k)).item(), VP().sigma(at(k)).item()) for k in (t, s))
        x = a_s * (x + 1).clamp(-1, 1) + b_s * (x - a_t * (x + 1)) / b_t
    torch.testing.assert_close(got, x, rtol=0, atol=1e-5)


# -- the walk ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [VP(), EDM(), Flow()], ids=lambda s: type(s).__name__)
def test_without_gradient_steps_it_is_ddim_bit_for_bit(schedule: Schedule) -> None:
    prior = toy_m(schedule)
    x = prior.initial(Streams(range(5)).normal(1, 1, 2))
    plain = DDIM(12)(prior, x, Streams(range(5)))
    here = task(prior, rows=5)
    here.noise = Streams(range(5))
    for run in (
        CoPaint(steps=12, inner_steps=0, paste=False),
        CoPaintTT(steps=12, inner_steps=0, resamplings=1, paste=False),
    ):
        here.noise = Streams(range(5))
        assert torch.equal(run._run(here), plain)


def test_nothing_known_moves_nothing() -> None:
    """m = 0: the loss is the distance moved, which is 0 and stays so; the result is DDIM of the first noise."""
    here = task(toy_m(), rows=5, known=Inpainting(torch.zeros(1, 2)))
    here.y = torch.zeros(5, 1, 1, 2)
    plain = DDIM(12)(toy_m(), Streams(range(5)).normal(1, 1, 2), Streams(range(5)))
    assert torch.equal(CoPaint(steps=12)._run(here), plain)


def test_counts_of_the_published_schedules() -> None:
    """(250, 10, 2): 240 moves up, 24 walks up; 489 moves down and the last one to clean. One evaluation starts a search
    and one follows each gradient step; the last needs no gradient, as the accepted ones are used again."""
    travel = CoPaintTT()
    moves = [after - before for before, after in pairwise(travel.path())]
    assert (moves.count(-1), moves.count(1)) == (489 + 1, 240)
    assert travel.searches() - moves.count(-1) == 24
    assert travel.cost() == Cost(514, 2 * 514)
    assert CoPaint().cost() == Cost(250, 500) and CoPaint(retries=3).cost(2) == Cost(500, 2500)
    assert CoPaint(steps=100, inner_steps=1).cost() == Cost(100, 100)
    assert CoPaintTT(inner_steps=0).cost() == Cost(490, 0)
    assert CoPaintTT(resamplings=1).cost() == CoPaint().cost()


@pytest.mark.parametrize("retries", [0, 2])
def test_cost_with_time_travel_is_what_runs(retries: int) -> None:
    prior = toy_g()
    run = CoPaintTT(steps=10, jump_length=3, resamplings=3, retries=retries)
    run.sample(prior, KNOWN, Y, num_samples=2)
    assert Cost(prior.nfe.forward, prior.nfe.backward) == run.cost(2)


def test_the_same_in_vp_ve_and_edm() -> None:
    """x_vp = x_ve / sqrt(1 + sigma^2): with equal levels and noise, equal samples."""
    vp = VP("linear")
    low, high = vp.nsr_range
    kwargs: dict[str, Any] = {"steps": 16, "jump_length": 4, "spacing": "logsnr", "paste": False}
    outs = [
        CoPaintTT(**kwargs).sample(toy_m(s), KNOWN, Y, num_samples=20, seed=2)
        for s in (vp, VE(low, high), EDM(low, high))
    ]
    torch.testing.assert_close(outs[0], outs[1], rtol=0, atol=2e-3)
    torch.testing.assert_close(outs[0], outs[2], rtol=0, atol=2e-3)


def test_growth_is_the_same_over_any_number_of_levels() -> None:
    """1.012 a level of 250 is 1.0303 a level of 100, the published 1.03 of CoPaint-Fast."""
    assert CoPaint(steps=100)._growth(1.012, 99) == pytest.approx(1.0303, abs=1e-4)
    assert CoPaint(steps=250)._growth(1.012, 2) == pytest.approx(1.012**248)


def test_a_nonlinear_measurement() -> None:
    """y = x^2 leaves the sign open: samples of both signs, all of them explaining y."""
    prior = Gaussian([0.0, 0.0], [[0.5, 0.0], [0.0, 0.5]])
    out = CoPaint(steps=40).sample(prior, Squares(), torch.full((1, 1, 1, 2), 0.49), num_samples=40)[0]
    assert (out.square() - 0.49).abs().median() < 0.02
    assert (out > 0).any() and (out < 0).any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "known", "reported"),
    [
        (CoPaint(spacing="respaced"), 1.0, (0.63, 0.36, 0.01)),
        (CoPaint(spacing="respaced"), 0.0, (0.34, 0.26, 0.41)),
        (CoPaintTT(spacing="respaced"), 1.0, (0.63, 0.36, 0.00)),
        (CoPaintTT(spacing="respaced"), 0.0, (0.28, 0.20, 0.52)),
    ],
)
def test_toy_m_mode_weights(run: CoPaint, known: float, reported: tuple[float, float, float]) -> None:
    """Reported to two digits from 8000 samples (half a digit: .005); plus four standard errors of 2000 samples."""
    out = run.sample(toy_m(), KNOWN, known * Y, num_samples=2000, seed=0)
    for got, want in zip(mode_weights(out), reported, strict=True):
        assert got == pytest.approx(want, abs=0.006 + 4 * math.sqrt(max(want, 0.01) * (1 - want) / 1600))
