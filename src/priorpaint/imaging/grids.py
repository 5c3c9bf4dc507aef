"""Many small pictures of one size on one sheet, without words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Pixels = NDArray[np.uint8]
PAPER = 255


def to_pixels(pictures: Tensor) -> Pixels:
    """(..., H, W, 3) bytes of pictures (..., 1|3, H, W) in [-1, 1]; what lies outside is clamped."""
    bytes_ = ((pictures.detach().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu().movedim(-3, -1)
    return bytes_.expand(*bytes_.shape[:-1], 3).numpy()


def picture_rows(rows: Sequence[Pixels], *, gap: int = 0, border: int = 0, scale: int = 1) -> Image.Image:
    """Rows of pictures on white paper.

    Args:
        rows: each (N, H, W, 3) bytes; N, H and W may differ from row to row.
        gap: pixels between pictures.
        border: pixels around all of them.
        scale: whole factor by which pictures are enlarged, every pixel to a square.
    """
    sizes = [(scale * row.shape[1], len(row) * (scale * row.shape[2] + gap) - gap) for row in rows]
    tall, wide = sum(height + gap for height, _ in sizes) - gap, max(width for _, width in sizes)
    paper: Pixels = np.full((tall + 2 * border, wide + 2 * border, 3), PAPER, np.uint8)
    top = border
    for row, (height, _) in zip(rows, sizes, strict=True):
        width = scale * row.shape[2]
        for across, picture in enumerate(row):
            left = border + across * (width + gap)
            paper[top : top + height, left : left + width] = picture.repeat(scale, 0).repeat(scale, 1)
        top += height + gap
    return Image.fromarray(paper)


def picture_grid(pictures: Pixels, columns: int, *, gap: int = 0, border: int = 0, scale: int = 1) -> Image.Image:
    """Pictures (N, H, W, 3) in rows of ``columns``, blank where there are no more; the rest as for `picture_rows`."""
    blank: Pixels = np.full((-len(pictures) % columns, *pictures.shape[1:]), PAPER, np.uint8)
    rows = np.concatenate([pictures, blank]).reshape(-1, columns, *pictures.shape[1:])
    return picture_rows(list(rows), gap=gap, border=border, scale=scale)
