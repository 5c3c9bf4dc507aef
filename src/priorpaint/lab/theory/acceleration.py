"""Faster ways to the same fixed point: a sweep is one application of a linear map, so Krylov methods apply.

In latent coordinates u = A w a sweep is w <- G w + b, with b = A^T K x_0 and G = A^T D A, whose eigenvalues are in
[0, rho]; its limit solves (I - G) w = b. Plain sweeps need about log(1/eps) / (1 - rho) rounds, Chebyshev's
semi-iteration and conjugate gradients about log(1/eps) / sqrt(1 - rho), CG never more than k but for rounding. A step
costs one sweep, and CG one more at its start.

Golub and Van Loan, Matrix Computations, 4th ed., Sections 11.2.8 and 11.3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from .model import LinearModel


def chebyshev_sweeps(model: LinearModel, x_0: Tensor, u: Tensor, rho: float | None = None) -> Iterator[Tensor]:
    """u_1, u_2, ... (N, d): sweeps, extrapolated for eigenvalues in [0, rho].

    Args:
        model: the model; rows of one batch do not interact.
        x_0: images (N, d), of which only known coordinates are read.
        u: start (N, d).
        rho: an upper bound < 1 of the rate; None is the rate itself.
    """
    rho = model.rho if rho is None else rho
    w_before = u @ model.A
    # The best single step: the average map has eigenvalues in [-r, r].
    step, r = 2 / (2 - rho), rho / (2 - rho)
    w, omega = w_before + step * _residual(model, x_0, w_before), 2.0
    yield w @ model.A.mT
    while True:
        omega = 1 / (1 - r * r * omega / 4)
        w, w_before = omega * (w + step * _residual(model, x_0, w) - w_before) + w_before, w
        yield w @ model.A.mT


def cg_sweeps(model: LinearModel, x_0: Tensor, u: Tensor) -> Iterator[Tensor]:
    """u_1, u_2, ... (N, d): conjugate gradients, one step length a row; needs no rate. Arguments as above."""
    w = u @ model.A
    residual = direction = _residual(model, x_0, w)
    while True:
        image = direction - _hidden(model, direction)
        length = _ratio(residual, residual, direction, image)
        w, before = w + length * direction, residual
        residual = residual - length * image
        direction = residual + _ratio(residual, residual, before, before) * direction
        yield w @ model.A.mT


def chebyshev_rounds(error: float, tolerance: float, rho: float) -> int:
    """Rounds after which Chebyshev's bound error * 2 q^R / (1 + q^2R) meets the tolerance.

    q = (1 - s) / (1 + s) with s = sqrt(1 - rho).
    """
    if error <= tolerance:
        return 0
    s = math.sqrt(1 - rho)
    q = (1 - s) / (1 + s)
    return 1 if q == 0 else math.ceil(math.acosh(error / tolerance) / -math.log(q))


def _hidden(model: LinearModel, w: Tensor) -> Tensor:
    """G w = A^T D A w, (N, k)."""
    return torch.where(model.known, 0, w @ model.A.mT) @ model.A


def _residual(model: LinearModel, x_0: Tensor, w: Tensor) -> Tensor:
    """What one sweep moves w by: b - (I - G) w, (N, k)."""
    return model.paste(x_0, w @ model.A.mT) @ model.A - w


def _ratio(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """(a . b) / (c . d) of each row (N, 1); 0 where the row has converged exactly."""
    top, bottom = (a * b).sum(1, keepdim=True), (c * d).sum(1, keepdim=True)
    return torch.where(bottom > 0, top / bottom.clamp(min=torch.finfo(torch.float64).tiny), 0)
