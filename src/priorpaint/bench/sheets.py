"""Sheets of a benchmark: a row a picture with its truth, what was measured of it, and samples of each method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ..batch.store import Record
from ..imaging import write_bytes_atomic
from ..imaging.grids import Pixels, to_pixels
from ..imaging.writing import make_folder
from .cells import PROBLEMS
from .cells import Measured as Problem
from .measure import read_cell
from .summary import case_of

SHEETS = "sheets"
ROWS, SHOWN = 8, 3  # pictures on a sheet, and samples of each method
_SMALLEST, _LARGEST = 96, 256  # side of a shown picture
_GAP, _BLOCK, _HEAD, _NAME = 3, 14, 26, 20
_GREY = 128


@dataclass(frozen=True)
class Row:
    """One problem of a sheet: its key, its picture, and the finished cells by method."""

    problem: str
    picture: str
    cells: dict[str, Record]


def write_sheets(folder: Path, cells: Sequence[Record], methods: Sequence[str]) -> dict[str, list[str]]:
    """Write PNG files with at most ``ROWS`` pictures each, of which one sheet at a time is in memory.

    Of several seeds of a picture the first one finished is shown.

    Returns:
        The names of the files below ``folder``, by mask or operator.
    """
    make_folder(folder / SHEETS)
    cases: dict[str, dict[str, Row]] = {}
    for cell in cells:
        rows = cases.setdefault(case_of(cell), {})
        row = rows.setdefault(cell["picture"], Row(cell["problem"], cell["picture"], {}))
        if cell["problem"] == row.problem:
            row.cells[cell["method"]] = cell
    files: dict[str, list[str]] = {}
    for number, (case, found) in enumerate(cases.items(), 1):
        listed = list(found.values())
        there = [method for method in methods if any(method in row.cells for row in listed)]
        for first in range(0, len(listed), ROWS):
            file = f"{SHEETS}/{number:02}-{first // ROWS + 1:03}.png"
            data = BytesIO()
            _sheet(folder, listed[first : first + ROWS], there).save(data, "PNG")
            write_bytes_atomic(folder / file, data.getvalue())
            files.setdefault(case, []).append(file)
    return files


def _sheet(folder: Path, rows: Sequence[Row], methods: Sequence[str]) -> Image.Image:
    strips = [_strips(folder, row, methods) for row in rows]
    font = ImageFont.load_default(size=13)
    titles = ["truth", "measured", *methods]
    wides = [
        max([round(font.getlength(title)), *(strip[i].width for strip in strips)]) for i, title in enumerate(titles)
    ]
    talls = [max(picture.height for picture in strip) for strip in strips]
    width = sum(wides) + _BLOCK * (len(wides) + 1)
    page = Image.new("RGB", (width, _HEAD + sum(tall + _NAME + _GAP for tall in talls) + _GAP), "white")
    draw, top = ImageDraw.Draw(page), _HEAD
    lefts = [_BLOCK + sum(wides[:i]) + _BLOCK * i for i in range(len(wides))]
    for left, title in zip(lefts, titles, strict=True):
        draw.text((left, 6), title, fill="black", font=font)
    for row, strip, tall in zip(rows, strips, talls, strict=True):
        for left, picture in zip(lefts, strip, strict=True):
            page.paste(picture, (left, top))
        draw.text((_BLOCK, top + tall + 2), row.picture, fill=(110, 110, 110), font=font)
        top += tall + _NAME + _GAP
    return page


def _strips(folder: Path, row: Row, methods: Sequence[str]) -> list[Image.Image]:
    """Truth, measurement, and a strip of samples a method; what is not finished or damaged leaves its place empty."""
    blank = Image.new("RGB", (1, 1), "white")
    try:
        problem = Problem.read(folder / PROBLEMS / row.problem)
    except (OSError, ValueError):
        return [blank] * (2 + len(methods))
    side = problem.truth.shape[-2:]
    out = [_joined(to_pixels(torch.from_numpy(problem.truth)[None]), side), _joined(_measured(problem), side)]
    for method in methods:
        cell = row.cells.get(method)
        out.append(blank if cell is None else _joined(_samples(folder, cell), side))
    return out


def _samples(folder: Path, cell: Record) -> Pixels:
    """The first samples, or a blank where they cannot be read; `measure` has said which ones."""
    try:
        stored = read_cell(folder, cell)
    except (OSError, ValueError):
        return np.full((1, 8, 8, 3), 255, np.uint8)
    return to_pixels(stored.pasted[:SHOWN])


def _measured(problem: Problem) -> Pixels:
    """The known pixels over grey; without a mask y, where it is a picture, else a blank."""
    if problem.known is not None:
        pixels = to_pixels(torch.from_numpy(problem.truth)[None]).copy()
        pixels[:, ~problem.known] = _GREY
        return pixels
    y = torch.from_numpy(problem.y)
    if y.ndim == 3 and y.shape[0] in (1, 3):
        return to_pixels(y[None])
    return np.full((1, *problem.truth.shape[1:], 3), 255, np.uint8)


def _joined(pictures: Pixels, side: Sequence[int]) -> Image.Image:
    """Pictures (n, H, W, 3) beside each other, as large as ``side`` is shown; pixels become squares where they grow."""
    scale = max(1, -(-_SMALLEST // min(side))) if max(side) < _LARGEST else _LARGEST / max(side)
    height, width = round(side[0] * scale), round(side[1] * scale)
    kind = Image.Resampling.NEAREST if pictures.shape[1] <= height else Image.Resampling.LANCZOS
    strip = Image.new("RGB", (len(pictures) * (width + _GAP) - _GAP, height), "white")
    for i, pixels in enumerate(pictures):
        strip.paste(
            Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height), kind), (i * (width + _GAP), 0)
        )
    return strip
