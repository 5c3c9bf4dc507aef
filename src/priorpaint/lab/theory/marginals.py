"""Figures 3 and 4 of Rout et al. 2023: the data, where the forward process takes it, what the reverse process makes."""

from __future__ import annotations

import math

from torch import Tensor

from ...errors import UsageError
from .check import Check, Outcome, mean_of, rms_of
from .model import LinearModel, normal
from .two_state import generator

# Coordinates whose marginals are tabulated.
_SHOWN = 4
# Points that the figure shows.
_POINTS = 400


def run(model: LinearModel, *, beta: float, samples: int, seed: int = 0) -> Outcome:
    """Draw x_0, noise it, and run the reverse process from N(0, I).

    Args:
        model: the manifold; its mask only says in which plane a figure of more than two dimensions is drawn.
        beta: variance of the noise of the two-state process, in (0, 1).
        samples: images.
        seed: of images and noise.

    Raises:
        UsageError: numbers out of range.
    """
    if not 0 < beta < 1:
        raise UsageError(f"beta is the variance of the noise and lies between 0 and 1; {beta} does not")
    if samples < 2:
        raise UsageError(f"a standard error takes at least 2 images, not {samples}")
    alpha = math.sqrt(1 - beta)
    x_0, x_T = model.draw(samples, seed=seed), normal(samples, model.d, seed=seed, use="prior")  # noqa: N806
    x_1 = alpha * x_0 + math.sqrt(beta) * normal(samples, model.d, seed=seed, use="forward")
    raw = x_T @ generator(model, beta).mT
    checks = [
        Check("Fig. 3a", "x_0: rms distance from the manifold", 0.0, "=", *rms_of(x_0 - model.project(x_0))),
        *(Check("Fig. 3b", f"x_0: variance of coordinate {i + 1}", float(model.P[i, i]), "=",
                *mean_of(x_0[:, i].square())) for i in range(min(_SHOWN, model.d))),
        Check("Fig. 4a", "x_1: variance along the manifold", 1.0, "=", *_along(model, x_1)),
        Check("Fig. 4b", "theta* x_T: rms distance from the manifold", 0.0, "=", *rms_of(raw - model.project(raw))),
        Check("Fig. 4b", "theta* x_T: variance along the manifold", 1 - beta, "=", *_along(model, raw)),
        Check("Theorem 3", "theta* x_T / alpha: variance along the manifold", 1.0, "=", *_along(model, raw / alpha)),
    ]  # fmt: skip
    notes = []
    if model.k < model.d:
        across = (x_1 - model.project(x_1)).square().sum(1) / (model.d - model.k)
        checks.insert(-3, Check("Fig. 4a", "x_1: variance across the manifold", beta, "=", *mean_of(across)))
        distance = (model.d - model.k) / 2 * (beta - 1 - math.log(beta))
        notes.append(f"KL divergence from the law of x_1 to the prior N(0, I): {distance:.4g} nats, exactly.")
    basis, line = model.plane()
    points = {name: (x[:_POINTS] @ basis.mT).tolist()
              for name, x in (("x_0", x_0), ("x_1", x_1), ("x_T", x_T), ("reverse", raw / alpha))}  # fmt: skip
    curves = {"points": points, "line": line.tolist(), "in_coordinates": model.d == 2,
              "coordinates": x_0[:, :_SHOWN].T.tolist(), "variances": model.P.diagonal()[:_SHOWN].tolist()}  # fmt: skip
    return Outcome(f"d = {model.d}, k = {model.k}, beta = {beta:g}; {samples} images", checks, curves, notes)


def _along(model: LinearModel, x: Tensor) -> tuple[float, float]:
    return mean_of((x @ model.A).square().mean(1))
