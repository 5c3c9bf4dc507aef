"""Pictures to look at: the truth, what was hidden, and a row of each method's answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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


def add_to_sheet(path: Path, x: Tensor, known: masks.Mask, answers: Mapping[str, Answer], *, below: bool) -> None:
    """Write a sheet as PNG: single answers beside the truth, and a row for each method that draws samples.

    Args:
        x: the truth (1, 3, H, W).
        answers: by the name that they are shown under.
        below: put the rows below those of a sheet that is there.
    """
    truth = Image.fromarray(to_bytes(x[0]))
    first = [("truth", truth), ("hidden", hole_overlay(truth, known))]
    first += [(name, _image(a.samples[0])) for name, a in answers.items() if len(a.samples) == 1]
    rows = [first, *(_row(name, answer, known) for name, answer in answers.items() if len(answer.samples) > 1)]
    times = max(1, -(-_SMALLEST // x.shape[3]))
    sheet = labelled_rows([[(label, _enlarged(image, times)) for label, image in row] for row in rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    if below and path.exists():
        with Image.open(path, formats=["PNG"]) as earlier:
            sheet = _stacked(earlier.convert("RGB"), sheet)
    sheet.save(path)


def blind_names(names: Sequence[str], seed: int) -> dict[str, str]:
    """A letter for each method, in the order of the letters, which the seed shuffles."""
    order = np.random.default_rng(seed).permutation(len(names))
    return {names[i]: f"{chr(ord('A') + k % 26)}{k // 26 or ''}" for k, i in enumerate(order)}


def write_key(path: Path, sheet: str, names: Mapping[str, str]) -> None:
    """Put into a json file which method each letter of a sheet stands for."""
    keys = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    keys[sheet] = {letter: name for name, letter in names.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(keys, indent=1) + "\n", encoding="utf-8")


def _row(name: str, answer: Answer, known: masks.Mask) -> list[tuple[str, Image.Image]]:
    """Samples, their mean, and their standard deviation as colours."""
    deviation = answer.samples.std(0).mean(0).numpy()
    colours = np.where(known[..., None], np.uint8(214), colour_map(np.clip(deviation / _BRIGHTEST, 0, 1)))
    cells = [(f"\nsample {i + 1}", _image(sample)) for i, sample in enumerate(answer.samples[:_SINGLES])]
    cells.append((f"\nmean of {len(answer.samples)}", _image(answer.mean[0])))
    cells.append((f"\nuncertainty, 0 to {_BRIGHTEST}", Image.fromarray(colours)))
    return [(f"{name}{cells[0][0]}", cells[0][1]), *cells[1:]]


def _image(x: Tensor) -> Image.Image:
    return Image.fromarray(to_bytes(x))


def _enlarged(image: Image.Image, times: int) -> Image.Image:
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)


def _stacked(upper: Image.Image, lower: Image.Image) -> Image.Image:
    sheet = Image.new("RGB", (max(upper.width, lower.width), upper.height + lower.height), upper.getpixel((0, 0)))
    sheet.paste(upper, (0, 0))
    sheet.paste(lower, (0, upper.height))
    return sheet
