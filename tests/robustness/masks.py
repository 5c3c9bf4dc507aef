"""Ways to say what is repainted: masks of every kind, a picture's own marks, boxes, arrays; and what they mean."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from tests.robustness.corpus import LARGEST, SMALLEST

Bools = NDArray[np.bool_]
MARK = (250, 230, 20)  # further from a picture with values below 200 than any tolerance here
KINDS = ("1", "L", "P", "RGB", "RGBA", "LA", "I;16", "layer", "soft", "0/1", "labels", "16-bit 0/255", "red")


@dataclass(frozen=True, eq=False)  # shown without its arrays, which fill pages
class Asked:
    """What a job is asked for.

    Attributes:
        picture: the source: bytes of a file, an array, or an image.
        mask: the source, "alpha", "nan", or None.
        hidden: (H, W), True where that says to repaint.
        options: further arguments.
        pixels: (H, W, ...), what the picture's pixels are, as an array of the result.
    """

    picture: Any = field(repr=False)
    mask: Any = field(repr=False)
    hidden: Bools = field(repr=False)
    pixels: NDArray[Any] = field(repr=False)
    options: dict[str, Any] = field(default_factory=dict)


@st.composite
def holes(draw: st.DrawFn) -> Bools:
    """(H, W), True in one to three boxes and not everywhere."""
    height, width = draw(st.integers(SMALLEST, LARGEST)), draw(st.integers(SMALLEST, LARGEST))
    hidden = np.zeros((height, width), bool)
    for left, top, wide, high in draw(st.lists(boxes(width, height), min_size=1, max_size=3)):
        hidden[top : top + high, left : left + wide] = True
    assume(not hidden.all())
    return hidden


def within(mask: Bools, radius: int) -> Bools:
    """Where (H, W) a True pixel is at most so far away."""
    height, width = mask.shape
    padded = np.pad(mask, radius)
    out = np.zeros_like(mask)
    for down in range(-radius, radius + 1):
        for right in range(-radius, radius + 1):
            if down * down + right * right <= radius * radius:
                top, left = radius + down, radius + right
                out |= padded[top : top + height, left : left + width]
    return out


@st.composite
def boxes(draw: st.DrawFn, width: int, height: int) -> tuple[int, int, int, int]:
    """(x, y, width, height) inside."""
    left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return left, top, draw(st.integers(1, width - left)), draw(st.integers(1, height - top))


def mask_file(kind: str, white: Bools, rng: np.random.Generator) -> tuple[Image.Image, dict[str, Any]]:
    """A mask of a kind, and the options that it needs."""
    image = Image.fromarray(np.where(white, 255, 0).astype(np.uint8))
    if kind in ("1", "L", "P", "RGB", "RGBA", "LA"):
        return image.convert(kind), {}
    if kind == "I;16":
        return Image.fromarray(np.where(white, 65535, 0).astype(np.uint16)), {}
    if kind == "layer":  # as a painting program exports strokes of any colour
        colours = rng.integers(0, 256, 3).tolist()
        return Image.merge("RGBA", [*Image.new("RGB", image.size, tuple(colours)).split(), image]), {}
    if kind == "soft":
        return Image.fromarray(np.where(white, *(rng.integers(*part, white.shape) for part in ((128, 256), (0, 128))))
                               .astype(np.uint8)), {}  # fmt: skip
    if kind == "0/1":
        return Image.fromarray(white.astype(np.uint8)), {"mask_color": 1}
    if kind == "labels":
        labels = Image.frombytes("P", image.size, np.where(white, 15, 3).astype(np.uint8).tobytes())
        labels.putpalette(rng.integers(0, 256, 768).tolist())
        return labels, {"mask_color": "15"}
    if kind == "16-bit 0/255":
        return Image.fromarray(np.where(white, 255, 0).astype(np.uint16)), {"mask_color": 255}
    tolerance = int(rng.integers(0, 60))
    noise = rng.integers(-tolerance, tolerance + 1, (*white.shape, 3))
    red = np.where(white[..., None], (200, 20, 20), (0, 120, 0)) + np.where(white[..., None], noise, 0)
    return Image.fromarray(red.clip(0, 255).astype(np.uint8)), {"mask_color": "#c81414", "tolerance": tolerance}


@st.composite
def masked(draw: st.DrawFn) -> Asked:
    """A plain picture and any mask that is not its own."""
    hidden, rng = draw(holes()), np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pixels = rng.integers(0, 256, (*hidden.shape, 3)).astype(np.uint8)
    options: dict[str, Any] = {}
    invert, keep = draw(st.booleans()), draw(st.booleans())
    white = hidden ^ invert
    kind = draw(st.sampled_from((*KINDS, "bool", "0/1 array", "array")))
    if kind not in KINDS:
        mask: Any = (white ^ keep).astype({"bool": bool}.get(kind, np.uint8)) * (255 if kind == "array" else 1)
    else:
        image, options = mask_file(kind, white ^ keep, rng)
        mask = draw(st.sampled_from((encoded(image, "PNG"), encoded(image, "TIFF"), image)))
    grow, feather = draw(st.integers(-2, 3)), draw(st.integers(0, 3))
    options |= {"invert": invert, "mask_means": "keep" if keep else "repaint", "grow": grow, "feather": feather}
    hidden = within(hidden, grow) if grow > 0 else ~within(~hidden, -grow)
    assume(hidden.any() and not hidden.all())
    return Asked(pixels, mask, hidden, pixels, options)


@st.composite
def marked(draw: st.DrawFn) -> Asked:
    """A picture that says itself, or by another one, by boxes or by its new borders, what is repainted."""
    hidden, rng = draw(holes()), np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.integers(0, 200, (*hidden.shape, 3)).astype(np.uint8)
    kind = draw(st.sampled_from(("alpha", "color", "diff", "boxes", "nan", "extend")))
    if kind == "alpha":
        pixels = np.dstack([values, np.where(hidden, rng.integers(0, 128, hidden.shape), 255).astype(np.uint8)])
        return Asked(encoded(Image.fromarray(pixels), "PNG"), "alpha", hidden, pixels)
    if kind == "nan":
        floats = rng.random((*hidden.shape, draw(st.sampled_from((1, 3))))).astype(np.float32)
        floats[hidden, -1] = draw(st.sampled_from((np.nan, np.inf, -np.inf)))
        return Asked(floats, "nan", hidden, floats)
    if kind == "boxes":
        several = draw(st.lists(boxes(*hidden.shape[::-1]), min_size=1, max_size=3))
        hidden = np.zeros_like(hidden)
        for left, top, wide, high in several:
            hidden[top : top + high, left : left + wide] = True
        assume(not hidden.all())
        return Asked(values, None, hidden, values, {"boxes": several})
    if kind == "extend":
        sides = draw(st.tuples(*[st.integers(0, 9)] * 4).filter(any))
        left, top, right, bottom = sides
        margins = ((top, bottom), (left, right))
        new = np.pad(np.zeros_like(hidden), margins, constant_values=True)
        return Asked(values, None, new, np.pad(values, (*margins, (0, 0))), {"extend": sides})
    tolerance = draw(st.integers(0, 40))
    if kind == "color":
        noise = rng.integers(-tolerance, tolerance + 1, values.shape)
        values[hidden] = (np.array(MARK) + noise)[hidden].clip(0, 255)
        options = {"mask_color": "#fae614", "tolerance": tolerance}
        return Asked(values, None, hidden, values, options)
    noise = rng.integers(-tolerance, tolerance + 1, values.shape)
    far = rng.integers(tolerance + 1, 56, values.shape)
    other = (values.astype(int) + np.where(hidden[..., None], far, noise)).clip(0, 255).astype(np.uint8)
    return Asked(values, None, hidden, values, {"mask_diff": other, "tolerance": tolerance})


@st.composite
def deep(draw: st.DrawFn) -> Asked:
    """Values of any type that a picture may have, from an array, a .npy file or a TIFF, with any range."""
    hidden, rng = draw(holes()), np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = np.dtype(draw(st.sampled_from(("uint8", "uint16", "int16", "int32", "uint32", "float32", "float64"))))
    shape = (*hidden.shape, *draw(st.sampled_from(((), (1,), (3,), (4,)))))
    asked: Any = draw(st.sampled_from(("auto", "full", "min,max")))
    low, high = (0.0, 1.0) if dtype.kind == "f" else map(float, (np.iinfo(dtype).min, np.iinfo(dtype).max))
    if asked != "full" and draw(st.booleans()):  # a narrow part, which floating values may have anywhere
        low, high = (-3e4, 7e5) if dtype.kind == "f" else (high / 100, high / 40)
    values = np.clip(rng.uniform(low, high, shape), low, high).astype(dtype)
    if len(shape) == 3 and shape[2] == 4:
        values[..., 3] = 1 if dtype.kind == "f" else np.iinfo(dtype).max
    if asked == "min,max":
        asked = (low + (high - low) * 0.2, low + (high - low) * 0.7)
    source = draw(st.sampled_from(("array", "npy", "tiff")))
    file: Any = values
    if source == "npy":
        buffer = io.BytesIO()
        np.save(buffer, values)
        file = buffer.getvalue()
    if source == "tiff":
        file = tiff(values)
    return Asked(file, hidden, hidden, values, {"value_range": asked})


def tiff(values: NDArray[Any]) -> bytes:
    """A TIFF with these values."""
    import tifffile

    buffer, colours = io.BytesIO(), values.shape[2:] > (1,)
    kind = {"photometric": "rgb"} if colours else {"photometric": "minisblack"}
    extra = {"extrasamples": ["unassalpha"]} if values.shape[2:] == (4,) else {}
    tifffile.imwrite(buffer, values[..., 0] if values.shape[2:] == (1,) else values, metadata=None, **kind, **extra)
    return buffer.getvalue()


def encoded(image: Image.Image, file_format: str) -> bytes:
    """The bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, file_format)
    return buffer.getvalue()
