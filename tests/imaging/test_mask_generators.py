"""Masks: the promised fraction, the promised shape, and the same mask from the same seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from skimage.measure import label, regionprops

from priorpaint.errors import UsageError
from priorpaint.imaging import mask_generators as masks

SIZES = [(64, 64), (256, 256), (300, 451), (512, 200)]
SEEDED: dict[str, Callable[[tuple[int, int], int], masks.Mask]] = {
    "strokes": masks.strokes,
    "holes": masks.holes,
    "box": lambda size, seed: masks.box(size, 32, seed),
    "random_pixels": lambda size, seed: masks.random_pixels(size, seed, 0.5),
    "rotated_window": masks.rotated_window,
    "random_boxes": lambda size, seed: masks.random_boxes(size, seed, (0.2, 0.8)),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", SEEDED)
def test_a_seed_is_a_mask(name: str, size: tuple[int, int]) -> None:
    made = [SEEDED[name](size, seed) for seed in (3, 3, 4, 5)]
    assert made[0].shape == size and made[0].dtype == np.bool_
    assert np.array_equal(made[0], made[1])
    assert not (np.array_equal(made[0], made[2]) and np.array_equal(made[0], made[3]))


@pytest.mark.parametrize("size", [*SIZES, (16, 16), (40, 24)])
@pytest.mark.parametrize("seed", range(5))
def test_strokes_fill_their_range(size: tuple[int, int], seed: int) -> None:
    missing = 1 - masks.strokes(size, seed).mean()
    assert 0.05 <= missing <= 0.10


def test_strokes_are_thin() -> None:
    """Every hidden pixel of a 256 px picture is at most 5 px from a known one: strokes are at most 4 px and cross."""
    hidden = ~masks.strokes(256, 0)
    for _ in range(5):  # erosion with a 3x3 window
        padded = np.pad(hidden, 1)
        hidden = np.all([padded[i : i + 256, j : j + 256] for i in range(3) for j in range(3)], axis=0)
    assert not hidden.any()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(5))
def test_holes_are_separate_squares_in_range(size: tuple[int, int], seed: int) -> None:
    known = masks.holes(size, seed)
    assert 0.10 <= 1 - known.mean() <= 0.20
    for hole in regionprops(label(~known, connectivity=2)):
        top, left, bottom, right = hole.bbox
        assert 16 <= bottom - top <= 32 and bottom - top == right - left
        assert hole.area == (bottom - top) ** 2


def test_box_hides_exactly_its_rectangle() -> None:
    known = masks.box((256, 300), 64)
    assert (~known).sum() == 64**2
    assert not known[96:160, 118:182].any()
    placed = masks.box((70, 90), (10, 20), seed=1)
    (hole,) = regionprops(label(~placed))
    assert hole.bbox[2] - hole.bbox[0] == 10 and hole.bbox[3] - hole.bbox[1] == 20 and hole.area == 200


@pytest.mark.parametrize("missing", [0.0, 0.1, 0.92, 1.0])
def test_random_pixels_counts_exactly(missing: float) -> None:
    assert (~masks.random_pixels((37, 53), 0, missing)).sum() == round(missing * 37 * 53)


def test_halves_complement_each_other() -> None:
    size = (6, 9)
    assert np.array_equal(masks.half(size, "top"), ~masks.half(size, "bottom"))
    left, right = masks.half(size, "left"), masks.half(size, "right")
    assert not left[:, :4].any() and left[:, 4:].all()
    assert not right[:, 5:].any() and right[:, :5].all()


def test_rotated_window_hides_half() -> None:
    """At 256 px the fact sheet gives 50 % +- 0.3 %."""
    fractions = [1 - masks.rotated_window(256, seed).mean() for seed in range(40)]
    assert all(abs(fraction - 0.5) < 0.003 for fraction in fractions)


def test_rotated_window_is_a_half_plane_through_the_middle() -> None:
    """Below 241 px no canvas corner shows, so a mask turned by 180 degrees is its complement but for the edge line."""
    for seed in range(10):
        known = masks.rotated_window((120, 200), seed)
        assert (known == known[::-1, ::-1]).mean() < 0.02
        assert label(known).max() == label(~known).max() == 1


@pytest.mark.parametrize("hole_range", [(0.4, 0.8), (0.2, 0.21), (0.0, 0.2)])
def test_random_boxes_stay_inside_the_range(hole_range: tuple[float, float]) -> None:
    for seed in range(20):
        assert hole_range[0] < 1 - masks.random_boxes((64, 96), seed, hole_range).mean() < hole_range[1]


@pytest.mark.parametrize(
    "make",
    [
        lambda: masks.box(32, 64),
        lambda: masks.half(8, "middle"),
        lambda: masks.holes(20, 0, side=(24, 32)),
        lambda: masks.holes(64, 0, fraction=(0.9, 0.95)),
        lambda: masks.strokes(64, 0, fraction=(0.1, 0.05)),
        lambda: masks.random_pixels(8, 0, 1.5),
        lambda: masks.random_boxes(8, 0, (0.5, 0.5)),
        lambda: masks.half((0, 4)),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[[], masks.Mask]) -> None:
    with pytest.raises(UsageError):
        make()


def test_the_global_generator_is_left_alone() -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index,union-attr]
    for make in SEEDED.values():
        make((64, 64), 0)
    assert np.array_equal(before, np.random.get_state()[1])  # type: ignore[index]
