"""Measures of samples whose fault is known."""

from __future__ import annotations

import math
from functools import lru_cache

import pytest
import torch

from priorpaint.lab.certify.measures import Measures, Ruler
from priorpaint.lab.certify.problems import problem

NUM = 1024


@lru_cache
def ruler(name: str) -> Ruler:
    return Ruler(problem(name))


def samples(name: str, seed: int = 5, num: int = NUM) -> torch.Tensor:
    return problem(name).posterior.sample(num, seed=seed)


@pytest.mark.parametrize("name", ["G1", "G16", "M3", "M16", "L64", "I8-half"])
def test_exact_samples_are_at_the_floor(name: str) -> None:
    found, floor = ruler(name).measure(samples(name)), ruler(name).floor(NUM)
    assert found.sliced < 2 * floor.sliced
    for share, cover in ((0.5, found.cover50), (0.9, found.cover90)):
        assert cover == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / NUM) + 0.02)
    # The root trace of a sample covariance: a few percent at this number, more where the spread is that of two modes.
    assert found.std == pytest.approx(1, abs=0.08) and found.mean < 0.12
    assert found.modes is None or found.modes < 0.06
    assert ruler(name).ignorant(NUM).sliced > 2 * floor.sliced


def test_the_residual_of_the_exact_posterior() -> None:
    """0 without noise; with noise, the posterior's own: E|y - A x|^2 = |y - A m|^2 + trace A C A^T, over 6 pixels."""
    assert ruler("G1").floor(NUM).residual < 1e-6
    place = problem("G16")
    seen = place.operator.known.flatten() > 0
    posterior = place.posterior
    gap = (place.y.flatten().double() - posterior.mean.flatten())[seen].square().sum()
    exact = math.sqrt(float(gap + posterior.cov.diagonal()[seen].sum()) / 6)
    assert ruler("G16").floor(NUM).residual == pytest.approx(exact, rel=0.03)


@pytest.mark.parametrize(("stretch", "inside50"), [(0.5, 1.0), (2.0, 0.0)])
def test_too_narrow_and_too_wide(stretch: float, inside50: float) -> None:
    place = problem("G16")
    x = place.posterior.mean + stretch * (samples("G16") - place.posterior.mean)
    found = ruler("G16").measure(x)
    assert found.std == pytest.approx(stretch, rel=0.05) and found.mean < 0.1 * max(1, stretch)
    assert found.cover50 == pytest.approx(inside50, abs=0.02)  # in 16-D half the radius is deep inside


def test_a_shift_of_the_mean_in_units_of_the_width() -> None:
    place = problem("G16")
    width = math.sqrt(float(place.posterior.cov.trace()))
    shift = torch.full(place.posterior.shape, 2 * width / 4)  # of length 2 widths in 16 dimensions
    assert ruler("G16").measure(samples("G16") + shift).mean == pytest.approx(2, abs=0.1)


def test_a_lost_mode() -> None:
    """Samples of one component alone are off by the weight of the others."""
    place = problem("M3")
    kept = samples("M3", num=4 * NUM)
    kept = kept[kept[..., 1].flatten() > 0]
    found = ruler("M3").measure(kept[:NUM])
    assert found.modes == pytest.approx(1 - float(place.posterior.weights[0]), abs=0.01)
    assert found.sliced > 5 * ruler("M3").floor(NUM).sliced


def test_leaving_the_subspace_is_outside_of_every_region() -> None:
    """On a singular posterior, off by half of its width an element in a direction that it does not have."""
    place = problem("L64")
    width = math.sqrt(float(place.posterior.cov.trace()) / 64)
    values, vectors = torch.linalg.eigh(place.posterior.cov)
    assert values[0].abs() < 1e-12
    off = (0.5 * width * vectors[:, 0]).reshape(1, 8, 8).float()
    assert ruler("L64").measure(samples("L64") + off).cover90 < 0.05


def test_copies_are_measured_one_by_one() -> None:
    """One exact copy and one that lost its spread: the squares are averaged, and so are the shares."""
    place, one = problem("B16-2"), samples("M16")
    flat = place.posterior.mean.float().expand_as(one)
    x = torch.stack([one[:, 0, 0], flat[:, 0, 0]], 1)[:, None]
    assert x.shape == (NUM, 1, 2, 16)
    parts = [ruler("M16").measure(part) for part in (one, flat)]
    both = Ruler(place).measure(x)
    assert both.sliced == pytest.approx(math.sqrt((parts[0].sliced ** 2 + parts[1].sliced ** 2) / 2), rel=1e-4)
    assert both.cover50 == pytest.approx((parts[0].cover50 + parts[1].cover50) / 2, abs=1e-6)
    assert both.std == pytest.approx((parts[0].std + parts[1].std) / 2)


def test_average_keeps_what_does_not_exist() -> None:
    one = Measures(3.0, 0.1, None, 0.1, 1.0, 3.0, 0.5, 0.9)
    two = Measures(4.0, 0.3, None, 0.3, 2.0, 4.0, 0.7, 0.9)
    both = Measures.average([one, two])
    assert both.sliced == pytest.approx(math.sqrt(12.5)) and both.energy == pytest.approx(0.2) and both.modes is None
