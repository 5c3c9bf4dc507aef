"""Reading: exact, unique, and "none" for what is no avatar."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from priorpaint.errors import UsageError
from priorpaint.lab.avatars import THRESHOLD, as_tensor, read, standard
from priorpaint.lab.avatars.elimination import Elimination, largest
from priorpaint.lab.avatars.pixels import cell_features, over_cells
from priorpaint.lab.avatars.tables import tables

from .laws import listed, random_law, small


def noise(shape: torch.Size, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def contrast(first: Tensor, second: Tensor) -> Tensor:
    """The RMS difference in the cell that differs most, (N,)."""
    return (over_cells((first - second).square()).sum(-1) / 12).amax(1).sqrt()


def test_every_part_of_an_avatar_is_read() -> None:
    parts = standard().draw(500, 0)
    found = read(as_tensor(standard().compose(parts)))
    assert np.array_equal(found.parts, parts)
    assert found.distance.max() == 0
    assert found.valid.all()


def test_so_it_is_with_noise() -> None:
    parts = standard().draw(300, 1)
    pictures = as_tensor(standard().compose(parts))
    found = read(pictures + 0.04 * noise(pictures.shape, 1))
    assert np.array_equal(found.parts, parts)
    # RMS of 3072 values: .04 within 5 standard errors of 1 / sqrt(2 x 3072); the worst of 256 cells stays below .12.
    assert (found.distance - 0.04).abs().max() < 0.04 * 5 / np.sqrt(2 * 3072)
    assert found.valid.all()


def test_noise_and_greys_are_no_avatars() -> None:
    pictures = torch.cat([noise(torch.Size((20, 3, 32, 32)), 2).clamp(-1, 1), torch.zeros(1, 3, 32, 32)])
    assert not read(pictures).valid.any()


def test_half_of_one_and_half_of_another_is_no_avatar() -> None:
    pictures = as_tensor(standard().pictures(200, 3))
    pictures[:, :, :, 16:] = pictures.roll(1, 0)[:, :, :, 16:]
    found = read(pictures)
    assert not found.valid.any()
    assert found.worst.min() > 2 * THRESHOLD


def test_between_two_avatars_is_none() -> None:
    """The mean of an avatar and its nearest neighbour, the picture of a method that does not decide."""
    parts = standard().draw(40, 4)
    pictures = as_tensor(standard().compose(parts))
    for column in range(parts.shape[1]):
        other = as_tensor(standard().compose(runner_up(parts, column)))
        assert not read((pictures + other) / 2).valid.any()


def runner_up(parts: np.ndarray, column: int) -> np.ndarray:
    """The nearest combinations that differ in one part."""
    pictures = as_tensor(standard().compose(parts))
    features = cell_features(pictures, torch.ones(len(parts), 1, 32, 32, dtype=torch.bool))
    prior = [torch.zeros(len(parts), len(part.options)).double() for part in standard().parts]
    prior[column][torch.arange(len(parts)), torch.from_numpy(parts[:, column])] = -1e12
    return Elimination(tables(standard()), features, 1.0, prior, torch.amax).combinations(largest)[:, 0].numpy()


def test_two_avatars_are_never_closer_than_twice_the_threshold() -> None:
    parts = standard().draw(60, 5)
    pictures = as_tensor(standard().compose(parts))
    for column in range(parts.shape[1]):
        other = runner_up(parts, column)
        assert (other[:, column] != parts[:, column]).all()
        assert contrast(pictures, as_tensor(standard().compose(other))).min() >= 2 * THRESHOLD


@pytest.mark.parametrize("seed", range(2))
def test_the_nearest_is_the_nearest(seed: int) -> None:
    for avatars in (small(), random_law(seed)):
        pictures = 0.7 * noise(torch.Size((10, 3, 32, 32)), seed) + 0.3 * as_tensor(avatars.pictures(10, seed))
        every = listed(avatars).flatten(1)
        truth = torch.stack([(every - one.flatten()).square().mean(1).min().sqrt() for one in pictures])
        torch.testing.assert_close(read(pictures, avatars=avatars).distance.double(), truth, rtol=1e-6, atol=0)


def test_a_reading_does_not_depend_on_the_batch() -> None:
    pictures = as_tensor(standard().pictures(130, 6)) + 0.3 * noise(torch.Size((130, 3, 32, 32)), 6)
    together = read(pictures)
    alone = read(pictures[100:101])
    assert np.array_equal(together.parts[100:101], alone.parts)
    assert torch.equal(together.distance[100:101], alone.distance)


def test_no_pictures_make_an_empty_reading() -> None:
    assert read(torch.zeros(0, 3, 32, 32)).parts.shape == (0, 16)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"avatars are \(N, 3, 32, 32\)"):
        read(torch.zeros(1, 3, 16, 16))
