"""What a page does to a mask before a job: larger, smaller, turned round, without islands, from a colour."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from priorpaint.errors import UsageError
from priorpaint.imaging import Picture, mask_from_alpha, mask_picture
from priorpaint.imaging.masks import grow, mask_from_color
from priorpaint.imaging.reading import load_upright

from .views import png

OPERATIONS = ("grow", "shrink", "invert", "fill", "color", "alpha")
_WHITE = 128
_MOST_ROUNDS = 64


def read_hole(data: bytes, size: tuple[int, int]) -> NDArray[np.bool_]:
    """(H, W), True where a mask file is white; unlike a job's mask it may be empty.

    Args:
        size: (width, height) that it has to have.

    Raises:
        UsageError: it cannot be read, or has another size.
    """
    image = load_upright(data, picture=False).image
    if image.size != size:
        raise UsageError(f"the mask has {image.width}x{image.height} pixels and the picture {size[0]}x{size[1]}.")
    return np.asarray(image.convert("L")) >= _WHITE


def adjusted(
    operation: str,
    picture: Picture,
    hole: NDArray[np.bool_] | None,
    pixels: int = 0,
    color: str | None = None,
    tolerance: int | None = None,
) -> bytes:
    """A mask file (PNG, white = repaint) after one of `OPERATIONS`.

    Args:
        hole: (H, W), True where to repaint; None is an empty one, to which colour and alpha add.
        pixels: of grow and shrink.
        color, tolerance: as for `imaging.masks.mask_from_color`.

    Raises:
        UsageError: there is no such operation, or nothing for it to work on.
    """
    if operation not in OPERATIONS:
        raise UsageError(f"there is no operation {operation!r}; there are {', '.join(OPERATIONS)}.")
    out = np.zeros(picture.size[::-1], dtype=np.bool_) if hole is None else hole
    if operation in ("grow", "shrink", "fill") and not out.any():
        raise UsageError("the mask is empty; paint something first.")
    if operation in ("grow", "shrink"):
        out = ~grow(~out, pixels if operation == "grow" else -pixels)
    elif operation == "invert":
        out = ~out
    elif operation == "fill":
        out = filled(out)
    elif operation == "alpha":
        out = out | ~mask_from_alpha(picture).known
    elif color is None:
        raise UsageError('which colour is to be repainted? Give color, such as "#ffff00".')
    else:
        out = out | ~mask_from_color(picture, color, tolerance).known
    return png(mask_picture(~out))


def filled(hole: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The hole and all that it surrounds: what is not connected (by edges) with the picture's border.

    Raises:
        UsageError: a way out of it turns so often that following it takes too long.
    """
    outside = np.zeros_like(hole)
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        outside[edge] = ~hole[edge]
    count = -1
    for _ in range(_MOST_ROUNDS):  # a way out takes half as many as it has turns
        if (now := int(outside.sum())) == count:
            return ~outside
        count = now
        for axis in (0, 1):
            outside = _spread(outside, hole, axis)
    raise UsageError("the mask winds too much for its islands to be found; paint over them, or make the mask larger.")


def _spread(outside: NDArray[np.bool_], hole: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """What is outside, and all that it reaches along an axis, both ways, without crossing the hole."""
    for step in (1, -1):
        flip = np.s_[::step] if axis == 0 else np.s_[:, ::step]
        there, wall = outside[flip], hole[flip]
        shape = (-1, 1) if axis == 0 else (1, -1)
        # 2i + 2 at a wall, 2i + 3 outside: the larger of what came before says which of the two was last.
        index = 2 * np.arange(hole.shape[axis], dtype=np.int32).reshape(shape) + 2
        marks = np.where(there, index + 1, np.where(wall, index, 0))
        last = np.maximum.accumulate(marks, axis=axis)
        outside = (last % 2 == 1)[flip] | outside
    return outside
