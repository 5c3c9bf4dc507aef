"""Kinds of masks by name: the one registry that the command line, the lab and benchmarks draw from.

A kind is a function of a size and a seed with the decorator `mask_kind`; its docstring's first line says what is
missing. Masks are True where a pixel is KNOWN, and the same seed always gives the same mask.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import UsageError
from . import mask_generators as masks
from .mask_generators import Mask, Size

_VIPAINT = "VIPaint, 2024, section 5.1"
_REPAINT = "RePaint, Lugmayr et al. 2022, section 5"
_DPS = "DPS, Chung et al. 2023, section 4"
_CELL = 2


@dataclass(frozen=True)
class MaskKind:
    """A kind of masks.

    Attributes:
        name: in the registry and on the command line.
        about: what is missing, in a few words.
        source: the paper that uses it; empty where there is none.
        draw: (size, seed) -> what is known, bool (H, W).
    """

    name: str
    about: str
    source: str
    draw: Callable[[Size, int], Mask]


MASK_KINDS: dict[str, MaskKind] = {}


def mask_kind(name: str, source: str = "") -> Callable[[Callable[[Size, int], Mask]], Callable[[Size, int], Mask]]:
    """Register the function (size, seed) -> mask that follows as the kind ``name``.

    Raises:
        UsageError: the name is taken, or the function has no docstring.
    """

    def register(draw: Callable[[Size, int], Mask]) -> Callable[[Size, int], Mask]:
        about = (draw.__doc__ or "").strip().split("\n")[0].rstrip(".")
        if name in MASK_KINDS or not about:
            raise UsageError(f"the kind of masks {name!r} needs a name of its own and a docstring")
        MASK_KINDS[name] = MaskKind(name, about, source, draw)
        return draw

    return register


def draw_mask(kind: str, size: Size, seed: int = 0) -> Mask:
    """A mask of a kind, bool (H, W), True where KNOWN.

    Args:
        kind: a key of `MASK_KINDS`.
        size: (height, width) in pixels, or one number for a square.
        seed: the same seed gives the same mask; kinds without chance do not read it.

    Raises:
        UsageError: another kind, a negative seed, or a size at which this kind hides everything or nothing.
    """
    if kind not in MASK_KINDS:
        raise UsageError(f"there is no kind of masks {kind!r}; the kinds are {', '.join(MASK_KINDS)}")
    if seed < 0:
        raise UsageError(f"the seed of a mask is at least 0, not {seed}")
    known = MASK_KINDS[kind].draw(size, seed)
    if known.all() or not known.any():
        height, width = known.shape
        raise UsageError(f"a mask of the kind {kind} hides {'nothing' if known.all() else 'all'} of {height} x {width}")
    return known


def mask_for(name: str, kind: str, size: Size, seed: int = 0, index: int = 0) -> Mask:
    """Mask ``index`` of a kind for the picture of this name, as `priorpaint masks` draws it; else as `draw_mask`."""
    digest = hashlib.sha256(f"{name}/{seed}/{index}".encode()).digest()
    return draw_mask(kind, size, int.from_bytes(digest[:6], "big"))


@mask_kind("rotated", _VIPAINT)
def _rotated(size: Size, seed: int) -> Mask:
    """a half plane at a random angle is missing"""
    return masks.rotated_window(size, seed)


@mask_kind("random", f"{_VIPAINT}; Co-Mod-GAN, Zhao et al. 2021")
def _random(size: Size, seed: int) -> Mask:
    """random boxes and brush strokes are missing, 40-80 %"""
    return masks.boxes_and_strokes(size, seed, (0.4, 0.8))


@mask_kind("small", f"{_VIPAINT}, whose share is that of its published settings; Co-Mod-GAN, Zhao et al. 2021")
def _small(size: Size, seed: int) -> Mask:
    """random boxes and brush strokes are missing, 20-21 %"""
    return masks.boxes_and_strokes(size, seed, (0.2, 0.21))


@mask_kind("half", _REPAINT)
def _half(size: Size, seed: int) -> Mask:
    """the left, right, upper or lower half is missing"""
    return masks.half(size, ("left", "right", "top", "bottom")[int(np.random.default_rng(seed).integers(4))])


@mask_kind("left")
def _left(size: Size, seed: int) -> Mask:
    """the left half is missing"""
    return masks.half(size, "left")


@mask_kind("right")
def _right(size: Size, seed: int) -> Mask:
    """the right half is missing"""
    return masks.half(size, "right")


@mask_kind("top")
def _top(size: Size, seed: int) -> Mask:
    """the upper half is missing"""
    return masks.half(size, "top")


@mask_kind("bottom")
def _bottom(size: Size, seed: int) -> Mask:
    """the lower half is missing"""
    return masks.half(size, "bottom")


@mask_kind("center")
def _center(size: Size, seed: int) -> Mask:
    """a box of half the height and width in the middle is missing"""
    return masks.box(size, _part(size, 2))


@mask_kind("box", _DPS)
def _box(size: Size, seed: int) -> Mask:
    """a box of half the height and width at a random place is missing"""
    return masks.box(size, _part(size, 2), seed)


@mask_kind("expand", _REPAINT)
def _expand(size: Size, seed: int) -> Mask:
    """all but a box of a quarter of the height and width in the middle is missing"""
    return ~masks.box(size, _part(size, 4))


@mask_kind("lines", _REPAINT)
def _lines(size: Size, seed: int) -> Mask:
    """every second row is missing"""
    known = np.ones(masks.height_and_width(size), dtype=bool)
    known[1::2] = False
    return known


@mask_kind("grid", _REPAINT)
def _grid(size: Size, seed: int) -> Mask:
    """all but every second pixel of every second row is missing"""
    known = np.zeros(masks.height_and_width(size), dtype=bool)
    known[::2, ::2] = True
    return known


@mask_kind("pixels", _DPS)
def _pixels(size: Size, seed: int) -> Mask:
    """92 % of the pixels are missing"""
    return masks.random_pixels(size, seed, 0.92)


@mask_kind("cells")
def _cells(size: Size, seed: int) -> Mask:
    """40-80 % of the cells (2 x 2 pixels) are missing"""
    height, width = masks.height_and_width(size)
    missing = 0.4 + 0.4 * float(np.random.default_rng(seed).random())
    cells = masks.random_pixels((-(-height // _CELL), -(-width // _CELL)), seed, missing)
    return cells.repeat(_CELL, 0).repeat(_CELL, 1)[:height, :width]


@mask_kind("boxes", "Co-Mod-GAN, Zhao et al. 2021, without its brush strokes")
def _boxes(size: Size, seed: int) -> Mask:
    """random boxes are missing, 2-20 %"""
    return masks.random_boxes(size, seed, (0.02, 0.2))


@mask_kind("brush", "Co-Mod-GAN, Zhao et al. 2021, without its boxes")
def _brush(size: Size, seed: int) -> Mask:
    """random brush strokes are missing, 20-50 %"""
    return masks.brush_strokes(size, seed, (0.2, 0.5))


@mask_kind("strokes")
def _strokes(size: Size, seed: int) -> Mask:
    """thin scratches and lines of writing are missing, 5-10 %"""
    return masks.strokes(size, seed)


@mask_kind("holes")
def _holes(size: Size, seed: int) -> Mask:
    """separate squares are missing, 10-20 %"""
    short = min(masks.height_and_width(size))
    return masks.holes(size, seed, side=(max(1, short // 16), max(2, short // 8)))


@mask_kind("text")
def _text(size: Size, seed: int) -> Mask:
    """lines of printed words are missing"""
    return masks.text(size, seed)


def _part(size: Size, divisor: int) -> tuple[int, int]:
    height, width = masks.height_and_width(size)
    return max(height // divisor, 1), max(width // divisor, 1)
