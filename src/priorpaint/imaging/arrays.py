"""Pictures that Pillow has no mode for: floating values, 16-bit colours, other integers; from arrays, .npy and TIFF."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from priorpaint.errors import MissingExtra, UsageError
from priorpaint.imaging.ranges import ValueRange, full_range

NPY_MAGIC = b"\x93NUMPY"
DEEP = ("I;16", "I", "F")
"""Pillow's modes of more than 8 bits."""
RANGE = "value_range"  # in `Image.info`: what the eye is shown of a picture of more than 8 bits
_PILLOW = {"float32": "F", "int32": "I", "uint16": "I;16", "uint8": "L"}
_ARRAY = "an array is (H, W) or (H, W, 1, 3 or 4), of whole or floating numbers"


class ArrayImage(Image.Image):
    """Values in a type that Pillow has no mode for: Pillow sees an 8-bit view of them, and NumPy the values.

    Args:
        values: (H, W[, 1, 3 or 4]).
        shown: black and white of the view.
    """

    def __init__(self, values: NDArray[Any], shown: ValueRange | None = None) -> None:
        super().__init__()
        shown = shown or full_range(values.dtype)
        view = eight_bits(values, shown)
        if values.ndim == 3 and values.shape[2] == 4:
            view[..., 3] = eight_bits(values[..., 3], full_range(values.dtype))
        image = Image.fromarray(view[..., 0] if view.ndim == 3 and view.shape[2] == 1 else view)
        self.im, self._mode, self._size = image.im, image.mode, image.size
        self.values = values
        self.info[RANGE] = (shown.low, shown.high)

    def crop(self, box: tuple[float, float, float, float] | None = None) -> ArrayImage:
        """A part of the values, with zeros beyond them, as Pillow's own."""
        left, top, right, bottom = (round(side) for side in box or (0, 0, *self.size))
        margin = max(0, -left, -top, right - self.width, bottom - self.height)
        wide = np.pad(self.values, ((margin, margin), (margin, margin), (0, 0))[: self.values.ndim])
        return self.holding(wide[top + margin : bottom + margin, left + margin : right + margin])

    def holding(self, values: NDArray[Any]) -> ArrayImage:
        """Other values of the same kind, shown alike."""
        out = ArrayImage(values, range_of(self))
        out.info = dict(self.info)
        return out

    @property
    def __array_interface__(self) -> dict[str, Any]:
        own = self.values
        return {"shape": own.shape, "typestr": own.dtype.str, "version": 3, "data": own.tobytes()}


def eight_bits(values: NDArray[Any], shown: ValueRange) -> NDArray[np.uint8]:
    """Values for the eye."""
    levels: NDArray[np.uint8] = np.rint((shown.to_unit(values) + 1) * 127.5).astype(np.uint8)
    return levels


def value_type(image: Image.Image) -> np.dtype[Any]:
    """The type of an image's stored values."""
    if isinstance(image, ArrayImage):
        return image.values.dtype
    return np.dtype(next((name for name, mode in _PILLOW.items() if mode == image.mode), "uint8"))


def with_range(image: Image.Image, shown: ValueRange) -> Image.Image:
    """The same values, which the eye is shown with this black and white where they have more than 8 bits."""
    if isinstance(image, ArrayImage):
        return ArrayImage(image.values, shown)
    if image.mode not in DEEP:
        return image
    out = image.copy()
    out.info[RANGE] = (shown.low, shown.high)
    return out


def range_of(image: Image.Image) -> ValueRange:
    """Black and white of an image for the eye."""
    shown = image.info.get(RANGE)
    return full_range(value_type(image)) if shown is None else ValueRange(*shown)


def is_deep(image: Image.Image) -> bool:
    """Whether its values are not of 8 bits or fewer."""
    return isinstance(image, ArrayImage) or image.mode[:4] in DEEP


def is_array(image: Image.Image) -> bool:
    """Whether only TIFF and .npy hold these values, or of 16-bit colours PNG, too."""
    return isinstance(image, ArrayImage) or image.mode in ("I", "F")


def image_of(values: NDArray[Any], name: str) -> Image.Image:
    """Values (H, W[, 1, 3 or 4]) as an image: in Pillow's mode for them, or an `ArrayImage`.

    Raises:
        UsageError: not an array of that kind; the sentence says what is taken.
    """
    if values.dtype.kind not in "uif" or values.dtype.itemsize > 8:
        raise UsageError(f"{name} is an array of {values.dtype}; {_ARRAY}.")
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (1, 3, 4)):
        first = values.ndim == 3 and values.shape[0] in (1, 3, 4)
        turn = "; put the channels last with array.transpose(1, 2, 0)" if first else ""
        raise UsageError(f"{name} is an array of the shape {values.shape}, and {_ARRAY}{turn}.")
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]  # which a TIFF would hold as pages
    values = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))
    if values.dtype == np.uint8:
        return Image.fromarray(values)
    if values.ndim == 2 and str(values.dtype) in _PILLOW:
        mode, (height, width) = _PILLOW[str(values.dtype)], values.shape
        return Image.frombytes(mode, (width, height), values.tobytes())
    return ArrayImage(values)


def mask_image(mask: NDArray[Any]) -> Image.Image:
    """A mask (H, W) of bool, of 0 and 1, or of uint8 up to 255, as the image that `read_mask` takes.

    Raises:
        UsageError: another array.
    """
    if mask.ndim != 2:
        raise UsageError(f"a mask as an array has two axes (H, W), not the shape {mask.shape}")
    if mask.dtype == np.uint8 and mask.max(initial=0) > 1:
        return Image.fromarray(mask)
    if not ((mask == 0) | (mask == 1)).all():
        raise UsageError("a mask as an array is bool, holds 0 and 1, or is uint8 from 0 to 255; threshold it first")
    return Image.fromarray((mask != 0).astype(np.uint8) * 255)


def read_npy(data: bytes, name: str) -> NDArray[Any]:
    """The array in the bytes of a .npy file.

    Raises:
        UsageError: damaged, or of Python objects, which are never unpickled.
    """
    try:
        return np.asarray(np.load(io.BytesIO(data), allow_pickle=False))
    except (ValueError, EOFError, OSError, MemoryError) as error:
        raise UsageError(f"{name} is not an array of numbers that can be read ({error}); save it again.") from None


def check_tiff(image: Image.Image) -> Any:
    """What reads this image back from a TIFF, where Pillow does not.

    Raises:
        MissingExtra: tifffile is needed.
    """
    return import_tifffile("a TIFF of such values") if isinstance(image, ArrayImage) else None


def import_tifffile(what: str) -> Any:
    try:
        import tifffile
    except ImportError:
        raise MissingExtra(f"{what} needs tifffile; run: pip install 'priorpaint[sci]'") from None
    return tifffile
