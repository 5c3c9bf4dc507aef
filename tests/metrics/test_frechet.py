"""The Frechet distance of Gaussians against closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from priorpaint.errors import UsageError
from priorpaint.metrics import FeatureGaussian, frechet_distance


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(size: int) -> Tensor:
    return torch.linalg.qr(draw(size, size)).Q


def gaussian(mean: Tensor, covariance: Tensor) -> FeatureGaussian:
    return FeatureGaussian(mean.double(), covariance.double())


def test_a_set_is_at_no_distance_from_itself() -> None:
    rows = draw(200, 12) @ draw(12, 12, seed=1)
    assert frechet_distance(rows, rows) == pytest.approx(0, abs=1e-8)
    assert frechet_distance(rows, rows[torch.randperm(200, generator=torch.Generator().manual_seed(0))]) < 1e-8


def test_a_shift_costs_its_square() -> None:
    rows, shift = draw(100, 5), torch.tensor([3.0, 0.0, -4.0, 0.0, 0.0])
    assert frechet_distance(rows, rows + shift) == pytest.approx(25)


def test_covariances_that_commute() -> None:
    """C_a and C_b with common eigenvectors: the sum of (sqrt(a_i) - sqrt(b_i))^2, and the means on top."""
    basis, a, b = rotation(4), torch.tensor([4.0, 1.0, 0.25, 9.0]), torch.tensor([1.0, 1.0, 4.0, 0.0])
    first = gaussian(torch.zeros(4), (basis * a) @ basis.T)
    second = gaussian(torch.full((4,), 0.5), (basis * b) @ basis.T)
    expected = 1.0 + (2 - 1) ** 2 + 0 + (0.5 - 2) ** 2 + 3**2
    assert frechet_distance(first, second) == pytest.approx(expected)


def test_covariances_that_do_not_commute() -> None:
    """2 x 2: tr (C_a C_b)^1/2 = sqrt(tr(C_a C_b) + 2 sqrt(det C_a det C_b)), by Cayley and Hamilton."""
    a, b = torch.tensor([[2.0, 0.6], [0.6, 1.0]]).double(), torch.tensor([[1.0, -0.7], [-0.7, 3.0]]).double()
    cross = ((a @ b).trace() + 2 * (a.det() * b.det()).sqrt()).sqrt()
    expected = float(a.trace() + b.trace() - 2 * cross)
    distance = frechet_distance(gaussian(torch.zeros(2), a), gaussian(torch.zeros(2), b))
    assert distance == pytest.approx(expected) and distance > 0.5


def test_covariances_without_full_rank() -> None:
    """Two points along e_1 against two along e_2: variances 2 and 8 that share nothing, so their sum; few rows too."""
    first = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    second = torch.tensor([[0.0, 2.0, 0.0], [0.0, -2.0, 0.0]])
    assert frechet_distance(first, second) == pytest.approx(2 + 8)
    assert frechet_distance(first, torch.zeros(5, 3)) == pytest.approx(2)
    few = draw(4, 30)
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-6)


def test_symmetry_scale_and_rotation() -> None:
    a, b, turn = draw(60, 6), draw(80, 6, seed=1) @ draw(6, 6, seed=2) + 1, rotation(6)
    distance = frechet_distance(a, b)
    assert frechet_distance(b, a) == pytest.approx(distance)
    assert frechet_distance(3 * a, 3 * b) == pytest.approx(9 * distance)
    assert frechet_distance(a @ turn, b @ turn) == pytest.approx(distance)


def test_more_samples_of_one_law_come_closer() -> None:
    distances = [frechet_distance(draw(n, 8, seed=3), draw(n, 8, seed=4)) for n in (50, 500, 5000)]
    assert distances[0] > distances[1] > distances[2] > 0


def test_fits_are_unbiased_and_in_float64() -> None:
    rows = draw(50, 3).float()
    fitted = FeatureGaussian.fit(rows)
    assert fitted.covariance.dtype == torch.float64
    assert torch.allclose(fitted.covariance, torch.cov(rows.double().T))
    assert torch.allclose(fitted.mean, rows.double().mean(0))


def test_blocks_of_rows_are_fitted_as_one_set() -> None:
    rows = draw(50, 3) + 100
    whole = FeatureGaussian.fit(rows)
    blocks = FeatureGaussian.fit(iter([rows[:1], rows[1:30], rows[30:30], rows[30:]]))
    assert torch.allclose(blocks.mean, whole.mean) and torch.allclose(blocks.covariance, whole.covariance)


def test_what_cannot_be_compared() -> None:
    with pytest.raises(UsageError, match="at least two rows"):
        frechet_distance(torch.zeros(1, 3), torch.zeros(4, 3))
    with pytest.raises(UsageError, match="not finite"):
        FeatureGaussian.fit(torch.full((3, 2), float("nan")))
    with pytest.raises(UsageError, match="lengths 3 and 2"):
        frechet_distance(draw(4, 3), draw(4, 2))
