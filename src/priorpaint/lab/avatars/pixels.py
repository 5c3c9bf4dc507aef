"""Between pictures and the cells that the tables speak of."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import UsageError
from .model import SIZE, ZOOM
from .sheet import CELLS

LEVEL = 127.5


def as_tensor(pictures: NDArray[np.uint8]) -> Tensor:
    """Pictures (N, 32, 32, 3) in 0..255 as float32 (N, 3, 32, 32) in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / LEVEL - 1


def as_picture(cells: Tensor) -> Tensor:
    """Values of cells (N, 256, C) as values of pixels (N, C, 32, 32)."""
    small = cells.reshape(len(cells), CELLS, CELLS, -1).movedim(-1, 1)
    return small.repeat_interleave(ZOOM, 2).repeat_interleave(ZOOM, 3)


def over_cells(values: Tensor) -> Tensor:
    """Sums over the pixels of each cell: (N, C, 32, 32) -> (N, 256, C)."""
    cells = values.reshape(*values.shape[:2], CELLS, ZOOM, CELLS, ZOOM).sum((3, 5))
    return cells.flatten(2).mT.contiguous()


def cell_features(y: Tensor, known: Tensor, *, exact: bool = False) -> Tensor:
    """The seven numbers of each cell (N, 256, 7), float64.

    Args:
        y: (N, 3, 32, 32) on the scale [-1, 1].
        known: (N, 1, 32, 32), bool.
        exact: round to 8 bits.
    """
    levels = torch.where(known, (y.double() + 1) * LEVEL, 0.0)
    levels = levels.round() if exact else levels
    counts = over_cells(known.double()).expand(-1, -1, 3)
    return torch.cat([-2 * over_cells(levels), counts, over_cells(levels.square()).sum(-1, keepdim=True)], -1)


def mask_for(known: Tensor, y: Tensor) -> Tensor:
    """The mask (N, 1, 32, 32), bool, of pictures y.

    Raises:
        UsageError: pictures that are no avatars, or a mask that does not fit them.
    """
    if y.ndim != 4 or tuple(y.shape[1:]) != (3, SIZE, SIZE):
        raise UsageError(f"avatars are (N, 3, {SIZE}, {SIZE}), not {tuple(y.shape)}")
    try:
        return (known.detach().cpu() > 0.5).expand(len(y), 1, SIZE, SIZE)
    except RuntimeError:
        fitting = f"(1 or {len(y)}, 1, {SIZE}, {SIZE})"
        raise UsageError(f"the mask of {len(y)} avatars is {fitting}, not {tuple(known.shape)}") from None
