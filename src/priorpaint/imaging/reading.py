"""Reading pictures: one upright PIL image with everything that must survive, and its values as a tensor."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from priorpaint.errors import UsageError
from priorpaint.imaging import metadata, png
from priorpaint.imaging.bounds import check_scans, read_file, several_frames
from priorpaint.imaging.silence import silence_libraries

MIN_SIDE = 16
MAX_PIXELS = 40_000_000
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
FILE_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")  # for Pillow, MPO is a JPEG

_TOO_DEEP = "its values are not of 8 or 16 bits; save it with 8 bits"
_WHITE_16 = 65535
_BITS_PER_SAMPLE = 258


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture as it was read, upright.

    Attributes:
        image: the pixels, loaded, with the EXIF orientation applied once.
        format: the file format (PNG, JPEG, ...), or None for an image from memory.
        name: how messages call it.
        icc: the bytes of the ICC profile; the values are never converted.
        exif: the EXIF block without its orientation tag, pixel layout and preview.
        xmp: the XMP packet, upright too.
        comment: of a JPEG.
        texts: of a PNG, by keyword.
        alpha: the opacity (H, W), uint8, 255 = opaque; None where the picture cannot be transparent.
        sha256: of its file, in hexadecimal; None for an image from memory.
        warnings: what the user should hear about, one sentence each.
        orientation: the EXIF orientation by which the pixels were turned upright, 1 to 8; 1 = not at all.
    """

    image: Image.Image
    format: str | None = None
    name: str = "The picture"
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    comment: bytes | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    alpha: NDArray[np.uint8] | None = None
    sha256: str | None = None
    warnings: tuple[str, ...] = ()
    orientation: int = 1

    @property
    def mode(self) -> str:
        """The Pillow mode, one of 1, L, LA, P, RGB, RGBA, I;16."""
        return self.image.mode

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the upright picture, in pixels."""
        return self.image.size

    @property
    def grey(self) -> bool:
        """Whether the picture has one channel of values (alpha not counted)."""
        return self.mode in ("1", "L", "LA", "I;16")

    @property
    def levels(self) -> int:
        """The value of white: 65535 for 16-bit pictures, else 255."""
        return 65535 if self.mode == "I;16" else 255

    def values(self) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """The stored values without alpha, (H, W, 1) for grey and (H, W, 3) for colour, from 0 to `levels`."""
        if self.mode == "I;16":
            return np.array(self.image, dtype=np.uint16)[..., None]
        if self.grey:
            grey = self.image.getchannel("L") if self.mode == "LA" else self.image.convert("L")
            return np.array(grey, dtype=np.uint8)[..., None]
        with _quiet():
            return np.array(self.image.convert("RGB"), dtype=np.uint8)

    def to_tensor(self, channels: int = 3) -> Tensor:
        """The picture as a tensor (1, channels, H, W), float32 in [-1, 1]: black is -1, white is 1.

        With `channels=3` a grey picture gives three equal channels; `channels=1` takes a grey picture, or a colour
        picture whose channels are equal. Alpha is left out.

        Raises:
            UsageError: for `channels=1` where the picture has colours, and for other numbers of channels.
        """
        if channels not in (1, 3):
            raise UsageError(f"A picture becomes 1 or 3 channels, not {channels}.")
        values = self.values()
        if channels < values.shape[2]:
            if (values != values[..., :1]).any():
                raise UsageError(f"{self.name} has colours, but one channel was asked for; convert it to grey first.")
            values = values[..., :1]
        planes = np.ascontiguousarray(values.transpose(2, 0, 1)[None], dtype=np.float32)
        tensor = torch.from_numpy(planes).div_(self.levels / 2).sub_(1)
        return tensor.expand(1, channels, -1, -1).contiguous()


def read_picture(source: str | Path | Image.Image | bytes) -> Picture:
    """Read a picture from a file (PNG, JPEG, WebP, TIFF, BMP) or take a PIL image.

    The EXIF orientation is applied exactly once. Grey pictures may have 16 bits; colour pictures have 8 bits a channel
    (Pillow would silently drop the lower half of 16-bit colours, so such files are refused).

    Raises:
        UsageError: the file is missing, damaged, animated, not a picture, of an unsupported mode or format, smaller
            than 16 pixels on a side, or larger than 40 megapixels.
    """
    upright = load_upright(source)
    image = _plain(upright.image)
    if image.mode not in MODES:
        mode = upright.mode
        raise UsageError(f"{upright.name} is in mode {mode}, which is not supported; convert it to RGB, RGBA or grey.")
    return replace(upright, image=image, alpha=opacity_of(image))


def load_upright(source: str | Path | Image.Image | bytes, *, picture: bool = True) -> Picture:
    """The loaded, upright first frame of a source, in any mode; the caller's own image object keeps its pixels.

    With `picture=False` (masks) the depths that only matter for keeping values are let through.
    """
    silence_libraries()
    with _quiet():
        if isinstance(source, Image.Image) and not _unread_tiff(source):
            return _finish("The picture" if picture else "The mask", source, picture=picture)
        unnamed = "The picture" if picture else "The mask"
        name = unnamed if isinstance(source, bytes) else str(getattr(source, "filename", source))
        data = source if isinstance(source, bytes) else read_file(name)
        damage = png.damage(data)
        if damage is not None:
            raise UsageError(f"{name} {damage}.")
        check_scans(name, data)
        with _open_image(name, io.BytesIO(data)) as image:
            return replace(_finish(name, image, picture=picture), sha256=hashlib.sha256(data).hexdigest())


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Pillow's warnings (picture bombs, odd metadata) off the screen: our own checks say what matters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)
        yield


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


def _finish(name: str, image: Image.Image, *, picture: bool) -> Picture:
    _check_size(name, image.size)
    try:
        several = several_frames(image)
        deep = picture and _deep_colour(image)
    except Exception as error:  # the table of a frame may be damaged
        raise _damaged(name, error) from error
    # MPO is what phones write: a JPEG whose further frames are previews or gain maps.
    if several and image.format != "MPO":
        raise UsageError(f"{name} has several frames or pages; save the one that you want as a single picture.")
    if deep:
        raise UsageError(
            f"{name} has more than 8 bits a channel, of which only 8 would be read; convert it to 8 first."
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
        upright = ImageOps.exif_transpose(image)
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
        return max(bits) > 8 and not (image.mode.startswith("I;16") and max(bits) == 16)
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


def _plain(image: Image.Image) -> Image.Image:
    """A copy that is bound to no file, with only the entries of `info` that belong to the pixels."""
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype("<u2")
        plain = Image.frombytes("I;16", image.size, values.tobytes())
    else:
        plain = image.copy()
    if image.mode == "P" and image.palette is not None:
        entries = bytes(image.getpalette(image.palette.mode) or ())
        needed = (int(np.asarray(image).max()) + 1) * len(image.palette.mode)
        if len(entries) < needed:  # indices without a colour are shown black; a writer would cut them off
            plain.putpalette(entries.ljust(needed, b"\0"), image.palette.mode)
    belonging = {"transparency": image.info.get("transparency"), "dpi": metadata.resolution(image.info)}
    plain.info = {key: value for key, value in belonging.items() if value is not None}
    return plain


def opacity_of(image: Image.Image) -> NDArray[np.uint8] | None:
    """Opacity (H, W) of a loaded image, 255 = opaque; None where it cannot be transparent."""
    if image.mode in ("LA", "RGBA"):
        return np.array(image.getchannel("A"), dtype=np.uint8)
    if not image.has_transparency_data:
        return None
    if image.mode == "P":
        with _quiet():
            return np.array(image.convert("RGBA").getchannel("A"), dtype=np.uint8)
    opaque = np.array(image, dtype=np.uint16) != transparent_value(image)
    if opaque.ndim == 3:
        opaque = opaque.any(axis=2)
    return np.where(opaque, 255, 0).astype(np.uint8)


def on_white(image: Image.Image) -> Image.Image:
    """An upright, loaded image in 8 bits, "L" where it is grey and else "RGB", with white below what is transparent.

    Raises:
        ValueError: its values are not of 8 or 16 bits.
    """
    if image.mode == "PA":
        image = image.convert("RGBA")
    if image.mode == "F":
        raise ValueError(_TOO_DEEP)
    alpha = opacity_of(image)
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64)
        if wide.min() < 0 or wide.max() > _WHITE_16:
            raise ValueError(_TOO_DEEP)
        solid = Image.fromarray(np.rint(wide / (_WHITE_16 / 255)).astype(np.uint8))
    else:
        with _quiet():
            solid = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    if alpha is None:
        return solid
    return Image.composite(solid, Image.new(solid.mode, solid.size, "white"), Image.fromarray(alpha))


def transparent_value(image: Image.Image) -> NDArray[np.uint16]:
    """The one stored value that means "transparent" in a PNG without an alpha channel (1, L, I;16, RGB)."""
    key = np.array(image.info["transparency"], dtype=np.uint16)
    return (key > 0).astype(np.uint16) if image.mode == "1" else key
