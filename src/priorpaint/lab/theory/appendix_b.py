"""The experiment of Appendix B of Rout et al. 2023, for any linear model: RePaint, what follows it, and RePaint+.

The published table gives 22.97, 27.61 and "negligible" for d = 2, k = 1 and one hidden coordinate; its other settings
are lost. With 1000 images, A = (1, 1) / sqrt(2), beta = 0.9 and the Frobenius norm over the batch, theory expects 22.2
and 26.4: the same order and size. Figure 5 says that not even least squares, P x~, brings RePaint's images back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from ...errors import UsageError
from .acceleration import cg_sweeps, chebyshev_sweeps
from .check import Check, rms_of
from .model import LinearModel, normal
from .two_state import generator, least_squares_rms, repaint, repaint_rms, reverse_sde_rms, rounds_needed, sweeps

REPAINT, REVERSE_SDE, REPAINT_PLUS = "RePaint", "RePaint + reverse SDE", "RePaint+"
LEAST_SQUARES = "RePaint + least squares"
# What Table 1 prints; of RePaint+ "negligible", below a threshold that is lost.
PUBLISHED = {REPAINT: "22.97", REVERSE_SDE: "27.61", REPAINT_PLUS: "negligible"}
METHODS = (REPAINT, REVERSE_SDE, LEAST_SQUARES, REPAINT_PLUS)
CHEBYSHEV, CG = "RePaint+, Chebyshev", "RePaint+, conjugate gradients"


@dataclass(frozen=True)
class Row:
    """Error of a method after the last round.

    Attributes:
        method: its name.
        norm: Frobenius norm over the batch, mean over the seeds.
        std: standard deviation of that over the seeds.
        check: root mean square over all images of the error of an image (its Euclidean norm), beside theory.
    """

    method: str
    norm: float
    std: float
    check: Check


@dataclass(frozen=True)
class Outcome:
    """The table, and what the figure shows of the first seed.

    Attributes:
        rows: the table.
        curves: rms error of an image after 0 (the start, RePaint+ only), 1, ..., R rounds, one list a method.
        predicted: sqrt(2 sum cos_i^2R) for R = 0, 1, ...: the expected rms of RePaint+, exactly.
        images: x_0 and the outputs (N, d) by method.
    """

    rows: list[Row]
    curves: dict[str, list[float]]
    predicted: list[float]
    images: dict[str, Tensor]


def run(model: LinearModel, *, beta: float, samples: int, rounds: int, seeds: int, seed: int = 0) -> Outcome:
    """Inpaint ``samples`` images with ``rounds`` rounds of each method, once a seed.

    Args:
        model: manifold and mask.
        beta: variance of the noise of the two-state process, in (0, 1).
        samples: images drawn for each seed.
        rounds: rounds of resampling R.
        seeds: repetitions.
        seed: the first seed.

    Raises:
        UsageError: numbers out of range, or a mask that hides nothing.
    """
    if not 0 < beta < 1:
        raise UsageError(f"beta is the variance of the noise and lies between 0 and 1; {beta} does not")
    if min(samples - 1, rounds, seeds) < 1:
        raise UsageError(f"samples are at least 2, rounds and seeds 1, not {samples}, {rounds} and {seeds}")
    if bool(model.known.all()):
        raise UsageError("every coordinate is known; hide at least one")
    first = _one_seed(model, beta, samples, rounds, seed)
    squares = {method: [done.squares] for method, done in first.items()}
    for other in range(seed + 1, seed + seeds):
        for method, done in _one_seed(model, beta, samples, rounds, other).items():
            squares[method].append(done.squares)
    expected = expectations(model, beta, rounds)
    rows = [_row(method, torch.stack(found), expected[method]) for method, found in squares.items()]
    x_0, start = _draw(model, samples, seed)
    curves = {method: done.errors for method, done in first.items()}
    if model.rho < 1:  # else there is no system to solve
        for method, faster in ((CHEBYSHEV, chebyshev_sweeps), (CG, cg_sweeps)):
            curves[method] = [_rms(u - x_0) for u in islice(faster(model, x_0, start), rounds)]
    for method in curves.keys() - {REPAINT, REVERSE_SDE, LEAST_SQUARES}:
        curves[method] = [_rms(start - x_0), *curves[method]]
    predicted = [expected_error(model, count) for count in range(rounds + 1)]
    return Outcome(rows, curves, predicted, {"x_0": x_0} | {method: done.images for method, done in first.items()})


def expected_error(model: LinearModel, rounds: int) -> float:
    """Expected rms of RePaint+ after R rounds, from a start that is an independent sample: sqrt(2 sum cos_i^2R)."""
    return math.sqrt(2 * float((model.cosines ** (2 * rounds)).sum()))


def expectations(model: LinearModel, beta: float, rounds: int) -> dict[str, float]:
    """Expected rms of the four methods after R rounds, exactly."""
    of_repaint = {REPAINT: repaint_rms, REVERSE_SDE: reverse_sde_rms, LEAST_SQUARES: least_squares_rms}
    return {
        **{name: float(rms(model.cosines, beta, rounds).square().sum().sqrt()) for name, rms in of_repaint.items()},
        REPAINT_PLUS: expected_error(model, rounds),
    }


def enough_rounds(model: LinearModel, tolerance: float, most: int = 1000) -> int:
    """Rounds that Theorem 4 asks for an rms error of ``tolerance``, at most ``most``; 100 where rho = 1."""
    if model.rho == 1:
        return min(100, most)
    return max(1, min(rounds_needed(expected_error(model, 0), tolerance, model.rho), most))


@dataclass
class _Run:
    """A method's rms error after each round; its images after the last, and the square of the error of each."""

    errors: list[float]
    images: Tensor
    squares: Tensor


def _one_seed(model: LinearModel, beta: float, samples: int, rounds: int, seed: int) -> dict[str, _Run]:
    x_0, start = _draw(model, samples, seed)
    theta = generator(model, beta)
    runs = {method: _Run([], start, start) for method in METHODS}
    both = zip(repaint(model, x_0, beta, seed=seed), sweeps(model, x_0, start), strict=False)
    for filled, u in islice(both, rounds):
        for method, x in zip(METHODS, (filled, filled @ theta.mT, model.project(filled), u), strict=True):
            runs[method].errors.append(_rms(x - x_0))
            runs[method].images = x
            runs[method].squares = (x - x_0).square().sum(1)
    return runs


def _draw(model: LinearModel, samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images, and the start u_0 = P x_1 of RePaint+ with x_1 ~ N(0, I)."""
    x_1 = normal(samples, model.d, seed=seed, use="start")
    return model.draw(samples, seed=seed), model.project(x_1)


def _rms(error: Tensor) -> float:
    return float(error.square().sum(1).mean().sqrt())


def _row(method: str, squares: Tensor, predicted: float) -> Row:
    """From the squared errors of all images (seeds, samples)."""
    norms = squares.sum(1).sqrt()
    std = float(norms.std()) if len(norms) > 1 else 0.0
    check = Check(
        "Table 1" if method in PUBLISHED else "Fig. 5",
        method,
        predicted,
        "=",
        *rms_of(squares.sqrt().flatten()[:, None]),
    )
    return Row(method, float(norms.mean()), std, check)
