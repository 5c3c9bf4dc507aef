"""What every operator promises. A new operator is one entry in ``CASES``.

All identities are checked in float64 to rounding (1e-10 relative to the size of what is compared), against the operator
written out as a matrix.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import priorpaint.operators
from priorpaint.operators import Inpainting, LinearOperator


def random_mask(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(5)) < 0.6


BATCH = 3
SHAPE = (2, 4, 6)
# name -> operator for images (3, 2, 4, 6)
CASES: dict[str, Callable[[], LinearOperator]] = {
    "inpainting": lambda: Inpainting(random_mask(4, 6)),
    "inpainting-by-channel": lambda: Inpainting(random_mask(1, 2, 4, 6)),
    "inpainting-by-image": lambda: Inpainting(random_mask(3, 1, 4, 6)),
    "inpainting-by-image-and-channel": lambda: Inpainting(random_mask(3, 2, 4, 6)),
    "inpainting-nothing-known": lambda: Inpainting(torch.zeros(4, 6)),
    "inpainting-all-known": lambda: Inpainting(torch.ones(4, 6)),
}


@pytest.fixture(params=CASES, ids=str)
def operator(request: pytest.FixtureRequest) -> LinearOperator:
    return CASES[request.param]()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def matrix(operator: LinearOperator, row: int) -> Tensor:
    """A of image ``row`` as (m, d)."""
    one = operator.select(torch.tensor([row]))
    basis = torch.eye(48, dtype=torch.float64).reshape(48, 1, *SHAPE)
    return torch.stack([one(image).flatten() for image in basis], 1)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_every_operator_is_here() -> None:
    """A new public operator without a case fails."""
    classes = {c for _, c in inspect.getmembers(priorpaint.operators, inspect.isclass) if issubclass(c, LinearOperator)}
    assert classes - {LinearOperator} <= {type(make()) for make in CASES.values()}


def test_linearity(operator: LinearOperator) -> None:
    x, z = noise(BATCH, *SHAPE), noise(BATCH, *SHAPE, seed=1)
    close(operator(2.5 * x - z), 2.5 * operator(x) - operator(z))


def test_adjoint(operator: LinearOperator) -> None:
    """<A x, y> = <x, A^T y> for each image."""
    x = noise(BATCH, *SHAPE)
    y = noise(*operator(x).shape, seed=1)
    close((operator(x) * y).flatten(1).sum(1), (x * operator.adjoint(y)).flatten(1).sum(1))


def test_pinv_is_moore_penrose(operator: LinearOperator) -> None:
    x = noise(BATCH, *SHAPE)
    y = noise(*operator(x).shape, seed=1)
    for row in range(BATCH):
        a = matrix(operator, row)
        one = operator.select(torch.tensor([row]))
        close(one.pinv(y[row : row + 1]).flatten(), torch.linalg.pinv(a) @ y[row].flatten())
    close(operator(operator.pinv(operator(x))), operator(x))
    close(operator.pinv(operator(operator.pinv(y))), operator.pinv(y))


@pytest.mark.parametrize("c", [0.0, 1e-3, 2.0])
def test_solve(operator: LinearOperator, c: float) -> None:
    """(A A^T + c I)^-1 r; its pseudo-inverse at c = 0."""
    r = noise(*operator(noise(BATCH, *SHAPE)).shape, seed=1)
    got = operator.solve(r, c)
    for row in range(BATCH):
        a = matrix(operator, row)
        system = a @ a.mT + c * torch.eye(len(a), dtype=torch.float64)
        close(got[row].flatten(), torch.linalg.pinv(system, hermitian=True) @ r[row].flatten())


def test_solve_takes_one_c_an_image(operator: LinearOperator) -> None:
    r = noise(*operator(noise(BATCH, *SHAPE)).shape, seed=1)
    c = torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64)
    got = operator.solve(r, c)
    for row in range(BATCH):
        one = operator.select(torch.tensor([row]))
        close(got[row : row + 1], one.solve(r[row : row + 1], float(c[row])))


def test_project_is_the_nearest_image_that_fits(operator: LinearOperator) -> None:
    x, y = noise(BATCH, *SHAPE), operator(noise(BATCH, *SHAPE, seed=1))
    projected = operator.project(x, y)
    close(operator(projected), y)
    close(operator.project(projected, y), projected)
    close(projected, x + operator.pinv(y - operator(x)))


def test_select_picks_rows(operator: LinearOperator) -> None:
    x = noise(BATCH, *SHAPE)
    rows = torch.tensor([2, 0, 0, 1])
    close(operator.select(rows)(x[rows]), operator(x)[rows])


def test_arguments_are_untouched_and_nothing_is_shared(operator: LinearOperator) -> None:
    x = noise(BATCH, *SHAPE)
    y = noise(*operator(x).shape, seed=1)
    x_before, y_before = x.clone(), y.clone()
    outputs = [
        operator(x),
        operator.adjoint(y),
        operator.pinv(y),
        operator.solve(y, 0.5),
        operator.project(x, y),
        operator.measured(y),
    ]
    for out in outputs[:-1]:
        out += 1
    assert torch.equal(x, x_before) and torch.equal(y, y_before)


def test_gradient_is_the_adjoint(operator: LinearOperator) -> None:
    x = noise(BATCH, *SHAPE).requires_grad_()
    y = noise(*operator(x).shape, seed=1)
    (gradient,) = torch.autograd.grad((operator(x) * y).sum(), x)
    close(gradient, operator.adjoint(y))


def test_image_shape_and_device(operator: LinearOperator) -> None:
    y = operator(noise(BATCH, *SHAPE))
    assert operator.image_shape(y) == SHAPE
    close(operator.to(torch.device("cpu"))(noise(BATCH, *SHAPE)), y)
    close(operator.measured(y), y)
