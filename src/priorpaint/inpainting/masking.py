"""How the hole of a picture is made: its mask, and what becomes of that before the work."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..imaging import Picture
from ..imaging.masks import (
    Colors,
    Mask,
    extended_known,
    extended_picture,
    feather,
    grow,
    mask_from_alpha,
    mask_from_boxes,
    mask_from_color,
    mask_from_difference,
    mask_from_nan,
    read_mask,
    share_warning,
)
from ..imaging.picture import OPAQUE
from .inputs import Keywords, Source, about, as_boxes, as_colors, as_picture, as_sides, flag, whole

_OWN = ("alpha", "nan")  # masks that the picture itself has


@dataclass(frozen=True)
class Masking(Keywords):
    """How the hole of a picture is made, beside its mask. In this order: what is named is repainted, turned round
    (``invert``), joined by new borders (``extend``) and made larger (``grow``).

    Attributes:
        boxes: parts to repaint, (x, y, width, height) in pixels, instead of a mask or in addition to it.
        mask_means: what white means in the mask, "repaint" or "keep".
        mask_color: a colour ("#ffff00", "yellow") or a stored value of grey or of a palette (15), or several: what
            counts as white in the mask, or without a mask what is to be repainted in the picture.
        tolerance: of ``mask_color`` and ``mask_diff``, in values of 255: 20 unless it is given (0 for a stored value).
        mask_diff: a picture of the same size; where the two differ is repainted.
        turn_mask: the mask was painted on the picture as it is stored: turn it as the EXIF orientation turns that.
        invert: repaint what would stay, and keep what would be repainted.
        grow: pixels by which the hole grows (a disk), or shrinks where it is negative.
        feather: width in pixels of a seam inside the hole in which completions blend with the picture's own pixels.
            Known pixels are not touched by it.
        extend: (left, top, right, bottom) pixels of new picture on these sides.
    """

    boxes: Sequence[tuple[int, int, int, int]] | None = None
    mask_means: str = "repaint"
    mask_color: Colors | None = None
    tolerance: int | None = None
    mask_diff: Source | None = None
    turn_mask: bool = False
    invert: bool = False
    grow: int = 0
    feather: int = 0
    extend: Sequence[int] | None = None

    def checked(self) -> Masking:
        """The same in Python's own types.

        Raises:
            UsageError: what should be a whole number is none.
        """
        color = self.mask_color
        return replace(
            self,
            boxes=as_boxes(self.boxes),
            mask_color=None if color is None else as_colors(color),
            extend=None if self.extend is None else as_sides(self.extend),
            turn_mask=flag(self.turn_mask, "turn_mask"),
            invert=flag(self.invert, "invert"),
            grow=whole(self.grow, "grow"),
            feather=whole(self.feather, "feather"),
            tolerance=None if self.tolerance is None else whole(self.tolerance, "tolerance"),
        )

    def call(self) -> dict[str, Any]:
        """These arguments, `checked`, for run.json."""
        boxes, other = [list(box) for box in self.boxes or ()], self.mask_diff
        plain = {"boxes": boxes or None, "mask_diff": str(other) if isinstance(other, str | Path) else None}
        return {one.name: getattr(self, one.name) for one in fields(self)} | plain


@dataclass(frozen=True, eq=False)
class Hole:
    """What is to be repainted.

    Attributes:
        picture: the input, on a larger canvas where it was extended.
        known: (H, W), True where a pixel is known.
        weight: (H, W), of completions against the picture's own pixels; None where that is 1 in the whole hole.
        warnings: what the user should hear about, one sentence each.
        sha256: of the file of the mask; None without one.
    """

    picture: Picture
    known: NDArray[np.bool_]
    weight: NDArray[np.float32] | None = None
    warnings: tuple[str, ...] = ()
    sha256: str | None = None


def resolve_mask(picture: Picture, mask: Source | None, masking: Masking) -> Hole:
    """What is known, from the mask and everything else that says so.

    Raises:
        UsageError: there is no hole, or nothing around it, or an argument has no meaning.
    """
    masks = _masks(picture, mask, masking)
    if not masks and masking.extend is None:
        raise UsageError(
            "there is nothing to repaint; give a mask, boxes, 'alpha' to take the transparent pixels, 'nan' for values "
            "that are not finite, mask_color, mask_diff, or extend."
        )
    known = np.ones(picture.size[::-1], dtype=np.bool_)
    for one in masks:
        known &= one.known
    if not known.any():
        raise UsageError("the mask and the boxes together cover the whole picture; leave a part of it uncovered.")
    if masking.invert:
        if not masks:
            raise UsageError("there is no mask to invert; leave invert out.")
        known = ~known
    if masking.extend is not None:
        picture, known = extended_picture(picture, masking.extend), extended_known(known, masking.extend)
    known = grow(known, masking.grow)
    weight = feather(known, masking.feather, _own(picture, known, masking)) if masking.feather else None
    early = {warning for one in masks for warning in share_warning(one.known)}
    warnings = [warning for one in masks for warning in one.warnings if warning not in early]
    warnings += share_warning(known)
    return Hole(picture, known, weight, tuple(warnings), masks[0].sha256 if mask is not None else None)


def _masks(picture: Picture, mask: Source | None, masking: Masking) -> list[Mask]:
    """What each argument says is known."""
    color, tolerance = masking.mask_color, masking.tolerance
    if tolerance is not None and color is None and masking.mask_diff is None:
        raise UsageError("a tolerance is for mask_color or mask_diff; leave it out.")
    own = isinstance(mask, str) and mask in _OWN
    if masking.turn_mask and (mask is None or own):
        raise UsageError("turn_mask is for a mask file; leave it out.")
    masks = []
    if own:
        masks.append(mask_from_alpha(picture) if mask == "alpha" else mask_from_nan(picture))
    elif mask is not None:
        masks.append(
            read_mask(
                mask,
                picture.size,
                means=masking.mask_means,
                color=color,
                tolerance=tolerance,
                orientation=picture.orientation,
                turn=masking.turn_mask,
            )
        )
    if color is not None and (mask is None or own):
        masks.append(mask_from_color(picture, color, tolerance))
    if masking.mask_diff is not None:
        masks.append(mask_from_difference(picture, as_picture(masking.mask_diff), tolerance))
    if masking.boxes:
        masks.append(mask_from_boxes(masking.boxes, picture.size))
    return masks


def _own(picture: Picture, known: NDArray[np.bool_], masking: Masking) -> NDArray[np.bool_]:
    """Where (H, W) a picture has something of its own to show."""
    own = np.ones_like(known) if picture.alpha is None else picture.alpha >= OPAQUE
    own &= np.isfinite(picture.values()).all(axis=2)
    if masking.extend is not None:
        left, top, right, bottom = masking.extend
        inside = np.zeros_like(known)
        inside[top : len(known) - bottom, left : known.shape[1] - right] = True
        own &= inside
    return own


def about_mask(source: Source | None, hole: Hole) -> dict[str, Any]:
    """The mask, for run.json."""
    own = isinstance(source, str) and source in _OWN
    path = source if isinstance(source, str | Path) else None
    origin = {str(source): True} if own else {} if source is None else about(path, hole.sha256, source)
    digest = hashlib.sha256(np.packbits(hole.known).tobytes()).hexdigest()
    return {**origin, "known_sha256": digest, "hole_share": float(1 - hole.known.mean())}
