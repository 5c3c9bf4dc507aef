"""The pictures of docs/masks.md, from a small photo: ``python -m tools.mask_pictures`` draws them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

import priorpaint
from priorpaint.imaging.sheets import hole_overlay, labelled_rows, shown

ROOT = Path(__file__).parents[1]
SIZE = (226, 150)
STROKES = [((40, 108), (90, 120), (130, 112)), ((150, 30), (175, 60))]


def cases() -> list[tuple[str, Image.Image, dict[str, Any]]]:
    """What stands above each column, the input, and the arguments of the run."""
    photo = (
        Image.open(ROOT / "examples/chelsea.png", formats=["PNG"]).convert("RGB").resize(SIZE, Image.Resampling.LANCZOS)
    )
    marked, erased = photo.copy(), photo.copy()
    draw, opacity = ImageDraw.Draw(marked), np.full(SIZE[::-1], 255.0)
    rows, columns = np.indices(SIZE[::-1])
    for stroke in STROKES:
        draw.line(stroke, fill="#ffff00", width=7, joint="curve")
    for x, y in ((168, 42), (176, 52)):  # a soft eraser: clear in the middle, a rim around it
        opacity = np.minimum(opacity, 255 * np.clip((np.hypot(rows - y, columns - x) - 6) / 10, 0, 1))
    erased.putalpha(Image.fromarray(opacity.round().astype(np.uint8)))
    box = {"boxes": [(92, 84, 44, 36)]}
    return [
        ('--mask-color "#ffff00" --grow 2', marked, {"mask_color": "#ffff00", "grow": 2}),
        ("--mask-from-alpha", erased, {"mask": "alpha"}),
        ("--box 92,84,44,36 --grow 6 --feather 6", photo, {**box, "grow": 6, "feather": 6}),
        ("--extend 40,0,40,0 --grow 4 --feather 4", photo, {"extend": (40, 0, 40, 0), "grow": 4, "feather": 4}),
    ]


def preview() -> Image.Image:
    """What --preview writes."""
    _, image, arguments = cases()[0]
    return priorpaint.plan(image, **arguments).preview()


def sheet() -> Image.Image:
    """Above the inputs, in the middle what is repainted, below one completion each."""
    inputs, holes, completions = [], [], []
    for label, image, arguments in cases():
        plan = priorpaint.plan(image, arguments.pop("mask", None), num_samples=1, seed=1, **arguments)
        inputs.append((label, shown(image)))
        holes.append(
            (plan.about_hole().split(",")[1].strip(), hole_overlay(plan.picture.image, plan.known, plan.weight))
        )
        completions.append(("one completion", plan.run().images[0].convert("RGB")))
    return labelled_rows([inputs, holes, completions])


if __name__ == "__main__":
    for name, drawn in (("preview", preview), ("options", sheet)):
        drawn().quantize(200).save(ROOT / f"docs/images/mask-{name}.png", optimize=True)
