"""TIFF files that Pillow reads in part or not at all, through tifffile: deep colours, odd number types, pages."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from priorpaint.errors import UsageError
from priorpaint.imaging.arrays import image_of, import_tifffile

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_ORIENTATION = 274
_SAYING = {282: "resolution", 700: "XMP packet", 34665: "EXIF block", 34853: "GPS position", 33723: "IPTC data"}
_BLACK_IS_0, _RGB = 1, 2  # of PhotometricInterpretation
_UNASSOCIATED = 2  # of ExtraSamples: colours are not multiplied by the opacity


class DeepTiff(NamedTuple):
    """One page.

    Attributes:
        image: upright.
        icc: the bytes of its ICC profile.
        orientation: by which it was turned, 1 to 8.
        said: what else the page says, in words.
    """

    image: Image.Image
    icc: bytes | None
    orientation: int
    said: str


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
            icc = chosen.iccprofile
            said = ", ".join(word for code, word in _SAYING.items() if chosen.tags.get(code) is not None)
    except UsageError:
        raise
    except Exception as error:  # damaged anywhere: as many kinds of errors as there are fields
        if "imagecodecs" in str(error):
            raise UsageError(f"{name} is compressed as imagecodecs can read; pip install imagecodecs") from error
        raise UsageError(f"{name} is damaged or incomplete ({error}); copy or export it again.") from error
    turn = 1 if tag is None else int(tag.value)
    orientation = turn if turn in range(2, 9) else 1
    return DeepTiff(image_of(_upright(values, orientation), name), icc or None, orientation, said)


def _page(pages: Any, name: str, page: int | None) -> Any:
    if page is None and len(pages) > 1:
        raise UsageError(f"{name} has {len(pages)} frames or pages; choose one with --page N (page=N in Python).")
    if page is not None and not 1 <= page <= len(pages):
        raise UsageError(f"{name} has {len(pages)} page{'s' * (len(pages) > 1)}, counted from 1, and no page {page}.")
    return pages[(page or 1) - 1].aspage()


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


def _upright(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """As the tag says: which corner is the first, and whether rows are columns."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values
