"""Distances against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from priorpaint import UsageError
from priorpaint.lab.certify.distances import (
    Sliced,
    directions,
    energy_distance,
    mean_error,
    std_ratio,
    total_variation,
    transport,
)


def normal(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_directions_are_fixed_and_of_length_one() -> None:
    columns = directions(5)
    assert columns.shape == (5, 256) and torch.equal(columns, directions(5))
    assert torch.allclose(columns.norm(dim=0), torch.ones(256, dtype=torch.float64))
    # Uniform on the sphere: E[u u^T] = I / d.
    many = directions(5, 50_000)
    assert torch.allclose(many @ many.mT / 50_000, torch.eye(5).double() / 5, atol=0.005)
    assert set(directions(1).flatten().tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize(("n", "m"), [(7, 7), (4, 12), (6, 10), (1, 3)])
def test_transport_between_sets_of_any_size(n: int, m: int) -> None:
    """Repeating points up to a common number changes nothing, and there the coupling is one to one."""
    a, b = normal(n, 3).sort(0).values, normal(m, 3, seed=1).sort(0).values
    common = math.lcm(n, m)
    wide = (a.repeat_interleave(common // n, 0) - b.repeat_interleave(common // m, 0)).square().mean(0)
    assert torch.allclose(transport(a, b), wide, atol=1e-12)
    assert torch.allclose(transport(b, a), wide, atol=1e-12)


def test_a_shift_is_the_length_of_its_projections() -> None:
    x, shift = normal(50, 4), torch.tensor([1.0, -2.0, 0.5, 0.0], dtype=torch.float64)
    expected = math.sqrt(float((shift @ directions(4)).square().mean()))
    assert Sliced(x)(x + shift) == pytest.approx(expected, rel=1e-5)
    assert Sliced(x)(x[torch.randperm(50, generator=torch.Generator().manual_seed(1))]) < 1e-6


def gaussian_sliced_wasserstein(
    mean_a: torch.Tensor, cov_a: torch.Tensor, mean_b: torch.Tensor, cov_b: torch.Tensor, columns: torch.Tensor
) -> float:
    """The closed form between two Gaussians: W2^2 = (m_a - m_b)^2 + (s_a - s_b)^2 along each direction."""
    gap = (mean_a - mean_b) @ columns
    std_a, std_b = (((cov @ columns) * columns).sum(0).clamp(min=0).sqrt() for cov in (cov_a, cov_b))
    return math.sqrt(float((gap.square() + (std_a - std_b).square()).mean()))


def test_gaussians() -> None:
    """8000 samples against the closed form; the sampling error of a projected quantile is about 2 / sqrt(n) = .02."""
    mix = normal(3, 3, seed=5)
    cov_a, cov_b = mix @ mix.mT, torch.diag(torch.tensor([1.0, 4.0, 0.25], dtype=torch.float64))
    mean_a, mean_b = torch.zeros(3).double(), torch.tensor([0.5, 0.0, -0.5]).double()
    a, b = normal(8_000, 3, seed=1) @ mix.mT, mean_b + normal(8_000, 3, seed=2) * cov_b.diagonal().sqrt()
    exact = gaussian_sliced_wasserstein(mean_a, cov_a, mean_b, cov_b, directions(3))
    assert exact > 0.5
    assert Sliced(b)(a) == pytest.approx(exact, abs=0.03)
    assert gaussian_sliced_wasserstein(mean_a, cov_a, mean_a, cov_a, directions(3)) == 0


def test_the_floor_falls_like_one_over_the_root_of_n() -> None:
    floors = []
    reference = Sliced(normal(8_192, 2, seed=9), directions(2, 32))
    for n in (64, 1024):
        squares = [reference(normal(n, 2, seed=seed)) ** 2 for seed in range(16)]
        floors.append(sum(squares) / 16)
    assert floors[0] / floors[1] == pytest.approx(16, rel=0.5)


def test_energy_distance() -> None:
    """E|X - Z| of N(0, 1) and N(m, 1) is that of N(m, 2); point masses have twice their distance."""
    m, n = 1.5, 1500
    x, z = normal(n, 1), m + normal(n, 1, seed=1)
    s = math.sqrt(2)
    across = s * math.sqrt(2 / math.pi) * math.exp(-(m**2) / 4) + m * math.erf(m / 2)
    exact = 2 * across - 2 * s * math.sqrt(2 / math.pi)
    assert energy_distance(x, z) == pytest.approx(exact, abs=0.1)
    assert abs(energy_distance(x, normal(n, 1, seed=2))) < 0.01  # unbiased: no floor
    points = torch.zeros(3, 2, dtype=torch.float64)
    assert energy_distance(points, points + torch.tensor([3.0, 4.0])) == pytest.approx(10)
    with pytest.raises(UsageError, match="two independent rows"):
        energy_distance(points[:1], points)


def test_weights_and_moments() -> None:
    assert total_variation(torch.tensor([0.6, 0.4, 0.0]), torch.tensor([0.5, 0.2, 0.3])) == pytest.approx(0.3)
    x = torch.tensor([[1.0, 0.0], [3.0, 0.0]], dtype=torch.float64)
    cov = torch.diag(torch.tensor([3.0, 1.0], dtype=torch.float64))
    assert mean_error(x, torch.zeros(2).double(), cov) == pytest.approx(1.0)  # mean (2, 0), trace 4
    assert std_ratio(x, cov) == pytest.approx(math.sqrt(2 / 4))
    with pytest.raises(UsageError, match="single point"):
        std_ratio(x, 0 * cov)
