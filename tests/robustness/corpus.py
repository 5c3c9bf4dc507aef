"""Pictures and masks that nobody thought of: every mode in every format that holds it, turned in every way."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

SMALLEST, LARGEST = 16, 33
MODES = {
    "PNG": ("1", "L", "LA", "P", "P+", "RGB", "RGB+", "L+", "RGBA", "I;16"),
    "JPEG": ("L", "RGB"),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "BMP": ("1", "L", "P", "RGB"),
}
SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "TIFF": ".tif", "BMP": ".bmp"}
RESOLUTIONS = (None, (72, 72), (300.5, 96), (1, 1))
KINDS = [(file_format, mode) for file_format, modes in MODES.items() for mode in modes]
_ORIENTATION = 274
# Tags of the pixel layout, which phones write into the EXIF block of a JPEG, and which mean something else in a TIFF.
_LAYOUT = {256: 120, 257: 80, 262: 6, 277: 3, 284: 2}


@dataclass(frozen=True)
class Case:
    """One picture file and one mask.

    Attributes:
        file: the bytes of the picture file.
        suffix: of its name.
        hidden: the mask (H, W) of the upright picture, True where it is repainted.
        to: the format that results are written in.
    """

    file: bytes
    suffix: str
    hidden: NDArray[np.bool_]
    to: str

    def upright(self) -> Image.Image:
        """The picture as it is looked at, by Pillow alone."""
        with Image.open(io.BytesIO(self.file)) as image:
            return ImageOps.exif_transpose(image)


def _picture(mode: str, size: tuple[int, int], seed: int) -> tuple[Image.Image, dict[str, object]]:
    """An image with random pixels in places and flat ones in others, and what its file has to say besides."""
    rng, (width, height) = np.random.default_rng(seed), size
    plain = mode.rstrip("+")
    channels = {"LA": 2, "RGB": 3, "RGBA": 4}.get(plain, 1)
    values = rng.integers(0, 256, (height, width, channels)).astype(np.uint8)
    values[: height // 2] = rng.integers(0, 256, channels)
    flat = values[..., 0]
    if plain == "I;16":
        return Image.fromarray(flat.astype(np.uint16) * 257 + 1), {}
    if plain == "1":
        return Image.fromarray(flat > 127), {}
    if plain == "P":
        image = Image.frombytes("P", size, (flat % 7).tobytes())
        image.putpalette(rng.integers(0, 256, 3 * 7).tolist())
        return image, {"transparency": 2} if mode == "P+" else {}
    key: object = tuple(int(v) for v in values[0, 0]) if channels > 1 else int(flat[0, 0])
    image = Image.frombytes(plain, size, values.tobytes())
    return image, {"transparency": key} if mode.endswith("+") else {}


def _targets(file_format: str, mode: str) -> tuple[str, ...]:
    """Formats that keep such a picture exactly, in its own mode."""
    if mode in ("RGB", "RGBA"):
        return ("png", "tiff", "webp")
    return ("png", "tiff") if not mode.endswith("+") else ("png",)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any `Case`."""
    file_format, mode = draw(st.sampled_from(KINDS))
    size = (draw(st.integers(SMALLEST, LARGEST)), draw(st.integers(SMALLEST, LARGEST)))
    image, options = _picture(mode, size, draw(st.integers(0, 2**32 - 1)))
    orientation = draw(st.sampled_from((None, *range(1, 9)))) if file_format != "BMP" else None
    exif = Image.Exif()
    if orientation is not None:
        exif[_ORIENTATION] = orientation
    if file_format in ("JPEG", "PNG", "WEBP"):
        for tag in draw(st.sets(st.sampled_from(sorted(_LAYOUT)), max_size=2)):
            exif[tag] = _LAYOUT[tag]
    if len(exif):
        options["exif"] = exif
    resolution = draw(st.sampled_from(RESOLUTIONS))
    if resolution is not None and file_format != "WEBP":
        options["dpi"] = resolution
    if file_format == "WEBP":
        options |= {"lossless": True, "exact": True}
    if mode in ("RGB", "RGBA") and file_format != "BMP" and draw(st.booleans()):
        options["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    width, height = size[::-1] if orientation in (5, 6, 7, 8) else size
    hidden = np.zeros((height, width), bool)
    for _ in range(draw(st.integers(1, 3))):
        left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        wide, high = draw(st.integers(1, width)), draw(st.integers(1, height))
        hidden[top : top + high, left : left + wide] = True
    assume(not hidden.all())  # such a picture is refused
    return Case(buffer.getvalue(), SUFFIXES[file_format], hidden, draw(st.sampled_from(_targets(file_format, mode))))
