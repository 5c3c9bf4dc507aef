"""Reading pictures: one upright PIL image with everything that must survive."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from priorpaint.errors import UsageError
from priorpaint.imaging import metadata, png
from priorpaint.imaging.arrays import (
    NPY_MAGIC,
    RANGE,
    ArrayImage,
    image_of,
    mask_image,
    range_of,
    read_npy,
)
from priorpaint.imaging.bounds import check_scans, read_file, several_frames
from priorpaint.imaging.deep_png import is_deep_png, read_deep_png
from priorpaint.imaging.deep_tiff import TIFF_MAGIC, read_deep_tiff, turned
from priorpaint.imaging.picture import Picture, opacity_of, quiet
from priorpaint.imaging.silence import silence_libraries

Source = str | Path | bytes | BinaryIO | Image.Image | NDArray[Any]

MIN_SIDE = 16
MAX_PIXELS = 40_000_000
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I", "F")
FILE_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")  # for Pillow, MPO is a JPEG

_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_WHITE_IS_0, _SIGNED = 0, 2


def read_picture(source: Source, *, page: int | None = None) -> Picture:
    """Read a picture: PNG, JPEG, WebP, TIFF, BMP or .npy from a path, bytes or open binary file; a PIL image; an array.

    The EXIF orientation is applied exactly once. Grey pictures may have 16 bits or floating values. Other deep ones,
    such as 16-bit colours, are read from PNG, TIFF (with tifffile), .npy and arrays (H, W[, 1, 3 or 4]) of whole or
    floating numbers, and become an `ArrayImage`. A PIL image of a PNG with 16-bit colours has lost half of the bits and
    is refused, and so are grey with alpha and a transparent colour of 16 bits.

    Args:
        source: the picture.
        page: which page of a TIFF with several, counted from 1.

    Raises:
        UsageError: the file is missing, damaged, animated, not a picture, of an unsupported mode or format, smaller
            than 16 pixels on a side, or larger than 40 megapixels; or not a source of these kinds.
        MissingExtra: tifffile is needed.
    """
    upright = load_upright(source, page=page)
    image = _plain(upright.image)
    if image.mode not in MODES:
        mode = upright.mode
        raise UsageError(f"{upright.name} is in mode {mode}, which is not supported; convert it to RGB, RGBA or grey.")
    return replace(upright, image=image, alpha=opacity_of(image))


def load_upright(source: Source, *, picture: bool = True, page: int | None = None) -> Picture:
    """The loaded, upright image of a source, in any mode; the caller's own image object keeps its pixels.

    With `picture=False` (masks) the depths that only matter for keeping values are let through.
    """
    label = "The picture" if picture else "The mask"
    silence_libraries()
    with quiet():
        if page is not None and isinstance(source, np.ndarray | Image.Image):
            raise UsageError(f"{label} is one page already; page is for a TIFF file.")
        if isinstance(source, np.ma.MaskedArray):  # whose own mask nobody would look at
            raise UsageError(f"{label} is a masked array; give array.data, and np.ma.getmaskarray(array) as the mask.")
        if isinstance(source, np.ndarray):
            source = image_of(source, label) if picture else mask_image(source)
        if isinstance(source, Image.Image) and not _unread_tiff(source):
            if page is not None:
                raise UsageError(f"{label} was read already, and only a file has pages; leave the page out.")
            return _finish(label, source, picture=picture)
        path, data = _contents(source, label)
        name = path or label
        found = _from_data(name, data, picture=picture, page=page)
        return replace(found, sha256=hashlib.sha256(data).hexdigest(), path=path)


def _contents(source: Any, label: str) -> tuple[str | None, bytes]:
    """Path and bytes of a file, or of what was read from one."""
    if isinstance(source, (str, Path, Image.Image)):
        path = str(getattr(source, "filename", source))
        return path, read_file(path)
    data = source.read() if callable(getattr(source, "read", None)) else source
    if not isinstance(data, (bytes, bytearray, memoryview)):
        kind = "text" if isinstance(data, str) else type(source).__name__
        turn = ""
        if isinstance(source, Tensor):
            turn = ": tensor.permute(1, 2, 0).numpy()" if source.ndim == 3 else ": tensor.numpy()"
        raise UsageError(
            f"{label} is a path, bytes, a file opened with 'rb', a PIL image or a NumPy array (H, W[, channels]), and "
            f"{kind} was given; convert it{turn}."
        )
    if not data:
        raise UsageError(f"{label} has no bytes left to read; rewind the file with seek(0) first.")
    return None, bytes(data)


def _from_data(name: str, data: bytes, *, picture: bool, page: int | None) -> Picture:
    damage = png.damage(data)
    if damage is not None:
        raise UsageError(f"{name} {damage}.")
    check_scans(name, data)
    if page is not None and not data.startswith(TIFF_MAGIC):
        raise UsageError(f"{name} is no TIFF, and only a TIFF has pages; leave the page out.")
    if data.startswith(NPY_MAGIC):
        if page is not None:
            raise UsageError(f"{name} is a NumPy file, and only a TIFF has pages; leave the page out.")
        values = read_npy(data, name)
        image = image_of(values, name) if picture else mask_image(values)
        return replace(_finish(name, image, picture=picture), format="NPY")
    if picture and data.startswith(TIFF_MAGIC) and (page is not None or not _pillow_reads(data)):
        return _from_deep_tiff(name, data, page)
    with _open_image(name, io.BytesIO(data)) as image:
        image.info |= {metadata.CICP: True} if png.has_chunk(data, b"cICP") else {}
        if picture and is_deep_png(image):
            return _from_deep_png(name, image, data)
        return _finish(name, image, picture=picture)


def _from_deep_png(name: str, image: Image.Image, data: bytes) -> Picture:
    _check_size(name, image.size)
    try:
        deep = read_deep_png(image, data)
    except Exception as error:  # damaged data
        raise _damaged(name, error) from error
    found = _finish(name, deep, picture=True)
    if found.orientation == 1:
        return found
    upright = deep.holding(np.ascontiguousarray(turned(deep.values, found.orientation)))
    return replace(found, image=upright)


def _from_deep_tiff(name: str, data: bytes, page: int | None) -> Picture:
    """One page of a TIFF that Pillow does not read in full."""
    deep = read_deep_tiff(data, name, page, MAX_PIXELS)
    found = _finish(name, deep.image, picture=True)
    warnings = tuple(dict.fromkeys((*deep.complaints, *found.warnings)))
    return replace(found, format="TIFF", orientation=deep.orientation, warnings=warnings)


def _unread_tiff(image: Image.Image) -> bool:
    """Whether the pixels of a TIFF are still to be read, which must not be left to Pillow (see `_open_image`)."""
    return image.format == "TIFF" and bool(getattr(image, "tile", ())) and bool(getattr(image, "filename", ""))


def _open_image(name: str, file: BinaryIO) -> Image.Image:
    """The image in a file's bytes; by its name, Pillow 13 maps plain TIFFs of orientation 5 to 8 with sides swapped.

    Decoders of other formats never see the file: some start programs (EPS: Ghostscript).
    """
    try:
        return Image.open(file, formats=FILE_FORMATS)
    except Image.DecompressionBombError as error:
        raise UsageError(f"{name} has more than {MAX_PIXELS // 10**6} megapixels; make it smaller first.") from error
    except UnidentifiedImageError as error:
        file.seek(0)
        other = _other_format(file.read(16).ljust(16, b"\0"))
        if other is not None:
            raise UsageError(
                f"{name} is a file of the format {other}; convert it to PNG, JPEG, WebP, TIFF or BMP first."
            ) from error
        raise UsageError(f"{name} is not a picture that can be read; give a PNG, JPEG, WebP, TIFF or BMP.") from error
    except Exception as error:  # damaged headers: every reader has its own kind of error
        raise _damaged(name, error) from error


def _other_format(start: bytes) -> str | None:
    """The name of a format that is not read here, from a file's first 16 bytes; nothing is decoded."""
    Image.init()
    others = ((name, accept) for name, (_, accept) in Image.OPEN.items() if accept and name not in FILE_FORMATS)
    return next((name for name, accept in others if accept(start) is True), None)


def _pillow_reads(data: bytes) -> bool:
    """Whether Pillow opens a TIFF and reads all bits of its values."""
    try:
        with Image.open(io.BytesIO(data), formats=["TIFF"]) as image:
            return not _deep_colour(image) and _misread(image) is None
    except UnidentifiedImageError:
        return False
    except Exception:  # damaged: told by the one that reads it
        return True


def _finish(name: str, image: Image.Image, *, picture: bool) -> Picture:
    _check_size(name, image.size)
    try:
        several = several_frames(image)
        deep = picture and _deep_colour(image)
        misread = _misread(image)
    except Exception as error:  # the table of a frame may be damaged
        raise _damaged(name, error) from error
    # MPO is what phones write: a JPEG whose further frames are previews or gain maps.
    if several and image.format != "MPO":
        pages = picture and image.format == "TIFF"  # --page is about the picture
        choose = "choose one with --page N" if pages else "save the one that you want by itself"
        raise UsageError(f"{name} has several frames or pages; {choose}.")
    if misread is not None:
        raise UsageError(f"{name} has {misread}; save it as grey of 8 or 16 bits with black as 0.")
    if deep:
        raise UsageError(
            f"{name} has 16 bits a channel, of which 8 would be read; give the path of an RGB or RGBA file, or save it "
            "with 8 bits."
        )
    orientation, unread = 1, dict[str, None]()
    try:
        orientation = _orientation(image)  # before a TIFF that is loaded has turned itself and lost the tag
    except Exception as error:  # a broken metadata block is no reason to refuse the picture
        unread[metadata.unreadable(name, error)] = None
    try:
        image.load()
    except Exception as error:  # damaged data: every decoder has its own kind of error
        raise _damaged(name, error) from error
    if image.mode == "P" and not image.getpalette():
        raise UsageError(f"{name} has the indices of a palette and no palette; export it again in RGB.")
    try:
        # Values that Pillow has no mode for come upright.
        upright = image if isinstance(image, ArrayImage) else ImageOps.exif_transpose(image)
    except Exception as error:
        upright = image.copy()
        unread[metadata.unreadable(name, error)] = None
    _check_size(name, upright.size)
    said, complaints = metadata.read(image, name)
    complaints = tuple(dict.fromkeys((*unread, *complaints)))
    file_format = "JPEG" if image.format == "MPO" else image.format
    return Picture(upright, file_format, name, warnings=complaints, orientation=orientation, **said)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none."""
    turn = int(image.getexif().get(ExifTags.Base.Orientation) or 1)
    return turn if turn in range(2, 9) else 1


def _damaged(name: str, error: Exception) -> UsageError:
    return UsageError(f"{name} is damaged or incomplete ({error}); copy or export it again.")


def _check_size(name: str, size: tuple[int, int]) -> None:
    width, height = size
    if min(size) < MIN_SIDE:
        raise UsageError(f"{name} is {width}x{height}; a picture needs at least {MIN_SIDE} pixels on each side.")
    if width * height > MAX_PIXELS:
        megapixels = f"{width * height / 1e6:.1f}"
        limit = MAX_PIXELS // 10**6
        raise UsageError(f"{name} is {width}x{height} ({megapixels} megapixels); make it at most {limit} megapixels.")


def _deep_colour(image: Image.Image) -> bool:
    """Whether the file has more bits than Pillow's 8-bit mode for it holds (grey 16 bit is read in full)."""
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))
        whole = {"I;16": 16, "F": 32}.get(image.mode[:4])  # what Pillow reads in full
        return bool(max(bits) > 8 and max(bits) != whole)
    if image.format != "PNG" or image.mode.startswith("I;16"):
        return False
    tiles = getattr(image, "tile", None)
    if tiles:
        return "16" in str(tiles[0][3])  # the raw mode, such as RGB;16B
    filename = str(getattr(image, "filename", ""))
    if not filename or not Path(filename).is_file():  # loaded before it came here: what was lost cannot be known
        return False
    with open(filename, "rb") as file:
        return file.read(25)[24:] == b"\x10"  # IHDR: the byte after width and height is the bit depth


def _misread(image: Image.Image) -> str | None:
    """What a TIFF has that Pillow takes for something else, in words; its pixels need not be decoded for it."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    if image.mode == "L" and _SIGNED in tags.get(_SAMPLE_FORMAT, ()):
        return "values below 0"
    if image.mode.startswith("I;16") and tags.get(_PHOTOMETRIC) == _WHITE_IS_0:
        return "16 bits with white as 0"
    return None


def _plain(image: Image.Image) -> Image.Image:
    """A copy that is bound to no file, with only the entries of `info` that belong to the pixels."""
    if isinstance(image, ArrayImage):
        plain: Image.Image = ArrayImage(image.values, range_of(image))
    elif image.mode.startswith("I;16"):
        values = np.asarray(image).astype("<u2")
        plain = Image.frombytes("I;16", image.size, values.tobytes())
    else:
        plain = image.copy()
    if image.mode == "P" and image.palette is not None:
        entries = bytes(image.getpalette(image.palette.mode) or ())
        needed = (int(np.asarray(image).max()) + 1) * len(image.palette.mode)
        if len(entries) < needed:  # indices without a colour are shown black; a writer would cut them off
            plain.putpalette(entries.ljust(needed, b"\0"), image.palette.mode)
    belonging = {key: image.info.get(key) for key in ("transparency", RANGE)}
    belonging["dpi"] = metadata.resolution(image.info)
    plain.info = {key: value for key, value in belonging.items() if value is not None}
    return plain
