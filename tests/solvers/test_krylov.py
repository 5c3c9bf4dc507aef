"""A few iterations of CG and GMRES: exact when the space is full, harmless where a matrix is not what it should be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from priorpaint.solvers.krylov import Apply, arnoldi, conjugate_gradients, gmres, log_quadratic

SIZE = 5


def system(rows: int = 3, symmetric: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """S (rows, 5, 5), W (5, 5) and b (rows, 5); S positive definite where it is symmetric."""
    generator = torch.Generator().manual_seed(4)
    s = torch.randn(rows, SIZE, SIZE, generator=generator)
    s = s @ s.mT / SIZE + 0.2 * torch.eye(SIZE) if symmetric else s
    return s, torch.randn(SIZE, SIZE, generator=generator), torch.randn(rows, SIZE, generator=generator)


def product(s: Tensor, w: Tensor) -> Apply:
    return lambda p: ((s @ p[..., None])[..., 0], p @ w.mT)


@pytest.mark.parametrize("solve", [conjugate_gradients, gmres])
def test_as_many_iterations_as_unknowns_are_exact(solve: object) -> None:
    s, w, b = system()
    u, image = solve(product(s, w), b, SIZE)  # type: ignore[operator]
    torch.testing.assert_close(u, torch.linalg.solve(s, b), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(image, u @ w.mT, rtol=1e-4, atol=1e-4)
    more, _ = solve(product(s, w), b, SIZE + 3)  # type: ignore[operator]
    torch.testing.assert_close(more, torch.linalg.solve(s, b), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("solve", [conjugate_gradients, gmres])
def test_few_iterations_minimise_their_norm_over_the_krylov_space(solve: object) -> None:
    """CG: the S-norm of the error; GMRES: the residual. Checked by least squares on [b, S b]."""
    s, w, b = system()
    u, _ = solve(product(s, w), b, 2)  # type: ignore[operator]
    exact = torch.linalg.solve(s, b)
    space = torch.stack([b, (s @ b[..., None])[..., 0]], 2).double()
    s64, b64 = s.double(), b.double()[..., None]
    left, right = (
        (space.mT @ s64 @ space, space.mT @ b64)
        if solve is conjugate_gradients
        else (space.mT @ s64.mT @ s64 @ space, space.mT @ s64.mT @ b64)
    )
    best = (space @ torch.linalg.solve(left, right))[..., 0].float()
    torch.testing.assert_close(u, best, rtol=1e-3, atol=1e-3)
    assert (u - exact).abs().max() > 0.01, "two iterations should not be exact here"


def test_gmres_solves_what_is_neither_symmetric_nor_definite() -> None:
    s, w, b = system(symmetric=False)
    u, _ = gmres(product(s, w), b, SIZE)
    torch.testing.assert_close((s @ u[..., None])[..., 0], b, rtol=1e-3, atol=1e-3)


def test_cg_stops_at_negative_curvature() -> None:
    s = torch.diag(torch.tensor([1.0, 1.0, 1.0, -3.0, 2.0]))[None].expand(2, SIZE, SIZE)
    b = torch.tensor([[0.0, 0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0, 1.0]])
    u, _ = conjugate_gradients(product(s, torch.eye(SIZE)), b, 4)
    torch.testing.assert_close(u, torch.tensor([[0.0] * 5, [1.0, 0.0, 0.0, 0.0, 0.5]]))


@pytest.mark.parametrize("solve", [conjugate_gradients, gmres])
def test_rows_that_are_done_and_rows_of_zeros(solve: object) -> None:
    """b = 0 gives 0, not NaN, and b an eigenvector is solved in one step and then left alone."""
    s, w, b = system()
    b = torch.stack([torch.zeros(SIZE), torch.linalg.eigh(s[1])[1][:, 0], b[2]])
    u, image = solve(product(s, w), b, 4)  # type: ignore[operator]
    assert torch.equal(u[0], torch.zeros(SIZE)) and torch.equal(image[0], torch.zeros(SIZE))
    torch.testing.assert_close(u[1], torch.linalg.solve(s[1], b[1]), rtol=1e-3, atol=1e-3)
    alone, _ = solve(product(s[2:], w), b[2:], 4)  # type: ignore[operator]
    torch.testing.assert_close(u[2:], alone)


def test_log_quadratic_is_exact_in_the_full_space() -> None:
    s, w, b = system()
    values, vectors = torch.linalg.eigh(s.double())
    expected = ((vectors.mT @ b.double()[..., None])[..., 0] ** 2 * values.log()).sum(1)
    for count in (SIZE, SIZE + 2):
        got = log_quadratic(arnoldi(product(s, w), b, count), 1e-6)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    zero = log_quadratic(arnoldi(product(s, w), torch.zeros_like(b), 3), 1e-6)
    assert torch.equal(zero, torch.zeros(3, dtype=torch.float64))
