"""From pixels to the bytes of a file and back again, to see that they say the same."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageChops

from priorpaint.imaging.arrays import DEEP, ArrayImage, image_of, read_npy
from priorpaint.imaging.deep_png import is_deep_png, read_deep_png, write_deep_png
from priorpaint.imaging.deep_tiff import read_deep_tiff, write_deep_tiff
from priorpaint.imaging.silence import silence_libraries

_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True},
}
_COMPARED = 2**17  # pixels at a time: what fits a cache; rows may have a million
_BLUE_OF_CB = 1.772  # the largest weight of a chroma value in a colour, ITU-R BT.601


def storable(image: Image.Image, file_format: str, *, opaque: bool) -> Image.Image:
    """The image in a mode that the format holds without losing a value, and in which it comes back.

    Args:
        opaque: whether no pixel of the whole picture is transparent.
    """
    mode = image.mode
    if isinstance(image, ArrayImage):
        return image
    if file_format == "NPY":
        if opaque and mode != "RGBA":
            return _without_alpha(image, {"1": "L", "LA": "L", "P": "RGB"}.get(mode, mode))
        return image.convert("RGBA")
    if file_format in ("JPEG", "BMP"):
        mode = {"P": "RGB", "1": "L"}.get(mode, mode) if file_format == "JPEG" else mode
        return _without_alpha(image, {"RGBA": "RGB", "LA": "L"}.get(mode, mode))
    if file_format == "WEBP":
        return _without_alpha(image, "RGB") if opaque else _with_alpha(image).convert("RGBA")
    if file_format == "TIFF" and "transparency" in image.info:
        return _without_alpha(image, mode) if opaque else _with_alpha(image)
    return image


def encoded(image: Image.Image, file_format: str, options: Mapping[str, Any], file: BinaryIO | None = None) -> bytes:
    """The image as a file, in memory, or written into ``file``."""
    silence_libraries()
    target = io.BytesIO() if file is None else file
    if file_format == "NPY":
        np.save(target, np.asarray(image), allow_pickle=False)
    elif isinstance(image, ArrayImage) and file_format == "PNG":
        write_deep_png(target, image.values, options)
    elif isinstance(image, ArrayImage):
        write_deep_tiff(target, image.values, options)
    else:
        image.save(target, format=file_format, **_OPTIONS.get(file_format, {}), **options)
    return target.getvalue() if isinstance(target, io.BytesIO) else b""


def opened(data: bytes | BinaryIO, file_format: str, stored: Image.Image) -> Image.Image:
    """A written file, loaded, as the image that was stored in it: an `ArrayImage` where that is one."""
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    file.seek(0)
    if file_format == "NPY":
        return image_of(read_npy(file.read(), "it"), "it")
    if isinstance(stored, ArrayImage) and file_format == "TIFF":
        return read_deep_tiff(file.read(), "it", None, stored.width * stored.height).image
    image: Image.Image = Image.open(file, formats=[file_format])
    if is_deep_png(image):
        return read_deep_png(image, _all_of(file))
    image.load()
    return image


def _all_of(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


def how_it_reads_back(file: bytes | BinaryIO, file_format: str, stored: Image.Image) -> str | None:
    """What is wrong with a written file, in a few words; None where it says the picture that was to be stored."""
    try:
        return what_differs(opened(file, file_format, stored), stored)
    except Exception as error:  # every decoder has its own kinds of error
        return str(error) or type(error).__name__


def what_differs(back: Image.Image, stored: Image.Image) -> str | None:
    """How a picture that was read back differs from the one that was written, in a few words; None where it does not.

    In a JPEG every coefficient of the orthonormal transform of 8x8 values is off by half of its quantisation step at
    most, so the mean square of the differences is no larger than that of half of the steps; the way from luma and
    chroma to colours, and the rounding to whole values before and after, widen it.
    """
    if back.size != stored.size:
        return f"{back.width}x{back.height} pixels for {stored.width}x{stored.height}"
    if isinstance(back, ArrayImage) or isinstance(stored, ArrayImage):
        values, wanted = (one.values if isinstance(one, ArrayImage) else np.asarray(one) for one in (back, stored))
        if (values.dtype, values.shape) != (wanted.dtype, wanted.shape):
            return f"values of {values.dtype}, {values.shape}, for {wanted.dtype}, {wanted.shape}"
        same = all(one.tobytes() == two.tobytes() for one, two in zip(values, wanted, strict=True))  # NaN is NaN
        return None if same else "other values"
    if back.mode != stored.mode:
        if back.format != "BMP" or stored.mode != "P":
            return f"mode {back.mode} for {stored.mode}"
        stored, back = stored.convert("RGB"), back.convert("RGB")  # a palette of greys is read as grey
    if back.format == "JPEG":
        return None if _rms(back, stored) <= _jpeg_tolerance(back) else "other pixels"
    same = _same(back, stored)
    if stored.mode == "P":
        same = same and _colours(back).tobytes() == _colours(stored).tobytes()
    else:
        same = same and back.info.get("transparency") == stored.info.get("transparency")
    return None if same else "other pixels"


def _strips(a: Image.Image, b: Image.Image) -> Iterator[tuple[Image.Image, Image.Image]]:
    """Some rows of two pictures of one size at a time."""
    count = max(1, _COMPARED // a.width)
    for top in range(0, a.height, count):
        rows = (0, top, a.width, min(top + count, a.height))
        yield a.crop(rows), b.crop(rows)


def _same(a: Image.Image, b: Image.Image) -> bool:
    if a.mode in DEEP:
        return all(one.tobytes() == two.tobytes() for one, two in _strips(a, b))
    return all(ImageChops.difference(*pair).getbbox(alpha_only=False) is None for pair in _strips(a, b))


def _colours(image: Image.Image) -> Image.Image:
    """The entries of a palette up to the last one in use."""
    entries = int(np.asarray(image.getextrema()).max()) + 1
    strip = image.crop((0, 0, entries, 1))
    strip.frombytes(bytes(range(entries)))
    return strip.convert("RGBA")


def _rms(a: Image.Image, b: Image.Image) -> float:
    """Root of the mean square of the differences."""
    counts = sum(np.reshape(ImageChops.difference(*pair).histogram(), (-1, 256)).sum(axis=0) for pair in _strips(a, b))
    return math.sqrt(float(np.average(np.arange(256.0) ** 2, weights=counts)))


def _jpeg_tolerance(image: Image.Image) -> float:
    tables = [np.array(table, dtype=np.float64) for table in getattr(image, "quantization", {}).values()]
    steps = [math.sqrt(float((table**2).mean())) / 2 for table in tables]
    return steps[0] + _BLUE_OF_CB * (steps[1] if len(steps) > 1 else 0.0) + 2.0


def _with_alpha(image: Image.Image) -> Image.Image:
    if "transparency" not in image.info:
        return image if image.mode in ("LA", "RGBA") else image.convert("RGBA")
    return image.convert("RGBA" if image.mode in ("P", "RGB") else "LA")


def _without_alpha(image: Image.Image, mode: str) -> Image.Image:
    out = image.copy()
    out.info.pop("transparency", None)
    return out if out.mode == mode else out.convert(mode)
