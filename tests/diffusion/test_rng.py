"""Noise: it belongs to (seed, image, sample, draw) and to nothing else."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch

from priorpaint import UsageError
from priorpaint.diffusion.rng import Streams, derive, image_seeds


def images(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 5, 4, generator=torch.Generator().manual_seed(1))


def draws(seed: object, y: torch.Tensor, samples: int = 2) -> torch.Tensor:
    """(B, samples, 7): the first numbers of every stream."""
    seeds = image_seeds(seed, y)  # type: ignore[arg-type]
    rows = [(image, sample) for image in seeds for sample in range(samples)]
    return Streams.for_samples(*zip(*rows, strict=True)).normal(7).reshape(len(y), samples, 7)  # type: ignore[arg-type]


def test_alone_in_any_batch_and_in_any_order() -> None:
    y = images()
    together = draws(0, y)
    for j in range(4):
        assert torch.equal(draws(0, y[j : j + 1])[0], together[j])
    order = [2, 0, 3, 1]
    assert torch.equal(draws(0, y[order]), together[order])
    assert torch.equal(draws(0, y, samples=5)[:, :2], together)


@pytest.mark.parametrize("size", [3, 511, 512, 700])
def test_any_batch_size(size: int) -> None:
    """Small draws come from a block and large ones do not: rows must agree either way, draw after draw."""
    seeds, samples = [derive("a"), derive("b"), derive("c")], [0, 1, 2]
    together = Streams.for_samples(seeds, samples)
    alone = [Streams.for_samples([seed], [sample]) for seed, sample in zip(seeds, samples, strict=True)]
    for shape in [(size,), (2,), (300,), (size,), (1, 2, 2), (600,), (5,)] * 3:
        assert torch.equal(together.normal(*shape), torch.cat([one.normal(*shape) for one in alone]))


def test_copies_of_one_image_get_different_noise() -> None:
    y = images(1)
    out = draws(0, torch.cat([y, y, y]))
    assert not torch.equal(out[0], out[1]) and not torch.equal(out[1], out[2])
    assert torch.equal(out[0], draws(0, y)[0])
    with_others = draws(0, torch.cat([images(3), y, y]))
    assert torch.equal(with_others[3:], out[:2])


def test_images_that_differ_get_different_noise() -> None:
    y = images(1)
    other = y.clone()
    other[0, 0, 0, 0] += 1e-3
    assert not torch.equal(draws(0, y), draws(0, other))


def test_minus_zero_and_dtype_do_not_matter() -> None:
    y = torch.zeros(1, 1, 2, 2)
    assert image_seeds(0, y) == image_seeds(0, -y) == image_seeds(0, y.double())


def test_seeds_differ_and_zero_is_a_seed() -> None:
    y = images(1)
    out = [draws(seed, y) for seed in (0, 1, 2, -1, 2**40)]
    assert all(not torch.equal(a, b) for i, a in enumerate(out) for b in out[i + 1 :])
    assert torch.equal(draws(0, y), out[0])


def test_one_seed_an_image() -> None:
    y = images(2)
    out = draws([3, 4], y)
    assert torch.equal(draws([4, 3], y), out[[1, 0]])
    assert torch.equal(draws([3, 4], y + 1), out), "the caller's seeds do not depend on the content"
    assert torch.equal(draws(torch.tensor([3, 4]), y), out) and torch.equal(draws(np.array([3, 4]), y), out)
    with pytest.raises(UsageError, match="3 seeds were given for 2 images"):
        image_seeds([1, 2, 3], y)
    with pytest.raises(UsageError, match="a seed is an int"):
        image_seeds(0.5, y)  # type: ignore[arg-type]


def test_numpy_integers_are_seeds() -> None:
    assert image_seeds(np.int64(5), images(2)) == image_seeds(5, images(2))  # type: ignore[arg-type]


def test_global_generators_are_untouched() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index]
    streams = Streams.for_samples(image_seeds(0, images()), range(4))
    streams.normal(3), streams.normal(2000), streams.uniform(4)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # type: ignore[index]
    assert random.getstate() == before[2]
    torch.manual_seed(1)
    a = draws(0, images())
    torch.manual_seed(2)
    assert torch.equal(a, draws(0, images()))


def test_streams_are_standard_normal_and_independent() -> None:
    """64 streams (8 images, 8 samples) of 4000 draws in four calls; bounds of five standard errors.

    Means have standard error 1/sqrt(n), variances sqrt(2/n), correlations 1/sqrt(n); with 2016 pairs a five-sigma bound
    is exceeded by chance once in a thousand seeds, and the seed is fixed.
    """
    rows = [(derive("image", j), k) for j in range(8) for k in range(8)]
    streams = Streams.for_samples(*zip(*rows, strict=True))  # type: ignore[arg-type]
    x = torch.cat([streams.normal(1000) for _ in range(4)], 1).double()
    n = x.shape[1]
    assert x.mean(1).abs().max() < 5 / math.sqrt(n)
    assert (x.var(1) - 1).abs().max() < 5 * math.sqrt(2 / n)
    correlation = torch.corrcoef(x) - torch.eye(64, dtype=torch.float64)
    assert correlation.abs().max() < 5 / math.sqrt(n)
    # Draws of one stream do not repeat or follow one another either.
    lagged = torch.stack([torch.corrcoef(torch.stack([row[:-lag], row[lag:]]))[0, 1] for row in x for lag in (1, 1000)])
    assert lagged.abs().max() < 5 / math.sqrt(n - 1000)


def test_uniform_is_uniform_and_never_0_or_1() -> None:
    u = Streams([5]).uniform(20_000).double().flatten()
    n = len(u)
    assert u.mean().item() == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / n))
    # Kolmogorov's statistic: P(sqrt(n) D > 1.95) = 0.001.
    gap = (u.sort().values - (torch.arange(n) + 0.5) / n).abs().max()
    assert gap * math.sqrt(n) < 1.95

    class Extreme(Streams):
        def normal(self, *shape: int) -> torch.Tensor:
            return torch.tensor([[-9.0, 0.0, 9.0]])

    low, middle, high = Extreme([0]).uniform(3)[0]
    assert 0 < low < middle < high < 1


def test_parts_of_a_seed_are_not_run_together() -> None:
    seeds = [derive("a", 12), derive("a", 1, 2), derive("a1", 2), derive("a", "12"), derive("a", 1), derive(1, "a")]
    assert len(set(seeds)) == len(seeds) and all(0 <= seed < 2**63 for seed in seeds)


def test_normal_like_follows_the_image() -> None:
    x = torch.zeros(2, 1, 3, 3, dtype=torch.float64)
    noise = Streams([1, 2]).normal_like(x)
    assert noise.shape == x.shape and noise.dtype == torch.float64
    assert len(Streams([1, 2])) == 2
