"""Masks from files, from transparency and from boxes. In files white means *repaint*; here True means *known*."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from priorpaint.errors import UsageError
from priorpaint.imaging.reading import Picture, Source, load_upright

Box = tuple[int, int, int, int]

_THRESHOLD = 128
_GREY = (16, 239)
_GREY_SHARE = 0.01
_HOLE_SHARE = 0.90


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


def read_mask(source: Source, size: tuple[int, int], *, means: str = "repaint") -> Mask:
    """Read a mask for a picture of `size` = (width, height), both upright.

    Values of 128 and above count as white. White says *repaint* with `means="repaint"` and *keep* with `means="keep"`.
    A mask with transparency is read by its opacity where that varies (opaque = white, as painting programs export a
    painted layer), else by its luminance.

    Raises:
        UsageError: the file cannot be read, has another size, leaves nothing to repaint or nothing known.
    """
    if means not in ("repaint", "keep"):
        raise UsageError(f"White in a mask can mean 'repaint' or 'keep', not {means!r}.")
    loaded = load_upright(source, picture=False)
    name, image = loaded.name, loaded.image
    if image.size != size:
        mask_size, picture_size = (f"{width}x{height}" for width, height in (image.size, size))
        turned = " upright (with its EXIF orientation)" if image.size == size[::-1] else ""
        raise UsageError(
            f"{name} is {mask_size} but the picture is {picture_size}{turned}; make the mask {picture_size}."
        )
    values = _mask_values(image)
    white = values >= _THRESHOLD
    if white.all() or not white.any():
        raise UsageError(_one_sided(name, white=bool(white.all()), means=means))
    grey = np.count_nonzero((values >= _GREY[0]) & (values <= _GREY[1])) / values.size
    soft = (
        f"{name} is grey in {grey:.0%} of its pixels (a soft brush or JPEG?); values from {_THRESHOLD} count as white."
    )
    return _checked(white if means == "keep" else ~white, [soft] if grey > _GREY_SHARE else [], loaded.sha256)


def mask_from_alpha(picture: Picture) -> Mask:
    """The transparent pixels of a picture (opacity below 128 of 255) are to be repainted.

    Raises:
        UsageError: the picture has no transparency, no transparent pixel, or no opaque one.
    """
    if picture.alpha is None:
        raise UsageError(f"{picture.name} has no transparency to take the mask from; give a mask file or a box.")
    known = picture.alpha >= _THRESHOLD
    if known.all():
        raise UsageError(f"{picture.name} has no transparent pixel, so nothing to repaint; erase the part to fill.")
    if not known.any():
        raise UsageError(f"{picture.name} is transparent everywhere, so nothing is known; erase only the part to fill.")
    return _checked(known)


def mask_from_nan(picture: Picture) -> Mask:
    """The pixels of a floating picture with a value that is not finite (NaN, infinity) are to be repainted.

    Raises:
        UsageError: the picture has no such pixel, or no other.
    """
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
    if not boxes:
        raise UsageError("There is no box to repaint; give at least one as x,y,width,height.")
    width, height = size
    known = np.ones((height, width), dtype=np.bool_)
    for x, y, w, h in boxes:
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
        x, y, w, h = (int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"The box {text!r} is not x,y,width,height in whole pixels, such as 40,30,64,64.") from error
    return x, y, w, h


def _mask_values(image: Image.Image) -> NDArray[np.uint8]:
    """How white each pixel is, (H, W), 0 to 255."""
    if image.mode.startswith("I;16"):
        return (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
    if image.mode in ("I", "F"):
        raise UsageError(f"The mask is in mode {image.mode}; save it as an 8-bit black and white picture.")
    if image.has_transparency_data:
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        if alpha.min() != alpha.max():
            return alpha.astype(np.uint8)
    return np.asarray(image.convert("RGB").convert("L")).astype(np.uint8)


def _one_sided(name: str, *, white: bool, means: str) -> str:
    colour, other = ("white", "black") if white else ("black", "white")
    if white == (means == "repaint"):
        return f"{name} is {colour} everywhere, so nothing is known; leave what to keep {other}."
    return f"{name} is {colour} everywhere, so there is nothing to repaint; paint what to fill {other}."


def _checked(known: NDArray[np.bool_], complaints: Sequence[str] = (), sha256: str | None = None) -> Mask:
    share = 1 - known.mean()
    if share > _HOLE_SHARE:
        complaints = [*complaints, f"The mask has {share:.0%} of the picture repainted; is it inverted?"]
    return Mask(known, tuple(complaints), sha256)
