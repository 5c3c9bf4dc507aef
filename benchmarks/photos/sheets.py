"""Pictures to look at: the truth, what was hidden, and a row of each method's answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from benchmarks.photos.answers import Answer
from benchmarks.photos.pictures import to_bytes
from priorpaint.imaging import mask_generators as masks
from priorpaint.imaging.sheets import colour_map, hole_overlay, labelled_rows

# Samples that are shown, and the standard deviation (values from -1 to 1) that is drawn brightest on every sheet.
_SINGLES, _BRIGHTEST = 3, 0.5
_SMALLEST = 160


def add_to_sheet(path: Path, x: Tensor, known: masks.Mask, answers: dict[str, Answer], *, beside: bool) -> None:
    """Write a sheet as PNG.

    Args:
        x: the truth (1, 3, H, W).
        answers: one row each: samples, their mean, and their standard deviation as colours.
        beside: put the rows below those of a sheet that is there.
    """
    truth = Image.fromarray(to_bytes(x[0]))
    rows = [[("truth", truth), ("hidden", hole_overlay(truth, known))]]
    rows += [_row(label, answer, known) for label, answer in answers.items()]
    factor = max(1, -(-_SMALLEST // x.shape[3]))
    if factor > 1:
        rows = [
            [(label, image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST))
             for label, image in row]
            for row in rows
        ]  # fmt: skip
    sheet = labelled_rows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    if beside and path.exists():
        with Image.open(path, formats=["PNG"]) as earlier:
            sheet = _stacked(earlier.convert("RGB"), labelled_rows(rows[1:]))
    sheet.save(path)


def _row(label: str, answer: Answer, known: masks.Mask) -> list[tuple[str, Image.Image]]:
    samples = answer.samples[:_SINGLES]
    cells = [
        (f"{label}\nsample {i + 1}" if i == 0 else f"\nsample {i + 1}", Image.fromarray(to_bytes(sample)))
        for i, sample in enumerate(samples)
    ]
    if len(answer.samples) == 1:
        return [(label, cells[0][1])]
    deviation = answer.samples.std(0).mean(0).numpy()
    colours = np.where(known[..., None], np.uint8(214), colour_map(np.clip(deviation / _BRIGHTEST, 0, 1)))
    cells.append((f"\nmean of {len(answer.samples)}", Image.fromarray(to_bytes(answer.mean[0]))))
    return [*cells, (f"\nuncertainty, 0 to {_BRIGHTEST}", Image.fromarray(colours))]


def _stacked(upper: Image.Image, lower: Image.Image) -> Image.Image:
    sheet = Image.new("RGB", (max(upper.width, lower.width), upper.height + lower.height), upper.getpixel((0, 0)))
    sheet.paste(upper, (0, 0))
    sheet.paste(lower, (0, upper.height))
    return sheet
