"""The work for one picture: its windows at every scale, finest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .windows import Bools, Box, Window, bounding_box, format_box, plan_windows, thickness

# Holes wider than this, in pixels, are filled from coarse to fine, starting where they are at most COARSEST wide. Both
# are small, because the colour of a hole is settled far better in a few coarse pixels (docs/results/defaults.md).
COARSE_ABOVE, COARSEST = 10, 10
# Largest windows, in pixels times samples, without and with a gradient through the network; the network for photos
# takes about 0.4 and 1.2 GB a megapixel.
MAX_AREA, MAX_AREA_GRADIENT = 1024 * 1024, 640 * 640


@dataclass(frozen=True)
class Level:
    """The picture at one scale.

    Attributes:
        scale: 1 is full size, 2 is half the size, ...
        known: (h, w), True where a pixel of this scale is known.
        todo: (h, w), True where one is to be filled at this scale.
        windows: where, in order.
        warm: for each window, whether it starts from the next coarser level.
        shared: for each window, whether it sees nothing that an earlier one filled in, so is the same for all samples.
    """

    scale: int
    known: Bools
    todo: Bools
    windows: tuple[Window, ...]
    warm: tuple[bool, ...]
    shared: tuple[bool, ...]


def plan_levels(
    known: Bools, todo: Bools, *, multiple: int, max_area: int, size: tuple[int, int] | None, coarse: bool
) -> tuple[Level, ...]:
    """The work for one picture, finest scale first.

    Args:
        known: (H, W), True where a pixel is known.
        todo: (H, W), True where a pixel is to be filled; others that are not known are left open.
        multiple, max_area: see ``plan_windows``.
        size: (height, width) of the pictures that a fixed-size prior knows, the least that a window has.
        coarse: whether wide holes are filled at coarser scales first. For a prior of a fixed size they are wide above
            half of it, and coarser scales end where it sees the whole picture at once.
    """
    half = None if size is None else min(size) // 2
    above, coarsest, least = (COARSE_ABOVE, COARSEST, 2 * COARSEST) if half is None else (half, half, 4 * half)
    levels: list[Level] = []
    scale = 1
    while True:
        windows = plan_windows(todo, known, multiple=multiple, max_area=max_area, least=size)
        limit = (above if scale == 1 else coarsest) if coarse and min(known.shape) >= least else None
        warm = tuple(limit is not None and window.thickness > limit for window in windows)
        levels.append(Level(scale, known, todo, windows, warm, _shared(windows, todo)))
        if not any(warm):
            return tuple(levels)
        wanted = np.zeros_like(todo)
        for window in (window for window, starts in zip(windows, warm, strict=True) if starts):
            part = inside(window.box, todo.shape).slices
            wanted[part] = ~known[part]
        known, todo = halved_known(known), np.asarray(_blocks(wanted, value=False).any(axis=(1, 3)))
        todo &= ~known
        scale *= 2


def plan_whole(known: Bools, todo: Bools, size: tuple[int, int]) -> Level:
    """One window that holds all of ``todo`` (H, W) and as much of the picture as the format of ``size`` allows."""
    core = bounding_box(todo)
    window = Window(format_box(todo.shape, core, size), core, thickness(todo))
    return Level(1, known, todo, (window,), (False,), (True,))


def frame_of(todo: Bools, size: tuple[int, int] | None) -> Box:
    """The part of a picture (H, W) that can matter for filling ``todo``."""
    box = bounding_box(todo)
    margin = max(128, thickness(todo), *(size or (0,)))
    return inside(Box(box.top - margin, box.left - margin, box.bottom + margin, box.right + margin), todo.shape)


def inside(box: Box, shape: Sequence[int]) -> Box:
    return Box(max(box.top, 0), max(box.left, 0), min(box.bottom, shape[0]), min(box.right, shape[1]))


def _shared(windows: Sequence[Window], todo: Bools) -> tuple[bool, ...]:
    filled = np.zeros_like(todo)
    answers = []
    for window in windows:
        answers.append(not filled[inside(window.box, todo.shape).slices].any())
        filled[window.core.slices] |= todo[window.core.slices]
    return tuple(answers)


def halved_known(known: Bools) -> Bools:
    """A coarse pixel is known where at least half of its block is."""
    enough: Bools = _blocks(known, value=None).sum(axis=(1, 3)) >= 2
    return enough


def _blocks(mask: Bools, *, value: bool | None) -> NDArray[np.bool_]:
    """A mask (H, W) as (h, 2, w, 2), an odd side padded with ``value`` or, for None, with its last row or column."""
    odd = ((0, mask.shape[0] % 2), (0, mask.shape[1] % 2))
    padded = np.pad(mask, odd, mode="edge") if value is None else np.pad(mask, odd, constant_values=value)
    return padded.reshape(padded.shape[0] // 2, 2, padded.shape[1] // 2, 2)
