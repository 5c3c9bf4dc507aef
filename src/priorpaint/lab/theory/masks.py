"""The universal mask principle: one theta, which saw no mask in training, inpaints under many."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from ...errors import UsageError
from .check import Check, Outcome, mean_of, tightest
from .learning import renormalised_error, sgd
from .model import LinearModel, normal
from .noisy import check_numbers
from .two_state import noisy_bound, noisy_rate, noisy_sweeps

# The masks are shown in groups of similar rho.
_EDGES = (0.5, 0.8, 0.95, 1.0)


@dataclass(frozen=True)
class _Mask:
    rho: float
    known: int
    exact: Check
    learned: Check


def run(
    model: LinearModel, *, beta: float, masks: int, training: int, samples: int, rounds: int, seed: int = 0
) -> Outcome:
    """Inpaint under ``masks`` random masks with theta* of Theorem 3, and with one theta that SGD learned.

    Args:
        model: the manifold; its own mask is not used. The masks know k, ..., d - 1 coordinates.
        beta: variance of the noise of the two-state process, in (0, 1).
        masks: how many.
        training: samples that theta is learned from.
        samples: images for each mask.
        rounds: rounds of resampling.
        seed: of masks, training, images and starts.

    Raises:
        UsageError: numbers out of range, or k = d, where no mask hides anything that can be recovered.
    """
    check_numbers(beta, training, samples)
    if masks < 1:
        raise UsageError(f"the experiment takes at least 1 mask, not {masks}")
    if model.k >= model.d:
        raise UsageError(f"a manifold of dimension {model.k} fills all {model.d} coordinates; take a smaller --k")
    delta = renormalised_error(model, sgd(model, beta, training, seed=seed), beta)
    done = []
    for number in range(masks):
        known = model.k + number * (model.d - model.k) // masks
        masked = LinearModel(model.A, LinearModel.random(model.d, model.k, known, seed=seed + number).known)
        x_0 = masked.draw(samples, seed=seed + number)
        start = masked.project(normal(samples, masked.d, seed=seed + number, use="start"))
        contracted = masked.rho**rounds * float((start - x_0).norm(dim=1).mean())
        applies = noisy_rate(masked, delta) < 1
        bound = float(noisy_bound(masked, delta, x_0, start, rounds).mean()) if applies else None
        exact = _check("Theorem 4", masked, torch.zeros_like(delta), x_0, start, rounds, contracted)
        learned = _check("Theorem 6", masked, delta, x_0, start, rounds, bound)
        done.append(_Mask(masked.rho, known, exact, learned))
    setting = f"beta = {beta:g}; theta from {training:,} samples; {rounds} rounds, {samples} images a mask"
    return _outcome(model, delta, done, setting)


def _check(
    statement: str, model: LinearModel, delta: Tensor, x_0: Tensor, start: Tensor, rounds: int, bound: float | None
) -> Check:
    """The mean error of the last round, with the generator P + Delta."""
    *_, u = islice(noisy_sweeps(model, delta, x_0, start), rounds)
    return Check(statement, "", bound, "<=", *mean_of((u - x_0).norm(dim=1)))


def _outcome(model: LinearModel, delta: Tensor, done: list[_Mask], setting: str) -> Outcome:
    checks = []
    for name in ("exact", "learned"):
        low = 0.0
        for high in _EDGES:
            group = [mask for mask in done if low < mask.rho <= high]
            applied = [check for mask in group if (check := getattr(mask, name)).theory is not None]
            if applied:
                checks.append(_row(name, applied, len(group), low, high))
            low = high
    rates = [mask.rho for mask in done]
    size = float(torch.linalg.matrix_norm(delta, 2))
    failed = sum(mask.learned.theory is None for mask in done)
    notes = [
        f"One theta for all masks, and rho from {min(rates):.3g} to {max(rates):.5g}: the weights do not depend on the "
        "mask, the rate does.",
        f"Learned: |Delta| = {size:.3g}. Of {len(done)} masks {failed} have lambda >= 1, where Theorem 6 says nothing.",
    ]
    curves = {
        "rho": rates,
        "known": [mask.known for mask in done],
        "exact_bound": [mask.exact.theory for mask in done],
        "exact": [mask.exact.measured for mask in done],
        "learned_bound": [mask.learned.theory for mask in done],
        "learned": [mask.learned.measured for mask in done],
    }
    return Outcome(f"d = {model.d}, k = {model.k}, {setting}", checks, curves, notes)


def _row(name: str, checks: list[Check], drawn: int, low: float, high: float) -> Check:
    """Of a group the mask that comes nearest to its bound."""
    worst = tightest(checks)
    theta = "theta*" if name == "exact" else "learned theta"
    count = f"{len(checks)} masks" if len(checks) == drawn else f"{len(checks)} of {drawn} masks"
    case = f"{theta}, {count} with rho in ({low:g}, {high:g}]: nearest to its bound"
    return Check(worst.statement, case, worst.theory, worst.relation, worst.measured, worst.error)
