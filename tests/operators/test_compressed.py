"""Random pixels and Walsh-Hadamard coefficients: what is kept, and seeds."""

from __future__ import annotations

import pytest
import torch

from priorpaint import Inpainting, RandomPixels, UsageError, WalshHadamard
from priorpaint.operators.compressed import walsh_hadamard
from tests.operators.test_registry import noise


@pytest.mark.parametrize(("keep", "count"), [(0.1, 8), (0.25, 20), (1, 80), (0.001, 1)])
def test_number_of_random_pixels(keep: float, count: int) -> None:
    mask = RandomPixels((8, 10), keep)
    assert isinstance(mask, Inpainting), "methods for masks can use it"
    assert mask.known.shape == (1, 1, 8, 10) and int(mask.known.sum()) == count


def test_seeds_of_random_pixels() -> None:
    zero, again, one = RandomPixels((16, 16), 0.5), RandomPixels((16, 16), 0.5, 0), RandomPixels((16, 16), 0.5, 1)
    assert torch.equal(zero.known, again.known) and not torch.equal(zero.known, one.known)
    few = RandomPixels((16, 16), 0.1)
    assert (few.known <= zero.known).all(), "fewer pixels of one seed are part of more"


def test_random_pixels_have_no_favourites() -> None:
    """Each of 64 pixels known with probability 1/4: the sum of 100 masks within 5 standard deviations (4.33)."""
    total = sum(RandomPixels((8, 8), 0.25, seed).known for seed in range(100))
    assert isinstance(total, torch.Tensor)
    assert ((total - 25).abs() < 5 * 4.33).all()
    assert float((total - 25).square().mean()) == pytest.approx(18.75, rel=0.6)  # binomial variance


@pytest.mark.parametrize("n", [1, 2, 4, 16])
def test_transform_is_the_hadamard_matrix(n: int) -> None:
    """Sylvester's construction, over sqrt(n)."""
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < n:
        matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64), matrix)
    x = noise(2, 3, n)
    torch.testing.assert_close(walsh_hadamard(x), x @ matrix.mT / n**0.5)
    torch.testing.assert_close(walsh_hadamard(walsh_hadamard(x)), x)


def test_all_coefficients_keep_lengths_and_lose_nothing() -> None:
    x, operator = noise(2, 3, 8, 4), WalshHadamard((8, 4), keep=1)
    y = operator(x)
    assert y.shape == (2, 3, 32)
    torch.testing.assert_close(y.norm(dim=2), x.flatten(2).norm(dim=2))
    torch.testing.assert_close(operator.pinv(y), x)


def test_measurements_are_spread_over_the_picture() -> None:
    """A point gives coefficients of one size, +-1 / sqrt(n), and a constant image is no longer one coefficient."""
    point = torch.zeros(1, 1, 8, 8)
    point[..., 2, 5] = 1
    y = WalshHadamard((8, 8), keep=0.5)(point)
    assert y.shape == (1, 1, 32)
    torch.testing.assert_close(y.abs(), torch.full((1, 1, 32), 1 / 8))
    assert float(WalshHadamard((8, 8), keep=1)(torch.ones(1, 1, 8, 8)).abs().max()) < 0.75 * 8


def test_seeds_of_coefficients() -> None:
    x = noise(1, 1, 8, 8)
    zero, again, one = (WalshHadamard((8, 8), seed=seed)(x) for seed in (0, 0, 1))
    assert torch.equal(zero, again) and not torch.equal(zero, one)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    WalshHadamard((8, 8)), RandomPixels((8, 8))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("size", "keep", "message"),
    [
        ((12, 8), 0.5, "powers of two, not 12 x 8; crop or resize to 8 x 8"),
        ((8, 20), 0.5, "crop or resize to 8 x 16"),
        ((8, 0), 0.5, "height, width"),
        ((8, 2.5), 0.5, "height, width"),
        ((8,), 0.5, "height, width"),
        ((8, 8), 0, "keep"),
        ((8, 8), 1.5, "keep"),
    ],
)
def test_coefficients_that_do_not_exist(size: tuple[int, int], keep: float, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        WalshHadamard(size, keep)


def test_other_sizes() -> None:
    with pytest.raises(UsageError, match="8 x 8 pixels, not 8 x 4; pass size"):
        WalshHadamard((8, 8))(torch.zeros(1, 1, 8, 4))
    with pytest.raises(UsageError, match=r"gives \(B, C, 16\)"):
        WalshHadamard((8, 8)).image_shape(torch.zeros(1, 1, 15))
    with pytest.raises(UsageError, match="keep"):
        RandomPixels((8, 8), 0.0)
