"""Simulation-based calibration: is the truth, among the samples, just another sample?

Draw (x*, y) from the joint law and L samples given y. If the samples follow p(x | y), the rank of f(x*) among the f of
the samples is uniform on 0..L for every function f (Talts et al. 2018, "Validating Bayesian Inference Algorithms with
Simulation-Based Calibration", Theorem 1). It judges a solver over many y, where the other measures judge one y.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...diffusion.rng import derive
from ...errors import UsageError
from ...metrics.calibration import ranks
from ...solvers.base import Callback, Solver
from .base import Problem
from .distances import directions

TRUTHS, SAMPLES, FUNCTIONS, BINS = 64, 15, 4, 8


@dataclass(frozen=True)
class Calibration:
    """The rank test.

    Attributes:
        p: p-value that the ranks are uniform: the smallest of the functions, times their number (Bonferroni).
        counts: (functions, bins) how many ranks fell into each bin.
    """

    p: float
    counts: tuple[tuple[int, ...], ...]


def uniformity(rank: Tensor, samples: int, bins: int = BINS) -> tuple[float, list[int]]:
    """(p-value, counts) of the chi-square test that ranks (M,) are uniform on 0..samples.

    Raises:
        UsageError: the ranks cannot be put into bins of equal size.
    """
    if (samples + 1) % bins:
        raise UsageError(f"{samples + 1} ranks do not fall into {bins} equal bins; change the number of samples")
    counts = torch.bincount(rank * bins // (samples + 1), minlength=bins).double()
    expected = len(rank) / bins
    statistic = ((counts - expected).square() / expected).sum()
    p = torch.special.gammaincc(torch.tensor((bins - 1) / 2, dtype=torch.float64), statistic / 2)
    return float(p), [int(count) for count in counts]


def calibrate(
    solver: Solver,
    problem: Problem,
    *,
    truths: int = TRUTHS,
    samples: int = SAMPLES,
    batch_size: int | None = None,
    callback: Callback | None = None,
) -> Calibration:
    """The rank test of a solver on ``truths`` draws of (x*, y), for projections on fixed random directions.

    Raises:
        UsageError: the solver cannot be used on the problem.
    """
    x_0, y = problem.joint(truths, seed=derive("calibration", problem.seed))
    drawn = solver.sample(
        problem.solver_prior,
        problem.solver_operator,
        y,
        sigma_y=problem.sigma_y,
        num_samples=samples,
        seed=derive("calibration", problem.seed, "solver"),
        batch_size=batch_size,
        callback=callback,
    )
    columns = directions(x_0[0].numel(), FUNCTIONS, seed=1)
    rank = ranks((drawn.cpu().double().flatten(2) @ columns).movedim(1, 0), x_0.double().flatten(1) @ columns)
    tests = [uniformity(rank[:, function], samples) for function in range(FUNCTIONS)]
    return Calibration(min(1.0, FUNCTIONS * min(p for p, _ in tests)), tuple(tuple(counts) for _, counts in tests))
