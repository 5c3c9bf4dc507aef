"""Dense matrices: the product, the exact posterior, small singular values, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch

from priorpaint import MatrixOperator, UsageError, analytic
from tests.operators.test_registry import noise


def test_product_with_flattened_images() -> None:
    a, x = noise(4, 12), noise(3, 1, 3, 4, seed=1)
    torch.testing.assert_close(MatrixOperator(a, (1, 3, 4))(x), x.flatten(1) @ a.mT)
    assert MatrixOperator(a)(x.reshape(3, 1, 1, 12)).shape == (3, 4)


def test_one_matrix_an_image() -> None:
    a, x = noise(3, 4, 6), noise(3, 1, 2, 3, seed=1)
    operator = MatrixOperator(a, (1, 2, 3))
    torch.testing.assert_close(operator(x), torch.einsum("bmd,bd->bm", a, x.flatten(1)))
    assert operator.norm() == pytest.approx(float(torch.linalg.matrix_norm(a, 2).max()))
    one = operator.select(torch.tensor([2]))
    assert one.norm() == pytest.approx(float(torch.linalg.matrix_norm(a[2], 2)))
    torch.testing.assert_close(one(x[:1]), x[:1].flatten(1) @ a[2].mT)


def test_a_shared_matrix_is_selected_as_it_is() -> None:
    operator = MatrixOperator(noise(2, 6))
    assert operator.select(torch.tensor([1, 0, 4])) is operator


def test_the_posterior_of_a_gaussian_follows() -> None:
    """x ~ N(0, I), y = a^T x + sigma_y n: mean a y / (|a|^2 + sigma_y^2)."""
    a = torch.tensor([[1.0, 2.0, -2.0]])
    prior = analytic.Gaussian(torch.zeros(3), torch.eye(3))
    exact = prior.posterior(MatrixOperator(a), torch.tensor([[3.0]]), 1.0)
    torch.testing.assert_close(exact.mean.flatten(), 0.3 * a.double().flatten())


def test_tiny_singular_values_are_dropped() -> None:
    kept = MatrixOperator(torch.diag(torch.tensor([1.0, 1e-5])))
    dropped = MatrixOperator(torch.diag(torch.tensor([1.0, 1e-7])))
    y = torch.ones(1, 2, dtype=torch.float64)
    torch.testing.assert_close(kept.pinv(y).flatten(), torch.tensor([1.0, 1e5], dtype=torch.float64))
    torch.testing.assert_close(dropped.pinv(y).flatten(), torch.tensor([1.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(dropped(torch.ones(1, 1, 1, 2)), torch.tensor([[1.0, 0.0]]))


def test_the_operator_keeps_its_own_matrix() -> None:
    a, x = noise(2, 3), noise(1, 1, 1, 3, seed=1)
    operator = MatrixOperator(a)
    before = operator(x)
    a.zero_()
    assert torch.equal(operator(x), before)


@pytest.mark.parametrize(
    ("matrix", "shape", "message"),
    [
        (torch.ones(3), None, "axes"),
        (torch.ones(2, 2, 2, 2), None, "axes"),
        (torch.ones(0, 3), None, "axes"),
        (torch.tensor([[math.nan]]), None, "not finite"),
        (torch.ones(2, 6), (1, 2, 2), "6 columns"),
    ],
)
def test_matrices_that_cannot_be_used(matrix: torch.Tensor, shape: tuple[int, int, int] | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        MatrixOperator(matrix, shape)


def test_images_and_measurements_that_do_not_fit() -> None:
    operator = MatrixOperator(noise(3, 4, 6), (1, 2, 3))
    with pytest.raises(UsageError, match=r"made for images \(1, 2, 3\)"):
        operator(torch.zeros(3, 1, 3, 2))
    with pytest.raises(UsageError, match="3 matrices for 2 images"):
        operator(torch.zeros(2, 1, 2, 3))
    with pytest.raises(UsageError, match="3 matrices for 2 images"):
        operator.image_shape(torch.zeros(2, 4))
    with pytest.raises(UsageError, match="4 rows"):
        operator.image_shape(torch.zeros(3, 5))
