"""Chebyshev and conjugate gradients: the same fixed point in far fewer sweeps."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest
import torch
from torch import Tensor

from priorpaint.lab.theory import LinearModel
from priorpaint.lab.theory.acceleration import cg_sweeps, chebyshev_rounds, chebyshev_sweeps
from priorpaint.lab.theory.two_state import rounds_needed
from tests.lab.theory.problems import diagonal, gaussian, named, varied


def sweeps_to(steps: Iterator[Tensor], x_0: Tensor, error: float, most: int) -> int:
    for count, u in enumerate(islice(steps, most), 1):
        if float((u - x_0).norm()) <= error:
            return count
    raise AssertionError(f"not reached in {most} sweeps")


def start(model: LinearModel, seed: int) -> tuple[Tensor, Tensor]:
    return model.draw(1, seed=seed), model.project(gaussian(1, model.d, seed))


def test_reported_savings_on_a_hard_mask() -> None:
    """rho = .99984: the formula asks for 88,126 plain sweeps of relative error 1e-6; Chebyshev took 564, CG 17."""
    model = named(64, 16, 17, 6)
    x_0, u = start(model, 0)
    goal = 1e-6 * float((u - x_0).norm())
    assert rounds_needed(1, 1e-6, model.rho) == pytest.approx(88_126, abs=10)
    assert 300 < sweeps_to(chebyshev_sweeps(model, x_0, u), x_0, goal, 600 * 2) < 700
    assert sweeps_to(cg_sweeps(model, x_0, u), x_0, goal, 30) <= 18


@pytest.mark.parametrize("seed", range(10))
def test_both_end_at_the_image(seed: int) -> None:
    model = varied(seed, 32, 8)
    x_0, u = start(model, seed)
    first = float((u - x_0).norm())
    rounds = chebyshev_rounds(first, 1e-8, model.rho)
    assert rounds <= rounds_needed(first, 1e-8, model.rho) + 1
    errors = [float((step - x_0).norm()) for step in islice(chebyshev_sweeps(model, x_0, u), rounds)]
    assert errors[-1] <= 1e-8 * (1 + 1e-6), "Chebyshev's bound is a bound"
    assert sweeps_to(cg_sweeps(model, x_0, u), x_0, 1e-8, rounds + 3) <= model.k + 3


def test_rows_do_not_feel_each_other_and_converged_rows_stay() -> None:
    model = named(12, 4, 8, 0)
    x_0, u = model.draw(3, seed=0), model.project(gaussian(3, 12, 0))
    u[1] = x_0[1]
    for method in (cg_sweeps, chebyshev_sweeps):
        *_, together = islice(method(model, x_0, u), 3)
        for row in range(3):
            *_, alone = islice(method(model, x_0[row : row + 1], u[row : row + 1]), 3)
            torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-12)
        *_, late = islice(method(model, x_0, u), 200)
        assert late.isfinite().all() and (late - x_0).norm() < 1e-10
        torch.testing.assert_close(together[1], x_0[1], rtol=0, atol=1e-12)


def test_a_guess_of_the_rate_will_do() -> None:
    model = diagonal()
    x_0, u = start(model, 0)
    assert sweeps_to(chebyshev_sweeps(model, x_0, u, rho=0.9), x_0, 1e-8, 100) > sweeps_to(
        chebyshev_sweeps(model, x_0, u), x_0, 1e-8, 100
    )


def test_rounds_at_the_edges() -> None:
    assert chebyshev_rounds(1e-9, 1e-8, 0.9) == 0 and chebyshev_rounds(1.0, 1e-8, 0.0) == 1
