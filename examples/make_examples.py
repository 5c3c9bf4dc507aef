"""Make the pictures and masks of this folder again: ``python examples/make_examples.py`` (needs the extra ``bench``).

White means: repaint.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).parent


def picture(name: str, size: tuple[int, int], box: tuple[int, int, int, int] | None = None) -> Image.Image:
    """A picture of scikit-image, cut to ``box`` (left, top, right, bottom) and then scaled to ``size``."""
    return Image.fromarray(getattr(skimage.data, name)()).convert("RGB").resize(size, Image.Resampling.LANCZOS, box)


def scratches_and_text(size: tuple[int, int]) -> Image.Image:
    """Three lines of writing and a handful of scratches."""
    mask = Image.new("L", size, 0)
    pen = ImageDraw.Draw(mask)
    font = ImageFont.load_default(26)
    width, height = size
    lines = {"fill me in": (0.05, 0.10), "one photo, many answers": (0.22, 0.45), "priorpaint": (0.58, 0.82)}
    for line, (x, y) in lines.items():
        pen.text((x * width, y * height), line, fill=255, font=font, stroke_width=1, stroke_fill=255)
    for start, bend, end in [
        ((0.00, 0.30), (0.35, 0.38), (0.62, 0.02)),
        ((0.10, 1.00), (0.30, 0.70), (0.95, 0.62)),
        ((0.72, 0.00), (0.80, 0.40), (1.00, 0.55)),
        ((0.02, 0.62), (0.15, 0.80), (0.52, 0.98)),
    ]:
        pen.line([(x * width, y * height) for x, y in (start, bend, end)], fill=255, width=3, joint="curve")
    return mask.point(lambda value: 255 if value >= 96 else 0)


def boxes(size: tuple[int, int], *places: tuple[int, int, int]) -> Image.Image:
    """Squares (left, top, side)."""
    mask = Image.new("L", size, 0)
    for left, top, side in places:
        mask.paste(255, (left, top, left + side, top + side))
    return mask


def grid_of_holes(size: tuple[int, int], seed: int = 4) -> Image.Image:
    """A hole of 16 to 32 px in each cell of a loose grid, about 10 % of the picture."""
    rng = np.random.default_rng(seed)
    places = []
    for left in range(16, size[0] - 48, 78):
        for top in range(16, size[1] - 48, 72):
            places.append((left + int(rng.integers(0, 36)), top + int(rng.integers(0, 30)), int(rng.integers(16, 33))))
    return boxes(size, *places)


def main() -> None:
    chelsea = picture("chelsea", (451, 300))
    coffee = picture("coffee", (480, 320))
    astronaut = picture("astronaut", (384, 384), (0, 0, 512, 512))
    rocket = picture("rocket", (480, 320))
    chelsea.save(HERE / "chelsea.png", optimize=True)
    coffee.save(HERE / "coffee.png", optimize=True)
    astronaut.save(HERE / "astronaut.png", optimize=True)
    rocket.save(HERE / "rocket.jpg", quality=92)
    masks = {
        "chelsea-strokes": scratches_and_text(chelsea.size),
        "coffee-holes": grid_of_holes(coffee.size),
        "astronaut-box": boxes(astronaut.size, (108, 250, 64)),
        "rocket-strokes": scratches_and_text(rocket.size),
    }
    for name, mask in masks.items():
        mask.convert("1").convert("L").save(HERE / f"{name}.png", optimize=True)
        print(f"{name}: {np.mean(np.asarray(mask) > 0):.1%} to repaint")


if __name__ == "__main__":
    main()
