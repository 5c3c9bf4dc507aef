"""What becomes of a mask once it is known: larger, smaller, soft inside the hole, beyond the picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorpaint.errors import UsageError
from priorpaint.imaging.arrays import ArrayImage
from priorpaint.imaging.picture import OPAQUE, Picture, opacity_of
from priorpaint.imaging.ranges import full_range
from priorpaint.imaging.reading import MAX_PIXELS

Bools = NDArray[np.bool_]

MAX_DISTANCE = 10_000
_STRIP = 1024  # columns at a time
_ROWS = 32


def grow(known: Bools, pixels: int) -> Bools:
    """A mask whose hole is larger by a disk: what is at most ``pixels`` from the hole is repainted, too.

    Args:
        known: (H, W), True where known.
        pixels: radius, from -10,000 to 10,000; a negative one makes the hole smaller.

    Raises:
        UsageError: no such mask, the radius is too large, or nothing would be left to repaint, or nothing known.
    """
    _check_mask(known)
    _check_distance("grow", pixels)
    if pixels == 0:
        return known
    out, part = known.copy(), _around(~known, abs(pixels) + 1)
    if pixels > 0:
        out[part] = distance_to(~known[part], pixels) > pixels
    else:
        out[part] = distance_to(known[part], -pixels) <= -pixels
    if not out.any():
        raise UsageError(f"a hole grown by {pixels} pixels covers the whole picture; grow it less.")
    if out.all():
        raise UsageError(f"a hole that shrinks by {-pixels} pixels is gone; shrink it less.")
    return out


def feather(known: Bools, pixels: int, own: Bools | None = None) -> NDArray[np.float32]:
    """The weight (H, W), from 0 to 1, of a completion against the picture's own pixels, which the mask says to repaint.

    It is 0 on known pixels and rises inside the hole with the distance d from them, d / (pixels + 1), to 1.

    Args:
        known: (H, W), True where known.
        pixels: width of the seam, from 0 to 10,000; 0 gives weights of 0 and 1.
        own: (H, W), False where the picture has nothing of its own to show; there the weight is 1.

    Raises:
        UsageError: no such mask, a width that is negative or too large, or nothing of the picture's own to blend with.
    """
    _check_mask(known)
    _check_distance("feather", pixels)
    if pixels < 0:
        raise UsageError(f"a seam has a width of at least 0 pixels, not {pixels}.")
    weight, part = np.zeros(known.shape, dtype=np.float32), _around(~known, pixels + 1)
    weight[part] = np.minimum(distance_to(known[part], pixels) / (pixels + 1), 1)
    if own is not None:
        weight[~own & ~known] = 1
    if pixels and not ((weight > 0) & (weight < 1)).any():
        raise UsageError(
            "there is nothing to blend with: what is repainted has nothing of its own; let the hole reach into the "
            f"picture, such as with --grow {pixels}, or leave --feather out."
        )
    return weight


def extended_picture(picture: Picture, sides: Sequence[int]) -> Picture:
    """A picture on a larger canvas, opaque in its new parts, which continue its border pixels until they are filled.

    Args:
        picture: its own pixels stay as they are.
        sides: pixels to the left, above, to the right and below; none negative.

    Raises:
        UsageError: these are not such four numbers, or the canvas has more than 40 megapixels.
    """
    left, top, right, bottom = checked_sides(sides)
    width, height = picture.size[0] + left + right, picture.size[1] + top + bottom
    if width * height > MAX_PIXELS:
        raise UsageError(
            f"{picture.name} would become {width}x{height}, more than {MAX_PIXELS // 10**6} megapixels; extend it less."
        )
    pixels, alpha = np.array(picture.image), picture.alpha
    margin = ((top, bottom), (left, right), (0, 0))[: pixels.ndim]
    canvas = np.pad(pixels, margin, mode="edge")
    new = extended_known(np.ones(pixels.shape[:2], dtype=np.bool_), sides)
    if picture.mode in ("LA", "RGBA"):
        canvas[..., -1][~new] = full_range(pixels.dtype).high
    elif alpha is not None and (alpha >= OPAQUE).any():
        clear = np.pad(alpha, margin[:2], mode="edge") < OPAQUE
        canvas[~new & clear] = pixels[alpha >= OPAQUE][0]
    if isinstance(picture.image, ArrayImage):
        wide = picture.image.holding(canvas)
        return replace(picture, image=wide, alpha=opacity_of(wide))
    # Cropping beyond the borders keeps mode, palette and info.
    image = picture.image.crop((-left, -top, picture.size[0] + right, picture.size[1] + bottom))
    data = np.packbits(canvas, axis=1) if picture.mode == "1" else canvas
    image.frombytes(np.ascontiguousarray(data).tobytes())
    return replace(picture, image=image, alpha=opacity_of(image))


def extended_known(known: Bools, sides: Sequence[int]) -> Bools:
    """A mask (H, W) on a larger canvas, the new parts of which are to be repainted; ``sides`` as `extended_picture`."""
    left, top, right, bottom = checked_sides(sides)
    return np.pad(known, ((top, bottom), (left, right)), constant_values=False)


def checked_sides(sides: Sequence[int]) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) in pixels.

    Raises:
        UsageError: one is missing or negative, or all are 0.
    """
    numbers = list(sides) if isinstance(sides, Iterable) else [None]
    if not all(isinstance(side, Integral) for side in numbers):
        raise UsageError(f"a picture is extended by whole numbers of pixels, not by {sides!r}.")
    numbers = [int(side) for side in numbers]
    if len(numbers) != 4 or min(numbers) < 0 or not any(numbers):
        text = ",".join(map(str, numbers))
        raise UsageError(f"a picture is extended by left,top,right,bottom pixels, such as 0,0,64,0, not by {text}.")
    left, top, right, bottom = numbers
    return left, top, right, bottom


def parse_sides(text: str) -> tuple[int, int, int, int]:
    """The four sides that "left,top,right,bottom" says, in whole pixels.

    Raises:
        UsageError: the text says something else.
    """
    try:
        return checked_sides([int(part) for part in str(text).split(",")])
    except ValueError:
        raise UsageError(
            f"a picture is extended by left,top,right,bottom in whole pixels, such as 0,0,64,0, not by {text!r}."
        ) from None


def connected(seeds: Bools, inside: Bools) -> Bools:
    """The pixels (H, W) of ``inside`` from which a path of neighbours (4) in it leads to one of ``seeds``."""
    out: Bools = seeds & inside
    while True:
        before = np.count_nonzero(out)
        out = _along_rows(_along_rows(out, inside).T, inside.T).T
        if np.count_nonzero(out) == before:
            return out


def distance_to(mask: Bools, limit: int) -> NDArray[np.float32]:
    """Euclidean distance (H, W) in pixels to the nearest True pixel, exact up to ``limit``; beyond it limit + 1.

    Squared distances are separable (Felzenszwalb and Huttenlocher, "Distance transforms of sampled functions", 2012):
    first within each column, then the least along each row.
    """
    far = limit + 1
    out = np.full(mask.shape, far, dtype=np.float32)
    if not mask.any():
        return out
    box = _around(mask, limit)
    part = mask[box]
    height, width = part.shape
    down = np.empty(part.shape, dtype=np.uint16)
    for start in range(0, width, _STRIP):
        down[:, start : start + _STRIP] = _along_columns(part[:, start : start + _STRIP], far)
    for start in range(0, height, _ROWS):
        squares = down[start : start + _ROWS].astype(np.int32) ** 2
        best = squares.copy()
        for step in range(1, min(limit, width - 1) + 1):
            np.minimum(best[:, step:], squares[:, :-step] + step * step, out=best[:, step:])
            np.minimum(best[:, :-step], squares[:, step:] + step * step, out=best[:, :-step])
        distance = np.sqrt(best, dtype=np.float32)
        distance[best > limit * limit] = far
        out[box][start : start + _ROWS] = distance
    return out


def _around(mask: Bools, margin: int) -> tuple[slice, slice]:
    """Where (rows, columns) an array has all that lies in the bounding box of a mask's True pixels or near it."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)).tolist() for axis in (1, 0))
    if not rows:
        return slice(None), slice(None)
    first, second = (slice(max(line[0] - margin, 0), line[-1] + margin + 1) for line in (rows, columns))
    return first, second


def _along_columns(mask: Bools, far: int) -> NDArray[np.int32]:
    """Distance to the nearest True pixel of the same column, at most ``far``."""
    height = len(mask)
    index = np.arange(height, dtype=np.int32)[:, None]
    last = np.maximum.accumulate(np.where(mask, index, -far), axis=0)
    following = np.minimum.accumulate(np.where(mask, index, height + far)[::-1], axis=0)[::-1]
    return np.minimum(np.minimum(index - last, following - index), far).astype(np.int32)


def _along_rows(seeds: Bools, inside: Bools) -> Bools:
    """Every horizontal run of ``inside`` that has a seed."""
    starts = inside.copy()
    starts[:, 1:] &= ~inside[:, :-1]
    runs = np.cumsum(starts, dtype=np.int32).reshape(inside.shape)  # run 0 is what comes before the first
    chosen = np.zeros(int(runs[-1, -1]) + 1, dtype=np.bool_)
    chosen[runs[seeds]] = True
    return inside & chosen[runs]


def _check_mask(known: Any) -> None:
    if not (isinstance(known, np.ndarray) and known.dtype == np.bool_ and known.ndim == 2):
        raise UsageError("a mask here is an array (H, W) of bool, True where known, as `read_mask` gives it.")


def _check_distance(name: str, pixels: Any) -> None:
    if not isinstance(pixels, Integral):
        raise UsageError(f"--{name} takes a whole number of pixels, not {pixels!r}.")
    distance = abs(int(pixels))
    if distance > MAX_DISTANCE:
        raise UsageError(f"--{name} takes at most {MAX_DISTANCE} pixels, not {distance}.")
