"""Where to work: windows around the holes of a picture, each with enough context, none larger than memory allows.

A *window* is what the network sees at once; its *core* is the part whose hole pixels are taken from it. The plan
looks at the hole on a grid of cells. Starting from the bounding box of everything, a box is either one window or is
split (at a gap between holes, else in the middle) and planned in parts, whichever costs the network less. So a few
small holes in a large picture cost only their surroundings, scattered strokes cost at most the whole picture once,
and a hole that is too large for one window becomes a row of overlapping ones, of which each later one sees what the
earlier ones have filled in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Start = Literal["noise", "coarse", "smooth"]

CELL = 8
MIN_CONTEXT, MAX_CONTEXT = 32, 128
# What one more window costs besides its pixels, in pixels: the fixed work of a network call.
OVERHEAD = 64 * 64
# A hole is only cut where that saves at least this share of the work.
SAVING = 0.2
_SMALL = 4  # cells; a box this small is never split
_LONG_GAP = 8  # cells; longer gaps are all equally good places for a cut


@dataclass(frozen=True)
class Box:
    """Rows top ... bottom - 1 and columns left ... right - 1."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.right - self.left

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the box in an array (H, W)."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def scaled(self, factor: int) -> Box:
        """All four numbers times ``factor``."""
        return Box(self.top * factor, self.left * factor, self.bottom * factor, self.right * factor)

    def inside(self, shape: Sequence[int]) -> Box:
        """The part of it that lies in an array (H, W)."""
        return Box(max(self.top, 0), max(self.left, 0), min(self.bottom, shape[0]), min(self.right, shape[1]))


@dataclass(frozen=True)
class Window:
    """A part of the picture that the network sees at once.

    Attributes:
        box: what it sees; rows and columns beyond the picture are reflected ones.
        core: the box, inside the picture, whose hole pixels are taken from it.
        thickness: about the side of the largest square that fits into the hole in the core, in pixels.
        scale: of the picture that box and core are parts of: 1 is full size, 2 is half the size, ...
        start: what its samples start from: "noise", the next "coarse" level, or a "smooth" fill of the hole.
        shared: whether it sees nothing that an earlier one filled in, so is the same for all samples.
    """

    box: Box
    core: Box
    thickness: int
    scale: int = 1
    start: Start = "noise"
    shared: bool = True

    def index(self, shape: Sequence[int]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Index (rows (h, 1), columns (1, w)) of the box in an array (H, W), reflected beyond the borders."""
        rows = _reflected(self.box.top, self.box.bottom, shape[0])
        columns = _reflected(self.box.left, self.box.right, shape[1])
        return rows[:, None], columns[None, :]


def plan_windows(
    todo: Bools,
    known: Bools | None = None,
    *,
    multiple: int = 1,
    max_area: int = 1024 * 1024,
    least: tuple[int, int] | None = None,
) -> tuple[Window, ...]:
    """Windows whose cores together hold every pixel of ``todo`` once.

    Args:
        todo: (H, W), True where a pixel is to be filled.
        known: (H, W), True where a pixel can be trusted; by default all that is not ``todo``.
        multiple: sides of a window are multiples of this.
        max_area: most pixels of a window (it may still exceed this where context alone needs more).
        least: (height, width) that every window has at least, for a prior of a fixed size: exactly these where the
            hole leaves a quarter of them on each side, or the picture is smaller.

    Returns:
        Windows in the order in which they should be filled; none for an empty ``todo``.
    """
    if not todo.any():
        return ()
    return _Planner(todo, ~todo if known is None else known, multiple, max_area, least).plan()


def bounding_box(mask: Bools, part: Box | None = None) -> Box:
    """The smallest box with all True pixels of a mask (H, W), or of a part of it, that has at least one."""
    part = part or Box(0, 0, *mask.shape)
    inner = mask[part.slices]
    rows, columns = (np.flatnonzero(inner.any(axis=axis)).tolist() for axis in (1, 0))
    return Box(part.top + rows[0], part.left + columns[0], part.top + rows[-1] + 1, part.left + columns[-1] + 1)


def format_box(shape: Sequence[int], part: Box, size: tuple[int, int]) -> Box:
    """The largest box of the format of ``size`` (height, width) in a picture (H, W) that holds ``part`` in its middle.

    The whole picture where no such box holds it all; on a picture smaller than ``size``, beyond its end.
    """
    factor = max(min(shape[0] / size[0], shape[1] / size[1]), 1.0)
    sides = [round(side * factor) for side in size]
    if factor == 1.0 or part.height > sides[0] or part.width > sides[1]:
        sides = [max(length, side) for length, side in zip(shape, size, strict=True)]
    starts = [
        min(max((low + high - side) // 2, 0), max(length - side, 0))
        for low, high, side, length in zip((part.top, part.left), (part.bottom, part.right), sides, shape, strict=True)
    ]
    return Box(starts[0], starts[1], starts[0] + sides[0], starts[1] + sides[1])


def thickness(hole: Bools) -> int:
    """About the side in pixels of the largest square in a hole (H, W); a hole at the border counts double."""
    return 2 * CELL * int(_depth(_cells(hole, full=True)).max())


class _Planner:
    def __init__(self, todo: Bools, known: Bools, multiple: int, max_area: int, least: tuple[int, int] | None) -> None:
        self.shape = todo.shape
        self.todo, self.multiple, self.max_area, self.least = todo, multiple, max_area, least or (0, 0)
        self.occupied = _cells(todo, full=False)
        self.depth = _depth(_cells(~known, full=True))

    def plan(self) -> tuple[Window, ...]:
        windows = self._best(Box(0, 0, *self.occupied.shape))[1]
        # Until here a core is made of cells.
        return tuple(replace(window, core=bounding_box(self.todo, window.core)) for window in windows)

    def _best(self, cells: Box) -> tuple[float, list[Window]]:
        """The cheapest plan for the occupied cells of a box that has some, and its cost in pixels."""
        cells = bounding_box(self.occupied, cells)
        window = self._window(cells)
        cost = window.box.area + OVERHEAD
        fits = window.box.area <= max(self.max_area, self.least[0] * self.least[1])
        dense = self.occupied[cells.slices].mean() > 0.5
        if cells.area == 1 or (fits and (max(cells.height, cells.width) <= _SMALL or dense)):
            return cost, [window]
        (first_cost, first), (second_cost, second) = (self._best(half) for half in self._halves(cells))
        if fits and cost * (1 - SAVING) <= first_cost + second_cost:
            return cost, [window]
        return first_cost + second_cost, first + second

    def _halves(self, cells: Box) -> tuple[Box, Box]:
        """A box cut across its longer side, in the longest gap between holes, else in the middle."""
        down = cells.height >= cells.width
        cut = _cut(np.asarray(self.occupied[cells.slices].any(axis=1 if down else 0)))
        if down:
            return replace(cells, bottom=cells.top + cut), replace(cells, top=cells.top + cut)
        return replace(cells, right=cells.left + cut), replace(cells, left=cells.left + cut)

    def _window(self, cells: Box) -> Window:
        height, width = self.shape
        core = cells.scaled(CELL).inside(self.shape)
        thick = 2 * CELL * int(self.depth[cells.slices].max())
        context = min(max(thick // 2, MIN_CONTEXT), MAX_CONTEXT)
        top, bottom = _span(core.top, core.bottom, context, height, self.multiple, self.least[0])
        left, right = _span(core.left, core.right, context, width, self.multiple, self.least[1])
        return Window(Box(top, left, bottom, right), core, thick)


def _cut(occupied: Bools) -> int:
    """Where to cut a row of cells (its ends are occupied, length >= 2): at 1 ... length - 1."""
    length = len(occupied)

    def score(gap: tuple[int, int]) -> float:
        return min(gap[1] - gap[0], _LONG_GAP) - abs((gap[0] + gap[1]) // 2 * 2 - length) / length

    gaps = [(low + 1, high) for low, high in pairwise(np.flatnonzero(occupied).tolist()) if high > low + 1]
    start, stop = max(gaps, key=score, default=(0, length))
    return (start + stop) // 2


def _span(start: int, stop: int, context: int, length: int, multiple: int, least: int) -> tuple[int, int]:
    """One side of a window around start ... stop: inside 0 ... length where it fits there, else beyond the end."""
    if stop - start <= least - 2 * (least // 4):
        context = min(context, (least - (stop - start)) // 2)
    low, high = max(0, start - context), min(length, stop + context)
    want = least if high - low <= least else -(-(high - low) // multiple) * multiple
    if want >= length:
        return 0, want
    low = min(max(0, low - (want - (high - low)) // 2), length - want)
    return low, low + want


def _reflected(start: int, stop: int, length: int) -> NDArray[np.intp]:
    """start ... stop - 1, with what lies beyond 0 ... length - 1 reflected back, the border pixel not repeated."""
    index = np.arange(start, stop, dtype=np.intp) % max(2 * length - 2, 1)
    return np.where(index < length, index, 2 * length - 2 - index)


def _cells(mask: Bools, *, full: bool) -> Bools:
    """Cells of a mask (H, W) that are True everywhere (full) or anywhere; those at the border may be smaller."""
    cells = blocks(mask, CELL, full)
    return np.asarray(cells.all(axis=(1, 3)) if full else cells.any(axis=(1, 3)))


def blocks(mask: Bools, side: int, fill: bool | None) -> Bools:
    """A mask (H, W) as (h, side, w, side), grown below and to the right with a value or, for None, its last pixels."""
    margin = [(0, -length % side) for length in mask.shape]
    padded = np.pad(mask, margin, mode="edge") if fill is None else np.pad(mask, margin, constant_values=fill)
    return padded.reshape(padded.shape[0] // side, side, -1, side)


def _depth(full: Bools) -> NDArray[np.int32]:
    """For each cell the number of rings of full cells around it, itself included; beyond the border all are full."""
    depth = np.zeros(full.shape, dtype=np.int32)
    inside = full
    for _ in range(max(full.shape)):
        if not inside.any():
            break
        depth += inside
        padded = np.pad(inside, 1, constant_values=True)
        rows = padded[:-2] & padded[1:-1] & padded[2:]
        inside = rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:]
    return depth
