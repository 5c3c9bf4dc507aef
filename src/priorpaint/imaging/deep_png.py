"""PNG files with 16-bit colours, of which Pillow has no mode: read in two halves, and written in one."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from priorpaint.imaging import png
from priorpaint.imaging.arrays import ArrayImage

_RAW = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}
_UP = 2  # the filter of a row that stores its difference from the row above
_ROWS = 256


def is_deep_png(image: Image.Image) -> bool:
    """Whether an opened file, not yet loaded, is one that `read_deep_png` reads."""
    tiles: Any = getattr(image, "tile", ())
    return image.format == "PNG" and len(tiles) == 1 and tiles[0].args in _RAW and "transparency" not in image.info


def read_deep_png(image: Image.Image, data: bytes) -> ArrayImage:
    """The values of an opened file, as they are stored, with all that it says.

    Pillow keeps the first byte of each value, or, told that the order of bytes were the other one, the second.
    """
    with Image.open(io.BytesIO(data), formats=["PNG"]) as other:
        other.tile = [tile._replace(args=_RAW[str(tile.args)]) for tile in other.tile]
        low = np.asarray(other)
    values = np.asarray(image).astype(np.uint16)
    values <<= 8
    values |= low
    out = ArrayImage(values)
    out.format, out.info = "PNG", {**image.info, **out.info}
    out.text = image.text  # type: ignore[attr-defined]
    return out


def holds(image: Image.Image) -> bool:
    """Whether a PNG can hold the values of an image for which Pillow has no mode."""
    return isinstance(image, ArrayImage) and image.values.dtype == np.uint16 and image.values.shape[2:] in ((3,), (4,))


def write_deep_png(file: BinaryIO, values: NDArray[np.uint16], options: Mapping[str, Any]) -> None:
    """Write values (H, W, 3 or 4); Pillow writes all but the pixels.

    Args:
        options: of `metadata.save_options`.
    """
    height, width, channels = values.shape
    frame = io.BytesIO()
    Image.new("RGB" if channels == 3 else "RGBA", (1, 1)).save(frame, "PNG", **options)
    file.write(png.SIGNATURE)
    for kind, body, _ in png.chunks(frame.getvalue()):
        if kind == b"IHDR":
            _write(file, kind, struct.pack(">IIB", width, height, 16) + bytes(body[9:]))
        elif kind == b"IDAT":
            _write_pixels(file, values)
        else:
            _write(file, kind, bytes(body))


def _write_pixels(file: BinaryIO, values: NDArray[np.uint16]) -> None:
    packing, above = zlib.compressobj(), np.zeros((1, values[0].size * 2), np.uint8)
    for top in range(0, len(values), _ROWS):
        part = values[top : top + _ROWS].astype(">u2").reshape(-1, values[0].size).view(np.uint8)
        lines = np.empty((len(part), 1 + part.shape[1]), np.uint8)
        lines[:, 0], lines[:, 1:] = _UP, part - np.concatenate([above, part[:-1]])
        above = part[-1:]
        _write(file, b"IDAT", packing.compress(lines.tobytes()))
    _write(file, b"IDAT", packing.flush())


def _write(file: BinaryIO, kind: bytes, body: bytes) -> None:
    if body or kind != b"IDAT":
        file.write(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind))))
