"""Writing files: each one is complete under its name, or it is not there at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from priorpaint.errors import UsageError
from priorpaint.imaging.arrays import ArrayImage, check_tiff, is_array, value_type, write_values
from priorpaint.imaging.reading import Picture

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".npy": "NPY",
}
_OPTIONS: dict[str, Any] = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True, "exact": True}}
_LONGEST_SIDE = {"WEBP": 16383, "JPEG": 65535}


def lossy(path: str | Path) -> bool:
    """Whether a file of this name cannot keep the known pixels bit-identical (JPEG; WebP is written lossless)."""
    return _format(path) == "JPEG"


def check_output(path: str | Path, image: Image.Image) -> None:
    """Say before the work starts that a file of this name cannot hold a picture of this mode and size.

    Raises:
        MissingExtra: tifffile is needed.
        UsageError: unknown suffix; values that only TIFF and .npy hold; transparency in JPEG or BMP; 16 bits in
            anything but PNG, TIFF and .npy; sides too long for WebP or JPEG.
    """
    file_format = _format(path)
    if file_format == "NPY":
        return
    if is_array(image):
        if file_format != "TIFF":
            raise UsageError(f"{path} cannot keep values of {value_type(image)}; write TIFF or .npy instead.")
        check_tiff(image)
        return
    if file_format in ("JPEG", "BMP") and image.has_transparency_data:
        raise UsageError(f"{path} cannot keep the picture's transparency; write PNG, WebP or TIFF instead.")
    if file_format not in ("PNG", "TIFF") and image.mode == "I;16":
        raise UsageError(f"{path} cannot keep the picture's 16 bits; write PNG or TIFF instead.")
    if file_format == "TIFF" and image.mode == "I;16" and image.has_transparency_data:
        raise UsageError(f"{path} cannot keep a transparent value in 16 bits; write PNG instead.")
    longest = _LONGEST_SIDE.get(file_format)
    if longest is not None and max(image.size) > longest:
        raise UsageError(f"{path} cannot have sides of more than {longest} pixels; write PNG or TIFF instead.")


def save_picture(image: Image.Image, path: str | Path, picture: Picture | None = None) -> None:
    """Write a picture atomically in the format that the suffix names, replacing a file of that name.

    PNG, TIFF, WebP (lossless, colours under transparent pixels included) and BMP keep every pixel; JPEG does not (see
    `lossy`) and is written with quality 95 and full colour resolution (4:4:4). WebP has no grey and no palette mode, so
    those come back as equal RGB(A) colours; so do palette and single-colour transparency in TIFF. BMP has no metadata,
    and .npy holds the array of values alone, as TIFF does where Pillow has no mode for them.

    Args:
        image: what to write.
        path: where to; the folder must exist.
        picture: whose ICC profile and EXIF block go into the file.

    Raises:
        UsageError: the format cannot hold the picture (`check_output`), or the file cannot be written.
    """
    check_output(path, image)
    file_format, metadata = _format(path), _metadata(picture)
    if file_format == "NPY" or isinstance(image, ArrayImage):
        with _atomic(Path(path)) as file:
            write_values(file, image, file_format, metadata.get("icc_profile"))
        return
    options = dict(_OPTIONS.get(file_format, {}))
    if file_format == "TIFF" and "exif" not in metadata:
        options["compression"] = "tiff_adobe_deflate"  # libtiff cannot write the sub-tables of an EXIF block
    stored = _storable(image, file_format)
    with _atomic(Path(path)) as file:
        stored.save(file, format=file_format, **metadata, **options)


def check_results(folder: str | Path, files: Sequence[Path], *, overwrite: bool) -> None:
    """Say before the work starts that its results cannot be written.

    Args:
        folder: of the results; it may be missing.
        files: the results.
        overwrite: whether files of these names may be replaced.

    Raises:
        UsageError: a file exists already, or the folder cannot be written to.
    """
    folder = Path(folder)
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UsageError(f"{there} is a file, but results go into a folder; choose another one.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"the folder {there} cannot be written to; choose another one or change its permissions.")
    existing = [file for file in dict.fromkeys(files) if file.exists()]
    if existing and not overwrite:
        rest = len(existing) - 1
        more = f" and {rest} more file{'s' * (rest > 1)} exist" if rest else " exists"
        raise UsageError(f"{existing[0]}{more} already; choose another folder, or allow overwriting (--overwrite).")


def write_bytes_atomic(path: str | Path, data: bytes) -> None:
    """Write bytes under a temporary name in the same folder, then rename: readers see the old file or the new one."""
    with _atomic(Path(path)) as file:
        file.write(data)


def write_text_atomic(path: str | Path, text: str) -> None:
    """Write text as UTF-8, atomically."""
    write_bytes_atomic(path, text.encode("utf-8"))


def write_array_atomic(path: str | Path, array: NDArray[Any]) -> None:
    """Write an array as .npy (no pickles), atomically."""
    with _atomic(Path(path)) as file:
        np.save(file, array, allow_pickle=False)


def make_folder(folder: Path) -> None:
    """With its parents, where it is missing.

    Raises:
        UsageError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made ({error.strerror}); choose another folder") from None


@contextmanager
def _atomic(path: Path) -> Iterator[BinaryIO]:
    temporary = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex[:12]}.part")
    try:
        with open(temporary, "x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror or error}); check the folder.") from error
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a power cut, where the system lets folders be synced."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError:  # network folders refuse this; the file itself is safe by then
        return
    finally:
        os.close(handle)


def _format(path: str | Path) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(f"{path} has no picture suffix; use one of {', '.join(FORMATS)}.")
    return FORMATS[suffix]


def _metadata(picture: Picture | None) -> dict[str, Any]:
    if picture is None:
        return {}
    metadata = {"icc_profile": picture.icc, "exif": picture.exif, "dpi": picture.image.info.get("dpi")}
    return {key: value for key, value in metadata.items() if value}


def _storable(image: Image.Image, file_format: str) -> Image.Image:
    """The image in a mode that the format holds without losing a value."""
    if file_format == "JPEG" and image.mode == "P":
        return image.convert("RGB")
    if file_format in ("TIFF", "WEBP") and "transparency" in image.info:
        return image.convert("RGBA" if image.mode in ("P", "RGB") else "LA")
    return image
