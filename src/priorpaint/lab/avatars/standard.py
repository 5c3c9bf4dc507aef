"""The avatars of priorpaint: which drawings and colours there are, and how often (docs/avatars.md has the table).

The drawings are chosen so that every part of every combination shows: hair reaches out from under every hat, ears
stay free for earrings, and lenses let the eyes through. So two different combinations are two different pictures, and
they differ by at least 2 x `reading.THRESHOLD` in some cell.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from .drawing import Layer
from .model import Avatars, Colour, Part
from .sheet import CELLS, drawing

# Colours are DiceBear's where the table of docs/avatars.md says so; the others were chosen to be told apart.
_BACKGROUND = {
    "sky": (182, 227, 244),
    "lilac": (192, 174, 222),
    "mint": (190, 232, 190),
    "cream": (250, 232, 170),
    "pink": (255, 190, 206),
    "slate": (72, 84, 110),
}
_SKIN = {
    "ivory": (255, 219, 172),
    "sand": (224, 182, 135),
    "tan": (190, 142, 94),
    "brown": (154, 103, 57),
    "umber": (112, 66, 34),
}
_HAIR = {
    "black": (40, 21, 10),
    "brown": (96, 58, 20),
    "blond": (240, 206, 80),
    "ginger": (204, 84, 10),
    "grey": (150, 150, 158),
    "blue": (0, 155, 189),
}
_EYES = {"dark": (60, 30, 14), "blue": (40, 104, 200), "green": (46, 138, 70), "violet": (140, 60, 160)}
_MOUTH = {"red": (222, 15, 13), "pink": (236, 84, 136), "wine": (120, 20, 60)}
_CLOTHES = {
    "blue": (40, 110, 190),
    "navy": (3, 57, 108),
    "green": (0, 177, 89),
    "red": (209, 17, 65),
    "amber": (230, 150, 0),
    "violet": (100, 56, 150),
}
_HATS = {"olive": (92, 92, 24), "blue": (38, 99, 163), "red": (166, 33, 22)}
_FRAMES = {"charcoal": (70, 70, 76), "blue": (30, 90, 160), "red": (176, 44, 70)}
_METALS = {"gold": (255, 200, 0), "silver": (236, 236, 244)}

# Both sides have a background and an earring of their own, so that half a face leaves something open about the other.
_SIDES = {"left": slice(0, CELLS // 2), "right": slice(CELLS // 2, CELLS)}
# Glasses and beards end where the head ends: what DiceBear draws of them beside it or over the clothes is left out.
_NECK = 13

_HAIR_STYLES = (
    "long01", "long04", "long05", "long06", "long11", "long14", "long15", "long18", "long19", "long20",
    "short01", "short02", "short11", "short13", "short14", "short15",
)  # fmt: skip
_EYE_STYLES = ("03", "05", "06", "07", "08", "09", "10", "12")
_MOUTH_STYLES = (
    "happy01", "happy06", "happy09", "happy10", "happy11", "happy12",
    "sad01", "sad02", "sad03", "sad04", "sad05", "sad06", "sad07",
)  # fmt: skip
_CLOTHES_STYLES = ("03", "05", "06", "09", "13", "17", "18", "22")
_BEARD_STYLES = ("02", "04", "07")
_HAT_STYLES = ("02", "03", "05", "06")
_GLASSES_STYLES = ("light04", "light05", "dark04", "light07")
_EARRING_STYLES = ("01", "04")


@cache
def standard() -> Avatars:
    """The law of the prior ``avatars``: 16 independent parts."""
    earrings = [_worn(f"{side} earring", "accessories", _EARRING_STYLES, _METALS, none=0.6) for side in _SIDES]
    glasses, glasses_layer = _worn("glasses", "glasses", _GLASSES_STYLES, _FRAMES, none=0.52)
    hat, hat_layer = _worn("hat", "hat", _HAT_STYLES, _HATS, none=0.64, cover=True)
    parts = (
        *(_colours(f"{side} background", _BACKGROUND) for side in _SIDES),
        _colours("skin", _SKIN),
        Part("hair", _HAIR_STYLES, _even(len(_HAIR_STYLES))),
        _colours("hair colour", _HAIR),
        hat,
        Part("eyes", _EYE_STYLES, _even(len(_EYE_STYLES))),
        _colours("eye colour", _EYES),
        glasses,
        *(part for part, _ in earrings),
        Part("mouth", _MOUTH_STYLES, _even(len(_MOUTH_STYLES))),
        _colours("mouth colour", _MOUTH),
        Part("beard", ("none", *_BEARD_STYLES), (0.55, 0.15, 0.15, 0.15)),
        Part("clothes", _CLOTHES_STYLES, _even(len(_CLOTHES_STYLES))),
        _colours("clothes colour", _CLOTHES),
    )
    canvas = np.zeros((1, CELLS, CELLS, 3))
    canvas[..., 1] = 1
    layers = (
        *(_cut(Layer(canvas, colour=f"{side} background"), _half(side)) for side in _SIDES),
        Layer(drawing("head", "plain")[None], colour="skin"),
        *(_cut(layer, _half(side)) for (_, layer), side in zip(earrings, _SIDES, strict=True)),
        _worn_always("clothes", "clothing", _CLOTHES_STYLES, "clothes colour"),
        _worn_always("eyes", "eyes", _EYE_STYLES, "eye colour"),
        _cut(glasses_layer, _head()),
        _cut(_plain(_worn_always("beard", "beard", ("none", *_BEARD_STYLES), "hair colour")), _head()),
        _worn_always("mouth", "mouth", _MOUTH_STYLES, "mouth colour"),
        _worn_always("hair", "hair", _HAIR_STYLES, "hair colour", cover=True),
        hat_layer,
    )
    return Avatars(parts, layers)


def _cut(layer: Layer, inside: NDArray[np.bool_]) -> Layer:
    """The layer in some cells (16, 16) only."""
    return replace(layer, drawings=np.where(inside[..., None], layer.drawings, drawing("head", "none")))


def _plain(layer: Layer) -> Layer:
    """The layer without the white in it: a lighter beard could not be told from some skins."""
    drawings = layer.drawings.copy()
    drawings[..., 1] += drawings[..., 2]
    drawings[..., 2] = 0
    return replace(layer, drawings=drawings)


def _half(side: str) -> NDArray[np.bool_]:
    cells = np.zeros((CELLS, CELLS), bool)
    cells[:, _SIDES[side]] = True
    return cells


def _head() -> NDArray[np.bool_]:
    cells: NDArray[np.bool_] = drawing("head", "plain")[..., 0] != 1
    cells[_NECK:] = False
    return cells


def _even(count: int) -> tuple[float, ...]:
    return (1 / count,) * count


def _colours(name: str, colours: dict[str, Colour]) -> Part:
    return Part(name, tuple(colours), _even(len(colours)), tuple(colours.values()))


def _worn_always(part: str, group: str, styles: tuple[str, ...], colour: str, *, cover: bool = False) -> Layer:
    drawings = np.stack([drawing(group, _full(style)) for style in styles])
    return Layer(drawings, style=part, colour=colour, cover=cover)


def _worn(
    name: str, group: str, styles: tuple[str, ...], colours: dict[str, Colour], *, none: float, cover: bool = False
) -> tuple[Part, Layer]:
    """A part that may be absent; its options are ``none`` and every style in every colour, so nothing is ever idle."""
    pairs = [(style, colour) for style in styles for colour in colours]
    options = ("none", *(f"{style} {colour}" for style, colour in pairs))
    drawings = np.stack([drawing(group, "none"), *(drawing(group, _full(style)) for style, _ in pairs)])
    own = np.array([(0, 0, 0), *(colours[colour] for _, colour in pairs)], float)
    part = Part(name, options, (none, *((1 - none) / len(pairs),) * len(pairs)))
    return part, Layer(drawings, style=name, own=own, cover=cover)


def _full(style: str) -> str:
    return f"variant{style}" if style.isdigit() else style
