"""A picture report as tables, as the page docs/results/pictures.md, and as contact sheets."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ...errors import UsageError
from ...imaging.writing import write_bytes_atomic, write_text_atomic
from ..results import DONE, FAILED
from .avatars import AvatarMeasures
from .run import PictureCell, PictureReport

JSON_FILE, PAGE_FILE = "pictures.json", "pictures.md"
EXACT = "exact samples"
_ZOOM, _GAP, _LABEL, _MARGIN = 2, 4, 132, 4
_NONE = "–"
_ABOUT = {
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
_INTRO = """# Certification on pictures

Problem A32: half hidden [avatars](../avatars.md), 32 x 32 pictures put together from 16 independent parts. All
completions that are possible, and their probabilities, are known exactly; a completion is read back into its parts, or
into "this is no avatar".

{command}

| column | meaning | exact samples |
|---|---|---|
| valid | share of completions that show an avatar | 1 |
| possible | share that show one which fits all known pixels | 1 |
| TV | total variation between sampled and exact probabilities, mean over the undecided parts; what is not possible \
counts as an option of probability 0 | the floor |
| coverage | posterior probability of all the different combinations that were hit | as in the row "exact samples" |
| score | valid x coverage | |
| rank | rank correlation of the pixels' standard deviation with the exact one | near 1 |
| width | ratio of the standard deviations; below 1 is over-confident | 1 |
| visible | root mean square change of known pixels | 0 |
| LPIPS | distance to the truth (AlexNet), where its weights were given | |
| NFE | network evaluations a completion, without + with a gradient | |
| CPU s | seconds a completion | |
"""
_HEADER = [
    "method",
    "valid",
    "possible",
    "TV",
    "coverage",
    "score",
    "rank",
    "width",
    "visible",
    "LPIPS",
    "NFE",
    "CPU s",
]


@dataclass(frozen=True)
class _Line:
    """What a table shows of one method."""

    name: str
    measures: AvatarMeasures
    cell: PictureCell | None = None


def score(measures: AvatarMeasures) -> float:
    """Validity x coverage."""
    return measures.valid * measures.coverage


def table(report: PictureReport, mask: str) -> list[list[str]]:
    """The rows of one mask as text: exact samples, then the methods by their total variation."""
    done = [cell for cell in report.cells if cell.mask == mask and cell.status == DONE]
    lines = [_Line(cell.method, cell.measures, cell) for cell in done if cell.measures is not None]
    lines.sort(key=lambda line: line.measures.tv)
    return [_row(_Line(EXACT, report.floors[mask])), *(_row(line) for line in lines)]


def show(report: PictureReport, console: Console) -> None:
    """Print one table a mask."""
    for mask in report.masks:
        grid = Table(title=f"{mask}: {_ABOUT[mask]}", title_justify="left")
        for place, name in enumerate(_HEADER):
            grid.add_column(name, justify="right" if place else "left")
        for row in table(report, mask):
            grid.add_row(*row)
        console.print(grid)
    for cell in report.cells:
        if cell.status == FAILED:
            console.print(f"{cell.method} failed on {cell.mask}: {cell.note}", markup=False, highlight=False)


def markdown(report: PictureReport, *, pictures: str = "", command: str | None = None) -> str:
    """The page; ``pictures`` is the address of the sheets' folder, from the page."""
    setup = report.setup
    made = f"Made by `{command}`: " if command else ""
    made += (
        f"prior `{setup['prior']}`, {setup['pictures']} pictures, {setup['samples']} completions of each, "
        f"budget {setup['budget']}; {setup['threads']} threads; torch {setup['torch']}."
    )
    parts = [_INTRO.format(command=made)]
    for mask in report.masks:
        parts.append(f"## {mask}: {_ABOUT[mask]}\n\n![Completions by each method]({pictures}{sheet_file(mask)})\n")
        rows = table(report, mask)
        rule = "|---|" + "--:|" * (len(_HEADER) - 1)
        lines = ["| " + " | ".join(_HEADER) + " |", rule, *("| " + " | ".join(row) + " |" for row in rows)]
        parts.append("\n".join(lines) + "\n")
    left_out = sorted({f"- {cell.method}: {cell.status}: {cell.note}" for cell in report.cells if cell.status != DONE})
    if left_out:
        parts.append("## Left out\n\n" + "\n".join(left_out) + "\n")
    return "\n".join(parts)


def sheet_file(mask: str) -> str:
    """The name of a contact sheet."""
    return f"pictures-{mask}.png"


def sheet(report: PictureReport, mask: str, rows: int = 3) -> Image.Image:
    """Truth, what is known, exact samples and each method's completions, for some pictures.

    One column a picture: truth and known above, then a block of completions for each method.
    """
    shown = report.shown[mask]
    order = [name for name in ("exact", *report.methods) if name in shown]
    strips = [("truth, known", _strip([shown["truth"], shown["known"]], rows))]
    strips += [(EXACT if name == "exact" else name, _strip([shown[name]], rows)) for name in order]
    width = _LABEL + max(strip.width for _, strip in strips)
    height = sum(strip.height + _MARGIN for _, strip in strips)
    page = Image.new("RGB", (width, height), "white")
    draw, top = ImageDraw.Draw(page), 0
    for name, strip in strips:
        draw.text((4, top + strip.height // 2 - 6), name[:22], fill="black")
        page.paste(strip, (_LABEL, top))
        top += strip.height + _MARGIN
    return page


def save(
    report: PictureReport, folder: str | Path, *, pictures: str | Path | None = None, command: str | None = None
) -> list[Path]:
    """Write pictures.json, pictures.md and a sheet for each mask that has one, each atomically.

    Args:
        report: the run.
        folder: made where it is missing.
        pictures: folder of the sheets; None is the same folder.
        command: what was typed, for the page.

    Returns:
        The files.

    Raises:
        UsageError: the folder cannot be made.
    """
    folder, place = Path(folder), Path(pictures or folder)
    for needed in (folder, place):
        try:
            needed.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"the folder {needed} cannot be made ({error.strerror}); name another one") from None
    address = "" if place == folder else os.path.relpath(place, folder) + "/"
    write_text_atomic(folder / JSON_FILE, report.to_json())
    write_text_atomic(folder / PAGE_FILE, markdown(report, pictures=address, command=command))
    files = [folder / JSON_FILE, folder / PAGE_FILE]
    for mask in report.shown:
        data = BytesIO()
        sheet(report, mask).save(data, "PNG", optimize=True)
        write_bytes_atomic(place / sheet_file(mask), data.getvalue())
        files.append(place / sheet_file(mask))
    return files


def _row(line: _Line) -> list[str]:
    found, cell = line.measures, line.cell
    shares = [_number(getattr(found, name), 3) for name in ("valid", "agree", "tv", "coverage")]
    rest = [_number(getattr(found, name), 3) for name in ("std_rank", "std_ratio", "visible", "lpips")]
    cost = ["", ""] if cell is None else [f"{cell.forward:.0f} + {cell.backward:.0f}", f"{cell.seconds:.2f}"]
    return [line.name, *shares, _number(score(found), 3), *rest, *cost]


def _number(value: float | None, digits: int) -> str:
    return _NONE if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _strip(groups: Sequence[Tensor], count: int) -> Image.Image:
    """The first ``count`` pictures, each with the columns of all groups (B, columns, 3, 32, 32) beside each other."""
    blocks = torch.cat([group[:count] for group in groups], 1).clamp(-1, 1)
    pixels = ((blocks + 1) * 127.5).round().to(torch.uint8).permute(0, 1, 3, 4, 2).numpy()
    pixels = pixels.repeat(_ZOOM, 2).repeat(_ZOOM, 3)
    rows = [
        np.concatenate([np.pad(p, ((0, 0), (0, _GAP), (0, 0)), constant_values=255) for p in row], 1) for row in pixels
    ]
    spaced = [np.pad(row, ((0, 0), (0, 2 * _GAP), (0, 0)), constant_values=255) for row in rows]
    return Image.fromarray(np.concatenate(spaced, 1))
