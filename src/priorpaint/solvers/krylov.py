"""A few iterations of a linear solver on S u = b, one system a row, where a product with S costs a network evaluation.

``apply(p)`` returns (S p, W p) for a second linear map W whose image of the solution is wanted as well: the products
that built the solution give W u for nothing. Vectors are (N, ...); every row has its own numbers, and a row that is
done is left alone, so that no row feels its batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.transitions import like, row_sum

Apply = Callable[[Tensor], tuple[Tensor, Tensor]]

_DONE = 1e-6  # relative residual at which float32 has nothing left to gain


def conjugate_gradients(apply: Apply, b: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """(u, W u) with u near S^-1 b after ``iterations`` products, S symmetric positive (Hestenes and Stiefel 1952).

    A row that meets a direction of curvature <= 0 keeps what it has.
    """
    u, residual, direction = torch.zeros_like(b), b, b
    square = dot(b, b)
    enough = _DONE**2 * square
    image = None
    for _ in range(iterations):
        product, mapped = apply(direction)
        curvature = dot(direction, product)
        active = (curvature > 0) & (square > enough)
        step = torch.where(active, square / torch.where(active, curvature, 1), 0)
        u = u + like(step, u) * direction
        image = like(step, mapped) * mapped + (0 if image is None else image)
        residual = residual - like(step, u) * product
        left = dot(residual, residual)
        turn = torch.where(active, left / torch.where(active, square, 1), 0)
        direction = residual + like(turn, u) * direction
        square = torch.where(active, left, 0)
    assert image is not None
    return u, image


def gmres(apply: Apply, b: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """(u, W u) with the smallest ||b - S u|| in the Krylov space, S any matrix (Saad and Schultz 1986)."""
    space = arnoldi(apply, b, iterations)
    start = torch.zeros(len(b), iterations + 1, 1, dtype=torch.float64)
    start[:, 0, 0] = space.length
    weights = (torch.linalg.pinv(space.hessenberg, rtol=_DONE) @ start)[..., 0]
    u = sum_of(weights, space.basis)
    return u, sum_of(weights, space.images)


@dataclass(frozen=True)
class Krylov:
    """S Q = Q H for an orthonormal Q whose first column is b / ||b||.

    Attributes:
        basis: the K columns of Q, each (N, ...).
        images: W of each.
        hessenberg: H, (N, K + 1, K) float64 on the CPU.
        length: ||b||, (N,) float64 on the CPU.
    """

    basis: list[Tensor]
    images: list[Tensor]
    hessenberg: Tensor
    length: Tensor


def arnoldi(apply: Apply, b: Tensor, iterations: int) -> Krylov:
    """K = ``iterations`` products with S; where the space is exhausted the rest of Q and H is 0."""
    length = dot(b, b).sqrt()
    basis, images = [_scaled(b, length)], []
    hessenberg = torch.zeros(len(b), iterations + 1, iterations, dtype=torch.float64)
    for k in range(iterations):
        product, mapped = apply(basis[k])
        images.append(mapped)
        size = dot(product, product).sqrt()
        for _ in range(2):  # twice is enough: once leaves rounding errors that grow
            for i, q in enumerate(basis):
                part = dot(q, product)
                product = product - like(part, product) * q
                hessenberg[:, i, k] += part.cpu().double()
        left = dot(product, product).sqrt()
        left = torch.where(left > _DONE * size, left, 0)
        hessenberg[:, k + 1, k] = left.cpu().double()
        basis.append(_scaled(product, left))
    return Krylov(basis[:iterations], images, hessenberg, length.cpu().double())


def log_quadratic(space: Krylov, floor: float) -> Tensor:
    """b^T log(S) b by Gauss quadrature (Golub and Meurant), (N,) float64; S symmetric with eigenvalues >= ``floor``."""
    square = space.hessenberg[:, :-1]
    values, vectors = torch.linalg.eigh((square + square.mT) / 2)
    first = vectors[:, 0]
    quadrature: Tensor = (first**2 * values.clamp(min=floor).log()).sum(1)
    return space.length**2 * quadrature


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of each row, (N,)."""
    return row_sum(a * b)


def sum_of(weights: Tensor, vectors: list[Tensor]) -> Tensor:
    """sum_k weights[:, k] vectors[k], for weights (N, K)."""
    parts = [like(weights[:, k], vector) * vector for k, vector in enumerate(vectors)]
    return torch.stack(parts).sum(0)


def _scaled(vector: Tensor, length: Tensor) -> Tensor:
    return vector * like(torch.where(length > 0, 1 / torch.where(length > 0, length, 1), 0), vector)
