"""The drawings: ``parts.json`` as arrays (made by ``tools/extract_avatars.py``; origin and licence in ``parts.md``)."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError

CELLS = 16

Drawing = NDArray[np.float64]


@cache
def _sheet() -> dict[str, dict[str, Drawing]]:
    stored = json.loads(files(__package__).joinpath("parts.json").read_text())
    inks = stored["inks"]
    return {
        group: {name: np.array([[inks[letter] for letter in row] for row in rows]) for name, rows in parts.items()}
        for group, parts in stored["parts"].items()
    }


def drawing(group: str, name: str) -> Drawing:
    """One part: for each cell the share it keeps of the colour below, that of its own colour, and that of white.

    Args:
        group: head, accessories, beard, clothing, eyes, glasses, hair, hat or mouth.
        name: the name in DiceBear's style, or ``none`` for an empty drawing.

    Returns:
        (16, 16, 3), shares in [0, 1]; what is missing to 1 is black.

    Raises:
        UsageError: there is no such drawing.
    """
    if name == "none":
        return np.broadcast_to(np.array([1.0, 0.0, 0.0]), (CELLS, CELLS, 3)).copy()
    drawings = _sheet().get(group, {})
    if name not in drawings:
        raise UsageError(f"There is no drawing {name!r} in {group!r}; there are {', '.join(drawings) or 'none'}.")
    return drawings[name].copy()
