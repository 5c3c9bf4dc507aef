"""Writing files: each one is complete under its name, or it is not there at all."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from priorpaint.errors import PriorpaintError, UsageError, shortened
from priorpaint.imaging import metadata
from priorpaint.imaging.arrays import check_tiff, is_array, value_type
from priorpaint.imaging.deep_png import holds
from priorpaint.imaging.picture import Picture, opacity_of
from priorpaint.imaging.storing import encoded, how_it_reads_back, opened, storable, what_differs

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
_LONGEST_SIDE = {"WEBP": 16383, "JPEG": 65535}
_CORNER, _MIDDLE = 64, 256


def lossy(path: str | Path) -> bool:
    """Whether a file of this name cannot keep the known pixels bit-identical (JPEG; WebP is written lossless)."""
    return _format(path) == "JPEG"


def check_output(path: str | Path, picture: Picture) -> tuple[str, ...]:
    """Say before the work starts that a file of this name cannot hold a picture of this mode, size and metadata.

    A corner of the picture is written and read back for it, in memory, with all that the picture says besides its
    pixels.

    Returns:
        What a file of this name will not keep of the picture's metadata, one sentence.

    Raises:
        MissingExtra: tifffile is needed.
        UsageError: unknown suffix; values that only TIFF and .npy hold; transparency in JPEG or BMP; 16 bits in
            anything but PNG, TIFF and .npy; sides too long for WebP or JPEG.
    """
    file_format = _format(path)
    _check_pixels(path, picture.image)
    corner = storable(_corner(picture.image), file_format, opaque=_opaque(picture.image))
    said = _kept(picture, corner, file_format)
    try:
        data = encoded(corner, file_format, metadata.save_options(said, file_format, corner.size))
        wrong = how_it_reads_back(data, file_format, corner)
    except Exception as error:  # whatever a writer dislikes, it is better disliked now than after the work
        wrong = str(error)
    if wrong is not None:
        raise UsageError(f"{path} cannot hold this picture ({wrong}); choose another format (--format png).")
    lost = [metadata.NAMES[key] for key in _said(picture) if key not in said]
    if not lost:
        return ()
    words = " and ".join(filter(None, (", ".join(lost[:-1]), lost[-1])))
    name = {"WEBP": "WebP", "NPY": ".npy"}.get(file_format, file_format)
    return (f"{name} cannot keep the {words} of {picture.name}; the results are without.",)


def save_picture(
    image: Image.Image, path: str | Path, picture: Picture | None = None, *, read_back: bool = True
) -> None:
    """Write a picture atomically in the format that the suffix names, replacing a file of that name.

    PNG, TIFF, WebP (lossless, colours under transparent pixels included) and BMP keep every pixel; JPEG does not (see
    `lossy`) and is written with quality 95 and full colour resolution (4:4:4). WebP has no grey and no palette mode, so
    those come back as equal RGB(A) colours; so do palette and single-colour transparency in TIFF. Opacity that is full
    everywhere is left out where a format has none. A .npy file holds the array of values alone (of a palette picture
    its colours).

    Args:
        image: what to write.
        path: where to; the folder must exist.
        picture: whose ICC profile, EXIF block, XMP packet, comment, texts and resolution go into the file, as far as
            its format keeps them (`check_output` says which it does not).
        read_back: whether the file is decoded and compared with ``image`` before it takes its name: every pixel, or
            for JPEG within what its own quantisation allows.

    Raises:
        MissingExtra: tifffile is needed.
        UsageError: the format cannot hold the picture (`check_output`), or the file cannot be written.
        PriorpaintError: the file reads back as something else; there is none of its name then, or still the old one.
    """
    file_format = _format(path)
    _check_pixels(path, image)
    stored = storable(image, file_format, opaque=_opaque(image))
    said = {} if picture is None else _kept(picture, _corner(stored), file_format)
    options = metadata.save_options(said, file_format, stored.size)
    with _atomic(Path(path)) as file:
        encoded(stored, file_format, options, file)
        wrong = how_it_reads_back(file, file_format, stored) if read_back else None
        if wrong is not None:
            raise PriorpaintError(
                f"{path} was not written, because it read back as something else ({wrong}); choose another format."
            )


def _check_pixels(path: str | Path, image: Image.Image) -> None:
    file_format = _format(path)
    if is_array(image):
        if file_format == "PNG" and holds(image):
            return
        if file_format not in ("TIFF", "NPY"):
            others = "PNG, TIFF" if holds(image) else "TIFF"
            raise UsageError(f"{path} cannot keep values of {value_type(image)}; write {others} or .npy instead.")
        if file_format == "TIFF":
            check_tiff(image)
        return
    if file_format in ("JPEG", "BMP") and not _opaque(image):
        raise UsageError(f"{path} cannot keep the picture's transparency; write PNG, WebP or TIFF instead.")
    if file_format not in ("PNG", "TIFF", "NPY") and image.mode == "I;16":
        raise UsageError(f"{path} cannot keep the picture's 16 bits; write PNG or TIFF instead.")
    if file_format in ("TIFF", "NPY") and image.mode == "I;16" and not _opaque(image):
        raise UsageError(f"{path} cannot keep a transparent value in 16 bits; write PNG instead.")
    longest = _LONGEST_SIDE.get(file_format)
    if longest is not None and max(image.size) > longest:
        raise UsageError(f"{path} cannot have sides of more than {longest} pixels; write PNG or TIFF instead.")


def _opaque(image: Image.Image) -> bool:
    """Whether no pixel is transparent, whatever the mode could say."""
    if image.mode in ("LA", "RGBA"):
        return image.getchannel("A").getextrema()[0] == 255
    alpha = opacity_of(image)
    return alpha is None or bool(alpha.min() == 255)


def _corner(image: Image.Image) -> Image.Image:
    """A part that is quickly written, and in all but its size like the whole."""
    return image.crop((0, 0, min(image.width, _CORNER), min(image.height, _CORNER)))


def _said(picture: Picture) -> dict[str, Any]:
    """What a picture says besides its pixels, keys of `metadata.NAMES`; a PNG's "Comment" is one."""
    texts = dict(picture.texts)
    comment = picture.comment or texts.pop(metadata.COMMENT, "").encode()
    said = {"icc": picture.icc, "exif": picture.exif, "xmp": picture.xmp, "comment": comment, "texts": texts}
    dpi = metadata.resolution(picture.image.info)
    return {key: value for key, value in {**said, "dpi": dpi}.items() if value}


def _kept(picture: Picture, corner: Image.Image, file_format: str) -> dict[str, Any]:
    """Of what a picture says, what comes back from a file of this format: each is tried alone, on a corner."""
    said = _said(picture)
    lost = metadata.lost_for_good(said, file_format, corner)
    return {key: value for key, value in said.items() if key not in lost and _survives(key, value, corner, file_format)}


def _survives(key: str, value: Any, corner: Image.Image, file_format: str) -> bool:
    try:
        data = encoded(corner, file_format, metadata.save_options({key: value}, file_format, corner.size))
        back = opened(data, file_format, corner)
        return what_differs(back, corner) is None and metadata.survives(key, value, back)
    except Exception:  # too long, out of range, not to be encoded: each writer has its own kinds of error
        return False


def check_results(folder: str | Path, files: Sequence[Path], *, overwrite: bool) -> None:
    """Say before the work starts that its results cannot be written.

    Args:
        folder: of the results; it may be missing.
        files: the results.
        overwrite: whether files of these names may be replaced.

    Raises:
        UsageError: a file exists already, a name is too long, or the folder cannot be written to.
    """
    folder = Path(folder)
    there = _nearest(folder)
    if not there.is_dir():
        raise UsageError(f"{there} is a file, but results go into a folder; choose another one.")
    try:
        with tempfile.TemporaryFile(dir=there):  # rights alone do not say it: folders may be read-only or full
            pass
    except OSError as error:
        raise UsageError(
            f"the folder {there} cannot be written to ({error.strerror}); choose another one or change its permissions."
        ) from None
    _check_names(folder, files, there)
    blocked = next((file for file in files if file.is_dir()), None)
    if blocked is not None:
        raise UsageError(f"{blocked} is a folder, where a result would go; choose another folder for the results.")
    existing = [file for file in dict.fromkeys(files) if os.path.lexists(file)]  # a link to nothing is somebody's, too
    if existing and not overwrite:
        rest = len(existing) - 1
        more = f" and {rest} more file{'s' * (rest > 1)} exist" if rest else " exists"
        raise UsageError(f"{existing[0]}{more} already; choose another folder, or allow overwriting (--overwrite).")


def check_space(folder: str | Path, needed: int) -> None:
    """Say before the work starts that there is no room for its results.

    Args:
        folder: of the results; it may be missing.
        needed: bytes that they take at least.

    Raises:
        UsageError: there are fewer.
    """
    there = _nearest(Path(folder))
    free = shutil.disk_usage(there).free
    if needed > free:
        raise UsageError(
            f"the results need at least {needed / 1e6:.0f} MB, and {there} has {free / 1e6:.0f} MB left; free some "
            "space, or choose another folder."
        )


def size_on_disk(path: str | Path, image: Image.Image) -> int:
    """About how many bytes a file of this name takes, judged by the middle of the picture."""
    (width, height), file_format = image.size, _format(path)
    left, top = max(0, (width - _MIDDLE) // 2), max(0, (height - _MIDDLE) // 2)
    part = image.crop((left, top, min(width, left + _MIDDLE), min(height, top + _MIDDLE)))
    data = encoded(storable(part, file_format, opaque=_opaque(part)), file_format, {})
    return len(data) * width * height // (part.width * part.height)


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists.

    Raises:
        UsageError: the path cannot be followed.
    """
    for path in (folder, *folder.absolute().parents):
        try:
            path.stat()
            return path
        except (FileNotFoundError, NotADirectoryError):
            if path.is_symlink():
                raise UsageError(f"{path} is a link to nothing; remove it, or choose another folder.") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(f"the folder {shortened(path)} cannot be used ({reason}); choose another one.") from None
    raise UsageError(f"the folder {folder} cannot be used; choose another one.")


def _check_names(folder: Path, files: Sequence[Path], there: Path) -> None:
    """Limits count bytes, of which a letter may have four."""
    if not hasattr(os, "pathconf"):
        return
    longest = os.pathconf(there, "PC_NAME_MAX")
    for part in (*folder.parts, *(file.name for file in files)):
        size = len(os.fsencode(part))
        if size > longest:
            raise UsageError(
                f"the name {shortened(part)} has {size} bytes, and {there} allows {longest}; give the picture "
                "or the folder a shorter name."
            )


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
    start = os.fsencode(path.name)[:100].decode("utf-8", "ignore")  # names have limits in bytes
    temporary = path.with_name(f".{start}.{uuid.uuid4().hex[:12]}.part")
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
