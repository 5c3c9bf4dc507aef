"""The experiment of Appendix B of Rout et al. 2023, for any linear model: RePaint, RePaint + reverse SDE, RePaint+.

The published table gives 22.97, 27.61 and "negligible" for d = 2, k = 1 and one hidden coordinate; its other settings
are lost. With 1000 images, A = (1, 1) / sqrt(2), beta = 0.9 and the Frobenius norm over the batch, theory expects 22.2
and 26.4: the same order and size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from ...errors import UsageError
from .acceleration import cg_sweeps, chebyshev_sweeps
from .model import LinearModel, normal
from .two_state import generator, repaint, repaint_rms, reverse_sde_rms, rounds_needed, sweeps

REPAINT, REVERSE_SDE, REPAINT_PLUS = "RePaint", "RePaint + reverse SDE", "RePaint+"
CHEBYSHEV, CG = "RePaint+, Chebyshev", "RePaint+, conjugate gradients"


@dataclass(frozen=True)
class Row:
    """Error of a method after the last round.

    Attributes:
        method: its name.
        norm: Frobenius norm over the batch, mean over the seeds.
        std: standard deviation of that over the seeds.
        rms: root mean square over images of the error of an image (its Euclidean norm).
        predicted: what theory says for ``rms``.
    """

    method: str
    norm: float
    std: float
    rms: float
    predicted: float


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
    if min(samples, rounds, seeds) < 1:
        raise UsageError(f"samples, rounds and seeds are at least 1, not {samples}, {rounds} and {seeds}")
    if bool(model.known.all()):
        raise UsageError("every coordinate is known; hide at least one")
    first = _one_seed(model, beta, samples, rounds, seed)
    last = {method: [done.errors[-1]] for method, done in first.items()}
    for other in range(seed + 1, seed + seeds):
        for method, done in _one_seed(model, beta, samples, rounds, other).items():
            last[method].append(done.errors[-1])
    expected = expectations(model, beta, rounds)
    rows = [_row(method, torch.tensor(errors), samples, expected[method]) for method, errors in last.items()]
    x_0, start = _draw(model, samples, seed)
    curves = {method: done.errors for method, done in first.items()}
    if model.rho < 1:  # else there is no system to solve
        for method, faster in ((CHEBYSHEV, chebyshev_sweeps), (CG, cg_sweeps)):
            curves[method] = [_rms(u - x_0) for u in islice(faster(model, x_0, start), rounds)]
    for method in curves.keys() - {REPAINT, REVERSE_SDE}:
        curves[method] = [_rms(start - x_0), *curves[method]]
    predicted = [expected_error(model, count) for count in range(rounds + 1)]
    return Outcome(rows, curves, predicted, {"x_0": x_0} | {method: done.images for method, done in first.items()})


def expected_error(model: LinearModel, rounds: int) -> float:
    """Expected rms of RePaint+ after R rounds, from a start that is an independent sample: sqrt(2 sum cos_i^2R)."""
    return math.sqrt(2 * float((model.cosines ** (2 * rounds)).sum()))


def expectations(model: LinearModel, beta: float, rounds: int) -> dict[str, float]:
    """Expected rms of the three methods; RePaint's after infinitely many rounds."""
    return {
        REPAINT: float(repaint_rms(model.cosines, beta).square().sum().sqrt()),
        REVERSE_SDE: float(reverse_sde_rms(model.cosines, beta).square().sum().sqrt()),
        REPAINT_PLUS: expected_error(model, rounds),
    }


def enough_rounds(model: LinearModel, tolerance: float, most: int = 1000) -> int:
    """Rounds that Theorem 4 asks for an rms error of ``tolerance``, at most ``most``; 100 where rho = 1."""
    if model.rho == 1:
        return min(100, most)
    return max(1, min(rounds_needed(expected_error(model, 0), tolerance, model.rho), most))


@dataclass
class _Run:
    """A method's rms error after each round, and its images after the last."""

    errors: list[float]
    images: Tensor


def _one_seed(model: LinearModel, beta: float, samples: int, rounds: int, seed: int) -> dict[str, _Run]:
    x_0, start = _draw(model, samples, seed)
    theta = generator(model, beta)
    runs = {method: _Run([], start) for method in (REPAINT, REVERSE_SDE, REPAINT_PLUS)}
    both = zip(repaint(model, x_0, beta, seed=seed), sweeps(model, x_0, start), strict=False)
    for filled, u in islice(both, rounds):
        for method, x in ((REPAINT, filled), (REVERSE_SDE, filled @ theta.mT), (REPAINT_PLUS, u)):
            runs[method].errors.append(_rms(x - x_0))
            runs[method].images = x
    return runs


def _draw(model: LinearModel, samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images, and the start u_0 = P x_1 of RePaint+ with x_1 ~ N(0, I)."""
    x_1 = normal(samples, model.d, seed=seed, use="start")
    return model.draw(samples, seed=seed), model.project(x_1)


def _rms(error: Tensor) -> float:
    return float(error.square().sum(1).mean().sqrt())


def _row(method: str, errors: Tensor, samples: int, predicted: float) -> Row:
    norms = errors.double() * math.sqrt(samples)
    std = float(norms.std()) if len(norms) > 1 else 0.0
    return Row(method, float(norms.mean()), std, float(errors.double().square().mean().sqrt()), predicted)
