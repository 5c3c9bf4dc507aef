"""Windows hold every hole pixel once, have their context, fit the network, and cost no more than they must."""

from __future__ import annotations

import numpy as np
import pytest

from priorpaint.inpainting.windows import (
    MAX_CONTEXT,
    MIN_CONTEXT,
    Box,
    Window,
    bounding_box,
    format_box,
    plan_windows,
    thickness,
)

MULTIPLE = 16


def strokes(height: int, width: int, count: int, seed: int) -> np.ndarray:
    """Straight strokes, 3 pixels thick, anywhere."""
    rng = np.random.default_rng(seed)
    hole = np.zeros((height, width), dtype=bool)
    for _ in range(count):
        ends = rng.integers(0, (height, width), size=(2, 2))
        for share in np.linspace(0, 1, 2 * max(height, width)):
            y, x = np.rint(ends[0] * (1 - share) + ends[1] * share).astype(int)
            hole[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = True
    return hole


def box_hole(height: int, width: int, *boxes: tuple[int, int, int, int]) -> np.ndarray:
    hole = np.zeros((height, width), dtype=bool)
    for top, left, bottom, right in boxes:
        hole[top:bottom, left:right] = True
    return hole


def area(windows: tuple[Window, ...]) -> int:
    return sum(window.box.area for window in windows)


HOLES = {
    "dots": np.random.default_rng(0).random((257, 333)) < 0.002,
    "strokes": strokes(257, 333, 6, seed=1),
    "block": box_hole(400, 300, (100, 60, 330, 250)),
    "corner": box_hole(90, 130, (0, 0, 20, 30)),
    "frame": ~box_hole(300, 420, (20, 20, 280, 400)),
    "tiny picture": box_hole(17, 16, (3, 3, 9, 16)),
    "all but one pixel": ~box_hole(70, 50, (69, 49, 70, 50)),
    "noise": np.random.default_rng(2).random((131, 77)) < 0.5,
}


@pytest.mark.parametrize("name", HOLES)
@pytest.mark.parametrize("max_area", [128 * 128, 1024 * 1024])
def test_every_hole_pixel_is_in_exactly_one_core_and_seen_by_its_window(name: str, max_area: int) -> None:
    hole = HOLES[name]
    count = np.zeros(hole.shape, dtype=int)
    for window in plan_windows(hole, multiple=MULTIPLE, max_area=max_area):
        box, core = window.box, window.core
        assert box.top <= core.top and box.left <= core.left
        assert core.bottom <= box.bottom and core.right <= box.right
        assert 0 <= core.top and core.bottom <= hole.shape[0] and 0 <= core.left and core.right <= hole.shape[1]
        count[core.slices] += 1
    assert (count[hole] == 1).all()


@pytest.mark.parametrize("name", HOLES)
def test_windows_fit_the_network_and_leave_the_picture_only_where_it_is_too_small(name: str) -> None:
    hole = HOLES[name]
    for window in plan_windows(hole, multiple=MULTIPLE):
        box = window.box
        assert box.height % MULTIPLE == 0 and box.width % MULTIPLE == 0
        for start, stop, length in ((box.top, box.bottom, hole.shape[0]), (box.left, box.right, hole.shape[1])):
            assert start >= 0
            assert stop <= length or (start == 0 and stop < length + MULTIPLE)


@pytest.mark.parametrize("name", HOLES)
def test_context_on_every_side_up_to_the_border(name: str) -> None:
    hole = HOLES[name]
    for window in plan_windows(hole, multiple=MULTIPLE):
        box, core = window.box, window.core
        least = min(max(MIN_CONTEXT, window.thickness // 2), MAX_CONTEXT)
        assert core.top - box.top >= min(least, core.top)
        assert core.left - box.left >= min(least, core.left)
        assert box.bottom - core.bottom >= min(least, hole.shape[0] - core.bottom)
        assert box.right - core.right >= min(least, hole.shape[1] - core.right)


def test_no_hole_no_window() -> None:
    assert plan_windows(np.zeros((40, 40), dtype=bool)) == ()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("count", [1, 4, 12, 40])
def test_strokes_cost_at_most_the_whole_picture_once(seed: int, count: int) -> None:
    hole = strokes(384, 512, count, seed)
    assert area(plan_windows(hole, multiple=MULTIPLE)) <= 384 * 512


def test_few_small_holes_cost_their_surroundings_only() -> None:
    holes = ((100, 200, 130, 230), (1500, 3000, 1520, 3060), (2980, 3980, 3000, 4000), (2900, 10, 2950, 30))
    windows = plan_windows(box_hole(3000, 4000, *holes), multiple=MULTIPLE)
    assert len(windows) == 4
    # A hole of h x w takes at most (h + 2 * 32 + cell rounding 2 * 8 + multiple 16) x (the same of w).
    assert area(windows) <= sum((bottom - top + 96) * (right - left + 96) for top, left, bottom, right in holes)


def test_near_holes_share_a_window() -> None:
    windows = plan_windows(box_hole(600, 600, (100, 100, 120, 120), (130, 128, 150, 150)), multiple=MULTIPLE)
    assert len(windows) == 1


def test_a_scratch_across_a_large_picture_is_followed_not_framed() -> None:
    hole = box_hole(2000, 2000)
    for i in range(2000):
        hole[i, max(i - 2, 0) : i + 2] = True
    assert area(plan_windows(hole, multiple=MULTIPLE)) < 0.2 * 2000 * 2000


def test_a_hole_too_large_for_one_window_becomes_several_that_overlap() -> None:
    limit = 512 * 512
    windows = plan_windows(box_hole(2000, 2200, (300, 300, 1700, 1800)), multiple=MULTIPLE, max_area=limit)
    assert len(windows) > 4
    assert max(window.box.area for window in windows) <= limit
    boxes = np.zeros((2000, 2200), dtype=int)
    for window in windows:
        boxes[window.box.slices] += 1
    assert boxes[300:1700, 300:1800].min() >= 1 and boxes.max() > 1


@pytest.mark.parametrize("shape", [(200, 300), (64, 64), (40, 50), (64, 200)])
def test_windows_of_a_least_size(shape: tuple[int, int]) -> None:
    hole = np.random.default_rng(3).random(shape) < 0.01
    windows = plan_windows(hole, least=(64, 64))
    assert min(min(window.box.height, window.box.width) for window in windows) >= 64
    count = np.zeros(shape, dtype=int)
    for window in windows:
        count[window.core.slices] += 1
        assert window.box.top <= window.core.top and window.core.bottom <= window.box.bottom
        assert window.box.left <= window.core.left and window.core.right <= window.box.right
        for low, high, side, length in zip(
            (window.box.top, window.box.left),
            (window.box.bottom, window.box.right),
            (64, 64),
            shape,
            strict=True,
        ):
            assert high <= length or high - low == side  # beyond the border only where the picture is smaller
    assert (count[hole] == 1).all()


def test_a_picture_of_the_least_size_is_one_window() -> None:
    hole = box_hole(64, 64, (0, 0, 10, 10), (50, 50, 64, 64))
    assert [window.box for window in plan_windows(hole, least=(64, 64))] == [Box(0, 0, 64, 64)]


@pytest.mark.parametrize(("side", "expected"), [(8, 64), (32, 64), (40, 104)])
def test_a_hole_that_leaves_a_quarter_of_the_least_size_stays_in_one_window_of_it(side: int, expected: int) -> None:
    hole = box_hole(400, 400, (200, 200, 200 + side, 200 + side))
    (window,) = plan_windows(hole, least=(64, 64))
    assert (window.box.height, window.box.width) == (expected, expected)


@pytest.mark.parametrize(
    ("shape", "part", "size", "expected"),
    [
        ((100, 300), Box(40, 200, 60, 220), (32, 32), Box(0, 160, 100, 260)),
        ((100, 300), Box(0, 290, 60, 300), (32, 32), Box(0, 200, 100, 300)),
        ((100, 300), Box(40, 20, 60, 220), (32, 32), Box(0, 0, 100, 300)),
        ((300, 100), Box(10, 40, 20, 60), (64, 32), Box(0, 0, 200, 100)),
        ((20, 50), Box(5, 5, 10, 10), (32, 32), Box(0, 0, 32, 50)),
        ((32, 32), Box(5, 5, 10, 10), (32, 32), Box(0, 0, 32, 32)),
    ],
)
def test_the_box_of_a_format(shape: tuple[int, int], part: Box, size: tuple[int, int], expected: Box) -> None:
    assert format_box(shape, part, size) == expected


@pytest.mark.parametrize(("length", "stop"), [(17, 32), (16, 40), (16, 64), (1, 16)])
def test_index_beyond_the_border_is_numpys_reflection(length: int, stop: int) -> None:
    window = Window(Box(0, 0, stop, 8), Box(0, 0, 1, 1), 0)
    rows, columns = window.index((length, 8))
    expected = np.pad(np.arange(length), (0, stop - length), mode="reflect" if length > 1 else "edge")
    assert rows.shape == (stop, 1) and columns.shape == (1, 8)
    assert (rows[:, 0] == expected).all()


@pytest.mark.parametrize("side", [8, 24, 64, 96, 200])
def test_thickness_is_that_of_the_largest_square_within_two_cells(side: int) -> None:
    for offset in range(0, 8, 3):
        start = 104 + offset
        hole = box_hole(500, 500, (start, start, start + side, start + side), (10, 300, 13, 490))
        assert abs(thickness(hole) - side) <= 16


def test_thickness_of_a_hole_at_the_border_counts_the_way_from_what_is_known() -> None:
    assert abs(thickness(box_hole(300, 300, (0, 0, 300, 80))) - 2 * 80) <= 16


def test_scattered_dots_over_forty_megapixels_stay_within_memory_and_about_one_pass() -> None:
    rng = np.random.default_rng(4)
    hole = np.zeros((5000, 8000), dtype=bool)
    hole[rng.integers(0, 5000, 3000), rng.integers(0, 8000, 3000)] = True
    windows = plan_windows(hole, multiple=MULTIPLE)
    assert max(window.box.area for window in windows) <= 1024 * 1024
    assert area(windows) <= 1.3 * hole.size  # at worst every tile is seen, with its context


def test_bounding_box() -> None:
    assert bounding_box(box_hole(20, 30, (3, 4, 5, 9), (10, 1, 12, 2))) == Box(3, 1, 12, 9)
