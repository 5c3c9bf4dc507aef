"""The masks of the picture problems: 32 x 32, drawn from a seed, True (1) where a pixel is KNOWN.

All kinds of `imaging.mask_kinds`, and the parts of the avatars' face. The exact posterior of avatars takes any of them:
one visible pixel of a cell of 2 x 2 says what the others are, so only `cells` hides as much as it seems to.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ....diffusion.rng import derive
from ....errors import UsageError
from ....imaging.mask_generators import Mask
from ....imaging.mask_kinds import MASK_KINDS, draw_mask
from ...avatars.standard import standard

SIZE = 32
_CELL = 2
HALVES = ("left", "right", "top", "bottom")
FEATURES = ("eyes", "mouth")
# Under other names in the tables of docs/results; their draws stay the same.
_STREAMS = {"rotated": "window", "cells": "random", "boxes": "small"}


def about(name: str) -> str:
    """What is missing under the mask of this name, in a few words."""
    return f"the cells of the {name} are missing" if name in FEATURES else MASK_KINDS[name].about


def draw_masks(name: str, count: int, *, seed: int) -> Tensor:
    """``count`` masks of one kind, (count, 1, 32, 32) float32; mask i does not depend on ``count``.

    Args:
        name: a key of `MASK_KINDS`, or one of `FEATURES`, which is the same for every avatar.

    Raises:
        UsageError: another name.
    """
    if name not in (*MASK_KINDS, *FEATURES):
        raise UsageError(f"there is no mask {name!r}; the masks are {', '.join((*MASK_KINDS, *FEATURES))}")
    if name in FEATURES:
        drawn = [_feature(name)] * count
    else:
        seeds = [derive("picture mask", _STREAMS.get(name, name), seed, i) for i in range(count)]
        drawn = [draw_mask(name, SIZE, each) for each in seeds]
    return torch.from_numpy(np.stack(drawn)).float()[:, None]


def _feature(name: str) -> Mask:
    """The cells that any drawing of a part of the avatars' face covers are missing."""
    layer = next(layer for layer in standard().layers if layer.style == name)
    cells = layer.touched.any(0).reshape(SIZE // _CELL, SIZE // _CELL)
    return ~cells.repeat(_CELL, 0).repeat(_CELL, 1)
