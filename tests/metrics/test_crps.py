"""The fair CRPS and energy score: closed forms, without bias in the number of samples, and proper."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from priorpaint.errors import UsageError
from priorpaint.metrics import fair_crps, fair_energy_score


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def of_gaussian(y: Tensor) -> Tensor:
    """CRPS of N(0, 1) at y (Gneiting and Raftery 2007, below Eq. 21)."""
    below, density = torch.special.ndtr(y), torch.exp(-(y**2) / 2) / math.sqrt(2 * math.pi)
    return y * (2 * below - 1) + 2 * density - 1 / math.sqrt(math.pi)


def test_many_samples_have_the_formula_of_their_law() -> None:
    """The error of the mean of n terms of deviation < 2 is below 5 * 2 / sqrt(n)."""
    y, n = torch.tensor([-2.0, 0.0, 0.7]).double(), 200_000
    assert fair_crps(normal(n, 3), y).tolist() == pytest.approx(of_gaussian(y).tolist(), abs=10 / math.sqrt(n))


@pytest.mark.parametrize("n", [2, 3, 10])
def test_the_mean_over_many_draws_does_not_depend_on_the_number_of_samples(n: int) -> None:
    """For y of the law itself the expectation is E|X - X'| / 2 = 1 / sqrt(pi)."""
    scores = fair_crps(normal(n, 100_000), normal(100_000, seed=1))
    tolerance = 5 * float(scores.std()) / math.sqrt(len(scores))
    assert float(scores.mean()) == pytest.approx(1 / math.sqrt(math.pi), abs=tolerance)
    assert tolerance < 0.02


def test_is_the_sum_over_pairs() -> None:
    x, y = normal(4, 2, 3), normal(2, 3, seed=1)
    pairs = sum((x[i] - x[j]).abs() for i in range(4) for j in range(4)) / (4 * 3)
    assert torch.allclose(fair_crps(x, y), (x - y).abs().mean(0) - pairs / 2)
    assert torch.allclose(fair_crps(3 * x + 1, 3 * y + 1), 3 * fair_crps(x, y))


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("score", ["crps", "energy"])
def test_too_sure_and_too_wide_both_lose(scale: float, score: str) -> None:
    """Proper: the truth's own law is best."""
    pictures, truth = normal(10, 1, 160, 160), normal(1, 160, 160, seed=1)
    rule = fair_crps if score == "crps" else fair_energy_score
    assert float(rule(pictures, truth).mean()) + 0.02 < float(rule(scale * pictures, truth).mean())


def test_energy_of_single_values_is_the_crps() -> None:
    x, y = normal(5, 1, 6, 7), normal(1, 6, 7, seed=1)
    assert torch.allclose(fair_energy_score(x, y, patch=1), fair_crps(x, y).flatten())


def test_energy_of_patches_cut_at_the_border_and_inside_a_region() -> None:
    """Samples 1 and -1 everywhere, truth 0: distance 1, half the distance between them 1, for patches of any size."""
    x = torch.stack([torch.ones(3, 10, 13), -torch.ones(3, 10, 13)])
    scores = fair_energy_score(x, torch.zeros(3, 10, 13))
    assert scores.shape == (4,) and torch.allclose(scores, torch.zeros(4).double(), atol=1e-12)
    region = torch.zeros(1, 10, 13, dtype=torch.bool)
    region[:, :, :5] = True
    shifted = x + 3  # 4 and 2: distance 3, half the spread 1
    shifted[..., 5:] = math.nan
    assert fair_energy_score(shifted, torch.zeros(3, 10, 13), region).tolist() == pytest.approx([2, 2])


def test_the_energy_score_sees_dependence_that_the_crps_cannot() -> None:
    """Patches of one common value against independent values of the same law: equal CRPS, different energy score."""
    truth = normal(1, 32, 32, seed=1).repeat_interleave(8, 1).repeat_interleave(8, 2)
    right = normal(10, 1, 32, 32, seed=2).repeat_interleave(8, 2).repeat_interleave(8, 3)
    wrong = normal(10, 1, 256, 256, seed=3)
    assert float(fair_energy_score(right, truth).mean()) + 0.02 < float(fair_energy_score(wrong, truth).mean())
    assert float(fair_crps(right, truth).mean()) == pytest.approx(float(fair_crps(wrong, truth).mean()), abs=0.05)


@pytest.mark.parametrize("rule", [fair_crps, fair_energy_score])
def test_what_cannot_be_scored(rule: object) -> None:
    with pytest.raises(UsageError, match="two"):
        rule(torch.zeros(1, 1, 8, 8), torch.zeros(1, 8, 8))  # type: ignore[operator]
    with pytest.raises(UsageError, match="shape"):
        rule(torch.zeros(3, 1, 8, 8), torch.zeros(1, 8, 9))  # type: ignore[operator]
