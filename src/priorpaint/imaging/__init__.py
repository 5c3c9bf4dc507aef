"""Image files in and out: the only room that touches them.

Inside the library a mask says 1 where a pixel is *known*; in files white means *repaint*. Only this package converts.
"""

from __future__ import annotations

from priorpaint.imaging.composing import compose
from priorpaint.imaging.masks import (
    Box,
    Mask,
    mask_from_alpha,
    mask_from_boxes,
    mask_from_nan,
    mask_picture,
    parse_box,
    read_mask,
)
from priorpaint.imaging.picture import Picture
from priorpaint.imaging.reading import read_picture
from priorpaint.imaging.sheets import contact_sheet, hole_overlay, uncertainty_picture
from priorpaint.imaging.writing import (
    check_output,
    check_results,
    check_space,
    lossy,
    save_picture,
    size_on_disk,
    write_array_atomic,
    write_bytes_atomic,
    write_text_atomic,
)

__all__ = [
    "Box",
    "Mask",
    "Picture",
    "check_output",
    "check_results",
    "check_space",
    "compose",
    "contact_sheet",
    "hole_overlay",
    "lossy",
    "mask_from_alpha",
    "mask_from_boxes",
    "mask_from_nan",
    "mask_picture",
    "parse_box",
    "read_mask",
    "read_picture",
    "save_picture",
    "size_on_disk",
    "uncertainty_picture",
    "write_array_atomic",
    "write_bytes_atomic",
    "write_text_atomic",
]
