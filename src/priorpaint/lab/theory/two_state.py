"""One noise level (Rout et al. 2023, Sections 3.2.1 to 3.2.3): x_1 = alpha x_0 + sigma eps, with sigma^2 = beta.

Images are rows (N, d). Where a function takes ``rho``, that is any number or tensor of eigenvalues of B: modes do not
mix.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ...errors import UsageError
from .model import LinearModel, normal

# -- generation --------------------------------------------------------------------------------------------------------


def generator(model: LinearModel, beta: float) -> Tensor:
    """Theorem 3: theta* = argmin E ||x_0 - theta x_1||^2 = alpha P (d, d). Divided by alpha it is P, the manifold."""
    return math.sqrt(1 - beta) * model.P


# -- RePaint -----------------------------------------------------------------------------------------------------------


def repaint(model: LinearModel, x_0: Tensor, beta: float, *, seed: int) -> Iterator[Tensor]:
    """RePaint: u = theta* x_1, x~ = K x_0 + D u, x_1 <- alpha x~ + sigma eps. x~ (N, d) of each round, without end."""
    theta, alpha, sigma = generator(model, beta), math.sqrt(1 - beta), math.sqrt(beta)
    x_1 = normal(*x_0.shape, seed=seed, use="repaint")
    for count in itertools.count(1):
        filled = model.paste(x_0, x_1 @ theta.mT)
        yield filled
        x_1 = alpha * filled + sigma * normal(*x_0.shape, seed=seed, use=f"repaint {count}")


def repaint_bias(rho: Tensor | float, beta: float, rounds: float = math.inf) -> Tensor:
    """Drift bias b of RePaint after R rounds: E[v | x_0] - x_M = b x_M; b -> -beta / (1 - alpha^2 rho).

    It begins at -1, the mean of what pure noise gives, and a round shrinks the distance to the limit by alpha^2 rho.
    """
    factor = (1 - beta) * torch.as_tensor(rho, dtype=torch.float64)
    limit = -beta / (1 - factor)
    return limit - (1 + limit) * factor ** (rounds - 1)


def repaint_variance(rho: Tensor | float, beta: float, rounds: float = math.inf) -> Tensor:
    """Dispersion after R rounds: Var[v | x_0], from alpha^2 rho at first to alpha^2 beta rho / (1 - alpha^4 rho^2)."""
    factor = (1 - beta) * torch.as_tensor(rho, dtype=torch.float64)
    limit = beta * factor / (1 - factor**2)
    return limit + (factor - limit) * factor ** (2 * (rounds - 1))


def repaint_rms(rho: Tensor | float, beta: float, rounds: float = math.inf) -> Tensor:
    """Rms error of RePaint on a mode, whose hidden part of x_0 has variance rho; more rounds do not help."""
    return (repaint_bias(rho, beta, rounds).square() * rho + repaint_variance(rho, beta, rounds)).sqrt()


def reverse_sde_rms(rho: Tensor | float, beta: float, rounds: float = math.inf) -> Tensor:
    """The same after one more reverse step theta* x~, of all of the mode, hidden and known."""
    return _projected_rms(rho, beta, rounds, math.sqrt(1 - beta))


def least_squares_rms(rho: Tensor | float, beta: float, rounds: float = math.inf) -> Tensor:
    """The same after the least-squares projection P x~ on the manifold: never more than RePaint's own, and not 0."""
    return _projected_rms(rho, beta, rounds, 1.0)


def _projected_rms(rho: Tensor | float, beta: float, rounds: float, gain: float) -> Tensor:
    """Of gain P x~: A^T x~ = (1 + b rho) z + noise of variance rho v."""
    shrunk = gain * (1 + repaint_bias(rho, beta, rounds) * rho) - 1
    return (shrunk.square() + gain**2 * rho * repaint_variance(rho, beta, rounds)).sqrt()


# -- RePaint+ ----------------------------------------------------------------------------------------------------------


def sweep(model: LinearModel, x_0: Tensor, u: Tensor) -> Tensor:
    """A round of Algorithm 2: paste the known coordinates without noise, denoise, divide by alpha: P (K x_0 + D u)."""
    return model.project(model.paste(x_0, u))


def sweeps(model: LinearModel, x_0: Tensor, u: Tensor) -> Iterator[Tensor]:
    """Algorithm 2 from u (N, d): u_1, u_2, ... without end; only the known coordinates of x_0 are read."""
    while True:
        u = sweep(model, x_0, u)
        yield u


def after_sweeps(model: LinearModel, x_0: Tensor, u: Tensor, rounds: int) -> Tensor:
    """Theorem 4: u_R = x_0 + (P D)^R (u_0 - x_0)."""
    power: Tensor = torch.linalg.matrix_power(model.P @ model.D, rounds)
    return x_0 + (u - x_0) @ power.mT


def contraction(rho: float, rounds: int, *, on_manifold: bool = True) -> float:
    """||(P D)^R||: rho^R for a start on the manifold, rho^(R - 1/2) for any start (R >= 1)."""
    return rho**rounds if on_manifold else rho ** (rounds - 0.5)


def rounds_needed(error: float, tolerance: float, rho: float) -> int:
    """Theorem 4: R = ceil(log(error / tolerance) / log(1 / rho)) rounds bring a start on the manifold to the tolerance.

    Raises:
        UsageError: rho = 1 (an invisible direction is never recovered), or numbers that are not positive.
    """
    if not (error >= 0 and tolerance > 0 and 0 <= rho <= 1):
        raise UsageError(f"need error >= 0, tolerance > 0 and rho in [0, 1], not {error}, {tolerance} and {rho}")
    if error <= tolerance:
        return 0
    if rho == 1:
        raise UsageError("rho = 1: a direction of the manifold is invisible in the known pixels; reveal more of them")
    return 1 if rho == 0 else math.ceil(math.log(error / tolerance) / -math.log(rho))


def limit_error(model: LinearModel, x_0: Tensor, u: Tensor) -> Tensor:
    """What is left of the error of u_0 (N, d) after infinitely many rounds: its invisible part; 0 where rho < 1."""
    return (u - x_0) @ model.invisible


# -- a generator that is not exact -------------------------------------------------------------------------------------


def noisy_rate(model: LinearModel, delta: Tensor) -> float:
    """Assumption 5: lambda = ||(P + Delta) D||, to be < 1, for a generator P + Delta (after renormalisation)."""
    return float(torch.linalg.matrix_norm((model.P + delta) @ model.D, 2))


def noisy_sweeps(model: LinearModel, delta: Tensor, x_0: Tensor, u: Tensor) -> Iterator[Tensor]:
    """Algorithm 2 with the generator P + Delta, from u (N, d): u_1, u_2, ... without end."""
    generator = (model.P + delta).mT
    while True:
        u = model.paste(x_0, u) @ generator
        yield u


def noisy_limit(model: LinearModel, delta: Tensor, x_0: Tensor) -> Tensor:
    """The error for R -> infinity: (I - (P + Delta) D)^-1 Delta x_0, (N, d)."""
    system = torch.eye(model.d, dtype=torch.float64) - (model.P + delta) @ model.D
    error: Tensor = torch.linalg.solve(system, delta @ x_0.mT)
    return error.mT


def noisy_rms(model: LinearModel, delta: Tensor, rounds: int) -> float:
    """Rms error after R rounds, exactly, from a start on the manifold that is an independent sample; for any lambda.

    (P + Delta) D is applied to what z and the start's own latents have become of, and Delta x_0 is added.
    """
    generator = (model.P + delta) @ model.D
    of_start, of_image = model.A, -model.A
    for _ in range(rounds):
        of_start, of_image = generator @ of_start, generator @ of_image + delta @ model.A
    return math.sqrt(float(of_start.square().sum() + of_image.square().sum()))


def noisy_bound(model: LinearModel, delta: Tensor, x_0: Tensor, start: Tensor, rounds: float = math.inf) -> Tensor:
    """Theorem 6: lambda^R ||start - x_0|| + (1 - lambda^R) / (1 - lambda) ||Delta|| ||x_0||, (N,).

    Raises:
        UsageError: Assumption 5 does not hold.
    """
    rate = noisy_rate(model, delta)
    if rate >= 1:
        raise UsageError(f"Theorem 6 needs ||(P + Delta) D|| < 1, and it is {rate:.4g}; take a smaller Delta")
    left = 0.0 if rounds == math.inf else rate**rounds
    start_error: Tensor = (start - x_0).norm(dim=1)
    size: Tensor = x_0.norm(dim=1)
    return left * start_error + (1 - left) / (1 - rate) * float(torch.linalg.matrix_norm(delta, 2)) * size


def tolerable_error(model: LinearModel, delta: Tensor, tolerance: float, size: float) -> float:
    """Corollary 7: ||Delta|| <= tolerance (1 - lambda) / C leaves an error <= tolerance where ||x_0|| <= C = size."""
    return tolerance * (1 - noisy_rate(model, delta)) / size
