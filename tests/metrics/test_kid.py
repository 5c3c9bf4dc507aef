"""KID: a sum over pairs, 0 on average for equal laws, and its closed form for Gaussians on the line."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from priorpaint.errors import UsageError
from priorpaint.metrics import kid


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spread(values: list[float]) -> tuple[float, float]:
    """Mean, and five times its standard error."""
    row = torch.tensor(values)
    return float(row.mean()), 5 * float(row.std()) / math.sqrt(len(row))


def test_is_the_sum_over_pairs_of_different_rows() -> None:
    a, b = normal(3, 4), normal(5, 4, seed=1)
    k = [[(float(x @ y) / 4 + 1) ** 3 for y in (*a, *b)] for x in (*a, *b)]
    within_a = sum(k[i][j] for i in range(3) for j in range(3) if i != j) / 6
    within_b = sum(k[i][j] for i in range(3, 8) for j in range(3, 8) if i != j) / 20
    between = sum(k[i][j] for i in range(3) for j in range(3, 8)) / 15
    assert kid(a, b) == pytest.approx(within_a + within_b - 2 * between)
    assert kid(b, a) == pytest.approx(kid(a, b))


@pytest.mark.parametrize("rows", [2, 10])
def test_equal_laws_are_at_distance_0_on_average(rows: int) -> None:
    mean, tolerance = spread([kid(normal(rows, 3, seed=2 * i), normal(rows, 3, seed=2 * i + 1)) for i in range(1000)])
    assert abs(mean) < tolerance < 1


def test_gaussians_on_the_line() -> None:
    """(x y + 1)^3 compares moments: the sum of C(3, k) (E x^k - E y^k)^2; here of N(0, 1) and N(1, 1)."""
    expected = 3 * (0 - 1) ** 2 + 3 * (1 - 2) ** 2 + (0 - 4) ** 2
    mean, tolerance = spread([kid(normal(50, 1, seed=2 * i), 1 + normal(50, 1, seed=2 * i + 1)) for i in range(300)])
    assert mean == pytest.approx(expected, abs=tolerance) and tolerance < 5


def test_rows_of_one_picture_are_not_taken_for_independent() -> None:
    """Four equal completions of each picture, equal to the picture: without groups far from 0, with them 0 on average.

    In fact each pair of pictures then counts equally within and between the sets, so the distance is 0 exactly.
    """
    truth = normal(12, 3)
    samples, groups = truth.repeat_interleave(4, 0), torch.arange(12)
    assert kid(samples, truth, groups.repeat_interleave(4), groups) == pytest.approx(0, abs=1e-9)
    assert abs(kid(samples, truth)) > 0.1


def test_what_cannot_be_compared() -> None:
    with pytest.raises(UsageError, match="one network"):
        kid(torch.zeros(3, 4), torch.zeros(3, 5))
    with pytest.raises(UsageError, match="two independent rows"):
        kid(torch.zeros(1, 4), torch.zeros(3, 4))
    with pytest.raises(UsageError, match="not finite"):
        kid(torch.zeros(2, 4), torch.full((3, 4), math.nan))
