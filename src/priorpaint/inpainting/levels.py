"""The work for one picture: its windows at every scale, finest first."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .windows import Bools, Box, Start, Window, blocks, bounding_box, format_box, plan_windows, thickness

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
    """

    scale: int
    known: Bools
    todo: Bools
    windows: tuple[Window, ...]


def plan_levels(
    known: Bools,
    todo: Bools,
    *,
    multiple: int,
    max_area: int,
    size: tuple[int, int] | None,
    coarse: bool,
    smooth: bool = False,
) -> tuple[Level, ...]:
    """The work for one picture, finest scale first.

    Args:
        known: (H, W), True where a pixel is known.
        todo: (H, W), True where a pixel is to be filled; others that are not known are left open.
        multiple, max_area: see ``plan_windows``.
        size: (height, width) of the pictures that a fixed-size prior knows, the least that a window has.
        coarse: whether wide holes are filled at coarser scales first. For a prior of a fixed size they are wide above
            half of it, and coarser scales end where it sees the whole picture at once.
        smooth: whether thin holes of the picture itself start from a smooth fill; not for a prior of a fixed size.
    """
    half = None if size is None else min(size) // 2
    above, coarsest, least = (COARSE_ABOVE, COARSEST, 2 * COARSEST) if half is None else (half, half, 4 * half)
    levels: list[Level] = []
    scale = 1
    while True:
        windows = plan_windows(todo, known, multiple=multiple, max_area=max_area, least=size)
        limit = (above if scale == 1 else coarsest) if coarse and min(known.shape) >= least else None
        filled, wanted, here = np.zeros_like(todo), np.zeros_like(todo), []
        for window in windows:
            part, core = window.box.inside(todo.shape).slices, window.core.slices
            start: Start = "noise"
            if limit is not None and window.thickness > limit:
                start = "coarse"
            elif smooth and scale == 1 and size is None and window.thickness <= COARSE_ABOVE:
                start = "smooth"
            here.append(replace(window, scale=scale, start=start, shared=not filled[part].any()))
            filled[core] |= todo[core]
            if start == "coarse":
                wanted[part] = ~known[part]
        levels.append(Level(scale, known, todo, tuple(here)))
        if not wanted.any():
            return tuple(levels)
        known, todo = halved_known(known), np.asarray(blocks(wanted, 2, fill=False).any(axis=(1, 3)))
        todo &= ~known
        scale *= 2


def plan_whole(known: Bools, todo: Bools, size: tuple[int, int]) -> Level:
    """One window that holds all of ``todo`` (H, W) and as much of the picture as the format of ``size`` allows."""
    core = bounding_box(todo)
    window = Window(format_box(todo.shape, core, size), core, thickness(todo))
    return Level(1, known, todo, (window,))


def frame_of(todo: Bools, size: tuple[int, int] | None) -> Box:
    """The part of a picture (H, W) that can matter for filling ``todo``."""
    box = bounding_box(todo)
    margin = max(128, thickness(todo), *(size or (0,)))
    return Box(box.top - margin, box.left - margin, box.bottom + margin, box.right + margin).inside(todo.shape)


def halved_known(known: Bools) -> Bools:
    """A coarse pixel is known where at least half of its block is."""
    enough: Bools = blocks(known, 2, fill=None).sum(axis=(1, 3)) >= 2
    return enough
