"""What a page shows of a picture: at most 1600 pixels on a side, 8-bit sRGB."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageCms

from priorpaint.imaging import Picture
from priorpaint.imaging.ranges import choose_range
from priorpaint.imaging.sheets import shown

LONGEST = 1600
"""Of a view, in pixels."""


def view(image: Image.Image, icc: bytes | None = None, longest: int = LONGEST) -> Image.Image:
    """An image in the colours of sRGB, not enlarged; more than 8 bits are stretched as the image itself says.

    Args:
        image: upright, in any mode that a `Picture` has.
        icc: its profile. One that is damaged, or for other channels than RGB, is left out: colours are close without.
        longest: the long side at most, in pixels.
    """
    seen = shown(image)
    seen.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    if icc is None or image.mode not in ("RGB", "RGBA"):
        return seen
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        converted = ImageCms.profileToProfile(seen, profile, ImageCms.createProfile("sRGB"))
    except (ImageCms.PyCMSError, OSError, ValueError):
        return seen
    return converted or seen


def png(image: Image.Image) -> bytes:
    """The image as a PNG file that is written quickly."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def picture_view(picture: Picture) -> bytes:
    """`view` of a picture, as PNG; where it has more than 8 bits, the values that it uses are black to white."""
    if picture.deep:
        values = picture.values()
        seen = np.isfinite(values).all(axis=2)
        picture = picture.ranged(choose_range(values, seen, "auto", picture.name)[0]) if seen.any() else picture
    return png(view(picture.image, picture.icc))
