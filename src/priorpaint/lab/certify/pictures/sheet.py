"""Contact sheets: what is known of some pictures, and what each method makes of them, a strip each.

The file of a sheet says where each strip stands, so that an update keeps those of methods that did not run again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from textwrap import wrap

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ....errors import UsageError
from ....imaging.grids import to_pixels
from ....imaging.writing import write_bytes_atomic
from ..results import DONE
from .run import PictureReport
from .subject import KNOWN, TRUTH

_ZOOM, _GAP, _LABEL, _MARGIN, _LETTERS = 2, 4, 132, 4, 20
_ROWS = 3
_BOXES = "strips"  # text in the PNG: [[name, top, width, height], ...]

Strips = dict[str, Image.Image]


def sheet_file(name: str, mask: str) -> str:
    """The contact sheet of a mask in the report of this name."""
    return f"pictures-{name}-{mask}.png"


def save_sheet(report: PictureReport, mask: str, file: Path) -> None:
    """Write the sheet of a mask (see `strips`), with the strips of kept methods that ``file`` holds so far.

    Raises:
        UsageError: there is such a file, and it is no picture.
    """
    drawn = strips(report, mask)
    done = {cell.method for cell in report.cells if cell.mask == mask and cell.status == DONE}
    if done - set(drawn) and file.is_file():
        drawn |= {name: strip for name, strip in _stored(file).items() if name in done - set(drawn)}
    first = [name for name in drawn if name not in report.methods]
    order = [*first, *(name for name in report.methods if name in drawn)]
    page, boxes = _page({name: drawn[name] for name in order})
    about, data = PngInfo(), BytesIO()
    about.add_text(_BOXES, json.dumps(boxes))
    page.save(data, "PNG", optimize=True, pnginfo=about)
    write_bytes_atomic(file, data.getvalue())


def strips(report: PictureReport, mask: str, rows: int = _ROWS) -> Strips:
    """Truth and what is known, exact samples (where there are any), and each method's completions of some pictures.

    In each strip stands one block of columns a picture.
    """
    shown = report.shown[mask]
    names = [name for name in shown if name not in (TRUTH, KNOWN)]
    columns = max([2, *(shown[name].shape[1] for name in names)])
    first = {f"{TRUTH}, {KNOWN}": _strip([shown[TRUTH], shown[KNOWN]], rows, columns)}
    return first | {name: _strip([shown[name]], rows, columns) for name in names}


def _stored(file: Path) -> Strips:
    """The strips of a sheet that was written before."""
    try:
        with Image.open(file, formats=["PNG"]) as page:
            boxes, pixels = json.loads(page.info.get(_BOXES, "[]")), page.convert("RGB")
    except OSError:
        raise UsageError(f"{file} cannot be read as a picture; move it away, and it is drawn anew.") from None
    return {name: pixels.crop((_LABEL, top, _LABEL + wide, top + high)) for name, top, wide, high in boxes}


def _page(drawn: Strips) -> tuple[Image.Image, list[tuple[str, int, int, int]]]:
    """The strips below each other with their names, and where each stands."""
    width = _LABEL + max(strip.width for strip in drawn.values())
    height = sum(strip.height + _MARGIN for strip in drawn.values())
    page = Image.new("RGB", (width, height), "white")
    draw, font, top = ImageDraw.Draw(page), ImageFont.load_default(size=12), 0
    boxes = []
    for name, strip in drawn.items():
        label = "\n".join(wrap(name.replace(":", ": ").replace(",", ", "), _LETTERS))
        draw.multiline_text((4, top + strip.height // 2), label, fill="black", font=font, anchor="lm", spacing=2)
        page.paste(strip, (_LABEL, top))
        boxes.append((name, top, strip.width, strip.height))
        top += strip.height + _MARGIN
    return page, boxes


def _strip(groups: Sequence[Tensor], count: int, columns: int) -> Image.Image:
    """The first ``count`` pictures, each with those of all groups (B, n, 1|3, 32, 32) beside each other.

    Each gets ``columns`` columns; what is left of them stays white.
    """
    blocks = torch.cat([group[:count] for group in groups], 1)
    white = blocks.new_ones(1).expand(len(blocks), columns - blocks.shape[1], *blocks.shape[2:])
    pixels = to_pixels(torch.cat([blocks, white], 1))
    pixels = pixels.repeat(_ZOOM, 2).repeat(_ZOOM, 3)
    rows = [
        np.concatenate([np.pad(p, ((0, 0), (0, _GAP), (0, 0)), constant_values=255) for p in row], 1) for row in pixels
    ]
    spaced = [np.pad(row, ((0, 0), (0, 2 * _GAP), (0, 0)), constant_values=255) for row in rows]
    return Image.fromarray(np.concatenate(spaced, 1))
