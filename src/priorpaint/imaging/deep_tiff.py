"""TIFF files that Pillow reads in part or not at all: deep colours, odd number types, pages. tifffile reads them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from priorpaint.errors import UsageError
from priorpaint.imaging import metadata
from priorpaint.imaging.arrays import image_of, import_tifffile

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_ORIENTATION = 274
_BLACK_IS_0, _RGB = 1, 2  # of PhotometricInterpretation
_UNASSOCIATED = 2  # of ExtraSamples: colours are not multiplied by the opacity
_SAMPLE_FORMAT = {"u": 1, "i": 2, "f": 3}
_EXIF = b"Exif\0\0"


class DeepTiff(NamedTuple):
    """One page.

    Attributes:
        image: upright; its ``info`` has what the page says, as Pillow would give it.
        orientation: by which it was turned, 1 to 8.
        complaints: about what it says and cannot be read, one sentence each.
    """

    image: Image.Image
    orientation: int
    complaints: tuple[str, ...]


def read_deep_tiff(data: bytes, name: str, page: int | None, largest: int) -> DeepTiff:
    """One page of a TIFF, its values as they are stored.

    Args:
        data: the file.
        name: how messages call it.
        page: which, counted from 1; None is the only one.
        largest: pixels that a picture may have, looked at before they are decoded.

    Raises:
        UsageError: several pages and none chosen, no such page, damaged, too large, or not grey, RGB or RGBA.
        MissingExtra: tifffile is needed.
    """
    tifffile = import_tifffile(f"reading {name}")
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            chosen = _page(file.pages, name, page)
            _check(chosen, name, largest)
            values = _channels_last(chosen, np.asarray(chosen.asarray()), name)
            tag = chosen.tags.get(_ORIENTATION)
            icc, offset = chosen.iccprofile, chosen.offset
    except UsageError:
        raise
    except Exception as error:  # damaged anywhere: as many kinds of errors as there are fields
        if "imagecodecs" in str(error):
            raise UsageError(f"{name} is compressed as imagecodecs can read; pip install imagecodecs") from error
        raise UsageError(f"{name} is damaged or incomplete ({error}); copy or export it again.") from error
    turn = 1 if tag is None else int(tag.value)
    orientation = turn if turn in range(2, 9) else 1
    image = image_of(turned(values, orientation), name)
    complaints: tuple[str, ...] = ()
    try:
        image.info.update(metadata.of_tiff(data, offset))
    except Exception as error:  # a broken metadata block is no reason to refuse the picture
        complaints = (metadata.unreadable(name, error),)
    image.info["icc_profile"] = icc or None
    return DeepTiff(image, orientation, complaints)


def write_deep_tiff(file: BinaryIO, values: NDArray[Any], options: Mapping[str, Any]) -> None:
    """Write values (H, W[, 1, 3 or 4]) of any number type as one uncompressed strip; Pillow makes the table of tags.

    Args:
        options: of `metadata.save_options`.
    """
    values = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    height, width = values.shape[:2]
    channels = values.shape[2] if values.ndim == 3 else 1
    table = Image.Exif()
    if "exif" in options:
        table.load(options["exif"])
        for inner in metadata.INNER_TABLES & set(table):
            table[inner] = table.get_ifd(inner)
    table.endian = "<"
    # Pillow takes StripOffsets (273) as counted from the end of the table.
    table.update({
        256: width, 257: height, 258: (8 * values.itemsize,) * channels, 259: 1,
        262: _RGB if channels > 1 else _BLACK_IS_0, 273: 0, 277: channels, 278: height, 279: values.nbytes,
        339: (_SAMPLE_FORMAT[values.dtype.kind],) * channels,
    })  # fmt: skip
    if channels == 4:
        table[338] = _UNASSOCIATED
    if "dpi" in options:
        table[282], table[283] = options["dpi"]
        table[296] = 2  # inches
    if options.get("icc_profile"):
        table[34675] = options["icc_profile"]
    file.write(table.tobytes()[len(_EXIF) :])  # a whole TIFF without its strip
    file.write(values.data)


def _page(pages: Any, name: str, page: int | None) -> Any:
    """The page; those behind it, or behind the second, are not looked for."""
    if page is None:
        if _has(pages, 1):
            raise UsageError(f"{name} has several frames or pages; choose one with --page N (page=N in Python).")
        return pages[0]
    if page < 1 or not _has(pages, page - 1):
        count = len(pages)
        raise UsageError(f"{name} has {count} page{'s' * (count > 1)}, counted from 1, and no page {page}.")
    return pages[page - 1].aspage()


def _has(pages: Any, index: int) -> bool:
    try:
        pages[index]
    except IndexError:
        return False
    return True


def _check(page: Any, name: str, largest: int) -> None:
    if page.imagewidth * page.imagelength > largest or page.imagedepth > 1:
        limit = f"{largest // 10**6} megapixels"
        raise UsageError(f"{name} is {page.imagewidth}x{page.imagelength}; make it one picture of at most {limit}.")
    extra = page.samplesperpixel - len(page.extrasamples)
    colours = {_BLACK_IS_0: 1, _RGB: 3}.get(int(page.photometric))
    opacity = tuple(int(kind) for kind in page.extrasamples)
    if colours is None or extra != colours or opacity not in ((), (_UNASSOCIATED,)) or (colours == 1 and opacity):
        kind = getattr(page.photometric, "name", page.photometric)
        raise UsageError(
            f"{name} has {page.samplesperpixel} channels of the kind {kind} (extra: {list(opacity)}); save it as grey, "
            "RGB, or RGBA with unassociated alpha."
        )


def _channels_last(page: Any, values: NDArray[Any], name: str) -> NDArray[Any]:
    if values.dtype.kind == "b":
        values = values.astype(np.uint8) * 255
    if values.ndim == 3 and "S" in page.axes:
        values = np.moveaxis(values, page.axes.index("S"), -1)
    used = page.bitspersample
    if values.dtype.kind == "u" and used not in (1, 8, 16, 32, 64):
        raise UsageError(f"{name} has {used} bits a value; save it with 8 or 16.")
    return values


def turned(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """As the tag says: which corner is the first, and whether rows are columns."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values
