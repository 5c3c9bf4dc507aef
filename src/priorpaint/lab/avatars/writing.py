"""Avatars as files: training pictures."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from ...errors import UsageError
from .model import ZOOM, Avatars
from .standard import standard

_CHUNK = 2048


def write(
    folder: Path,
    num: int,
    seed: int,
    *,
    classes: str | None = None,
    scale: int = ZOOM,
    avatars: Avatars | None = None,
) -> None:
    """Write ``num`` independent avatars as PNG files, and ``avatars.json`` with the combination of each.

    Args:
        folder: made if needed; it must be empty.
        seed: the draw; picture i is the same for every ``num``.
        classes: the name of a part; the pictures of each of its options go into a folder of their own, named by the
            option with ``-`` for spaces.
        scale: pixels along a side of one of the 16 x 16 cells of the drawing: 2 for 32 x 32 pixels, 4 for 64 x 64.
        avatars: the law; default `standard`.

    Raises:
        UsageError: the folder has files, ``num`` or ``scale`` is not positive, or there is no such part.
    """
    avatars = standard() if avatars is None else avatars
    if num < 1:
        raise UsageError(f"the number of avatars is at least 1, not {num}")
    if scale < 1:
        raise UsageError(f"a cell has at least 1 pixel along a side, not {scale}")
    if classes is not None and classes not in avatars.index:
        raise UsageError(f"there is no part {classes!r}; the parts are {', '.join(avatars.index)}")
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty; name another folder.")
    parts = avatars.draw(num, seed)
    targets = [folder] * num
    if classes is not None:
        column = avatars.index[classes]
        homes = [folder / option.replace(" ", "-") for option in avatars.parts[column].options]
        targets = [homes[choice] for choice in parts[:, column]]
    for target in {folder, *targets}:
        target.mkdir(parents=True, exist_ok=True)
    for start in range(0, num, _CHUNK):
        for row, picture in enumerate(avatars.compose(parts[start : start + _CHUNK]), start):
            cells = picture[::ZOOM, ::ZOOM].repeat(scale, 0).repeat(scale, 1)
            Image.fromarray(cells).save(targets[row] / f"{row:06d}.png", compress_level=1)
    about = {
        "num": num,
        "seed": seed,
        "parts": {part.name: part.options for part in avatars.parts},
        "combinations": parts.tolist(),
    }
    (folder / "avatars.json").write_text(json.dumps(about))
