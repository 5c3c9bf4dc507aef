"""RePaint: the jump schedule with its counts, the moves up, and the bias that is left on the toys."""

from __future__ import annotations

import math

import pytest
import torch

from priorpaint import Inpainting, solver
from priorpaint.diffusion.schedules import VE, VP
from priorpaint.solvers.repaint import jump_levels
from tests.solvers import affine
from tests.solvers.toy import KNOWN, Y, jump_path, levels, mode_weights, propagate, toy_g, toy_m

# Network calls, moves up and all transitions, as counted with the published scheduler.
COUNTS = [
    (250, 10, 10, 2410, 2160, 4570),
    (1000, 10, 10, 9910, 8910, 18820),
    (250, 10, 2, 490, 240, 730),
    (250, 5, 5, 1230, 980, 2210),
    (250, 1, 10, 2491, 2241, 4732),
    (100, 10, 10, 910, 810, 1720),
    (50, 10, 10, 410, 360, 770),
]


@pytest.mark.parametrize(("steps", "length", "passes", "down", "up", "total"), COUNTS)
def test_counts_of_the_jump_schedule(steps: int, length: int, passes: int, down: int, up: int, total: int) -> None:
    path = jump_levels(steps, length, passes)
    moves = [after - before for before, after in zip(path[:-1], path[1:], strict=True)]
    assert (moves.count(-1), moves.count(1), len(moves)) == (down, up, total)
    assert path[0] == steps and path[-1] == 0 and path.count(0) == 1
    assert path == jump_path(steps, length, passes)
    run = solver("repaint", steps=steps, jump_length=length, resamplings=passes)
    assert run.cost().forward == down and run.cost(3).forward == 3 * down and run.cost().backward == 0


def test_the_published_walk() -> None:
    """T = 20, j = 5, r = 3, in array indices (level - 1), written out."""
    indices = [level - 1 for level in jump_levels(20, 5, 3)]

    def down(first: int, last: int) -> list[int]:
        return list(range(first, last - 1, -1))

    def window(low: int) -> list[int]:
        return down(low + 4, low) + 2 * (list(range(low + 1, low + 6)) + down(low + 4, low))

    assert indices == [19, 18, 17, 16, 15, *window(10), *window(5), *window(0), -1]


@pytest.mark.parametrize(("steps", "length"), [(1, 10), (5, 5), (5, 10), (7, 7)])
def test_no_room_for_a_jump_is_a_plain_descent(steps: int, length: int) -> None:
    assert jump_levels(steps, length, 10) == list(range(steps, -1, -1))


def test_one_resampling_is_replacement_bit_for_bit() -> None:
    plain = solver("replacement", steps=30).sample(toy_m(), KNOWN, Y, num_samples=8, seed=4)
    once = solver("repaint", steps=30, jump_length=5, resamplings=1).sample(toy_m(), KNOWN, Y, num_samples=8, seed=4)
    assert torch.equal(plain, once)


def exact_check(monkeypatch: pytest.MonkeyPatch, steps: int, length: int, passes: int, mean: float, var: float) -> None:
    run = solver("repaint", steps=steps, jump_length=length, resamplings=passes, spacing="respaced")
    path = jump_path(steps, length, passes)
    up = sum(after > before for before, after in zip(path[:-1], path[1:], strict=True))
    down = len(path) - 1 - up
    got_mean, got_cov = affine.of_solver(monkeypatch, run, toy_g(), KNOWN, Y, 2 + 4 * down + 2 * up)
    exact_mean, exact_var = propagate(path, levels(steps))
    # Float32 rounding, of means and of a sum of thousands of squares.
    assert got_mean[1].item() == pytest.approx(exact_mean, abs=5e-5)
    assert got_cov[1, 1].item() == pytest.approx(exact_var, abs=1e-4)
    assert got_mean[0] == 1 and got_cov[0].abs().max() == 0
    reported(exact_mean, exact_var, mean, var)


def reported(exact_mean: float, exact_var: float, mean: float, var: float) -> None:
    """The reported values come from 20,000 samples: three standard errors."""
    assert exact_mean == pytest.approx(mean, abs=3 * math.sqrt(var / 20_000))
    assert exact_var == pytest.approx(var, abs=3 * var * math.sqrt(2 / 20_000))


def test_toy_g_250_10_2(monkeypatch: pytest.MonkeyPatch) -> None:
    exact_check(monkeypatch, 250, 10, 2, 0.759, 0.226)


@pytest.mark.parametrize(("length", "mean", "var"), [(10, 0.872, 0.177), (1, 0.875, 0.169)])
def test_toy_g_with_ten_resamplings_in_numpy(length: int, mean: float, var: float) -> None:
    """The table rows against the chain in numpy; the slow test below holds the solver to that chain."""
    reported(*propagate(jump_path(250, length, 10), levels(250)), mean, var)


@pytest.mark.slow
@pytest.mark.parametrize(("length", "mean", "var"), [(10, 0.872, 0.177), (1, 0.875, 0.169)])
def test_toy_g_with_ten_resamplings(monkeypatch: pytest.MonkeyPatch, length: int, mean: float, var: float) -> None:
    exact_check(monkeypatch, 250, length, 10, mean, var)


def test_a_small_grid_with_many_passes_is_exact_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """T = 20, j = 5, r = 3, where every move matters; compared with numpy only."""
    path = jump_path(20, 5, 3)
    run = solver("repaint", steps=20, jump_length=5, resamplings=3, spacing="respaced")
    mean, cov = affine.of_solver(monkeypatch, run, toy_g(), KNOWN, Y, 2 + 4 * 50 + 2 * 30)
    exact_mean, exact_var = propagate(path, levels(20))
    assert mean[1].item() == pytest.approx(exact_mean, abs=1e-5)
    assert cov[1, 1].item() == pytest.approx(exact_var, abs=1e-5)


def test_resampling_removes_most_of_the_bias() -> None:
    """Share of replacement's bias of the mean that is left: a known answer of the chain, not of this code."""
    once, twice, ten = (propagate(jump_path(250, 10, r), levels(250))[0] for r in (1, 2, 10))
    assert once == pytest.approx(0.622, abs=1e-3) and twice == pytest.approx(0.7606, abs=1e-3)
    assert (0.9 - ten) / (0.9 - once) < 0.1


@pytest.mark.slow
def test_toy_m_mode_weights() -> None:
    """Reported .604/.390/.004 with 20,000 samples; ours from 4000: 4 standard errors of the difference."""
    run = solver("repaint", steps=250, spacing="respaced")
    out = run.sample(toy_m(), KNOWN, Y, num_samples=4000, seed=1)
    for got, want in zip(mode_weights(out), (0.604, 0.390, 0.004), strict=True):
        assert got == pytest.approx(want, abs=4 * math.sqrt(want * (1 - want) * (1 / 4000 + 1 / 20_000)))


def test_everything_known_is_y() -> None:
    y = torch.tensor([[[[0.3, -0.7]]]])
    run = solver("repaint", steps=10, jump_length=2, resamplings=3)
    assert torch.equal(run.sample(toy_g(), Inpainting(torch.ones(1, 2)), y), y[None])


def test_the_same_chain_in_other_coordinates() -> None:
    """VE is VP divided by alpha, for moves up as for moves down."""
    vp = VP("linear")
    run = solver("repaint", steps=20, jump_length=4, resamplings=3, spacing="logsnr")
    a, b = (run.sample(toy_m(s), KNOWN, Y, num_samples=20, seed=2) for s in (vp, VE(*vp.nsr_range)))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-3)
