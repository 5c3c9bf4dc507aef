"""Exact means and covariances of chains that are affine in their noise, read off the code under test itself.

With a Gaussian prior, replacement, RePaint, the likelihood form of DPS and every sampler map their random numbers to
the result affinely. A batch whose row 0 gets no noise and whose row i gets a single 1 at the i-th random number returns
that map: row 0 is the mean and row i minus row 0 is column i. No Monte-Carlo error is left; only float32 rounding.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from priorpaint.diffusion.rng import Streams
from priorpaint.operators import LinearOperator
from priorpaint.priors import Prior
from priorpaint.solvers import Solver, base


class Impulses(Streams):
    """Row 0: zeros. Row i: the (first + i)-th scalar that is asked for is 1, all others are 0."""

    def __init__(self, rows: int, first: int = 0) -> None:
        self.rows, self.asked, self.first = rows, 0, first
        self.device = torch.device("cpu")

    def __len__(self) -> int:
        return self.rows

    def normal(self, *shape: int) -> Tensor:
        size = int(torch.Size(shape).numel())
        draw = torch.zeros(self.rows, size)
        for column in range(size):
            row = self.asked + column - self.first + 1
            if 1 <= row < self.rows:
                draw[row, column] = 1.0
        self.asked += size
        return draw.reshape(self.rows, *shape)


def moments(out: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and covariance (d, d) from the rows of an impulse batch."""
    rows = out.double().flatten(1)
    columns = rows[1:] - rows[0]
    return rows[0], columns.mT @ columns


def of_chain(run: Callable[[Impulses], Tensor], scalars: int) -> tuple[Tensor, Tensor]:
    """Moments of ``run(noise)``, which asks for ``scalars`` random numbers a row."""
    noise = Impulses(scalars + 1)
    result = moments(run(noise))
    assert noise.asked == scalars, f"the chain asked for {noise.asked} random numbers, not {scalars}"
    return result


def of_solver(
    monkeypatch: pytest.MonkeyPatch,
    solver: Solver,
    prior: Prior,
    operator: LinearOperator,
    y: Tensor,
    scalars: int,
    sigma_y: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Moments of the law that ``solver`` samples for one measurement y."""
    made: list[Impulses] = []

    def impulses(image_seeds: list[int], samples: list[int], *, device: object = "cpu") -> Impulses:
        made.append(Impulses(len(samples)))
        return made[-1]

    with monkeypatch.context() as patch:
        patch.setattr(base.Streams, "for_samples", impulses)
        out = solver.sample(prior, operator, y, sigma_y=sigma_y, num_samples=scalars + 1)
    assert [noise.asked for noise in made] == [scalars], f"asked for {made[0].asked} random numbers, not {scalars}"
    return moments(out[0])
