"""A picture as it was read, what its values mean, and its opacity."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from priorpaint.errors import UsageError
from priorpaint.imaging.arrays import DEEP, ArrayImage, value_type, with_range
from priorpaint.imaging.ranges import ValueRange, full_range

_TOO_DEEP = "its values are not of 8 or 16 bits; save it with 8 bits"
_WHITE_16 = 65535
OPAQUE = 128
"""The opacity, of 255, from which a pixel counts as opaque."""


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
        range: which values are black and white to a prior; None is all that they can be.
        path: of its file, or None.
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
    range: ValueRange | None = None
    path: str | None = None

    @property
    def mode(self) -> str:
        """The Pillow mode, one of 1, L, LA, P, RGB, RGBA, I;16, I, F; of an `ArrayImage` that of its view."""
        return self.image.mode

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the upright picture, in pixels."""
        return self.image.size

    @property
    def grey(self) -> bool:
        """Whether the picture has one channel of values (alpha not counted)."""
        return self.mode in ("1", "L", "LA", *DEEP)

    @property
    def deep(self) -> bool:
        """Whether its values have more than 8 bits."""
        return self.mode in DEEP or isinstance(self.image, ArrayImage)

    @property
    def scale(self) -> ValueRange:
        """The values that are black and white to a prior: ``range``, or all (0 to 1 of floating values)."""
        return self.range or full_range(value_type(self.image))

    def ranged(self, span: ValueRange) -> Picture:
        """The same picture with this ``range``; the eye is shown it as well where there are more than 8 bits."""
        return replace(self, range=span, image=with_range(self.image, span))

    def values(self) -> NDArray[Any]:
        """The stored values without alpha, (H, W, 1) for grey and (H, W, 3) for colour, in their own type."""
        if isinstance(self.image, ArrayImage):
            planes = self.image.values.reshape(*self.image.values.shape[:2], -1)
            return planes[..., :1] if self.grey else planes[..., :3]
        if self.mode in DEEP:
            return np.array(self.image)[..., None]
        if self.grey:
            grey = self.image.getchannel("L") if self.mode == "LA" else self.image.convert("L")
            return np.array(grey, dtype=np.uint8)[..., None]
        with quiet():
            return np.array(self.image.convert("RGB"), dtype=np.uint8)

    def to_tensor(self, channels: int = 3) -> Tensor:
        """The picture as a tensor (1, channels, H, W), float32 in [-1, 1]: black is -1, white is 1, as ``scale`` says.

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
        tensor = torch.from_numpy(np.ascontiguousarray(self.scale.to_unit(values).transpose(2, 0, 1)[None]))
        return tensor.expand(1, channels, -1, -1).contiguous()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Pillow's warnings (picture bombs, odd metadata) off the screen: our own checks say what matters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)
        yield


def opacity_of(image: Image.Image) -> NDArray[np.uint8] | None:
    """Opacity (H, W) of a loaded image, 255 = opaque; None where it cannot be transparent."""
    if image.mode in ("LA", "RGBA"):
        return np.array(image.getchannel("A"), dtype=np.uint8)
    if not image.has_transparency_data:
        return None
    if image.mode == "P":
        with quiet():
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
        with quiet():
            solid = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    if alpha is None:
        return solid
    return Image.composite(solid, Image.new(solid.mode, solid.size, "white"), Image.fromarray(alpha))


def transparent_value(image: Image.Image) -> NDArray[np.uint16]:
    """The one stored value that means "transparent" in a PNG without an alpha channel (1, L, I;16, RGB)."""
    key = np.array(image.info["transparency"], dtype=np.uint16)
    return (key > 0).astype(np.uint16) if image.mode == "1" else key
