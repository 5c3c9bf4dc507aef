"""The pictures of docs/avatars.md."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..imaging.sheets import colour_map
from .model import SIZE, Avatars
from .painting import Pixels
from .pixels import as_tensor
from .posterior import posterior
from .standard import standard

_SCALE = 3
_GAP = 6
_PAPER = 255
_HIDDEN = (210, 210, 216)
_BRIGHTEST = 0.6


def sheet(num: int, seed: int, *, columns: int = 12, avatars: Avatars | None = None) -> Image.Image:
    """``num`` random avatars."""
    avatars = standard() if avatars is None else avatars
    return _grid(avatars.pictures(num, seed), columns)


def posterior_sheet(seed: int, *, samples: int = 6, avatars: Avatars | None = None) -> Image.Image:
    """One row for each of six masks: truth, what is seen, exact samples, and the exact mean and standard deviation."""
    avatars = standard() if avatars is None else avatars
    masks = _masks()
    truth = avatars.pictures(len(masks), seed)
    exact = posterior(as_tensor(truth), masks[:, None])
    drawn = exact.sample(samples, seed=seed)
    completions = avatars.compose(drawn.reshape(-1, drawn.shape[-1])).reshape(len(masks), samples, SIZE, SIZE, 3)
    seen = np.where(masks.numpy()[..., None] > 0, truth, np.array(_HIDDEN, np.uint8))
    mean = ((exact.mean.permute(0, 2, 3, 1) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
    width = exact.std.square().mean(1).sqrt().numpy()
    std = colour_map(np.clip(width / _BRIGHTEST, 0, 1))
    rows = [truth[:, None], seen[:, None], completions, mean[:, None], std[:, None]]
    cells = np.concatenate(rows, 1)
    return _grid(cells.reshape(-1, SIZE, SIZE, 3), cells.shape[1])


def _masks() -> Tensor:
    """Hidden: right half, left half, bottom half, top half, the eyes, the mouth; (6, 32, 32), 1 = known."""
    masks = torch.ones(6, SIZE, SIZE)
    masks[0, :, 16:] = masks[1, :, :16] = masks[2, 16:] = masks[3, :16] = 0
    masks[4, 8:18, 4:28] = masks[5, 18:24, 10:22] = 0
    return masks


def _grid(pictures: Pixels, columns: int) -> Image.Image:
    side = SIZE * _SCALE
    rows = -(-len(pictures) // columns)
    paper: NDArray[np.uint8] = np.full(
        (rows * (side + _GAP) + _GAP, columns * (side + _GAP) + _GAP, 3), _PAPER, np.uint8
    )
    for number, picture in enumerate(pictures):
        top, left = (_GAP + place * (side + _GAP) for place in divmod(number, columns))
        paper[top : top + side, left : left + side] = picture.repeat(_SCALE, 0).repeat(_SCALE, 1)
    return Image.fromarray(paper)
