"""A mask before any work: the picture with its hole tinted and boxes around what the prior will see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from priorpaint.imaging.sheets import hole_overlay, labelled_grid, thumbnail

_LONGEST, _SMALL = 1024, 512
_LINE = (20, 90, 200)


def mask_preview(
    image: Image.Image,
    known: NDArray[np.bool_],
    *,
    weight: NDArray[np.float32] | None = None,
    windows: Sequence[tuple[int, int, int, int]] = (),
    label: str = "",
) -> Image.Image:
    """The picture with its hole tinted, at most 1024 pixels on a side, and frames around windows.

    One of up to 512 pixels is enlarged by a whole factor, up to these.

    Args:
        image: the picture.
        known: (H, W), False in the hole.
        weight: (H, W), from 0 to 1, how strongly the hole is tinted; see `masks.feather`.
        windows: boxes (x, y, width, height) in pixels of the picture; they may reach beyond it.
        label: lines of text above it; by default how much is to be repainted.
    """
    tinted = hole_overlay(image, known, weight)
    small = thumbnail(tinted, _LONGEST if max(image.size) > _SMALL else _SMALL)
    factor = small.width / image.width
    draw = ImageDraw.Draw(small)
    for left, top, width, height in windows:
        corners = [left, top, left + width, top + height]
        x0, y0, x1, y1 = (round(corner * factor) for corner in corners)
        draw.rectangle(
            (max(x0, 0), max(y0, 0), min(x1, small.width) - 1, min(y1, small.height) - 1), outline=_LINE, width=2
        )
    return labelled_grid([(label or hole_facts(known), small)])


def hole_facts(known: NDArray[np.bool_]) -> str:
    """The size of a mask (H, W) and how much of it is to be repainted."""
    count, (height, width) = int(np.count_nonzero(~known)), known.shape
    return f"{width}x{height}, {count / known.size:.1%} to repaint ({count} pixels)"
