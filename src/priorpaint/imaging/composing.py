"""From a completion back to a picture: only the pixels of the hole are written, all others keep their bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from priorpaint.errors import PriorError, UsageError
from priorpaint.imaging.arrays import ArrayImage, value_type
from priorpaint.imaging.picture import OPAQUE, Picture, transparent_value
from priorpaint.imaging.ranges import full_range

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow's own conversion to L


def compose(
    picture: Picture, completion: Tensor, known: NDArray[np.bool_], *, opaque_holes: bool = False
) -> Image.Image:
    """The picture with its hole filled, in the same mode and size, all known pixels bit-identical.

    Args:
        picture: the input.
        completion: (C, H, W) in [-1, 1] with C = 1 or 3; only its values in the hole are read, and values outside
            [-1, 1] are clipped. Grey pictures take the luma of three channels.
        known: (H, W), bool, True where the picture's own bytes stay.
        opaque_holes: the filled pixels become opaque (for a mask that came from the picture's transparency). Otherwise
            every pixel keeps its own opacity.

    -1 and 1 are black and white of the picture's `scale`. Whole values are rounded to the nearest that the picture's
    type has (256, or 65536 in mode I;16; black or white in mode 1). A
    palette picture stays one: each filled pixel takes the nearest opaque colour of the palette, and its other indices
    are untouched. Where transparency is not a channel (palette entries, a PNG's transparent colour), filled pixels are
    made not to hit it by chance, and pixels that are transparent and stay so keep their bytes.

    Raises:
        UsageError: the sizes do not fit.
        PriorError: the completion is not finite in the hole.
    """
    width, height = picture.size
    if completion.ndim != 3 or completion.shape[0] not in (1, 3) or completion.shape[1:] != (height, width):
        shape = tuple(completion.shape)
        raise UsageError(f"A completion of the picture must be (1 or 3, {height}, {width}), but it is {shape}.")
    if known.shape != (height, width):
        raise UsageError(f"The mask must be ({height}, {width}) for this picture, but it is {known.shape}.")
    hole: NDArray[np.bool_] = ~known
    if picture.alpha is not None and not opaque_holes and picture.mode not in ("LA", "RGBA"):
        hole &= picture.alpha >= OPAQUE  # the others say by their colour that they are transparent
    pixels = np.array(picture.image)
    fill = completion.detach().cpu().numpy()[:, hole].T.astype(np.float64)  # (pixels of the hole, C)
    if not np.isfinite(fill).all():
        raise PriorError("The completion has values that are not numbers; run it again in float32 or with other steps.")
    if picture.mode == "P":
        pixels[hole] = _nearest_palette_entries(picture, _quantise(picture, _to_colour(fill)))
    else:
        _fill_values(picture, pixels, hole, fill)
    if opaque_holes and picture.mode in ("LA", "RGBA"):
        pixels[..., -1][hole] = full_range(pixels.dtype).high
    return _with_pixels(picture.image, pixels)


def _fill_values(
    picture: Picture, pixels: NDArray[np.generic], hole: NDArray[np.bool_], fill: NDArray[np.float64]
) -> None:
    """Write the hole of `pixels` (H, W[, channels]) in place, leaving an alpha channel alone."""
    values = _quantise(picture, _to_grey(fill) if picture.grey else _to_colour(fill))
    if picture.alpha is not None and picture.mode not in ("LA", "RGBA"):
        _avoid(
            values, transparent_value(picture.image), 1 if picture.mode == "1" else int(full_range(pixels.dtype).high)
        )
    planes = pixels.reshape(*pixels.shape[:2], -1)
    planes[..., : values.shape[1]][hole] = values.astype(pixels.dtype)


def _to_grey(fill: NDArray[np.float64]) -> NDArray[np.float64]:
    return fill if fill.shape[1] == 1 else (fill @ _LUMA)[:, None]


def _to_colour(fill: NDArray[np.float64]) -> NDArray[np.float64]:
    return fill if fill.shape[1] == 3 else np.repeat(fill, 3, axis=1)


def _quantise(picture: Picture, fill: NDArray[np.float64]) -> NDArray[Any]:
    """[-1, 1] in the picture's own values; whole ones to the nearest, halves up."""
    values, dtype = picture.scale.from_unit(fill), value_type(picture.image)
    if dtype.kind == "f":
        return values
    if picture.mode == "1":
        values = values / 255
    return np.floor(values + 0.5).astype(np.int64)


def _avoid(values: NDArray[Any], key: NDArray[np.uint16], levels: int) -> None:
    """Move the values (N, channels) that equal the transparent colour by one level, in place."""
    hit = (values == key).all(axis=1)
    values[hit, -1] += np.where(values[hit, -1] < levels, 1, -1)


def _nearest_palette_entries(picture: Picture, colours: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The index of the nearest opaque palette colour (squared RGB distance) for colours (N, 3)."""
    entries = len(picture.image.getpalette("RGB") or []) // 3
    strip = picture.image.crop((0, 0, entries, 1))
    strip.frombytes(bytes(range(entries)))
    table = np.array(strip.convert("RGBA"), dtype=np.int64)[0]  # (entries, 4)
    opaque = np.flatnonzero(table[:, 3] == 255)
    candidates = opaque if opaque.size else np.arange(entries)
    packed, back = np.unique(colours @ np.array([65536, 256, 1]), return_inverse=True)
    unique = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=1)
    nearest = np.empty(len(unique), dtype=np.uint8)
    for start in range(0, len(unique), 4096):  # in chunks: the table of distances has 256 columns
        chunk = unique[start : start + 4096]
        distance = ((chunk[:, None] - table[None, candidates, :3]) ** 2).sum(axis=2)
        nearest[start : start + 4096] = candidates[distance.argmin(axis=1)]
    return nearest[back.reshape(-1)]


def _with_pixels(image: Image.Image, pixels: NDArray[np.generic]) -> Image.Image:
    """A copy of `image` (mode, palette, info) with other stored values."""
    if isinstance(image, ArrayImage):
        return image.holding(pixels)
    out = image.copy()
    data = np.packbits(pixels.astype(np.bool_), axis=1) if image.mode == "1" else pixels
    out.frombytes(data.tobytes())
    return out
