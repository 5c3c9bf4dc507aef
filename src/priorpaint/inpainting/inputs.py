"""Pictures and masks as callers give them: paths, PIL images, arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import UsageError
from ..imaging import Mask, Picture, mask_from_alpha, mask_from_boxes, read_mask

Source = str | Path | Image.Image | NDArray[Any]


def as_image(source: Source) -> str | Path | Image.Image:
    """A picture as ``read_picture`` takes it.

    Raises:
        UsageError: an array that is no picture.
    """
    if not isinstance(source, np.ndarray):
        return source
    if source.dtype != np.uint8 or source.ndim not in (2, 3) or (source.ndim == 3 and source.shape[2] not in (3, 4)):
        raise UsageError(f"a picture as an array is uint8 (H, W[, 3 or 4]), not {source.dtype} {source.shape}")
    return Image.fromarray(source)


def resolve_mask(
    picture: Picture, mask: Source | None, boxes: Sequence[tuple[int, int, int, int]] | None, means: str
) -> Mask:
    """What is known, from the mask and the boxes of ``inpaint``.

    Raises:
        UsageError: there is no hole, or nothing around it.
    """
    masks = []
    if isinstance(mask, str) and mask == "alpha":
        masks.append(mask_from_alpha(picture))
    elif mask is not None:
        masks.append(read_mask(_mask_image(mask) if isinstance(mask, np.ndarray) else mask, picture.size, means=means))
    if boxes:
        masks.append(mask_from_boxes([(int(x), int(y), int(w), int(h)) for x, y, w, h in boxes], picture.size))
    if not masks:
        raise UsageError("there is nothing to repaint; give a mask, boxes, or 'alpha' to take the transparent pixels.")
    known = np.logical_and.reduce([one.known for one in masks])
    if not known.any():
        raise UsageError("the mask and the boxes together cover the whole picture; leave a part of it uncovered.")
    return Mask(known, tuple(warning for one in masks for warning in one.warnings), masks[0].sha256)


def _mask_image(mask: NDArray[Any]) -> Image.Image:
    if mask.ndim != 2:
        raise UsageError(f"a mask as an array has two axes (H, W), not the shape {mask.shape}")
    if mask.dtype == np.uint8 and mask.max(initial=0) > 1:
        return Image.fromarray(mask)
    if not ((mask == 0) | (mask == 1)).all():
        raise UsageError("a mask as an array is bool, holds 0 and 1, or is uint8 from 0 to 255; threshold it first")
    return Image.fromarray((mask != 0).astype(np.uint8) * 255)


def about_picture(picture: Picture) -> dict[str, Any]:
    """The input, for run.json."""
    source = about(picture.name, picture.sha256, picture.image)
    return {**source, "size": list(picture.size), "mode": picture.mode, "format": picture.format}


def about_mask(source: Source | None, mask: Mask) -> dict[str, Any]:
    """The mask, for run.json."""
    alpha = isinstance(source, str) and source == "alpha"
    origin = {"alpha": True} if alpha else {} if source is None else about(source, mask.sha256, source)
    digest = hashlib.sha256(np.packbits(mask.known).tobytes()).hexdigest()
    return {**origin, "known_sha256": digest, "hole_share": mask.hole_share}


def about(path: Any, sha256: str | None, values: Any) -> dict[str, Any]:
    """A file with this hash, or without one an image or array that came from no file, for run.json."""
    if sha256 is not None:
        return {"path": str(path), "sha256": sha256}
    digest = hashlib.sha256(np.ascontiguousarray(np.asarray(values)).tobytes())
    return {"path": None, "pixels_sha256": digest.hexdigest()}
