"""Theorem 6 and Corollary 7 with a generator that is learned from samples, so that the error is a real one."""

from __future__ import annotations

from itertools import islice

import torch
from torch import Tensor

from ...errors import UsageError
from .check import Check, Outcome, mean_of, rms_of
from .learning import BATCH, renormalised_error, sgd
from .model import LinearModel, normal
from .two_state import noisy_bound, noisy_limit, noisy_rate, noisy_rms, noisy_sweeps, tolerable_error

# Rounds after which the start still counts.
_SHORT = 5


def run(model: LinearModel, *, beta: float, training: int, samples: int, rounds: int, seed: int = 0) -> Outcome:
    """Learn theta from N = ``training`` samples, a tenth, a hundredth, ... of them; inpaint new images with each.

    Args:
        model: manifold and mask; rho < 1.
        beta: variance of the noise of the two-state process, in (0, 1).
        training: the largest number of training samples.
        samples: new images that are inpainted.
        rounds: rounds of resampling R.
        seed: of training, images and start.

    Raises:
        UsageError: numbers out of range, or a mask from which nothing or everything can be seen.
    """
    check_numbers(beta, training, samples)
    if model.rho in (0, 1):
        raise UsageError(f"the experiment needs a mask with 0 < rho < 1, and rho is {model.rho:g}; take other --known")
    x_0, start = model.draw(samples, seed=seed), model.project(normal(samples, model.d, seed=seed, use="start"))
    checks: list[Check] = []
    curves: dict[str, list[dict[str, object]]] = {"sizes": []}
    for size in sizes(training):
        delta = renormalised_error(model, sgd(model, beta, size, seed=seed), beta)
        errors = torch.stack([start, *islice(noisy_sweeps(model, delta, x_0, start), rounds)]) - x_0
        rate = noisy_rate(model, delta)
        case = f"{size:,} samples: |Delta| {float(torch.linalg.matrix_norm(delta, 2)):.3g}, lambda {rate:.3g}"
        checks += _checks(model, delta, x_0, start, errors, case)
        bounds = [None if rate >= 1 else float(noisy_bound(model, delta, x_0, start, count).mean())
                  for count in range(rounds + 1)]  # fmt: skip
        measured = [float(error.mean()) for error in errors.norm(dim=2)]
        curves["sizes"].append({"training": size, "lambda": rate, "bound": bounds, "measured": measured})
    title = f"{model.describe()}, beta = {beta:g}; {samples} images, {rounds} rounds"
    return Outcome(title, checks, dict(curves))


def sizes(training: int) -> list[int]:
    """Numbers of training samples: the largest, a tenth of it, ..., not below four batches; rising."""
    out = [training]
    while out[0] // 10 >= 4 * BATCH:
        out.insert(0, out[0] // 10)
    return out


def check_numbers(beta: float, training: int, samples: int) -> None:
    """Raises UsageError where beta is not in (0, 1), or there are too few samples to train on or to measure with."""
    if not 0 < beta < 1:
        raise UsageError(f"beta is the variance of the noise and lies between 0 and 1; {beta} does not")
    if training < 4 * BATCH:
        raise UsageError(f"training takes at least {4 * BATCH} samples, not {training}")
    if samples < 2:
        raise UsageError(f"a standard error takes at least 2 images, not {samples}")


def _checks(model: LinearModel, delta: Tensor, x_0: Tensor, start: Tensor, errors: Tensor, case: str) -> list[Check]:
    applies = noisy_rate(model, delta) < 1
    norms = errors.norm(dim=2)
    checks = []
    for count in sorted({min(_SHORT, len(errors) - 1), len(errors) - 1}):
        bound = float(noisy_bound(model, delta, x_0, start, count).mean()) if applies else None
        checks.append(Check("Theorem 6", f"{case}; mean error, R = {count}", bound, "<=", *mean_of(norms[count])))
    exact = noisy_rms(model, delta, len(errors) - 1)
    checks.append(Check("exact", f"{case}; rms error, R = {len(errors) - 1}", exact, "=", *rms_of(errors[-1])))
    largest = float(x_0.norm(dim=1).max())
    size = float(torch.linalg.matrix_norm(delta, 2))
    worst = float(noisy_limit(model, delta, x_0).norm(dim=1).max())
    # The accuracy that this Delta is small enough for.
    accuracy = size / tolerable_error(model, delta, 1.0, largest) if applies else None
    checks.append(Check("Corollary 7", f"{case}; worst image", accuracy, "<=", worst))
    return checks
