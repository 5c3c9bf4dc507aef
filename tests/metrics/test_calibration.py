"""Samples of the right law are calibrated, whatever their number; those that are too sure or too wide are not."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from priorpaint.errors import UsageError
from priorpaint.metrics import calibration
from priorpaint.metrics.calibration import ranks

VALUES = 40_000


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("n", [2, 5, 19])
def test_samples_of_the_law_of_the_truth(n: int) -> None:
    """Five standard deviations: sqrt(2 / values) of a chi-square mean, sqrt(p (1 - p) / values) of a share."""
    result = calibration(normal(n, VALUES), normal(VALUES, seed=1))
    assert result.ratio == pytest.approx(1, abs=5 * math.sqrt(2 / VALUES * (1 + 1 / (n - 1))))
    for level in (0.5, 0.9):
        assert result.coverage(level) == pytest.approx(level, abs=5 * math.sqrt(level * (1 - level) / VALUES))
    share = 1 / (n + 1)
    assert (result.ranks / VALUES).tolist() == pytest.approx(
        [share] * (n + 1), abs=5 * math.sqrt(share * (1 - share) / VALUES)
    )


def test_samples_of_half_and_twice_the_width() -> None:
    """E of the ratio with n samples of N(0, s^2): (1 + 1/n) s^2 / (1 + s^2 / n)."""
    truth, n = normal(VALUES, seed=1), 19
    for s in (0.5, 2.0):
        result = calibration(s * normal(n, VALUES), truth)
        assert result.ratio == pytest.approx((1 + 1 / n) * s**2 / (1 + s**2 / n), rel=0.05)
        assert (result.coverage(0.9) < 0.87) == (s < 1) and (result.coverage(0.5) > 0.53) == (s > 1)
        middle = float(result.ranks[5:15].sum() / VALUES)
        assert (middle < 0.45) == (s < 1)


def test_coverage_between_order_statistics() -> None:
    """Three samples cut the line into quarters: of the central half, the two inner parts whole and no outer one."""
    result = calibration(torch.tensor([[0.0] * 4, [1.0] * 4, [2.0] * 4]), torch.tensor([-1.0, 0.5, 1.5, 1.7]))
    assert result.ranks.tolist() == [1, 1, 2, 0]
    assert result.coverage(0.5) == pytest.approx(3 / 4)
    assert result.coverage(0.75) == pytest.approx((3 + 0.5) / 4)


def test_ties_are_shared_among_the_ranks_that_the_truth_may_have() -> None:
    samples, truth = torch.tensor([[1.0], [1.0], [0.0]]), torch.tensor([1.0])
    assert ranks(samples, truth).tolist() == [1]
    assert calibration(samples, truth).ranks.tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])


def test_pictures_add_up_and_only_the_region_counts() -> None:
    x, y = normal(4, 3, 8, 8), normal(3, 8, 8, seed=1)
    left = torch.zeros(1, 8, 8, dtype=torch.bool)
    left[..., :4] = True
    both, whole = calibration(x, y, left) + calibration(x, y, ~left), calibration(x, y)
    assert both.ratio == pytest.approx(whole.ratio) and both.ranks.tolist() == pytest.approx(whole.ranks.tolist())
    x[..., 4:] = math.nan
    assert math.isfinite(calibration(x, y, left).ratio)


def test_without_error_or_variance() -> None:
    zero = torch.zeros(3, 4)
    assert math.isnan(calibration(zero, torch.zeros(4)).ratio)
    assert calibration(zero, torch.ones(4)).ratio == 0
    assert calibration(torch.tensor([[1.0], [-1.0]]), torch.zeros(1)).ratio == math.inf


def test_what_cannot_be_judged() -> None:
    with pytest.raises(UsageError, match="two of each"):
        calibration(torch.zeros(1, 4), torch.zeros(4))
    with pytest.raises(UsageError, match="at least one value"):
        calibration(torch.zeros(2, 4), torch.zeros(4), torch.zeros(4))
    with pytest.raises(UsageError, match="equal numbers of samples"):
        calibration(torch.zeros(2, 4), torch.zeros(4)) + calibration(torch.zeros(3, 4), torch.zeros(4))
