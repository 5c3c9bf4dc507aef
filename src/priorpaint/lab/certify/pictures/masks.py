"""The masks of the picture problems: 32 x 32, drawn from a seed, True (1) where a pixel is KNOWN."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ....diffusion.rng import derive
from ....errors import UsageError
from ....imaging import mask_generators as masks
from ...avatars.standard import standard

SIZE = 32
_CELL = 2


def _random(seed: int) -> masks.Mask:
    """Whole cells of 2 x 2 pixels: one pixel of an avatar's cell says what the others are."""
    missing = 0.4 + 0.4 * float(np.random.default_rng(seed).random())
    return masks.random_pixels(SIZE // _CELL, seed, missing).repeat(_CELL, 0).repeat(_CELL, 1)


def _features(name: str) -> Callable[[int], masks.Mask]:
    """The cells that any drawing of a part of the avatars' face covers are missing."""

    def build(seed: int) -> masks.Mask:
        layer = next(layer for layer in standard().layers if layer.style == name)
        cells = layer.touched.any(0).reshape(SIZE // _CELL, SIZE // _CELL)
        return ~cells.repeat(_CELL, 0).repeat(_CELL, 1)

    return build


MASKS: dict[str, Callable[[int], masks.Mask]] = {
    "left": lambda seed: masks.half(SIZE, "left"),
    "right": lambda seed: masks.half(SIZE, "right"),
    "top": lambda seed: masks.half(SIZE, "top"),
    "bottom": lambda seed: masks.half(SIZE, "bottom"),
    "window": lambda seed: masks.rotated_window(SIZE, seed),
    "random": _random,
    "small": lambda seed: masks.random_boxes(SIZE, seed, (0.02, 0.2)),
    "eyes": _features("eyes"),
    "mouth": _features("mouth"),
}
HALVES = ("left", "right", "top", "bottom")
ABOUT = {
    "left": "the left half is missing",
    "right": "the right half is missing",
    "top": "the upper half is missing",
    "bottom": "the lower half is missing",
    "window": "a half plane at a random angle is missing",
    "random": "40-80 % of the cells (2 x 2 pixels) are missing",
    "small": "boxes, at most 20 %, are missing",
    "eyes": "the cells of the eyes are missing",
    "mouth": "the cells of the mouth are missing",
}


def draw_masks(name: str, count: int, *, seed: int) -> Tensor:
    """``count`` masks of one kind (see `ABOUT`), (count, 1, 32, 32) float32; mask i does not depend on ``count``.

    Raises:
        UsageError: another name.
    """
    if name not in MASKS:
        raise UsageError(f"there is no mask {name!r}; the masks are {', '.join(MASKS)}")
    drawn = [MASKS[name](derive("picture mask", name, seed, i)) for i in range(count)]
    return torch.from_numpy(np.stack(drawn)).float()[:, None]
