"""Masks from files, transparency, colours, differences and boxes.

In files white means *repaint*; here True means *known*.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from priorpaint.errors import UsageError
from priorpaint.imaging.mask_contents import (
    THRESHOLD,
    TOLERANCE,
    check_depth,
    check_tolerance,
    difference,
    in_between,
    matching,
    one_sided,
    whiteness,
)
from priorpaint.imaging.mask_shapes import (
    connected,
    extended_known,
    extended_picture,
    feather,
    grow,
    parse_sides,
)
from priorpaint.imaging.picture import OPAQUE, Picture
from priorpaint.imaging.reading import Source, load_upright

__all__ = [
    "THRESHOLD",
    "Box",
    "Colors",
    "Mask",
    "extended_known",
    "extended_picture",
    "feather",
    "grow",
    "mask_from_alpha",
    "mask_from_boxes",
    "mask_from_color",
    "mask_from_difference",
    "mask_picture",
    "parse_box",
    "parse_sides",
    "read_mask",
    "share_warning",
]

Box = tuple[int, int, int, int]
Colors = str | int | Sequence[str | int]

_HOLE_SHARE = 0.90
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = range(5, 9)


@dataclass(frozen=True, eq=False)
class Mask:
    """Which pixels are known.

    Attributes:
        known: (H, W), bool, True where the pixel is known and must not change.
        warnings: what the user should hear about, one sentence each.
        sha256: of the file that it was read from, in hexadecimal; None without one.
    """

    known: NDArray[np.bool_]
    warnings: tuple[str, ...] = ()
    sha256: str | None = None

    @property
    def hole_share(self) -> float:
        """The part of the pixels that is to be repainted, between 0 and 1."""
        return float(1 - self.known.mean())


def read_mask(
    source: Source,
    size: tuple[int, int],
    *,
    means: str = "repaint",
    color: Colors | None = None,
    tolerance: int | None = None,
    orientation: int = 1,
    turn: bool = False,
) -> Mask:
    """Read a mask for a picture of `size` = (width, height), both upright.

    Values of 128 and above count as white. White says *repaint* with `means="repaint"` and *keep* with `means="keep"`.
    A mask with transparency is read by its opacity where that says more (opaque = white, as painting programs export a
    painted layer), else by its luminance.

    Args:
        source: a path, bytes, an open binary file, a PIL image, or an array (H, W) of bool, of 0 and 1, or of uint8.
        size: of the picture, (width, height) in pixels.
        means: what white means.
        color: what counts as white instead, one or several colours or stored values; see `mask_contents.matching`.
        tolerance: of ``color``.
        orientation: the EXIF orientation by which the picture was turned (`Picture.orientation`).
        turn: turn the mask in the same way: it was painted on the picture as it is stored.

    Raises:
        UsageError: the file cannot be read, has another size, leaves nothing to repaint or nothing known.
    """
    if means not in ("repaint", "keep"):
        raise UsageError(f"White in a mask can mean 'repaint' or 'keep', not {means!r}.")
    if orientation not in range(1, 9):
        raise UsageError(f"an EXIF orientation is a number from 1 to 8, not {orientation!r}.")
    size = _size(size)
    loaded = load_upright(source, picture=False)
    name, image = loaded.name, loaded.image
    if turn:
        image = _turned(loaded, orientation)
    _check_size(name, image.size, size, orientation, loaded.orientation)
    warnings = []
    if orientation != 1 and loaded.orientation == 1 and not turn:
        warnings.append(
            f"The picture is turned by its EXIF orientation ({orientation}) and {name} is not; it is taken as painted "
            "on the upright picture (if on the picture as it is stored, add --turn-mask)."
        )
    if color is not None:
        check_depth(image)
        white = _matching(name, image, color, tolerance)
        return _checked(white if means == "keep" else ~white, warnings, loaded.sha256)
    found = whiteness(name, image)
    white = found.values >= THRESHOLD
    if white.all() or not white.any():
        raise UsageError(one_sided(name, image, found, repaint_white=means == "repaint"))
    warnings += found.warnings or in_between(name, found.values)
    return _checked(white if means == "keep" else ~white, warnings, loaded.sha256)


def mask_from_alpha(picture: Picture) -> Mask:
    """The transparent pixels of a picture (opacity below 128 of 255) are to be repainted, with their soft rim.

    The rim are pixels that are less opaque than the picture is elsewhere (than its commonest opacity from 128 on) and
    connected to transparent ones. Others that are half transparent stay as they are, which a warning says.

    Raises:
        UsageError: the picture has no transparency, no transparent pixel, or no opaque one.
    """
    _check_read(picture)
    if picture.alpha is None:
        raise UsageError(f"{picture.name} has no transparency to take the mask from; give a mask file or a box.")
    clear = picture.alpha < OPAQUE
    if clear.all():
        raise UsageError(f"{picture.name} is transparent everywhere, so nothing is known; erase only the part to fill.")
    counts = Image.fromarray(picture.alpha).histogram()
    usual = OPAQUE + int(np.argmax(counts[OPAQUE:]))
    if not clear.any():
        least = next(value for value, count in enumerate(counts) if count)
        faint = f" (its opacity is {least} of 255 or more)" if least < usual else ""
        raise UsageError(
            f"{picture.name} has no transparent pixel{faint}, so nothing to repaint; erase the part to fill."
        )
    touched = picture.alpha < usual
    hole = connected(clear, touched)
    if hole.all():
        raise UsageError(f"{picture.name} is transparent everywhere, so nothing is known; erase only the part to fill.")
    apart = np.count_nonzero(touched & ~hole)
    stays = f"{picture.name} is half transparent in {apart} pixels apart from what is erased, and they stay so."
    return _checked(~hole, [stays] if apart else [])


def mask_from_color(picture: Picture, color: Colors, tolerance: int | None = None) -> Mask:
    """The pixels of a picture that have a colour are to be repainted, such as marks that were painted over it.

    Args:
        picture: the picture.
        color: one or several colours or stored values, and ``tolerance``, both as for `mask_contents.matching`.

    Raises:
        UsageError: there is no such colour, or no pixel has it, or every pixel.
    """
    _check_read(picture)
    return _checked(~_matching(picture.name, picture.image, color, tolerance))


def mask_from_difference(picture: Picture, other: Picture, tolerance: int | None = None) -> Mask:
    """The pixels of a picture that differ from another picture of its size are to be repainted.

    A pixel differs where a channel, or its opacity, is off by more than the tolerance, in values of 255; None is 20.
    How values of more than 8 bits become values of 255, says `ranges.view_range`.

    Raises:
        UsageError: the sizes differ, or the pictures do nowhere, or everywhere.
    """
    for one in (picture, other):
        _check_read(one)
    if picture.size != other.size:
        sizes = " but ".join(f"{one.name} is {one.size[0]}x{one.size[1]}" for one in (other, picture))
        raise UsageError(f"{sizes}; a difference needs pictures of one size.")
    check_tolerance(tolerance)
    off = difference(picture, other)
    width = TOLERANCE if tolerance is None else tolerance
    known = off <= width
    top = int(off.max())
    if known.all():
        much = f"by more than {top}; add --tolerance {top - 1}, for example" if top else "at all; nothing is to repaint"
        raise UsageError(f"{picture.name} and {other.name} differ nowhere {much}.")
    if not known.any():
        raise UsageError(f"{picture.name} and {other.name} differ everywhere by more than {width}; raise --tolerance.")
    slight = np.count_nonzero(known & (off > 0))
    stays = f"{slight} pixels differ from {other.name} by 1 to {width} and stay (--tolerance 0 repaints them, too)."
    return _checked(known, [stays] if slight else [], other.sha256)


def mask_from_nan(picture: Picture) -> Mask:
    """The pixels of a floating picture with a value that is not finite (NaN, infinity) are to be repainted.

    Raises:
        UsageError: the picture has no such pixel, or no other.
    """
    _check_read(picture)
    known = np.isfinite(picture.values()).all(axis=2)
    if known.all():
        raise UsageError(f"{picture.name} has no value that is NaN, so nothing to repaint; give a mask file or a box.")
    if not known.any():
        raise UsageError(f"{picture.name} has no pixel with finite values, so nothing is known; check the file.")
    return _checked(known)


def mask_from_boxes(boxes: Sequence[Box], size: tuple[int, int]) -> Mask:
    """Boxes (x, y, width, height) in pixels from the upper left corner are to be repainted.

    Raises:
        UsageError: there is no box, a box is empty or reaches outside the picture, or the boxes cover everything.
    """
    rows = list(boxes) if isinstance(boxes, Iterable) else [boxes]
    if not rows:
        raise UsageError("There is no box to repaint; give at least one as x,y,width,height.")
    width, height = _size(size)
    known = np.ones((height, width), dtype=np.bool_)
    for box in rows:
        sides = tuple(box) if isinstance(box, Iterable) else ()
        if len(sides) != 4 or not all(isinstance(side, Integral) for side in sides):
            raise UsageError(f"The box {box!r} is not (x, y, width, height) in whole pixels, such as (40, 30, 64, 64).")
        x, y, w, h = sides
        text = f"{x},{y},{w},{h}"
        if w <= 0 or h <= 0:
            raise UsageError(f"The box {text} is empty; its width and height must be at least 1.")
        if x < 0 or y < 0 or x + w > width or y + h > height:
            raise UsageError(f"The box {text} reaches outside the picture, which is {width}x{height}; keep it inside.")
        known[y : y + h, x : x + w] = False
    if not known.any():
        raise UsageError("The boxes cover the whole picture, so nothing is known; leave a part of it uncovered.")
    return _checked(known)


def mask_picture(known: NDArray[np.bool_]) -> Image.Image:
    """A mask (H, W), True where known, as the picture that `read_mask` reads: white is to be repainted."""
    return Image.fromarray(np.where(known, 0, 255).astype(np.uint8))


def parse_box(text: str) -> Box:
    """The box (x, y, width, height) that "x,y,width,height" says, in whole pixels.

    Raises:
        UsageError: the text is not four whole numbers with commas between.
    """
    try:
        x, y, w, h = (int(part) for part in str(text).split(","))
    except ValueError as error:
        raise UsageError(f"The box {text!r} is not x,y,width,height in whole pixels, such as 40,30,64,64.") from error
    return x, y, w, h


def share_warning(known: NDArray[np.bool_]) -> tuple[str, ...]:
    """What is to be said of a mask that leaves little."""
    share = 1 - known.mean()
    return (f"The mask has {share:.0%} of the picture repainted; is it inverted?",) if share > _HOLE_SHARE else ()


def _matching(name: str, image: Image.Image, colors: Colors, tolerance: int | None) -> NDArray[np.bool_]:
    """Where an image has one of these colours."""
    several = [colors] if isinstance(colors, str) or not isinstance(colors, Iterable) else list(colors)
    if not several:
        raise UsageError('name at least one colour to repaint, such as "#ffff00".')
    out = np.logical_or.reduce([matching(name, image, one, tolerance) for one in several])
    if out.all():
        raise UsageError(f"every pixel of {name} has one of these colours, so nothing is known; name fewer.")
    return np.asarray(out)


def _check_read(picture: Any) -> None:
    if not isinstance(picture, Picture):
        raise UsageError(f"a picture here is what `read_picture` gives, and {type(picture).__name__} was given.")


def _size(size: Any) -> tuple[int, int]:
    sides = tuple(size) if isinstance(size, Iterable) else ()
    if len(sides) != 2 or not all(isinstance(side, Integral) for side in sides):
        raise UsageError(f"the size of a picture is (width, height) in pixels, not {size!r}.")
    return int(sides[0]), int(sides[1])


def _turned(mask: Picture, orientation: int) -> Image.Image:
    """The mask, turned as the EXIF orientation of its picture says."""
    if mask.orientation != 1:
        raise UsageError(
            f"{mask.name} has an EXIF orientation of its own and is upright already; leave --turn-mask out."
        )
    if orientation == 1:
        raise UsageError("The picture is not turned by an EXIF orientation; leave --turn-mask out.")
    return mask.image.transpose(_TURNS[orientation])


def _check_size(name: str, mask: tuple[int, int], picture: tuple[int, int], turn: int, own_turn: int) -> None:
    if mask == picture:
        return
    mask_size, picture_size = (f"{width}x{height}" for width, height in (mask, picture))
    turned, advice = "", ""
    if mask == picture[::-1]:
        turned = " upright (with its EXIF orientation)" if turn != 1 else ""
        stored = " (or, if it was painted on the picture as it is stored, add --turn-mask)"
        advice = stored if turn in _SIDEWAYS and own_turn == 1 else " (turn it)"
    raise UsageError(
        f"{name} is {mask_size} but the picture is {picture_size}{turned}; make the mask {picture_size}{advice}."
    )


def _checked(known: NDArray[np.bool_], complaints: Sequence[str] = (), sha256: str | None = None) -> Mask:
    return Mask(known, (*complaints, *share_warning(known)), sha256)
