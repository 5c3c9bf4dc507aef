"""Pictures and masks as callers give them: paths, PIL images, arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import Self

from ..errors import UsageError
from ..imaging import Picture

Source = str | Path | Image.Image | NDArray[Any] | bytes


def as_image(source: Source) -> str | Path | Image.Image | bytes:
    """A picture as ``read_picture`` takes it.

    Raises:
        UsageError: an array that is no picture.
    """
    if not isinstance(source, np.ndarray):
        return source
    if source.dtype != np.uint8 or source.ndim not in (2, 3) or (source.ndim == 3 and source.shape[2] not in (3, 4)):
        raise UsageError(f"a picture as an array is uint8 (H, W[, 3 or 4]), not {source.dtype} {source.shape}")
    return Image.fromarray(source)


class Keywords:
    """Dataclasses that take their fields out of the keyword arguments of a plan."""

    @classmethod
    def split(cls, arguments: Mapping[str, Any]) -> tuple[Self, dict[str, Any]]:
        """The fields among keyword arguments, and the others."""
        names = {one.name for one in fields(cls)}  # type: ignore[arg-type]
        rest = {name: value for name, value in arguments.items() if name not in names}
        return cls(**{name: value for name, value in arguments.items() if name in names}), rest


def mask_image(mask: NDArray[Any]) -> Image.Image:
    """A mask as ``read_mask`` takes it.

    Raises:
        UsageError: an array that is not a mask.
    """
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


def about(path: Any, sha256: str | None, values: Any) -> dict[str, Any]:
    """A file or its bytes with this hash, or without one an image or array that came from no file, for run.json."""
    if sha256 is not None:
        return {"path": None if path is None else str(path), "sha256": sha256}
    digest = hashlib.sha256(np.ascontiguousarray(np.asarray(values)).tobytes())
    return {"path": None, "pixels_sha256": digest.hexdigest()}
