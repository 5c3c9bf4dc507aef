"""A picture report as tables and as the page docs/results/pictures.md."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from ....errors import printable
from ....imaging.writing import make_folder, write_text_atomic
from ..report import Grid, markdown_table, print_grid
from ..results import DONE, FAILED
from .masks import about
from .run import PictureCell, PictureReport
from .sheet import save_sheet, sheet_file
from .subject import Column
from .subjects import SUBJECTS

PAGE_FILE = "pictures.md"
_NONE = "–"
_PRICE = (
    Column("NFE", "network evaluations a completion, without + with a gradient", lambda measures: None),
    Column("CPU s", "seconds a completion", lambda measures: None),
)


@dataclass(frozen=True)
class _Line:
    """What a table shows of one method."""

    name: str
    measures: Any
    cell: PictureCell | None = None


def header(report: PictureReport) -> list[str]:
    """Titles of the columns."""
    return ["method", *(column.title for column in (*report.subject.columns, *_PRICE))]


def table(report: PictureReport, mask: str) -> list[list[str]]:
    """The rows of one mask as text: what cannot be better, then the methods in the subject's order."""
    kind = report.subject
    done = [cell for cell in report.cells if cell.mask == mask and cell.status == DONE]
    lines = [_Line(cell.method, cell.measures, cell) for cell in done if cell.measures is not None]
    lines.sort(key=lambda line: kind.order(line.measures))
    return [_row(kind.columns, line) for line in (_Line(kind.reference, report.floors[mask]), *lines)]


def show(report: PictureReport, console: Console) -> None:
    """Print one table a mask."""
    for mask in report.masks:
        print_grid(Grid(f"{mask}: {about(mask)}", header(report), table(report, mask)), console)
    for cell in report.cells:
        if cell.status == FAILED:
            sentence = printable(f"{cell.method} failed on {cell.mask}: {cell.note}")
            console.print(sentence, markup=False, highlight=False)


def markdown(report: PictureReport, *, pictures: str = "") -> str:
    """The section of one report; ``pictures`` is the address of the sheets' folder, from the page."""
    setup, kind = report.setup, report.subject
    threads = f"{setup['threads']} thread" + "s" * (setup["threads"] > 1)
    prior = printable(setup["prior"])
    setup_line = f"Prior `{prior}`, {threads}, torch {setup['torch']}; the commands stand with the tables."
    legend = [f"| {column.title} | {column.meaning} | {column.perfect} |" for column in (*kind.columns, *_PRICE)]
    head = f"| column | meaning | {kind.reference} |\n|---|---|---|"
    other = "" if report.name == kind.name else f" with the prior {prior}"
    parts = [f"## {kind.name.capitalize()}{other}\n", kind.about + "\n", setup_line + "\n"]
    parts.append("\n".join([head, *legend]) + "\n")
    for mask in report.masks:
        address = pictures + sheet_file(report.name, mask)
        parts.append(f"### {kind.name}{other}, {mask}: {about(mask)}\n\n{_size(report, mask)}\n")
        parts.append(f"![Completions by each method]({address})\n")
        parts.append(markdown_table(Grid(mask, header(report), table(report, mask))))
    others = (cell for cell in report.cells if cell.status != DONE)
    left_out = sorted({printable(f"- {cell.method}: {cell.status}: {cell.note}") for cell in others})
    if left_out:
        parts.append(f"### {kind.name}{other}, left out\n\n" + "\n".join(left_out) + "\n")
    return "\n".join(parts)


def page(reports: Sequence[PictureReport], *, pictures: str = "") -> str:
    """The page: a section for each report."""
    return "\n".join(["# Certification on pictures\n", *(markdown(report, pictures=pictures) for report in reports)])


def json_file(name: str) -> str:
    """The file with the numbers of the report of this name."""
    return f"pictures-{name}.json"


def save(
    report: PictureReport, folder: str | Path, *, pictures: str | Path | None = None, command: str | None = None
) -> list[Path]:
    """Write the JSON, the page of all reports in the folder, and a sheet for each mask that has one.

    Each file is written atomically.

    Args:
        report: the run.
        folder: made where it is missing.
        pictures: folder of the sheets; None is the same folder.
        command: what was typed to make the cells that do not say so yet, for the page.

    Returns:
        The files.

    Raises:
        UsageError: the folder cannot be made, or it holds another report that is damaged.
    """
    folder, sheets = Path(folder), Path(pictures or folder)
    for needed in (folder, sheets):
        make_folder(needed)
    address = "" if sheets == folder else os.path.relpath(sheets, folder) + "/"
    if command:
        report = replace(report, cells=tuple(replace(cell, command=cell.command or command) for cell in report.cells))
    own = folder / json_file(report.name)
    write_text_atomic(own, report.to_json())
    there = [PictureReport.from_json(path.read_text("utf-8")) for path in sorted(folder.glob(json_file("*")))]
    reports = sorted(there, key=lambda each: (list(SUBJECTS).index(each.subject.name), len(each.name)))
    write_text_atomic(folder / PAGE_FILE, page(reports, pictures=address))
    files = [own, folder / PAGE_FILE]
    for mask in report.shown:
        save_sheet(report, mask, sheets / sheet_file(report.name, mask))
        files.append(sheets / sheet_file(report.name, mask))
    return files


def _size(report: PictureReport, mask: str) -> str:
    cells = [cell for cell in report.cells if cell.mask == mask]
    if not cells:
        return "No method has run."
    pictures, samples, budget, weights = cells[0].shared
    networks = sorted({cell.lpips for cell in cells if cell.lpips})
    price = "each method as it is set" if budget is None else f"{budget} network evaluations a completion"
    commands = ", then ".join(dict.fromkeys(f"`{cell.command}`" for cell in cells if cell.command))
    provenance = f" Made by {commands}." if commands else ""
    which = f", weights {weights[:12]}" if weights else ""
    which += f", LPIPS with {networks[0]}" if networks else ""
    size = f"{pictures} picture{'s' * (pictures > 1)}, {samples} completions of each, {price}{which}."
    notes = dict.fromkeys(cell.note for cell in cells if cell.status == DONE and cell.note)
    return printable(" ".join([size + provenance, *notes]))


def _row(columns: Sequence[Column], line: _Line) -> list[str]:
    cell = line.cell
    cost = ["", ""] if cell is None else [f"{cell.forward:.0f} + {cell.backward:.0f}", f"{cell.seconds:.2f}"]
    return [line.name, *(_entry(column, line.measures) for column in columns), *cost]


def _entry(column: Column, measures: Any) -> str:
    noise = column.noise(measures)
    value = _number(column.value(measures), column.digits)
    return value if noise is None else f"{value} ± {_number(noise, column.digits)}"


def _number(value: float | None, digits: int) -> str:
    return _NONE if value is None or math.isnan(value) else f"{value:.{digits}f}"
